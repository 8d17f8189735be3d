//! A recipe as the text of a Dockerfile.

use ctk_buildgraph::{
    Arg, Command, Copy, CopySource, Escape, Expansion, From, Health, Instruction, NetworkMode, Recipe, RecipeStage,
    Run, SecurityMode, WrittenMount,
};

use crate::blank::{is_blank, quoted_words};
use crate::heredoc::{Introduction, introductions};
use crate::json;

/// A Dockerfile that means `recipe`; none if no Dockerfile can: native instructions, or words that no line can hold.
/// Comments that describe nothing are lost, and which lint rules count.
pub fn print(recipe: &Recipe) -> Option<String> {
    let Expansion::Dockerfile(escape) = recipe.expansion else { return None };
    let mut page = Page { text: String::new(), escape };
    if escape == Escape::Backtick {
        page.text.push_str("# escape=`\n");
    }
    // No comment after an empty line is a directive.
    page.text.push('\n');
    for arg in &recipe.globals {
        page.arg(std::slice::from_ref(arg))?;
    }
    for stage in &recipe.stages {
        page.from(stage)?;
        for statement in &stage.statements {
            page.instruction(&statement.instruction)?;
        }
    }
    Some(page.text)
}

struct Page {
    text: String,
    escape: Escape,
}

impl Page {
    /// One line; none if it would go on in the next one.
    fn line(&mut self, keyword: &str, flags: &[String], rest: &str) -> Option<()> {
        let mut line = keyword.to_owned();
        for flag in flags {
            line.push(' ');
            line.push_str(flag);
        }
        if rest.starts_with("--") {
            line.push_str(" --");
        }
        if !rest.is_empty() {
            line.push(' ');
            line.push_str(rest);
        }
        let continued = crate::logical::continued(&line, self.escape).1;
        if continued || rest.contains('\n') || flags.iter().any(|flag| flag.contains('\n')) {
            return None;
        }
        self.text.push_str(&line);
        self.text.push('\n');
        Some(())
    }

    fn describe(&mut self, name: &str, description: Option<&String>) {
        if let Some(description) = description {
            self.text.push_str(&format!("# {name} {description}\n"));
        }
    }

    fn from(&mut self, stage: &RecipeStage) -> Option<()> {
        let From::Text(base) = &stage.from else { return None };
        let platform: Vec<String> = stage.platform.iter().map(|platform| flag("platform", platform)).collect();
        match &stage.name {
            None => self.line("FROM", &platform, base),
            Some(name) => {
                self.describe(name, stage.description.as_ref());
                self.line("FROM", &platform, &format!("{base} AS {name}"))
            }
        }
    }

    fn arg(&mut self, args: &[Arg]) -> Option<()> {
        for arg in args {
            self.describe(&arg.name, arg.description.as_ref());
        }
        let word = |arg: &Arg| match &arg.default {
            Some(default) => format!("{}={default}", arg.name),
            None => arg.name.clone(),
        };
        self.line("ARG", &[], &args.iter().map(word).collect::<Vec<_>>().join(" "))
    }

    fn instruction(&mut self, instruction: &Instruction) -> Option<()> {
        match instruction {
            Instruction::Add(copy) => self.copy("ADD", copy),
            Instruction::Copy(copy) => self.copy("COPY", copy),
            Instruction::Run(run) => self.run(run),
            Instruction::Arg(args) => self.arg(args),
            Instruction::Cmd(words) => self.line("CMD", &[], &command(words)?),
            Instruction::Entrypoint(words) => self.line("ENTRYPOINT", &[], &command(words)?),
            Instruction::Env(pairs) => self.pairs("ENV", pairs),
            Instruction::Label(pairs) => self.pairs("LABEL", pairs),
            Instruction::Expose(ports) => self.line("EXPOSE", &[], &ports.join(" ")),
            Instruction::Healthcheck(health) => self.health(health),
            Instruction::Maintainer(author) => self.line("MAINTAINER", &[], author),
            Instruction::Onbuild(trigger) => {
                let (first, rest) = trigger.split_once('\n').map_or((trigger.as_str(), None), |(f, r)| (f, Some(r)));
                self.line("ONBUILD", &[], first)?;
                if let Some(rest) = rest {
                    self.text.push_str(&format!("{rest}\n"));
                }
                Some(())
            }
            Instruction::Shell(words) => self.line("SHELL", &[], &array(words)),
            Instruction::Stopsignal(signal) => self.line("STOPSIGNAL", &[], signal),
            Instruction::User(user) => self.line("USER", &[], user),
            Instruction::Volume(paths) => self.line("VOLUME", &[], &self.words(paths)),
            Instruction::Workdir(path) => self.line("WORKDIR", &[], path),
            Instruction::Packages(_) | Instruction::UserEntry(_) => None,
        }
    }

    /// Words as they are if that can be read, else as a JSON array.
    fn words(&self, words: &[String]) -> String {
        let plain = |word: &String| {
            !word.is_empty()
                && word.trim() == word
                && !word.contains(|c: char| is_blank(c) || c == '\n')
                && !word.ends_with(self.escape.char())
                && Introduction::parse(word).is_none()
        };
        let line = words.join(" ");
        if words.iter().all(plain) && json::array(&line) == json::Array::Not { line } else { array(words) }
    }

