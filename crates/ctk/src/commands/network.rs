//! `ctk network`: networks of containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use ctk_monitor::Client;
use ctk_monitor::protocol::Request;
use ctk_network::{AddressRange, Join, MacAddress, Network as Definition, NetworkOptions, Networks};
use ctk_service::PROJECT_LABEL;
use serde_json::{Value, json};

use super::container::{self, Desk, Table};
use super::output;
use crate::context::Context;
use crate::failure::Failure;
use crate::runtime::joining::Change;

/// How long monitors may take to leave a network, after their containers are gone.
const LEAVING: Duration = Duration::from_secs(3);
/// Options of `--opt` that mean the bridge's name.
const BRIDGE_OPTIONS: [&str; 2] = ["com.docker.network.bridge.name", "bridge_name"];
/// Options of `--opt` that mean the largest packet.
const MTU_OPTIONS: [&str; 2] = ["mtu", "com.docker.network.driver.mtu"];

/// Networks of containers
#[derive(Args)]
pub struct Network {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a network
    Create(Box<Create>),
    /// List networks
    #[command(alias = "list")]
    Ls(Ls),
    /// Remove networks that nobody is on
    #[command(alias = "remove")]
    Rm(Rm),
    /// Show networks, and who is on them, as JSON
    Inspect(Inspect),
    /// Join a running container to one more network
    Connect(Connect),
    /// Take a running container off a network
    Disconnect(Disconnect),
    /// Remove all networks that nobody is on
    Prune(Prune),
}

#[derive(Args)]
struct Create {
    /// Its name
    name: String,
    /// What it is made of
    #[arg(short, long, value_enum, default_value_t = Driver::Bridge)]
    driver: Driver,
    /// Its addresses, one subnet of each family [default: a free one of IPv4]
    #[arg(long, value_name = "SUBNET", value_parser = subnet)]
    subnet: Vec<ipnet::IpNet>,
    /// The host's address in a subnet [default: the first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// The part of a subnet that containers' addresses are chosen from
    #[arg(long, value_name = "SUBNET|FIRST-LAST", value_parser = range)]
    ip_range: Vec<AddressRange>,
    /// A free subnet of IPv6, too
    #[arg(long)]
    ipv6: bool,
    /// No way out, and none in
    #[arg(long)]
    internal: bool,
    /// Don't answer containers' names
    #[arg(long)]
    disable_dns: bool,
    /// The bridge's name on the host
    #[arg(long, value_name = "NAME")]
    interface_name: Option<String>,
    /// Something to remember with it
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// mtu=BYTES, or com.docker.network.bridge.name=NAME
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Don't fail if a network of this name is there
    #[arg(long)]
    ignore: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    /// A bridge of the host, with addresses of its own.
    Bridge,
}

#[derive(Args)]
struct Ls {
    /// Only networks that all of these are true for: name=TEXT, id=TEXT, driver=NAME, label=NAME[=VALUE]
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// `json`, or a template as `{{.Name}}` [default: a table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// No line with the names of columns
    #[arg(short, long)]
    noheading: bool,
    /// Print names only
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Args)]
struct Rm {
    /// The networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// Take containers off them first, and don't fail for one that isn't there
    #[arg(short, long)]
    force: bool,
}

