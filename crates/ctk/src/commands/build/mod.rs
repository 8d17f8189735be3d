//! `ctk build`: images of the project, or a folder with a Dockerfile as `docker build` takes it.
//!
//! ```text
//! ctk build                 every image of the project       apply, cut to its images
//! ctk build api image:web   these
//! ctk build .               the Dockerfile of this folder    no project file, no lock file
//! ctk build -t app          the same, because -t is a folder's
//! ```
//! A word is a folder if it can be nothing else: `.`, `-`, a URL, something with a slash that no image is called. A
//! plain word is an image of the project first; one that is a folder too has to be told apart.

mod call;
mod debug;
mod folder;
mod metadata;
mod others;
mod switches;
mod values;

use std::path::{Path, PathBuf};

use clap::Args;
use ctk_apply::{Besides, Session};
use ctk_plan::{Address, Kind};

use super::apply::{Again, Ask, Outputs, carry_out};
use super::output;
use super::project::{PROJECT_FILE, ProjectArgs, WorkArgs, pair};
use crate::context::Context;
use crate::failure::Failure;
pub use others::advice;
use switches::Switches;

/// What `ctk build` takes
#[derive(Args)]
pub struct Build {
    /// A folder or URL with a Dockerfile, or `-`; or images of the project [default: all of its images]
    #[arg(value_name = "PATH|URL|-|IMAGE")]
    names: Vec<String>,
    /// The Dockerfile [default: PATH/Dockerfile]; with the ending `.kdl`, the project file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Use no earlier result
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    no_cache: Option<bool>,
    /// Things done at once [default: the number of CPUs]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    besides: BesidesSwitches,
    /// Say which steps run and what changed; `json` prints it for programs
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "text", value_name = "FORMAT")]
    explain: Option<Shape>,
    /// Build, and say what could be better, the dearest first; `json` prints it for programs
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "text", value_name = "FORMAT")]
    advise: Option<Shape>,
    #[command(flatten, next_help_heading = "Images of the project")]
    project: ProjectSwitches,
    #[command(flatten)]
    switches: Switches,
}

/// What is done besides building.
#[derive(Args, Clone, Default)]
struct BesidesSwitches {
    /// Open a shell in the state before a step that fails; needs a terminal
    #[arg(long)]
    debug: bool,
    /// Build again without the cache, and fail with the first difference if the image is not the same
    #[arg(long)]
    verify: bool,
}

impl BesidesSwitches {
    fn besides(&self, context: &Context) -> Result<Besides, Failure> {
        let debugger = self.debug.then(|| debug::Terminal::open(context)).transpose()?;
        Ok(Besides { verify: self.verify, debugger })
    }
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    Text,
    Json,
}

/// Advice is what was asked for: a result.
fn advised(shape: Shape, advised: &[ctk_apply::Advised]) -> Result<(), Failure> {
    match shape {
        Shape::Text => output(&advised.iter().map(ToString::to_string).collect::<String>()),
        Shape::Json => output(&(serde_json::to_string_pretty(advised)? + "\n")),
    }
}

/// What only a build of the project's images takes.
#[derive(Args, Clone, Default)]
struct ProjectSwitches {
    /// Set a variable of the project
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    vars: Vec<(String, String)>,
    /// Add nothing to the lock file; a missing entry is an error
    #[arg(long)]
    locked: bool,
    /// Do it even if nothing changed
    #[arg(long)]
    force: bool,
}

impl ProjectSwitches {
    fn first(&self) -> Option<&'static str> {
        let given = [("--var", !self.vars.is_empty()), ("--locked", self.locked), ("--force", self.force)];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// What the words of a command line ask for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Images of the project.
    Images,
    /// The folder, URL or `-`.
    Folder(String),
}

