//! The command line that runc and crun have, read by a table: options may stand before and after the verb and after the
//! container's name. Without the parser of `ctk` itself, whose making alone costs a container's start.

/// An option.
pub struct Flag {
    /// Its long name.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Whether a value follows.
    pub value: bool,
    /// One line of help.
    pub help: &'static str,
}

const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, value: false, help }
}

const fn value(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, value: true, help }
}

/// A verb.
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// Its operands.
    pub operands: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Its own options.
    pub flags: &'static [Flag],
    /// How many operands there are at most before the words of somebody else's program begin; none ends the options
    /// only with `--`.
    pub verbatim_after: Option<usize>,
}

/// Options of every verb.
pub const GLOBAL: &[Flag] = &[
    value("root", None, "where containers are written down"),
    value("log", None, "file for messages; they go to standard error too"),
    value("log-format", None, "text or json"),
    value("log-level", None, "debug, info, warning or error"),
    switch("debug", None, "the same as --log-level debug: plans are written to the log"),
    switch("systemd-cgroup", None, "cgroups are made by systemd; linux.cgroupsPath is slice:prefix:name"),
    value("cgroup-manager", None, "cgroupfs, or systemd: the same as --systemd-cgroup"),
    value("rootless", None, "accepted; what is possible is found out"),
    value("criu", None, "the program that checkpoints and restores; by default `criu` in $PATH"),
    switch("help", Some('h'), "this text"),
];

const BUNDLE: Flag = value("bundle", Some('b'), "the directory with config.json; by default this one");
const CONSOLE: Flag = value("console-socket", None, "unix socket that gets the terminal");
const PIDFD: Flag = value("pidfd-socket", None, "unix socket that gets a pidfd of the first process");
const PID_FILE: Flag = value("pid-file", None, "file for the process id");
const PRESERVE: Flag = value("preserve-fds", None, "how many files from 3 on the process keeps");
const NO_PIVOT: Flag = switch("no-pivot", None, "chroot instead of pivot_root, for a root on an initial ramdisk");
const NO_KEYRING: Flag = switch("no-new-keyring", None, "stay in the caller's session keyring");
const SUBREAPER: Flag = switch("no-subreaper", None, "accepted; this runtime is none");

const IMAGES: Flag = value("image-path", None, "directory of images; by default ./checkpoint");
const WORK: Flag = value("work-path", None, "directory of CRIU's logs; by default that of images");
const TCP: Flag = switch("tcp-established", None, "keep connections of TCP");
const UNIX: Flag = switch("ext-unix-sk", None, "allow unix sockets whose other end is elsewhere");
const SHELL: Flag = switch("shell-job", None, "allow processes of a shell's session");
const LOCKS: Flag = switch("file-locks", None, "keep file locks");
const MODE: Flag = value("manage-cgroups-mode", None, "soft, full, strict or ignore");
const EMPTY: Flag = value("empty-ns", None, "network: leave that namespace empty");
const DEDUP: Flag = switch("auto-dedup", None, "keep memory once that is in images of before");

