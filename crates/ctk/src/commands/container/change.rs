//! `--change`: a line of a Dockerfile that says something of an image.

use ctk_oci::{ContainerConfig, Empty, Healthcheck};

use super::parse;
use crate::failure::Failure;

const INSTRUCTIONS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Changes what an image says, as that line does. `NAME=VALUE` is taken for `NAME VALUE`, as podman has it.
pub fn apply(config: &mut ContainerConfig, text: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Failure::sentence(format!("--change `{text}`: {why}"), None);
    let line = text.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
    let keyword = name.to_ascii_uppercase();
    if !INSTRUCTIONS.contains(&keyword.as_str()) {
        let near = ctk_syntax::nearest(&keyword, INSTRUCTIONS).map(|near| format!("did you mean `{near}`?"));
        let all = format!("it begins with one of {}", INSTRUCTIONS.join(", "));
        let what = format!("--change `{text}`: `{name}` is no instruction that changes an image's config");
        return Err(Failure::sentence(what, Some(&near.unwrap_or(all))));
    }
    if rest.is_empty() && !matches!(keyword.as_str(), "CMD" | "ENTRYPOINT" | "USER") {
        return Err(wrong("something is missing behind it"));
    }
    match keyword.as_str() {
        "CMD" => config.cmd = command(config, rest).map_err(|why| wrong(&why))?,
        "ENTRYPOINT" => {
            config.entrypoint = command(config, rest).map_err(|why| wrong(&why))?;
            // What stood behind another program has no meaning for this one.
            config.cmd = None;
        }
        "ENV" => {
            for (name, value) in pairs(rest).map_err(|why| wrong(&why))? {
                config.set_env(&name, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).map_err(|why| wrong(&why))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let known = matches!(protocol, "tcp" | "udp" | "sctp");
                if number.parse::<u16>().is_err() || !known {
                    return Err(wrong(&format!("`{port}` is no port; it is as `80` or `53/udp`")));
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), Empty);
            }
        }
        "VOLUME" => {
            let paths = match rest.starts_with('[') {
                true => list(rest).map_err(|why| wrong(&why))?,
                false => words(rest).map_err(|why| wrong(&why))?,
            };
            for path in paths {
                if !path.starts_with('/') {
                    return Err(wrong(&format!("`{path}` is not absolute")));
                }
                config.volumes.insert(path, Empty);
            }
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => match rest.strip_prefix('/') {
            Some(_) => config.working_dir = rest.to_owned(),
            None => config.working_dir = format!("{}/{rest}", config.working_dir.trim_end_matches('/')),
        },
        "STOPSIGNAL" => {
            parse::signal(rest).map_err(|why| wrong(&why))?;
            config.stop_signal = Some(rest.to_owned());
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        _ => config.healthcheck = Some(health(config, rest).map_err(|why| wrong(&why))?),
    }
    Ok(())
}

/// A JSON list, or a line for the shell.
fn command(config: &ContainerConfig, text: &str) -> Result<Option<Vec<String>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('[') {
        return list(text).map(Some);
    }
    let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    Ok(Some(shell.into_iter().chain([text.to_owned()]).collect()))
}

fn list(text: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(text).map_err(|_| "this is no JSON list of texts".into())
}

/// Words of a line; quotes hold them together.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut all, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.extend(characters.next());
                begun = true;
            }
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('"' | '\'', None) => (quote, begun) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if begun {
                    all.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            (c, None) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    if begun {
        all.push(word);
    }
    Ok(all)
}

/// `NAME=VALUE …`, or `NAME VALUE` alone.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if let Some((first, rest)) = words.split_first()
        && !first.contains('=')
    {
        return match rest.is_empty() {
            true => Err(format!("`{first}` has no value")),
            false => Ok(vec![(first.clone(), rest.join(" "))]),
        };
    }
    let one = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{word}` is no NAME=VALUE")),
    };
    words.iter().map(one).collect()
}

/// `[--interval=… …] CMD …`, or `NONE`.
fn health(config: &ContainerConfig, text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (word, after) = flag.split_once(char::is_whitespace).ok_or("`CMD` or `NONE` is missing")?;
        rest = after.trim_start();
        let (name, value) = word.split_once('=').ok_or_else(|| format!("`--{word}` has no value"))?;
        let nanos = || parse::duration(value).map(|time| time.as_nanos() as i64);
        match name {
            "interval" => check.interval = nanos()?,
            "timeout" => check.timeout = nanos()?,
            "start-period" => check.start_period = nanos()?,
            "start-interval" => check.start_interval = nanos()?,
            "retries" => check.retries = value.parse().map_err(|_| format!("`{value}` is no number"))?,
            _ => return Err(format!("there is no flag `--{name}`")),
        }
    }
    let (word, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (word.to_ascii_uppercase().as_str(), command_text.trim()) {
        ("NONE", "") => vec!["NONE".into()],
        ("CMD", line) if line.starts_with('[') => [vec!["CMD".to_owned()], list(line)?].concat(),
        ("CMD", line) if !line.is_empty() => vec!["CMD-SHELL".into(), line.into()],
        _ => return Err("it is `CMD` with a command, or `NONE`".into()),
    };
    let _ = config;
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig { working_dir: "/srv".into(), ..ContainerConfig::default() };
        for line in lines {
            apply(&mut config, line).unwrap_or_else(|failure| panic!("{}", failure.text()));
        }
        config
    }

    #[test]
    fn lines_change_what_an_image_says() {
        let config = changed(&[
            r#"ENTRYPOINT ["/bin/app"]"#,
            "CMD serve it",
            "ENV A=1 B=\"two words\"",
            "env C three",
            "LABEL tier=web",
            "EXPOSE 80 53/udp",
            "VOLUME /data /more",
            "USER=web",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s --retries=2 CMD test -f /ok",
        ]);
        assert_eq!(config.entrypoint, Some(vec!["/bin/app".into()]));
        assert_eq!(config.cmd, Some(vec!["/bin/sh".into(), "-c".into(), "serve it".into()]));
        assert_eq!(config.env, ["A=1", "B=two words", "C=three"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("web", "/srv/app"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (5_000_000_000, 2));
        assert_eq!(check.test, ["CMD-SHELL", "test -f /ok"]);
    }

    #[test]
    fn every_mistake_says_what_is_wrong() {
        for (line, expected) in [
            ("COPY a b", "no instruction that changes"),
            ("CMDD x", "did you mean `CMD`?"),
            ("ENV", "something is missing"),
            ("ENV A", "`A` has no value"),
            ("ENV A=\"x", "a quote is not closed"),
            ("CMD [\"x\"", "no JSON list"),
            ("EXPOSE http", "`http` is no port"),
            ("VOLUME data", "`data` is not absolute"),
            ("STOPSIGNAL SIGNOT", "expected a signal"),
            ("HEALTHCHECK --retries=2", "`CMD` or `NONE` is missing"),
            ("HEALTHCHECK RUN x", "it is `CMD` with a command"),
        ] {
            let failure = apply(&mut ContainerConfig::default(), line).expect_err(line);
            assert!(failure.text().contains(expected), "{line}: {}", failure.text());
        }
    }
}
