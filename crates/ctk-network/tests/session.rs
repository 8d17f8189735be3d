//! A container's networks as a monitor holds them.

mod common;

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Duration;

use common::*;
use ctk_network::{Joined, Networks, Place, Request, Session};

struct Container {
    process: Child,
    space: OwnedFd,
    request: Request,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn container(lab: &Lab, name: &str, networks: &[&str], ports: &[&str]) -> Container {
    let space = namespace();
    let process = within(&space, || Command::new("sleep").arg("100").spawn().unwrap());
    let request = Request {
        endpoint: endpoint(name),
        joins: networks.iter().map(|text| text.parse().unwrap()).collect(),
        ports: ports.iter().map(|text| text.parse().unwrap()).collect(),
        dns: lab.dns(),
    };
    // As it is written down beside the container.
    let request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
    Container { process, space, request }
}

impl Container {
    fn place<'a>(&self, lab: &'a Lab, networks: Option<&'a Networks>) -> Place<'a> {
        Place { networks, folder: lab.directory.path(), programs: &[], pid: self.process.id() as i32 }
    }

    fn start(&self, lab: &Lab) -> (Session, Joined) {
        Session::start(&self.request, &self.place(lab, Some(&lab.networks))).unwrap()
    }

    /// Whether a name has an address.
    fn knows(&self, name: &str) -> bool {
        within(&self.space, || {
            let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
            question.extend_from_slice(name.as_bytes());
            question.extend_from_slice(&[0, 0, 1, 0, 1]);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            let mut answer = [0; 512];
            // Nobody listens; or no error, and one answer.
            socket.send(&question).is_ok() && socket.recv(&mut answer).is_ok() && answer[3] & 15 == 0 && answer[7] == 1
        })
    }
}

#[test]
fn a_session_is_held_resumed_and_ended() {
    let Some(lab) = lab() else { return };
    lab.network("more", |_| {});
    lab.network("mute", |options| options.disable_dns = true);
    let before = lab.state();
    let one = container(&lab, "one", &["bridge:alias=first"], &["8080:7000"]);
    let (session, joined) = one.start(&lab);
    assert_eq!(joined.interfaces[0].addresses[0].to_string(), "10.88.0.2/16");
    assert_eq!(serde_json::from_str::<Joined>(&serde_json::to_string(&joined).unwrap()).unwrap(), joined);
    let two = container(&lab, "two", &["mute"], &[]);
    let (mut second, joined) = two.start(&lab);
    assert_eq!(joined.resolv_conf, "");
    assert!(one.knows("one") && !two.knows("first"));
    // With the first network that has names, there is somebody who answers.
    second.connect(&"ctk".parse().unwrap()).unwrap();
    assert!(two.knows("first") && one.knows("two"));
    second.connect(&"more".parse().unwrap()).unwrap();
    second.disconnect("ctk").unwrap();
    assert!(!two.knows("first") && !one.knows("two"));
    // Killed: the container goes on, without names, until somebody takes it over.
    drop(session);
    within(&one.space, || serve(7000));
    assert!(!one.knows("one"));
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 8080)), "192.0.2.2");
    let session = Session::resume(&one.request, &one.place(&lab, Some(&lab.networks))).unwrap();
    assert!(one.knows("one"));
    // The port is held again.
    assert_eq!(std::net::TcpListener::bind("0.0.0.0:8080").unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    session.end().unwrap().clean_up();
    second.end().unwrap().clean_up();
    Session::end_of(&one.request.endpoint.id, Some(&lab.networks), lab.directory.path()).unwrap();
    lab.state().is_again(&before);
}