impl Build {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let project_file = self.file.as_ref().is_some_and(|file| file.extension().is_some_and(|end| end == "kdl"));
        let switch = self.switches.first().or(self.file.is_some().then_some("--file").filter(|_| !project_file));
        // Opened only for a word that may be an image.
        let project = ProjectArgs { file: self.file.clone().filter(|_| project_file), vars: self.project.vars.clone() };
        let images = || -> Option<Session> {
            let file = project.find().ok()?;
            let options = ctk_apply::Options { variables: project.variables(), ..context.options() };
            Session::open(&file, options).ok()
        };
        let is_image = |word: &str| {
            let address = |session: Session| session.project().get(&Address::new(Kind::Image, word)).is_some();
            images().is_some_and(address)
        };
        let only_project = self.project.first().or(project_file.then_some("--file FILE.kdl"));
        let has_project = || project.find().is_ok();
        let facts =
            Facts { is_folder: &|word| Path::new(word).is_dir(), is_image: &is_image, has_project: &has_project };
        match wanted(&self.names, switch, only_project, &facts)
            .map_err(|(text, hint)| Failure::sentence(text, Some(&hint)))?
        {
            Wanted::Folder(main) => folder::Folder {
                main,
                file: self.file,
                no_cache: self.no_cache.unwrap_or(false),
                jobs: self.jobs,
                besides: self.besides.besides(context)?,
                explain: self.explain,
                advise: self.advise,
                switches: self.switches,
            }
            .run(context),
            Wanted::Images => {
                let work = WorkArgs { project, locked: self.project.locked, jobs: self.jobs };
                let session = work.open(context)?;
                let only = context.explain(session.select_kind(Kind::Image, &self.names))?;
                let again = Again { force: self.project.force, no_cache: self.no_cache.unwrap_or(false) };
                let json = self.explain == Some(Shape::Json);
                let aside = self.advise == Some(Shape::Json);
                let outputs = Outputs { explain: self.explain.is_some(), json, aside, ..Outputs::default() };
                let besides = self.besides.besides(context)?;
                let ask = Ask { only: only.clone(), again, kind: Some(Kind::Image), besides };
                carry_out(context, &session, ask, &outputs)?;
                let Some(shape) = self.advise else { return Ok(()) };
                let request = ctk_apply::Request { only: only.clone(), ..ctk_apply::Request::default() };
                let plan = context.explain(session.plan(&request))?;
                advised(shape, &context.explain(session.advise(&plan, &only))?)
            }
        }
    }
}

/// What is asked of the world to tell folders from images.
struct Facts<'a> {
    is_folder: &'a dyn Fn(&str) -> bool,
    is_image: &'a dyn Fn(&str) -> bool,
    has_project: &'a dyn Fn() -> bool,
}

