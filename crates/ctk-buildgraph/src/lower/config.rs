//! What each instruction does, one after the other; those without a file of their own whole.

use ctk_syntax::{Span, nearest, short};

use super::{Need, Walk};
use crate::stage::Stage;
use crate::words::{Variables, is_required};
use crate::{Instruction, Op, PackagesSpec, Statement, codes};

impl Walk<'_> {
    pub(super) fn statement(&mut self, stage: &mut Stage, statement: &Statement, index: usize) {
        let origin = statement.origin;
        self.lint_statement(stage, statement);
        match &statement.instruction {
            Instruction::Add(copy) => self.copy(stage, copy, true, statement, index),
            Instruction::Copy(copy) => self.copy(stage, copy, false, statement, index),
            Instruction::Run(run) => self.run(stage, run, statement, index),
            Instruction::Arg(args) => self.arg(stage, args),
            Instruction::Env(pairs) => {
                let pairs = self.pairs(stage, pairs, origin);
                self.lint_secrets("ENV", &pairs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), origin);
                stage.env(&pairs);
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(stage, pairs, origin);
                stage.label(&pairs);
            }
            Instruction::Workdir(path) => {
                let path = self.text(stage, path, origin);
                self.lint_workdir(stage, &path, origin);
                stage.workdir(&mut self.graph, &path, &statement.text, origin);
            }
            Instruction::User(user) => {
                let user = self.text(stage, user, origin);
                stage.user(&user);
            }
            Instruction::UserEntry(entry) => stage.add_user(&mut self.graph, entry, &statement.text, origin),
            Instruction::Expose(ports) => {
                let ports = self.ports(stage, ports, origin);
                stage.expose(&ports);
            }
            Instruction::Volume(paths) => {
                let paths: Vec<String> = paths.iter().map(|p| self.text(stage, p, origin)).collect();
                if stage.known && paths.iter().any(String::is_empty) {
                    self.error(codes::BAD_VOLUME, "a volume's path is empty", origin, "expected a path");
                }
                stage.volume(&paths);
            }
            Instruction::Shell(shell) => stage.shell(shell),
            Instruction::Stopsignal(signal) => {
                let place = self.place(origin, signal);
                let (signal, unset) = self.word(stage, signal, origin);
                if !is_signal(&signal) && (stage.known || !unset) {
                    let message = format!("`{}` is no signal", short(&signal));
                    let label = match near_signal(&signal) {
                        Some(near) => format!("did you mean `SIG{near}`?"),
                        None => "expected a name such as `SIGTERM` or a number".into(),
                    };
                    self.error(codes::BAD_SIGNAL, message, place, &label);
                }
                stage.stop_signal(&signal);
            }
            Instruction::Maintainer(author) => stage.maintainer(author),
            Instruction::Onbuild(trigger) => stage.on_build(trigger),
            Instruction::Cmd(command) => stage.cmd(command),
            Instruction::Entrypoint(command) => stage.entrypoint(command),
            Instruction::Healthcheck(health) => stage.healthcheck(health),
            Instruction::Packages(spec) => self.packages(stage, spec, statement),
        }
    }

    pub(super) fn ports(&mut self, stage: &Stage, ports: &[String], origin: Option<Span>) -> Vec<String> {
        let mut out = Vec::new();
        let mut ports: Vec<&String> = ports.iter().collect();
        // In history they stand in this order.
        ports.sort();
        for text in ports {
            let lookup = |name: &str| stage.lookup(name);
            let mut variables = Variables::new(&lookup);
            let words = match self.escape() {
                None => Ok(vec![text.clone()]),
                Some(escape) => variables.words(text, escape),
            };
            let unsure = variables.unset() && !stage.known;
            match words {
                Err(error) if is_required(&error) && unsure => {}
                Err(error) => self.bad_word(text, &error, origin),
                Ok(words) => {
                    for word in words {
                        self.lint_port(&word, origin);
                        match port_range(&word) {
                            Some(range) => out.extend(range),
                            None if unsure => {}
                            None => {
                                let message = format!(
                                    "`{}` is no port; expected `port[-port][/tcp|udp|sctp]`, at most 65535",
                                    short(&word)
                                );
                                self.error(codes::BAD_PORT, message, self.place(origin, text), "");
                            }
                        }
                    }
                }
            }
        }
        out
    }

    pub(super) fn packages(&mut self, stage: &mut Stage, spec: &PackagesSpec, statement: &Statement) {
        let empty = matches!(self.graph.get(stage.vertex).op, Op::Scratch);
        if !empty {
            let message = "`packages` needs an empty tree, and this stage has files already";
            return self.error(
                codes::PACKAGES_ON_BASE,
                message,
                statement.origin,
                "put it first, in a stage without `from`",
            );
        }
        let name = stage.label.clone();
        let Some(locked) = self.request.packages.get(&name).cloned() else {
            self.needs.push(Need::Packages { stage: name, spec: spec.clone(), origin: statement.origin });
            return;
        };
        let op = Op::Packages { stage: name, locked, scripts: spec.scripts };
        stage.packages(&mut self.graph, op, &statement.text, statement.origin);
    }
}

