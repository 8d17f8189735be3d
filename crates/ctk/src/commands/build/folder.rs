//! A build of a folder, as `docker build` does it: switches to a [`AdHoc`], its result to names and files.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use ctk_apply::Besides;
use ctk_apply::adhoc::{
    AdHoc, AdHocBuilt, Annotation, CacheExport, CacheImport, ContextDecl, ContextSource, ImageDecl, Output,
    RecipeSource, check_places, masked_cache,
};
use ctk_apply::{Explained, Explanations};
use ctk_oci::Platform;
use ctk_plan::{Address, Kind};
use ctk_store::Aside;

use super::call::{Call, Format};
use super::metadata::metadata;
use super::switches::Switches;
use super::values;
use super::{Shape, advised};
use crate::commands::{output, store_name};
use crate::context::Context;
use crate::failure::Failure;
use crate::report::Progress;

/// A build of a folder.
pub struct Folder {
    /// The context as written.
    pub main: String,
    /// The Dockerfile as written.
    pub file: Option<PathBuf>,
    pub no_cache: bool,
    pub jobs: Option<u16>,
    pub besides: Besides,
    pub explain: Option<Shape>,
    pub advise: Option<Shape>,
    pub switches: Switches,
}

impl Folder {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let quiet = self.switches.output.quiet.unwrap_or(false);
        let call = self.call()?;
        let mut build = self.adhoc(context)?;
        if self.main == "-" {
            let file = self.file.as_ref().map(|file| file.to_string_lossy().into_owned());
            context.explain(build.read_stdin(std::io::stdin().lock(), file.as_deref()))?;
            if file.is_some() && matches!(build.decl.source, RecipeSource::Text { .. }) {
                let hint = "leave `-f` out, or pipe a tar archive that has the Dockerfile";
                return Err(Failure::sentence("standard input is a Dockerfile, and `-f` names another", Some(hint)));
            }
        }
        if let Some((call, format)) = call {
            return call.answer(context, &build, format);
        }
        for note in self.notes() {
            eprintln!("warning: {note}");
        }
        let to_stdout = build.outputs.iter().filter(|output| output.is_stdout()).count();
        if to_stdout > 1 {
            return Err(Failure::sentence("only one output can go to standard output", None));
        }
        if to_stdout == 1 && std::io::stdout().is_terminal() {
            let hint = "add `dest=PATH`, or redirect";
            return Err(Failure::sentence("an archive is no text for a terminal", Some(hint)));
        }
        check_places(&build.outputs, &build.directory).map_err(sentence)?;
        // Before anything is built: what came out could be told to nobody.
        let own = &self.switches.output;
        let files = build.outputs.iter().filter_map(Output::file).chain(own.iidfile.as_deref());
        for path in files.chain(own.metadata_file.as_deref()) {
            Aside::check(path).map_err(Failure::during(format!("cannot write {}", path.display())))?;
        }
        let cancel = context.cancel_on_interrupt();
        let sink = match &self.switches.output.logfile {
            Some(path) => {
                crate::report::to_file(path).map_err(Failure::during(format!("cannot write {}", path.display())))?
            }
            None if quiet => Progress::Quiet.sink(),
            None => context.sink(),
        };
        let name = |name: &str| store_name(name).map(|name| name.to_string()).map_err(explain);
        let built = build.build(&name, sink, &mut std::io::stdout().lock(), &cancel);
        if let (Some(shape), Some(explain)) = (self.explain, &build.explain) {
            told_why(shape, &explain.take())?;
        }
        let built = context.explain(built)?;
        self.told(&build, &built, quiet, to_stdout == 1)?;
        match self.advise {
            Some(shape) => advised(shape, &context.explain(build.advise())?),
            None => Ok(()),
        }
    }

    /// Writes the files that were asked for, and says what came out.
    fn told(&self, build: &AdHoc, built: &AdHocBuilt, quiet: bool, busy_stdout: bool) -> Result<(), Failure> {
        let exported = &built.exported;
        let digest = exported.image.digest.to_string();
        if let Some(path) = &self.switches.output.iidfile {
            write_whole(path, digest.as_bytes())?;
        }
        if let Some(path) = &self.switches.output.metadata_file {
            write_whole(path, (serde_json::to_string_pretty(&metadata(exported))? + "\n").as_bytes())?;
        }
        if busy_stdout {
            return Ok(());
        }
        if !exported.is_image && !quiet {
            return Ok(());
        }
        // Names that went into an archive alone are no names here.
        let named = build.outputs.is_empty() || build.outputs.iter().any(|output| output.is_named());
        let mut text = String::new();
        for name in build.names.iter().filter(|_| named && !quiet) {
            text += &format!("{} {digest}\n", store_name(name)?);
        }
        let text = if text.is_empty() { format!("{digest}\n") } else { text };
        if [self.explain, self.advise].contains(&Some(Shape::Json)) {
            // Who reads data reads nothing else.
            eprint!("{text}");
            return Ok(());
        }
        output(&text)
    }

    /// What the switches ask for that is not there yet, and does no harm to a build.
    fn notes(&self) -> Vec<String> {
        let habits = &self.switches.habits;
        let mut notes = Vec::new();
        let asked = |value: &Option<String>| {
            value.as_deref().is_some_and(|v| values::truth(v) != Some(false) && v != "disabled=true")
        };
        let attest = habits.attest.iter().any(|text| !text.contains("disabled=true"));
        if asked(&habits.provenance) || asked(&habits.sbom) || attest {
            notes.push("attestations are not there yet: the image gets none".to_owned());
        }
        notes
    }

    /// What is asked instead of a build.
    fn call(&self) -> Result<Option<(Call, Format)>, Failure> {
        let switches = &self.switches.call;
        let check = switches.check.unwrap_or(false);
        match &switches.call {
            Some(_) if check => {
                Err(Failure::sentence("`--check` and `--call` say what to do twice", Some("leave one out")))
            }
            Some(text) => Call::parse(text).map_err(sentence),
            None => Ok(check.then_some((Call::Check, Format::Text))),
        }
    }

    fn adhoc(&self, context: &Context) -> Result<AdHoc, Failure> {
        let environment = context.environment();
        let switches = &self.switches;
        let (what, to) = (&switches.what, &switches.output);
        if switches.habits.squash == Some(true) {
            let hint = "leave `--squash` out; a last stage that copies from the others has few layers";
            return Err(Failure::sentence("squashing layers is not there yet", Some(hint)));
        }
        if !switches.habits.policy.is_empty() {
            return Err(Failure::sentence("policies are not there yet", Some("leave `--policy` out")));
        }
        let mut options = context.options();
        if let Some(jobs) = self.jobs {
            options.jobs = jobs.into();
        }
        let directory = std::env::current_dir()?;
        let mut decl = self.source()?;
        for file in &what.build_arg_files {
            let attempt = format!("cannot read {}", file.display());
            let text = ctk_store::read_given_text(file).map_err(Failure::during(attempt))?;
            for line in values::build_arg_lines(&text) {
                decl.args.extend(values::build_arg(line, environment).map_err(sentence)?);
            }
        }
        for text in &what.build_args {
            decl.args.extend(values::build_arg(text, environment).map_err(sentence)?);
        }
        // As buildx: the variable is an argument too.
        if let Some(epoch) = environment.get("SOURCE_DATE_EPOCH") {
            decl.args.entry("SOURCE_DATE_EPOCH".into()).or_insert(epoch);
        }
        for text in &switches.run.secrets {
            let (id, source) = values::secret(text, environment).map_err(sentence)?;
            decl.secrets.insert(id, source);
        }
        // As docker: `--target "$STAGE"` without a stage is none.
        decl.target = what.target.clone().filter(|target| !target.is_empty());
        let platforms = self.platforms(environment.get("DOCKER_DEFAULT_PLATFORM"))?;
        decl.platforms_asked = !platforms.is_empty();
        if decl.platforms_asked {
            decl.platforms = platforms;
        }
        let (outputs, annotations) = self.outputs()?;
        let names: Vec<String> = to.tags.iter().chain(&to.manifest).cloned().collect();
        for name in &names {
            let full = store_name(name).map_err(|_| bad_name(name))?;
            if full.digest().is_some() {
                return Err(Failure::sentence(format!("`{name}` has a digest; expected NAME[:TAG]"), None));
            }
        }
        let labels = values::map(what.labels.iter().map(|text| values::label(text))).map_err(sentence)?;
        let epoch_seconds = match &what.source_date_epoch {
            // As the variable, but nearer. What the context says is known once it is here.
            Some(text) => {
                decl.args.insert("SOURCE_DATE_EPOCH".into(), text.clone());
                values::seconds(text)
            }
            None => epoch(&decl.args, &outputs)?,
        };
        let switch = |name: &str, text: &str, why: String| {
            Failure::sentence(format!("`--{name} {}`: {why}", masked_cache(text)), None)
        };
        let from = |text: &String| CacheImport::parse(text).map_err(|why| switch("cache-from", text, why));
        let to = |text: &String| CacheExport::parse(text).map_err(|why| switch("cache-to", text, why));
        let cache_from = switches.cache.cache_from.iter().map(from).collect::<Result<Vec<_>, _>>()?;
        let mut cache_to = switches.cache.cache_to.iter().map(to).collect::<Result<Vec<_>, _>>()?;
        if decl.args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| values::truth(value) == Some(true)) {
            cache_to.extend(CacheExport::parse("type=inline"));
        }
        let pull = match what.pull.as_deref() {
            None | Some("missing" | "ifmissing" | "never") => false,
            Some("always" | "newer" | "ifnewer") => true,
            Some(text) => values::truth(text).ok_or_else(|| {
                Failure::sentence(format!("`--pull={text}`: expected always, missing or never"), None)
            })?,
        };
        let run = values::run_settings(&switches.run, environment).map_err(sentence)?;
        decl.ssh = run.ssh.iter().map(|(id, source)| (id.clone(), source.clone().into())).collect();
        Ok(AdHoc {
            options,
            directory,
            decl,
            run,
            labels,
            no_cache: self.no_cache,
            no_cache_stages: switches.cache.no_cache_filter.clone(),
            cache_from,
            cache_to,
            pull,
            epoch_seconds,
            names,
            outputs,
            annotations,
            besides: self.besides.clone(),
            explain: self.explain.map(|_| Explanations::default()),
        })
    }

    /// The Dockerfile and its contexts. What standard input is for comes later.
    fn source(&self) -> Result<ImageDecl, Failure> {
        let main = ContextSource::parse_main(&self.main, |path| Path::new(path).is_dir());
        let main = main.map_err(|error| Failure::sentence(error.to_string(), None))?;
        if let ContextSource::Local(folder) = &main
            && !Path::new(folder).is_dir()
        {
            let hint = "the word after the switches is the context: `ctk build .`";
            return Err(Failure::sentence(format!("there is no folder `{folder}`"), Some(hint)));
        }
        let file = self.file.as_deref();
        let from_stdin = file == Some(Path::new("-"));
        let source = match (&main, file) {
            (ContextSource::Stdin, Some(_)) if from_stdin => {
                let hint = "name a folder, or leave `-f -` out";
                return Err(Failure::sentence("standard input cannot be context and Dockerfile", Some(hint)));
            }
            // Until it is read: what it is decides.
            (ContextSource::Stdin, _) => RecipeSource::InContext { path: "Dockerfile".into(), origin: None },
            (_, Some(_)) if from_stdin => {
                let mut text = Vec::new();
                let read = std::io::stdin().lock().take(DOCKERFILE_LIMIT_BYTES).read_to_end(&mut text);
                read.map_err(Failure::during("cannot read standard input"))?;
                RecipeSource::Text { name: "stdin".into(), text }
            }
            (_, Some(file)) if file.to_str().is_some_and(is_url) => {
                RecipeSource::Url { url: file.display().to_string(), origin: None }
            }
            (ContextSource::Local(folder), file) => {
                let found = || find_dockerfile(Path::new(folder));
                let path = file.map_or_else(found, |file| Ok(file.to_path_buf()))?;
                RecipeSource::Dockerfile { path, origin: None }
            }
            (_, Some(file)) if file.is_absolute() => {
                RecipeSource::Dockerfile { path: file.to_path_buf(), origin: None }
            }
            (_, file) => {
                let path = file.map_or("Dockerfile".into(), |file| file.to_string_lossy().into_owned());
                RecipeSource::InContext { path, origin: None }
            }
        };
        let mut decl = ImageDecl::dockerfile(Address::new(Kind::Image, self.title()), "", "");
        decl.source = source;
        let main = match main {
            ContextSource::Stdin => ContextDecl::Scratch,
            main => ContextDecl::from_source(main, None).map_err(|error| sentence(error.to_string()))?,
        };
        decl.contexts.insert(String::new(), main);
        for text in &self.switches.what.build_contexts {
            let (name, source) = parse_named(text)?;
            decl.contexts.insert(name, source);
        }
        Ok(decl)
    }

    /// What the story calls it: its first name, or its folder's.
    fn title(&self) -> String {
        let of_tag = |tag: &String| {
            let last = tag.rsplit('/').next().unwrap_or(tag);
            last.split([':', '@']).next().unwrap_or(last).to_owned()
        };
        let of_folder = || {
            let path = Path::new(&self.main).canonicalize().ok()?;
            Some(path.file_name()?.to_str()?.to_owned())
        };
        let title = self.switches.output.tags.first().map(of_tag).or_else(of_folder);
        title.filter(|title| !title.is_empty()).unwrap_or_else(|| "build".into())
    }

    fn platforms(&self, default: Option<String>) -> Result<Vec<Platform>, Failure> {
        let given = &self.switches.what.platforms;
        let what = &self.switches.what;
        if what.os.is_some() || what.arch.is_some() {
            let host = Platform::host();
            let word = |own: &Option<String>, host: &str| own.clone().unwrap_or_else(|| host.to_owned());
            let mut text = format!("{}/{}", word(&what.os, &host.os), word(&what.arch, &host.architecture));
            text.extend(what.variant.iter().map(|variant| format!("/{variant}")));
            return Ok(vec![text.parse().map_err(|error: ctk_oci::PlatformError| sentence(error.to_string()))?]);
        }
        let texts: Vec<&str> = match &default {
            Some(default) if given.is_empty() => vec![default],
            _ => given.iter().map(String::as_str).collect(),
        };
        let mut platforms: Vec<Platform> = Vec::new();
        for text in texts {
            let platform = match text {
                "local" => Platform::host(),
                text => text.parse().map_err(|error: ctk_oci::PlatformError| sentence(error.to_string()))?,
            };
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        Ok(platforms)
    }

    fn outputs(&self) -> Result<(Vec<Output>, Vec<Annotation>), Failure> {
        let to = &self.switches.output;
        let mut outputs = Vec::new();
        for text in &to.outputs {
            outputs.push(Output::parse(text).map_err(sentence)?);
        }
        if to.push == Some(true) {
            // As buildx: `--push` makes the images that are there go out.
            let mut pushed = false;
            for output in &mut outputs {
                if let Output::Image(image) = output {
                    (image.push, pushed) = (true, true);
                }
            }
            if !pushed {
                outputs.push(Output::parse("type=registry").map_err(sentence)?);
            }
        }
        if self.switches.habits.load == Some(true) && !outputs.is_empty() {
            outputs.push(Output::parse("type=image").map_err(sentence)?);
        }
        if to.format.as_deref().is_some_and(|format| format != "oci") {
            if outputs.is_empty() {
                outputs.push(Output::parse("type=image").map_err(sentence)?);
            }
            for output in &mut outputs {
                if let Output::Image(image) = output {
                    image.form.docker_types.get_or_insert(true);
                }
            }
        }
        let mut annotations = Vec::new();
        for text in &self.switches.what.annotations {
            annotations.extend(Annotation::parse(text).map_err(sentence)?);
        }
        Ok((outputs, annotations))
    }
}

