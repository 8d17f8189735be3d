//! `config { user "65532:65532"; exposes 8080; entrypoint "/usr/bin/api" }`: what the image's config says.
//!
//! Inside: `user`, `workdir`, `stopsignal`, `entrypoint` and `cmd` (the whole list), `exposes` and `volume` (these are
//! among them), `env` and `label` (these have these values).

use ctk_oci::ContainerConfig;
use ctk_syntax::Reader;

use super::Assertion;
use crate::error::CheckError;
use crate::report::{AssertionOutcome, Mismatch};
use crate::words;
use crate::world::World;

#[derive(Debug, Default)]
struct Config {
    user: Option<String>,
    workdir: Option<String>,
    stopsignal: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    exposes: Vec<String>,
    volumes: Vec<String>,
    env: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

pub(super) fn decode(reader: &mut Reader<'_, '_>) -> Option<Box<dyn Assertion>> {
    let mut config = Config {
        user: words::opt_child_text(reader, "user", "a user"),
        workdir: words::opt_child_text(reader, "workdir", "a path"),
        stopsignal: words::opt_child_text(reader, "stopsignal", "a signal"),
        entrypoint: words::opt_child_list(reader, "entrypoint", "an argument"),
        cmd: words::opt_child_list(reader, "cmd", "an argument"),
        ..Config::default()
    };
    for node in reader.every("exposes") {
        let mut child = reader.child(node);
        config.exposes.extend(child.args_text_some("a port").iter().filter_map(|port| words::port(&mut child, port)));
        child.finish();
    }
    for node in reader.every("volume") {
        let mut child = reader.child(node);
        config.volumes.extend(words::values(child.args_text_some("a path")));
        child.finish();
    }
    config.env = words::pairs(reader, "env");
    config.labels = words::pairs(reader, "label");
    let asks = !reader.node().children.is_empty();
    words::asks_something(reader, asks, "a block, e.g. `{ user \"65532\" }`");
    asks.then(|| Box::new(config) as Box<dyn Assertion>)
}

impl Assertion for Config {
    fn name(&self) -> String {
        String::new()
    }

    fn check(&self, world: &World<'_>) -> Result<AssertionOutcome, CheckError> {
        Ok(AssertionOutcome::of(self.compare(&world.image().config.config)))
    }
}

impl Config {
    fn compare(&self, seen: &ContainerConfig) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        let mut differ = |subject: String, expected: String, seen: String| {
            if expected != seen {
                mismatches.push(Mismatch::new(subject, expected, seen));
            }
        };
        let stopsignal = seen.stop_signal.clone().unwrap_or_default();
        let texts = [
            ("user", &self.user, &seen.user),
            ("workdir", &self.workdir, &seen.working_dir),
            ("stopsignal", &self.stopsignal, &stopsignal),
        ];
        for (subject, wanted, seen) in texts {
            if let Some(wanted) = wanted {
                differ(subject.into(), quoted(wanted), quoted(seen));
            }
        }
        for (subject, wanted, seen) in
            [("entrypoint", &self.entrypoint, &seen.entrypoint), ("cmd", &self.cmd, &seen.cmd)]
        {
            if let Some(wanted) = wanted {
                differ(subject.into(), list(wanted), list(seen.as_deref().unwrap_or_default()));
            }
        }
        for (subject, wanted, seen) in
            [("exposes", &self.exposes, seen.exposed_ports.keys()), ("volume", &self.volumes, seen.volumes.keys())]
        {
            let seen: Vec<String> = seen.cloned().collect();
            for wanted in wanted.iter().filter(|wanted| !seen.contains(wanted)) {
                differ(subject.into(), quoted(wanted), list(&seen));
            }
        }
        for (name, wanted) in &self.env {
            let value = seen.env_value(name).map_or("not set".to_string(), quoted);
            differ(format!("env {name}"), quoted(wanted), value);
        }
        for (name, wanted) in &self.labels {
            let value = seen.labels.get(name).map_or("not set".to_string(), |v| quoted(v));
            differ(format!("label {name}"), quoted(wanted), value);
        }
        mismatches
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn list(texts: &[String]) -> String {
    if texts.is_empty() { "none".into() } else { texts.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> ContainerConfig {
        let mut config = ContainerConfig { user: "65532".into(), ..ContainerConfig::default() };
        config.entrypoint = Some(vec!["/api".into(), "-v".into()]);
        config.exposed_ports.insert("8080/tcp".into(), Default::default());
        config.set_env("A", "b");
        config
    }

    #[track_caller]
    fn check(wanted: Config, expected: &[&str]) {
        let found: Vec<String> = wanted.compare(&seen()).iter().map(Mismatch::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn configs_are_compared() {
        let texts = |list: &[&str]| list.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        check(
            Config {
                user: Some("65532".into()),
                entrypoint: Some(texts(&["/api", "-v"])),
                exposes: texts(&["8080/tcp"]),
                env: vec![("A".into(), "b".into())],
                ..Config::default()
            },
            &[],
        );
        check(
            Config {
                user: Some("root".into()),
                stopsignal: Some("SIGINT".into()),
                entrypoint: Some(texts(&["/api"])),
                cmd: Some(texts(&["x"])),
                exposes: texts(&["8080/tcp", "53/udp"]),
                env: vec![("A".into(), "c".into()), ("B".into(), "".into())],
                ..Config::default()
            },
            &[
                r#"user: expected "root", saw "65532""#,
                r#"stopsignal: expected "SIGINT", saw """#,
                r#"entrypoint: expected "/api", saw "/api" "-v""#,
                r#"cmd: expected "x", saw none"#,
                r#"exposes: expected "53/udp", saw "8080/tcp""#,
                r#"env A: expected "c", saw "b""#,
                r#"env B: expected "", saw not set"#,
            ],
        );
    }
}
