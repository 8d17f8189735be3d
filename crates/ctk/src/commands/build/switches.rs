//! The command line of `ctk build` as docker, buildx and buildah have it.

use std::path::PathBuf;

use clap::Args;

use super::values;

/// What a build of a folder takes, besides what a build of the project's images takes too.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Switches {
    #[command(flatten, next_help_heading = "What is built")]
    pub what: What,
    #[command(flatten, next_help_heading = "Where it goes")]
    pub output: Outputs,
    #[command(flatten, next_help_heading = "What RUN gets")]
    pub run: RunSwitches,
    #[command(flatten, next_help_heading = "Cache")]
    pub cache: CacheSwitches,
    #[command(flatten, next_help_heading = "Without a build")]
    pub call: CallSwitches,
    #[command(flatten, next_help_heading = "Accepted for other builders' habits")]
    pub habits: Habits,
}

/// What is built.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct What {
    /// Set a build argument; a name alone takes the environment's value
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// Read build arguments from a file, one NAME=VALUE a line
    #[arg(long = "build-arg-file", value_name = "FILE")]
    pub build_arg_files: Vec<PathBuf>,
    /// A further context: a folder, a URL, `docker-image://…`, `oci-layout://…`
    #[arg(long = "build-context", value_name = "NAME=CONTEXT")]
    pub build_contexts: Vec<String>,
    /// Stop at this stage
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// What it is built for; several make an index [default: this machine]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// The operating system it is built for, as buildah has it
    #[arg(long, value_name = "OS", conflicts_with = "platforms")]
    pub os: Option<String>,
    /// The architecture it is built for, as buildah has it
    #[arg(long, value_name = "ARCH", conflicts_with = "platforms")]
    pub arch: Option<String>,
    /// The variant of that architecture, as buildah has it
    #[arg(long, value_name = "VARIANT", conflicts_with = "platforms", requires = "arch")]
    pub variant: Option<String>,
    /// No file and no date of the image is younger; seconds since 1970, or the main context's date [default: the base
    /// image's date]
    #[arg(long, visible_alias = "timestamp", value_name = "SECONDS|context", allow_negative_numbers = true, value_parser = values::epoch)]
    pub source_date_epoch: Option<String>,
    /// Set a label of the image
    #[arg(long = "label", value_name = "NAME[=VALUE]")]
    pub labels: Vec<String>,
    /// Annotate the image: `manifest` (default), `index`, `manifest-descriptor`, `index-descriptor`
    #[arg(long = "annotation", value_name = "[LEVEL:]NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Ask registries what base images mean now: `always`; `never` and `missing` use the store's
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHEN")]
    pub pull: Option<String>,
}

/// Where it goes.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Name the image so; several times for several names
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Where the result goes: `type=image|registry|oci|docker|local|tar,KEY=VALUE,…`, a folder, or `-`
    #[arg(short = 'o', long = "output", value_name = "OUTPUT")]
    pub outputs: Vec<String>,
    /// The same as `--output type=registry`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub push: Option<bool>,
    /// Media types of the image
    #[arg(long, value_parser = ["oci", "docker", "v2s2"])]
    pub format: Option<String>,
    /// Write the image's digest to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what came out to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// A name for the image, as buildah has it for manifest lists
    #[arg(long, value_name = "NAME")]
    pub manifest: Option<String>,
    /// Print the digest and nothing else
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub quiet: Option<bool>,
    /// Write the story to a file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub logfile: Option<PathBuf>,
}

/// What RUN gets.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RunSwitches {
    /// A secret: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`
    #[arg(long = "secret", value_name = "SECRET")]
    pub secrets: Vec<String>,
    /// An agent or keys for `RUN --mount=type=ssh`, and `default` for repositories over ssh
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    pub ssh: Vec<String>,
    /// The network: `default`, `none`, `host`
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// Allow what is not allowed by default: `network.host`, `security.insecure`, `device[=NAME]`
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// A line of `/etc/hosts`; the address may be `host-gateway`
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub add_hosts: Vec<String>,
    /// Size of `/dev/shm`, e.g. `128m`
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// A resource limit, e.g. `nofile=1024:2048`
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,
    /// Limits by name: `memory`, `memory-swap`, `cpu-shares`, `cpu-period`, `cpu-quota`, `cpuset-cpus`, `cpuset-mems`
    #[arg(long = "resource", value_name = "NAME=VALUE,…")]
    pub resources: Vec<String>,
    /// Memory it may use, e.g. `512m`
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Its weight among others; 1024 is usual
    #[arg(short, long, value_name = "N")]
    pub cpu_shares: Option<String>,
    /// Length of a scheduler period in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<String>,
    /// Microseconds of CPU time in each period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<String>,
    /// CPUs it may use, e.g. `0-3`
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// The cgroup below which its own is made
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
}

