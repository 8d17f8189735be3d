//! How much the server takes and how long it waits.

use std::time::Duration;

/// Connections at once; more wait in the kernel's queue. Each costs two descriptors and some buffers of memory.
pub const CONNECTIONS_LIMIT: usize = 512;
/// A client that has not sent its request's head after this long is cut: nobody needs longer, slow-loris does.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that yields no byte for this long is cut; its upload stays and can be resumed.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// A request for an upload that another request holds waits this long, then hears 429: the other's client has mostly
/// gone, and the server is about to notice.
pub const UPLOAD_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest blob unless the options say otherwise, in bytes: beyond any layer, below any disk.
pub const BLOB_LIMIT_BYTES: u64 = 256 * 1024 * 1024 * 1024;
/// Upload sessions open at once in one storage directory, whoever opened them: each is a file on disk.
pub const UPLOADS_LIMIT: usize = 4096;
/// An upload that nobody touched for this long is removed.
pub const UPLOAD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Content that no repository holds is removed after this long. Uploads that finish meanwhile are not harmed: they
/// hold their own link.
pub const ORPHAN_LIFE: Duration = Duration::from_secs(60 * 60);
/// How often stale uploads and orphans are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Bytes read from a blob at a time, and gathered of an upload before they are written: large enough that handing
/// them to another thread costs nothing, small enough for hundreds of transfers in memory.
pub const PIECE_BYTES: usize = 512 * 1024;
/// Passwords verified at once: bcrypt is slow on purpose and would take all processors.
pub const PASSWORD_CHECKS_LIMIT: usize = 2;
/// Verified credentials remembered, so that bcrypt runs once a client and not once a request.
pub const PASSWORD_CACHE_LIMIT: usize = 1024;
/// Directories deep that a catalogue looks: names have at most 255 bytes, so at most 128 parts.
pub const NAME_DEPTH_LIMIT: usize = 128;
/// Deepest nesting of indexes that an import follows; real ones have one or two levels.
pub const NESTING_LIMIT: usize = 8;
