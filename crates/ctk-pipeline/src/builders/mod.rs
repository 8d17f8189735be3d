//! The images that nearly every Cloud Build file uses, and what their arguments ask for, as data.
//!
//! A builder is a file with a function from arguments to [`Action`]s, and a line in `TABLE`.

mod curl;
mod docker;
mod git;
mod gsutil;
mod kaniko;
mod options;
mod shell;

use std::collections::BTreeMap;

use serde::Serialize;

pub use curl::Fetch;
pub use git::Git;
pub use gsutil::Storage;

/// A builder.
struct Builder {
    /// What the images that have it are called, without tag and digest.
    images: &'static [&'static str],
    /// Its program, as entrypoints and scripts call it.
    program: &'static str,
    /// Reads its arguments.
    read: fn(&[String]) -> Result<Action, String>,
    /// Whether the image may run as it is when the arguments say more than is known here; without a Docker daemon
    /// some cannot.
    ordinary: bool,
}

static TABLE: &[Builder] = &[
    Builder {
        images: &[
            "gcr.io/cloud-builders/docker",
            "docker",
            "docker.io/library/docker",
            "docker.io/docker",
            "library/docker",
        ],
        program: "docker",
        read: docker::read,
        ordinary: false,
    },
    Builder {
        images: &["gcr.io/kaniko-project/executor"],
        program: "/kaniko/executor",
        read: kaniko::read,
        ordinary: false,
    },
    Builder {
        images: &["gcr.io/cloud-builders/git", "alpine/git", "docker.io/alpine/git"],
        program: "git",
        read: git::read,
        ordinary: true,
    },
    Builder {
        images: &["gcr.io/cloud-builders/curl", "curlimages/curl", "docker.io/curlimages/curl"],
        program: "curl",
        read: curl::read,
        ordinary: true,
    },
    Builder {
        images: &[
            "gcr.io/cloud-builders/gsutil",
            "gcr.io/cloud-builders/gcloud",
            "gcr.io/google.com/cloudsdktool/cloud-sdk",
            "gcr.io/google.com/cloudsdktool/google-cloud-cli",
            "google/cloud-sdk",
        ],
        program: "gsutil",
        read: gsutil::read,
        ordinary: true,
    },
];

/// What a builder is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// Build an image.
    Build(Box<Build>),
    /// Push images of the store.
    Push {
        /// The name.
        image: String,
        /// Every tag of the repository.
        all_tags: bool,
    },
    /// Fetch an image.
    Pull {
        /// The name.
        image: String,
        /// Which member of an index.
        #[serde(skip_serializing_if = "Option::is_none")]
        platform: Option<String>,
    },
    /// Give an image another name.
    Tag {
        /// What it is called.
        from: String,
        /// What it is called, too.
        to: String,
    },
    /// Run a container.
    Run {
        /// The image.
        image: String,
        /// Instead of the image's command.
        command: Vec<String>,
        /// As they are written, for `ctk run`.
        options: Vec<String>,
    },
    /// Write images to an archive.
    Save {
        /// The images.
        images: Vec<String>,
        /// The archive; none is standard output.
        output: Option<String>,
    },
    /// Read images of an archive.
    Load {
        /// The archive; none is standard input.
        input: Option<String>,
    },
    /// List images.
    Images {
        /// As they are written.
        options: Vec<String>,
    },
    /// Show an image or a container.
    Inspect {
        /// The names.
        names: Vec<String>,
        /// A template.
        #[serde(skip_serializing_if = "Option::is_none")]
        format: Option<String>,
    },
    /// Remember credentials of a registry.
    Login {
        /// The registry.
        registry: String,
        /// Who.
        username: Option<String>,
        /// Where the password is from; it is never part of a plan.
        password: Password,
        /// The one of [`Password::Argument`], for who carries it out.
        #[serde(skip)]
        secret: Option<String>,
    },
    /// Fetch or look at a repository.
    Git(git::Git),
    /// Fetch a URL.
    Fetch(Box<curl::Fetch>),
    /// Copy to, from or between buckets.
    Storage(gsutil::Storage),
    /// Nothing: it prepares what is not needed here.
    Nothing {
        /// Why.
        why: String,
    },
}

