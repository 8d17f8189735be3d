//! How much the server takes and how long it waits.

use std::time::Duration;

/// Connections at once; more wait in the kernel's queue. Each costs two descriptors and some buffers of memory.
pub const CONNECTIONS_LIMIT: usize = 512;
/// Connections at once to the address of the metrics: a few who scrape it.
pub const METRICS_CONNECTIONS_LIMIT: usize = 16;
/// A client that has not sent its request's head after this long is cut: nobody needs longer, slow-loris does.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that yields no byte for this long is cut; its upload stays and can be resumed.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// A request for an upload that another request holds waits this long, then hears 429: the other's client has mostly
/// gone, and the server is about to notice.
pub const UPLOAD_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest blob unless the options say otherwise, in bytes: beyond any layer, below any disk.
pub const BLOB_LIMIT_BYTES: u64 = 256 * 1024 * 1024 * 1024;
/// Upload sessions open at once in one storage directory, whoever opened them: each is a file.
pub const UPLOADS_LIMIT: usize = 4096;
/// An upload that nobody touched for this long is removed.
pub const UPLOAD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A blob that no manifest of its repository names goes when nobody pushed, mounted or asked for it for this long:
/// longer than any push lasts between its first blob and its manifest.
pub const BLOB_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often stale uploads and blobs are looked for, and retention is applied.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How often bytes that were thrown away are removed, and notes of pulls are written down.
pub const TIDY_INTERVAL: Duration = Duration::from_secs(5);
/// How often the files of certificates and users are looked at for changes: a few `stat`s.
pub const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a part of an object. S3 takes 10 000 parts of at least 5 MiB each: 80 GB, and so much memory an upload.
pub const OBJECT_PART_BYTES: usize = 8 * 1024 * 1024;
/// Requests to an object store are tried again so often, and for so long.
pub const OBJECT_RETRIES: usize = 4;
/// See [`OBJECT_RETRIES`].
pub const OBJECT_RETRY_TIME: Duration = Duration::from_secs(60);
/// Entries looked at in one step of a sweep: a step is one transaction, and other writers wait for it.
pub const SWEEP_STEP_ENTRIES: usize = 500;
/// Notes of pulls kept between two writings: more are dropped, a policy by pull time then sees an earlier pull.
pub const SEEN_LIMIT: usize = 100_000;
/// A process waits this long for another one that writes to the same metadata; each write lasts milliseconds.
pub const METADATA_BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections kept for readers of the metadata: as many as can read at once with a few processors.
pub const METADATA_READERS_LIMIT: usize = 16;
/// Connections to a database server for readers, of each registry server; one more writes. A database server has
/// some 100 for all.
pub const DATABASE_READERS_LIMIT: usize = 8;
/// A database server that does not answer for this long is not there.
pub const DATABASE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Writes committed together at most, so that the first of them does not wait for all the others.
pub const GATHERED_WRITES_LIMIT: usize = 256;
/// Blobs and members that one manifest names at most: 4 MiB hold some 30 000 descriptors, real images have 127 layers.
pub const NAMED_LIMIT: usize = 20_000;
/// Tags given with one manifest (`?tag=`): the specification's draft asks for 10 at least; more hear 414.
pub const TAGS_LIMIT: usize = 64;
/// Repositories looked at for one that lets a blob be mounted that was named without a source.
pub const HOLDERS_LIMIT: usize = 64;
/// Bytes read from a blob at a time, and gathered of an upload before they are written: large enough that handing
/// them to another thread costs nothing, small enough for hundreds of transfers in memory.
pub const PIECE_BYTES: usize = 512 * 1024;
/// Passwords verified at once: bcrypt is slow on purpose and would take all processors.
pub const PASSWORD_CHECKS_LIMIT: usize = 2;
/// bcrypt's cost of passwords that we hash: some 50 ms of one processor.
pub const PASSWORD_COST: u32 = 10;
/// Verified credentials remembered, so that bcrypt runs once a client and not once a request.
pub const PASSWORD_CACHE_LIMIT: usize = 1024;
/// A token that allows scopes lives this long, in seconds: what it allows is asked of the grants each time, so it only
/// has to be fetched seldom enough.
pub const TOKEN_LIFE_SECONDS: u64 = 300;
/// A token that stands for a password lives this long, in seconds, unless the password changes: 30 days.
pub const REFRESH_LIFE_SECONDS: u64 = 30 * 24 * 60 * 60;
/// So much may the clocks of servers that share keys differ, in seconds.
pub const TOKEN_SKEW_SECONDS: u64 = 30;
/// Longest token that is looked at, in bytes: some 64 scopes with long names.
pub const TOKEN_LIMIT_BYTES: usize = 32 * 1024;
/// Longest body of a token request, in bytes.
pub const TOKEN_FORM_LIMIT_BYTES: usize = 64 * 1024;
/// A new key signs after this time, in seconds: until then, servers that share its folder read it.
pub const KEY_SETTLE_SECONDS: u64 = 10;
/// Keys in one folder; a rotation needs two.
pub const SIGNING_KEYS_LIMIT: usize = 64;
/// Names of one client certificate that are compared with grants.
pub const CERTIFICATE_NAMES_LIMIT: usize = 64;
/// Folders of repositories that an import looks at: more than any registry has.
pub const FOLDERS_LIMIT: usize = 1_000_000;
/// Deepest nesting of indexes that an import follows; real ones have one or two levels.
pub const NESTING_LIMIT: usize = 8;
