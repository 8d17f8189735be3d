//! Images made of busybox and a few files, and the running of a test written as text.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ctk_check::{CheckError, ImageName, Report, ServiceImage, TestDecl, TestRequest};
use ctk_layer::{Compression, Entry, EntryKind, LayerWriter, TarWriter};
use ctk_oci::{ContainerConfig, Descriptor, Document, ImageConfig, Manifest, Platform, Reference, RootFs, media_type};
use ctk_plan::{Address, Cancel, Event, Kind, Reporter, Sink};
use ctk_snapshot::Snapshots;
use ctk_store::{Depth, Fetch, FetchError, Store};
use ctk_syntax::{Sources, parse_kdl};

const BUSYBOX: &str = "/usr/bin/busybox";

/// `true` when containers can be started here; else the test is skipped, or fails where everything is required.
pub fn able() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if !Path::new(BUSYBOX).exists() {
        "busybox-static"
    } else {
        return true;
    };
    if std::env::var_os("CTK_TEST_REQUIRE").is_some() {
        panic!("needs {missing}");
    }
    println!("skipped: needs {missing}");
    false
}

/// A store with a home of its own.
pub struct Bench {
    pub store: Store,
    pub snapshots: Snapshots,
    pub home: tempfile::TempDir,
    pub events: Arc<Events>,
    pub cancel: Cancel,
}

/// Everything that was told.
#[derive(Default)]
pub struct Events(pub Mutex<Vec<Event>>);

impl Sink for Events {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// Nothing can be fetched.
pub struct NoFetch;

impl Fetch for NoFetch {
    fn resolve(&self, reference: &Reference, _cancel: &Cancel) -> Result<Descriptor, FetchError> {
        Err(FetchError::NotFound { reference: reference.clone() })
    }

    fn fetch(
        &self,
        reference: &Reference,
        _platform: Option<&Platform>,
        _depth: Depth,
        _into: &Store,
        _reporter: &Reporter,
        _cancel: &Cancel,
    ) -> Result<Descriptor, FetchError> {
        Err(FetchError::NotFound { reference: reference.clone() })
    }
}

impl Bench {
    pub fn new() -> Bench {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let snapshots = Snapshots::open(&store);
        Bench { store, snapshots, home, events: Arc::default(), cancel: Cancel::new() }
    }

    /// An image of busybox (with links for its commonest applets) and `files`, in two layers.
    pub fn image(&self, files: &[(&str, u32, (u32, u32), &str)], config: ContainerConfig) -> Descriptor {
        let mut base: Vec<(Entry, Vec<u8>)> = Vec::new();
        for directory in ["bin", "etc", "tmp", "srv", "srv/www", "var", "var/lib", "var/lib/dpkg"] {
            let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
            base.push((Entry::new(directory, EntryKind::Directory, mode), Vec::new()));
        }
        let busybox = std::fs::read(BUSYBOX).unwrap();
        let size = busybox.len() as u64;
        base.push((Entry::new("bin/busybox", EntryKind::File { size }, 0o755), busybox));
        for applet in ["sh", "cat", "echo", "env", "httpd", "id", "ls", "nc", "pwd", "sleep", "true", "wget", "touch"] {
            let kind = EntryKind::Symlink { target: b"busybox".to_vec() };
            base.push((Entry::new(format!("bin/{applet}"), kind, 0o777), Vec::new()));
        }
        let text = |path: &str, mode, owner: (u32, u32), content: &str| {
            let kind = EntryKind::File { size: content.len() as u64 };
            let mut entry = Entry::new(path, kind, mode);
            (entry.uid, entry.gid) = owner;
            (entry, content.as_bytes().to_vec())
        };
        base.push(text("etc/passwd", 0o644, (0, 0), "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/srv/www:/bin/sh\n"));
        base.push(text("etc/group", 0o644, (0, 0), "root:x:0:\nwww-data:x:33:\n"));
        let top = files.iter().map(|(path, mode, owner, content)| text(path, *mode, *owner, content)).collect();
        let layers = [self.layer(base), self.layer(top)];
        let platform = Platform::host();
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            config,
            rootfs: RootFs { kind: "layers".into(), diff_ids: layers.iter().map(|(_, id)| id.clone()).collect() },
            ..ImageConfig::default()
        };
        let config = self.store.put(media_type::CONFIG, Document::new(config).bytes()).unwrap();
        let manifest = Manifest::image(config, layers.into_iter().map(|(layer, _)| layer).collect());
        self.store.put(media_type::MANIFEST, Document::new(manifest).bytes()).unwrap()
    }

