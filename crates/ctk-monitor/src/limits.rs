//! Limits of this crate: name, unit, reason.

use std::time::Duration;

/// Bytes of one of a container's documents: a container of thousands of labels has a tenth of this.
pub const DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Containers of a directory that are looked at.
pub const CONTAINERS: usize = 100_000;

/// Characters of a container's name: a file name, and a name in DNS.
pub const NAME_CHARACTERS: usize = 128;

/// Bytes that are read from a container at once: what a pipe holds.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of one frame between a monitor and its clients; a larger one is not ours.
pub const FRAME_BYTES: usize = 1024 * 1024;

/// Bytes kept for a client that does not read. With more, the container waits: nothing is lost, nothing grows.
pub const CLIENT_BUFFER_BYTES: usize = 1024 * 1024;

/// Bytes kept for a container that does not read its input. With more, the clients wait.
pub const INPUT_BUFFER_BYTES: usize = 64 * 1024;

/// Clients of one monitor at a time: people and programs that look at one container.
pub const CLIENTS: usize = 256;

/// Bytes of a log line in one entry of the log; longer ones go as several (the entries of container logs are parted by
/// other runtimes at the same length).
pub const LOG_LINE_BYTES: usize = 16 * 1024;

/// Bytes of a log before the next file is begun, by default.
pub const LOG_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Files of a log that are kept, by default.
pub const LOG_FILES: u32 = 4;

/// Files of a log that can be kept.
pub const LOG_FILES_MAX: u32 = 1000;

/// Bytes of output of a health check that are kept.
pub const HEALTH_OUTPUT_BYTES: usize = 4096;

/// Results of health checks that are kept.
pub const HEALTH_RESULTS: usize = 5;

/// How long a container is given to end by itself, by default.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long a killed container may take to be gone: it may be in the kernel's hands for a while.
pub const KILL_WAIT: Duration = Duration::from_secs(30);

/// The first pause before a restart; each further one is twice as long.
pub const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before a restart.
pub const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A container that ran so long is restarted after the first pause again.
pub const RESTART_SETTLED: Duration = Duration::from_secs(10);

/// How long the streams of an ended container may be silent before they are given up: somebody else may hold them open.
pub const DRAIN: Duration = Duration::from_secs(2);

/// How long who only asked something is given to read the answer, when a container has ended.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// How often those who follow a log look for what they were not told of.
pub const FOLLOW_POLL: Duration = Duration::from_millis(50);

/// How long commands wait for a monitor to answer a request that needs no waiting.
pub const ANSWER: Duration = Duration::from_secs(30);

/// Bytes of the file of events before another is begun.
pub const EVENT_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of one event; one of a container with more labels than that is not told.
pub const EVENT_LINE_BYTES: usize = 256 * 1024;

/// How long a container's monitor keeps the memory that its start took, once nothing happens.
pub const SETTLED: Duration = Duration::from_secs(1);
