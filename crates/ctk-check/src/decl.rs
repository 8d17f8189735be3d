//! A `test` node as a value: what is tested, what runs beside it, what should hold.

use std::collections::BTreeSet;
use std::time::Duration;

use ctk_oci::Reference;
use ctk_plan::Address;
use ctk_project::{HealthProbe, HealthWords, Project, Resource, service_words};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, Spanned};

use crate::assertions::{self, Assertion, TABLE};
use crate::codes;
use crate::http::Url;
use crate::limits;
use crate::words;

/// The name of the started image on the test's network.
pub const IMAGE_HOST: &str = "image";

/// A decoded `test` resource.
#[derive(Debug)]
pub struct TestDecl {
    /// Its address.
    pub address: Address,
    /// What is tested.
    pub image: ImageName,
    /// What runs beside it, in order.
    pub services: Vec<Service>,
    /// How the image itself is started; `None`: it is not.
    pub start: Option<Launch>,
    /// What should hold, in order.
    pub assertions: Vec<AssertionDecl>,
}

/// An assertion of a test.
#[derive(Debug)]
pub struct AssertionDecl {
    /// Its node's name.
    pub kind: &'static str,
    /// For people; unique within the test.
    pub name: String,
    /// Raised when the behaviour of its kind changes.
    pub semantics: u32,
    /// What it does.
    pub(crate) assertion: Box<dyn Assertion>,
}

/// What an `image=` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageName {
    /// An image of this project: built before, and given to [`crate::TestRequest`].
    Project(Address),
    /// Any image: fetched, once the lock file has said which digest.
    Reference(Reference),
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImageName::Project(address) => address.fmt(f),
            ImageName::Reference(reference) => reference.fmt(f),
        }
    }
}

/// A container that runs beside the image, on its network.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name by which it is reached.
    pub name: String,
    /// What it runs.
    pub image: ImageName,
    /// How.
    pub launch: Launch,
}

/// How a container that serves is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// `NAME=value` on top of the image's environment.
    pub env: Vec<String>,
    /// Replaces the image's CMD.
    pub command: Option<Vec<String>>,
    /// Replaces the image's ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's USER.
    pub user: Option<String>,
    /// Replaces the image's WORKDIR.
    pub workdir: Option<String>,
    /// When it is healthy, and may be spoken to; without, as soon as it runs.
    pub health: Option<Health>,
}

/// How a container's health is found out.
#[derive(Clone, Debug)]
pub struct Health {
    /// What has to succeed.
    pub(crate) probe: Probe,
    /// Until when.
    pub(crate) within: Duration,
    /// Between two tries.
    pub(crate) every: Duration,
    /// For one of them.
    pub(crate) timeout: Duration,
}

/// What tells that a container is healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A command inside it exits with 0.
    Exec(Vec<String>),
    /// A URL answers with a status below 400.
    Http(Url),
    /// A port accepts connections.
    Tcp(u16),
}

/// Reads a `test` resource of `project`. All mistakes at once.
pub fn decode(project: &Project, resource: &Resource) -> Result<TestDecl, Diagnostics> {
    decode_node(&resource.address, &resource.node, &|name, diagnostics| match project.resolve_image(resource, name) {
        Ok(ctk_project::Image::Project(address)) => Some(ImageName::Project(address)),
        Ok(ctk_project::Image::Reference(reference)) => Some(ImageName::Reference(reference)),
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    })
}

/// Reads a `test` node. `resolve` says what an `image=` means, in the scope of the node. All mistakes at once.
pub fn decode_node(
    address: &Address,
    node: &Node,
    resolve: &dyn Fn(&Spanned<String>, &mut Diagnostics) -> Option<ImageName>,
) -> Result<TestDecl, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let decl = read(address, node, resolve, &mut diagnostics);
    diagnostics.sort();
    match decl {
        Some(decl) => diagnostics.into_result(decl),
        None => Err(diagnostics),
    }
}

