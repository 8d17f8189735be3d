//! Published ports: from where they are reached, and whose they are.

mod common;

use std::net::{IpAddr, TcpListener, UdpSocket};

use common::*;

#[test]
fn a_published_port_is_reached_from_everywhere_and_knows_its_client() {
    let Some(lab) = lab() else { return };
    let before = lab.state();
    lab.network("other", |_| {});
    let web = lab.attach("web", &["ctk"], &["8080:7000", "8080:7000/udp"]);
    let neighbour = lab.attach("neighbour", &["ctk"], &[]);
    let stranger = lab.attach("stranger", &["other"], &[]);
    web.serve(7000);
    let host = ip_of("192.0.2.1");
    for ask in [ask_tcp as fn(IpAddr, u16) -> String, ask_udp] {
        assert_eq!(within(&lab.world, || ask(host, 8080)), "192.0.2.2");
        // From the host itself, which is the bridge to the container.
        assert_eq!(ask(ip_of("127.0.0.1"), 8080), "10.88.0.1");
        assert_eq!(ask(ip_of("127.3.2.1"), 8080), "10.88.0.1");
        // By the host's address it is still who it is; the answer must find the way back.
        assert!(["10.88.0.1", "192.0.2.1"].contains(&ask(host, 8080).as_str()));
        // A neighbour, and itself, by the host's address.
        assert_eq!(within(&neighbour.namespace, || ask(host, 8080)), "10.88.0.1");
        assert_eq!(within(&neighbour.namespace, || ask(ip_of("10.88.0.1"), 8080)), "10.88.0.1");
        assert_eq!(within(&web.namespace, || ask(host, 8080)), "10.88.0.1");
        // A container of another network, as everybody.
        assert_eq!(within(&stranger.namespace, || ask(host, 8080)), stranger.address(0, false).to_string());
    }
    for container in [&web, &neighbour, &stranger] {
        lab.networks.detach(&container.id).unwrap();
    }
    assert_eq!(ask_tcp(ip_of("127.0.0.1"), 8080), "ConnectionRefused");
    lab.state().is_again(&before);
}

#[test]
fn a_port_on_one_address_is_on_that_address_only() {
    let Some(lab) = lab() else { return };
    ip("addr add 192.0.2.9/24 dev uplink");
    let one = lab.attach("one", &["ctk"], &["127.0.0.1:8080:7000", "192.0.2.9:8081:7000", "192.0.2.1:8082:7000"]);
    let two = lab.attach("two", &["ctk"], &["192.0.2.1:8081:7000"]);
    one.serve(7000);
    two.serve(7001);
    assert_eq!(ask_tcp(ip_of("127.0.0.1"), 8080), "10.88.0.1");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 8080)), "ConnectionRefused");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.9"), 8081)), "192.0.2.2");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 8081)), "ConnectionRefused");
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.9"), 8082)), "ConnectionRefused");
    // Loopback of the host is the host's, whoever sends there by whatever way.
    let way = |gateway: &str| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        ip("addr del 127.0.0.1/8 dev lo");
        ip(&format!("route add 127.0.0.1/32 via {gateway}"));
    };
    within(&lab.world, || way("192.0.2.1"));
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("127.0.0.1"), 8080)), "TimedOut");
    serve(7002);
    assert_eq!(ask_tcp(ip_of("127.0.0.1"), 7002), "127.0.0.1");
    within(&two.namespace, || way("10.88.0.1"));
    assert_eq!(within(&two.namespace, || ask_tcp(ip_of("127.0.0.1"), 8080)), "TimedOut");
    assert_eq!(within(&two.namespace, || ask_tcp(ip_of("127.0.0.1"), 7002)), "TimedOut");
}