/// Where a password is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Password {
    /// Written in the file, where everybody sees it.
    Argument,
    /// Standard input.
    Stdin,
    /// Nowhere.
    None,
}

/// A build of an image, by whichever program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Build {
    /// A folder, a URL, an archive in a bucket.
    pub context: String,
    /// The Dockerfile, if it is not the context's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Names of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Build arguments; without a value, that of the step's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Option<String>>,
    /// The stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// For which machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Whether it is pushed, too.
    pub push: bool,
    /// Whether earlier results count.
    pub cache: bool,
    /// Other options of `ctk build`, as they are written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Options that change nothing here, as they are written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// One action of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// Whether the step goes on when it fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may_fail: bool,
    /// Whether the step ends, well, when it fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ends_if_it_fails: bool,
    /// Variables of the step that stand in its texts as `${NAME}`, and whether each stands in quotes only: one that
    /// does not would be several words if it held blanks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, bool>,
}

impl Command {
    /// An action that has to succeed.
    pub fn of(action: Action) -> Command {
        Command { action, may_fail: false, ends_if_it_fails: false, variables: BTreeMap::new() }
    }
}

/// What a step's image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// None that is known: it runs as it is.
    Ordinary,
    /// What it does.
    Native(Vec<Command>),
    /// A builder whose arguments cannot be carried out here, and why.
    Refused(String),
}

/// An image's name without tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    name[slash..].find(':').map_or(name, |at| &name[..slash + at])
}

/// What a step with this image, entrypoint and arguments does.
pub fn recognise(image: &str, entrypoint: Option<&str>, args: &[String]) -> Recognised {
    let Some(builder) = TABLE.iter().find(|builder| builder.images.contains(&repository(image))) else {
        return Recognised::Ordinary;
    };
    let fits = |program: &str| program.rsplit('/').next() == builder.program.rsplit('/').next();
    let refuse = |why: String| match builder.ordinary {
        true => Recognised::Ordinary,
        false => Recognised::Refused(why),
    };
    let one = |action: Result<Action, String>| match action {
        Ok(action) => Recognised::Native(vec![Command::of(action)]),
        Err(why) => refuse(why),
    };
    match entrypoint {
        None if builder.program == "gsutil" && repository(image) != "gcr.io/cloud-builders/gsutil" => {
            // The SDK's images have no entrypoint of that name: the first argument is the program.
            match args.split_first() {
                Some((program, rest)) if fits(program) => one((builder.read)(rest)),
                Some((program, rest)) if program == "gcloud" => one(gsutil::read_gcloud(rest)),
                _ if repository(image) == "gcr.io/cloud-builders/gcloud" => one(gsutil::read_gcloud(args)),
                _ => Recognised::Ordinary,
            }
        }
        // `docker` as an entrypoint of the image of its own name is a script that takes a command, too.
        None => match args.split_first() {
            Some((first, rest)) if first == builder.program => one((builder.read)(rest)),
            _ => one((builder.read)(args)),
        },
        Some(program) if fits(program) => one((builder.read)(args)),
        Some("gcloud") if builder.program == "gsutil" => one(gsutil::read_gcloud(args)),
        Some(shell) if matches!(shell.rsplit('/').next(), Some("sh" | "bash" | "ash" | "dash")) => {
            match args {
                [flags, script] if is_command_flag(flags) => match script_of(builder, script) {
                    Ok(commands) => Recognised::Native(commands),
                    // A script that never calls the program runs as it is.
                    Err(_) if !calls(script, builder.program) => Recognised::Ordinary,
                    Err(why) => refuse(why),
                },
                _ => match args.iter().any(|arg| calls(arg, builder.program)) {
                    true => {
                        refuse(format!("what `{shell}` does with `{}` is not known before it runs", builder.program))
                    }
                    false => Recognised::Ordinary,
                },
            }
        }
        Some(_) => Recognised::Ordinary,
    }
}

