//! Options of a volume, as docker's `local` driver has them: what is mounted instead of a folder of the store.

use std::collections::BTreeMap;

use ctk_oci::Mount;

use crate::Error;

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A folder of the store.
    Folder,
    /// Something that is mounted at `/` of this, for each container anew.
    Mounted(Mount),
}

/// What the options of a volume say besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What it is made of.
    pub backing: Backing,
    /// The owner that was asked for.
    pub owner: Option<(u32, u32)>,
    /// Whether it stays empty when it is first mounted.
    pub no_copy: bool,
}

const KEYS: [&str; 4] = ["type", "device", "o", "nocopy"];
/// Types that name a server: they need a helper that finds it, and a network.
const OF_NETWORKS: [&str; 6] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p"];

/// Reads the options `type`, `device` and `o`.
pub fn read(options: &BTreeMap<String, String>) -> Result<Read, Error> {
    let wrong = |key: &str, reason: String| {
        let value = options.get(key).map(|value| format!("={value}")).unwrap_or_default();
        Error::Option { option: format!("{key}{value}"), reason }
    };
    for key in options.keys() {
        if !KEYS.contains(&key.as_str()) {
            let near = ctk_syntax::nearest(key, KEYS).map(|near| format!("; did you mean `{near}`?"));
            let reason = format!("there are `type`, `device`, `o` and `nocopy`{}", near.unwrap_or_default());
            return Err(wrong(key, reason));
        }
    }
    let get = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let (mut ids, mut words) = ((None, None), Vec::new());
    for word in get("o").unwrap_or_default().split(',').filter(|word| !word.is_empty()) {
        let id = |text: &str| {
            let id: Option<u32> = text.parse().ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| wrong("o", format!("`{text}` is no number of a user or group")))
        };
        match word.split_once('=') {
            Some(("uid", value)) => ids.0 = Some(id(value)?),
            Some(("gid", value)) => ids.1 = Some(id(value)?),
            _ => words.push(word),
        }
    }
    let no_copy =
        get("nocopy").is_some_and(|value| value != "false") || options.get("nocopy").is_some_and(String::is_empty);
    let owner = (ids != (None, None)).then(|| (ids.0.unwrap_or(0), ids.1.unwrap_or(0)));
    let (kind, device) = (get("type"), get("device"));
    let binds = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
    let mounted = |mount: Mount| Ok(Read { backing: Backing::Mounted(mount), owner, no_copy: true });
    match (kind, device) {
        (None, None) if words.is_empty() => Ok(Read { backing: Backing::Folder, owner, no_copy }),
        (None, None) => {
            Err(wrong("o", format!("`{}` is of a mount, and there is no `type` and no `device`", words.join(","))))
        }
        (Some("tmpfs"), _) => {
            let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            words.extend(ids.0.map(|uid| format!("uid={uid}")));
            words.extend(ids.1.map(|gid| format!("gid={gid}")));
            let words: Vec<&str> = ["nosuid", "nodev"].into_iter().chain(words.iter().map(String::as_str)).collect();
            mounted(Mount::new("tmpfs", "tmpfs", "/", &words))
        }
        (None | Some("none" | "bind"), Some(device)) if binds || kind == Some("bind") => {
            if !device.starts_with('/') {
                return Err(wrong("device", "a folder that is shown is an absolute path".into()));
            }
            if !binds {
                words.push("rbind");
            }
            mounted(Mount::new("bind", device, "/", &words))
        }
        (None | Some("none"), Some(_)) => {
            Err(wrong("device", "`type=` is missing; `o=bind` shows a folder of the host".into()))
        }
        (Some("none" | "bind"), None) => Err(wrong("type", "`device=PATH` is missing".into())),
        (Some(network), _) if OF_NETWORKS.contains(&network) => {
            let reason = "file systems of a network are not mounted; mount it on the host, and show that folder with \
                          `type=none,o=bind,device=PATH`";
            Err(wrong("type", reason.into()))
        }
        (Some(_), None) => Err(wrong("type", "`device=` is missing".into())),
        (Some(kind), Some(device)) => mounted(Mount::new(kind, device, "/", &words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        let pair = |word: &str| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            (name.to_owned(), value.to_owned())
        };
        text.split(' ').filter(|word| !word.is_empty()).map(pair).collect()
    }

    #[track_caller]
    fn check(text: &str, kind: &str, source: &str, words: &[&str]) {
        let read = read(&options(text)).unwrap();
        assert_eq!(read.backing, Backing::Mounted(Mount::new(kind, source, "/", words)), "{text}");
    }

    #[track_caller]
    fn wrong(text: &str, said: &str) {
        let error = read(&options(text)).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }

    #[test]
    fn options_are_those_of_the_local_driver() {
        assert_eq!(read(&options("")).unwrap().backing, Backing::Folder);
        assert_eq!(read(&options("o=uid=5,gid=6")).unwrap().owner, Some((5, 6)));
        check("type=tmpfs device=tmpfs o=size=1m,uid=5", "tmpfs", "tmpfs", &["nosuid", "nodev", "size=1m", "uid=5"]);
        check("type=none device=/srv o=bind,ro", "bind", "/srv", &["bind", "ro"]);
        check("type=bind device=/srv", "bind", "/srv", &["rbind"]);
        check("type=ext4 device=/dev/sdz o=noatime", "ext4", "/dev/sdz", &["noatime"]);
    }

    #[test]
    fn what_cannot_be_says_what_to_do() {
        wrong("typ=tmpfs", "did you mean `type`?");
        wrong("type=nfs device=:/x o=addr=10.0.0.1", "mount it on the host");
        wrong("type=none device=srv o=bind", "absolute");
        wrong("device=/srv", "o=bind");
        wrong("type=ext4", "`device=` is missing");
        wrong("o=size=5m", "no `type`");
        wrong("o=uid=root", "`root` is no number");
    }
}
