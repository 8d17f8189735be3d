//! Results as tables, as JSON, or by a template.

use serde_json::Value;

use super::template::Template;
use crate::failure::Failure;

/// Rows of a command: each an object whose fields templates name.
pub struct Table<'a> {
    /// Heads and fields of the table that is shown when nobody asks for another form.
    pub columns: &'a [(&'a str, &'a str)],
    /// The rows.
    pub rows: Vec<Value>,
}

impl Table<'_> {
    /// The text, in the form that `format` says: none or `table` for the table, `json`, `table TEMPLATE`, or a template.
    pub fn text(&self, format: Option<&str>, no_head: bool) -> Result<String, Failure> {
        match format.map(str::trim) {
            None | Some("table" | "") => Ok(self.aligned(no_head)),
            Some("json") => Ok(serde_json::to_string_pretty(&self.rows)? + "\n"),
            Some(text) => match text.strip_prefix("table ") {
                Some(template) => self.by_template(template, !no_head),
                None => self.by_template(text, false),
            },
        }
    }

    fn by_template(&self, template: &str, head: bool) -> Result<String, Failure> {
        let template = template_of(template)?;
        let rows = self.rows.iter().map(|row| template.render(row)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        if !head {
            return Ok(rows.into_iter().map(|row| row + "\n").collect());
        }
        let split = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = std::iter::once(template.head()).chain(rows).map(split).collect();
        Ok(align(&lines))
    }

    fn aligned(&self, no_head: bool) -> String {
        let head = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        let cell = |row: &Value, field: &str| match row.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let rows = self.rows.iter().map(|row| self.columns.iter().map(|(_, field)| cell(row, field)).collect());
        let lines: Vec<Vec<String>> = std::iter::once(head).filter(|_| !no_head).chain(rows).collect();
        align(&lines)
    }
}

/// A value by a template, or as JSON.
pub fn shown(value: &Value, format: Option<&str>) -> Result<String, Failure> {
    match format.map(str::trim) {
        None | Some("json" | "") => Ok(serde_json::to_string_pretty(value)? + "\n"),
        Some(text) => Ok(template_of(text)?.render(value).map_err(wrong)? + "\n"),
    }
}

/// Reads a template.
pub fn template_of(text: &str) -> Result<Template, Failure> {
    Template::parse(text).map_err(wrong)
}

fn wrong(why: String) -> Failure {
    Failure::sentence(format!("--format: {why}"), Some("`--format json` shows all fields"))
}

fn align(lines: &[Vec<String>]) -> String {
    use unicode_width::UnicodeWidthStr;
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            match widths.get_mut(index) {
                Some(width) => *width = cell.width().max(*width),
                None => widths.push(cell.width()),
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            row.push_str(cell);
            row.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}
