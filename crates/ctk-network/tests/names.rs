//! Names in containers: with the C library's own packets, and a real name server of the host behind.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use ctk_network::{HostAddress, Join};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

fn question(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

fn shown(bytes: &[u8]) -> String {
    let packet = Packet::parse(bytes).unwrap();
    assert_eq!(packet.id(), 0x1234);
    let data = packet.answers.iter().map(|record| match &record.rdata {
        RData::A(a) => Ipv4Addr::from(a.address).to_string(),
        RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
        RData::PTR(name) => name.0.to_string(),
        RData::TXT(_) => "text".into(),
        other => format!("{other:?}"),
    });
    let cut = packet.has_flags(PacketFlag::TRUNCATION).then(|| "truncated".to_owned());
    format!("{:?} {}", packet.rcode(), data.chain(cut).collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

/// As a resolver would: at port 53 of 127.0.0.11.
fn look_up(of: &Box_, name: &str, kind: TYPE) -> String {
    within(&of.namespace, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        let mut buffer = [0; 4096];
        // As resolvers do: what is lost is asked again.
        for _ in 0..3 {
            socket.send(&question(name, kind)).unwrap();
            if let Ok(length) = socket.recv(&mut buffer) {
                return shown(&buffer[..length]);
            }
        }
        "no answer".into()
    })
}

fn look_up_over_tcp(of: &Box_, name: &str, kind: TYPE) -> String {
    within(&of.namespace, || {
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
        let question = question(name, kind);
        stream.write_all(&[&(question.len() as u16).to_be_bytes(), question.as_slice()].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes).unwrap();
        shown(&bytes)
    })
}

/// A name server of the host. Ends with it.
struct Upstream(Child);

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `None`, and a word about it, where there is no dnsmasq.
fn upstream(lab: &Lab, address: &str) -> Option<Upstream> {
    if !std::path::Path::new("/usr/sbin/dnsmasq").exists() {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "needs dnsmasq");
        eprintln!("skipped: needs dnsmasq (dnsmasq-base)");
        return None;
    }
    let long = format!("--txt-record=long.test,{}", vec!["x".repeat(250); 12].join(","));
    let child = Command::new("/usr/sbin/dnsmasq")
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"])
        .args(["--user=root", "--pid-file", "--address=/example.test/198.51.100.7", "--log-facility=/dev/null"])
        .args([&format!("--listen-address={address}"), &long])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let up = Upstream(child);
    eventually("dnsmasq answers", || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = socket.send_to(&question("example.test", TYPE::A), (address, 53));
        socket.recv(&mut [0; 512]).is_ok()
    });
    let _ = lab;
    Some(up)
}

#[test]
fn containers_find_each_other_by_name() {
    let Some(lab) = lab() else { return };
    lab.network("back", |options| options.ipv6 = true);
    lab.network("apart", |_| {});
    let with_alias = |alias: &str| Join { aliases: vec![alias.into()], ..join("back") };
    let one = lab.attach("one", &["back"], &[]);
    let _server = lab.name_server(&one);
    let two = lab.try_attach("two", &[with_alias("store")], &[]).unwrap();
    let _three = lab.try_attach("three", &[with_alias("store")], &[]).unwrap();
    let _four = lab.attach("four", &["apart"], &[]);
    assert!(one.attachment.needs_name_server);
    assert_eq!(one.attachment.resolv_conf, "nameserver 127.0.0.11\noptions ndots:0\n");
    assert_eq!(look_up(&one, "two", TYPE::A), format!("NoError {}", two.address(0, false)));
    assert_eq!(look_up(&one, "Two.Back", TYPE::AAAA), format!("NoError {}", two.address(0, true)));
    assert_eq!(look_up(&one, &two.id[..12], TYPE::A), format!("NoError {}", two.address(0, false)));
    assert_eq!(look_up_over_tcp(&one, "two", TYPE::A), format!("NoError {}", two.address(0, false)));
    assert_eq!(look_up(&one, "3.0.89.10.in-addr.arpa", TYPE::PTR), "NoError two");
    let turns: Vec<String> = (0..2).map(|_| look_up(&one, "store", TYPE::A)).collect();
    assert!(turns.contains(&"NoError 10.89.0.3 10.89.0.4".into()), "{turns:?}");
    assert!(turns.contains(&"NoError 10.89.0.4 10.89.0.3".into()), "{turns:?}");
    // Of another network, nobody knows; and there is nobody else to ask.
    assert_eq!(look_up(&one, "four", TYPE::A), "ServerFailure");
    // Who left is not found, who came is.
    lab.networks.detach(&two.id).unwrap();
    assert_eq!(look_up(&one, "two", TYPE::A), "ServerFailure");
    assert_eq!(look_up(&one, "store", TYPE::A), "NoError 10.89.0.4");
    let five = lab.attach("five", &["back"], &[]);
    assert_eq!(look_up(&one, "five", TYPE::A), format!("NoError {}", five.address(0, false)));
}

