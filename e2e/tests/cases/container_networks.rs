//! Containers on bridges, with the real programs: names, ports, what is left. Each case has a host of its own, a network
//! namespace with a loopback and nothing else.

use std::fs;
use std::os::unix::fs::symlink;

use ctk_e2e::ordinary::User;
use ctk_e2e::{Output, World, contains, has_programs, is_root, run};

/// A world with a root file system of busybox, or a word about what is missing.
fn world() -> Option<World> {
    if !is_root() || !has_programs(&["busybox", "unshare", "ip", "nft"]) {
        return None;
    }
    let world = World::new();
    for folder in ["root/bin", "root/etc", "root/tmp", "programs"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    fs::copy("/usr/bin/busybox", world.path("root/bin/busybox")).unwrap();
    for name in ["sh", "true", "cat", "wget", "httpd", "nslookup", "sleep", "ip", "nc", "grep"] {
        symlink("busybox", world.path("root/bin").join(name)).unwrap();
    }
    symlink(ctk_e2e::binary(), world.path("programs/ctk")).unwrap();
    Some(world)
}

/// Runs a script on a host of its own: `$ROOT` is the root file system, `state` says what a host has of networks.
fn on_host(world: &World, script: &str) -> Output {
    on_host_with(world, script, &[])
}

/// The same with words that the script has as `"$@"`.
fn on_host_with(world: &World, script: &str, words: &[String]) -> Output {
    let mut command = world.command(&[]);
    let prelude = "ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward\n\
        state() { ip -br addr; ip route show table all; ip -6 route show table all; nft list ruleset; \
        cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; }\n\
        until_gone() { for i in $(seq 200); do { ip link; nft list tables; } | grep -q ctk || return 0; sleep 0.05; done; return 1; }\n\
        until_up() { for i in $(seq 200); do busybox wget -qO- \"$1\" && return 0; sleep 0.05; done; return 1; }\n";
    let path = format!("{}:{}", world.path("programs").display(), std::env::var("PATH").unwrap());
    let environment: Vec<(String, String)> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned())))
        .collect();
    command = std::process::Command::new("unshare");
    command
        .args(["--net", "--mount", "sh", "-ec", &format!("{prelude}{script}"), "sh"])
        .args(words)
        .current_dir(world.project());
    command
        .envs(environment)
        .env_remove("CTK_NETWORK")
        .env("PATH", path)
        .env("ROOT", world.path("root"))
        .stdin(std::process::Stdio::null());
    run(command)
}

#[test]
fn scripts_find_addresses_and_anybody_may_ping() {
    let Some(world) = world() else { return };
    let out = on_host(
        &world,
        r#"
        ctk run -d --name on -p 8080:80 --rootfs $ROOT sleep 100 > /dev/null
        one() { ctk inspect --format "$1" on; }
        echo "address: $(one '{{.NetworkSettings.IPAddress}}') $(one '{{.NetworkSettings.Networks.ctk.IPAddress}}')"
        echo "port: $(one '{{json .NetworkSettings.Ports}}')"
        echo "ping: $(ctk exec --user 7 on cat /proc/sys/net/ipv4/ping_group_range)"
        echo "small: $(ctk run --rm --memory 4k --rootfs $ROOT true 2>&1; echo $?)"
        ctk rm --force --time 0 on > /dev/null
        until_gone
        "#,
    );
    let ports = r#"port: {"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}"#;
    contains(
        &out.ok(),
        &["address: 10.88.0.2 10.88.0.2\n", ports, "ping: 0\t2147483647\n", "small: error: it ran out of memory"],
    );
}

#[test]
fn containers_find_each_other_and_leave_nothing() {
    let Some(world) = world() else { return };
    let out = on_host(
        &world,
        r#"
        state > before
        ctk network create --ipv6 back > /dev/null
        ctk run -d --name web -p 8080:80 --network ctk --network back:alias=www --rootfs $ROOT \
            sh -c 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp' > id
        echo "host: $(until_up http://127.0.0.1:8080/)"
        echo "name: $(ctk run --rm --rootfs $ROOT wget -qO- http://web/)"
        echo "alias: $(ctk run --rm --network back --rootfs $ROOT wget -qO- http://www.back/)"
        echo "port: $(ctk port web)"
        echo "apart: $(ctk run --rm --rootfs $ROOT sh -c 'wget -qO- http://www/ 2> /dev/null || echo none')"
        ctk run --rm --network back --ip 10.89.0.77 --mac-address 02:00:00:00:00:09 --dns-search a.test \
            --add-host x.test:192.0.2.1 --add-host y.test:host-gateway --rootfs $ROOT \
            sh -c 'ip addr show eth0; cat /etc/resolv.conf /etc/hosts'
        ctk network rm back 2>&1 || true
        ctk rm --force --time 0 web > /dev/null
        until_gone
        state > after
        diff before after && echo "nothing is left"
        "#,
    )
    .ok();
    contains(
        &out,
        &[
            "host: hello\n",
            "name: hello\n",
            "alias: hello\n",
            "port: 80/tcp -> 0.0.0.0:8080\n",
            "apart: none\n",
            "inet 10.89.0.77/24",
            "link/ether 02:00:00:00:00:09",
            "nameserver 127.0.0.11\nsearch a.test\noptions ndots:0\n",
            "192.0.2.1\tx.test\n10.89.0.1\ty.test\n10.89.0.1\thost.containers.internal host.docker.internal\n",
            "error: the network `back` is used by web\n",
            "nothing is left\n",
        ],
    );
}

