//! What a container can reach.

use ctk_container::Namespace;
use ctk_monitor::Container;
use ctk_monitor::config::Network;
use ctk_network::{DnsOptions, Join, Networks, Port, Request, Session};
use serde::Deserialize;

use super::make::Chosen;
use super::options::NetworkOptions;
use super::{Desk, namespaces};
use crate::commands::network::{self, failed};
use crate::context::Context;
use crate::failure::Failure;
use crate::runtime::joining::Asked;

/// Reads the options of networks.
pub fn choose(context: &Context, desk: &Desk, options: &NetworkOptions) -> Result<Chosen, Failure> {
    let names = names(&options.networks);
    servers(options)?;
    let alone = |word: &str| {
        let what = format!("--network {word} cannot be together with other networks");
        if names.len() > 1 { Err(Failure::sentence(what, None)) } else { Ok(()) }
    };
    let mut chosen = Chosen {
        network: Network::None,
        namespace: Namespace::Private,
        ports: options.publish.clone(),
        added_hosts: added_hosts(&options.add_host)?,
        resolv: resolv(options),
        of_host: false,
        joining: None,
    };
    match names.first().map_or("bridge", String::as_str) {
        "none" => alone("none")?,
        "host" => {
            alone("host")?;
            chosen.network = Network::Host;
            chosen.namespace = Namespace::Host;
            chosen.of_host = true;
        }
        word if word.starts_with("container:") || word.starts_with("ns:") => {
            alone(word)?;
            chosen.namespace = namespaces::mode(desk, "--network", Some(word), "net", &[])?;
            if let Namespace::Path(path) = &chosen.namespace {
                chosen.network = Network::Namespace(path.clone());
            }
        }
        _ => chosen.joining = Some(joining(context, options, &names)?),
    }
    if chosen.joining.is_none() && (!options.publish.is_empty() || options.publish_all) {
        let what = "ports are published on bridge networks only";
        return Err(Failure::sentence(what, Some("leave --publish out, or choose a bridge network")));
    }
    let of_bridges = [
        ("--ip", options.ip.is_some()),
        ("--ip6", options.ip6.is_some()),
        ("--mac-address", options.mac_address.is_some()),
        ("--network-alias", !options.network_alias.is_empty()),
    ];
    if let Some((option, _)) = of_bridges.iter().find(|(_, given)| *given && chosen.joining.is_none()) {
        let what = format!("{option} is for bridge networks only");
        return Err(Failure::sentence(what, Some("leave it out, or choose a bridge network")));
    }
    Ok(chosen)
}

/// The networks that were asked for, each with its options: behind a `,`, a word `NAME=VALUE` is one more option of the
/// network before.
fn names(given: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for list in given {
        for (position, word) in list.split(',').enumerate() {
            let is_option = word.split_once('=').is_some_and(|(name, _)| !name.contains(':'));
            match all.last_mut() {
                Some(last) if position > 0 && is_option => last.push_str(&format!(",{word}")),
                _ => all.push(word.to_owned()),
            }
        }
    }
    all
}

