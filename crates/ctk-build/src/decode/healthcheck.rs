//! `healthcheck "curl" "-f" "http://…" every="10s"`, `healthcheck "none"`.

use ctk_buildgraph::{Command, Health, Instruction};
use ctk_syntax::{Node, Reader};

use super::Image;

impl Image<'_> {
    pub(super) fn healthcheck(&mut self, node: &Node) -> Option<Instruction> {
        let mut reader = Reader::new(node, self.diagnostics);
        let words: Vec<String> = reader.args_text_some("a command or `none`").into_iter().map(|w| w.value).collect();
        let [interval, timeout, start_period, start_interval] = ["every", "timeout", "start-period", "start-every"]
            .map(|name| {
                reader.opt_prop_duration(name).map_or(0, |d| i64::try_from(d.value.as_nanos()).unwrap_or(i64::MAX))
            });
        let retries = reader.opt_prop_int("retries", 0..=1000).map_or(0, |r| r.value as i64);
        reader.finish();
        let command = match words.as_slice() {
            [] => return None,
            [only] if only == "none" => return Some(Instruction::Healthcheck(Health::None)),
            [line] if line.contains(char::is_whitespace) => Command::Shell(line.clone()),
            _ => Command::Exec(words),
        };
        Some(Instruction::Healthcheck(Health::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        }))
    }
}
