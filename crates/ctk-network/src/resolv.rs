//! Texts of a container's `/etc/resolv.conf` and `/etc/hosts`.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use crate::limits::RESOLV_CONF_BYTES;
use crate::{DnsOptions, Endpoint, Error, HostAddress, Interface, files};

/// The names by which containers find the host, if nobody said otherwise.
const HOST_NAMES: [&str; 2] = ["host.containers.internal", "host.docker.internal"];

/// What a `resolv.conf` says; `resolv.conf(5)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
}

impl ResolvConf {
    pub(crate) fn parse(text: &str) -> ResolvConf {
        let mut parsed = ResolvConf::default();
        for line in text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default()) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                // A scope (`fe80::1%eth0`) means something on the host only, where we ask; the standard library cannot
                // say it, and such servers come beside others.
                Some("nameserver") => parsed.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                // The last of several counts.
                Some("search" | "domain") => parsed.search = words.map(str::to_owned).collect(),
                Some("options") => parsed.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        parsed
    }

    /// The host's, with what was said instead.
    pub(crate) fn of(options: &DnsOptions) -> Result<ResolvConf, Error> {
        let mut conf = host(&options.host_resolv_conf)?;
        if !options.servers.is_empty() {
            conf.servers = options.servers.clone();
        }
        if !options.search.is_empty() {
            conf.search = options.search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if !options.options.is_empty() {
            conf.options = options.options.clone();
        }
        Ok(conf)
    }

    /// The text, for these servers.
    pub(crate) fn text(&self, servers: &[IpAddr], is_ours: bool) -> String {
        let mut text = String::new();
        for server in servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        let mut options = self.options.clone();
        // A name without a dot is a container's: asked first as it is, and no domain of the host's sees it.
        if is_ours && !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".into());
        }
        if !options.is_empty() {
            let _ = writeln!(text, "options {}", options.join(" "));
        }
        text
    }
}

fn host(path: &Path) -> Result<ResolvConf, Error> {
    let bytes = if path.as_os_str().is_empty() { None } else { files::read(path, RESOLV_CONF_BYTES)? };
    Ok(ResolvConf::parse(&String::from_utf8_lossy(&bytes.unwrap_or_default())))
}

/// The text of the `resolv.conf` of a container that asks the host's name servers itself, or those that were given.
/// Servers on the host's loopback mean nothing there and are left out, unless `shares_network`.
pub fn host_resolv_conf(options: &DnsOptions, shares_network: bool) -> Result<String, Error> {
    let conf = ResolvConf::of(options)?;
    let mut servers = conf.servers.clone();
    if !shares_network {
        servers.retain(|server| !server.is_loopback());
    }
    Ok(conf.text(&servers, false))
}

/// The text of the hosts file.
pub(crate) fn hosts(endpoint: &Endpoint, interfaces: &[Interface], options: &DnsOptions) -> Result<String, Error> {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let gateway = interfaces.iter().flat_map(|one| &one.host).next();
    for (name, address) in &options.hosts {
        let address = match address {
            HostAddress::Address(address) => *address,
            HostAddress::Gateway => *gateway.ok_or_else(|| Error::Unsupported {
                what: format!("the address `host-gateway` of `{name}`"),
                needs: "needs a bridge network".into(),
            })?,
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    if let Some(gateway) = gateway {
        let is_free = |name: &&str| options.hosts.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name));
        let names: Vec<&str> = HOST_NAMES.into_iter().filter(|name| is_free(name)).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "{gateway}\t{}", names.join(" "));
        }
    }
    let mut names = vec![endpoint.hostname.as_str(), endpoint.name.as_str()];
    names.retain(|name| !name.is_empty());
    names.dedup();
    if !names.is_empty() {
        for address in interfaces.iter().flat_map(|one| &one.addresses) {
            let _ = writeln!(text, "{}\t{}", address.addr(), names.join(" "));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read_as_the_c_library_reads_it() {
        let conf = ResolvConf::parse(
            "# comment\nnameserver 10.0.0.1 # this one\nnameserver fe80::1%eth0\nnameserver ::1\ndomain a.test\nsearch b.test c.test\noptions ndots:2 edns0\noptions rotate\nsortlist x\n",
        );
        assert_eq!(conf.servers, ["10.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(conf.search, ["b.test", "c.test"]);
        assert_eq!(conf.options, ["ndots:2", "edns0", "rotate"]);
        let server = "127.0.0.11".parse().unwrap();
        assert_eq!(
            conf.text(&[server], true),
            "nameserver 127.0.0.11\nsearch b.test c.test\noptions ndots:2 edns0 rotate\n"
        );
        assert_eq!(ResolvConf::default().text(&[server], true), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn a_domain_of_one_dot_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 127.0.0.53\nnameserver 10.9.9.9\nsearch host.test\n").unwrap();
        let mut options = DnsOptions { host_resolv_conf: path, ..DnsOptions::default() };
        assert_eq!(host_resolv_conf(&options, false).unwrap(), "nameserver 10.9.9.9\nsearch host.test\n");
        options.search = vec![".".into()];
        options.servers = vec!["10.1.1.1".parse().unwrap()];
        assert_eq!(host_resolv_conf(&options, false).unwrap(), "nameserver 10.1.1.1\n");
    }
}
