//! Limits of a build.

/// Directories that the stat index knows of one context: 96 MB of disk beside their files; beyond it some are read again.
pub const INDEX_FOLDERS: usize = 1_000_000;
/// Directories of a stat index that may be forgotten ones before it is written without them.
pub const INDEX_STALE_FOLDERS: usize = 1_000;
/// A file changed within this many nanoseconds before it was read may change again without its time stamps telling:
/// kernels without fine-grained stamps tick every 10 ms at most.
pub const RACY_NANOSECONDS: i64 = 50_000_000;
/// The same where stamps are whole seconds: FAT counts every other one.
pub const COARSE_NANOSECONDS: i64 = 3_000_000_000;
/// Files of one source that a fingerprint names one by one: a record of an apply holds their names and digests. Of more
/// it names so many directories, each with a digest; beyond that it has one for all.
pub const NAMED_FILES: usize = 10_000;
/// Readings of a file that keeps changing, before it is an error.
pub const READ_ATTEMPTS: usize = 5;
/// Threads that look through a context or read files of it: more only wait for the same locks of the kernel.
pub const CONTEXT_THREADS: usize = 8;
/// Entries of a context that one instruction reads: more is a mistake (a whole disk), and each costs memory.
pub const CONTEXT_ENTRIES: usize = 2_000_000;
/// Directories below each other in a context: paths that the kernel takes hold no more with names of usual length.
pub const CONTEXT_DEPTH: usize = 256;
/// Links that one path of a context leads through: the kernel's own limit.
pub const CONTEXT_LINKS: usize = 40;
/// Bytes of a Dockerfile, an ignore file or a secret: BuildKit's secrets end at 500 KiB.
pub const SMALL_FILE_BYTES: u64 = 2 << 20;
/// Rounds of lowering: each answers all questions of the one before; more than a few means a circle.
pub const LOWERING_ROUNDS: usize = 20;
/// Lines of a failed command's output that its error repeats.
pub const ERROR_LINES: usize = 20;
/// Submodules below each other: more is a circle.
pub const SUBMODULE_DEPTH: usize = 20;
/// Submodules of a checkout, with theirs: each is a repository of its own to be fetched.
pub const SUBMODULE_COUNT: usize = 1000;
/// Seconds that one call of `git` may take: the largest repositories are fetched in less over slow lines.
pub const GIT_SECONDS: u64 = 3600;
/// Bytes of a manifest or config of an image layout: what registries take at most.
pub const DOCUMENT_BYTES: u64 = 4 << 20;
/// Seconds until a server that `ssh` calls has answered: as long as people wait for a page.
pub const SSH_CONNECT_SECONDS: u64 = 20;
/// Bytes of what one call of `git` prints: a million refs, or files of a tree.
pub const GIT_OUTPUT_BYTES: u64 = 128 << 20;
/// Bytes of a file that ADD downloads.
pub const DOWNLOAD_BYTES: u64 = 16 << 30;
/// Bytes of an image's `/etc/passwd` and the like that are read to add an account.
pub const ACCOUNT_FILE_BYTES: u64 = 4 << 20;
/// Bytes of a message to or from an ssh agent: OpenSSH's own limit.
pub const AGENT_MESSAGE_BYTES: usize = 256 << 10;
/// Earlier runs of an operation that its inputs are compared with: one for each branch that is built in turn.
pub const EARLIER_RUNS: usize = 4;
/// Layers of one cache that may turn out bad before none of its others are tried.
pub const CACHE_FAILURES: usize = 3;
/// Earlier builds of an image that are noted to say later what changed: a few days of work, 50 KB each.
pub const NOTED_BUILDS: usize = 20;
/// Files of an instruction that are noted together, 100 bytes each: one that changed makes all of them written anew.
pub const NOTED_PART_FILES: usize = 1_000;
/// Bytes of an instruction or a variable that are noted; the rest is a hash.
pub const NOTED_TEXT_BYTES: usize = 8 << 10;
/// Entries of an image's own layers that advice looks at: 10 s of work; what lies behind them is not advised on.
pub const ADVICE_FILES: usize = 300_000;
/// Bytes below which nothing is said: less than a file of the image's own metadata.
pub const ADVICE_MIN_BYTES: u64 = 1 << 10;