#[derive(Args)]
struct Inspect {
    /// The networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// A template as `{{.Name}}`, for each of them [default: a JSON array]
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

#[derive(Args)]
struct Connect {
    /// The network
    network: String,
    /// The container's name or id
    container: String,
    /// Its address there
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Its IPv6 address there
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Its hardware address there
    #[arg(long, value_name = "ADDRESS", value_parser = mac)]
    mac_address: Option<MacAddress>,
    /// A name by which others there find it
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
}

#[derive(Args)]
struct Disconnect {
    /// The network
    network: String,
    /// The container's name or id
    container: String,
    /// Don't fail if it is not there
    #[arg(short, long)]
    force: bool,
}

#[derive(Args)]
struct Prune {
    /// Don't ask; we never do
    #[arg(short, long)]
    force: bool,
}

fn subnet(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse().map_err(|_| "expected a subnet such as 10.89.7.0/24 or fd00:7::/64".into())
}

fn range(text: &str) -> Result<AddressRange, String> {
    text.parse().map_err(|error: ctk_network::Error| error.to_string())
}

fn mac(text: &str) -> Result<MacAddress, String> {
    text.parse().map_err(|error: ctk_network::Error| error.to_string())
}

/// Where networks are written down.
pub fn folder(context: &Context) -> PathBuf {
    context.options().store.join("networks")
}

/// What was tried, with what to do.
pub fn failed(error: ctk_network::Error) -> Failure {
    let hint = error.hint();
    Failure::Error { code: None, error: Box::new(error), hint }
}

/// Makes the network of a project's services unless it is there.
pub fn ensure(context: &Context, name: &str, project: &str) -> Result<(), Failure> {
    let networks = Networks::open(&folder(context)).map_err(failed)?;
    let labels = [(PROJECT_LABEL.to_owned(), project.to_owned())].into();
    let options = NetworkOptions { name: name.into(), labels, ignore_existing: true, ..NetworkOptions::default() };
    networks.create(&options).map(drop).map_err(failed)
}

/// Removes the network that was made for a project's services, unless somebody else is on it.
pub fn remove_of_project(context: &Context, project: &str) -> Result<(), Failure> {
    let folder = folder(context);
    if !folder.exists() {
        return Ok(());
    }
    let networks = Networks::open(&folder).map_err(failed)?;
    for network in networks.list().map_err(failed)? {
        if network.labels.get(PROJECT_LABEL).is_none_or(|of| of != project) {
            continue;
        }
        // The monitors of the services that have just ended are still leaving it.
        let deadline = Instant::now() + LEAVING;
        loop {
            match networks.remove(&network.name) {
                Err(ctk_network::Error::NetworkInUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(()) | Err(ctk_network::Error::NetworkInUse { .. } | ctk_network::Error::UnknownNetwork { .. }) => {
                    break;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(())
}

impl Network {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let networks = Networks::open(&folder(context)).map_err(failed)?;
        match self.command {
            Command::Create(create) => create.run(&networks),
            Command::Ls(ls) => ls.run(&networks),
            Command::Rm(rm) => rm.run(&networks),
            Command::Inspect(inspect) => inspect.run(&networks),
            Command::Connect(connect) => connect.run(context, &networks),
            Command::Disconnect(disconnect) => disconnect.run(context, &networks),
            Command::Prune(prune) => prune.run(&networks),
        }
    }
}

impl Create {
    fn run(self, networks: &Networks) -> Result<(), Failure> {
        let Driver::Bridge = self.driver;
        let mut options = NetworkOptions {
            name: self.name,
            subnets: self.subnet,
            gateways: self.gateway,
            ranges: self.ip_range,
            ipv6: self.ipv6,
            internal: self.internal,
            disable_dns: self.disable_dns,
            bridge: self.interface_name,
            mtu: None,
            labels: self.label.iter().map(|text| pair(text)).collect(),
            ignore_existing: self.ignore,
        };
        for option in &self.opt {
            let (name, value) = pair(option);
            if BRIDGE_OPTIONS.contains(&name.as_str()) {
                options.bridge = Some(value);
            } else if MTU_OPTIONS.contains(&name.as_str()) {
                let mtu = value.parse().map_err(|_| {
                    Failure::sentence(format!("invalid --opt `{option}`"), Some("expected bytes, such as mtu=1400"))
                })?;
                options.mtu = Some(mtu);
            } else {
                let known = [MTU_OPTIONS, BRIDGE_OPTIONS].concat().join(", ");
                let hint = format!("these are known: {known}");
                return Err(Failure::sentence(format!("no option `{name}` of a bridge network"), Some(&hint)));
            }
        }
        let network = networks.create(&options).map_err(failed)?;
        output(&format!("{}\n", network.name))
    }
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.into(), value.into())
}

impl Ls {
    fn run(self, networks: &Networks) -> Result<(), Failure> {
        let mut all = networks.list().map_err(failed)?;
        for filter in &self.filter {
            let keep = keeps(filter)?;
            all.retain(|network| keep(network));
        }
        if self.quiet {
            return output(&all.iter().map(|network| format!("{}\n", network.name)).collect::<String>());
        }
        let is_json = self.format.as_deref().is_some_and(|format| format.trim() == "json");
        let row = |network: &Definition| {
            let mut row = shown(network, &BTreeMap::new());
            if !is_json && !self.no_trunc {
                row["id"] = network.id.get(..12).unwrap_or(&network.id).into();
            }
            if self.format.is_none() {
                let subnets: Vec<String> = network.subnets.iter().map(|one| one.subnet.to_string()).collect();
                row["subnets"] = subnets.join(", ").into();
            }
            row
        };
        let columns = [("NETWORK ID", "id"), ("NAME", "name"), ("DRIVER", "driver"), ("SUBNETS", "subnets")];
        let table = Table { columns: &columns, rows: all.iter().map(row).collect() };
        output(&table.text(self.format.as_deref(), self.noheading)?)
    }
}

type Filter = Box<dyn Fn(&Definition) -> bool>;

fn keeps(filter: &str) -> Result<Filter, Failure> {
    let (name, value) = pair(filter);
    Ok(match name.as_str() {
        "name" => Box::new(move |network| network.name.contains(&value)),
        "id" => Box::new(move |network| network.id.starts_with(&value)),
        "driver" => Box::new(move |network| network.driver == value),
        "label" => {
            let is_bare = !value.contains('=');
            let (label, wanted) = pair(&value);
            Box::new(move |network| network.labels.get(&label).is_some_and(|have| is_bare || *have == wanted))
        }
        _ => {
            let hint = "name=TEXT, id=TEXT, driver=NAME, label=NAME[=VALUE]";
            return Err(Failure::sentence(format!("no filter `{name}`"), Some(hint)));
        }
    })
}

impl Rm {
    fn run(self, networks: &Networks) -> Result<(), Failure> {
        for name in &self.networks {
            match remove(networks, name, self.force) {
                Err(ctk_network::Error::UnknownNetwork { .. }) if self.force => {}
                other => other.map_err(failed)?,
            }
            output(&format!("{name}\n"))?;
        }
        Ok(())
    }
}

fn remove(networks: &Networks, name: &str, force: bool) -> Result<(), ctk_network::Error> {
    if force {
        for member in networks.members(name)? {
            networks.disconnect(&member.id, name)?;
        }
    }
    networks.remove(name)
}

impl Inspect {
    fn run(self, networks: &Networks) -> Result<(), Failure> {
        let mut all = Vec::new();
        for name in &self.networks {
            let network = networks.get(name).map_err(failed)?;
            let members = networks.members(&network.name).map_err(failed)?;
            let containers: BTreeMap<String, Value> = members
                .into_iter()
                .map(|member| {
                    let interface = &member.interface;
                    let subnets: Vec<Value> =
                        interface.addresses.iter().map(|address| json!({ "ipnet": address })).collect();
                    let interfaces = json!({ &interface.name: {
                        "subnets": subnets,
                        "mac_address": interface.mac,
                        "aliases": interface.aliases,
                    }});
                    let value = json!({ "name": member.name, "interfaces": interfaces, "ports": member.ports });
                    (member.id, value)
                })
                .collect();
            all.push(shown(&network, &containers));
        }
        match self.format.as_deref().map(str::trim) {
            None | Some("json") => output(&container::shown(&Value::Array(all), None)?),
            format => all.iter().try_for_each(|network| output(&container::shown(network, format)?)),
        }
    }
}

/// A network as podman shows it.
fn shown(network: &Definition, containers: &BTreeMap<String, Value>) -> Value {
    let created = i64::try_from(network.created).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let subnets = network.subnets.iter().map(|subnet| {
        let mut value = json!({ "subnet": subnet.subnet, "gateway": subnet.gateway });
        if let Some(range) = subnet.range {
            value["lease_range"] = json!({ "start_ip": range.first, "end_ip": range.last });
        }
        value
    });
    json!({
        "name": network.name,
        "id": network.id,
        "driver": network.driver,
        "network_interface": network.bridge,
        "created": created.map(|created| created.to_string()),
        "subnets": subnets.collect::<Vec<Value>>(),
        "ipv6_enabled": network.subnets.iter().any(|subnet| subnet.gateway.is_ipv6()),
        "internal": network.internal,
        "dns_enabled": network.dns_enabled,
        "labels": network.labels,
        "options": { "mtu": network.mtu.to_string() },
        "containers": containers,
    })
}

impl Connect {
    fn run(self, context: &Context, networks: &Networks) -> Result<(), Failure> {
        // Told here if it is not there; the monitor would only say it to itself.
        networks.get(&self.network).map_err(failed)?;
        let join = Join {
            network: self.network,
            interface: None,
            ipv4: self.ip,
            ipv6: self.ip6,
            mac: self.mac_address,
            aliases: self.alias,
        };
        change(context, &self.container, &Change::Connect(join))
    }
}

impl Disconnect {
    fn run(self, context: &Context, networks: &Networks) -> Result<(), Failure> {
        let network = networks.get(&self.network).map_err(failed)?;
        match change(context, &self.container, &Change::Disconnect(network.name)) {
            Err(_) if self.force => Ok(()),
            other => other,
        }
    }
}

/// Has a container's monitor change its networks.
fn change(context: &Context, name: &str, change: &Change) -> Result<(), Failure> {
    let desk = Desk::open(context);
    let container = desk.find(name)?;
    desk.settle(&container)?;
    let Some(mut client) = Client::connect(&container)? else {
        return Err(Failure::sentence(format!("container {name} is not running"), Some("`ctk start` starts it")));
    };
    let request = Request::Network(serde_json::to_value(change)?);
    client.request_within(&request, ctk_monitor::limits::ANSWER)?;
    Ok(())
}

impl Prune {
    fn run(self, networks: &Networks) -> Result<(), Failure> {
        let _ = self.force;
        let removed = networks.prune().map_err(failed)?;
        output(&removed.iter().map(|name| format!("{name}\n")).collect::<String>())
    }
}