#[test]
fn other_names_are_asked_of_the_hosts_name_servers() {
    let Some(lab) = lab() else { return };
    // As systemd-resolved is: on a loopback that only the host has.
    let Some(up) = upstream(&lab, "127.0.0.53") else { return };
    std::fs::write(
        lab.resolv_conf(),
        "nameserver 127.0.0.77\nnameserver 127.0.0.53\nsearch corp.test\noptions timeout:1\n",
    )
    .unwrap();
    let one = lab.attach("one", &["ctk"], &[]);
    assert_eq!(one.attachment.resolv_conf, "nameserver 127.0.0.11\nsearch corp.test\noptions timeout:1 ndots:0\n");
    let _server = lab.name_server(&one);
    // The first refuses; the second knows.
    assert_eq!(look_up(&one, "www.example.test", TYPE::A), "NoError 198.51.100.7");
    assert_eq!(look_up_over_tcp(&one, "www.example.test", TYPE::A), "NoError 198.51.100.7");
    assert_eq!(look_up(&one, "nobody.test", TYPE::A), "Refused");
    // Too long for UDP: the client comes again.
    assert_eq!(look_up(&one, "long.test", TYPE::TXT), "NoError truncated");
    assert_eq!(look_up_over_tcp(&one, "long.test", TYPE::TXT), "NoError text");
    // The host's servers change, and fail.
    drop(up);
    assert_eq!(look_up(&one, "www.example.test", TYPE::A), "ServerFailure");
    assert_eq!(look_up_over_tcp(&one, "www.example.test", TYPE::A), "ServerFailure");
    let Some(_up) = upstream(&lab, "192.0.2.1") else { return };
    std::fs::write(lab.resolv_conf(), "nameserver 192.0.2.1\n").unwrap();
    assert_eq!(look_up(&one, "www.example.test", TYPE::A), "NoError 198.51.100.7");
    // A server that says nothing is given up, the next is asked.
    within(&lab.world, || {
        let deaf = UdpSocket::bind("192.0.2.2:53").unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(30));
            drop(deaf);
        });
    });
    std::fs::write(lab.resolv_conf(), "nameserver 192.0.2.2\nnameserver 192.0.2.1\n").unwrap();
    assert_eq!(look_up(&one, "www.example.test", TYPE::A), "NoError 198.51.100.7");
}

#[test]
fn who_has_no_way_out_has_none_by_names_either() {
    let Some(lab) = lab() else { return };
    let Some(_up) = upstream(&lab, "127.0.0.53") else { return };
    std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.53\n").unwrap();
    lab.network("closed", |options| options.internal = true);
    let (one, two) = (lab.attach("one", &["closed"], &[]), lab.attach("two", &["closed"], &[]));
    let _server = lab.name_server(&one);
    assert_eq!(look_up(&one, "two", TYPE::A), format!("NoError {}", two.address(0, false)));
    assert_eq!(look_up(&one, "www.example.test", TYPE::A), "Refused");
    assert_eq!(look_up_over_tcp(&one, "www.example.test", TYPE::A), "Refused");
}

#[test]
fn a_container_serves_names_itself_at_port_53() {
    let Some(lab) = lab() else { return };
    let one = lab.attach("one", &["ctk"], &[]);
    let _server = lab.name_server(&one);
    within(&one.namespace, || {
        let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        let _tcp = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
        // Only questions to 127.0.0.11 are ours.
        assert_eq!(ask_tcp("127.0.0.1".parse::<IpAddr>().unwrap(), 54), "ConnectionRefused");
    });
    assert_eq!(look_up(&one, "one", TYPE::A), "NoError 10.88.0.2");
    // A monitor that was started again.
    let _again = lab.name_server(&one);
    assert_eq!(look_up(&one, "one", TYPE::A), "NoError 10.88.0.2");
    assert_eq!(look_up_over_tcp(&one, "one", TYPE::A), "NoError 10.88.0.2");
}

#[test]
fn nothing_that_is_sent_stops_the_name_server() {
    let Some(lab) = lab() else { return };
    let one = lab.attach("one", &["ctk"], &[]);
    let _server = lab.name_server(&one);
    let _held = within(&one.namespace, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let good = question("one", TYPE::A);
        for length in 0..good.len() {
            socket.send_to(&good[..length], "127.0.0.11:53").unwrap();
        }
        for seed in 0_u32..2000 {
            let mut bytes = good.clone();
            let at = seed.wrapping_mul(2_654_435_761) as usize;
            let place = at % bytes.len();
            bytes[place] = (at >> 16) as u8;
            let _ = socket.send_to(&bytes, "127.0.0.11:53");
        }
        // More connections than are served, most of them silent; one that announces more than it sends.
        let mut streams: Vec<TcpStream> = (0..40).filter_map(|_| TcpStream::connect("127.0.0.11:53").ok()).collect();
        let _ = streams[0].write_all(&[0xff, 0xff, 1, 2, 3]);
        streams
    });
    assert_eq!(look_up(&one, "one", TYPE::A), "NoError 10.88.0.2");
}

#[test]
fn hosts_and_resolv_conf_say_what_was_asked_for() {
    let Some(lab) = lab() else { return };
    std::fs::write(lab.resolv_conf(), "nameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch corp.test\n").unwrap();
    lab.network("plain", |options| options.disable_dns = true);
    use std::os::fd::AsFd;
    let mut dns = lab.dns();
    dns.hosts = vec![
        ("db.test".into(), HostAddress::Address(ip_of("198.51.100.9"))),
        ("host.docker.internal".into(), HostAddress::Gateway),
    ];
    dns.options = vec!["ndots:3".into()];
    let space = namespace();
    let attachment = lab.networks.attach(&endpoint("web"), space.as_fd(), &[join("plain")], &[], &dns).unwrap();
    assert!(!attachment.needs_name_server);
    // The host's loopback is not the container's.
    assert_eq!(attachment.resolv_conf, "nameserver 192.0.2.53\nsearch corp.test\noptions ndots:3\n");
    assert_eq!(
        attachment.hosts,
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n198.51.100.9\tdb.test\n\
         10.89.0.1\thost.docker.internal\n10.89.0.1\thost.containers.internal\n10.89.0.2\tweb\n"
    );
}
