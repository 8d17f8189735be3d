//! What each instruction does, one after the other; those without a file of their own whole.

use ctk_syntax::Span;

use super::{Need, Walk};
use crate::stage::Stage;
use crate::words::{Variables, is_required};
use crate::{Instruction, Op, PackagesSpec, Statement, codes};

impl Walk<'_> {
    pub(super) fn statement(&mut self, stage: &mut Stage, statement: &Statement, index: usize) {
        let origin = statement.origin;
        match &statement.instruction {
            Instruction::Add(copy) => self.copy(stage, copy, true, statement, index),
            Instruction::Copy(copy) => self.copy(stage, copy, false, statement, index),
            Instruction::Run(run) => self.run(stage, run, statement, index),
            Instruction::Arg(args) => {
                for arg in args {
                    let value = self.arg_value(stage, arg);
                    stage.arg(&arg.name, value);
                }
            }
            Instruction::Env(pairs) => {
                let pairs = self.pairs(stage, pairs, origin);
                stage.env(&pairs);
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(stage, pairs, origin);
                stage.label(&pairs);
            }
            Instruction::Workdir(path) => {
                let path = self.text(stage, path, origin);
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
                stage.volume(&paths);
            }
            Instruction::Shell(shell) => stage.shell(shell),
            Instruction::Stopsignal(signal) => {
                let signal = self.text(stage, signal, origin);
                let number = signal.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n));
                let word = signal.strip_prefix("SIG").unwrap_or(&signal);
                let name = !word.is_empty()
                    && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"+-".contains(&b));
                if !number && !name {
                    let message =
                        format!("`{signal}` is no signal; expected a name such as `SIGTERM` or a number from 1 to 64");
                    self.error(codes::BAD_SIGNAL, message, origin, "");
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
        for text in ports {
            let words = match self.escape() {
                None => Ok(vec![text.clone()]),
                Some(escape) => Variables::new(&|n| stage.lookup(n)).words(text, escape),
            };
            match words {
                Err(error) if is_required(&error) && !stage.known => {}
                Err(error) => self.error(codes::BAD_WORD, format!("cannot expand `{text}`: {error}"), origin, ""),
                Ok(words) => {
                    for word in words {
                        match port_range(&word) {
                            Some(range) => out.extend(range),
                            None => {
                                let message = format!("`{word}` is no port; expected `port[-port][/tcp|udp|sctp]`");
                                self.error(codes::BAD_PORT, message, origin, "");
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

/// `80`, `80/udp`, `8000-8010/tcp` as single ports with protocol.
fn port_range(word: &str) -> Option<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first <= last && first > 0).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