/// Every verb.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "create",
        operands: "ID",
        help: "make a container that waits for its start",
        flags: &[BUNDLE, CONSOLE, PIDFD, PID_FILE, PRESERVE, NO_PIVOT, NO_KEYRING, SUBREAPER],
        verbatim_after: None,
    },
    Verb { name: "start", operands: "ID", help: "start a created container", flags: &[], verbatim_after: None },
    Verb {
        name: "run",
        operands: "ID",
        help: "make and start a container, and stay with it",
        flags: &[
            BUNDLE,
            CONSOLE,
            PIDFD,
            PID_FILE,
            PRESERVE,
            NO_PIVOT,
            NO_KEYRING,
            SUBREAPER,
            switch("detach", Some('d'), "do not stay with it"),
            switch("keep", None, "do not delete it when it has ended"),
        ],
        verbatim_after: None,
    },
    Verb { name: "state", operands: "ID", help: "what a container is, as JSON", flags: &[], verbatim_after: None },
    Verb {
        name: "kill",
        operands: "ID [SIGNAL]",
        help: "send a signal, by default TERM",
        flags: &[switch("all", Some('a'), "to all of its processes")],
        verbatim_after: None,
    },
    Verb {
        name: "delete",
        operands: "ID…",
        help: "remove a container that has stopped",
        flags: &[switch("force", Some('f'), "whatever it does")],
        verbatim_after: None,
    },
    Verb {
        name: "exec",
        operands: "ID COMMAND [ARGUMENT…]",
        help: "run a further process in a container",
        flags: &[
            switch(
                "exit-codes",
                None,
                "125 for a failure of ours, 126 and 127 for a program that cannot be executed or is not there",
            ),
            CONSOLE,
            PIDFD,
            PID_FILE,
            PRESERVE,
            value("process", Some('p'), "file with the process as config.json has it"),
            value("cwd", None, "working directory"),
            value("env", Some('e'), "NAME=VALUE; may be repeated"),
            switch("tty", Some('t'), "with a terminal"),
            value("user", Some('u'), "UID[:GID]"),
            value("additional-gids", Some('g'), "a group beside that; may be repeated"),
            switch("detach", Some('d'), "do not stay with it"),
            switch("no-new-privs", None, "no new privileges"),
            value("cap", Some('c'), "a capability more; may be repeated"),
            value("cgroup", None, "a cgroup below the container's: PATH or CONTROLLER:PATH; may be repeated"),
            value("apparmor", None, "AppArmor profile"),
            value("process-label", None, "SELinux label"),
            switch("ignore-paused", None, "also when the container is paused"),
            SUBREAPER,
        ],
        verbatim_after: Some(1),
    },
    Verb {
        name: "ps",
        operands: "ID [PS-OPTION…]",
        help: "the processes of a container",
        flags: &[value("format", Some('f'), "table or json")],
        verbatim_after: Some(1),
    },
    Verb {
        name: "list",
        operands: "",
        help: "all containers",
        flags: &[value("format", Some('f'), "table or json"), switch("quiet", Some('q'), "names only")],
        verbatim_after: None,
    },
    Verb {
        name: "pause",
        operands: "ID",
        help: "stop all of its processes where they are",
        flags: &[],
        verbatim_after: None,
    },
    Verb { name: "resume", operands: "ID", help: "let them go on", flags: &[], verbatim_after: None },
    Verb {
        name: "update",
        operands: "ID",
        help: "change limits",
        flags: &[
            value("resources", Some('r'), "file with linux.resources, - for standard input"),
            value("blkio-weight", None, "10 to 1000"),
            value("cpu-period", None, "microseconds"),
            value("cpu-quota", None, "microseconds in each period"),
            value("cpu-burst", None, "microseconds saved up"),
            value("cpu-share", None, "relative weight"),
            value("cpu-shares", None, "the same"),
            value("cpu-rt-period", None, "microseconds"),
            value("cpu-rt-runtime", None, "microseconds in each period"),
            value("cpu-idle", None, "1: only when nobody else wants"),
            value("cpuset-cpus", None, "processors, as 0-3,7"),
            value("cpuset-mems", None, "memory nodes"),
            value("kernel-memory", None, "passed over: kernels have it no more"),
            value("kernel-memory-tcp", None, "bytes"),
            value("memory", None, "bytes"),
            value("memory-reservation", None, "bytes"),
            value("memory-swap", None, "bytes of memory and swap together; -1: unlimited"),
            value("pids-limit", None, "processes; -1: unlimited"),
        ],
        verbatim_after: None,
    },
    Verb {
        name: "events",
        operands: "ID",
        help: "what it uses, as JSON lines",
        flags: &[switch("stats", None, "once"), value("interval", None, "seconds, by default 5")],
        verbatim_after: None,
    },
    Verb {
        name: "spec",
        operands: "",
        help: "write a config.json to start from",
        flags: &[BUNDLE, switch("rootless", None, "for an ordinary user")],
        verbatim_after: None,
    },
    Verb {
        name: "features",
        operands: "",
        help: "what this runtime can do, as JSON",
        flags: &[],
        verbatim_after: None,
    },
    Verb {
        name: "checkpoint",
        operands: "ID",
        help: "write a container's processes down, with CRIU",
        flags: &[
            IMAGES,
            WORK,
            value("parent-path", None, "images of a --pre-dump, relative to --image-path"),
            switch("leave-running", None, "the container goes on; without this it is removed"),
            TCP,
            switch("tcp-skip-in-flight", None, "pass over connections that are not made yet"),
            UNIX,
            SHELL,
            switch("lazy-pages", None, "refused"),
            value("status-fd", None, "refused: for --lazy-pages"),
            value("page-server", None, "ADDRESS:PORT that memory is sent to"),
            LOCKS,
            switch("link-remap", None, "give files without a name one"),
            switch("pre-dump", None, "write memory down only, and let it go on"),
            MODE,
            EMPTY,
            DEDUP,
        ],
        verbatim_after: None,
    },
    Verb {
        name: "restore",
        operands: "ID",
        help: "make a container of what checkpoint wrote, and stay with it",
        flags: &[
            IMAGES,
            WORK,
            TCP,
            UNIX,
            SHELL,
            LOCKS,
            MODE,
            EMPTY,
            DEDUP,
            switch("lazy-pages", None, "refused"),
            value("lsm-profile", None, "another profile of the security module: apparmor:NAME or selinux:LABEL"),
            value("lsm-mount-context", None, "another SELinux context of mounts"),
            BUNDLE,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            SUBREAPER,
            switch("detach", Some('d'), "do not stay with it"),
            switch("keep", None, "do not delete it when it has ended"),
        ],
        verbatim_after: None,
    },
];