/// Tells the two meanings apart. `switch` is one that only a folder's build knows, `only_project` one that only the
/// project's knows. The error is what is wrong and what to write instead.
fn wanted(
    words: &[String],
    switch: Option<&str>,
    only_project: Option<&str>,
    facts: &Facts<'_>,
) -> Result<Wanted, (String, String)> {
    if let (Some(folder), Some(project)) = (switch, only_project) {
        let text = format!("`{folder}` is for a build of a folder, `{project}` for one of the project's images");
        return Err((text, "leave one of them out".into()));
    }
    let unmistakable = |word: &str| {
        word == "-"
            || matches!(word, "." | "..")
            || word.starts_with(['/', '.'])
            || word.contains("://")
            || word.starts_with("git@")
    };
    match words {
        [] if switch.is_some() => Ok(Wanted::Folder(".".into())),
        [] => Ok(Wanted::Images),
        [word] if only_project.is_some() => match unmistakable(word) {
            true => {
                let text = format!(
                    "`{}` is for images of the project, and `{word}` is a folder",
                    only_project.unwrap_or_default()
                );
                Err((text, "leave one of them out".into()))
            }
            false => Ok(Wanted::Images),
        },
        [word] if unmistakable(word) => Ok(Wanted::Folder(word.clone())),
        [word] => {
            let image = (facts.is_image)(word);
            match ((facts.is_folder)(word), image, switch) {
                (true, true, None) => Err((
                    format!("`{word}` is an image of the project and a folder"),
                    format!("write `image:{word}` or `./{word}`"),
                )),
                (true, false, _) | (true, true, Some(_)) => Ok(Wanted::Folder(word.clone())),
                (false, true, Some(switch)) => Err((
                    format!("`{switch}` is for a build of a folder, and `{word}` is an image of the project"),
                    "say it in containers.kdl, or name a folder".into(),
                )),
                (false, _, Some(_)) => Ok(Wanted::Folder(word.clone())),
                (false, true, None) => Ok(Wanted::Images),
                (false, false, None) if word.contains('/') || !(facts.has_project)() => {
                    match word.contains(':') || (facts.has_project)() {
                        true => Ok(Wanted::Images),
                        false => Err((
                            format!("there is no folder `{word}`, and no {PROJECT_FILE} whose image it could be"),
                            "write the folder with the Dockerfile: `ctk build .`".into(),
                        )),
                    }
                }
                (false, false, None) => Ok(Wanted::Images),
            }
        }
        words => match (
            switch,
            words.iter().find(|word| unmistakable(word) || ((facts.is_folder)(word) && !(facts.is_image)(word))),
        ) {
            (Some(switch), _) => Err((
                format!("`{switch}` is for a build of one folder, and {} words are given", words.len()),
                "name one folder; quote what holds spaces".into(),
            )),
            (None, Some(word)) => Err((
                format!("`{word}` is a folder, and only one thing is built from a folder"),
                "build folders one after the other".into(),
            )),
            (None, None) => Ok(Wanted::Images),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(words: &[&str], switch: Option<&str>, only_project: Option<&str>) -> Result<Wanted, String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let facts = Facts {
            is_folder: &|word| ["app", "both", "a/b"].contains(&word),
            is_image: &|word| ["api", "both"].contains(&word),
            has_project: &|| true,
        };
        wanted(&words, switch, only_project, &facts).map_err(|(text, hint)| format!("{text}; {hint}"))
    }

    #[test]
    fn folders_and_images_are_told_apart() {
        let folder = |text: &str| Ok(Wanted::Folder(text.into()));
        for word in [".", "..", "-", "./api", "/x", "https://x/y.git", "git@host:x", "app", "a/b"] {
            assert_eq!(ask(&[word], None, None), folder(word));
        }
        for words in [&[][..], &["api"], &["image:api"], &["api", "web"], &["api", "both"], &["image:*"], &["wep"]] {
            assert_eq!(ask(words, None, None), Ok(Wanted::Images), "{words:?}");
        }
        assert_eq!(ask(&[], Some("--tag"), None), folder("."));
        assert_eq!(ask(&["both"], Some("--tag"), None), folder("both"));
        assert_eq!(ask(&["nope"], Some("--tag"), None), folder("nope"));
        assert_eq!(ask(&["both"], None, Some("--locked")), Ok(Wanted::Images));
    }

    #[test]
    fn what_may_mean_both_says_what_to_write() {
        let wrong = |words: &[&str], switch, project, part: &str| {
            let error = ask(words, switch, project).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        wrong(&["both"], None, None, "write `image:both` or `./both`");
        wrong(&["api"], Some("--tag"), None, "`api` is an image of the project");
        wrong(&["."], None, Some("--locked"), "`.` is a folder");
        wrong(&["a", "b"], Some("--tag"), None, "2 words");
        wrong(&[".", "api"], None, None, "one after the other");
        wrong(&["app", "app"], None, None, "`app` is a folder, and only one thing is built from a folder");
        wrong(&["."], Some("--tag"), Some("--var"), "leave one of them out");
    }

    #[test]
    fn without_a_project_a_word_is_a_folder_or_nothing() {
        let facts = Facts { is_folder: &|_| false, is_image: &|_| false, has_project: &|| false };
        let error = wanted(&["nope".into()], None, None, &facts).unwrap_err();
        assert!(error.0.contains("no folder `nope`"), "{error:?}");
        assert_eq!(wanted(&["image:x".into()], None, None, &facts), Ok(Wanted::Images));
    }
}
