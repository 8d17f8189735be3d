//! `COPY` and `ADD`.

use ctk_oci::Digest;
use ctk_syntax::short;

use super::Walk;
use crate::pattern::{check_pattern, exclusion, literal};
use crate::stage::{Stage, clean};
use crate::words::Variables;
use crate::{
    Copy, CopySource, FileAction, FileMode, Follow, From, GitSource, Op, Owner, Selection, SourceError, Statement,
    VertexId, codes,
};

impl Walk<'_> {
    pub(super) fn copy(&mut self, stage: &mut Stage, copy: &Copy, add: bool, statement: &Statement, index: usize) {
        let origin = statement.origin;
        let dest = self.text(stage, &copy.dest, origin);
        let (dest, dest_shown) = (stage.absolute(&dest), dest);
        let owner = copy.chown.as_ref().map(|o| Owner(self.text(stage, o, origin)));
        let mode = copy.chmod.as_ref().map(|m| self.text(stage, m, origin)).filter(|mode| !mode.is_empty());
        if let Some(mode) = mode.as_deref().filter(|mode| stage.known && FileMode::parse(mode).is_none()) {
            let message = format!(
                "`{}` is no mode; expected octal digits such as `755`, or letters such as `u=rwX,go=rX`",
                short(mode)
            );
            let place = self.place(origin, copy.chmod.as_deref().unwrap_or_default());
            self.error(codes::BAD_MODE, message, place, "");
        }
        // Patterns hold no variables.
        let exclude = copy.exclude.clone();
        for pattern in &exclude {
            if let Err(error) = exclusion(pattern) {
                let message = format!("`{}` is no pattern to exclude: {error}", short(pattern));
                self.error(codes::BAD_PATTERN, message, self.place(origin, pattern), "");
            }
        }
        let mut shown = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        let (mut documents, mut documents_shown) = (Vec::new(), Vec::new());
        let mut inputs: Vec<VertexId> = Vec::new();
        let mut unsure = false;
        for source in &copy.sources {
            match source {
                CopySource::Inline(document) => {
                    let content = match self.escape().filter(|_| document.expand) {
                        None => document.content.clone(),
                        Some(_) => {
                            let lookup = |n: &str| stage.lookup(n);
                            let mut variables = Variables::new(&lookup);
                            let expanded = variables.document(&document.content);
                            self.asked = variables.asked;
                            self.lint_variables(stage, origin);
                            match expanded {
                                Ok(content) => content,
                                Err(error) => {
                                    let message = format!("cannot expand `<<{}`: {error}", short(&document.name));
                                    let place = self.place_below(origin, &document.content[error.at.clone()]);
                                    self.error(codes::BAD_WORD, message, place, "");
                                    continue;
                                }
                            }
                        }
                    };
                    documents_shown.push(format!("<<{}", document.name));
                    if document.name.contains('/') {
                        let message = format!("`{}` names the file of a here-document and holds a `/`", document.name);
                        self.error(codes::BAD_SOURCE, message, origin, "");
                    }
                    let (dest, name) = (dest.clone(), document.name.clone());
                    documents.push(FileAction::Mkfile {
                        dest,
                        name,
                        content,
                        mode: mode.clone(),
                        owner: owner.clone(),
                    });
                }
                CopySource::Path(written) => {
                    let place = self.place(origin, written);
                    let (path, unset) = self.word(stage, written, origin);
                    unsure |= unset && !stage.known;
                    shown.push(path.clone());
                    let remote = match if add { remote(&path) } else { Ok(None) } {
                        Ok(remote) => remote,
                        Err(error) => {
                            self.error(codes::BAD_SOURCE, error.to_string(), place, "");
                            continue;
                        }
                    };
                    match remote {
                        None => {
                            if let Err(error) = check_pattern(&path) {
                                let message = format!("`{}` is no pattern: {error}", short(&path));
                                self.error(codes::BAD_PATTERN, message, place, "");
                            }
                            if copy.checksum.is_some() {
                                let message = format!("`{path}` is a file; `--checksum` is for URLs and repositories");
                                self.error(codes::BAD_SOURCE, message, place, "");
                            } else if !add && (path.starts_with("http://") || path.starts_with("https://")) {
                                let message = format!("`{path}` is a URL, which COPY does not take; write ADD");
                                self.error(codes::BAD_SOURCE, message, place, "");
                            }
                            match parts.last_mut() {
                                Some(Part::Paths(paths)) => paths.push(path),
                                _ => parts.push(Part::Paths(vec![path])),
                            }
                        }
                        Some(remote) => {
                            let Some((vertex, file)) = self.remote_vertex(remote, &path, copy, stage, statement) else {
                                continue;
                            };
                            parts.push(Part::Remote(vertex, file));
                        }
                    }
                }
            }
        }
        let mut actions = Vec::new();
        let mut local = None;
        for part in parts {
            let (input, selection, sources, unpack) = match part {
                Part::Remote(vertex, file) => {
                    inputs.push(vertex);
                    let unpack = file.is_some() && copy.unpack == Some(true);
                    (inputs.len(), None, vec![file.as_deref().map(literal).unwrap_or_default()], unpack)
                }
                Part::Paths(paths) => {
                    if copy.from == From::Context {
                        self.lint_sources(&paths, origin);
                    }
                    if local.is_none() {
                        let platform = stage.platform.clone();
                        let Some((vertex, context)) = self.tree(&copy.from, &platform, index, origin) else { return };
                        inputs.push(vertex);
                        local = Some((inputs.len(), context));
                    }
                    let (input, context) = local.clone().expect("just set");
                    // The `./` of `--parents` says where kept parents begin; it must survive.
                    let clean = |path: &String| match copy.parents {
                        true => path.trim_start_matches('/').to_owned(),
                        false => clean("/", path).trim_start_matches('/').to_owned(),
                    };
                    let sources: Vec<String> = paths.iter().map(clean).collect();
                    let selection = context.map(|context| match unsure {
                        true => Walk::whole(&context),
                        false => {
                            let (paths, parents) = (sources.clone(), copy.parents);
                            Selection { context, paths, exclude: exclude.clone(), parents }
                        }
                    });
                    (input, selection, sources, add && copy.unpack != Some(false))
                }
            };
            actions.push(FileAction::Copy {
                input,
                selection,
                sources,
                dest: dest.clone(),
                owner: owner.clone(),
                mode: mode.clone(),
                exclude: exclude.clone(),
                parents: copy.parents,
                follow: Follow::Named,
                extract: unpack,
            });
        }
        actions.extend(documents);
        shown.extend(documents_shown);
        // In a Dockerfile the last one wins, as with BuildKit.
        if self.escape().is_none() && copy.sources.len() > 1 && !dest.ends_with('/') {
            let message = format!("`{dest}` must end with `/`, because several sources go there");
            return self.error(codes::BAD_SOURCE, message, origin, "");
        }
        let created_by = created_by(if add { "ADD" } else { "COPY" }, copy, &owner, &mode, &shown, &dest_shown);
        // With a mode BuildKit copies onto the stage: links there are followed, names of owners looked up.
        let link = copy.link && mode.is_none();
        if let Some(owner) = owner.as_ref().filter(|owner| link && !owner.is_numeric()) {
            let message = format!("`--link` knows no `{}`: it copies to an empty tree; use numbers", owner.0);
            self.error(codes::BAD_SOURCE, message, origin, "");
        }
        stage.files(&mut self.graph, actions, link, inputs, &statement.text, created_by, origin);
    }

    /// The vertex of a URL or a repository, with the file's name for a URL.
    fn remote_vertex(
        &mut self,
        remote: Remote,
        path: &str,
        copy: &Copy,
        stage: &Stage,
        statement: &Statement,
    ) -> Option<(VertexId, Option<String>)> {
        let checksum = copy.checksum.as_ref().map(|c| self.text(stage, c, statement.origin));
        match remote {
            Remote::Http(url) => {
                let file_name = file_name(&url);
                let digest = match checksum.map(|c| c.parse::<Digest>().map_err(|e| (c, e))).transpose() {
                    Ok(Some(checksum)) => Some(checksum),
                    Ok(None) => self.file(&url, statement.origin).map(|file| file.digest),
                    Err((text, error)) => {
                        let message = format!("`{text}` is no checksum: {error}");
                        self.error(codes::BAD_SOURCE, message, statement.origin, "");
                        return None;
                    }
                };
                let vertex = match digest {
                    None => self.scratch(),
                    Some(digest) => {
                        let op = Op::Http { url, file_name: file_name.clone(), digest };
                        self.source(op, format!("ADD {path}"), statement.origin)
                    }
                };
                Some((vertex, Some(file_name)))
            }
            Remote::Git(source) => match source.with_flags(checksum.as_deref(), copy.keep_git_dir) {
                Ok(source) => Some((self.git(source, |source| format!("ADD {source}"), statement.origin), None)),
                Err(error) => {
                    self.error(codes::BAD_SOURCE, error.to_string(), statement.origin, "");
                    None
                }
            },
        }
    }
}