/// Whether a script may run `program`: the word stands alone in it.
fn calls(script: &str, program: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || ";|&()`\"'$".contains(c);
    script.match_indices(program).any(|(at, _)| {
        let before = script[..at].chars().next_back().is_none_or(|c| ends(c) || c == '/');
        before && script[at + program.len()..].chars().next().is_none_or(ends)
    })
}

/// `-c`, `-ec`, `-exc`.
fn is_command_flag(text: &str) -> bool {
    text.starts_with('-') && text.ends_with('c') && text[1..].chars().all(|c| "ceuxl".contains(c))
}

/// What a `script` of a step with a builder's image does.
pub fn recognise_script(image: &str, script: &str) -> Recognised {
    let Some(builder) = TABLE.iter().find(|builder| builder.images.contains(&repository(image))) else {
        return Recognised::Ordinary;
    };
    let body = match script.strip_prefix("#!") {
        Some(rest) => {
            let (line, body) = rest.split_once('\n').unwrap_or((rest, ""));
            let shell = line.split_whitespace().any(|word| word.ends_with("sh"));
            if !shell {
                return Recognised::Ordinary;
            }
            body
        }
        None => script,
    };
    match script_of(builder, body) {
        Ok(commands) => Recognised::Native(commands),
        Err(_) if builder.ordinary || !calls(script, builder.program) => Recognised::Ordinary,
        Err(why) => Recognised::Refused(why),
    }
}

fn script_of(builder: &Builder, script: &str) -> Result<Vec<Command>, String> {
    let simple =
        shell::commands(script).map_err(|what| format!("its script is more than a row of commands: {what}"))?;
    let mut commands = Vec::new();
    for one in simple {
        let (program, args) = one.words.split_first().expect("no command is empty");
        if program != builder.program {
            return Err(format!("its script runs `{program}` beside `{}`", builder.program));
        }
        let action = (builder.read)(args)?;
        let variables = one.variables;
        commands.push(Command { action, may_fail: one.may_fail, ends_if_it_fails: one.ends, variables });
    }
    match commands.is_empty() {
        true => Err("its script is empty".into()),
        false => Ok(commands),
    }
}

/// A word as a shell would have to read it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@,+%~".contains(c);
    if word.chars().any(char::is_control) {
        // As bash, zsh and others read it: one line stays one line.
        let escaped = word.chars().map(|c| match c {
            '\n' => "\\n".to_owned(),
            '\t' => "\\t".to_owned(),
            '\'' => "\\'".to_owned(),
            '\\' => "\\\\".to_owned(),
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        });
        return format!("$'{}'", escaped.collect::<String>());
    }
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Words on one line.
pub fn line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

