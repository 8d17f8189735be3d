//! `ctk registry`: the embedded registry, for good instead of only while an apply runs, and what its operator does.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use ctk_plan::Kind;
use ctk_registry::blobs::Bucket;
use ctk_registry::{
    Access, Database, Glob, Grant, InRepositories, Name, Retention, Rights, ServeOptions, Storage, TlsFiles,
    TokenOptions, serve,
};

use super::output;
use super::project::ProjectArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Requests under way when the server is stopped have so long to end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The embedded registry
#[derive(Args)]
pub struct Registry {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until interrupted
    Serve(Box<Serve>),
    /// Give a user of a password file a password
    User(User),
    /// Remove what nobody names: uploads, blobs, and tags that are not kept
    Gc(Gc),
    /// Look for content that is missing, damaged or unknown
    Check(Check),
    /// The keys that tokens are signed with
    Keys(Keys),
    /// Take what another registry's folder or an OCI layout holds; the registry's own folder is made if it is not there
    Import(Import),
    /// Write a repository as an OCI layout
    Export(Export),
}

/// Serve until interrupted
#[derive(Args)]
pub struct Serve {
    /// A registry of the project; not needed with --listen and --storage
    name: Option<String>,
    /// Address and port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Folder of its blobs and metadata
    #[arg(long, value_name = "FOLDER")]
    storage: Option<PathBuf>,
    /// Keep bytes in this bucket, and only the metadata in --storage; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    /// AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL say how it is reached
    #[arg(long, value_name = "s3://NAME[/PREFIX]")]
    bucket: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Answer at this address to `GET /metrics` (Prometheus), /livez and /readyz
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Write a line about each request to standard error
    #[arg(long, value_name = "FORM")]
    log: Option<LogForm>,
    /// Only for users of this file of `user:bcrypt-hash` lines
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Answer at /token with tokens signed by the keys of this folder, which gets a first one, and tell clients to ask
    /// there; servers that share the folder honour each other's tokens
    #[arg(long, value_name = "FOLDER", requires = "htpasswd", help_heading = "Tokens")]
    token_keys: Option<PathBuf>,
    /// The URL of /token that clients are told, e.g. behind a proxy [default: the host that they asked]
    #[arg(long, value_name = "URL", requires = "token_keys", help_heading = "Tokens")]
    token_realm: Option<String>,
    /// The registry's name in tokens
    #[arg(long, value_name = "NAME", requires = "token_keys", default_value = "ctk-registry", help_heading = "Tokens")]
    token_service: String,
    /// Allow this and nothing else: WHO is `anyone`, `users`, `user:NAME` or `cert:NAME`, ROLE is reader, creator,
    /// writer or admin, e.g. `user:ci=writer@team/**`; may be repeated
    #[arg(long, value_name = "WHO=ROLE@PATTERN")]
    allow: Vec<Grant>,
    /// Tags that cannot change once they are there, e.g. `v*` or `v*@team/**`; may be repeated
    #[arg(long, value_name = "TAGS[@PATTERN]")]
    immutable: Vec<Immutable>,
    /// Most bytes in each repository that fits, e.g. `1000000000@team/**`; may be repeated
    #[arg(long, value_name = "BYTES[@PATTERN]")]
    quota: Vec<Quota>,
    /// Refuse deletions
    #[arg(long)]
    no_delete: bool,
    /// Refuse indexes that name manifests which are not there
    #[arg(long)]
    no_sparse: bool,
    /// PEM file of a certificate and its chain, for TLS; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// PEM file of authorities: a client with a certificate of theirs has its common and alternative names
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    client_ca: Option<PathBuf>,
    /// Write a line of JSON about each change and each refusal to this file
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    #[command(flatten)]
    keep: Keep,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Where the metadata is, if not in a file of the folder.
#[derive(Args)]
pub struct DatabaseArgs {
    /// Keep the metadata in this PostgreSQL database, which several servers may share; its password comes from
    /// --database-password-file or CTK_DATABASE_PASSWORD
    #[arg(long, value_name = "postgres://USER@HOST/NAME")]
    database: Option<String>,
    /// A file whose first line is the database's password
    #[arg(long, value_name = "FILE", requires = "database")]
    database_password_file: Option<PathBuf>,
    /// PEM file of authorities that may sign the database's certificate; then TLS is required
    #[arg(long, value_name = "FILE", requires = "database")]
    database_ca: Option<PathBuf>,
}

/// Where a registry is.
#[derive(Args)]
pub struct PlaceArgs {
    /// The registry's folder; servers may run meanwhile
    #[arg(long, value_name = "FOLDER")]
    storage: PathBuf,
    /// The bucket that its bytes are in
    #[arg(long, value_name = "s3://NAME[/PREFIX]")]
    bucket: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl PlaceArgs {
    /// Its storage, made if it is not there.
    fn open(&self, context: &Context) -> Result<Storage, Failure> {
        let bucket = self.bucket.as_deref().map(|text| bucket(context, text)).transpose()?;
        Ok(match (self.database.read(context)?, bucket) {
            (Some(database), bucket) => Storage::open_database(&self.storage, &database, bucket.as_ref())?,
            (None, Some(bucket)) => Storage::open_bucket(&self.storage, &bucket)?,
            (None, None) => Storage::open(&self.storage)?,
        })
    }

    /// The storage of a folder that is one already: a mistyped name makes none.
    fn existing(&self, context: &Context) -> Result<Storage, Failure> {
        if self.database.database.is_none() && !self.storage.join("registry.db").is_file() {
            let message = format!("`{}` is no registry's folder", self.storage.display());
            return Err(Failure::sentence(message, Some("name the folder that is served, which holds `registry.db`")));
        }
        self.open(context)
    }
}

impl DatabaseArgs {
    fn read(&self, context: &Context) -> Result<Option<Database>, Failure> {
        let Some(url) = &self.database else { return Ok(None) };
        let password = match &self.database_password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let message = format!("cannot read the password file `{}`: {error}", path.display());
                    Failure::sentence(message, None)
                })?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            None => context.environment().get("CTK_DATABASE_PASSWORD"),
        };
        Ok(Some(Database::parse(url, password.as_deref(), self.database_ca.clone())?))
    }
}

