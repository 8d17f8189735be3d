//! Scripts that are only a row of commands: `docker pull X || exit 0`. What is more than that is for a real shell.
//!
//! `$NAME` and `${NAME}` may stand in words: they stay there as `${NAME}`, for who knows the step's variables. A script
//! with such a variable has no dollar that means itself.

use std::collections::BTreeMap;

/// A command of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Simple {
    pub words: Vec<String>,
    /// `|| true`, `|| exit 0`, `|| :`.
    pub may_fail: bool,
    /// `|| exit 0`: the script ends well if this fails.
    pub ends: bool,
    /// Variables that stand in its words as `${NAME}`, and whether each stands in quotes only.
    pub variables: BTreeMap<String, bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    And,
    Or,
    End,
}

/// The commands of a script, one after the other; the error is what only a shell can do.
///
/// `set -e` and its kin at the beginning change nothing: a command that fails ends the script, whether they are there
/// or not. A script in which they are not there, and in which a command may fail unnoticed, is therefore refused.
pub(super) fn commands(script: &str) -> Result<Vec<Simple>, String> {
    let mut found: Vec<Simple> = Vec::new();
    let (mut stops, mut unguarded) = (false, false);
    let (tokens, variables) = tokens(script)?;
    let mut parts = tokens.split(|token| *token == Token::End).filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let (main, otherwise) = match part.iter().position(|token| *token == Token::Or) {
            Some(at) => (&part[..at], Some(&part[at + 1..])),
            None => (part, None),
        };
        let chain: Vec<Vec<String>> = main.split(|token| *token == Token::And).map(words).collect();
        if chain.iter().any(Vec::is_empty) {
            return Err("`&&` or `||` with nothing beside it".into());
        }
        if let [only] = chain.as_slice()
            && only[0] == "set"
        {
            match only[1..].iter().all(|word| word.starts_with('-') && word.chars().skip(1).all(|c| "eux".contains(c)))
            {
                true => stops |= only[1..].iter().any(|word| word.contains('e')),
                false => return Err(format!("`{}`", only.join(" "))),
            }
            continue;
        }
        let (may_fail, ends) = match otherwise.map(words) {
            None => (false, false),
            Some(words) => match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["true"] | [":"] => (true, false),
                ["exit", "0"] => (true, true),
                _ => return Err("`||` before another command".into()),
            },
        };
        if may_fail && chain.len() > 1 {
            return Err("`&&` and `||` together".into());
        }
        // Without `-e` a shell goes on after a command that fails, unless it is the last.
        unguarded |= !stops && !may_fail && parts.peek().is_some();
        found.extend(chain.into_iter().map(|words| {
            let stands = |name: &String| words.iter().any(|word| word.contains(&format!("${{{name}}}")));
            let variables = variables.iter().filter(|(name, _)| stands(name));
            let variables = variables.map(|(name, quoted)| (name.clone(), *quoted)).collect();
            Simple { words, may_fail, ends, variables }
        }));
    }
    match unguarded {
        true => Err("one that fails does not end it; begin it with `set -e`".into()),
        false => Ok(found),
    }
}

fn words(tokens: &[Token]) -> Vec<String> {
    let words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    });
    words.collect()
}

/// `NAME` or `{NAME}` behind a dollar; the error is what only a shell can do.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let braces = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match is_name && (!braces || chars.next_if_eq(&'}').is_some()) {
        true => Ok(name),
        false => Err("`$`".into()),
    }
}