/// A command line.
pub struct Arguments {
    /// The verb; none for `--help` and `--version`.
    pub verb: Option<&'static Verb>,
    /// Options in order, by their long names.
    flags: Vec<(&'static str, String)>,
    /// Operands in order.
    pub operands: Vec<String>,
    /// Whether the version was asked for.
    pub version: bool,
}

impl Arguments {
    /// Reads a command line without the program's name. The error is a sentence.
    pub fn read(words: impl IntoIterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments { verb: None, flags: Vec::new(), operands: Vec::new(), version: false };
        let mut words = words.into_iter();
        let mut verbatim = false;
        while let Some(word) = words.next() {
            let limit = arguments.verb.and_then(|verb| verb.verbatim_after);
            if verbatim || limit.is_some_and(|limit| arguments.operands.len() > limit) {
                arguments.operands.push(word);
                continue;
            }
            if word == "--" {
                verbatim = true;
            } else if word.len() > 1 && word.starts_with('-') {
                arguments.option(&word, &mut words)?;
            } else if arguments.verb.is_none() {
                let verb = VERBS.iter().find(|verb| verb.name == word);
                arguments.verb = Some(verb.ok_or_else(|| format!("no such command: `{word}`; see --help"))?);
            } else {
                arguments.operands.push(word);
                // `ps ID -x`: what follows is for another program from here on.
                verbatim = arguments.verb.is_some_and(|verb| verb.name == "ps");
            }
        }
        Ok(arguments)
    }

    fn option(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        if self.verb.is_none() && matches!(word, "--version" | "-v") {
            self.version = true;
            return Ok(());
        }
        let own = self.verb.map(|verb| verb.flags).unwrap_or_default();
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let bare = name.trim_start_matches('-');
        let known = |flag: &&Flag| flag.long == bare || (bare.len() == 1 && bare.chars().next() == flag.short);
        let found = own.iter().find(known).or_else(|| GLOBAL.iter().find(known));
        if found.is_none() && !name.starts_with("--") && bare.len() > 1 {
            return self.letters(word, own, rest);
        }
        let flag = found.ok_or_else(|| format!("no such option: `{name}`; see --help"))?;
        let value = match (flag.value, given) {
            (true, Some(value)) => value,
            (true, None) => rest.next().ok_or_else(|| format!("option `{name}` needs a value"))?,
            (false, None) => "true".into(),
            (false, Some(value)) if matches!(value.as_str(), "true" | "false") => value,
            (false, Some(_)) => return Err(format!("option `{name}` takes no value")),
        };
        self.flags.push((flag.long, value));
        Ok(())
    }

