//! Networks themselves: made, listed, removed, refused.

mod common;

use common::*;
use ctk_network::{DEFAULT_NETWORK, NetworkOptions};

fn refused(lab: &Lab, name: &str, change: impl FnOnce(&mut NetworkOptions)) -> String {
    let mut options = NetworkOptions { name: name.into(), ..NetworkOptions::default() };
    change(&mut options);
    lab.networks.create(&options).unwrap_err().to_string()
}

#[test]
fn networks_are_made_found_and_removed() {
    let Some(lab) = lab() else { return };
    assert_eq!(lab.networks.list().unwrap(), []);
    let default = lab.networks.get(DEFAULT_NETWORK).unwrap();
    assert_eq!(default.subnets[0].subnet.to_string(), "10.88.0.0/16");
    lab.network("one", |_| {});
    lab.network("two", |options| options.ipv6 = true);
    let all = lab.networks.list().unwrap();
    let shown: Vec<String> =
        all.iter().map(|one| format!("{} {} {}", one.name, one.bridge, one.subnets[0].subnet)).collect();
    assert_eq!(shown, ["ctk ctk0 10.88.0.0/16", "one ctk1 10.89.0.0/24", "two ctk2 10.89.1.0/24"]);
    assert!(all[2].subnets[1].subnet.to_string().starts_with("fd"));
    assert_eq!(lab.networks.get(&all[1].id[..12]).unwrap(), all[1]);
    assert_eq!(refused(&lab, "one", |_| {}), "a network `one` exists already");
    let mut options = NetworkOptions { name: "one".into(), ignore_existing: true, ..NetworkOptions::default() };
    options.subnets = vec!["10.1.0.0/24".parse().unwrap()];
    assert_eq!(lab.networks.create(&options).unwrap(), all[1]);
    let member = lab.attach("web", &["one"], &[]);
    assert_eq!(lab.networks.remove("one").unwrap_err().to_string(), "the network `one` is used by web");
    assert_eq!(lab.networks.prune().unwrap(), ["two"]);
    lab.networks.detach(&member.id).unwrap();
    lab.networks.remove("one").unwrap();
    let unknown = lab.networks.remove("one").unwrap_err();
    assert_eq!(unknown.to_string(), "no network `one`");
    assert!(unknown.hint().is_some());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let Some(lab) = lab() else { return };
    lab.network("there", |options| options.subnets = vec!["10.60.0.0/16".parse().unwrap()]);
    for name in ["", "..", "a/b", "-a", "host", "none", "container", &"x".repeat(129)] {
        assert!(refused(&lab, name, |_| {}).starts_with("invalid name of a network"), "{name}");
    }
    let with = |subnets: &[&str], gateways: &[&str], range: Option<&str>| {
        refused(&lab, "new", |options| {
            options.subnets = subnets.iter().map(|text| text.parse().unwrap()).collect();
            options.gateways = gateways.iter().map(|text| text.parse().unwrap()).collect();
            options.ranges = range.iter().map(|text| text.parse().unwrap()).collect();
        })
    };
    assert_eq!(
        with(&["10.60.5.0/24"], &[], None),
        "the subnet 10.60.5.0/24 overlaps 10.60.0.0/16 of the network `there`"
    );
    assert_eq!(
        with(&["192.0.0.0/16"], &[], None),
        "the subnet 192.0.0.0/16 overlaps 192.0.2.0/24 of the host's routes"
    );
    assert_eq!(with(&["10.1.0.0/24"], &["10.2.0.1"], None), "the gateway 10.2.0.1 is not in 10.1.0.0/24");
    assert_eq!(with(&["10.1.0.0/24"], &["10.1.0.255"], None), "the gateway 10.1.0.255 is not in 10.1.0.0/24");
    assert_eq!(
        with(&["10.1.0.0/24"], &[], Some("10.1.0.0/16")),
        "the range that begins at 10.1.0.0 is not in 10.1.0.0/24"
    );
    assert!(with(&["10.1.0.0/24", "10.2.0.0/24"], &[], None).starts_with("subnets of one family"));
    for special in ["127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/0", "169.254.0.0/16", "10.1.0.1/32", "fe80::/64", "ff00::/8"]
    {
        assert!(with(&[special], &[], None).starts_with("invalid subnet"), "{special}");
    }
    let mtu = |mtu| refused(&lab, "new", |options| (options.mtu, options.ipv6) = (Some(mtu), true));
    assert!(mtu(1279).starts_with("invalid MTU") && mtu(65536).starts_with("invalid MTU"));
    let bridge = |name: &str| refused(&lab, "new", |options| options.bridge = Some(name.into()));
    assert!(bridge("a/b").starts_with("invalid name of a bridge"));
    assert!(bridge("sixteen-letters-").starts_with("invalid name of a bridge"));
    assert_eq!(bridge("uplink"), "there is already a device `uplink` on the host, or of another network");
}

#[test]
fn subnets_run_out() {
    let Some(lab) = lab() else { return };
    for (net, device) in [("10.0.0.0/8", "uplink"), ("172.16.0.0/12", "uplink")] {
        ip(&format!("route add {net} dev {device}"));
    }
    assert_eq!(refused(&lab, "new", |_| {}), "no free IPv4 subnet is left in the ranges that networks are chosen from");
}

#[test]
fn the_rules_are_those_that_were_meant() {
    let Some(lab) = lab() else { return };
    lab.network("closed", |options| {
        options.internal = true;
        options.subnets = vec!["10.80.0.0/24".parse().unwrap(), "fd00:80::/64".parse().unwrap()];
    });
    let _one = lab.attach("one", &["ctk", "closed"], &["8080:80", "127.0.0.1:53:5353/udp"]);
    // As the nft program reads them back from the kernel.
    let shown = run("nft", "list table inet ctk");
    let written = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules.txt");
    if std::env::var_os("CTK_BLESS").is_some() {
        std::fs::write(&written, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(&written).unwrap(), "CTK_BLESS=1 writes it down");
}
