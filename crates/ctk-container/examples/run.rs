//! Runs a command in a directory as root and prints how long start to exit took: `run ROOTFS [COUNT [host|none [COMMAND…]]]`.

use std::time::Instant;

use ctk_container::{Network, RunOptions, Stdin, run};
use ctk_oci::{ContainerConfig, Mount};
use ctk_plan::Cancel;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rootfs = arguments.next().unwrap_or_else(|| "rootfs".into());
    let count: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let host = arguments.next().is_some_and(|word| word == "host");
    let command: Vec<String> = arguments.collect();
    let command = if command.is_empty() { vec!["/bin/true".to_string()] } else { command };
    let config = ContainerConfig::default();
    let mut times = Vec::new();
    for _ in 0..count {
        let before = Instant::now();
        let mut options = RunOptions::new(Mount::new("bind", &rootfs, "/", &["rbind"]), &config, "/run/ctk-example");
        options.args = Some(command.clone());
        options.stdin = Stdin::Inherit;
        if host {
            options.network = Network::Host;
        }
        let status = match run(options).and_then(|container| container.wait(&Cancel::new())) {
            Ok(status) => status,
            Err(error) => {
                let mut cause: Option<&dyn std::error::Error> = Some(&error);
                while let Some(error) = cause {
                    eprintln!("{error}");
                    cause = error.source();
                }
                std::process::exit(1);
            }
        };
        times.push(before.elapsed());
        if !status.success() {
            eprintln!("{status}");
            std::process::exit(status.shell_code());
        }
    }
    times.sort();
    if count > 1 {
        println!("median {:?}, minimum {:?}", times[times.len() / 2], times[0]);
    }
}
