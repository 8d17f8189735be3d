//! The options with which containers are made: `ctk run` and `ctk create` have the same. Named as docker's and podman's
//! users know them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ctk_oci::Platform;

/// How a container is made.
#[derive(Args)]
pub struct MakeOptions {
    #[command(flatten)]
    pub process: ProcessOptions,
    #[command(flatten)]
    pub image: ImageOptions,
    #[command(flatten)]
    pub life: LifeOptions,
    #[command(flatten)]
    pub files: FileOptions,
    #[command(flatten)]
    pub network: NetworkOptions,
    #[command(flatten)]
    pub limits: LimitOptions,
    #[command(flatten)]
    pub security: SecurityOptions,
    #[command(flatten)]
    pub health: HealthOptions,
    #[command(flatten)]
    pub log: LogOptions,
}

/// Its process.
#[derive(Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessOptions {
    /// Keep standard input open, and pass it on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable; a name alone takes our value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Leave out an environment variable that the image sets
    #[arg(long, value_name = "NAME")]
    pub unsetenv: Vec<String>,
    /// Leave out every environment variable that the image sets, and PATH
    #[arg(long)]
    pub unsetenv_all: bool,
    /// Pass on all of our environment variables; what the image sets and `--env` goes before
    #[arg(long)]
    pub env_host: bool,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Further groups of that user
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Run in this folder
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Use this program instead of the image's entrypoint; a JSON list for one with arguments
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Its host name
    #[arg(long, value_name = "NAME", value_parser = super::parse::hostname)]
    pub hostname: Option<String>,
    /// Its NIS domain name
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// File mode creation mask, octal
    #[arg(long, value_name = "MASK", value_parser = octal)]
    pub umask: Option<u32>,
    /// The time zone of its /etc/localtime: a name as `Europe/Paris`, or `local`
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
    /// Put a small program first, which collects processes that lost their parents and passes signals on
    #[arg(long)]
    pub init: bool,
    /// A namespace of process ids: `private`, `host`, `container:NAME`, `ns:PATH`
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// A namespace of IPC: `private`, `host`, `shareable`, `none`, `container:NAME`, `ns:PATH`
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// A namespace of the host name: `private`, `host`, `container:NAME`, `ns:PATH`
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// A namespace of cgroups: `private`, `host`, `container:NAME`, `ns:PATH`
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
}

/// Its image.
#[derive(Args)]
#[command(next_help_heading = "Image")]
pub struct ImageOptions {
    /// When to fetch the image
    #[arg(long, value_enum, default_value_t = Pull::Missing)]
    pub pull: Pull,
    /// Which member of an index [default: this machine's]
    #[arg(long)]
    pub platform: Option<Platform>,
    /// IMAGE is a folder with a root file system; with `:O` behind, what is written is not written there
    #[arg(long)]
    pub rootfs: bool,
}

/// Its name, its end, and what comes then.
#[derive(Args)]
#[command(next_help_heading = "Name and life")]
pub struct LifeOptions {
    /// Its name [default: one of two words]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Remove the container of that name first
    #[arg(long, requires = "name")]
    pub replace: bool,
    /// Remove it when it ends, with its anonymous volumes
    #[arg(long)]
    pub rm: bool,
    /// Start it again when it ends: `no`, `on-failure[:TIMES]`, `always`, `unless-stopped`
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = super::parse::restart)]
    pub restart: ctk_monitor::config::Restart,
    /// Asks it to end [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = super::parse::signal)]
    pub stop_signal: Option<i32>,
    /// How long it may take then, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = super::parse::number::<u64>)]
    pub stop_timeout: u64,
    /// Kill it after this long, e.g. `30s`; 0 is no limit
    #[arg(long, value_name = "DURATION", value_parser = super::parse::duration)]
    pub timeout: Option<Duration>,
    /// Set a label
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Read labels from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Set an annotation, for the runtime and its hooks
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Write the container's id into a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Write the process id of its first process into a file while it runs
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Start these containers first
    #[arg(long, value_name = "CONTAINER", value_delimiter = ',')]
    pub requires: Vec<String>,
}