    fn layer(&self, entries: Vec<(Entry, Vec<u8>)>) -> (Descriptor, ctk_oci::DiffId) {
        let ingest = self.store.ingest(None).unwrap();
        let mut tar = TarWriter::new(LayerWriter::new(ingest, Compression::GZIP, 1).unwrap());
        for (entry, content) in entries {
            tar.append(&entry, content.as_slice()).unwrap();
        }
        let (ingest, summary) = tar.finish().unwrap().finish().unwrap();
        ingest.commit().unwrap();
        (summary.descriptor(), summary.diff_id)
    }

    /// Decodes the test; every image that it names is a project image of that name.
    pub fn decode(&self, text: &str) -> TestDecl {
        let mut sources = Sources::new();
        let id = sources.add("containers.kdl", text);
        let nodes = parse_kdl(&sources, id).unwrap_or_else(|d| panic!("{}", d.render(&sources, false)));
        let resolve = |name: &ctk_syntax::Spanned<String>, _: &mut ctk_syntax::Diagnostics| {
            Some(ImageName::Project(Address::new(Kind::Image, name.value.clone())))
        };
        let decl = ctk_check::decode_node(&Address::new(Kind::Test, "t"), &nodes[0], &resolve);
        decl.unwrap_or_else(|d| panic!("{}", d.render(&sources, false)))
    }

    /// Runs the test in `text` against `image`; all services run `service`.
    pub fn run_with(&self, text: &str, image: &Descriptor, service: &Descriptor) -> Result<Report, CheckError> {
        self.run_fetching(text, image, &ServiceImage::Stored(service.clone()), &NoFetch)
    }

    /// The same; `fetch` brings the service's image.
    pub fn run_fetching(
        &self,
        text: &str,
        image: &Descriptor,
        service: &ServiceImage,
        fetch: &dyn Fetch,
    ) -> Result<Report, CheckError> {
        let decl = self.decode(text);
        let services: BTreeMap<String, ServiceImage> =
            decl.services.iter().map(|s| (s.name.clone(), service.clone())).collect();
        let reporter = Reporter::new(decl.address.clone(), self.events.clone());
        let report = ctk_check::run(&TestRequest {
            decl: &decl,
            image,
            services: &services,
            platform: &Platform::host(),
            store: &self.store,
            snapshots: &self.snapshots,
            fetch,
            state_dir: &self.home.path().join("run"),
            reporter: &reporter,
            cancel: &self.cancel,
        });
        if let Ok(report) = &report {
            println!("{}\n{}", report.summary(), report.failures());
        }
        report
    }

    /// Runs the test in `text` against `image`.
    pub fn run(&self, text: &str, image: &Descriptor) -> Report {
        self.run_with(text, image, image).unwrap()
    }
}

/// A server of `/srv/www` on port 8080.
pub fn web() -> ContainerConfig {
    let mut config = ContainerConfig {
        user: "www-data".into(),
        entrypoint: Some(vec!["/bin/httpd".into(), "-f".into(), "-v".into()]),
        cmd: Some(vec!["-p".into(), "8080".into(), "-h".into(), "/srv/www".into()]),
        working_dir: "/srv/www".into(),
        ..ContainerConfig::default()
    };
    config.exposed_ports.insert("8080/tcp".into(), Default::default());
    config.set_env("PATH", "/bin");
    config
}