#[test]
fn networks_outlive_a_killed_monitor_and_a_killed_container() {
    let Some(world) = world() else { return };
    let out = on_host(
        &world,
        r#"
        ctk run -d --name web -p 8080:80 --restart always --rootfs $ROOT \
            sh -c 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp' > id
        until_up http://127.0.0.1:8080/ > /dev/null
        ctk run -d --name client --rootfs $ROOT sleep 1000 > /dev/null
        echo "first: $(ctk exec client wget -qO- http://web/)"
        monitor() {
            grep -o '"monitor":[0-9]*' $CTK_ROOT/containers/$(ctk inspect --format '{{.Id}}' $1)/state.json | cut -d: -f2
        }
        for name in web client; do kill -9 $(monitor $name); done
        sleep 0.2
        echo "no monitor: $(busybox wget -qO- http://127.0.0.1:8080/)"
        ctk ps > /dev/null
        echo "taken over: $(ctk exec client wget -qO- http://web/)"
        ctk network create more > /dev/null
        ctk network connect more client
        echo "connected: $(ctk exec client ip addr show eth1 | grep -o 'inet [0-9.]*')"
        ctk network disconnect more client
        kill -9 $(ctk inspect --format '{{.State.Pid}}' web)
        echo "again: $(until_up http://127.0.0.1:8080/)"
        ctk rm --force --time 0 web > /dev/null
        # Both at once: whoever looks next finds it.
        kill -9 $(monitor client) $(ctk inspect --format '{{.State.Pid}}' client)
        sleep 0.2
        ctk ps --all | grep -o 'Exited' || true
        until_gone && echo "nothing is left"
        "#,
    )
    .ok();
    let expected =
        ["first: hello", "no monitor: hello", "taken over: hello", "connected: inet 10.89.0.2", "again: hello"];
    contains(&out, &expected);
    contains(&out, &["nothing is left\n"]);
}

#[test]
fn what_cannot_be_joined_is_said() {
    let Some(world) = world() else { return };
    let out = on_host(
        &world,
        r#"
        try() { echo "--- $*"; ctk run --rm "$@" --rootfs $ROOT true 2>&1 || echo "exit $?"; }
        ctk run -d --name holder -p 8080:80 --rootfs $ROOT sleep 1000 > /dev/null
        try --network nowhere
        try --network ctk:ip=x
        try --network ctk --ip 10.1.1.1
        try --ip 10.88.0.1
        try -p 8080:80
        try -p 80:x
        try --network host -p 80:80
        try --network ctk,ctk
        try --mac-address 01:00:00:00:00:00
        try --network-alias 'a b'
        ctk rm --force --time 0 holder > /dev/null
        until_gone && echo "nothing is left"
        "#,
    )
    .ok();
    contains(
        &out,
        &[
            "no network `nowhere`",
            "invalid network of a container `ctk:ip=x`",
            "the address 10.1.1.1 is not in 10.88.0.0/16",
            "the address 10.88.0.1 is already used on the network `ctk` by the host",
            "the host's tcp port 8080 on 0.0.0.0 is already in use",
            "invalid published port `80:x`",
            "ports are published on bridge networks only",
            "is already on the network `ctk`",
            "invalid MAC address `01:00:00:00:00:00`",
            "invalid network alias `a b`",
            "nothing is left\n",
        ],
    );
    assert_eq!(out.matches("exit 125\n").count(), 10, "{out}");
}

