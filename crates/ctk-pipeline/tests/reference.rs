//! `docs/reference/cloud-build.md` has every field of the schema: `CTK_BLESS=1 cargo test -p ctk-pipeline --test
//! reference` writes its tables; what stands above the first of them is written by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ctk_pipeline::cloudbuild::schema::{Fate, Field, Type, records};

fn kind(field: &Field) -> String {
    let one = match field.kind {
        Type::Text => "text".to_owned(),
        Type::Flag => "`true` or `false`".into(),
        Type::Whole => "whole number".into(),
        Type::Duration => "duration".into(),
        Type::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.trim_end_matches('!'))).collect();
            format!("one of {}", words.join(", "))
        }
        Type::Record(record) if record.fields.is_empty() => "anything".into(),
        Type::Record(record) => format!("[{}](#{})", record.name, anchor(record.name)),
        Type::Table => "names with texts".into(),
    };
    if field.list { format!("list: {one}") } else { one }
}

fn anchor(name: &str) -> String {
    name.to_lowercase().replace('`', "").replace(' ', "-")
}

fn tables() -> String {
    let mut out = String::new();
    for record in records() {
        let _ = write!(out, "\n## {}\n\n| Field | Type | Substituted | Here |\n|---|---|---|---|\n", record.name);
        for field in record.fields {
            let here = match field.fate {
                Fate::Used => "taken".to_owned(),
                Fate::Said(text) => format!("accepted; {text}"),
                Fate::Output => "set by Cloud Build; ignored with a warning".into(),
                Fate::Refused(text) => format!("refused; {text}"),
            };
            let substituted = if field.substituted { "yes" } else { "" };
            let _ = writeln!(out, "| `{}` | {} | {substituted} | {here} |", field.name, kind(field));
        }
    }
    out
}

#[test]
fn the_reference_page_has_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cloud-build.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (head, old) = page.split_once("\n## the build\n").expect("the page has tables");
    let new = tables();
    if std::env::var_os("CTK_BLESS").is_some() {
        fs::write(&path, format!("{head}{new}")).expect("the page can be written");
        return;
    }
    assert_eq!(format!("\n## the build\n{old}"), new, "CTK_BLESS=1 writes the tables");
}
