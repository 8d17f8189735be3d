//! Containers on bridges: who reaches whom, as whom.

mod common;

use common::*;

#[test]
fn neighbours_and_the_world_are_reached_and_nothing_is_left() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let (one, two) = (lab.attach("one", &["ctk"], &[]), lab.attach("two", &["ctk"], &[]));
    one.serve(7000);
    within(&lab.world, || serve(7001));
    let address = one.address(0, false);
    assert_eq!(address.to_string(), "10.88.0.2");
    assert_eq!(within(&two.namespace, || ask_tcp(address, 7000)), "10.88.0.3");
    assert_eq!(within(&two.namespace, || ask_udp(address, 7000)), "10.88.0.3");
    // The host reaches it without a published port; to the world, it is the host.
    assert_eq!(ask_tcp(address, 7000), "10.88.0.1");
    assert_eq!(within(&two.namespace, || ask_tcp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    assert_eq!(within(&two.namespace, || ask_udp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    // The world does not reach it, though it knows the way.
    within(&lab.world, || ip("route add 10.88.0.0/16 via 192.0.2.1"));
    assert_eq!(within(&lab.world, || ask_tcp(address, 7000)), "TimedOut");
    lab.networks.detach(&one.id).unwrap();
    lab.networks.detach(&two.id).unwrap();
    lab.state().is_again(&before);
}

#[test]
fn networks_do_not_reach_each_other() {
    let Some(lab) = lab() else { return };
    lab.network("front", |_| {});
    lab.network("back", |options| options.internal = true);
    let front = lab.attach("front", &["front"], &[]);
    let back = lab.attach("back", &["back"], &[]);
    let both = lab.attach("both", &["back", "front"], &[]);
    for container in [&front, &back, &both] {
        container.serve(7000);
    }
    within(&lab.world, || serve(7001));
    let (front_ip, back_ip) = (front.address(0, false), back.address(0, false));
    assert_eq!((front_ip.to_string(), back_ip.to_string()), ("10.89.0.2".into(), "10.89.1.2".into()));
    assert_eq!(within(&front.namespace, || ask_tcp(back_ip, 7000)), "TimedOut");
    assert_eq!(within(&back.namespace, || ask_tcp(front_ip, 7000)), "NetworkUnreachable");
    // Not even when it makes itself a way.
    let way = |gateway: &str| ip(&format!("route add default via {gateway}"));
    within(&back.namespace, || way("10.89.1.1"));
    assert_eq!(within(&back.namespace, || ask_tcp(front_ip, 7000)), "TimedOut");
    assert_eq!(within(&back.namespace, || ask_tcp(ip_of("192.0.2.2"), 7001)), "TimedOut");
    // Who is on both reaches both, and the world by the one that has a way out.
    assert_eq!(within(&both.namespace, || ask_tcp(front_ip, 7000)), "10.89.0.3");
    assert_eq!(within(&both.namespace, || ask_tcp(back_ip, 7000)), "10.89.1.3");
    assert_eq!(within(&both.namespace, || ask_tcp(ip_of("192.0.2.2"), 7001)), "192.0.2.1");
    assert!(both.attachment.interfaces[0].gateways.is_empty());
    assert_eq!(both.attachment.interfaces[1].gateways, [ip_of("10.89.0.1")]);
}

#[test]
fn ipv6_is_there_like_ipv4() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    lab.network("six", |options| options.subnets = vec!["fd00:5::/64".parse().unwrap()]);
    lab.network("dual", |options| options.ipv6 = true);
    let six = lab.attach("six", &["six"], &["9000:7000"]);
    let dual = lab.attach("dual", &["dual"], &["9001:7000", "9001:7000/udp"]);
    let other = lab.attach("other", &["dual"], &[]);
    within(&lab.world, || serve(7001));
    six.serve(7000);
    dual.serve(7000);
    assert_eq!(six.address(0, true).to_string(), "fd00:5::2");
    let dual_6 = dual.address(0, true);
    assert_eq!(within(&other.namespace, || ask_tcp(dual_6, 7000)), other.address(0, true).to_string());
    assert_eq!(within(&six.namespace, || ask_tcp(dual_6, 7000)), "TimedOut");
    assert_eq!(within(&six.namespace, || ask_tcp(ip_of("2001:db8::2"), 7001)), "2001:db8::1");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("2001:db8::1"), 9000)), "2001:db8::2");
    assert_eq!(within(&lab.world, || ask_udp(ip_of("2001:db8::1"), 9001)), "2001:db8::2");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 9001)), "192.0.2.2");
    assert_eq!(within(&other.namespace, || ask_tcp(ip_of("2001:db8::1"), 9000)), other.address(0, true).to_string());
    assert_eq!(ask_tcp(ip_of("2001:db8::1"), 9000), "2001:db8::1");
    assert_eq!(ask_tcp(ip_of("::1"), 9000), "ConnectionRefused");
    for container in [&six, &dual, &other] {
        lab.networks.detach(&container.id).unwrap();
    }
    lab.state().is_again(&before);
}

