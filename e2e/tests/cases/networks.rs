//! `ctk network`: what it makes is what podman makes of the same words.

use ctk_e2e::{World, has_programs, is_root};
use serde_json::Value;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_network_is_what_podman_makes_of_the_same_words() {
    if !is_root() || !has_programs(&["podman"]) {
        return;
    }
    let world = World::new();
    let folder = world.path("podman-networks").display().to_string();
    let cases: [&[&str]; 4] = [
        &["--subnet", "10.201.7.0/24", "--label", "a=b", "--label", "c", "--opt", "mtu=1400"],
        &["--subnet", "10.201.8.0/24", "--gateway", "10.201.8.9", "--ip-range", "10.201.8.128/25", "--internal"],
        &["--subnet", "10.201.9.0/24", "--subnet", "fd00:201:9::/64", "--ipv6"],
        &["--driver", "bridge", "--subnet", "10.201.10.0/24", "--disable-dns"],
    ];
    for (number, options) in cases.into_iter().enumerate() {
        let name = format!("n{number}");
        let create = ["network", "create"].into_iter().chain(options.iter().copied()).chain([name.as_str()]);
        let create: Vec<&str> = create.collect();
        let podman = |arguments: &[&str]| {
            let own = ["--network-config-dir", folder.as_str()];
            world.podman(&own.into_iter().chain(arguments.iter().copied()).collect::<Vec<_>>())
        };
        assert_eq!(world.ctk(&create).ok(), podman(&create).ok());
        let ours = parsed(&world.ctk(&["network", "inspect", &name]).ok());
        let theirs = parsed(&podman(&["network", "inspect", &name]).ok());
        let mut keys = vec!["name", "driver", "ipv6_enabled", "internal"];
        // podman leaves some out that are empty, and its addresses of a range where the default is meant.
        keys.extend(["labels"].into_iter().filter(|key| theirs[0].get(key).is_some()));
        for key in keys {
            assert_eq!(ours[0][key], theirs[0][key], "{key} of {options:?}");
        }
        let pick = |network: &Value, key: &str| -> Vec<Value> {
            network[0]["subnets"].as_array().unwrap().iter().map(|subnet| subnet[key].clone()).collect()
        };
        for key in ["subnet", "gateway"] {
            assert_eq!(pick(&ours, key), pick(&theirs, key), "{key} of {options:?}");
        }
        assert_eq!(ours[0]["id"].as_str().unwrap().len(), theirs[0]["id"].as_str().unwrap().len());
    }
    let listed = world.ctk(&["network", "ls", "--quiet"]).ok();
    assert_eq!(listed, "n0\nn1\nn2\nn3\n");
    assert_eq!(world.ctk(&["network", "ls", "-q", "--filter", "label=a=b"]).ok(), "n0\n");
    assert_eq!(world.ctk(&["network", "rm", "n0", "n1"]).ok(), "n0\nn1\n");
    assert_eq!(world.ctk(&["network", "prune"]).ok(), "n2\nn3\n");
}

#[test]
fn wrong_values_are_said() {
    let world = World::new();
    world.ctk(&["network", "create", "there", "--subnet", "10.202.0.0/16"]).ok();
    let cases: [(&[&str], &str); 14] = [
        (&["create", "there"], "a network `there` exists already"),
        (&["create", "host"], "invalid name of a network `host`"),
        (&["create", "a/b"], "invalid name of a network `a/b`"),
        (&["create", "x", "--subnet", "10.202.3.0/24"], "overlaps 10.202.0.0/16 of the network `there`"),
        (&["create", "x", "--subnet", "10.1"], "expected a subnet such as"),
        (&["create", "x", "--subnet", "127.0.0.0/8"], "invalid subnet `127.0.0.0/8`"),
        (&["create", "x", "--subnet", "10.203.0.0/24", "--gateway", "10.9.9.9"], "gateway 10.9.9.9 is not in"),
        (&["create", "x", "--subnet", "10.203.0.0/24", "--ip-range", "9"], "invalid range of addresses `9`"),
        (&["create", "x", "--driver", "macvlan"], "invalid value 'macvlan'"),
        (&["create", "x", "--opt", "mtu=many"], "invalid --opt `mtu=many`"),
        (&["create", "x", "--opt", "isolate=true"], "no option `isolate` of a bridge network"),
        (&["inspect", "thera"], "no network `thera`; did you mean `there`?"),
        (&["connect", "there", "nobody"], "there is no container `nobody`"),
        (&["disconnect", "there", "nobody"], "there is no container `nobody`"),
    ];
    for (arguments, expected) in cases {
        let arguments: Vec<&str> = ["network"].iter().chain(arguments).copied().collect();
        let output = world.ctk(&arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.err.contains(expected), "{arguments:?}: {}", output.err);
    }
    world.ctk(&["network", "rm", "--force", "nothere"]).ok();
    assert_eq!(world.ctk(&["network", "create", "there", "--ignore"]).ok(), "there\n");
}