/// The cache.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct CacheSwitches {
    /// Build these stages anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Use what another machine built: `type=registry|local|s3,KEY=VALUE,…`, or an image
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<String>,
    /// Keep what was built for other machines: `type=registry|local|inline|s3,KEY=VALUE,…`
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<String>,
}

/// Questions about a Dockerfile.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct CallSwitches {
    /// What to do with the Dockerfile: `build`, `check`, `outline`, `targets`, `explain`; `,format=json` for programs
    #[arg(long, value_name = "METHOD")]
    pub call: Option<String>,
    /// The same as `--call=check`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub check: Option<bool>,
}

/// Switches that change nothing here, or nothing yet; `docs/guide-build.md` says why.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Habits {
    /// Images are in the store already
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub load: Option<bool>,
    /// There is one builder
    #[arg(long, value_name = "NAME")]
    pub builder: Option<String>,
    /// Containers are always removed
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub rm: Option<bool>,
    /// Containers are always removed
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub force_rm: Option<bool>,
    /// Contexts are read where they are
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub compress: Option<bool>,
    /// Every instruction's result is kept
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub layers: Option<bool>,
    /// No file is younger than the image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub rewrite_timestamp: Option<bool>,
    /// Signatures are no part of a build
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub disable_content_trust: Option<bool>,
    /// There is one kind of isolation
    #[arg(long, value_name = "KIND")]
    pub isolation: Option<String>,
    /// Not there yet; `false` is accepted
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL|mode=MODE")]
    pub provenance: Option<String>,
    /// Not there yet; `false` is accepted
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL|generator=IMAGE")]
    pub sbom: Option<String>,
    /// Not there yet
    #[arg(long, value_name = "ATTESTATION")]
    pub attest: Vec<String>,
    /// Not there yet
    #[arg(long, value_name = "POLICY")]
    pub policy: Vec<String>,
    /// Not there: layers stay as they were built
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub squash: Option<bool>,
}

impl Switches {
    /// The first switch that was given, if any was.
    pub fn first(&self) -> Option<&'static str> {
        let (what, output, run) = (&self.what, &self.output, &self.run);
        let given = [
            ("--build-arg", !what.build_args.is_empty()),
            ("--build-arg-file", !what.build_arg_files.is_empty()),
            ("--build-context", !what.build_contexts.is_empty()),
            ("--target", what.target.is_some()),
            ("--platform", !what.platforms.is_empty()),
            ("--os", what.os.is_some()),
            ("--arch", what.arch.is_some()),
            ("--source-date-epoch", what.source_date_epoch.is_some()),
            ("--label", !what.labels.is_empty()),
            ("--annotation", !what.annotations.is_empty()),
            ("--pull", what.pull.is_some()),
            ("--tag", !output.tags.is_empty()),
            ("--output", !output.outputs.is_empty()),
            ("--push", output.push.is_some()),
            ("--format", output.format.is_some()),
            ("--manifest", output.manifest.is_some()),
            ("--quiet", output.quiet.is_some()),
            ("--logfile", output.logfile.is_some()),
            ("--iidfile", output.iidfile.is_some()),
            ("--metadata-file", output.metadata_file.is_some()),
            ("--secret", !run.secrets.is_empty()),
            ("--ssh", !run.ssh.is_empty()),
            ("--network", run.network.is_some()),
            ("--allow", !run.allow.is_empty()),
            ("--add-host", !run.add_hosts.is_empty()),
            ("--memory", run.memory.is_some()),
            ("--no-cache-filter", !self.cache.no_cache_filter.is_empty()),
            ("--cache-from", !self.cache.cache_from.is_empty()),
            ("--cache-to", !self.cache.cache_to.is_empty()),
            ("--call", self.call.call.is_some()),
            ("--check", self.call.check.is_some()),
        ];
        let named = given.into_iter().find(|(_, given)| *given).map(|(name, _)| name);
        named.or_else(|| (*self != Switches::default()).then_some("a switch of a folder's build"))
    }
}
