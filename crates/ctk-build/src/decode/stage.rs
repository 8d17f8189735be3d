//! Instructions of native stages: the same names and meanings as in a Dockerfile.
//!
//! `run "a b"` is the shell form, `run "a" "b"` the exec form. `entrypoint`, `cmd` and `healthcheck` with one word
//! without blanks are the exec form too, so that they work in images without a shell.

use ctk_buildgraph::{Arg, Command, Instruction, Statement, UserEntry};
use ctk_project::CACHE_NODES;
use ctk_syntax::{Data, Diagnostic, Node, Reader, Spanned};

use super::Image;
use crate::codes;

type Decode = fn(&mut Image<'_>, &Node, &[&str]) -> Option<Instruction>;

/// Every instruction of a stage.
const TABLE: &[(&str, Decode)] = &[
    ("add", |image, node, stages| image.copy(node, stages, true)),
    ("arg", |image, node, _| image.stage_arg(node)),
    ("cmd", |image, node, _| image.command(node).map(Instruction::Cmd)),
    ("copy", |image, node, stages| image.copy(node, stages, false)),
    ("entrypoint", |image, node, _| image.command(node).map(Instruction::Entrypoint)),
    ("env", |image, node, _| image.pairs(node).map(Instruction::Env)),
    ("expose", |image, node, _| image.words(node, "a port").map(Instruction::Expose)),
    ("healthcheck", |image, node, _| image.healthcheck(node)),
    ("label", |image, node, _| image.pairs(node).map(Instruction::Label)),
    ("onbuild", |image, node, _| image.onbuild(node)),
    ("packages", |image, node, _| image.packages(node)),
    ("run", |image, node, stages| image.run(node, stages)),
    ("shell", |image, node, _| image.words(node, "a program").map(Instruction::Shell)),
    ("stopsignal", |image, node, _| image.word(node, "a signal").map(Instruction::Stopsignal)),
    ("user", |image, node, _| image.user(node)),
    ("volume", |image, node, _| image.words(node, "a path").map(Instruction::Volume)),
    ("workdir", |image, node, _| image.word(node, "a path").map(Instruction::Workdir)),
];

impl Image<'_> {
    /// Decodes one instruction; `stages` are the image's stages, for `from`.
    pub(super) fn instruction(&mut self, node: &Node, stages: &[&str]) -> Option<Statement> {
        let Some((_, decode)) = TABLE.iter().find(|(name, _)| *name == node.name.value) else {
            let mut known: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
            known.push("stage");
            known.extend(ctk_project::IMAGE_SETTINGS);
            known.extend(CACHE_NODES);
            if ctk_project::IMAGE_SETTINGS.contains(&node.name.value.as_str()) {
                let message = format!("`{}` is about the whole image, not about a stage", node.name);
                let label = "expected beside the stages";
                let diagnostic = Diagnostic::error(ctk_syntax::codes::UNKNOWN_NODE, message).at(node.name.span, label);
                self.diagnostics.push(diagnostic);
                return None;
            }
            self.diagnostics.unknown_node(node, Some("stage"), &known);
            return None;
        };
        let instruction = decode(self, node, stages)?;
        Some(Statement { instruction, text: shown(node), origin: Some(node.span) })
    }

    fn word(&mut self, node: &Node, what: &str) -> Option<String> {
        let mut reader = Reader::new(node, self.diagnostics);
        let word = reader.arg_text(what);
        said(&mut reader, word.as_ref(), what);
        reader.finish();
        word.map(|w| w.value)
    }

    fn words(&mut self, node: &Node, what: &str) -> Option<Vec<String>> {
        let mut reader = Reader::new(node, self.diagnostics);
        let words = reader.args_text_some(what);
        // Arguments of a command may be empty, the program may not.
        said(&mut reader, words.first(), what);
        reader.finish();
        (!words.is_empty()).then(|| words.into_iter().map(|w| w.value).collect())
    }

    /// `env NAME="value"` and `env { NAME "value" }`.
    fn pairs(&mut self, node: &Node) -> Option<Vec<(String, String)>> {
        let mut reader = Reader::new(node, self.diagnostics);
        let mut pairs: Vec<_> = reader.all_props_text().into_iter().map(|(n, v)| (n.value, v.value)).collect();
        for child in reader.children() {
            let mut pair = reader.child(child);
            let value = pair.arg_text("a value");
            pair.finish();
            pairs.extend(value.map(|v| (child.name.value.clone(), v.value)));
        }
        reader.finish();
        if let Some((name, _)) =
            pairs.iter().find(|(name, _)| name.is_empty() || (node.name.value == "env" && name.contains('=')))
        {
            let message = format!("`{name}` of `{}` is no name", node.name);
            self.diagnostics.push(Diagnostic::error(codes::EMPTY, message).at(node.span, "expected `NAME=\"value\"`"));
        }
        if pairs.is_empty() {
            let message = format!("`{}` needs at least one name and value", node.name);
            self.diagnostics
                .push(Diagnostic::error(codes::EMPTY, message).at(node.name.span, "expected `NAME=\"value\"`"));
            return None;
        }
        Some(pairs)
    }

    fn stage_arg(&mut self, node: &Node) -> Option<Instruction> {
        let mut reader = Reader::new(node, self.diagnostics);
        let name = reader.arg_str("a name");
        let default = reader.opt_arg().and_then(|value| reader.scalar_text(value));
        reader.finish();
        Some(Instruction::Arg(vec![Arg { name: name?.value, default, description: None, origin: Some(node.span) }]))
    }

    fn onbuild(&mut self, node: &Node) -> Option<Instruction> {
        let text = self.word(node, "an instruction as in a Dockerfile")?;
        if let Err(error) = ctk_dockerfile::parse_trigger(&text) {
            let message = format!("this trigger cannot be read: {error}");
            self.diagnostics.push(
                Diagnostic::error(codes::BAD_TRIGGER, message)
                    .at(node.span, "expected an instruction as in a Dockerfile"),
            );
            return None;
        }
        Some(Instruction::Onbuild(text))
    }

    /// `user "name"`, or `user "name" uid=65532` to create the account as well.
    fn user(&mut self, node: &Node) -> Option<Instruction> {
        let ids = 0..=i128::from(u32::MAX - 1);
        let mut reader = Reader::new(node, self.diagnostics);
        let name = reader.arg_text("a user");
        said(&mut reader, name.as_ref(), "a user");
        let uid = reader.opt_prop_int("uid", ids.clone());
        let gid = reader.opt_prop_int("gid", ids);
        let home = reader.opt_prop_str("home");
        let shell = reader.opt_prop_str("shell");
        reader.finish();
        let name = name?.value;
        let Some(uid) = uid else {
            if gid.is_some() || home.is_some() || shell.is_some() {
                let message = "`gid`, `home` and `shell` are for a new account, which needs a `uid`";
                self.diagnostics
                    .push(Diagnostic::error(codes::CONFLICT, message).at(node.name.span, "expected `uid=…`"));
            }
            return Some(Instruction::User(name));
        };
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !plain {
            let message = format!("`{name}` cannot name an account");
            self.diagnostics.push(
                Diagnostic::error(codes::BAD_NAME, message).at(node.span, "expected letters, digits, `_`, `-`, `.`"),
            );
            return None;
        }
        let uid = uid.value as u32;
        let text =
            |found: Option<Spanned<String>>, default: &str| found.map_or_else(|| default.to_owned(), |t| t.value);
        Some(Instruction::UserEntry(UserEntry {
            uid,
            gid: gid.map_or(uid, |g| g.value as u32),
            home: text(home, "/nonexistent"),
            shell: text(shell, "/usr/sbin/nologin"),
            name,
        }))
    }

    /// Words of `entrypoint`, `cmd`: one with blanks is a line for the shell.
    pub(super) fn command(&mut self, node: &Node) -> Option<Command> {
        let words = self.words(node, "a command")?;
        Some(match words.as_slice() {
            [line] if line.contains(char::is_whitespace) => Command::Shell(line.clone()),
            _ => Command::Exec(words),
        })
    }
}