/// Sources of one kind that follow one another.
enum Part {
    /// Of a context, a stage or an image.
    Paths(Vec<String>),
    /// A URL, with its file's name, or a repository.
    Remote(VertexId, Option<String>),
}

enum Remote {
    Http(String),
    Git(GitSource),
}

/// Whether `ADD` takes this from the network.
fn remote(source: &str) -> Result<Option<Remote>, SourceError> {
    if let Some(git) = GitSource::parse(source)?.filter(|git| !git.like_path) {
        return Ok(Some(Remote::Git(git)));
    }
    let web = source.starts_with("http://") || source.starts_with("https://");
    Ok(web.then(|| Remote::Http(source.to_owned())))
}

/// How the file of a URL is called: by the last part of its path, decoded; as BuildKit has it where there is none.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.splitn(4, '/').nth(3).unwrap_or_default();
    let name = decoded(path).trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    if matches!(name.as_str(), "" | "." | "..") { "__unnamed__".to_owned() } else { name }
}

/// `%20` and the like as what they stand for (RFC 3986, section 2.1); what is no such escape stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let pair = more.get(..2).filter(|_| *first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|byte| *byte != 0) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn created_by(
    word: &str,
    copy: &Copy,
    owner: &Option<Owner>,
    mode: &Option<String>,
    sources: &[String],
    dest: &str,
) -> String {
    let mut parts = vec![word.to_owned()];
    parts.extend(copy.parents.then(|| "--parents".to_owned()));
    parts.extend(owner.iter().map(|o| format!("--chown={}", o.0)));
    parts.extend(mode.iter().map(|m| format!("--chmod={m}")));
    parts.extend(sources.iter().cloned());
    parts.push(dest.to_owned());
    parts.join(" ")
}
