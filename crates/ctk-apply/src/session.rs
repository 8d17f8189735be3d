//! A session: a project file opened, understood, and ready to be planned and applied.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_build::{ImageDecl, Looked, RecipeSource};
use ctk_check::{ImageName, TestDecl};
use ctk_oci::Platform;
use ctk_plan::{Address, Cancel, Kind, Reporter};
use ctk_project::{Image, Inputs, Project};
use ctk_push::PushDecl;
use ctk_push::export::Form;
use ctk_service::ServiceDecl;
use ctk_syntax::{Diagnostic, Diagnostics, Sources, Span};

use crate::files::DiskFiles;
use crate::ground::{Ground, host_packages};
use crate::lock::LockBook;
use crate::registries::RegistryDecl;
use crate::{ApplyError, Options, codes, git};
use ctk_pipeline::project::PipelineDecl;

/// An opened project. Opening reads; nothing is changed before [`Session::apply`].
pub struct Session {
    pub(crate) options: Options,
    /// The absolute folder of the project file.
    pub(crate) directory: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) project: Project,
    pub(crate) lock: LockBook,
    pub(crate) images: BTreeMap<Address, ImageDecl>,
    /// How those images are finished that say it.
    pub(crate) forms: BTreeMap<Address, Form>,
    pub(crate) tests: BTreeMap<Address, TestDecl>,
    pub(crate) pushes: BTreeMap<Address, PushDecl>,
    pub(crate) services: BTreeMap<Address, ServiceDecl>,
    pub(crate) registries: BTreeMap<Address, RegistryDecl>,
    pub(crate) pipelines: BTreeMap<Address, PipelineDecl>,
    /// Every address, needs before those that need them.
    pub(crate) order: Vec<Address>,
    /// What the files' authors should know that keeps nothing from being done.
    warnings: Diagnostics,
}

