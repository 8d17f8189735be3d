//! `image` nodes: text in, declaration out. Every mistake is reported.
//!
//! Instructions are decoded by one file each or, where they are a line, by the table of [`stage`].

mod caches;
mod context;
mod copy;
mod healthcheck;
mod packages;
mod run;
mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ctk_buildgraph::{BaseName, Expansion, From, Recipe, RecipeStage};
use ctk_oci::Platform;
use ctk_project::{CACHE_NODES, IMAGE_SETTINGS, Project, Resource, StageKind};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Spanned};

use crate::codes;
use crate::{Entitlements, ImageDecl, RecipeSource, SecretSource, SshDecl};

/// Decodes the image `resource`. `host` is the platform of an image that names none.
pub fn decode(resource: &Resource, project: &Project, host: &Platform) -> Result<ImageDecl, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let mut platforms = project.platforms_of(resource);
    let asked = !platforms.is_empty();
    if !asked {
        platforms.push(host.clone());
    }
    let mut image = Image { resource, project, diagnostics: &mut diagnostics };
    let mut decl = image.settings(platforms);
    decl.platforms_asked = asked;
    if let RecipeSource::Native(recipes) = &mut decl.source {
        for platform in &decl.platforms {
            let expanded = Resource { node: resource.for_platform(platform), ..resource.clone() };
            let mut image = Image { resource: &expanded, project, diagnostics: &mut diagnostics };
            recipes.insert(platform.to_string(), image.recipe());
        }
    }
    diagnostics.into_result(decl)
}

/// An image under decoding.
struct Image<'a> {
    resource: &'a Resource,
    project: &'a Project,
    diagnostics: &'a mut Diagnostics,
}