fn read(
    address: &Address,
    node: &Node,
    resolve: &dyn Fn(&Spanned<String>, &mut Diagnostics) -> Option<ImageName>,
    diagnostics: &mut Diagnostics,
) -> Option<TestDecl> {
    let mut reader = Reader::new(node, diagnostics);
    reader.arg_str("a name");
    // Read by the project: it orders this resource after others.
    reader.opt_prop("needs");
    let image = reader.prop_str("image").and_then(|name| resolve(&name, reader.diagnostics()));
    let mut services: Vec<Service> = Vec::new();
    let mut start = None;
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for child in reader.children() {
        let word = child.name.value.as_str();
        match word {
            "service" => services.extend(service(reader.child(child), resolve, &services)),
            "needs" => {}
            "start" => {
                if start.is_some() {
                    let message = "`start` is given twice inside `test`";
                    reader.error(ctk_syntax::codes::DUPLICATE_NODE, child.name.span, message, "again here");
                }
                let mut inner = reader.child(child);
                start = Some(launch(&mut inner, IMAGE_HOST));
                inner.finish();
            }
            "vulnerabilities" => {
                let message = "`vulnerabilities` is not supported yet";
                reader.error(codes::NOT_YET, child.name.span, message, "take it out for now");
            }
            _ => match assertions::row(word) {
                None => {
                    let known = ["service", "start"].into_iter().chain(TABLE.iter().map(|row| row.word));
                    reader.unknown_child(child, known);
                }
                Some(row) => {
                    let mut inner = reader.child(child);
                    let assertion = (row.decode)(&mut inner);
                    inner.finish();
                    if let Some(assertion) = assertion {
                        let plain = format!("{word} {}", assertion.name()).trim_end().to_string();
                        let mut name = plain.clone();
                        let mut count = 1;
                        while !names.insert(name.clone()) {
                            count += 1;
                            name = format!("{plain} ({count})");
                        }
                        let decl = AssertionDecl { kind: row.word, name, semantics: row.semantics, assertion };
                        found.push((child, decl));
                    }
                }
            },
        }
    }
    // Hosts can be checked once every service is known, wherever it stands in the file.
    for (child, decl) in &found {
        let Some(host) = decl.assertion.host() else { continue };
        let known = services.iter().any(|service| service.name == host);
        let place = child.args.first().map_or(child.name.span, |value| value.span);
        if host == IMAGE_HOST && start.is_none() {
            let diagnostic =
                Diagnostic::error(codes::NO_SUCH_HOST, "the image is asked, but this test does not start it")
                    .at(place, "nothing answers here")
                    .hint("add `start` to the test");
            reader.diagnostics().push(diagnostic);
        } else if host != IMAGE_HOST && !known {
            let message = format!("`{host}` is no container of this test");
            let names: Vec<&str> = services.iter().map(|s| s.name.as_str()).chain([IMAGE_HOST]).collect();
            let near = ctk_syntax::nearest(host, names.iter().copied());
            let otherwise = format!("expected one of `{}`", names.join("`, `"));
            let diagnostic = Diagnostic::error(codes::NO_SUCH_HOST, message).at_or_nearest(place, near, otherwise);
            reader.diagnostics().push(diagnostic);
        }
    }
    reader.finish();
    let assertions = found.into_iter().map(|(_, decl)| decl).collect();
    Some(TestDecl { address: address.clone(), image: image?, services, start, assertions })
}

/// `service "db" image="postgres:17" { … }`
fn service(
    mut reader: Reader<'_, '_>,
    resolve: &dyn Fn(&Spanned<String>, &mut Diagnostics) -> Option<ImageName>,
    before: &[Service],
) -> Option<Service> {
    let name = reader.arg_str("a name");
    if let Some(name) = &name {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(label) || name.len() > 63 || name.starts_with('-') {
            let message = format!("`{}` is no name of a service", name.value);
            reader.error(codes::BAD_VALUE, name.span, message, "expected a host name: lower-case letters, digits, `-`");
        }
        if name.value == IMAGE_HOST {
            let message = "no service can be called `image`";
            reader.error(codes::DUPLICATE_SERVICE, name.span, message, "this is the name of the tested image");
        }
        if before.iter().any(|service| service.name == name.value) {
            let message = format!("service `{}` is given twice", name.value);
            reader.error(codes::DUPLICATE_SERVICE, name.span, message, "again here");
        }
    }
    let image = reader.prop_str("image").and_then(|image| resolve(&image, reader.diagnostics()));
    let launch = launch(&mut reader, name.as_ref().map_or("", |n| n.value.as_str()));
    reader.finish();
    Some(Service { name: name?.value, image: image?, launch })
}