/// What it finds in its file system.
#[derive(Args)]
#[command(next_help_heading = "Files")]
pub struct FileOptions {
    /// Mount a folder or file of the host, or a volume: `[HOST|VOLUME:]PATH[:ro,z,U,…]`
    #[arg(short, long, value_name = "SOURCE:PATH[:OPTIONS]")]
    pub volume: Vec<String>,
    /// The same in words: `type=bind|volume|tmpfs|image,src=…,dst=…,ro,…`
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub mount: Vec<String>,
    /// Mount what these containers have mounted
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub volumes_from: Vec<String>,
    /// Mount a temporary file system
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Make its root read-only; /run, /tmp and /var/tmp stay writable, see --read-only-tmpfs
    #[arg(long)]
    pub read_only: bool,
    /// Whether a read-only root has temporary file systems where programs write
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub read_only_tmpfs: bool,
    /// Give it a device of the host, or one of a CDI specification: `HOST[:PATH][:rwm]`, `VENDOR/CLASS=NAME`
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Give it graphics processors, by NVIDIA's CDI specification: `all`, how many, or `device=0,1`
    #[arg(long, value_name = "WHICH")]
    pub gpus: Vec<String>,
    /// Folders of CDI specifications [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "FOLDER")]
    pub cdi_spec_dir: Vec<PathBuf>,
    /// Allow devices by number: `c 1:3 rwm`
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
    /// Show a secret as a file or a variable: `id=NAME,src=FILE|env=VARIABLE[,target=PATH][,type=mount|env][,mode=…]`,
    /// or `NAME` of `ctk secret ls`
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub secret: Vec<String>,
    /// Bytes of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = super::parse::bytes)]
    pub shm_size: Option<u64>,
    /// Options of its own layer: `size=SIZE` where the file system has quotas
    #[arg(long, value_name = "KEY=VALUE")]
    pub storage_opt: Vec<String>,
}

/// What it can reach.
#[derive(Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkOptions {
    /// `none`, `host`, `bridge`, `container:NAME`, `ns:PATH`, or networks by name, several with commas
    #[arg(
        long = "network",
        visible_alias = "net",
        value_name = "NETWORK",
        env = "CTK_NETWORK",
        default_value = "bridge"
    )]
    pub networks: Vec<String>,
    /// Further names on its networks
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Publish a port: `[[ADDRESS:]HOST:]PORT[/tcp|/udp]`, also ranges
    #[arg(short, long, value_name = "PORT")]
    pub publish: Vec<String>,
    /// Publish every port that the image exposes, each at a free one
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Say that it listens there
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Its address on its network
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<std::net::Ipv4Addr>,
    /// The same of version 6
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<std::net::Ipv6Addr>,
    /// The hardware address of its interface
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<String>,
    /// Ask this name server; `none` leaves /etc/resolv.conf as the image has it
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// Look for names in this domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// An option of /etc/resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// A line of /etc/hosts; `host-gateway` is the host's address
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Leave /etc/hosts as the image has it
    #[arg(long)]
    pub no_hosts: bool,
}

/// What it may use.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Memory it may use, e.g. `512MiB`; 0 is no limit
    #[arg(short, long, value_name = "SIZE", value_parser = super::parse::bytes)]
    pub memory: Option<u64>,
    /// Memory and swap together; -1 is as much swap as there is
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = super::parse::bytes_or_all)]
    pub memory_swap: Option<i64>,
    /// Memory it keeps when others want it
    #[arg(long, value_name = "SIZE", value_parser = super::parse::bytes)]
    pub memory_reservation: Option<u64>,
    /// How readily its memory is swapped, 0 to 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub memory_swappiness: Option<u64>,
    /// CPUs it may use, e.g. `1.5`; 0 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = super::parse::cpu_millis)]
    pub cpus: Option<u64>,
    /// Relative weight of its processor time, 2 to 262144; the usual is 1024
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=262_144))]
    pub cpu_shares: Option<u64>,
    /// Microseconds of a period of processor time
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true, value_parser = super::parse::number::<i64>)]
    pub cpu_quota: Option<i64>,
    /// Processors it may use: `0-3,5`
    #[arg(long, value_name = "LIST", value_parser = super::parse::cpu_list)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use: `0-3,5`
    #[arg(long, value_name = "LIST", value_parser = super::parse::cpu_list)]
    pub cpuset_mems: Option<String>,
    /// Processes it may have; 0 or -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = super::parse::number::<i64>)]
    pub pids_limit: Option<i64>,
    /// Relative weight of its input and output, 10 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub blkio_weight: Option<u16>,
    /// The same for one device
    #[arg(long, value_name = "DEVICE:N")]
    pub blkio_weight_device: Vec<String>,
    /// Bytes a second that it may read from a device
    #[arg(long, value_name = "DEVICE:SIZE")]
    pub device_read_bps: Vec<String>,
    /// Bytes a second that it may write to a device
    #[arg(long, value_name = "DEVICE:SIZE")]
    pub device_write_bps: Vec<String>,
    /// Operations a second on a device, for reading
    #[arg(long, value_name = "DEVICE:N")]
    pub device_read_iops: Vec<String>,
    /// Operations a second on a device, for writing
    #[arg(long, value_name = "DEVICE:N")]
    pub device_write_iops: Vec<String>,
    /// How likely it is killed for want of memory, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
    /// A limit of its processes: `nofile=1024:2048`
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = super::parse::rlimit)]
    pub ulimit: Vec<(String, u64, u64)>,
    /// The cgroup below which its own is made
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
}