/// How a log is written.
#[derive(Clone, Copy, clap::ValueEnum)]
enum LogForm {
    /// For people
    Text,
    /// A JSON object a line
    Json,
}

impl LogForm {
    fn log(self) -> ctk_registry::Log {
        use std::io::Write;
        ctk_registry::Log(std::sync::Arc::new(move |request| {
            let line = match self {
                LogForm::Text => request.to_string(),
                LogForm::Json => serde_json::to_string(request).unwrap_or_default(),
            };
            // Who reads no log gets none.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }))
    }
}

/// What is kept; without any of these, everything.
#[derive(Args, Clone)]
pub struct Keep {
    /// In these repositories only [default: all]
    #[arg(long, value_name = "PATTERN", help_heading = "Retention")]
    keep_in: Option<Glob>,
    /// Keep the newest tags of each repository
    #[arg(long, value_name = "NUMBER", help_heading = "Retention")]
    keep_newest: Option<usize>,
    /// Keep tags pushed within so many days
    #[arg(long, value_name = "DAYS", help_heading = "Retention")]
    keep_pushed: Option<u32>,
    /// Keep tags pulled within so many days
    #[arg(long, value_name = "DAYS", help_heading = "Retention")]
    keep_pulled: Option<u32>,
    /// Keep tags of such names; may be repeated
    #[arg(long, value_name = "TAGS", help_heading = "Retention")]
    keep_tags: Vec<Glob>,
    /// Remove manifests that no tag, index or subject leads to after so many days
    #[arg(long, value_name = "DAYS", help_heading = "Retention")]
    untagged_after: Option<u32>,
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

impl Keep {
    fn rule(&self) -> Option<InRepositories<Retention>> {
        let days = |days: Option<u32>| days.map(|days| u64::from(days) * DAY_SECONDS);
        let value = Retention {
            newest: self.keep_newest,
            pushed_within: days(self.keep_pushed),
            pulled_within: days(self.keep_pulled),
            patterns: self.keep_tags.clone(),
            untagged_after: days(self.untagged_after),
        };
        let repositories = self.keep_in.clone().unwrap_or_else(everywhere);
        (value != Retention::default()).then_some(InRepositories { repositories, value })
    }
}

fn everywhere() -> Glob {
    "**".parse().expect("a pattern")
}

/// `VALUE[@PATTERN]`.
fn within<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<InRepositories<T>, String> {
    let (value, repositories) = match text.split_once('@') {
        Some((value, pattern)) => (value, pattern.parse::<Glob>().map_err(|error| error.to_string())?),
        None => (text, everywhere()),
    };
    Ok(InRepositories { repositories, value: read(value)? })
}

#[derive(Clone)]
struct Immutable(InRepositories<Glob>);

impl FromStr for Immutable {
    type Err = String;

    fn from_str(text: &str) -> Result<Immutable, String> {
        within(text, |tags| tags.parse::<Glob>().map_err(|error| error.to_string())).map(Immutable)
    }
}

#[derive(Clone)]
struct Quota(InRepositories<u64>);

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Quota, String> {
        within(text, |bytes| bytes.parse().map_err(|_| format!("`{bytes}` is no number of bytes"))).map(Quota)
    }
}

/// Give a user of a password file a password
#[derive(Args)]
pub struct User {
    /// The user; made if there is none of this name
    name: String,
    /// The file, for `serve --htpasswd`; made if it does not exist. A running server reads it again
    #[arg(long, value_name = "FILE")]
    htpasswd: PathBuf,
    /// Read the password from standard input
    #[arg(long, required = true)]
    password_stdin: bool,
}

/// Remove what nobody names: uploads, blobs, and tags that are not kept
#[derive(Args)]
pub struct Gc {
    #[command(flatten)]
    place: PlaceArgs,
    /// Only tell which tags and manifests would go
    #[arg(long)]
    dry_run: bool,
    /// Uploads and blobs that nobody named or touched go after so many hours [default: 24]
    #[arg(long, value_name = "HOURS")]
    older_than: Option<u32>,
    #[command(flatten)]
    keep: Keep,
}

/// Look for content that is missing, damaged or unknown
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    place: PlaceArgs,
    /// Look at names and sizes only; do not read the bytes
    #[arg(long)]
    quick: bool,
}

/// Take what another registry's folder or an OCI layout holds; the registry's own folder is made if it is not there
#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    place: PlaceArgs,
    /// The storage folder of a distribution registry (docker-registry), with all its repositories
    #[arg(long, value_name = "FOLDER", required_unless_present = "from_layout")]
    from_distribution: Option<PathBuf>,
    /// An OCI layout, into the repository of --to
    #[arg(long, value_name = "FOLDER", conflicts_with = "from_distribution", requires = "to")]
    from_layout: Option<PathBuf>,
    /// The repository of a layout's images
    #[arg(long, value_name = "REPOSITORY")]
    to: Option<String>,
}

impl Import {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let storage = self.place.open(context)?;
        let done = match (self.from_distribution, self.from_layout) {
            (Some(folder), _) => storage.import_distribution(&folder)?,
            (None, layout) => {
                storage.import_layout(self.to.as_deref().unwrap_or_default(), &layout.unwrap_or_default())?
            }
        };
        for text in &done.refused {
            output(&format!("refused: {text}\n"))?;
        }
        output(&format!(
            "imported: {} repositories, {} blobs, {} manifests, {} tags; {} refused\n",
            done.repositories,
            done.blobs,
            done.manifests,
            done.tags,
            done.refused.len()
        ))?;
        if done.refused.is_empty() { Ok(()) } else { Err(Failure::Exit(crate::failure::code::FAILURE)) }
    }
}

