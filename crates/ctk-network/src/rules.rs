//! What the packet filter is told.
//!
//! One table for all networks of the host, `inet ctk`. Its rules never change; what changes are the keys of its sets
//! and maps, and those can be removed by who knows them: no handles, no rule that somebody has to find again.
//!
//! | set or map | key | |
//! |---|---|---|
//! | `bridges` | device | all our bridges |
//! | `internal` | device | those without a way out |
//! | `same` | device, device | each bridge with itself |
//! | `own4`, `own6` | device, addresses | each bridge with its subnets |
//! | `ports4`, `ports6` | protocol, port | published on all addresses of the host → address, port |
//! | `ports4_on`, `ports6_on` | address, protocol, port | published on one → address, port |

use std::net::{IpAddr, Ipv6Addr};

use crate::nft::{Batch, Element, Elements, Hook, INET, IPV4, IPV6, Meta, REGISTER, Rule, SetShape, kind};
use crate::{Network, PublishedPort};

/// The table on the host.
pub(crate) const TABLE: &str = "ctk";
/// The table in a container's namespace.
pub(crate) const NAMES_TABLE: &str = "ctk-names";

const DEVICE_BYTES: u32 = 16;
const ESTABLISHED_RELATED: u32 = 2 | 4;
const DESTINATION_CHANGED: u32 = 0x20;
const NFPROTO_IPV4: u8 = IPV4;
const NFPROTO_IPV6: u8 = IPV6;

/// Everything that is there before the first container.
pub(crate) fn base(batch: &mut Batch, userdata: &[u8]) {
    use kind::{DEVICE, IPV4, IPV6, PORT, PROTOCOL};
    batch.table(TABLE, userdata);
    let device = (DEVICE, DEVICE_BYTES);
    for name in ["bridges", "internal"] {
        batch.set(TABLE, name, &SetShape { key: device, value: None, ranges: &[] });
    }
    let pair = (kind::of(&[DEVICE, DEVICE]), 2 * DEVICE_BYTES);
    batch.set(TABLE, "same", &SetShape { key: pair, value: None, ranges: &[] });
    for (name, address, ranges) in [("own4", IPV4, &[16, 4]), ("own6", IPV6, &[16, 16])] {
        let key = (kind::of(&[DEVICE, address]), ranges[0] + ranges[1]);
        batch.set(TABLE, name, &SetShape { key, value: None, ranges });
    }
    for (name, address, bytes) in [("ports4", IPV4, 4), ("ports6", IPV6, 16)] {
        let value = Some((kind::of(&[address, PORT]), bytes + 4));
        batch.set(TABLE, name, &SetShape { key: (kind::of(&[PROTOCOL, PORT]), 8), value, ranges: &[] });
        let key = (kind::of(&[address, PROTOCOL, PORT]), bytes + 8);
        batch.set(TABLE, &format!("{name}_on"), &SetShape { key, value, ranges: &[] });
    }

    // Addresses of the host's loopback come from its loopback only. Our bridges let them through (`route_localnet`), so
    // that the host itself reaches published ports: a container must not.
    let guard = Hook { kind: "filter", number: 0, priority: -300 };
    batch.chain(TABLE, "guard", Some(&guard));
    batch.rule(TABLE, "guard", &to_loopback(from_ours(Rule::default())).drop());

    batch.chain(TABLE, "publish", None);
    publish(batch);
    batch.chain(TABLE, "prerouting", Some(&Hook { kind: "nat", number: 0, priority: -100 }));
    batch.rule(TABLE, "prerouting", &to_loopback(Rule::default()).leave());
    batch.rule(TABLE, "prerouting", &Rule::default().for_this_host().jump("publish"));
    batch.chain(TABLE, "output", Some(&Hook { kind: "nat", number: 3, priority: -100 }));
    // There is no `route_localnet` for IPv6: `loopback.rs` copies; where nobody does, a client of `localhost` is refused at
    // once and goes on to 127.0.0.1.
    let to_itself = of_family(Rule::default(), NFPROTO_IPV6).payload(1, 24, 16, REGISTER);
    batch.rule(TABLE, "output", &to_itself.compare(REGISTER, true, &Ipv6Addr::LOCALHOST.octets()).leave());
    batch.rule(TABLE, "output", &Rule::default().for_this_host().jump("publish"));

    batch.chain(TABLE, "postrouting", Some(&Hook { kind: "nat", number: 4, priority: 100 }));
    // To a published port of a neighbour, or of oneself: the answer would not come back through the host otherwise. By
    // its address, not by where it came from: that is not known of what a bridge passed on.
    for (family, name, offset, bytes) in [(NFPROTO_IPV4, "own4", 12, 4), (NFPROTO_IPV6, "own6", 8, 16)] {
        let rule = of_family(redirected(Rule::default()), family);
        let rule = output(rule).payload(1, offset, bytes, REGISTER + 4).lookup(name, REGISTER, true);
        batch.rule(TABLE, "postrouting", &rule.masquerade());
    }
    // From the host itself by way of its loopback address, which means nothing to the container.
    batch.rule(TABLE, "postrouting", &from_loopback(to_ours(Rule::default())).masquerade());
    let out = from_ours(Rule::default());
    batch.rule(TABLE, "postrouting", &output(out).lookup("bridges", REGISTER, false).masquerade());

    batch.chain(TABLE, "forward", Some(&Hook { kind: "filter", number: 2, priority: 0 }));
    let known = Rule::default().connection(0, REGISTER);
    let known = known.mask(REGISTER, &ESTABLISHED_RELATED.to_ne_bytes());
    batch.rule(TABLE, "forward", &known.compare(REGISTER, false, &[0; 4]).accept());
    batch.rule(TABLE, "forward", &same_bridge(Rule::default()).accept());
    batch.rule(TABLE, "forward", &input(Rule::default()).lookup("internal", REGISTER, true).drop());
    batch.rule(TABLE, "forward", &output(Rule::default()).lookup("internal", REGISTER, true).drop());
    batch.rule(TABLE, "forward", &redirected(to_ours(Rule::default())).accept());
    // Neither from another network nor from outside, unless it was published.
    batch.rule(TABLE, "forward", &to_ours(Rule::default()).drop());
}