impl Session {
    /// Reads the project file, what it includes, and its lock file. Every mistake of every file is in
    /// [`ApplyError::Invalid`].
    pub fn open(file: &Path, options: Options) -> Result<Session, ApplyError> {
        let text = ctk_store::read_given_text(file).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => ApplyError::NoProject { path: file.to_path_buf() },
            _ => ApplyError::Read { path: file.to_path_buf(), source: cause },
        })?;
        let absolute = file.canonicalize().map_err(|source| ApplyError::Read { path: file.to_path_buf(), source })?;
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_path_buf();
        let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or("containers.kdl").to_owned();

        let mut sources = Sources::new();
        let inputs = Inputs {
            vars: options.variables.clone(),
            env: &|name| options.environment.get(name).cloned(),
            git: &|name| git::git(&directory, name),
            default_name: directory.file_name().and_then(|name| name.to_str()).unwrap_or("project").to_owned(),
        };
        let files = DiskFiles::new(&directory);
        let (project, mut diagnostics) = ctk_project::parse(&mut sources, &name, text, &files, &inputs);
        let lock = LockBook::read(&directory, options.locked)?;
        let mut session = Session {
            options,
            directory,
            sources,
            project,
            lock,
            images: BTreeMap::new(),
            forms: BTreeMap::new(),
            tests: BTreeMap::new(),
            pushes: BTreeMap::new(),
            services: BTreeMap::new(),
            registries: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            order: Vec::new(),
            warnings: Diagnostics::new(),
        };
        session.decode(&mut diagnostics);
        session.keep_outputs_apart();
        session.keep_caches_apart(&mut diagnostics);
        if diagnostics.has_errors() {
            return Err(invalid(diagnostics, &session.sources));
        }
        diagnostics.sort();
        session.warnings = diagnostics;
        let order = session.project.dag().order();
        session.order = order.map_err(|_| invalid(session.warnings.clone(), &session.sources))?;
        Ok(session)
    }

    /// Each stage reads its own leaves.
    fn decode(&mut self, diagnostics: &mut Diagnostics) {
        self.name_images(diagnostics);
        for resource in &self.project.resources {
            let address = resource.address.clone();
            let mut keep = |result: Result<(), Diagnostics>| {
                if let Err(mistakes) = result {
                    diagnostics.extend(mistakes);
                }
            };
            match address.kind {
                Kind::Image => {
                    let host = Platform::host();
                    keep(ctk_push::decode_form(&self.project, resource, &host).map(|form| {
                        self.forms.extend(form.map(|form| (address.clone(), form)));
                    }));
                    keep(ctk_build::decode(resource, &self.project, &host).map(|decl| {
                        self.images.insert(address, decl);
                    }));
                }
                Kind::Test => {
                    let resolve = |name: &ctk_syntax::Spanned<String>, diagnostics: &mut Diagnostics| match self
                        .project
                        .resolve_image(resource, name)
                    {
                        Ok(Image::Project(address)) => Some(ImageName::Project(address)),
                        Ok(Image::Reference(reference)) => Some(ImageName::Reference(reference)),
                        Err(diagnostic) => {
                            diagnostics.push(diagnostic);
                            None
                        }
                    };
                    keep(ctk_check::decode_node(&address, &resource.node, &resolve).map(|decl| {
                        self.tests.insert(address.clone(), decl);
                    }));
                }
                Kind::Push => keep(ctk_push::decode(&self.project, resource).map(|decl| {
                    self.pushes.insert(address, decl);
                })),
                Kind::Service => keep(ctk_service::decode(&self.project, resource).map(|decl| {
                    self.services.insert(address, decl);
                })),
                Kind::Pipeline => {
                    let local = |image: &Address| local_name(&self.project.name, image);
                    keep(ctk_pipeline::project::decode(&self.project, resource, &local).map(|decl| {
                        self.pipelines.insert(address, decl);
                    }));
                }
                Kind::Registry => {
                    let directory = self.directory.join(&resource.directory);
                    let decl = RegistryDecl::decode(&address, &resource.node, &directory, diagnostics);
                    self.registries.extend(decl.map(|decl| (address, decl)));
                }
            }
        }
    }

    /// Reads what the project file only points at: Dockerfiles, those elsewhere if they were brought already. All mistakes
    /// at once; the warnings about them, rendered, if there are no mistakes. Makes no store where there is none, unless a
    /// Dockerfile is elsewhere.
    pub fn check(&self) -> Result<String, ApplyError> {
        let mut warnings = String::new();
        let mut failures = Vec::new();
        let mut ground = None;
        for (address, decl) in &self.images {
            let here = matches!(decl.source, RecipeSource::Native(_) | RecipeSource::Dockerfile { .. });
            let looked = match here && ground.is_none() && !self.options.store.exists() {
                true => ctk_build::lint(decl, &self.directory, None),
                false => {
                    let ground = match &ground {
                        Some(ground) => ground,
                        None => ground.insert(Ground::open(&self.options, self.registries.values())?),
                    };
                    let (cancel, host) = (Cancel::new(), host_packages(&self.options));
                    let reporter = Reporter::new(address.clone(), Arc::new(ctk_plan::Silent));
                    let world = self.world(ground, &self.lock, &host, &reporter, &cancel);
                    ctk_build::lint(decl, &self.directory, Some((&world, false)))
                }
            };
            // Mistakes are told as the failure that a build of it would end with.
            let looked = looked.and_then(|looked| match &looked {
                Looked::Linted(linted) => linted.refused().map(|()| looked),
                Looked::Native | Looked::Elsewhere(_) => Ok(looked),
            });
            match looked {
                Ok(Looked::Linted(linted)) if !linted.warnings.is_empty() => {
                    warnings.push_str(&linted.warnings.render(&linted.sources, false));
                }
                Ok(Looked::Linted(_) | Looked::Native) => {}
                Ok(Looked::Elsewhere(what)) => {
                    let text = format!("note: the Dockerfile of `{address}` was not read: it is in {what}\n");
                    warnings.push_str(&text);
                    warnings.push_str("  hint: `ctk build` brings it; after that it is read here, too\n");
                }
                Err(error) => failures.push(self.build_failure(address, &error)),
            }
        }
        match failures.is_empty() {
            true => Ok(warnings),
            false => Err(ApplyError::Failed { failures, reports: Vec::new() }),
        }
    }

    /// Warnings about the project's files, rendered for people; empty if there are none.
    pub fn warnings(&self, color: bool) -> String {
        if self.warnings.is_empty() { String::new() } else { self.warnings.render(&self.sources, color) }
    }

    /// What pushes, registries and caches write into the project's folder is no part of any context.
    fn keep_outputs_apart(&mut self) {
        let pushed = self.pushes.values().flat_map(|push| &push.targets).filter_map(|target| target.file());
        let stored = self.registries.values().map(|registry| registry.storage.as_path());
        let cached = self.images.values().flat_map(|image| image.cache_folders());
        let outputs: Vec<PathBuf> = pushed.chain(stored).chain(cached).map(Path::to_path_buf).collect();
        for image in self.images.values_mut() {
            image.outputs.clone_from(&outputs);
        }
    }

    /// Two images with one name in the store would take it from each other.
    fn name_images(&self, diagnostics: &mut Diagnostics) {
        let mut first = BTreeMap::new();
        for image in self.project.of_kind(Kind::Image) {
            let name = local_name(&self.project.name, &image.address);
            let Some(other) = first.insert(name.clone(), image) else { continue };
            let (here, there) = (&image.address, &other.address);
            let message = format!("the store would call both `{there}` and `{here}` `{name}`");
            diagnostics.push(
                Diagnostic::error(codes::STORE_NAME, message)
                    .at(image.span, "the same name again")
                    .at(other.span, "first here")
                    .hint("letters are made small, and what names there cannot hold a hyphen; rename one of them"),
            );
        }
    }

    /// Of two caches that are written to one place only one would be left.
    fn keep_caches_apart(&self, diagnostics: &mut Diagnostics) {
        let mut first: BTreeMap<String, (&Address, Span)> = BTreeMap::new();
        for (address, image) in &self.images {
            for cache in &image.cache_to {
                let place = cache.value.place.name();
                let identities = cache.value.place.identities();
                let taken = identities.iter().find_map(|identity| first.get(identity).copied());
                first.extend(identities.into_iter().map(|identity| (identity, (address, cache.span))));
                let Some((other, span)) = taken else { continue };
                let message = format!("the caches of `{other}` and `{address}` would both be written to `{place}`");
                let diagnostic = Diagnostic::error(codes::CACHE_PLACE, message);
                let diagnostic = match span == cache.span {
                    true => diagnostic.at(cache.span, "the same for both"),
                    false => diagnostic.at(cache.span, "the same place again").at(span, "first here"),
                };
                diagnostics.push(
                    diagnostic.hint("the later one would take the other's place; name the image in it: `${image.tag}`"),
                );
            }
        }
    }

    /// What the files declare.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The texts that were read, for places in diagnostics.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The absolute folder of the project file.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pipelines that this project declares.
    pub fn pipelines(&self) -> impl Iterator<Item = (&Address, &PipelineDecl)> {
        self.pipelines.iter()
    }

    /// The registries that this project serves.
    pub fn registries(&self) -> impl Iterator<Item = (&Address, &RegistryDecl)> {
        self.registries.iter()
    }

    /// The addresses that words of a command line mean: addresses, patterns, groups. No words mean no restriction,
    /// which an empty set stands for.
    pub fn select(&self, words: &[String]) -> Result<BTreeSet<Address>, ApplyError> {
        Ok(self.project.select(words)?.into_iter().collect())
    }

    /// The same for words that mean one kind: `api` is `image:api` where images are meant. No words mean all of the
    /// kind.
    pub fn select_kind(&self, kind: Kind, words: &[String]) -> Result<BTreeSet<Address>, ApplyError> {
        if words.is_empty() {
            return Ok(self.project.of_kind(kind).map(|resource| resource.address.clone()).collect());
        }
        let named = |word: &String| match self.project.get(&Address::new(kind, word.as_str())) {
            Some(resource) => resource.address.to_string(),
            None => word.clone(),
        };
        self.select(&words.iter().map(named).collect::<Vec<_>>())
    }
}