    /// Several letters at once: `-dt`, `-u0:0`.
    fn letters(&mut self, word: &str, own: &[Flag], rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let letters = word.trim_start_matches('-');
        for (at, letter) in letters.char_indices() {
            let flag = own.iter().chain(GLOBAL).find(|flag| flag.short == Some(letter));
            let long = flag.ok_or_else(|| format!("no such option: `{word}`; see --help"))?;
            // The table's own entry, which lives as long as the program.
            let Some(known) =
                self.verb.map(|verb| verb.flags).unwrap_or_default().iter().chain(GLOBAL).find(|f| f.long == long.long)
            else {
                continue;
            };
            if known.value {
                let attached = letters.get(at + letter.len_utf8()..).unwrap_or_default();
                let value = match attached.is_empty() {
                    false => attached.to_owned(),
                    true => rest.next().ok_or_else(|| format!("option `-{letter}` needs a value"))?,
                };
                self.flags.push((known.long, value));
                return Ok(());
            }
            self.flags.push((known.long, "true".into()));
        }
        Ok(())
    }

    /// The last value of an option.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values of an option.
    pub fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, long: &str) -> bool {
        self.value(long) == Some("true")
    }
}

/// The help of one verb, or of all.
pub fn help(verb: Option<&Verb>) -> String {
    let mut text = String::new();
    let mut list = |title: &str, flags: &[Flag]| {
        text.push_str(&format!("\n{title}:\n"));
        for flag in flags {
            let short = flag.short.map_or("    ".into(), |letter| format!("-{letter}, "));
            let long = format!("--{}{}", flag.long, if flag.value { " VALUE" } else { "" });
            text.push_str(&format!("  {short}{long:26} {}\n", flag.help));
        }
    };
    match verb {
        Some(verb) => {
            if !verb.flags.is_empty() {
                list("Options", verb.flags);
            }
            list("Options of every command", GLOBAL);
            format!("{}\n\nUsage: ctk-runtime {} [OPTION…] {}\n{text}", verb.help, verb.name, verb.operands)
        }
        None => {
            list("Options", GLOBAL);
            let verbs = VERBS.iter().map(|verb| format!("  {:12} {}\n", verb.name, verb.help)).collect::<String>();
            format!(
                "Runs containers as the OCI runtime specification says\n\nUsage: ctk-runtime [OPTION…] COMMAND …\n\
                 \nCommands:\n{verbs}{text}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, String> {
        Arguments::read(line.split_whitespace().map(String::from))
    }

    #[test]
    fn options_stand_anywhere() {
        for line in [
            "--root /r --log=/l create --bundle /b --pid-file p id",
            "create id --root=/r -b /b --pid-file=p --log /l",
            "create -b/b --root /r --pid-file p --log /l -- id",
        ] {
            let found = read(line).unwrap();
            assert_eq!(found.verb.unwrap().name, "create", "{line}");
            let values = ["root", "log", "bundle", "pid-file"].map(|name| found.value(name).unwrap());
            assert_eq!(
                (values, found.operands.as_slice()),
                (["/r", "/l", "/b", "p"], &["id".to_owned()][..]),
                "{line}"
            );
        }
    }

    #[test]
    fn words_of_others_stay_as_they_are() {
        let found = read("exec -e A=1 --env B=2 id -dt --user 1:2 sh -c --root x").unwrap();
        assert_eq!(found.operands, ["id", "sh", "-c", "--root", "x"]);
        assert_eq!(found.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!((found.is_on("detach"), found.is_on("tty"), found.value("user")), (true, true, Some("1:2")));
        assert_eq!(read("ps id -x --format").unwrap().operands, ["id", "-x", "--format"]);
        assert!(!read("run --detach=false id").unwrap().is_on("detach"));
    }

    #[test]
    fn mistakes_are_sentences() {
        for (line, expected) in [
            ("frobnicate", "no such command: `frobnicate`; see --help"),
            ("create --frob id", "no such option: `--frob`; see --help"),
            ("create id --bundle", "option `--bundle` needs a value"),
            ("run --keep=7 id", "option `--keep` takes no value"),
        ] {
            assert_eq!(read(line).err().unwrap(), expected);
        }
        assert!(read("--version").unwrap().version);
    }
}
