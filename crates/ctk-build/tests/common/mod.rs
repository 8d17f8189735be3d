//! A store, a project folder and a build in one line. The only base is `busybox`, made from the host's static binary.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ctk_build::{
    BuildError, BuildRequest, Built, ImageDecl, LockView, SecretSource, Secrets, StatIndex, World, build, decode,
};
use ctk_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference};
use ctk_packages::{HostSources, Locked, PackagesError};
use ctk_plan::{Address, Cancel, Event, Kind, Reporter, Sink};
use ctk_snapshot::{LayerKey, Snapshots, TreeView};
use ctk_store::{Depth, Fetch, FetchError, Ref, Store};
use ctk_syntax::Sources;

/// Whether this machine can run containers; says so if not.
pub fn can_run() -> bool {
    let able = rustix::process::geteuid().is_root() && Path::new("/usr/bin/busybox").exists();
    if !able {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs root and /usr/bin/busybox");
        println!("skipped: needs root and /usr/bin/busybox");
    }
    able
}

/// Names by the store's own refs: what `ctk load` brought.
pub struct StoreFetch(pub Store);

impl Fetch for StoreFetch {
    fn resolve(&self, reference: &Reference, _: &Cancel) -> Result<Descriptor, FetchError> {
        let found = self.0.reference(&reference.to_string()).ok().flatten();
        found.map(|r| r.descriptor).ok_or_else(|| FetchError::NotFound { reference: reference.clone() })
    }

    fn fetch(
        &self,
        reference: &Reference,
        _: Option<&Platform>,
        _: Depth,
        _: &Store,
        _: &Reporter,
        _: &Cancel,
    ) -> Result<Descriptor, FetchError> {
        Err(FetchError::NotFound { reference: reference.clone() })
    }
}

#[derive(Default)]
pub struct MemoryLock(pub Mutex<BTreeMap<String, String>>);

impl LockView for MemoryLock {
    fn image(&self, reference: &Reference, platform: &Platform) -> Option<Digest> {
        self.0.lock().unwrap().get(&format!("image {reference} {platform}")).map(|d| d.parse().unwrap())
    }

    fn set_image(&self, reference: &Reference, platform: &Platform, digest: &Digest) -> Result<(), String> {
        self.0.lock().unwrap().insert(format!("image {reference} {platform}"), digest.to_string());
        Ok(())
    }

    fn packages(&self, image: &Address, stage: &str, platform: &Platform) -> Option<Locked> {
        let lock = self.0.lock().unwrap();
        lock.get(&format!("packages {image}/{stage} {platform}")).map(|l| serde_json::from_str(l).unwrap())
    }

    fn set_packages(&self, image: &Address, stage: &str, platform: &Platform, locked: &Locked) -> Result<(), String> {
        let text = serde_json::to_string(locked).unwrap();
        self.0.lock().unwrap().insert(format!("packages {image}/{stage} {platform}"), text);
        Ok(())
    }

    fn git(&self, url: &str, reference: &str) -> Option<String> {
        self.0.lock().unwrap().get(&format!("git {url} {reference}")).cloned()
    }

    fn set_git(&self, url: &str, reference: &str, commit: &str) -> Result<(), String> {
        self.0.lock().unwrap().insert(format!("git {url} {reference}"), commit.to_owned());
        Ok(())
    }

    fn http(&self, url: &str) -> Option<Digest> {
        self.0.lock().unwrap().get(&format!("http {url}")).map(|d| d.parse().unwrap())
    }

    fn set_http(&self, url: &str, digest: &Digest) -> Result<(), String> {
        self.0.lock().unwrap().insert(format!("http {url}"), digest.to_string());
        Ok(())
    }
}

pub struct GivenSecrets(pub BTreeMap<String, String>);

impl Secrets for GivenSecrets {
    fn secret(&self, id: &str, _: Option<&SecretSource>) -> Option<Vec<u8>> {
        self.0.get(id).map(|s| s.clone().into_bytes())
    }
}

/// Keeps what is told.
#[derive(Default)]
pub struct Story(pub Mutex<Vec<Event>>);

impl Sink for Story {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub snapshots: Snapshots,
    pub lock: MemoryLock,
    pub secrets: GivenSecrets,
    pub environment: BTreeMap<String, String>,
    pub story: Arc<Story>,
    pub cancel: Cancel,
    pub images: BTreeMap<ctk_buildgraph::BaseName, Descriptor>,
    pub args: BTreeMap<String, String>,
    pub no_cache: bool,
    pub no_cache_stages: Vec<String>,
    pub settings: ctk_build::RunSettings,
    pub now_seconds: i64,
    pub jobs: usize,
    pub epoch_seconds: Option<i64>,
    pub index: StatIndex,
    pub sources: Sources,
    pub explained: ctk_build::Explanations,
}

