//! Options of a mount (`config.md#linux-mount-options`): what each word means.

/// `MOUNT_ATTR_RDONLY`.
pub const READ_ONLY: u64 = 0x01;
/// `MOUNT_ATTR_NOSUID`.
pub const NO_SUID: u64 = 0x02;
/// `MOUNT_ATTR_NODEV`.
pub const NO_DEVICES: u64 = 0x04;
/// `MOUNT_ATTR_NOEXEC`.
pub const NO_EXEC: u64 = 0x08;
/// `MOUNT_ATTR__ATIME`, the field of three values.
const ATIME: u64 = 0x70;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;
const NO_DIRECTORY_ATIME: u64 = 0x80;
const NO_SYMLINK_FOLLOW: u64 = 0x20_0000;

/// What one word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Set(u64),
    Clear(u64),
    SetAll(u64),
    ClearAll(u64),
    Atime(u64),
    AtimeAll(u64),
    Bind {
        recursive: bool,
    },
    Propagation(u64),
    /// For the file system: `fsconfig` knows it.
    Pass,
    /// Makes no difference with the mounts that a container gets.
    Nothing,
    CopyUp,
    Map {
        recursive: bool,
    },
}

const SHARED: u64 = libc::MS_SHARED;
const SLAVE: u64 = libc::MS_SLAVE;
const PRIVATE: u64 = libc::MS_PRIVATE;
const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
const RECURSIVE: u64 = libc::MS_REC;

#[rustfmt::skip]
const WORDS: &[(&str, Effect)] = &[
    ("acl", Effect::Pass), ("async", Effect::Nothing), ("atime", Effect::Clear(NO_ATIME)),
    ("bind", Effect::Bind { recursive: false }), ("defaults", Effect::Nothing), ("dev", Effect::Clear(NO_DEVICES)),
    ("diratime", Effect::Clear(NO_DIRECTORY_ATIME)), ("dirsync", Effect::Pass), ("exec", Effect::Clear(NO_EXEC)),
    ("idmap", Effect::Map { recursive: false }), ("iversion", Effect::Pass), ("lazytime", Effect::Pass),
    ("loud", Effect::Nothing), ("mand", Effect::Pass), ("noacl", Effect::Pass),
    ("noatime", Effect::Atime(NO_ATIME)), ("nodev", Effect::Set(NO_DEVICES)),
    ("nodiratime", Effect::Set(NO_DIRECTORY_ATIME)), ("noexec", Effect::Set(NO_EXEC)),
    ("noiversion", Effect::Nothing), ("nolazytime", Effect::Nothing), ("nomand", Effect::Nothing),
    ("norelatime", Effect::Nothing), ("nostrictatime", Effect::Nothing), ("nosuid", Effect::Set(NO_SUID)),
    ("nosymfollow", Effect::Set(NO_SYMLINK_FOLLOW)), ("private", Effect::Propagation(PRIVATE)),
    ("ratime", Effect::ClearAll(NO_ATIME)), ("rbind", Effect::Bind { recursive: true }),
    ("rdev", Effect::ClearAll(NO_DEVICES)), ("rdiratime", Effect::ClearAll(NO_DIRECTORY_ATIME)),
    ("relatime", Effect::Atime(0)), ("remount", Effect::Nothing), ("rexec", Effect::ClearAll(NO_EXEC)),
    ("ridmap", Effect::Map { recursive: true }), ("rnoatime", Effect::AtimeAll(NO_ATIME)),
    ("rnodev", Effect::SetAll(NO_DEVICES)), ("rnodiratime", Effect::SetAll(NO_DIRECTORY_ATIME)),
    ("rnoexec", Effect::SetAll(NO_EXEC)), ("rnorelatime", Effect::Nothing), ("rnostrictatime", Effect::Nothing),
    ("rnosuid", Effect::SetAll(NO_SUID)), ("rnosymfollow", Effect::SetAll(NO_SYMLINK_FOLLOW)),
    ("ro", Effect::Set(READ_ONLY)), ("rprivate", Effect::Propagation(PRIVATE | RECURSIVE)),
    ("rrelatime", Effect::AtimeAll(0)), ("rro", Effect::SetAll(READ_ONLY)), ("rrw", Effect::ClearAll(READ_ONLY)),
    ("rshared", Effect::Propagation(SHARED | RECURSIVE)), ("rslave", Effect::Propagation(SLAVE | RECURSIVE)),
    ("rstrictatime", Effect::AtimeAll(STRICT_ATIME)), ("rsuid", Effect::ClearAll(NO_SUID)),
    ("rsymfollow", Effect::ClearAll(NO_SYMLINK_FOLLOW)),
    ("runbindable", Effect::Propagation(UNBINDABLE | RECURSIVE)), ("rw", Effect::Clear(READ_ONLY)),
    ("shared", Effect::Propagation(SHARED)), ("silent", Effect::Nothing), ("slave", Effect::Propagation(SLAVE)),
    ("strictatime", Effect::Atime(STRICT_ATIME)), ("suid", Effect::Clear(NO_SUID)),
    ("symfollow", Effect::Clear(NO_SYMLINK_FOLLOW)), ("sync", Effect::Pass), ("tmpcopyup", Effect::CopyUp),
    ("unbindable", Effect::Propagation(UNBINDABLE)),
];