/// The block of `start` and `service`; `host` is the container's own name.
fn launch(reader: &mut Reader<'_, '_>, host: &str) -> Launch {
    let words = service_words(reader);
    let health = words.health.and_then(|words| health(words, reader, host));
    let env = words.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Launch {
        env,
        command: words.command,
        entrypoint: words.entrypoint,
        user: words.user,
        workdir: words.workdir,
        health,
    }
}

/// `health exec="pg_isready" within="30s"`, or `http=`, or `tcp=`. A test waits until it is well, or its time is over: how
/// many failures are too many, and what comes then, it does not ask.
fn health(words: HealthWords, reader: &mut Reader<'_, '_>, host: &str) -> Option<Health> {
    let mut time = |given: Option<Spanned<Duration>>, usual| {
        given.and_then(|given| words::bounded(reader, given)).unwrap_or(usual)
    };
    let within = time(words.within, limits::HEALTHY_WITHIN);
    let every = time(words.every, limits::RETRY_PAUSE);
    let timeout = time(words.timeout, limits::HTTP_TIMEOUT);
    let probe = match words.probe.value {
        HealthProbe::Exec(text) => Probe::Exec(command_line(&text)),
        HealthProbe::Tcp(port) => Probe::Tcp(port),
        HealthProbe::Http(text) => {
            // `:8080/healthz` and `/healthz` mean this container.
            let whole = match text.as_bytes().first() {
                Some(b':' | b'/') => format!("http://{host}{text}"),
                _ => text,
            };
            match Url::parse(&whole) {
                Ok(url) => Probe::Http(url),
                Err(why) => {
                    reader.error(codes::BAD_VALUE, words.probe.span, why, "expected e.g. `:8080/healthz`");
                    return None;
                }
            }
        }
    };
    Some(Health { probe, within, every, timeout })
}

/// A command line: its words, or a shell around it when it has more than words.
fn command_line(text: &str) -> Vec<String> {
    let plain = !text.chars().any(|c| "\"'\\$`|&;<>()*?[]#~{}!\n".contains(c));
    match plain {
        true => text.split_whitespace().map(str::to_string).collect(),
        false => vec!["/bin/sh".into(), "-c".into(), text.into()],
    }
}

/// What the fingerprint of a test has besides its declaration and the digest of its image.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FingerprintInputs {
    /// Project images that its services run; their fingerprints count.
    pub images: Vec<Address>,
    /// References that the image and its services name; the digests that the lock says for them count.
    pub references: Vec<String>,
    /// The semantics of each kind of assertion that it uses, and of the running itself (`test`).
    pub semantics: Vec<(&'static str, u32)>,
}

/// Raised when services, start or the running of assertions behave differently.
const RUN_SEMANTICS: u32 = 1;

impl TestDecl {
    /// What its result depends on besides the declaration. A test reads no file of the project.
    pub fn fingerprint_inputs(&self) -> FingerprintInputs {
        let mut images = Vec::new();
        let mut references = Vec::new();
        for name in std::iter::once(&self.image).chain(self.services.iter().map(|s| &s.image)) {
            match name {
                ImageName::Project(address) => images.push(address.clone()),
                ImageName::Reference(reference) => references.push(reference.to_string()),
            }
        }
        let mut semantics = vec![("test", RUN_SEMANTICS)];
        semantics.extend(self.assertions.iter().map(|a| (a.kind, a.semantics)));
        semantics.sort_unstable();
        semantics.dedup();
        images.sort();
        images.dedup();
        references.sort();
        references.dedup();
        FingerprintInputs { images, references, semantics }
    }