fn input(rule: Rule) -> Rule {
    rule.meta(Meta::InputName, REGISTER)
}

fn output(rule: Rule) -> Rule {
    rule.meta(Meta::OutputName, REGISTER)
}

fn from_ours(rule: Rule) -> Rule {
    input(rule).lookup("bridges", REGISTER, true)
}

fn to_ours(rule: Rule) -> Rule {
    output(rule).lookup("bridges", REGISTER, true)
}

/// A device's name takes four registers.
fn same_bridge(rule: Rule) -> Rule {
    input(rule).meta(Meta::OutputName, REGISTER + 4).lookup("same", REGISTER, true)
}

fn redirected(rule: Rule) -> Rule {
    let status = rule.connection(2, REGISTER).mask(REGISTER, &DESTINATION_CHANGED.to_ne_bytes());
    status.compare(REGISTER, false, &[0; 4])
}

fn of_family(rule: Rule, family: u8) -> Rule {
    rule.meta(Meta::Family, REGISTER).compare(REGISTER, true, &[family])
}

fn to_loopback(rule: Rule) -> Rule {
    of_family(rule, NFPROTO_IPV4).payload(1, 16, 1, REGISTER).compare(REGISTER, true, &[127])
}

fn from_loopback(rule: Rule) -> Rule {
    of_family(rule, NFPROTO_IPV4).payload(1, 12, 1, REGISTER).compare(REGISTER, true, &[127])
}