/// What is asked of bridges; who asks is filled in when the container has its names.
fn joining(context: &Context, options: &NetworkOptions, names: &[String]) -> Result<Asked, Failure> {
    let mut joins = names.iter().map(|name| name.parse()).collect::<Result<Vec<Join>, _>>().map_err(failed)?;
    let is_single = options.ip.is_some() || options.ip6.is_some() || options.mac_address.is_some();
    if joins.len() > 1 && is_single {
        let what = "--ip, --ip6 and --mac-address are for one network";
        return Err(Failure::sentence(what, Some("`--network NAME:ip=ADDRESS` gives one for each")));
    }
    for join in &mut joins {
        join.ipv4 = join.ipv4.or(options.ip);
        join.ipv6 = join.ipv6.or(options.ip6);
        if let Some(text) = &options.mac_address {
            join.mac = Some(text.parse().map_err(failed)?);
        }
        join.aliases.extend(options.network_alias.iter().cloned());
    }
    let ports = options.publish.iter().map(|text| text.parse()).collect::<Result<Vec<Port>, _>>().map_err(failed)?;
    let hosts = added_hosts(&options.add_host)?.into_iter().map(|(name, address)| Ok((name, address.parse()?)));
    let dns = DnsOptions {
        servers: servers(options)?,
        search: options.dns_search.clone(),
        options: options.dns_option.clone(),
        hosts: hosts.collect::<Result<_, ctk_network::Error>>().map_err(failed)?,
        host_resolv_conf: "/etc/resolv.conf".into(),
    };
    let networks = ctk_network::may_make_bridges().then(|| network::folder(context));
    if let Some(folder) = &networks {
        // Who names a network that is not there hears of it now, and not from a monitor.
        let networks = Networks::open(folder).map_err(failed)?;
        for join in &joins {
            networks.get(&join.network).map_err(failed)?;
        }
    }
    let path = context.environment().get("PATH").unwrap_or_default();
    Ok(Asked {
        request: Request { joins, ports, dns, ..Request::default() },
        networks,
        programs: std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect(),
        hosts: !options.no_hosts,
        resolv_conf: options.dns.iter().all(|dns| dns != "none"),
    })
}

/// The name servers that were given.
fn servers(options: &NetworkOptions) -> Result<Vec<std::net::IpAddr>, Failure> {
    let one = |dns: &String| {
        let wrong = || Failure::sentence(format!("--dns `{dns}` is no address"), Some("an address, or `none`"));
        dns.parse().map_err(|_| wrong())
    };
    options.dns.iter().filter(|dns| *dns != "none").map(one).collect()
}

/// Takes a container off its networks that is dead, like the monitor that would have done it.
pub fn leave(container: &Container) {
    if let Some(asked) = asked_of(container) {
        let networks = asked.networks.and_then(|folder| Networks::open(&folder).ok());
        // What stays, the next who comes to the network removes.
        let _ = Session::end_of(container.id(), networks.as_ref(), container.directory());
    }
}

/// Ends the relay of a container that does not run and is about to go, should one be left: its monitor may have been
/// killed before it wrote down that the container runs.
pub fn leave_relay(container: &Container) {
    if asked_of(container).is_some_and(|asked| asked.networks.is_none()) {
        let _ = Session::end_of(container.id(), None, container.directory());
    }
}

fn asked_of(container: &Container) -> Option<Asked> {
    match container.config().ok()?.network {
        Network::Joined(value) => Asked::deserialize(value).ok(),
        _ => None,
    }
}

/// The ports that an image exposes, each published at a free one.
pub fn exposed<'a>(ports: impl Iterator<Item = &'a String>) -> Result<Vec<Port>, Failure> {
    ports.map(|text| text.parse()).collect::<Result<_, _>>().map_err(failed)
}

/// `NAME:ADDRESS`.
fn added_hosts(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let one = |text: &String| {
        let (name, address) = text.split_once([':', '=']).filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Failure::sentence(format!("--add-host `{text}` cannot be understood; expected NAME:ADDRESS"), None)
        })?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        match address.parse::<std::net::IpAddr>() {
            Ok(address) => Ok((name.to_owned(), address.to_string())),
            Err(_) if address == "host-gateway" => Ok((name.to_owned(), address.to_owned())),
            Err(_) => Err(Failure::sentence(format!("--add-host `{text}`: `{address}` is no address"), None)),
        }
    };
    given.iter().map(one).collect()
}

/// `/etc/resolv.conf` as far as the options say.
fn resolv(options: &NetworkOptions) -> String {
    let mut text = String::new();
    if !options.dns_search.is_empty() {
        text.push_str(&format!("search {}\n", options.dns_search.join(" ")));
    }
    text.extend(options.dns.iter().filter(|dns| *dns != "none").map(|dns| format!("nameserver {dns}\n")));
    if !options.dns_option.is_empty() {
        text.push_str(&format!("options {}\n", options.dns_option.join(" ")));
    }
    text
}