#[test]
fn thirty_come_and_go_at_once() {
    let Some(world) = world() else { return };
    let out = on_host(
        &world,
        r#"
        state > before
        for i in $(seq 30); do ctk run --rm -p 80 --rootfs $ROOT sh -c 'ip addr show eth0 | grep -o "inet [0-9.]*"' > out-$i & done
        wait
        echo "different addresses: $(cat out-* | sort -u | wc -l)"
        until_gone
        state > after
        diff before after && echo "nothing is left"
        "#,
    )
    .ok();
    contains(&out, &["different addresses: 30\n", "nothing is left\n"]);
}

/// A world of an ordinary user's, and the words that make a command of the script his; the user is there as long as this.
fn ordinary(name: &'static str, uid: u32, first_id: u32) -> Option<(World, Vec<String>, User)> {
    if !User::can_be() || !has_programs(&["pasta"]) {
        return None;
    }
    let world = world()?;
    let user = User::new(name, uid, Some((first_id, 65_536)));
    fs::create_dir_all(world.store()).unwrap();
    for path in [world.store().to_path_buf(), world.path("home"), world.path("root"), world.project()] {
        user.give(&path);
    }
    let mut words = vec!["unshare".to_owned(), "--mount".into(), "--propagation".into(), "private".into(), "--".into()];
    words.extend(user.words());
    Some((world, words, user))
}

#[test]
fn no_relay_outlives_a_container_whoever_was_killed_when() {
    let Some((world, words, _user)) = ordinary("carol", 54_343, 1_600_000) else { return };
    if !has_programs(&["perl"]) {
        return;
    }
    // The monitor, then the first process: before, while and after somebody new looks after the container.
    let out = on_host_with(
        &world,
        r#"
        ip link add up0 type veth peer name up1
        ip addr add 192.0.2.1/24 dev up0
        ip link set up0 up; ip link set up1 up
        ip route add default via 192.0.2.7
        number() { grep -o "\"$1\":[0-9]*" $CTK_ROOT/containers/$(cat id)/state.json | cut -d: -f2; }
        relays() { grep -lz "^$CTK_ROOT/.*/relay.pid$" /proc/[0-9]*/cmdline 2> /dev/null | wc -l; }
        for kind in --rm --label=stays=1; do
            for moment in pause:0 pause:0.03 pause:0.06 pause:0.1 lock:1 lock:2 lock:1 lock:2; do
                "$@" ctk run -d $kind --name gone --rootfs $ROOT sleep 1000 > id
                [ $(relays) = 1 ] || echo "no relay"
                monitor=$(number monitor); pid=$(number pid)
                kill -9 $monitor
                # In the very moment in which somebody takes the container's lock: who puts things in order, or the
                # new monitor after him.
                perl -e '
                    my ($file, $pid, $times) = @ARGV;
                    open(my $lock, "<", $file) or die $file;
                    for (1 .. $times) {
                        my $end = time + 5;
                        until (!flock($lock, 1 | 4)) { flock($lock, 8); exit if time > $end }
                        last if $_ == $times;
                        until (flock($lock, 1 | 4)) { exit if time > $end }
                        flock($lock, 8);
                    }
                    kill(9, $pid);
                ' $CTK_ROOT/containers/$(cat id)/lock $pid ${moment#lock:} & waits=$!
                case $moment in pause:*) kill -9 $waits;; *) sleep 0.1;; esac
                "$@" ctk ps > /dev/null & looks=$!
                case $moment in pause:*) sleep ${moment#pause:}; kill -9 $pid;; esac
                wait $looks || echo "ps failed"
                wait $waits || true
                kill -9 $pid 2> /dev/null || true
                for i in $(seq 100); do
                    "$@" ctk ps --format '{{.Names}}' | grep -q gone || break
                    sleep 0.05
                done
                "$@" ctk rm --force --time 0 gone > /dev/null
                [ $(relays) = 0 ] || echo "left: $kind $moment"
            done
        done
        echo "all gone: $(relays)"
        "#,
        &words,
    )
    .ok();
    assert_eq!(out, "all gone: 0\n");
}

