//! What containers reach, and what they do not.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{chain, record, rig, wait};
use ctk_container::{ExitStatus, Network, Switch, run};

#[test]
fn without_a_network_there_is_loopback() {
    let Some(rig) = rig() else { return };
    let script = "grep -c : /proc/net/dev; ping -c 1 -W 1 127.0.0.1 > /dev/null 2>&1; grep -c 127.0.0.1 /etc/hosts; \
                  echo hi | nc -l -p 7 -w 2 & sleep 0.2; nc -w 2 127.0.0.1 7 < /dev/null";
    let (_, output) = rig.run(script, |_| {});
    assert_eq!(output, "1\n1\nhi");
}

#[test]
fn the_hosts_network_is_the_hosts() {
    let Some(rig) = rig() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"from the host\n").unwrap());
    let (_, output) = rig.run(&format!("nc -w 5 127.0.0.1 {port} < /dev/null"), |o| o.network = Network::Host);
    server.join().unwrap();
    assert_eq!(output, "from the host");
}

#[test]
fn members_find_each_other_by_name() {
    let Some(rig) = rig() else { return };
    let switch = Switch::new().unwrap_or_else(|error| panic!("{}", chain(&error)));
    let member = |name: &str, script: &str| {
        let mut options = rig.options(name, script);
        options.hostname = Some(name.into());
        let names = vec![name.to_string(), format!("{name}.test")];
        options.network = Network::Private { switch: &switch, names };
        let output = record(&mut options.stdio);
        (run(options).unwrap_or_else(|error| panic!("{}", chain(&error))), output)
    };
    let (web, _) = member("web", "while :; do echo hello from web | nc -l -p 80; done");
    let ask = "exec 2> /dev/null; until nc -w 2 web 80 < /dev/null; do sleep 0.05; done; until nc -w 2 web.test 80 < /dev/null; do sleep 0.05; done; grep -c : /proc/net/dev";
    let (client, output) = member("client", ask);
    assert_eq!(wait(&client), ExitStatus::Code(0), "{:?}", output.lock().unwrap());
    assert_eq!(*output.lock().unwrap(), ["hello from web", "hello from web", "2"]);
    assert_eq!(client.ip(), switch.address("client"));
    assert_ne!(client.ip(), web.ip());
    // From outside, through the switch.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match switch.connect("web", 80, Duration::from_secs(2)) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{}", chain(&error)),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello from web\n");
    assert!(switch.connect("nobody", 80, Duration::from_secs(1)).is_err());
    let mut twice = rig.options("twice", "true");
    twice.network = Network::Private { switch: &switch, names: vec!["web".into()] };
    assert!(chain(&run(twice).err().unwrap()).contains("`web` is already taken"));
    // Who joined later is known to who came first; who left is not known any more.
    let exec = |script: &str| {
        let mut options = ctk_container::ExecOptions::new(["sh", "-c", script].map(String::from).to_vec());
        let output = record(&mut options.stdio);
        web.exec(options, &ctk_plan::Cancel::new()).unwrap();
        output.lock().unwrap().join("\n")
    };
    assert_eq!(exec("grep -c client.test /etc/hosts"), "1");
    drop(client);
    assert_eq!(switch.address("client"), None);
    assert_eq!(exec("grep -c client.test /etc/hosts"), "0");
}
