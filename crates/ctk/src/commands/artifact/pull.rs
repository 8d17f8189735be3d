//! `ctk artifact pull`: the files of an artifact into a folder.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use ctk_client::{ARTIFACT_FILES_LIMIT, Client};
use ctk_oci::{Descriptor, Manifest, Platform, Reference, media_type};
use ctk_plan::{Address, Cancel, Kind, Reporter, Step};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use crate::commands::output;
use crate::context::Context;
use crate::failure::{Failure, of_client};

/// The annotation that has a file's name.
const TITLE: &str = "org.opencontainers.image.title";

/// The annotation of a folder that was packed as tar, which oras writes.
const PACKED: &str = "io.deis.oras.content.unpack";

/// Files on their way at once.
const AT_ONCE: usize = 4;

/// Fetch the files of an artifact into a folder
#[derive(Args)]
pub struct Pull {
    /// The artifact
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// The folder; files that it has under these names are replaced
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Of an index the artifact for this platform
    #[arg(long)]
    platform: Option<Platform>,
}

impl Pull {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let cancel = context.cancel_on_interrupt();
        let client = context.client();
        let reference = context.full_name(&self.reference, &cancel)?.or_latest();
        let (found, bytes) = client.manifest(&reference, self.platform.as_ref(), &cancel).map_err(of_client)?;
        if media_type::is_index(&found.media_type) {
            let hint = "`--platform` chooses a member; so does its digest";
            return Err(Failure::sentence(format!("`{reference}` is an index, not one artifact"), Some(hint)));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(Failure::during(format!("cannot read the manifest of `{reference}`")))?;
        let files = named(&manifest)?;
        std::fs::create_dir_all(&self.output)
            .map_err(Failure::during(format!("cannot make the folder `{}`", self.output.display())))?;
        let folder = rustix::fs::open(&self.output, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Failure::during(format!("cannot open the folder `{}`", self.output.display())))?;
        let reporter = Reporter::new(Address::new(Kind::Image, reference.to_string()), context.sink());
        let step = reporter.step("pull");
        let fetched = fetch(&client, &reference, &files, &folder, &step, &cancel);
        step.finish(match &fetched {
            Ok(()) => ctk_plan::Outcome::Done,
            Err(_) => ctk_plan::Outcome::Failed("not all files are there".into()),
        });
        context.end_story();
        fetched?;
        output(&files.iter().map(|(name, _)| format!("{}\n", self.output.join(name).display())).collect::<String>())
    }
}

/// Every file with its name below the folder. A layer without a title is called by its digest.
fn named(manifest: &Manifest) -> Result<Vec<(String, Descriptor)>, Failure> {
    let mut files = Vec::new();
    let mut names = HashSet::new();
    for layer in manifest.layers.iter().filter(|layer| layer.media_type != media_type::EMPTY_JSON) {
        let name = match layer.annotations.get(TITLE) {
            Some(title) if is_plain(title) => title.clone(),
            Some(title) => {
                let hint = "a name may not be absolute, nor hold `..`, an empty part or control characters";
                return Err(Failure::sentence(
                    format!("the artifact names a file `{}`", title.escape_debug()),
                    Some(hint),
                ));
            }
            None => format!("{}-{}", layer.digest.algorithm().name(), layer.digest.hex()),
        };
        // A folder that oras packed: it comes as the archive that it is.
        let name = match layer.annotations.get(PACKED).map(String::as_str) {
            Some("true") if layer.media_type.contains("gzip") => name + ".tar.gz",
            Some("true") => name + ".tar",
            _ => name,
        };
        if names.insert(name.clone()) {
            files.push((name, layer.clone()));
        } else if !files.iter().any(|(known, other)| *known == name && other.digest == layer.digest) {
            return Err(Failure::sentence(format!("the artifact has two files called `{name}`"), None));
        }
    }
    match files.len() {
        0 => Err(Failure::sentence("the artifact has no files", None)),
        n if n > ARTIFACT_FILES_LIMIT => {
            Err(Failure::sentence(format!("the artifact has more than {ARTIFACT_FILES_LIMIT} files"), None))
        }
        _ => Ok(files),
    }
}

fn is_plain(title: &str) -> bool {
    title.len() < 4096
        && !title.chars().any(char::is_control)
        && title.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() < 200)
}

fn fetch(
    client: &Client,
    reference: &Reference,
    files: &[(String, Descriptor)],
    folder: &OwnedFd,
    step: &Step,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failed>> = Mutex::new(None);
    let step = if files.len() == 1 { Some(step) } else { None };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(files.len()) {
            scope.spawn(|| {
                while failed.lock().expect("no holder panics").is_none()
                    && let Some((name, blob)) = files.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = fetch_one(client, reference, name, blob, folder, step, cancel) {
                        failed.lock().expect("no holder panics").get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("no holder panics") {
        None => Ok(()),
        Some(Failed::Client(error)) => Err(of_client(*error)),
        Some(Failed::File(name, error)) => Err(Failure::during(format!("cannot write `{name}`"))(error)),
    }
}

enum Failed {
    Client(Box<ctk_client::ClientError>),
    File(String, io::Error),
}

/// Written beside its place, which the kernel finds below the folder whatever links lie about there, then renamed.
fn fetch_one(
    client: &Client,
    reference: &Reference,
    name: &str,
    blob: &Descriptor,
    folder: &OwnedFd,
    step: Option<&Step>,
    cancel: &Cancel,
) -> Result<(), Failed> {
    let of_file = |error: rustix::io::Errno| Failed::File(name.to_owned(), error.into());
    let (parent, last) = match name.rsplit_once('/') {
        Some((parent, last)) => (below(folder, parent).map_err(of_file)?, last),
        None => (folder.try_clone().map_err(|error| Failed::File(name.to_owned(), error))?, name),
    };
    let part = format!(".{}.part-{}", &blob.digest.hex()[..32], std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, &part, flags, Mode::from_raw_mode(0o644)).map_err(of_file)?;
    let mut file = File::from(file);
    let fetched = client.fetch_blob(reference, blob, &mut file, step, cancel);
    let done = match fetched {
        Ok(()) => rustix::fs::renameat(&parent, &part, &parent, last).map_err(of_file),
        Err(error) => Err(Failed::Client(Box::new(error))),
    };
    if done.is_err() {
        // What failed matters more than that of cleaning up after it.
        let _ = rustix::fs::unlinkat(&parent, &part, AtFlags::empty());
    }
    done
}

/// The folder of that path, made where it is missing.
fn below(folder: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let mut at = rustix::fs::openat2(folder, ".", flags(), Mode::empty(), ResolveFlags::BENEATH)?;
    for part in path.split('/') {
        match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        at = rustix::fs::openat2(&at, part, flags(), Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    }
    Ok(at)
}

fn flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn names_stay_below_the_folder() {
        for (name, expected) in [
            ("a", true),
            ("a/b.c", true),
            ("..a/b", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("../a", false),
            ("a/../b", false),
            ("./a", false),
            ("a\nb", false),
        ] {
            assert_eq!(is_plain(name), expected, "{name:?}");
        }
    }
}