impl Instruction {
    /// Whether it touches files.
    pub(super) fn makes_vertex(&self) -> bool {
        use Instruction::*;
        matches!(self, Add(_) | Copy(_) | Run(_) | Workdir(_) | UserEntry(_) | Packages(_))
    }
}

/// `80`, `80/udp`, `8000-8010/tcp` as single ports with protocol. An address and a port of the host, which mean
/// nothing here, may stand before: `127.0.0.1:8080:80`.
fn port_range(word: &str) -> Option<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, ""));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return None;
    }
    let (host, ports) = ports.rsplit_once(':').unwrap_or(("", ports));
    let range = |ports: &str| {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        (first <= last).then_some(first..=last)
    };
    let (address, of_host) = host.rsplit_once(':').unwrap_or(("", host));
    let plain = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !plain.is_empty() && plain.parse::<std::net::IpAddr>().is_err() {
        return None;
    }
    let inside = range(ports)?;
    if !of_host.is_empty() {
        let outside = range(of_host)?;
        // A range of the host may serve one port.
        if outside.len() != inside.len() && inside.len() != 1 {
            return None;
        }
    }
    Some(inside.map(|port| format!("{port}/{protocol}")).collect())
}

const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The signal that `word` is nearly called.
fn near_signal(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_uppercase();
    nearest(word.strip_prefix("SIG").unwrap_or(&word), SIGNALS)
}

/// Whether Docker takes it: any number but zero, or a signal of Linux with or without `SIG`, in any case.
fn is_signal(word: &str) -> bool {
    if let Ok(number) = word.parse::<i64>() {
        return number != 0;
    }
    let word = word.to_ascii_uppercase();
    let word = word.strip_prefix("SIG").unwrap_or(&word);
    let real_time = |prefix: &str, last: u8| {
        word.strip_prefix(prefix).is_some_and(|n| n.parse().is_ok_and(|n: u8| (1..=last).contains(&n)))
    };
    SIGNALS.contains(&word) || ["RTMIN", "RTMAX"].contains(&word) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_docker_takes() {
        for word in ["100", "-5", "rtmin+3", "SIGRTMAX-1", "RTMAX", "sigkill", "CLD", "9"] {
            assert!(is_signal(word), "{word}");
        }
        for word in ["0", "SIGFOO", "SIGRTMIN+16", "SIGRTMAX-15", "1.5", "", "SIG", "SIGSIGTERM"] {
            assert!(!is_signal(word), "{word}");
        }
    }

    #[test]
    fn ports_that_docker_takes() {
        let table: [(&str, Option<&[&str]>); 24] = [
            ("80", Some(&["80/tcp"])),
            ("80/TCP", Some(&["80/tcp"])),
            ("80/", Some(&["80/tcp"])),
            ("80/Udp", Some(&["80/udp"])),
            ("80/sctp", Some(&["80/sctp"])),
            ("0-2", Some(&["0/tcp", "1/tcp", "2/tcp"])),
            ("080", Some(&["80/tcp"])),
            ("+80", Some(&["80/tcp"])),
            ("65535", Some(&["65535/tcp"])),
            ("8080:80", Some(&["80/tcp"])),
            ("127.0.0.1::80", Some(&["80/tcp"])),
            ("127.0.0.1:8080:81", Some(&["81/tcp"])),
            ("[::1]:80:80", Some(&["80/tcp"])),
            ("80-82:90-92", Some(&["90/tcp", "91/tcp", "92/tcp"])),
            ("80-82:90", Some(&["90/tcp"])),
            ("80-81:90-92", None),
            ("80/foo", None),
            ("80-", None),
            ("82-80", None),
            ("70000", None),
            ("/tcp", None),
            ("80/tcp/udp", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in table {
            let seen = port_range(word);
            let expected = expected.map(|ports| ports.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
            assert_eq!(seen, expected, "{word}");
        }
    }
}
