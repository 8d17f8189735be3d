//! Files that somebody named: read without ever waiting for a writer that may not come.
//!
//! Opening a FIFO waits until somebody writes to it, and nothing ends that wait but a signal that kills. What was handed
//! over on purpose is another matter: `-f /dev/stdin`, or the pipe that a shell makes of `<(command)`.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstatfs};
use rustix::io::Errno;

/// The type of the filesystem in which the kernel keeps pipes without a name (`linux/magic.h`).
const PIPEFS_MAGIC: u64 = 0x5049_5045;

/// Opens a regular file, or a pipe or terminal that this process was handed. An error for any other pipe, socket or
/// device: it says what it is. Nothing is waited for.
pub fn open_given(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        // What the kernel says when a socket is opened, or a device that nothing is behind.
        Some(code) if code == Errno::NXIO.raw_os_error() => no_regular_file("a socket or device"),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    // Reading a directory fails by itself, in the kernel's words.
    if kind.is_file() || kind.is_dir() {
        return Ok(file);
    }
    if !is_handed(path) && fstatfs(&file)?.f_type as u64 != PIPEFS_MAGIC {
        return Err(no_regular_file(what_it_is(kind)));
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// All of such a file.
pub fn read_given(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_given(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of such a file as text; an error if it is not UTF-8.
pub fn read_given_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_given(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a path is one of this process's own descriptors by its name.
fn is_handed(path: &Path) -> bool {
    let parts: Vec<&str> = path.to_str().unwrap_or_default().split('/').filter(|part| !part.is_empty()).collect();
    matches!(parts[..], ["dev", "stdin"] | ["dev", "fd", _] | ["proc", _, "fd", _])
}

fn what_it_is(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

fn no_regular_file(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is no regular file but {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[track_caller]
    fn refuses(path: &Path, what: &str) {
        assert_eq!(open_given(path).unwrap_err().to_string(), format!("it is no regular file but {what}"));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        refuses(&fifo, "a FIFO");
        refuses(&socket, "a socket or device");
        refuses(Path::new("/dev/zero"), "a device");
    }

    #[test]
    fn files_and_handed_pipes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_given_text(&file).unwrap(), "text");
        let (read, mut write) = io::pipe().unwrap();
        let writer = std::thread::spawn(move || {
            // The reader has to wait: it must not be told that there is nothing yet.
            std::thread::sleep(std::time::Duration::from_millis(50));
            write.write_all(b"late").unwrap();
        });
        assert_eq!(read_given(Path::new(&format!("/proc/self/fd/{}", read.as_raw_fd()))).unwrap(), b"late");
        writer.join().unwrap();
        assert!(is_handed(Path::new("/dev/stdin")) && !is_handed(Path::new("dev/null")));
    }
}
