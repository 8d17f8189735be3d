//! JUnit reports that steps wrote: how many tests there were, and which failed.

use std::path::Path;

use serde::Serialize;

use super::RunError;
use super::error::on;
use super::limits::JUNIT_BYTES;
use super::paths;

/// What reports say together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Reports.
    pub files: usize,
    /// Test cases.
    pub tests: usize,
    /// Those that failed.
    pub failures: usize,
    /// Those that could not be run.
    pub errors: usize,
    /// Those that were left out.
    pub skipped: usize,
    /// What they took together.
    pub seconds: f64,
    /// `suite: case: message` of each that did not succeed.
    pub bad: Vec<String>,
    /// Files that are no reports.
    pub unreadable: Vec<String>,
}

/// Reads the reports below a workspace that the patterns name.
pub fn collect(workspace: &Path, patterns: &[String]) -> Result<Summary, RunError> {
    let mut summary = Summary::default();
    for name in paths::files(workspace, patterns)? {
        let path = workspace.join(&name);
        let metadata = std::fs::symlink_metadata(&path).map_err(on("look at", &path))?;
        if !metadata.is_file() || metadata.len() > JUNIT_BYTES {
            summary.unreadable.push(name);
            continue;
        }
        let bytes = std::fs::read(&path).map_err(on("read", &path))?;
        match read(&String::from_utf8_lossy(&bytes), &mut summary) {
            true => summary.files += 1,
            false => summary.unreadable.push(name),
        }
    }
    Ok(summary)
}

impl Summary {
    /// In one line.
    pub fn line(&self) -> String {
        let mut parts = vec![format!("{} tests", self.tests)];
        let numbers = [(self.failures, "failed"), (self.errors, "broken"), (self.skipped, "skipped")];
        parts
            .extend(numbers.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
        format!("{} in {:.1} s", parts.join(", "), self.seconds)
    }
}

/// Adds what a report says; whether it is one.
fn read(text: &str, summary: &mut Summary) -> bool {
    let mut suite = String::new();
    let mut case: Option<String> = None;
    let mut found = false;
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        // Text in these is no markup.
        if let Some((_, after)) = between(rest, "<![CDATA[", "]]>").or_else(|| between(rest, "<!--", "-->")) {
            rest = after;
            continue;
        }
        let Some(end) = tag_end(rest) else { break };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '\t', '\n', '\r', '/']).next().unwrap_or_default();
        match (name, tag.starts_with('/')) {
            ("testsuite" | "testsuites", false) => {
                found = true;
                suite = attribute(tag, "name").unwrap_or_default();
            }
            ("testcase", false) => {
                summary.tests += 1;
                summary.seconds += attribute(tag, "time").and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
                let class = attribute(tag, "classname").unwrap_or_else(|| suite.clone());
                case = Some(format!("{class}: {}", attribute(tag, "name").unwrap_or_default()));
            }
            ("testcase", true) => case = None,
            ("failure" | "error" | "skipped", false) => {
                // Each counts once, whatever is said of it.
                let Some(case) = case.take() else { continue };
                let message = attribute(tag, "message").unwrap_or_default();
                let message = message.lines().next().unwrap_or_default();
                match name {
                    "skipped" => {
                        summary.skipped += 1;
                        continue;
                    }
                    "failure" => summary.failures += 1,
                    _ => summary.errors += 1,
                }
                summary.bad.push(format!("{case}: {message}").trim_end_matches([' ', ':']).to_owned());
            }
            _ => {}
        }
    }
    found
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(begin)?.split_once(end)
}

/// Where the tag at the beginning ends: a `>` in quotes is none.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('>', None) => return Some(at),
            _ => {}
        }
    }
    None
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut from = 0;
    while let Some(at) = tag[from..].find(name) {
        let begin = from + at;
        from = begin + name.len();
        let stands_alone = tag[..begin].ends_with(char::is_whitespace);
        let rest = tag[from..].trim_start();
        if let (true, Some(rest)) = (stands_alone, rest.strip_prefix('=')) {
            let rest = rest.trim_start();
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (value, _) = rest[1..].split_once(quote)?;
            return Some(plain(value));
        }
    }
    None
}

fn plain(text: &str) -> String {
    let names = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#10;", "\n"), ("&amp;", "&")];
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_makers() {
        let text = r#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="4">
            <testcase name="a" classname="m" time="0.5"/>
            <testcase name="b > c" time="1"><failure message="1 &lt; 2&#10;more"><![CDATA[<testcase>]]></failure></testcase>
            <testcase name='c' time="x"><skipped/></testcase><!-- <testcase/> -->
            <testcase name="d"><error/><system-out>x</system-out></testcase></testsuite></testsuites>"#;
        let mut summary = Summary::default();
        assert!(read(text, &mut summary));
        assert_eq!(summary.line(), "4 tests, 1 failed, 1 broken, 1 skipped in 1.5 s");
        assert_eq!(summary.bad, ["s: b > c: 1 < 2", "s: d"]);
        assert!(!read("<html></html>", &mut Summary::default()));
        assert!(!read("<testsuite name=\"", &mut Summary::default()));
    }
}