/// Every word that is more than data of a file system, in order.
pub fn known() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
}

/// Whether a word means something for every file system.
pub fn is_known(word: &str) -> bool {
    WORDS.binary_search_by(|(known, _)| (*known).cmp(word)).is_ok()
}

/// What all options of a mount together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `Some(recursive)` for a bind mount.
    pub bind: Option<bool>,
    /// `MOUNT_ATTR_…` to set.
    pub set: u64,
    /// `MOUNT_ATTR_…` to clear.
    pub clear: u64,
    /// The same for the mount and all below it.
    pub set_all: u64,
    /// The same for the mount and all below it.
    pub clear_all: u64,
    /// `MS_…` propagation, or 0.
    pub propagation: u64,
    /// Whether what the directory held is copied into the tmpfs.
    pub copy_up: bool,
    /// `Some(recursive)` for mapped ids.
    pub map: Option<bool>,
    /// For the file system: name and value; no value for a flag.
    pub data: Vec<(String, String)>,
}

/// Reads the words in order: a later one wins.
pub fn parse(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let effect = match WORDS.binary_search_by(|(known, _)| (*known).cmp(word)) {
            Ok(found) => WORDS.get(found).map_or(Effect::Pass, |(_, effect)| *effect),
            Err(_) => Effect::Pass,
        };
        let (set, clear) = (&mut options.set, &mut options.clear);
        match effect {
            Effect::Set(bits) => (*set, *clear) = (*set | bits, *clear & !bits),
            Effect::Clear(bits) => (*set, *clear) = (*set & !bits, *clear | bits),
            Effect::Atime(value) => (*set, *clear) = (*set & !ATIME | value, *clear | ATIME),
            Effect::SetAll(bits) => {
                (options.set_all, options.clear_all) = (options.set_all | bits, options.clear_all & !bits);
            }
            Effect::ClearAll(bits) => {
                let bits = if bits == NO_ATIME { ATIME } else { bits };
                (options.set_all, options.clear_all) = (options.set_all & !bits, options.clear_all | bits);
            }
            Effect::AtimeAll(value) => {
                (options.set_all, options.clear_all) = (options.set_all & !ATIME | value, options.clear_all | ATIME);
            }
            Effect::Bind { recursive } => options.bind = Some(recursive || options.bind == Some(true)),
            Effect::Propagation(flags) => options.propagation = flags,
            Effect::CopyUp => options.copy_up = true,
            Effect::Map { recursive } => options.map = Some(recursive),
            Effect::Nothing => {}
            Effect::Pass => {
                let (name, value) = word.split_once('=').unwrap_or((word, ""));
                options.data.push((name.into(), value.into()));
            }
        }
    }
    // The field of access times is cleared whenever it is set: the kernel wants both.
    if options.clear & NO_ATIME != 0 {
        options.clear |= ATIME;
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(WORDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[track_caller]
    fn check(words: &str, expected: Options) {
        let words: Vec<String> = words.split(',').map(String::from).collect();
        assert_eq!(parse(&words), expected);
    }

    #[test]
    fn words_add_up_and_the_last_wins() {
        let data = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        check("", Options::default());
        check("ro,rw", Options { clear: READ_ONLY, ..Options::default() });
        check(
            "nosuid,strictatime,mode=755,size=65536k",
            Options {
                set: NO_SUID | STRICT_ATIME,
                clear: ATIME,
                data: data(&[("mode", "755"), ("size", "65536k")]),
                ..Options::default()
            },
        );
        check("rbind,rro,bind", Options { bind: Some(true), set_all: READ_ONLY, ..Options::default() });
        check("rshared", Options { propagation: SHARED | RECURSIVE, ..Options::default() });
        check(
            "newinstance,tmpcopyup",
            Options { copy_up: true, data: data(&[("newinstance", "")]), ..Options::default() },
        );
        check(
            "ridmap,rnoatime",
            Options { map: Some(true), set_all: NO_ATIME, clear_all: ATIME, ..Options::default() },
        );
    }
}