    fn pairs(&mut self, keyword: &str, pairs: &[(String, String)]) -> Option<()> {
        let words: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let ([(name, value)], [word]) = (pairs, words.as_slice()) {
            let read = quoted_words(word, self.escape.char());
            if read.len() != 1 || read[0].1 != *word {
                // The form of old: the value is the rest of the line. One blank may be escaped, another one is not.
                let forms = [format!("{name} {value}"), format!("{name}  {value}")];
                let old = |rest: &&String| {
                    quoted_words(rest, self.escape.char()).first().is_some_and(|(_, word)| !word.contains('='))
                };
                let rest = forms.iter().find(old)?;
                return self.line(keyword, &[], rest);
            }
        }
        self.line(keyword, &[], &words.join(" "))
    }

    fn health(&mut self, health: &Health) -> Option<()> {
        let Health::Check { command: words, interval, timeout, start_period, start_interval, retries } = health else {
            return self.line("HEALTHCHECK", &[], "NONE");
        };
        let times = [
            ("interval", interval),
            ("timeout", timeout),
            ("start-period", start_period),
            ("start-interval", start_interval),
        ];
        let given = times.into_iter().filter(|(_, time)| **time != 0);
        let mut flags: Vec<String> = given.map(|(name, time)| format!("--{name}={time}ns")).collect();
        flags.extend((*retries != 0).then(|| format!("--retries={retries}")));
        self.line("HEALTHCHECK", &flags, &format!("CMD {}", command(words)?))
    }

    fn copy(&mut self, keyword: &str, copy: &Copy) -> Option<()> {
        let mut flags = Vec::new();
        match &copy.from {
            From::Context => {}
            From::Text(from) => flags.push(flag("from", from)),
            _ => return None,
        }
        let values = [("chown", &copy.chown), ("chmod", &copy.chmod), ("checksum", &copy.checksum)];
        flags.extend(values.into_iter().filter_map(|(name, value)| Some(flag(name, value.as_ref()?))));
        let switches = [("link", copy.link), ("parents", copy.parents), ("keep-git-dir", copy.keep_git_dir)];
        flags.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| format!("--{name}")));
        flags.extend(copy.unpack.map(|on| format!("--unpack={on}")));
        flags.extend(copy.exclude.iter().map(|pattern| flag("exclude", pattern)));
        let mut words = Vec::new();
        let mut documents = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Path(path) => words.push(path.clone()),
                CopySource::Inline(document) => {
                    let name = &document.name;
                    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
                    if !name.bytes().all(plain) || name.starts_with('-') {
                        return None;
                    }
                    words.push(if document.expand { format!("<<{name}") } else { format!("<<\"{name}\"") });
                    documents.push(document);
                }
            }
        }
        words.push(copy.dest.clone());
        if documents.is_empty() {
            return self.line(keyword, &flags, &self.words(&words));
        }
        let line = words.join(" ");
        let one = |word: &String| !word.is_empty() && !word.contains(is_blank);
        let names = documents.iter().map(|document| document.name.as_str());
        if words.iter().all(one) && introduced(keyword, &flags, &line).iter().map(String::as_str).eq(names) {
            self.line(keyword, &flags, &line)?;
            for document in documents {
                self.text.push_str(&format!("{}{}\n", document.content, document.name));
            }
            return Some(());
        }
        // An array introduces none: its documents are empty.
        match documents.iter().all(|document| document.content.is_empty()) {
            true => self.line(keyword, &flags, &array(&words)),
            false => None,
        }
    }

    fn run(&mut self, run: &Run) -> Option<()> {
        let mut flags = Vec::new();
        for mount in &run.mounts {
            let WrittenMount::Options(options) = mount else { return None };
            let field = |(key, value): (&String, &Option<String>)| {
                let field = value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
                match field.contains([',', '"']) {
                    true => format!("\"{}\"", field.replace('"', "\"\"")),
                    false => field,
                }
            };
            let fields: Vec<String> = options.iter().map(|option| field((&option.key, &option.value))).collect();
            flags.push(flag("mount", &fields.join(",")));
        }
        match run.network {
            NetworkMode::None => flags.push("--network=none".into()),
            NetworkMode::Host => flags.push("--network=host".into()),
            _ => {}
        }
        if run.security == SecurityMode::Insecure {
            flags.push("--security=insecure".into());
        }
        for device in &run.devices {
            flags.push(flag(
                "device",
                &format!("name={}{}", device.name, if device.required { ",required" } else { "" }),
            ));
        }
        let line = command(&run.command)?;
        let names = run.heredocs.iter().map(|document| document.document.name.as_str());
        if !introduced("RUN", &flags, &line).iter().map(String::as_str).eq(names) {
            return None;
        }
        self.line("RUN", &flags, &line)?;
        for document in &run.heredocs {
            self.text.push_str(&format!("{}{}\n", document.raw, document.document.name));
        }
        Some(())
    }
}

/// The documents that a line introduces.
fn introduced(keyword: &str, flags: &[String], rest: &str) -> Vec<String> {
    let line = format!("{keyword} {} {rest}", flags.join(" "));
    introductions(&line).into_iter().map(|(_, introduction)| introduction.name).collect()
}

/// Every character that would mean something is escaped.
fn flag(name: &str, value: &str) -> String {
    let mut out = format!("--{name}=");
    for char in value.chars() {
        if char.is_whitespace() || matches!(char, '"' | '\'' | '\\') {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

fn command(command: &Command) -> Option<String> {
    match command {
        Command::Exec(words) => Some(array(words)),
        Command::Shell(line) => (json::array(line) == json::Array::Not).then(|| line.clone()),
    }
}

fn array(words: &[String]) -> String {
    serde_json::to_string(words).expect("strings serialise")
}