/// A word that is there must say something.
pub(super) fn said(reader: &mut Reader<'_, '_>, word: Option<&Spanned<String>>, what: &str) {
    if let Some(word) = word.filter(|word| word.value.is_empty()) {
        reader.error(codes::EMPTY, word.span, format!("{what} cannot be empty"), format!("expected {what}"));
    }
}

/// A value's text; what is none is nothing.
trait ScalarText {
    fn scalar_text(&mut self, value: &ctk_syntax::Value) -> Option<String>;
}

impl ScalarText for Reader<'_, '_> {
    fn scalar_text(&mut self, value: &ctk_syntax::Value) -> Option<String> {
        value.to_text()
    }
}

/// For progress lines: `RUN make`, as a Dockerfile would have it.
fn shown(node: &Node) -> String {
    let mut parts = vec![node.name.value.to_ascii_uppercase()];
    parts.extend(node.args.iter().filter_map(|v| v.to_text()));
    for prop in &node.props {
        match (&prop.value.data, prop.value.to_text()) {
            (Data::String(text), _) if node.name.value == "env" || node.name.value == "label" => {
                parts.push(format!("{}={text}", prop.name.value));
            }
            (_, Some(text)) if prop.name.value == "to" => parts.push(text),
            (_, Some(text)) => parts.push(format!("--{}={text}", prop.name.value)),
            _ => {}
        }
    }
    parts.join(" ")
}