impl Bench {
    /// A fresh store, without any base.
    pub fn bare() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        std::fs::create_dir(folder.path().join("project")).unwrap();
        let now_seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        Bench {
            snapshots: Snapshots::open(&store),
            store,
            lock: MemoryLock::default(),
            secrets: GivenSecrets(BTreeMap::new()),
            environment: std::env::vars().filter(|(name, _)| name == "PATH").collect(),
            story: Arc::default(),
            cancel: Cancel::new(),
            images: BTreeMap::new(),
            args: BTreeMap::new(),
            no_cache: false,
            no_cache_stages: Vec::new(),
            settings: ctk_build::RunSettings::default(),
            now_seconds,
            jobs: 2,
            epoch_seconds: None,
            index: StatIndex::in_memory(),
            sources: Sources::new(),
            explained: ctk_build::Explanations::default(),
            folder,
        }
    }

    /// With `busybox`: all its applets in /bin.
    pub fn new() -> Bench {
        let bench = Bench::bare();
        std::fs::create_dir(bench.folder.path().join("busybox")).unwrap();
        std::fs::copy("/usr/bin/busybox", bench.folder.path().join("busybox/busybox")).unwrap();
        let text = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
            RUN mkdir -p /etc /tmp && chmod 1777 /tmp && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd && echo app:x:1000:1001::/:/bin/sh >> /etc/passwd && \
            echo app:x:1001: > /etc/group\nENV BASE=busybox\n";
        std::fs::write(bench.folder.path().join("busybox/Dockerfile"), text).unwrap();
        let decl = ImageDecl::dockerfile(Address::new(Kind::Image, "busybox"), "../busybox/Dockerfile", "../busybox");
        let built = bench.run(&decl).unwrap_or_else(|e| panic!("base: {}", chain(&e)));
        let name = "docker.io/library/busybox:latest";
        bench.store.set_reference(name, &Ref::new(built.descriptor)).unwrap();
        bench.story.0.lock().unwrap().clear();
        bench
    }

    pub fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// Writes a file of the project, with its folders.
    pub fn write(&self, path: &str, text: &str) -> &Bench {
        let path = self.project().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn run(&self, decl: &ImageDecl) -> Result<Built, BuildError> {
        self.with(decl, build)
    }

    /// Asks something of a build's request.
    pub fn with<T>(&self, decl: &ImageDecl, work: impl FnOnce(&BuildRequest<'_>) -> T) -> T {
        let fetch = StoreFetch(self.store.clone());
        let host = || {
            HostSources::read(Path::new("/etc/apt"), Path::new("/usr/share/keyrings"))
                as Result<HostSources, PackagesError>
        };
        let reporter = Reporter::new(decl.address.clone(), self.story.clone());
        let http = ctk_http::Options::default();
        let project = self.project();
        work(&BuildRequest {
            decl,
            world: World {
                project_directory: &project,
                sources: &self.sources,
                lock: &self.lock,
                store: &self.store,
                snapshots: &self.snapshots,
                index: &self.index,
                fetch: &fetch,
                host_packages: &host,
                reporter: &reporter,
                cancel: &self.cancel,
                now_seconds: self.now_seconds,
                http: &http,
                secrets: &self.secrets,
                environment: &self.environment,
            },
            platforms: &decl.platforms,
            images: &self.images,
            args: &self.args,
            target: None,
            slots: &ctk_build::Slots::new(self.jobs),
            no_cache: self.no_cache,
            apart: false,
            no_cache_stages: &self.no_cache_stages,
            caches: None,
            run: &self.settings,
            labels: &BTreeMap::new(),
            epoch_seconds: self.epoch_seconds,
            state_directory: self.folder.path().join("run"),
            debugger: None,
            explain: Some(&self.explained),
        })
    }

    /// What [`ctk_build::observe`] sees.
    pub fn observe(&self, decl: &ImageDecl) -> Result<ctk_build::Observed, BuildError> {
        let fetch = StoreFetch(self.store.clone());
        let host = || Ok(HostSources::default());
        let reporter = Reporter::new(decl.address.clone(), self.story.clone());
        let http = ctk_http::Options::default();
        let project = self.project();
        let world = World {
            project_directory: &project,
            sources: &self.sources,
            lock: &self.lock,
            store: &self.store,
            snapshots: &self.snapshots,
            index: &self.index,
            fetch: &fetch,
            host_packages: &host,
            reporter: &reporter,
            cancel: &self.cancel,
            now_seconds: self.now_seconds,
            http: &http,
            secrets: &self.secrets,
            environment: &self.environment,
        };
        ctk_build::observe(decl, &world, &self.args)
    }

    pub fn decl(&self) -> ImageDecl {
        ImageDecl::dockerfile(Address::new(Kind::Image, "test"), "Dockerfile", ".")
    }

    pub fn dockerfile(&self, text: &str) -> Result<Built, BuildError> {
        self.write("Dockerfile", text);
        self.run(&self.decl())
    }

    /// Builds, or says why not.
    pub fn built(&self, text: &str) -> Built {
        self.dockerfile(text).unwrap_or_else(|e| panic!("{}\n{}", chain(&e), self.log()))
    }

    pub fn failure(&self, text: &str) -> String {
        match self.dockerfile(text) {
            Ok(_) => panic!("it was built"),
            Err(error) => chain(&error),
        }
    }

    /// Declares images natively and gives the one named `name`.
    pub fn native(&mut self, text: &str, name: &str) -> ImageDecl {
        let files = ctk_project::MemoryFiles::default();
        let inputs = ctk_project::Inputs {
            vars: BTreeMap::new(),
            env: &|_| None,
            git: &ctk_project::no_git,
            default_name: "test".into(),
        };
        let mut sources = Sources::new();
        let (project, diagnostics) = ctk_project::parse(&mut sources, "containers.kdl", text, &files, &inputs);
        assert!(!diagnostics.has_errors(), "{}", diagnostics.render(&sources, false));
        let resource = project.get(&Address::new(Kind::Image, name)).expect("declared");
        let decl = decode(resource, &project, &Platform::host());
        let decl = decl.unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
        self.sources = sources;
        decl
    }

    /// Each Dockerfile's RUN prints the expected lines, alone and in this order.
    pub fn prints(&self, table: &[(&str, &str)]) {
        for (text, expected) in table {
            self.story.0.lock().unwrap().clear();
            self.built(text);
            let log = self.log();
            let seen: Vec<&str> = log.lines().map(str::trim).collect();
            let wanted: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            assert_eq!(seen, wanted, "{text}");
        }
    }

    /// Each Dockerfile fails with all of these words, separated by `|`.
    pub fn refuses(&self, table: &[(&str, &str)]) {
        for (text, expected) in table {
            let error = self.failure(text);
            for words in expected.split('|') {
                assert!(error.contains(words), "{text}\nwithout `{words}`:\n{error}");
            }
        }
    }

    /// Every path of the image except the base's programs, a directory with a slash at its end.
    pub fn paths(&self, built: &Built) -> Vec<String> {
        fn walk(tree: &TreeView, at: &str, all: &mut Vec<String>) {
            for name in tree.list(at).unwrap() {
                let path = format!("{at}/{}", String::from_utf8(name).unwrap());
                match tree.stat_link(&path).unwrap().unwrap().kind {
                    ctk_snapshot::NodeKind::Directory if path == "/bin" => {}
                    ctk_snapshot::NodeKind::Directory => {
                        all.push(format!("{}/", &path[1..]));
                        walk(tree, &path, all);
                    }
                    _ => all.push(path[1..].to_owned()),
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.tree(built), "", &mut all);
        all
    }

    pub fn config(&self, built: &Built) -> ImageConfig {
        self.store.document("image config", &self.manifest(built).config).unwrap().into_value()
    }

    pub fn manifest(&self, built: &Built) -> Manifest {
        self.store.document("image manifest", &built.descriptor).unwrap().into_value()
    }

    pub fn tree(&self, built: &Built) -> TreeView {
        let manifest = self.manifest(built);
        let keys: Vec<LayerKey> = self.snapshots.unpack_image(&manifest, None, &Cancel::new()).unwrap();
        self.snapshots.tree(&keys).unwrap()
    }

    /// The text of a file of the image.
    pub fn text(&self, built: &Built, path: &str) -> String {
        let bytes = self.tree(built).read(path, 1 << 20).unwrap_or_else(|e| panic!("{path}: {e}"));
        String::from_utf8(bytes).unwrap()
    }

    /// Lines that commands wrote.
    pub fn log(&self) -> String {
        let story = self.story.0.lock().unwrap();
        let lines = story.iter().filter_map(|event| match event {
            Event::StepLog { line, .. } => Some(line.as_str()),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// An error with its causes, as the binary shows it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!("\n  caused by: {inner}"));
        cause = inner.source();
    }
    text
}