/// One address of the host before all of them: whoever published on one meant it.
fn publish(batch: &mut Batch) {
    for (family, name, offset, bytes) in [(NFPROTO_IPV4, "ports4", 16, 4), (NFPROTO_IPV6, "ports6", 24, 16)] {
        let words = bytes / 4;
        let rule = of_family(Rule::default(), family).payload(1, offset, bytes, REGISTER);
        let rule = rule.meta(Meta::Protocol, REGISTER + words).payload(2, 2, 2, REGISTER + words + 1);
        let rule = rule.lookup_value(&format!("{name}_on"), REGISTER, REGISTER);
        batch.rule(TABLE, "publish", &rule.destination(family, REGISTER, REGISTER + words));
        let rule = of_family(Rule::default(), family).meta(Meta::Protocol, REGISTER);
        let rule = rule.payload(2, 2, 2, REGISTER + 1).lookup_value(name, REGISTER, REGISTER);
        batch.rule(TABLE, "publish", &rule.destination(family, REGISTER, REGISTER + words));
    }
}

/// A device's name as a key.
pub(crate) fn device(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(DEVICE_BYTES as usize, 0);
    key
}

/// The keys of a network's bridge, by set.
pub(crate) fn bridge(network: &Network) -> Vec<(&'static str, Elements)> {
    let name = device(&network.bridge);
    let single = |key| vec![Element { key, ..Element::default() }];
    let mut all = vec![("bridges", single(name.clone())), ("same", single([name.clone(), name.clone()].concat()))];
    if network.internal {
        all.push(("internal", single(name.clone())));
    }
    for subnet in &network.subnets {
        let set = if subnet.gateway.is_ipv6() { "own6" } else { "own4" };
        let ends = [subnet.subnet.network(), subnet.subnet.broadcast()];
        let [key, end] = ends.map(|end| [name.clone(), address(end)].concat());
        all.push((set, vec![Element { key, end: Some(end), value: None }]));
    }
    all
}

/// The keys of published ports, by map.
pub(crate) fn ports(ports: &[PublishedPort]) -> Vec<(&'static str, Elements)> {
    let mut all: Vec<(&'static str, Elements)> = Vec::new();
    for port in ports {
        let set = match (port.host_ip, port.host_ip.is_unspecified()) {
            (IpAddr::V4(_), true) => "ports4",
            (IpAddr::V4(_), false) => "ports4_on",
            (IpAddr::V6(_), true) => "ports6",
            (IpAddr::V6(_), false) => "ports6_on",
        };
        let mut key = if port.host_ip.is_unspecified() { Vec::new() } else { address(port.host_ip) };
        key.extend([port.protocol.number(), 0, 0, 0]);
        key.extend(padded(port.host_port));
        let value = [address(port.container_ip), padded(port.container_port).to_vec()].concat();
        match all.iter_mut().find(|(name, _)| *name == set) {
            Some((_, elements)) => elements.push(Element { key, end: None, value: Some(value) }),
            None => all.push((set, vec![Element { key, end: None, value: Some(value) }])),
        }
    }
    all
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// In the container: questions to `127.0.0.11`, port 53, go to the ports that the name server has.
pub(crate) fn names(batch: &mut Batch, udp: u16, tcp: u16) {
    batch.table(NAMES_TABLE, &[]);
    batch.chain(NAMES_TABLE, "output", Some(&Hook { kind: "nat", number: 3, priority: -100 }));
    for (protocol, port) in [(17_u8, udp), (6, tcp)] {
        let rule = Rule::default().payload(1, 16, 4, REGISTER).compare(REGISTER, true, &crate::names::ADDRESS.octets());
        let rule = rule.meta(Meta::Protocol, REGISTER).compare(REGISTER, true, &[protocol]);
        let rule = rule.payload(2, 2, 2, REGISTER).compare(REGISTER, true, &53_u16.to_be_bytes());
        let rule = rule.value(REGISTER, &crate::names::ADDRESS.octets()).value(REGISTER + 1, &port.to_be_bytes());
        batch.rule(NAMES_TABLE, "output", &rule.destination(IPV4, REGISTER, REGISTER + 1));
    }
}

/// All sets and maps of the host's table.
pub(crate) const SETS: [&str; 9] =
    ["bridges", "internal", "same", "own4", "own6", "ports4", "ports4_on", "ports6", "ports6_on"];

/// A batch for the host's table.
pub(crate) fn batch() -> Batch {
    Batch::new(INET)
}
