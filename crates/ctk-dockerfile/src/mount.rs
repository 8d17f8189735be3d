//! `RUN --mount=type=…,key=value,…`: the fields; what they mean is [`ctk_buildgraph::mount_of`]'s.

use std::ops::Range;

use ctk_buildgraph::{MountOption, WrittenMount, mount_of};
use ctk_syntax::Diagnostic;

use crate::codes;
use crate::line::Line;

pub(crate) fn parse(line: &mut Line<'_>, text: &str, range: Range<usize>) -> Option<WrittenMount> {
    let fields = match fields(text) {
        Ok(fields) => fields,
        Err(reason) => {
            line.error(
                codes::BAD_MOUNT,
                format!("`--mount={text}` cannot be split at its commas: {reason}"),
                range,
                "",
            );
            return None;
        }
    };
    // What is no word is shown as it was written.
    let plain = |key: &str| match key.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        true => key.to_ascii_lowercase(),
        false => key.to_owned(),
    };
    let option = |(field, _): &(String, _)| match field.split_once('=') {
        Some((key, value)) => MountOption { key: plain(key), value: Some(value.to_owned()) },
        None => MountOption { key: plain(field), value: None },
    };
    let options: Vec<MountOption> = fields.iter().map(option).collect();
    // An option has a place of its own where the flag is written without quotes and escapes.
    let head = range.len() - text.len();
    let as_written = line.logical.text.get(range.start + head..range.end) == Some(text);
    let place = |option: Option<usize>| match option.filter(|_| as_written) {
        Some(option) => {
            let within: &Range<usize> = &fields[option].1;
            range.start + head + within.start..range.start + head + within.end
        }
        None => range.clone(),
    };
    let variable = |option: &&MountOption| option.value.as_ref().is_some_and(|value| value.contains('$'));
    if let Some(from) = options.iter().filter(|option| option.key == "from").find(variable) {
        let value = from.value.as_deref().unwrap_or_default();
        let message = format!("`from={value}` of a mount cannot hold a variable");
        let label = "define a stage for it: `FROM … AS name` takes variables, and `from=name` is it";
        let number = options.iter().position(|option| option == from);
        line.error(codes::BAD_MOUNT, message, place(number), label);
        return None;
    }
    // With variables in it, it is read when they are known.
    if !options.iter().any(|option| variable(&option)) {
        match mount_of(&options) {
            Ok(read) => {
                let span = line.logical.span_of(range.clone());
                for message in read.idle {
                    line.diagnostics.push(Diagnostic::warning(codes::BAD_MOUNT, message).at(span, ""));
                }
            }
            Err(faults) => {
                for fault in faults {
                    line.error(codes::BAD_MOUNT, fault.message, place(fault.option), fault.label);
                }
                return None;
            }
        }
    }
    Some(WrittenMount::Options(options))
}

/// Fields of one line of comma-separated values (RFC 4180), and where they stand: a field that begins with a double quote ends with one, may
/// hold commas, and doubles the quotes in it; no other field may hold any.
fn fields(text: &str) -> Result<Vec<(String, Range<usize>)>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field;
        let start = text.len() - rest.len();
        (field, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err("a quote stands inside a field that does not begin with one");
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push((field, start..text.len() - rest.len()));
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(fields),
            None => return Err("something follows the closing quote of a field"),
        }
    }
}

/// What is quoted, and what follows the closing quote.
fn quoted_field(text: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quote is never closed")?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_comma_separated_values() {
        for (text, expected) in [
            ("a=1,b", Some(vec!["a=1", "b"])),
            ("", Some(vec![""])),
            ("a,,b", Some(vec!["a", "", "b"])),
            ("a,", Some(vec!["a", ""])),
            (r#""a,b",c"#, Some(vec!["a,b", "c"])),
            (r#""a""b",c"#, Some(vec![r#"a"b"#, "c"])),
            (r#"a"b,c"#, None),
            (r#"ab",c"#, None),
            (r#""a"b,c"#, None),
            (r#""a,c"#, None),
        ] {
            let found = fields(text).ok();
            let found: Option<Vec<&str>> =
                found.as_ref().map(|all| all.iter().map(|(field, _)| field.as_str()).collect());
            assert_eq!(found, expected, "{text}");
        }
    }
}
