//! Files outside of the store that appear whole: written beside their place, then renamed.
//!
//! What is there already and is no plain file (a device, a pipe, `/dev/stdout`) is written to as it is: a rename would
//! take it away from everybody else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Whatever is below these belongs to the kernel: also a plain file that `/dev/stdout` leads to is somebody's stream.
const KERNELS: [&str; 2] = ["/dev", "/proc"];

/// A file that is being written; without [`Aside::keep`] nothing of it stays.
pub struct Aside {
    file: File,
    place: Place,
}

enum Place {
    /// What is there, written to directly.
    There,
    Beside {
        part: PathBuf,
        dest: PathBuf,
        kept: bool,
    },
}

/// Where a file for `dest` goes: none is to what is there. Links to files are followed, and stay.
fn place(dest: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(dest) {
        Ok(found) if found.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")),
        Ok(found) if !found.is_file() || KERNELS.iter().any(|folder| dest.starts_with(folder)) => Ok(None),
        Ok(_) => dest.canonicalize().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            match parent.is_dir() {
                true => Ok(Some(dest.to_path_buf())),
                false => {
                    let reason = format!("there is no folder `{}`", parent.display());
                    Err(io::Error::new(io::ErrorKind::NotFound, reason))
                }
            }
        }
        Err(error) => Err(error),
    }
}

impl Aside {
    /// Whether a file can be written there, as far as that can be seen. Changes nothing.
    pub fn check(dest: &Path) -> io::Result<()> {
        place(dest).map(drop)
    }

    /// An empty file for `dest`.
    pub fn new(dest: &Path) -> io::Result<Aside> {
        let Some(dest) = place(dest)? else {
            return Ok(Aside { file: OpenOptions::new().write(true).open(dest)?, place: Place::There });
        };
        let mut part = dest.as_os_str().to_owned();
        part.push(format!(".part-{}", std::process::id()));
        let part = PathBuf::from(part);
        Ok(Aside { file: File::create(&part)?, place: Place::Beside { part, dest, kept: false } })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place, once it is on disk.
    pub fn keep(mut self) -> io::Result<()> {
        let Place::Beside { part, dest, kept } = &mut self.place else { return Ok(()) };
        self.file.sync_all()?;
        fs::rename(part, dest)?;
        *kept = true;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Place::Beside { part, kept: false, .. } = &self.place {
            // Nothing more can be done about it here.
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("x");
        drop(Aside::new(&dest).unwrap());
        assert!(names(folder.path()).is_empty());
        let aside = Aside::new(&dest).unwrap();
        aside.file().write_all(b"one").unwrap();
        assert!(!dest.exists());
        aside.keep().unwrap();
        assert_eq!((fs::read(&dest).unwrap().as_slice(), names(folder.path())), (&b"one"[..], vec!["x".to_owned()]));
    }

    #[test]
    fn a_link_to_a_file_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (dest, link) = (folder.path().join("x"), folder.path().join("l"));
        fs::write(&dest, "old").unwrap();
        std::os::unix::fs::symlink("x", &link).unwrap();
        let aside = Aside::new(&link).unwrap();
        aside.file().write_all(b"new").unwrap();
        aside.keep().unwrap();
        assert_eq!(fs::read_to_string(&dest).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        let aside = Aside::new(&pipe).unwrap();
        aside.file().write_all(b"through").unwrap();
        aside.keep().unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[test]
    fn places_that_are_none_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = |path: &Path| Aside::check(path).unwrap_err().to_string();
        assert_eq!(wrong(folder.path()), "it is a folder");
        assert!(wrong(&folder.path().join("a/b")).contains("there is no folder `"));
    }
}