fn invalid(mut diagnostics: Diagnostics, sources: &Sources) -> ApplyError {
    diagnostics.sort();
    ApplyError::Invalid {
        text: diagnostics.render(sources, false),
        colored: diagnostics.render(sources, true),
        reports: diagnostics.iter().map(|diagnostic| diagnostic.report(sources)).collect(),
    }
}

/// The name under which the store keeps a project's image: `localhost/PROJECT/IMAGE:latest`, with what names of
/// repositories cannot hold made a hyphen.
pub fn local_name(project: &str, image: &Address) -> String {
    let plain = |text: &str| {
        let mut name = String::new();
        for part in text.split(['/', ':']) {
            let kept: String = part
                .to_lowercase()
                .chars()
                .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_' { c } else { '-' })
                .collect();
            let kept = kept.split(['-', '.', '_']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
            if !kept.is_empty() {
                name.push_str(if name.is_empty() { "" } else { "/" });
                name.push_str(&kept);
            }
        }
        if name.is_empty() { "unnamed".to_owned() } else { name }
    };
    format!("localhost/{}/{}:latest", plain(project), plain(&image.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_references() {
        let check = |project: &str, image: &str, expected: &str| {
            let name = local_name(project, &Address::new(Kind::Image, image));
            assert_eq!(name, expected);
            assert_eq!(name.parse::<ctk_oci::Reference>().unwrap().to_string(), expected);
        };
        check("shop", "api", "localhost/shop/api:latest");
        check("My Shop", "services/cart:api", "localhost/my-shop/services/cart/api:latest");
        check("größe", "svc[os=debian,tls=on]", "localhost/gr-e/svc-os-debian-tls-on:latest");
        check("…", "_x_", "localhost/unnamed/x:latest");
    }
}