/// Text goes to the story, data to standard output.
fn told_why(shape: Shape, explained: &[Explained]) -> Result<(), Failure> {
    match shape {
        Shape::Text => explained.iter().for_each(|explained| eprint!("{explained}")),
        Shape::Json => output(&(serde_json::to_string_pretty(explained)? + "\n"))?,
    }
    Ok(())
}

/// `SOURCE_DATE_EPOCH` of the arguments and of the outputs, which must not differ.
fn epoch(args: &BTreeMap<String, String>, outputs: &[Output]) -> Result<Option<i64>, Failure> {
    let mut epochs: Vec<i64> = outputs.iter().filter_map(Output::epoch_seconds).collect();
    // What the context says is known once it is here.
    let given = args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty() && *text != "context");
    if let Some(text) = given {
        let refused = || format!("SOURCE_DATE_EPOCH is `{text}`; {}", ctk_oci::EPOCH_EXPECTED);
        // Whether it is one that a date can be is told with its place.
        let seconds = text.parse().map_err(|_| Failure::sentence(refused(), None))?;
        // An output's own word goes before.
        if epochs.is_empty() {
            epochs.push(seconds);
        }
    }
    epochs.dedup();
    match epochs.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(Failure::sentence("outputs name different `source-date-epoch`s", Some("build once for each"))),
    }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// `NAME=CONTEXT`.