/// The tokens, and the variables in them with whether each stands in quotes only.
fn tokens(script: &str) -> Result<(Vec<Token>, BTreeMap<String, bool>), String> {
    let mut variables: BTreeMap<String, bool> = BTreeMap::new();
    let mut tokens = Vec::new();
    let mut chars = script.chars().peekable();
    let mut word: Option<String> = None;
    let end = |word: &mut Option<String>, tokens: &mut Vec<Token>| tokens.extend(word.take().map(Token::Word));
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => end(&mut word, &mut tokens),
            '\n' | ';' => {
                end(&mut word, &mut tokens);
                // A chain goes on in the next line.
                if !matches!(tokens.last(), Some(Token::And | Token::Or)) || c == ';' {
                    tokens.push(Token::End);
                }
            }
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("a backslash at the end".into()),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a quote without its partner".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('\n') => {}
                            Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                            Some(next) => word.extend(['\\', next]),
                            None => return Err("a quote without its partner".into()),
                        },
                        Some('$') => {
                            let name = variable(&mut chars)?;
                            word.push_str(&format!("${{{name}}}"));
                            variables.entry(name).or_insert(true);
                        }
                        Some(c @ '`') => return Err(format!("`{c}`")),
                        Some(c) => word.push(c),
                        None => return Err("a quote without its partner".into()),
                    }
                }
            }
            '&' if chars.next_if_eq(&'&').is_some() => {
                end(&mut word, &mut tokens);
                tokens.push(Token::And);
            }
            '|' if chars.next_if_eq(&'|').is_some() => {
                end(&mut word, &mut tokens);
                tokens.push(Token::Or);
            }
            '*' | '?' | '[' => return Err(format!("a pattern with `{c}`")),
            '{' | '}' | '!' if word.is_some() => word.get_or_insert_default().push(c),
            '$' => {
                let name = variable(&mut chars)?;
                word.get_or_insert_default().push_str(&format!("${{{name}}}"));
                variables.insert(name, false);
            }
            '`' | '|' | '&' | '<' | '>' | '(' | ')' | '{' | '}' | '!' => return Err(format!("`{c}`")),
            '~' if word.is_none() => return Err("`~`".into()),
            c => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut tokens);
    let first =
        |tokens: &[Token]| matches!(tokens.first(), Some(Token::Word(word)) if KEYWORDS.contains(&word.as_str()));
    let part = tokens.split(|token| !matches!(token, Token::Word(_))).find(|part| first(part));
    if let Some([Token::Word(word), ..]) = part {
        return Err(format!("`{word}`"));
    }
    let assigns = |part: &[Token]| match part.first() {
        Some(Token::Word(word)) => word
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')),
        _ => false,
    };
    if tokens.split(|token| !matches!(token, Token::Word(_))).any(assigns) {
        return Err("a variable".into());
    }
    let dollars = |token: &Token| if let Token::Word(word) = token { word.matches('$').count() } else { 0 };
    let marks = |token: &Token| match token {
        Token::Word(word) => variables.keys().map(|name| word.matches(&format!("${{{name}}}")).count()).sum(),
        _ => 0,
    };
    if !variables.is_empty() && tokens.iter().any(|token| dollars(token) != marks(token)) {
        return Err("a dollar that means itself beside a variable".into());
    }
    Ok((tokens, variables))
}

const KEYWORDS: &[&str] =
    &["if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "function", "[", "[["];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(script: &str, expected: &[(&str, bool)]) {
        let found = commands(script).unwrap();
        let found: Vec<(String, bool)> = found.iter().map(|one| (one.words.join(" "), one.may_fail)).collect();
        let expected: Vec<(String, bool)> = expected.iter().map(|(text, may)| ((*text).to_owned(), *may)).collect();
        assert_eq!(found, expected, "{script}");
    }

    #[test]
    fn rows_of_commands() {
        check("docker pull x || exit 0", &[("docker pull x", true)]);
        check(
            "docker build -t 'a b' . && docker push a",
            &[("docker build -t a b .", false), ("docker push a", false)],
        );
        check(
            "set -ex\ndocker pull x || true\ndocker build .\n",
            &[("docker pull x", true), ("docker build .", false)],
        );
        check("docker build \\\n  -t x .", &[("docker build -t x .", false)]);
        check("# first\ndocker pull x || :", &[("docker pull x", true)]);
        check("a &&\nb", &[("a", false), ("b", false)]);
    }

    #[test]
    fn variables_stay_for_who_knows_them() {
        let found = commands("docker login -u=$USER -p \"$WORD\" && docker push \"a/${USER}:1\"").unwrap();
        assert_eq!(found[0].words, ["docker", "login", "-u=${USER}", "-p", "${WORD}"]);
        assert_eq!(found[0].variables, BTreeMap::from([("USER".into(), false), ("WORD".into(), true)]));
        assert_eq!(found[1].words[2], "a/${USER}:1");
        assert_eq!(found[1].variables.len(), 1);
    }

    #[test]
    fn more_than_that_is_for_a_shell() {
        for script in [
            "docker build . | tee log",
            "for x in a; do docker push $x; done",
            "docker push \"$X\" '$Y'",
            "docker push ${X:-y}",
            "docker push $1",
            "docker push a || docker push b",
            "docker build . > log",
            "X=1 docker build .",
            "docker push *",
            "if true; then docker push a; fi",
            "docker build .\ndocker push x",
        ] {
            assert!(commands(script).is_err(), "{script}");
        }
    }
}