#[test]
fn a_port_has_one_owner() {
    let Some(lab) = lab() else { return };
    let refused = |ports: &[&str]| lab.try_attach("late", &[join("ctk")], ports).err().unwrap().to_string();
    let listener = TcpListener::bind("0.0.0.0:8000").unwrap();
    assert_eq!(refused(&["8000:80"]), "the host's tcp port 8000 on 0.0.0.0 is already in use");
    drop(listener);
    let udp = UdpSocket::bind("127.0.0.1:8001").unwrap();
    assert_eq!(refused(&["8001:80/udp"]), "the host's udp port 8001 on 0.0.0.0 is already in use");
    drop(udp);
    let one = lab.attach("one", &["ctk"], &["8000:80", "8001:80/udp"]);
    // The other way round: nobody else of the host has it now.
    assert_eq!(TcpListener::bind("0.0.0.0:8000").unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(UdpSocket::bind("0.0.0.0:8001").unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(refused(&["127.0.0.1:8000:80"]), "the host's tcp port 8000 on 127.0.0.1 is already in use");
    assert_eq!(refused(&["8000-8000:80"]), "the host's tcp port 8000 on 0.0.0.0 is already in use");
    assert_eq!(refused(&["198.51.100.1:80:80"]), "failed to take the host's tcp port 80 on 198.51.100.1");
    assert_eq!(
        refused(&["[::1]:80:80"]),
        "cannot publish ports: the host's address ::1 is IPv6, and the container's network has none"
    );
    // Its monitor was killed: no socket holds the port, but the rules do, as long as it runs.
    let Box_ { namespace, attachment, .. } = one;
    drop(attachment);
    assert_eq!(refused(&["8000:80"]), "the host's tcp port 8000 on 0.0.0.0 is already in use");
    drop(namespace);
    let free = || lab.try_attach("late", &[join("ctk")], &["8000:80"]).is_ok();
    eventually("the port of a dead container is free", free);
}

#[test]
fn ports_are_chosen_where_any_will_do() {
    let Some(lab) = lab() else { return };
    let _taken = TcpListener::bind("0.0.0.0:8100").unwrap();
    let one = lab.attach("one", &["ctk"], &["7000", "8100-8102:7000", "8200-8201:7000-7001"]);
    one.serve(7000);
    let ports: Vec<(u16, u16)> =
        one.attachment.ports.iter().map(|port| (port.host_port, port.container_port)).collect();
    assert!(ports[0].0 >= 1024, "{ports:?}");
    assert_eq!(ports[1..], [(8101, 7000), (8200, 7000), (8201, 7001)]);
    assert_eq!(ask_tcp(ip_of("127.0.0.1"), ports[0].0), "10.88.0.1");
    let two = lab.attach("two", &["ctk"], &["8100-8102:7000"]);
    assert_eq!(two.attachment.ports[0].host_port, 8102);
    let none = lab.try_attach("three", &[join("ctk")], &["8100-8102:7000"]).err().unwrap().to_string();
    assert_eq!(none, "no tcp port of the host is free from 8100 to 8102");
    lab.network("closed", |options| options.internal = true);
    let closed = lab.try_attach("four", &[join("closed")], &["80"]).err().unwrap().to_string();
    assert_eq!(closed, "cannot publish ports: its networks are internal");
}

#[test]
fn who_keeps_sending_reaches_the_container_that_is_there_now() {
    let Some(lab) = lab() else { return };
    // One client, one socket, from before the port is published until after its container was made again.
    let client = within(&lab.world, || UdpSocket::bind("192.0.2.2:0").unwrap());
    client.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let ask = || {
        let mut buffer = [0; 64];
        client.send_to(b"?", "192.0.2.1:8080").unwrap();
        client.recv(&mut buffer).is_ok()
    };
    // A network is up: packets are tracked.
    let _other = lab.attach("other", &["ctk"], &[]);
    assert!(!ask());
    let one = lab.attach("one", &["ctk"], &["8080:7000/udp"]);
    one.serve(7000);
    eventually("the first container answers", ask);
    lab.networks.detach(&one.id).unwrap();
    drop(one.attachment);
    assert!(!ask());
    let two = lab.attach("two", &["ctk"], &["8080:7000/udp"]);
    two.serve(7000);
    eventually("the second container answers", ask);
}

#[test]
fn who_knocks_while_a_container_is_made_again_is_let_in() {
    let Some(lab) = lab() else { return };
    let one = lab.attach("one", &["ctk"], &["8080:7000"]);
    // Its process is dead, its device still there: nobody answers.
    within(&one.namespace, || ip("link set eth0 down"));
    let client = within(&lab.world, || {
        std::thread::spawn(|| {
            let address = std::net::SocketAddr::new(ip_of("192.0.2.1"), 8080);
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(15)).is_ok()
        })
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    lab.networks.detach(&one.id).unwrap();
    drop(one);
    let two = lab.attach("two", &["ctk"], &["8080:7000"]);
    two.serve(7000);
    assert_ne!(two.address(0, false).to_string(), "10.88.0.2");
    assert!(client.join().unwrap());
}

#[test]
fn thousands_of_ports_are_published_at_once() {
    let Some(lab) = lab() else { return };
    let one = lab.attach("one", &["ctk"], &["10000-13999:10000-13999"]);
    one.serve(13999);
    assert_eq!(one.attachment.ports.len(), 4000);
    assert_eq!(within(&lab.world, || ask_tcp(ip_of("192.0.2.1"), 13999)), "192.0.2.2");
    lab.networks.detach(&one.id).unwrap();
    assert!(!run("nft", "list ruleset").contains("ctk"));
}