fn parse_named(text: &str) -> Result<(String, ContextDecl), Failure> {
    let (name, source) = ContextSource::parse_named(text).map_err(|error| sentence(error.to_string()))?;
    if let ContextSource::Target(target) = &source {
        let hint = "there is no project file here; build it first, and name it with `docker-image://`";
        return Err(Failure::sentence(format!("`target:{target}` is an image of a project"), Some(hint)));
    }
    let decl = ContextDecl::from_source(source, None).map_err(|error| sentence(error.to_string()))?;
    Ok((name.to_string(), decl))
}

/// No Dockerfile on standard input is larger; the parser's own limit is smaller.
const DOCKERFILE_LIMIT_BYTES: u64 = 64 << 20;

/// The names of Dockerfiles, the usual first.
const DOCKERFILES: [&str; 4] = ["Dockerfile", "dockerfile", "Containerfile", "containerfile"];

fn find_dockerfile(folder: &Path) -> Result<PathBuf, Failure> {
    let found = DOCKERFILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let text = format!("there is no Dockerfile in {}", folder.display());
        Failure::sentence(text, Some("name one: `ctk build -f FILE PATH`"))
    })
}

fn bad_name(name: &str) -> Failure {
    let why = match name.chars().any(|c| c.is_ascii_uppercase()) {
        true => ": names of images are in small letters".to_owned(),
        false => name.parse::<ctk_oci::Reference>().err().map(|error| format!(": {error}")).unwrap_or_default(),
    };
    Failure::sentence(
        format!("`{name}` is no name for an image{why}"),
        Some("expected e.g. `app:1.0` or `ghcr.io/acme/app:1.0`"),
    )
}

fn explain(failure: Failure) -> String {
    failure.text().trim_end().trim_start_matches("error: ").to_owned()
}

fn sentence(text: impl Into<String>) -> Failure {
    Failure::sentence(text, None)
}

/// Writes a file so that nobody sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = Aside::new(path).and_then(|aside| {
        aside.file().write_all(bytes)?;
        aside.keep()
    });
    written.map_err(Failure::during(format!("cannot write {}", path.display())))
}
