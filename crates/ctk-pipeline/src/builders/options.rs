//! Options of a command line by a table, as the docker client and its kin read them.

/// An option that a program knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its long names; the first is how we call it.
    pub names: &'static [&'static str],
    /// Its letter; `\0` for none.
    pub letter: char,
    /// Whether a value follows.
    pub takes: bool,
}

/// An option with a value: `--name VALUE`, `-n VALUE`.
pub(super) const fn value(letter: char, names: &'static [&'static str]) -> Known {
    Known { names, letter, takes: true }
}

/// An option without one, except `--name=false`.
pub(super) const fn switch(letter: char, names: &'static [&'static str]) -> Known {
    Known { names, letter, takes: false }
}

/// What a command line has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// In order, with the first of its names; a switch has `true` or `false`.
    pub options: Vec<(&'static str, String)>,
    /// What is no option.
    pub words: Vec<String>,
}

impl Line {
    /// Every value of an option.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.options.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }

    /// The last value of an option.
    pub fn last(&self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    /// Whether a switch is on.
    pub fn is(&self, name: &str) -> bool {
        self.last(name).is_some_and(|value| matches!(value.as_str(), "true" | "1" | "t" | "T" | "TRUE" | "True"))
    }

    /// Those of the options that are in `names`, as they are written.
    pub fn among(&self, known: &[Known], names: &[&str]) -> Vec<String> {
        let found = self.options.iter().filter(|(name, _)| names.contains(name));
        let takes = |name: &str| known.iter().any(|option| option.names[0] == name && option.takes);
        let written = found.map(|(name, value)| match value.as_str() {
            "true" if !takes(name) => format!("--{name}"),
            value => format!("--{name}={value}"),
        });
        written.collect()
    }
}

/// Reads a command line. `until_word`: what stands behind the first word is not ours, as in `docker run`.
/// `program` is how errors call it.
pub(super) fn line(program: &str, args: &[String], known: &[Known], until_word: bool) -> Result<Line, String> {
    let mut line = Line::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            line.words.extend(args.by_ref().cloned());
        } else if let Some(long) = arg.strip_prefix("--") {
            let (name, given) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let option = known.iter().find(|option| option.names.contains(&name));
            let option = option.ok_or_else(|| unknown(program, &format!("--{name}"), known))?;
            let value = match (option.takes, given) {
                (_, Some(value)) => value,
                (false, None) => "true".into(),
                (true, None) => args.next().cloned().ok_or_else(|| format!("`{program} {arg}` has no value"))?,
            };
            line.options.push((option.names[0], value));
        } else if arg.len() > 1 && arg.starts_with('-') {
            letters(program, &arg[1..], known, &mut args, &mut line)?;
        } else {
            line.words.push(arg.clone());
            if until_word {
                line.words.extend(args.by_ref().cloned());
            }
        }
    }
    Ok(line)
}

/// `-it`, `-tNAME`, `-t NAME`, `-t=NAME`.
fn letters<'a>(
    program: &str,
    text: &str,
    known: &[Known],
    args: &mut impl Iterator<Item = &'a String>,
    line: &mut Line,
) -> Result<(), String> {
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        let option = known.iter().find(|option| option.letter == letter && letter != '\0');
        let option = option.ok_or_else(|| unknown(program, &format!("-{letter}"), known))?;
        if option.takes {
            let given = rest.strip_prefix('=').unwrap_or(rest);
            let value = match given {
                "" => args.next().cloned().ok_or_else(|| format!("`{program} -{letter}` has no value"))?,
                given => given.to_owned(),
            };
            line.options.push((option.names[0], value));
            return Ok(());
        }
        line.options.push((option.names[0], "true".into()));
    }
    Ok(())
}

fn unknown(program: &str, option: &str, known: &[Known]) -> String {
    let names = known.iter().flat_map(|option| option.names.iter().copied());
    match ctk_syntax::nearest(option.trim_start_matches('-'), names).filter(|_| option.len() > 2) {
        Some(near) => format!("`{program}` has no option `{option}`; did you mean `--{near}`?"),
        None => format!("`{program}` has no option `{option}` that is known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known] = &[value('t', &["tag"]), switch('q', &["quiet"]), switch('i', &["interactive"])];

    fn check(args: &[&str], until_word: bool, options: &[(&str, &str)], words: &[&str]) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let line = line("x", &args, KNOWN, until_word).unwrap();
        let found: Vec<(&str, &str)> = line.options.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(found, options);
        assert_eq!(line.words, words);
    }

    #[test]
    fn options_are_read_in_every_form() {
        check(
            &["-t", "a", "--tag=b", "--tag", "c", "-td", "-t=e"],
            false,
            &[("tag", "a"), ("tag", "b"), ("tag", "c"), ("tag", "d"), ("tag", "e")],
            &[],
        );
        check(&["-qi", ".", "-t", "x"], false, &[("quiet", "true"), ("interactive", "true"), ("tag", "x")], &["."]);
        check(&["-q", "image", "-t", "x"], true, &[("quiet", "true")], &["image", "-t", "x"]);
        check(&["--quiet=false", "--", "-t"], false, &[("quiet", "false")], &["-t"]);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let wrong = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            line("x", &args, KNOWN, false).unwrap_err()
        };
        assert_eq!(wrong(&["--tga=x"]), "`x` has no option `--tga`; did you mean `--tag`?");
        assert_eq!(wrong(&["-z"]), "`x` has no option `-z` that is known here");
        assert_eq!(wrong(&["-t"]), "`x -t` has no value");
    }
}