#[test]
fn an_ordinary_user_has_a_network_through_pasta() {
    let Some((world, words, _user)) = ordinary("alice", 54_341, 1_400_000) else { return };
    let out = on_host_with(
        &world,
        r#"
        ip link add up0 type veth peer name up1
        ip addr add 192.0.2.1/24 dev up0
        ip link set up0 up; ip link set up1 up
        ip route add default via 192.0.2.7
        "$@" ctk run -d --name web -p 8080:80 --rootfs $ROOT \
            sh -c 'echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp' > id
        echo "host: $(until_up http://192.0.2.1:8080/)"
        echo "loopback: $(until_up http://127.0.0.1:8080/)"
        echo "port: $("$@" ctk port web)"
        echo "address: $("$@" ctk exec web ip addr show eth0 | grep -o 'inet [0-9.]*')"
        "$@" ctk run --rm --network more --rootfs $ROOT true 2>&1 || true
        "$@" ctk run --rm -p 8080:80 --rootfs $ROOT true 2>&1 || true
        "$@" ctk run -d --rm --name gone --rootfs $ROOT sleep 1000 > id
        kill -9 $(grep -o '"monitor":[0-9]*' $CTK_ROOT/containers/$(cat id)/state.json | cut -d: -f2)
        kill -9 $("$@" ctk inspect --format '{{.State.Pid}}' gone)
        for i in $(seq 100); do "$@" ctk ps --all --format '{{.Names}}' | grep -q gone || break; sleep 0.05; done
        "$@" ctk rm --force --time 0 web > /dev/null
        relays() { grep -lz "^$CTK_ROOT/.*/relay.pid$" /proc/[0-9]*/cmdline 2> /dev/null | wc -l; }
        for i in $(seq 100); do [ $(relays) = 0 ] && break; sleep 0.05; done
        echo "relays: $(relays)"
        "#,
        &words,
    )
    .ok();
    contains(
        &out,
        &[
            "host: hello\n",
            "loopback: hello\n",
            "port: 80/tcp -> 0.0.0.0:8080\n",
            "address: inet 192.0.2.1\n",
            "a network of an ordinary user's container can only be the default one: bridges need root",
            "the host's tcp port 8080 on 0.0.0.0 is already in use",
            "relays: 0\n",
        ],
    );
}

#[test]
fn services_of_a_project_have_a_network_of_their_own() {
    let Some(world) = world() else { return };
    fs::copy("/usr/bin/busybox", world.project().join("busybox")).unwrap();
    world.write(
        "containers.kdl",
        r#"
project "Shop"
image "box" {
    stage "final" from="scratch" {
        copy "busybox" to="/bin/busybox" chmod="755"
        run "/bin/busybox" "--install" "-s" "/bin"
    }
}
service "db" image="box" {
    command "sh" "-c" "mkdir /www; echo rows > /www/index.html; exec httpd -f -p 80 -h /www"
    health exec="wget -qO- http://127.0.0.1/" every="100ms" within="20s"
    stop-timeout 0
}
service "web" image="box" needs="service:db" when="healthy" {
    command "sh" "-c" "wget -qO- http://db/; exec sleep 1000"
    stop-timeout 0
}
service "alone" image="box" {
    network "none"
    command "sleep" "1000"
    stop-timeout 0
}
"#,
    );
    let out = on_host(
        &world,
        r#"
        state > before
        ctk apply --target service:web 2> /dev/null
        echo "running: $(ctk ps --format '{{.Names}}' | sort | tr '\n' ' ')"
        until [ -n "$(ctk logs shop-web)" ]; do sleep 0.05; done
        echo "asked: $(ctk logs shop-web)"
        echo "by name: $(ctk exec shop-db wget -qO- http://shop-db/)"
        echo "apart: $(ctk run --rm --rootfs $ROOT sh -c 'wget -T 1 -qO- http://db/ 2> /dev/null || echo none')"
        ctk network inspect shop --format '{{range .Containers}}{{.Name}} {{end}}{{index .Labels "org.ctk.project"}}'
        web=$(ctk inspect --format '{{.Id}}' shop-web)
        sed -i 's/echo rows/echo more/' containers.kdl
        ctk apply --target service:db 2> /dev/null
        echo "changed: $(ctk exec shop-web wget -qO- http://db/)"
        [ $web = $(ctk inspect --format '{{.Id}}' shop-web) ] && echo "web stayed"
        ctk apply 2> /dev/null
        echo "running: $(ctk ps --format '{{.Names}}' | sort | tr '\n' ' ')"
        ctk apply --target service:nobody 2>&1 || true
        ctk destroy service:web
        ctk network ls --format '{{.Name}}'
        ctk destroy > /dev/null
        echo "networks: $(ctk network ls --format '{{.Name}}' | tr '\n' ' ')"
        until_gone
        state > after
        diff before after && echo "nothing is left"
        "#,
    )
    .ok();
    contains(
        &out,
        &[
            "running: shop-db shop-web \n",
            "asked: rows\n",
            "by name: rows\n",
            "apart: none\n",
            "Shop\n",
            "changed: more\n",
            "web stayed\n",
            "running: shop-alone shop-db shop-web \n",
            "service:nobody",
            "shop-web\nctk\nshop\n",
            "networks: ctk \n",
            "nothing is left\n",
        ],
    );
}
