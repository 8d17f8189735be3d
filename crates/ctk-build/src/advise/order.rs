//! Layers ordered against change.

use ctk_buildgraph::{FileAction, Op};

use super::{Advice, Flaw, Scene};
use crate::explain::NotedStep;

/// Commands that install what a few files name, and these files; none where they need no file of the context.
const INSTALLERS: [(&str, &[&str]); 24] = [
    ("apt-get install", &[]),
    ("apt install", &[]),
    ("apk add", &[]),
    ("dnf install", &[]),
    ("yum install", &[]),
    ("microdnf install", &[]),
    ("zypper install", &[]),
    ("npm ci", &["package.json", "package-lock.json"]),
    ("npm install", &["package.json", "package-lock.json"]),
    ("yarn install", &["package.json", "yarn.lock"]),
    ("pnpm install", &["package.json", "pnpm-lock.yaml"]),
    ("bun install", &["package.json", "bun.lockb"]),
    ("pip install -r", &["requirements.txt"]),
    ("pip3 install -r", &["requirements.txt"]),
    ("poetry install", &["pyproject.toml", "poetry.lock"]),
    ("uv sync", &["pyproject.toml", "uv.lock"]),
    ("pipenv install", &["Pipfile", "Pipfile.lock"]),
    ("bundle install", &["Gemfile", "Gemfile.lock"]),
    ("composer install", &["composer.json", "composer.lock"]),
    ("go mod download", &["go.mod", "go.sum"]),
    ("cargo fetch", &["Cargo.toml", "Cargo.lock"]),
    ("mvn dependency:go-offline", &["pom.xml"]),
    ("dotnet restore", &["*.csproj"]),
    ("mix deps.get", &["mix.exs", "mix.lock"]),
];

/// RUNs that install, after a copy of a whole directory of the context that they do not need.
pub(super) fn look(scene: &Scene<'_>, advice: &mut Vec<Advice>) {
    let graph = &scene.job.plan.lowered.graph;
    let needed = graph.reachable(scene.job.plan.lowered.image.vertex);
    for (step, id) in scene.steps.steps.iter().zip(&needed) {
        if !matches!(graph.get(*id).op, Op::Exec(_)) {
            continue;
        }
        let words = step.written.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((command, files)) = INSTALLERS.iter().find(|(command, _)| has(&words, command)) else { continue };
        // Before it in its stage: copies of directories of the context.
        let mut before = step.inputs.first().copied();
        let mut copy = None;
        while let Some(at) = before.map(|at| (at, &scene.steps.steps[at])).filter(|(_, b)| b.stage() == step.stage()) {
            let (at, earlier) = at;
            if let Op::File { actions, .. } = &graph.get(needed[at]).op
                && reads_directory(scene, actions)
            {
                copy = Some((at, earlier));
            }
            before = earlier.inputs.first().copied();
        }
        let Some((at, copy)) = copy else { continue };
        let Some(seconds) = seconds(scene, step) else { continue };
        let (again, builds) = times(scene, step);
        let often =
            if builds > 1 { format!(" (it ran in {again} of the last {builds} builds)") } else { String::new() };
        let hint = match files {
            [] => format!("move it before `{}`, which it does not need", first_line(&copy.written)),
            files => {
                let there = copied(scene, &graph.get(needed[at]).op, files);
                let what = if there.is_empty() { "what it reads".to_owned() } else { listed(&there) };
                format!("copy {what} first, run it, and copy the rest after it")
            }
        };
        advice.push(Advice {
            rule: Flaw::Order,
            message: format!(
                "`{command}` runs again whenever a file of `{}` changes{often}",
                first_line(&copy.written)
            ),
            hint,
            place: step.place.clone(),
            bytes: None,
            seconds: Some(seconds),
        });
    }
}

/// Whether `command` stands in `words` as words.
fn has(words: &str, command: &str) -> bool {
    let (program, rest) = command.split_once(' ').unwrap_or((command, ""));
    let mut parts = words.split(['&', ';', '|', '\n', '(', ')']);
    // Options may stand between: `apt-get -y install`.
    parts.any(|part| {
        let mut words = part.split(' ').skip_while(|word| word.rsplit('/').next() != Some(program)).skip(1);
        let mut rest = rest.split(' ').filter(|word| !word.is_empty());
        let Some(first) = rest.next() else { return words.next().is_some() };
        words.by_ref().any(|word| word == first) && rest.all(|wanted| words.clone().any(|word| word == wanted))
    })
}

/// Whether an action copies a directory of the main context with what lies below it.
fn reads_directory(scene: &Scene<'_>, actions: &[FileAction]) -> bool {
    actions.iter().any(|action| {
        let FileAction::Copy { selection: Some(selection), .. } = action else { return false };
        let found = scene.job.contexts.find(selection);
        found.is_ok_and(|found| found.iter().any(|found| found.count > 1))
    })
}

/// Those of `names` that an operation copies from the main context.
fn copied(scene: &Scene<'_>, op: &Op, names: &[&'static str]) -> Vec<&'static str> {
    let Op::File { actions, .. } = op else { return Vec::new() };
    let selections = actions.iter().filter_map(|action| match action {
        FileAction::Copy { selection, .. } => selection.as_ref(),
        _ => None,
    });
    let found: Vec<_> = selections.filter_map(|selection| scene.job.contexts.find_all(selection).ok()).collect();
    let is = |path: &[u8], name: &str| match name.strip_prefix('*') {
        Some(end) => path.ends_with(end.as_bytes()),
        None => path.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes()),
    };
    let there =
        |name: &&&str| found.iter().flat_map(|all| all.iter()).any(|one| one.all().iter().any(|e| is(&e.path, name)));
    names.iter().filter(there).copied().collect()
}

/// Seconds that the step took when it ran last.
fn seconds(scene: &Scene<'_>, step: &NotedStep) -> Option<f64> {
    scene.past.iter().find_map(|past| same(past, step)?.seconds)
}

/// In how many builds it ran, of how many that had it.
fn times(scene: &Scene<'_>, step: &NotedStep) -> (usize, usize) {
    let had: Vec<&NotedStep> = scene.past.iter().filter_map(|past| same(past, step)).collect();
    (had.iter().filter(|step| step.seconds.is_some()).count(), had.len())
}

fn same<'a>(past: &'a crate::explain::Noted, step: &NotedStep) -> Option<&'a NotedStep> {
    past.steps.iter().find(|old| old.written == step.written && old.stage() == step.stage())
}

pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// `a`, `b` and `c`.
pub(super) fn listed<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match quoted.as_slice() {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        all => all.join(""),
    }
}

#[cfg(test)]
mod tests {
    use super::has;

    #[test]
    fn commands_are_found_among_words() {
        for (words, command) in [
            ("RUN apt-get update && apt-get install -y gcc", "apt-get install"),
            ("RUN apt-get -qy install gcc", "apt-get install"),
            ("RUN cd /x; /usr/bin/npm ci", "npm ci"),
            ("RUN pip install --no-cache-dir -r requirements.txt", "pip install -r"),
        ] {
            assert!(has(words, command), "{words}");
        }
        for (words, command) in [
            ("RUN pip install .", "pip install -r"),
            ("RUN apt-get update", "apt-get install"),
            ("RUN echo npm && echo ci", "npm ci"),
        ] {
            assert!(!has(words, command), "{words}");
        }
    }
}