impl Action {
    /// What is carried out, as a command line: `ctk build …` and its kin, else the program's own.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut put = |parts: &[&str]| words.extend(parts.iter().map(|part| (*part).to_owned()));
        match self {
            Action::Build(build) => return build.words(),
            Action::Push { image, .. } => put(&["ctk", "push", image]),
            Action::Pull { image, platform: None } => put(&["ctk", "pull", image]),
            Action::Pull { image, platform: Some(platform) } => put(&["ctk", "pull", "--platform", platform, image]),
            Action::Tag { from, to } => put(&["ctk", "copy", from, to]),
            Action::Run { image, command, options } => {
                put(&["ctk", "run"]);
                words.extend(options.iter().cloned());
                words.push(image.clone());
                words.extend(command.iter().cloned());
            }
            Action::Save { images, output } => {
                put(&["ctk", "save"]);
                words.extend(output.iter().flat_map(|output| ["--output".to_owned(), output.clone()]));
                words.extend(images.iter().cloned());
            }
            Action::Load { input } => {
                put(&["ctk", "load"]);
                words.extend(input.iter().cloned());
            }
            Action::Images { options } => {
                put(&["ctk", "images"]);
                words.extend(options.iter().cloned());
            }
            Action::Inspect { names, format } => {
                put(&["ctk", "inspect"]);
                words.extend(format.iter().flat_map(|format| ["--format".to_owned(), format.clone()]));
                words.extend(names.iter().cloned());
            }
            Action::Login { registry, username, password, .. } => {
                put(&["ctk", "login"]);
                words.extend(username.iter().flat_map(|name| ["--username".to_owned(), name.clone()]));
                if *password != Password::None {
                    words.push("--password-stdin".into());
                }
                words.push(registry.clone());
            }
            Action::Git(git) => return git.words(),
            Action::Fetch(fetch) => return fetch.words(),
            Action::Storage(storage) => return storage.words(),
            Action::Nothing { .. } => {}
        }
        words
    }

    /// Every text in it that a variable may stand in.
    pub fn texts(&mut self, change: &mut dyn FnMut(&mut String)) {
        match self {
            Action::Build(build) => {
                let Build { context, file, tags, args, target, platforms, options, .. } = &mut **build;
                change(context);
                file.iter_mut().chain(tags).chain(target).chain(platforms).chain(options).for_each(&mut *change);
                args.values_mut().flatten().for_each(change);
            }
            Action::Push { image, .. } => change(image),
            Action::Pull { image, platform } => {
                change(image);
                platform.iter_mut().for_each(change);
            }
            Action::Tag { from, to } => {
                change(from);
                change(to);
            }
            Action::Run { image, command, options } => {
                change(image);
                command.iter_mut().chain(options).for_each(change);
            }
            Action::Save { images, output } => images.iter_mut().chain(output).for_each(change),
            Action::Load { input } => input.iter_mut().for_each(change),
            Action::Images { options } => options.iter_mut().for_each(change),
            Action::Inspect { names, format } => names.iter_mut().chain(format).for_each(change),
            Action::Login { registry, username, secret, .. } => {
                change(registry);
                username.iter_mut().chain(secret).for_each(change);
            }
            Action::Git(git) => git.texts(change),
            Action::Fetch(fetch) => {
                change(&mut fetch.url);
                fetch.headers.iter_mut().chain(&mut fetch.body).chain(&mut fetch.output).for_each(change);
            }
            Action::Storage(storage) => storage.texts(change),
            Action::Nothing { .. } => {}
        }
    }

    /// The images that are in the store afterwards.
    pub fn makes(&self) -> Vec<&str> {
        match self {
            Action::Build(build) => build.tags.iter().map(String::as_str).collect(),
            Action::Pull { image, .. } => vec![image],
            Action::Tag { to, .. } => vec![to],
            _ => Vec::new(),
        }
    }
}

impl Build {
    fn words(&self) -> Vec<String> {
        let mut words = vec!["ctk".to_owned(), "build".to_owned()];
        let mut option = |name: &str, value: &str| words.extend([format!("--{name}"), value.to_owned()]);
        self.tags.iter().for_each(|tag| option("tag", tag));
        self.file.iter().for_each(|file| option("file", file));
        for (name, value) in &self.args {
            match value {
                Some(value) => option("build-arg", &format!("{name}={value}")),
                None => option("build-arg", name),
            }
        }
        self.target.iter().for_each(|target| option("target", target));
        if !self.platforms.is_empty() {
            option("platform", &self.platforms.join(","));
        }
        if !self.cache {
            words.push("--no-cache".into());
        }
        if self.push {
            words.push("--push".into());
        }
        words.extend(self.options.iter().cloned());
        words.push(self.context.clone());
        words
    }
}
