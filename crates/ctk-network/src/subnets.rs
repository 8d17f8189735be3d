//! Which addresses are free: values in, values out.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{AddressRange, Subnet};

/// The default network's, if it is free.
pub(crate) const DEFAULT_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16);

/// Subnets of IPv4 that networks are given, in this order: 10.89.0.0/24 and up, then 10.90.0.0/15 and 10.92.0.0/14 in
/// the same steps, as podman's users know them; then 172.20.0.0/14.
const POOLS: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::new(10, 89, 0, 0), 256),
    (Ipv4Addr::new(10, 90, 0, 0), 512),
    (Ipv4Addr::new(10, 92, 0, 0), 1024),
    (Ipv4Addr::new(172, 20, 0, 0), 1024),
];

/// Whether two subnets have an address in common.
pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// A free subnet of IPv4: none of the used ones has an address in it.
pub(crate) fn free_ipv4(used: &[IpNet], default: bool) -> Option<Ipv4Net> {
    let is_free = |net: &Ipv4Net| !used.iter().any(|other| overlap(&IpNet::V4(*net), other));
    let steps = |(first, count): (Ipv4Addr, u32)| {
        (0..count).map(move |step| Ipv4Net::new_assert(Ipv4Addr::from(u32::from(first) + step * 256), 24))
    };
    let first = default.then_some(DEFAULT_IPV4);
    first.into_iter().chain(POOLS.into_iter().flat_map(steps)).find(is_free)
}

/// A subnet of IPv6 from 40 bits of chance and a number: RFC 4193.
pub(crate) fn free_ipv6(used: &[IpNet], chance: u64) -> Option<Ipv6Net> {
    let [_, _, _, a, b, c, d, e] = chance.to_be_bytes();
    let prefix = |subnet: u16| {
        let [high, low] = subnet.to_be_bytes();
        Ipv6Net::new_assert(Ipv6Addr::from([0xfd, a, b, c, d, e, high, low, 0, 0, 0, 0, 0, 0, 0, 0]), 64)
    };
    (0..=u16::MAX).map(prefix).find(|net| !used.iter().any(|other| overlap(&IpNet::V6(*net), other)))
}

/// The lowest address that a device may have.
pub(crate) fn first(net: &IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) if net.prefix_len() >= 31 => net.network().into(),
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()) + 1).into(),
        IpNet::V6(net) if net.prefix_len() >= 127 => net.network().into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()) + 1).into(),
    }
}

/// The highest address that a device may have.
fn last(net: &IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) if net.prefix_len() >= 31 => net.broadcast().into(),
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.broadcast()) - 1).into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

/// Whether a device may have this address: it is in the subnet and does not mean all of it.
pub(crate) fn is_usable(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address) && number(address) >= number(first(net)) && number(address) <= number(last(net))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn address(number: u128, like: &IpNet) -> IpAddr {
    match like {
        IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The next free address of a subnet behind the one that was given last; `None` if all are used. Addresses go round:
/// one that was just given back is somebody's for longest in caches of neighbours and name servers.
pub(crate) fn next_free(subnet: &Subnet, used: &HashSet<IpAddr>, last_given: Option<IpAddr>) -> Option<IpAddr> {
    let net = &subnet.subnet;
    let range = subnet.range.unwrap_or(AddressRange { first: first(net), last: last(net) });
    let low = number(range.first).max(number(first(net)));
    let high = number(range.last).min(number(last(net)));
    let start = last_given.map_or(low, |last| number(last).saturating_add(1));
    let start = if start < low || start > high { low } else { start };
    let is_free = |candidate: &IpAddr| *candidate != subnet.gateway && !used.contains(candidate);
    // A subnet of IPv6 is not walked to its end: more addresses than are used need not be looked at.
    let enough = used.len() as u128 + 2;
    let behind = (start..=high).take(usize::try_from(enough).unwrap_or(usize::MAX));
    let before = (low..start).take(usize::try_from(enough).unwrap_or(usize::MAX));
    behind.chain(before).map(|number| address(number, net)).find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(net: &str, range: Option<&str>) -> Subnet {
        let subnet: IpNet = net.parse().unwrap();
        Subnet { subnet, gateway: first(&subnet), range: range.map(|text| text.parse().unwrap()) }
    }

    #[track_caller]
    fn check(subnet: &Subnet, used: &[&str], last: Option<&str>, expected: Option<&str>) {
        let used = used.iter().map(|text| text.parse().unwrap()).collect();
        let found = next_free(subnet, &used, last.map(|text| text.parse().unwrap()));
        assert_eq!(found.map(|found| found.to_string()).as_deref(), expected);
    }

    #[test]
    fn addresses_go_round() {
        let net = subnet("10.89.0.0/29", None);
        check(&net, &[], None, Some("10.89.0.2"));
        check(&net, &[], Some("10.89.0.2"), Some("10.89.0.3"));
        check(&net, &["10.89.0.3"], Some("10.89.0.2"), Some("10.89.0.4"));
        check(&net, &[], Some("10.89.0.6"), Some("10.89.0.2"));
        check(&net, &["10.89.0.5", "10.89.0.6"], Some("10.89.0.4"), Some("10.89.0.2"));
        check(&net, &["10.89.0.2", "10.89.0.3", "10.89.0.4", "10.89.0.5", "10.89.0.6"], None, None);
    }

    #[test]
    fn ranges_bound_what_is_chosen() {
        let net = subnet("10.89.0.0/24", Some("10.89.0.250-10.89.0.255"));
        check(&net, &[], Some("10.89.0.7"), Some("10.89.0.250"));
        check(&net, &[], Some("10.89.0.254"), Some("10.89.0.250"));
    }

    #[test]
    fn the_smallest_and_the_largest_subnets_work() {
        check(&subnet("10.0.0.0/31", None), &[], None, Some("10.0.0.1"));
        check(&subnet("10.0.0.0/32", None), &[], None, None);
        check(&subnet("fd00::/64", None), &[], None, Some("fd00::2"));
        check(&subnet("fd00::/64", None), &[], Some("fd00::ffff:ffff:ffff:ffff"), Some("fd00::2"));
        check(&subnet("fd00::/127", None), &["fd00::1"], None, None);
        check(&subnet("0.0.0.0/0", None), &[], Some("255.255.255.254"), Some("0.0.0.2"));
    }

    #[test]
    fn subnets_are_found_beside_what_is_used() {
        let used = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert_eq!(free_ipv4(&[], true).unwrap().to_string(), "10.88.0.0/16");
        assert_eq!(free_ipv4(&used(&["10.88.3.0/24"]), true).unwrap().to_string(), "10.89.0.0/24");
        assert_eq!(free_ipv4(&used(&["10.89.0.0/23", "10.89.2.5/32"]), false).unwrap().to_string(), "10.89.3.0/24");
        assert_eq!(free_ipv4(&used(&["10.0.0.0/8"]), false).unwrap().to_string(), "172.20.0.0/24");
        assert_eq!(free_ipv4(&used(&["10.0.0.0/8", "172.16.0.0/12"]), false), None);
        let net = free_ipv6(&[], 0xffff_ff01_0203_0405).unwrap();
        assert_eq!(net.to_string(), "fd01:203:405::/64");
    }

    #[test]
    fn all_of_a_subnet_is_no_device() {
        let net: IpNet = "10.0.0.0/24".parse().unwrap();
        for (text, expected) in [("10.0.0.0", false), ("10.0.0.255", false), ("10.0.0.1", true), ("10.0.1.1", false)] {
            assert_eq!(is_usable(&net, text.parse().unwrap()), expected, "{text}");
        }
    }
}
