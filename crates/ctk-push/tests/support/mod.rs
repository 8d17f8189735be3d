//! Helpers of the tests: an image in a store, a project as text, the three phases.
#![allow(dead_code)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ctk_client::{Client, ClientOptions, Retry};
use ctk_layer::{Compression, Entry, EntryKind, LayerWriter, TarWriter};
use ctk_oci::{ContainerConfig, Descriptor, Document, ImageConfig, Index, Manifest, Platform, RootFs, media_type};
use ctk_plan::{Address, Cancel, Kind, Reporter, Silent};
use ctk_project::{Inputs, MemoryFiles, Project, no_git, parse};
use ctk_push::{LocalRegistry, Published, PushDecl, PushError, PushRequest, Reach};
use ctk_store::Store;
use ctk_syntax::Sources;

/// Whether a peer is installed; a test that needs it is skipped without, or fails where everything is required.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs {program}");
        println!("skipped: needs {program}");
    }
    found
}

/// Standard output of a program that must succeed.
pub fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{program} {args:?}: {stdout}{stderr}");
    stdout.into_owned()
}

pub fn project(text: &str) -> (Sources, Project) {
    let mut sources = Sources::new();
    let inputs = Inputs { vars: Default::default(), env: &|_| None, git: &no_git, default_name: "p".into() };
    let (project, diagnostics) = parse(&mut sources, "containers.kdl", text, &MemoryFiles::default(), &inputs);
    assert!(!diagnostics.has_errors(), "{}", diagnostics.render(&sources, false));
    (sources, project)
}

/// The one push of a project, or what is wrong with it.
pub fn decode(text: &str) -> Result<PushDecl, String> {
    let (sources, project) = project(text);
    let push = project.of_kind(Kind::Push).next().expect("a push");
    ctk_push::decode(&project, push).map_err(|d| d.render(&sources, false))
}

/// The push of `image "app"` with these nodes inside.
pub fn push_of(inside: &str) -> PushDecl {
    decode(&format!(
        "project \"p\"\nimage \"app\" {{\n from \"scratch\"\n}}\npush \"app\" image=\"app\" {{\n{inside}\n}}\n"
    ))
    .unwrap_or_else(|d| panic!("{d}"))
}

pub struct Bench {
    pub home: tempfile::TempDir,
    pub store: Store,
    pub client: Client,
    pub cancel: Cancel,
    pub platform: Platform,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(ClientOptions::default())
    }

    pub fn with(mut options: ClientOptions) -> Bench {
        let brief = std::time::Duration::from_millis(10);
        options.retry = Retry { attempts: 2, first_delay: brief, longest_delay: brief };
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        std::fs::create_dir(home.path().join("project")).unwrap();
        Bench { store, client: Client::new(options), cancel: Cancel::new(), platform: Platform::host(), home }
    }

    /// The folder of the project.
    pub fn folder(&self) -> std::path::PathBuf {
        self.home.path().join("project")
    }

    pub fn path(&self, name: &str) -> String {
        self.folder().join(name).to_string_lossy().into_owned()
    }

    pub fn reach<'a>(&'a self, local: &'a [&'a dyn LocalRegistry], folder: &'a Path) -> Reach<'a> {
        Reach { client: &self.client, local, project: folder, platform: &self.platform, cancel: &self.cancel }
    }

    /// An image with one file of that content.
    pub fn image(&self, content: &str) -> Descriptor {
        self.image_for(content, &self.platform)
    }

    pub fn image_for(&self, content: &str, platform: &Platform) -> Descriptor {
        let ingest = self.store.ingest(None).unwrap();
        let mut tar = TarWriter::new(LayerWriter::new(ingest, Compression::GZIP, 1).unwrap());
        let kind = EntryKind::File { size: content.len() as u64 };
        tar.append(&Entry::new("hello", kind, 0o644), content.as_bytes()).unwrap();
        let (ingest, summary) = tar.finish().unwrap().finish().unwrap();
        ingest.commit().unwrap();
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            config: ContainerConfig { cmd: Some(vec!["/hello".into()]), ..ContainerConfig::default() },
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![summary.diff_id.clone()] },
            ..ImageConfig::default()
        };
        let config = self.store.put(media_type::CONFIG, Document::new(config).bytes()).unwrap();
        let manifest = Manifest::image(config, vec![summary.descriptor()]);
        self.store.put(media_type::MANIFEST, Document::new(manifest).bytes()).unwrap()
    }

    /// An index for two platforms.
    pub fn index(&self, content: &str) -> Descriptor {
        let members = ["linux/amd64", "linux/arm64"].map(|platform| {
            let platform: Platform = platform.parse().unwrap();
            let mut member = self.image_for(&format!("{content} {platform}"), &platform);
            member.platform = Some(platform);
            member
        });
        self.store.put(media_type::INDEX, Document::new(Index::new(members.to_vec())).bytes()).unwrap()
    }

    /// Uploads and publishes.
    pub fn push(&self, decl: &PushDecl, image: &Descriptor) -> Result<Vec<Published>, PushError> {
        let folder = self.folder();
        let reach = self.reach(&[], &folder);
        let reporter = Reporter::new(Address::new(Kind::Push, "app"), Arc::new(Silent));
        let request = PushRequest { decl, image, store: &self.store, reach: &reach, reporter: &reporter };
        let staged = ctk_push::upload(&request)?;
        ctk_push::publish(staged, &self.store, &reach, &reporter)
    }

    /// What observing finds, as text: digests, `absent`, or why not.
    pub fn observe(&self, decl: &PushDecl) -> Vec<String> {
        let folder = self.folder();
        let observed = ctk_push::observe(decl, &self.reach(&[], &folder));
        observed
            .into_iter()
            .map(|o| match o.found {
                ctk_push::Found::Digest { digest } => digest.to_string(),
                ctk_push::Found::Absent => "absent".into(),
                ctk_push::Found::Unreachable { reason } => format!("unreachable: {reason}"),
            })
            .collect()
    }

    /// What observing should find once `image` is pushed.
    pub fn wanted(&self, decl: &PushDecl, image: &Descriptor) -> Option<Vec<String>> {
        let folder = self.folder();
        let wanted = decl.wanted(&self.store, image, &self.reach(&[], &folder)).unwrap()?;
        Some(wanted.iter().map(ToString::to_string).collect())
    }
}