impl Image<'_> {
    fn path(&self, text: &str) -> PathBuf {
        if Path::new(text).is_absolute() { PathBuf::from(text) } else { self.resource.directory.join(text) }
    }

    /// All that is about the whole image.
    fn settings(&mut self, platforms: Vec<Platform>) -> ImageDecl {
        let resource = self.resource;
        let mut decl = ImageDecl::dockerfile(resource.address.clone(), "", self.path("."));
        decl.platforms = platforms;
        decl.canonical = resource.node.canonical();
        decl.source = RecipeSource::Native(BTreeMap::new());
        let mut reader = Reader::new(&resource.node, self.diagnostics);
        reader.opt_arg();
        let dockerfile = reader.opt_prop_str("dockerfile");
        let main = reader.opt_prop_str("context");
        let target = reader.opt_prop_str("target");
        let base = reader.opt_prop_str("from");
        let children = reader.children();
        reader.finish();
        if let Some(dockerfile) = &dockerfile {
            decl.source = context::dockerfile(self.path(&dockerfile.value), dockerfile);
            if let Some(base) = base {
                let message = "`from` and `dockerfile` exclude each other";
                self.diagnostics.push(
                    Diagnostic::error(codes::CONFLICT, message).at(base.span, "the Dockerfile says its own FROM"),
                );
            }
        }
        if let Some(main) = main {
            self.add_context(String::new(), &main, Vec::new(), &mut decl);
        }
        decl.target = target.map(|t| t.value);
        for child in children {
            match child.name.value.as_str() {
                "context" => self.context(child, &mut decl),
                "arg" if dockerfile.is_some() || !ctk_project::stages(resource).is_empty() => {
                    self.arg(child, &mut decl)
                }
                "secret" => self.secret(child, &mut decl),
                // Others read these.
                "platforms" | "description" | "compression" | "annotation" => {}
                "ssh" => self.ssh(child, &mut decl),
                "allow" => self.allow(child, &mut decl),
                _ if dockerfile.is_some() => {
                    let known = [IMAGE_SETTINGS, CACHE_NODES].concat();
                    self.diagnostics.unknown_node(child, Some("image"), &known);
                }
                _ => {}
            }
        }
        self.caches(&mut decl);
        if let Some(dockerfile) = &dockerfile {
            context::dockerfile_in_context(&mut decl, dockerfile);
        }
        decl
    }

    fn not_supported(&mut self, node: &Node) {
        let message = format!("`{}` is not supported yet", node.name);
        self.diagnostics.push(Diagnostic::error(codes::NOT_SUPPORTED, message).at(node.name.span, ""));
    }

    /// `arg "NAME" "value"` on the image: a value for the stages' `arg`.
    fn arg(&mut self, node: &Node, decl: &mut ImageDecl) {
        let mut reader = Reader::new(node, self.diagnostics);
        let name = reader.arg_str("a name");
        let value = reader.arg_text("a value");
        reader.finish();
        if let (Some(name), Some(value)) = (name, value) {
            decl.args.insert(name.value, value.value);
        }
    }

    /// `secret "name" env="VARIABLE"` or `file="path"`.
    fn secret(&mut self, node: &Node, decl: &mut ImageDecl) {
        let mut reader = Reader::new(node, self.diagnostics);
        let name = reader.arg_str("a name");
        let env = reader.opt_prop_str("env");
        let file = reader.opt_prop_str("file");
        reader.finish();
        let source = match (env, file) {
            (Some(env), None) => SecretSource::Env(env.value),
            (None, Some(file)) => SecretSource::File(self.path(&file.value)),
            _ => {
                let message = "a secret comes from either `env` or `file`";
                self.diagnostics.push(Diagnostic::error(codes::CONFLICT, message).at(node.name.span, ""));
                return;
            }
        };
        if let Some(name) = name {
            decl.secrets.insert(name.value, source);
        }
    }

    /// `ssh "name" env="VARIABLE"`, `socket="path"` or `file="key"`; by default the agent that `SSH_AUTH_SOCK` names.
    fn ssh(&mut self, node: &Node, decl: &mut ImageDecl) {
        let mut reader = Reader::new(node, self.diagnostics);
        let name = reader.opt_arg_str("a name").map_or_else(|| "default".into(), |name| name.value);
        let env = reader.opt_prop_str("env");
        let socket = reader.opt_prop_str("socket");
        let file = reader.opt_prop_str("file");
        reader.finish();
        let source = match (env, socket, file) {
            (None, None, None) => SshDecl::Env("SSH_AUTH_SOCK".into()),
            (Some(env), None, None) => SshDecl::Env(env.value),
            (None, Some(socket), None) => SshDecl::Socket(self.path(&socket.value)),
            (None, None, Some(file)) => SshDecl::Keys(vec![self.path(&file.value)]),
            _ => {
                let message = "an agent is found by one of `env`, `socket` and `file`";
                self.diagnostics.push(Diagnostic::error(codes::CONFLICT, message).at(node.name.span, ""));
                return;
            }
        };
        decl.ssh.insert(name, source);
    }

    /// `allow "network.host" "security.insecure" "device=/dev/fuse"`
    fn allow(&mut self, node: &Node, decl: &mut ImageDecl) {
        let mut reader = Reader::new(node, self.diagnostics);
        for word in reader.args_text_some("an entitlement") {
            if !decl.allow.add(&word.value) {
                let known = Entitlements::KNOWN;
                let near = ctk_syntax::nearest(&word.value, known);
                let label =
                    near.map_or(format!("expected {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
                let message = format!("there is no entitlement `{}`", word.value);
                reader.error(codes::NOT_ALLOWED, word.span, message, label);
            }
        }
        reader.finish();
    }

    fn recipe(&mut self) -> Recipe {
        let stages = ctk_project::stages(self.resource);
        let names: Vec<String> = stages.iter().map(|s| s.name.value.clone()).collect();
        let mut recipe = Recipe { expansion: Expansion::Literal, ..Recipe::default() };
        for (index, stage) in stages.iter().enumerate() {
            if stage.kind == StageKind::Cargo {
                self.not_supported(stage.node);
            }
            let before: Vec<&str> = names[..index].iter().map(String::as_str).collect();
            let from = match &stage.from {
                None => From::Scratch,
                Some(from) => self.from(from, &before).unwrap_or(From::Scratch),
            };
            if stage.kind == StageKind::Declared {
                let mut reader = Reader::new(stage.node, self.diagnostics);
                reader.arg_str("a name");
                reader.opt_prop_str("from");
                reader.children();
                reader.finish();
            }
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            let statements = stage.body.iter().flat_map(|node| self.instruction(node, &all)).collect();
            let (name, origin) = (Some(stage.name.value.clone()), Some(stage.name.span));
            recipe.stages.push(RecipeStage { name, description: None, from, platform: None, statements, origin });
        }
        recipe
    }

    /// What `from="…"` means, where `stages` can be meant.
    fn from(&mut self, text: &Spanned<String>, stages: &[&str]) -> Option<From> {
        match self.project.resolve_from(self.resource, text, stages) {
            Ok(ctk_project::From::Scratch) => Some(From::Scratch),
            Ok(ctk_project::From::Context(name)) => Some(From::Named(name)),
            Ok(ctk_project::From::Stage(name)) => {
                let all = ctk_project::stages(self.resource);
                all.iter().position(|s| s.name.value == name).map(From::Stage)
            }
            Ok(image) => base_name(image).map(From::Base),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }
}

fn base_name(from: ctk_project::From) -> Option<BaseName> {
    match from {
        ctk_project::From::Image(address) => Some(BaseName::Project(address)),
        ctk_project::From::ImageStage(address, stage) => Some(BaseName::ProjectStage(address, stage)),
        ctk_project::From::Reference(reference) => Some(BaseName::Reference(reference.or_latest())),
        _ => None,
    }
}
