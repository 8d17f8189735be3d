//! What a container can reach.

use ctk_container::Namespace;
use ctk_monitor::config::Network;

use super::make::Chosen;
use super::options::NetworkOptions;
use super::{Desk, namespaces};
use crate::failure::Failure;

/// Reads the options of networks.
pub fn choose(desk: &Desk, options: &NetworkOptions) -> Result<Chosen, Failure> {
    let names: Vec<&str> = options.networks.iter().flat_map(|list| list.split(',')).collect();
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
    };
    match names.first().copied().unwrap_or("bridge") {
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
        _ => {
            return Err(Failure::sentence("bridge networks are not there yet", Some("--network none or host")));
        }
    }
    if !options.publish.is_empty() {
        let what = "ports are published on bridge networks only";
        return Err(Failure::sentence(what, Some("leave --publish out, or choose a bridge network")));
    }
    Ok(chosen)
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
