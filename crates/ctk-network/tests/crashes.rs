//! Killed processes, many at once, others who change the same host: nothing is lost and nothing is left.

mod common;

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;
use ctk_network::{Join, Networks, Port};

/// Not a test: what a process does that is killed. Attaches and detaches as long as it lives.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os("CTK_NETWORK_VICTIM") else { return };
    let networks = Networks::open(std::path::Path::new(&directory)).unwrap();
    let ports: Vec<Port> = vec!["8080:80".parse().unwrap(), "8080:80/udp".parse().unwrap()];
    loop {
        let space = namespace();
        let dns = ctk_network::DnsOptions::default();
        let joins = [join("ctk"), join("dual")];
        networks.attach(&endpoint("victim"), space.as_fd(), &joins, &ports, &dns).unwrap();
        networks.detach(&endpoint("victim").id).unwrap();
    }
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    lab.network("dual", |options| options.ipv6 = true);
    let directory = lab.directory.path().join("networks");
    for round in 0..40_u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim"])
            .env("CTK_NETWORK_VICTIM", &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + (round * 37) % 90));
        victim.kill().unwrap();
        victim.wait().unwrap();
        // Its namespaces go with it, some time later; nobody has to wait for that.
        if round % 4 == 0 {
            let survivor = lab.attach("survivor", &["ctk", "dual"], &[]);
            lab.networks.detach(&survivor.id).unwrap();
        }
    }
    eventually("its devices are gone", || {
        lab.networks.recover().unwrap();
        lab.networks.members("ctk").unwrap().is_empty() && lab.networks.members("dual").unwrap().is_empty()
    });
    lab.state().is_again(&before);
    let again = lab.attach("again", &["ctk", "dual"], &["8080:80"]);
    lab.networks.detach(&again.id).unwrap();
    lab.state().is_again(&before);
}

#[test]
fn fifty_come_at_once_and_go_at_once() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    lab.network("dual", |options| options.ipv6 = true);
    let threads: Vec<_> = (0..50)
        .map(|number| {
            let networks = lab.networks.clone();
            std::thread::spawn(move || {
                let space = namespace();
                let name = format!("c{number}");
                let joins: Vec<Join> =
                    if number % 2 == 0 { vec![join("ctk")] } else { vec![join("dual"), join("ctk")] };
                let ports: Vec<Port> = vec![format!("{}:80", 9000 + number).parse().unwrap(), "80".parse().unwrap()];
                let dns = ctk_network::DnsOptions::default();
                let attachment = networks.attach(&endpoint(&name), space.as_fd(), &joins, &ports, &dns).unwrap();
                (name, space, attachment)
            })
        })
        .collect();
    let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let mut addresses: Vec<_> =
        all.iter().flat_map(|(_, _, one)| one.interfaces.iter().flat_map(|one| one.addresses.clone())).collect();
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), count), (100, 100));
    assert_eq!(lab.networks.members("ctk").unwrap().len(), 50);
    let threads: Vec<_> = all
        .into_iter()
        .map(|(name, space, _)| {
            let networks = lab.networks.clone();
            std::thread::spawn(move || {
                networks.detach(&endpoint(&name).id).unwrap();
                drop(space);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    lab.state().is_again(&before);
}

#[test]
fn two_stores_share_a_host() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let other = Networks::open(&lab.directory.path().join("other")).unwrap();
    let one = lab.attach("one", &["ctk"], &["8080:80"]);
    let space = namespace();
    let dns = lab.dns();
    // The first one's subnet is on the host: the second takes another.
    let two = other.attach(&endpoint("two"), space.as_fd(), &[join("ctk")], &[], &dns).unwrap();
    assert_eq!(two.interfaces[0].addresses[0].to_string(), "10.89.0.2/24");
    lab.networks.detach(&one.id).unwrap();
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
    other.detach(&endpoint("two").id).unwrap();
    lab.state().is_again(&before);
    // The two folders are made; the first store's network would be in the way of nothing now.
    let again = lab.attach("one", &["ctk"], &[]);
    assert_eq!(again.address(0, false).to_string(), "10.88.0.3");
}

#[test]
fn settings_that_were_so_before_stay_so() {
    let Some(lab) = lab() else { return };
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/uplink/accept_ra", "1").unwrap();
    let before = lab.state();
    lab.network("dual", |options| options.ipv6 = true);
    let four = lab.attach("four", &["ctk"], &["8080:80"]);
    let both = lab.attach("both", &["dual"], &["8081:80"]);
    // A host that listens to routers goes on listening when it becomes one.
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/uplink/accept_ra").unwrap(), "2\n");
    both.serve(80);
    four.serve(80);
    // The table was made again, with what was in it.
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 8080)), "192.0.2.2");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("2001:db8::1"), 8081)), "2001:db8::2");
    lab.networks.detach(&both.id).unwrap();
    lab.networks.detach(&four.id).unwrap();
    lab.state().is_again(&before);
}

#[test]
fn a_packet_filter_that_was_emptied_is_filled_again() {
    let Some(lab) = lab() else { return };
    let one = lab.attach("one", &["ctk"], &["8080:7000"]);
    one.serve(7000);
    run("nft", "flush ruleset");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 8080)), "ConnectionRefused");
    let two = lab.attach("two", &["ctk"], &[]);
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 8080)), "192.0.2.2");
    assert_eq!(within(&two.namespace, || ask_tcp(ip_of("192.0.2.1"), 8080)), "10.88.0.1");
    run("nft", "flush ruleset");
    lab.networks.detach(&one.id).unwrap();
    lab.networks.detach(&two.id).unwrap();
    assert!(!ip("link").contains("ctk"));
}

#[test]
fn members_of_an_earlier_boot_are_none() {
    let Some(lab) = lab() else { return };
    let one = lab.attach("one", &["ctk"], &["8080:80"]);
    let file = lab.directory.path().join("networks/by-name/ctk/members").join(&one.id);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    lab.networks.detach(&one.id).unwrap();
    std::fs::write(&file, text.replace(boot.trim(), "earlier")).unwrap();
    std::fs::write(file.with_file_name("half"), "{\"id\":").unwrap();
    assert_eq!(lab.networks.members("ctk").unwrap(), []);
    lab.networks.remove("ctk").unwrap();
    assert_eq!(lab.networks.list().unwrap(), []);
}

#[test]
fn a_device_of_somebody_else_is_left_alone() {
    let Some(lab) = lab() else { return };
    lab.network("mine", |options| options.bridge = Some("br-mine".into()));
    ip("link add br-mine type bridge");
    let refused = lab.try_attach("one", &[join("mine")], &[]).err().unwrap().to_string();
    assert_eq!(refused, "there is already a device `br-mine` on the host that is not ours");
    lab.networks.recover().unwrap();
    lab.networks.remove("mine").unwrap();
    assert!(ip("link").contains("br-mine"));
}