/// How far it is confined.
#[derive(Args)]
#[command(next_help_heading = "Security")]
pub struct SecurityOptions {
    /// Give it a capability, or ALL
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// Take a capability from it, or ALL
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// `seccomp=FILE|unconfined`, `apparmor=PROFILE`, `label=…`, `no-new-privileges`, `mask=PATHS`, `unmask=PATHS|ALL`
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// All capabilities, all devices, nothing masked
    #[arg(long)]
    pub privileged: bool,
    /// A kernel setting of its namespaces: `net.core.somaxconn=1024`
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::parse::setting)]
    pub sysctl: Vec<String>,
    /// A namespace of users: `host`, `auto`, `container:NAME`, `ns:PATH`
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// Users inside and outside: `INSIDE:OUTSIDE:COUNT`
    #[arg(long, value_name = "MAPPING")]
    pub uidmap: Vec<String>,
    /// Groups inside and outside: `INSIDE:OUTSIDE:COUNT`
    #[arg(long, value_name = "MAPPING")]
    pub gidmap: Vec<String>,
    /// How it is kept apart from the host: `process`, `userns`, `gvisor`
    #[arg(long, value_enum, value_name = "HOW")]
    pub isolation: Option<Isolation>,
    /// Run it by this OCI runtime, a name or a path [default: ours]
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
}

/// How its health is found out.
#[derive(Args)]
#[command(next_help_heading = "Health")]
pub struct HealthOptions {
    /// A command in the container that succeeds when it is well: a line for its shell, or a JSON list; `none` for none
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Between two checks [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = super::parse::duration)]
    pub health_interval: Option<Duration>,
    /// How many failures in a row make it unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "N", value_parser = super::parse::number::<u32>)]
    pub health_retries: Option<u32>,
    /// Failures this long after the start do not count
    #[arg(long, value_name = "DURATION", value_parser = super::parse::duration)]
    pub health_start_period: Option<Duration>,
    /// Between two checks until then
    #[arg(long, value_name = "DURATION", value_parser = super::parse::duration)]
    pub health_start_interval: Option<Duration>,
    /// How long one check may take [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = super::parse::duration)]
    pub health_timeout: Option<Duration>,
    /// What happens when it becomes unhealthy
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = OnFailure::None)]
    pub health_on_failure: OnFailure,
    /// No health check, whatever the image says
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// What is kept of what it writes.
#[derive(Args)]
#[command(next_help_heading = "Log")]
pub struct LogOptions {
    /// `file` (also known as `k8s-file`, `json-file`), or `none`
    #[arg(long, value_name = "DRIVER", default_value = "file", value_parser = super::parse::log_driver)]
    pub log_driver: super::parse::LogDriver,
    /// `max-size=SIZE` (0 is no limit), `max-file=N`
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
}

/// When to fetch an image.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Fetch it each time.
    Always,
    /// Fetch it if it is not in the store.
    Missing,
    /// Never fetch it.
    Never,
    /// Fetch it if the registry has another one.
    Newer,
}

/// How a container is kept apart.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// By namespaces, capabilities and filters.
    Process,
    /// The same, and its users are none of the host's.
    Userns,
    /// By a kernel of its own, in user space (needs runsc).
    Gvisor,
}

/// What happens to an unhealthy container.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// Nothing.
    None,
    /// It is killed.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped.
    Stop,
}

fn octal(text: &str) -> Result<u32, String> {
    let mask = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "expected an octal mask such as `0022`".into())
}