/// Write a repository as an OCI layout
#[derive(Args)]
pub struct Export {
    /// The repository, with all its tags, or one of them
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: String,
    /// The folder of the layout: empty, or not there
    folder: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
}

impl Export {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let storage = self.place.existing(context)?;
        let (repository, tag) = match self.name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (self.name.as_str(), None),
        };
        let manifests = storage.export_layout(repository, tag, &self.folder)?;
        output(&format!("exported: {manifests} manifests to {}\n", self.folder.display()))
    }
}

/// The keys that tokens are signed with
#[derive(Args)]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List the keys, the oldest first, and which of them signs
    #[command(visible_alias = "ls")]
    List(KeyFolder),
    /// Make a key; servers of the folder sign with it some seconds later, and go on to honour the others
    New(KeyFolder),
    /// Remove a key: tokens that it signed are refused from now on
    Retire {
        /// Its name, from `list`
        key: String,
        #[command(flatten)]
        folder: KeyFolder,
    },
}

#[derive(Args)]
pub struct KeyFolder {
    /// The folder, as in `serve --token-keys`
    #[arg(long, value_name = "FOLDER")]
    keys: PathBuf,
}

impl Keys {
    fn run(self) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        match self.command {
            KeysCommand::List(KeyFolder { keys }) => {
                for key in ctk_registry::signing_keys(&keys, now)? {
                    let made = jiff::Timestamp::from_second(key.created as i64).unwrap_or_default();
                    output(&format!("{}  {made}  {}\n", key.kid, if key.signs { "signs" } else { "verifies" }))?;
                }
                Ok(())
            }
            KeysCommand::New(KeyFolder { keys }) => output(&format!("{}\n", ctk_registry::new_key(&keys, now)?)),
            KeysCommand::Retire { key, folder } => {
                ctk_registry::retire_key(&folder.keys, &key)?;
                output(&format!("{key} is retired\n"))
            }
        }
    }
}

impl Registry {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::Serve(command) => command.run(context),
            Command::User(command) => command.run(),
            Command::Gc(command) => command.run(context),
            Command::Check(command) => command.run(context),
            Command::Keys(command) => command.run(),
            Command::Import(command) => command.run(context),
            Command::Export(command) => command.run(context),
        }
    }
}