    /// Whether its containers need a private network.
    pub(crate) fn has_network(&self) -> bool {
        self.start.is_some() || !self.services.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ctk_plan::Kind;
    use ctk_syntax::{Sources, parse_kdl};

    use super::*;

    fn image_address(name: &str) -> Address {
        Address::new(Kind::Image, name)
    }

    fn resolve(name: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<ImageName> {
        if name.contains(':') {
            return match name.parse() {
                Ok(reference) => Some(ImageName::Reference(reference)),
                Err(error) => {
                    diagnostics.push(Diagnostic::error(codes::BAD_VALUE, format!("{error}")).at(name.span, ""));
                    None
                }
            };
        }
        Some(ImageName::Project(image_address(name)))
    }

    fn decode_text(text: &str) -> Result<TestDecl, String> {
        let mut sources = Sources::new();
        let id = sources.add("containers.kdl", text);
        let nodes = parse_kdl(&sources, id).map_err(|d| d.render(&sources, false))?;
        decode_node(&Address::new(Kind::Test, "t"), &nodes[0], &resolve).map_err(|d| d.render(&sources, false))
    }

    #[test]
    fn the_language_page_decodes() {
        let decl = decode_text(
            r##"test "api" image="api" {
    service "db" image="postgres:17" {
        env POSTGRES_PASSWORD="x"
        health exec="pg_isready" every="50ms" timeout="2s" retries=3 within="30s"
    }
    start { env DATABASE_URL="postgres://db/…"; health http="/healthz" }
    http "http://image:8080/healthz" status=200 body="ok" within="10s"
    command "version" "api" "--version" { exit 0; stdout matches=#"^api \d"# }
    file "/usr/bin/api" mode="0755" owner="0:0" type="file"
    absent "/usr/bin/gcc"
    config { user "65532:65532"; exposes 8080; entrypoint "/usr/bin/api" }
    size max="80MiB"
    packages { absent "curl" }
    absent "/usr/bin/gcc"
}"##,
        )
        .unwrap();
        let names: Vec<&str> = decl.assertions.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "http http://image:8080/healthz",
                "command version",
                "file /usr/bin/api",
                "absent /usr/bin/gcc",
                "config",
                "size",
                "packages",
                "absent /usr/bin/gcc (2)"
            ]
        );
        assert_eq!(decl.services[0].image.to_string(), "docker.io/library/postgres:17");
        let health = decl.services[0].launch.health.as_ref().unwrap();
        assert_eq!((&health.probe, health.within), (&Probe::Exec(vec!["pg_isready".into()]), Duration::from_secs(30)));
        assert_eq!((health.every, health.timeout), (Duration::from_millis(50), Duration::from_secs(2)));
        let start = decl.start.as_ref().unwrap();
        assert!(matches!(&start.health.as_ref().unwrap().probe, Probe::Http(url) if url.host == "image"));
        let inputs = decl.fingerprint_inputs();
        assert_eq!(inputs.references, ["docker.io/library/postgres:17"]);
        assert_eq!(inputs.images, [image_address("api")]);
        assert!(inputs.semantics.contains(&("http", 1)));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let told = decode_text(
            r##"test "api" imag="api" {
    service "image" image="x:1" { helth tcp=1 }
    service "old" image="x:1" { ready tcp=1 }
    service "two" image="x:1" { health tcp=1 exec="true" }
    service "none" image="x:1" { health within="1s" }
    http "https://image/" status=99
    http "http://image:80/"
    http "http://bd/"
    command "version"
    command "v" "x" { exit 0; stdout matches="(" }
    file "usr/bin/api" mode="0999"
    asbent "/x"
    config
    size max="lots"
    vulnerabilities fail-on="high"
}"##,
        )
        .unwrap_err();
        for expected in [
            "`test` needs the property `image`",
            "no service can be called `image`",
            "did you mean `health`?",
            "`ready` is `health`, with the same properties",
            "`health` asks more than one thing",
            "`health` asks nothing",
            "scheme `https` is not supported",
            "must be from 100 to 599",
            "this test does not start it",
            "`bd` is no container of this test",
            "needs the program to run",
            "`(` is no regular expression",
            "path `usr/bin/api` is not absolute",
            "`0999` is no file mode",
            "did you mean `absent`?",
            "`config` asks nothing",
            "`lots` is no size",
            "`vulnerabilities` is not supported yet",
        ] {
            assert!(told.contains(expected), "no `{expected}` in:\n{told}");
        }
    }
}