#[test]
fn a_container_joins_and_leaves_while_it_runs() {
    let Some(lab) = lab() else { return };
    lab.network("more", |_| {});
    let before = lab.state();
    let (one, two) = (lab.attach("one", &["ctk"], &[]), lab.attach("two", &["more"], &[]));
    two.serve(7000);
    use std::os::fd::AsFd;
    let mut more = join("more");
    more.ipv4 = Some("10.89.0.77".parse().unwrap());
    let interface = lab.networks.connect(&endpoint("one"), one.namespace.as_fd(), &more).unwrap();
    assert_eq!((interface.name.as_str(), interface.gateways.len()), ("eth1", 0));
    assert_eq!(within(&one.namespace, || ask_tcp(two.address(0, false), 7000)), "10.89.0.77");
    assert_eq!(lab.networks.interfaces(&one.id).unwrap().len(), 2);
    let again = lab.networks.connect(&endpoint("one"), one.namespace.as_fd(), &join("more"));
    assert_eq!(again.unwrap_err().to_string(), "the container `one` is already on the network `more`");
    lab.networks.disconnect(&one.id, "more").unwrap();
    assert!(!within(&one.namespace, || ip("addr")).contains("eth1"));
    let again = lab.networks.disconnect(&one.id, "more").unwrap_err().to_string();
    assert!(again.ends_with("is not on the network `more`"), "{again}");
    lab.networks.detach(&one.id).unwrap();
    lab.networks.detach(&two.id).unwrap();
    lab.state().is_again(&before);
}

#[test]
fn addresses_that_were_asked_for_are_given_or_refused() {
    let Some(lab) = lab() else { return };
    lab.network("small", |options| options.subnets = vec!["10.70.0.0/29".parse().unwrap()]);
    let at = |address: &str| {
        let mut join = join("small");
        match ip_of(address) {
            std::net::IpAddr::V4(address) => join.ipv4 = Some(address),
            std::net::IpAddr::V6(address) => join.ipv6 = Some(address),
        }
        join
    };
    let mut first = at("10.70.0.3");
    first.mac = Some("02:00:00:00:00:07".parse().unwrap());
    first.interface = Some("lan0".into());
    let one = lab.try_attach("one", &[first], &[]).unwrap();
    let shown = within(&one.namespace, || ip("addr show lan0"));
    assert!(shown.contains("10.70.0.3/29") && shown.contains("02:00:00:00:00:07"), "{shown}");
    let refused = |address: &str| lab.try_attach("two", &[at(address)], &[]).err().unwrap().to_string();
    assert_eq!(refused("10.70.0.3"), "the address 10.70.0.3 is already used on the network `small` by `one`");
    assert_eq!(refused("10.70.0.1"), "the address 10.70.0.1 is already used on the network `small` by the host");
    assert_eq!(refused("10.70.0.7"), "the address 10.70.0.7 is not in 10.70.0.0/29");
    assert_eq!(refused("10.71.0.2"), "the address 10.71.0.2 is not in 10.70.0.0/29");
    assert_eq!(refused("fd00::2"), "the address fd00::2 is not in 10.70.0.0/29");
    let rest: Vec<Box_> = ["a", "b", "c", "d"].iter().map(|name| lab.attach(name, &["small"], &[])).collect();
    let given: Vec<String> = rest.iter().map(|one| one.address(0, false).to_string()).collect();
    // Behind the last that was given; then around.
    assert_eq!(given, ["10.70.0.4", "10.70.0.5", "10.70.0.6", "10.70.0.2"]);
    let full = lab.try_attach("two", &[join("small")], &[]).err().unwrap().to_string();
    assert_eq!(full, "the network `small` has no free address left in 10.70.0.0/29");
    lab.networks.detach(&rest[1].id).unwrap();
    assert_eq!(lab.attach("two", &["small"], &[]).address(0, false).to_string(), "10.70.0.5");
    let twice = lab.try_attach("x", &[join("small"), join("small")], &[]).err().unwrap().to_string();
    assert_eq!(twice, "the container `x` is already on the network `small`");
    let unknown = lab.try_attach("x", &[join("smal")], &[]).err().unwrap().to_string();
    assert_eq!(unknown, "no network `smal`; did you mean `small`?");
}

#[test]
fn packets_are_as_large_as_the_network_says() {
    let Some(lab) = lab() else { return };
    lab.network("jumbo", |options| options.mtu = Some(9000));
    let one = lab.attach("one", &["jumbo"], &[]);
    assert!(within(&one.namespace, || ip("link show eth0")).contains("mtu 9000"));
    assert!(ip("link show ctk0").contains("mtu 9000"));
}