/// A bucket by its name; the rest from the environment.
fn bucket(context: &Context, text: &str) -> Result<Bucket, Failure> {
    let (name, prefix) =
        text.strip_prefix("s3://").map_or((text, ""), |rest| rest.split_once('/').unwrap_or((rest, "")));
    if !text.starts_with("s3://") || name.is_empty() {
        return Err(Failure::sentence(
            format!("`{text}` is no bucket"),
            Some("expected s3://NAME or s3://NAME/PREFIX"),
        ));
    }
    let given = |name: &str| context.environment().get(name);
    let first = |names: &[&str]| names.iter().find_map(|name| given(name));
    Ok(Bucket {
        name: name.into(),
        prefix: prefix.into(),
        region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| "us-east-1".into()),
        endpoint: first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        key: given("AWS_ACCESS_KEY_ID").zip(given("AWS_SECRET_ACCESS_KEY")),
        token: given("AWS_SESSION_TOKEN"),
    })
}

impl User {
    fn run(self) -> Result<(), Failure> {
        let mut text = String::new();
        std::io::stdin().lock().take(4096).read_to_string(&mut text)?;
        ctk_registry::add_password(&self.htpasswd, &self.name, text.trim_end_matches(['\r', '\n']))?;
        output(&format!("{} has a new password in {}\n", self.name, self.htpasswd.display()))
    }
}

impl Gc {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let storage = self.place.existing(context)?;
        let now = SystemTime::now();
        if let Some(rule) = self.keep.rule() {
            let which = |name: &str| rule.repositories.matches(name).then(|| rule.value.clone());
            for (repository, name) in storage.retain(now, &which, self.dry_run)? {
                output(&match name {
                    Name::Tag(tag) => format!("{repository}:{tag}\n"),
                    Name::Digest(digest) => format!("{repository}@{digest}\n"),
                })?;
            }
        }
        if self.dry_run {
            return Ok(());
        }
        let life = Duration::from_secs(u64::from(self.older_than.unwrap_or(24)) * 60 * 60);
        let done = storage.sweep(now, life, life)?;
        output(&format!(
            "removed: {} uploads, {} blobs of repositories, {} files\n",
            done.uploads, done.blobs, done.places
        ))
    }
}

impl Check {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let checked = self.place.existing(context)?.check(!self.quick)?;
        for fault in &checked.faults {
            output(&format!("{fault}\n"))?;
        }
        output(&format!("{} blobs, {} bytes, {} faults\n", checked.blobs, checked.bytes, checked.faults.len()))?;
        if checked.faults.is_empty() { Ok(()) } else { Err(Failure::Exit(crate::failure::code::FAILURE)) }
    }
}

impl Serve {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let command = self;
        let mut options = match (command.listen, &command.storage) {
            (Some(listen), Some(storage)) if command.name.is_none() => ServeOptions::new(listen, storage),
            (listen, storage) => {
                let session = command.project.open(context)?;
                let names: Vec<String> = command.name.clone().into_iter().collect();
                let chosen = context.explain(session.select_kind(Kind::Registry, &names))?;
                let mut registries = session.registries().filter(|(address, _)| chosen.contains(*address));
                let (Some((_, declared)), None) = (registries.next(), registries.next()) else {
                    let hint = "name one registry of the project, or give --listen and --storage";
                    return Err(Failure::sentence("it is not clear which registry to serve", Some(hint)));
                };
                let mut options = declared.serve_options();
                options.listen = listen.unwrap_or(options.listen);
                options.storage = storage.clone().unwrap_or(options.storage);
                options
            }
        };
        if let Some(file) = command.htpasswd {
            options.access = Access::Htpasswd(file);
        }
        options.client_authorities = command.client_ca;
        options.tokens = command.token_keys.map(|keys| TokenOptions {
            keys,
            realm: command.token_realm,
            service: command.token_service,
        });
        if !command.allow.is_empty() {
            options.rights = Some(Rights { grants: command.allow });
        }
        options.immutable = command.immutable.into_iter().map(|rule| rule.0).collect();
        options.quotas = command.quota.into_iter().map(|rule| rule.0).collect();
        options.retention = command.keep.rule().into_iter().collect();
        options.delete = options.delete && !command.no_delete;
        options.sparse = !command.no_sparse;
        if let (Some(certificate), Some(key)) = (command.tls_certificate, command.tls_key) {
            options.tls = Some(TlsFiles { certificate, key });
        }
        options.audit = command.audit_log;
        options.metrics = command.metrics;
        options.log = command.log.map(LogForm::log);
        options.database = command.database.read(context)?;
        options.bucket = command.bucket.as_deref().map(|text| bucket(context, text)).transpose()?;
        let cancel = context.cancel_on_interrupt();
        let server = serve(options)?;
        output(&format!("serving on {}\n", server.local_addr()))?;
        if let Some(address) = server.metrics_addr() {
            output(&format!("metrics on {address}\n"))?;
        }
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
        server.shutdown(STOP_GRACE);
        Ok(())
    }
}