#[test]
fn who_comes_soon_finds_the_bridge_and_what_the_killed_left_goes() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    let one = container(&lab, "one", &["bridge"], &["8080:7000"]);
    let (session, joined) = one.start(&lab);
    let (bridge, device) = (numbers("ctk"), numbers("ctkv"));
    let leaving = session.end().unwrap();
    assert!(lab.networks.members("ctk").unwrap().is_empty());
    // Address and ports are free at once, though the devices are there.
    assert_eq!(numbers("ctkv"), device);
    let two = container(&lab, "two", &["bridge:ip=10.88.0.2"], &["8080:7000"]);
    let (session, again) = two.start(&lab);
    assert_eq!(again.interfaces[0].addresses, joined.interfaces[0].addresses);
    assert!(bridge.iter().all(|number| numbers("ctk").contains(number)), "the bridge is another one");
    leaving.clean_up();
    assert!(device.iter().all(|number| !numbers("ctkv").contains(number)), "the device of the first is there");
    // Killed before it has cleaned up: the next who comes does it; and the same container may be that one.
    drop(session.end().unwrap());
    let left = numbers("ctkv");
    let (session, _) = two.start(&lab);
    assert!(left.iter().all(|number| !numbers("ctkv").contains(number)), "the device of the killed is there");
    let leaving = session.end().unwrap();
    // Still at work on it, and the device's name is wanted.
    let (session, _) = two.start(&lab);
    let mine = numbers("ctkv");
    leaving.clean_up();
    assert_eq!(numbers("ctkv"), mine);
    session.end().unwrap().clean_up();
    lab.state().is_again(&before);
}

/// The numbers of the devices whose names begin so.
fn numbers(name: &str) -> Vec<String> {
    let begins = |line: &&str| line.split(' ').nth(1).is_some_and(|word| word.starts_with(name));
    ip("-o link").lines().filter(begins).map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn ordinary_users_have_the_default_network_only() {
    let Some(lab) = lab() else { return };
    for networks in [&["more"][..], &["bridge", "more"], &[], &["bridge:ip=10.88.0.9"]] {
        let one = container(&lab, "one", networks, &[]);
        let refused = Session::start(&one.request, &one.place(&lab, None)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a network of an ordinary user's container can only be the default one: bridges need root"
        );
    }
    let one = container(&lab, "one", &["bridge"], &[]);
    let refused = Session::start(&one.request, &one.place(&lab, None)).unwrap_err().to_string();
    assert!(refused.contains("needs pasta"), "{refused}");
}

#[test]
fn the_hosts_own_ipv6_loopback_leads_to_published_ports() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    lab.network("six", |options| options.subnets = vec!["fd00:5::/64".parse().unwrap()]);
    let one = container(&lab, "one", &["six"], &["9000:7000", "9000:7000/udp", "[::1]:9001:7000"]);
    let (session, joined) = one.start(&lab);
    let localhost = ip_of("::1");
    within(&one.space, || serve(7000));
    let host = joined.interfaces[0].gateways[0].to_string();
    let answers = |port| (ask_tcp(localhost, port), ask_udp(localhost, port));
    assert_eq!(answers(9000), (host.clone(), host.clone()));
    assert_eq!(answers(9000), (host.clone(), host.clone()));
    assert_eq!(ask_tcp(localhost, 9001), host);
    session.end().unwrap().clean_up();
    assert_eq!(ask_tcp(localhost, 9000), "ConnectionRefused");
    let two = container(&lab, "two", &["six"], &["9002:7002"]);
    let (session, _) = two.start(&lab);
    // Nobody listens there yet.
    assert!(ask_tcp(localhost, 9002).is_empty() || ask_tcp(localhost, 9002) == "ConnectionReset");
    within(&two.space, || {
        let listener = std::net::TcpListener::bind("[::]:7002").unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut copy = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut copy).unwrap();
        });
    });
    // Much both ways at once: whoever reads late gets everything.
    let mut stream = std::net::TcpStream::connect((localhost, 9002)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut received = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "{} bytes", received.len());
    // A killed monitor's successor copies again.
    drop(session);
    assert_eq!(ask_tcp(localhost, 9002), "ConnectionRefused");
    let session = Session::resume(&two.request, &two.place(&lab, Some(&lab.networks))).unwrap();
    assert_ne!(ask_tcp(localhost, 9002), "ConnectionRefused");
    session.end().unwrap().clean_up();
    lab.networks.remove("six").unwrap();
    lab.state().is_again(&before);
}
