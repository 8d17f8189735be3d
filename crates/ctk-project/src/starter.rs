//! The first project file of a folder: `ctk init`.

use std::fmt::Write as _;

/// What stands in the folder.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The folder's name.
    pub name: String,
    /// Whether there is a `Dockerfile`.
    pub dockerfile: bool,
    /// The name of the binary, where there is a `Cargo.toml` that makes one.
    pub cargo: Option<String>,
    /// Whether there is a `package.json`.
    pub package_json: bool,
    /// Whether there is a `go.mod`.
    pub go_mod: bool,
}

/// A commented `containers.kdl` that fits the folder and passes `ctk check` as it is.
pub fn starter(facts: &Facts) -> String {
    let name = resource_name(&facts.name);
    let mut out = format!(
        "// What this project's images are, how they are tested, where they are pushed.\n\
         // `ctk plan` says what would happen, `ctk apply` makes it happen.\n\n\
         project \"{name}\"\n"
    );
    let binary = facts.cargo.as_deref().map(resource_name);
    if facts.dockerfile {
        let _ = write!(
            out,
            "\n// Built from the Dockerfile, as it is.\n\
             image \"{name}\" dockerfile=\"Dockerfile\" context=\".\"\n\n\
             // Runs in a container made from the image. More assertions: file, absent, http, config, size.\n\
             test \"{name}\" image=\"{name}\" {{\n    size max=\"2GB\"\n}}\n"
        );
    } else {
        out.push_str(BASE);
        if let Some(binary) = &binary {
            let _ = write!(
                out,
                "\nimage \"{name}\" {{\n    \
                 context \".\" {{ ignore \"target\" }}\n    \
                 stage \"build\" from=\"rust:1.95-bookworm\" {{\n        \
                 workdir \"/src\"\n        \
                 copy \".\" to=\"./\"\n        \
                 run \"cargo build --release --bin {binary} && cp target/release/{binary} /{binary}\" {{\n            \
                 // Kept between builds, beside the image.\n            \
                 cache \"/usr/local/cargo/registry\"\n            \
                 cache \"/src/target\" sharing=\"locked\"\n        }}\n    }}\n    \
                 stage \"final\" from=\"image:base\" {{\n        \
                 copy \"/{binary}\" to=\"/usr/bin/\" from=\"build\"\n        \
                 entrypoint \"/usr/bin/{binary}\"\n    }}\n}}\n\n\
                 test \"{name}\" image=\"{name}\" {{\n    file \"/usr/bin/{binary}\" type=\"file\"\n}}\n"
            );
        } else if facts.package_json {
            let _ = write!(
                out,
                "{}",
                project_image(&name, "node:24-bookworm", "package*.json", "npm ci", "node .", "/app")
            );
        } else if facts.go_mod {
            let _ = write!(
                out,
                "{}",
                project_image(&name, "golang:1.26-bookworm", "go.mod go.sum*", "go mod download", "go run .", "/src")
            );
        } else {
            let _ = write!(
                out,
                "\nimage \"{name}\" {{\n    \
                 stage \"final\" from=\"image:base\" {{\n        \
                 // copy \"app\" to=\"/usr/bin/\"\n        \
                 cmd \"/bin/sh\"\n    }}\n}}\n\n\
                 // Each command runs in a container of its own, made from the image.\n\
                 test \"{name}\" image=\"{name}\" {{\n    command \"certificates\" \"test\" \"-f\" \"/etc/ssl/certs/ca-certificates.crt\"\n}}\n"
            );
        }
    }
    let _ = write!(
        out,
        "\n// Tags move last, and only when every image and test succeeded.\n\
         push \"{name}\" image=\"{name}\" needs=\"test:{name}\" {{\n    \
         to \"oci:dist/images\"                      // an OCI layout in this folder\n    \
         // to \"ghcr.io/you/{name}\" {{ tag \"latest\" }}\n}}\n"
    );
    out
}

const BASE: &str = r#"
// A base image from Debian packages, without a Dockerfile. Versions and hashes go to containers.lock.
image "base" {
    packages distro="debian" suite="bookworm" {
        install "ca-certificates" "tzdata"
    }
}
"#;

fn project_image(name: &str, from: &str, manifests: &str, fetch: &str, command: &str, workdir: &str) -> String {
    let manifests: Vec<String> = manifests.split(' ').map(|m| format!("\"{m}\"")).collect();
    let command: Vec<String> = command.split(' ').map(|w| format!("\"{w}\"")).collect();
    format!(
        "\nimage \"{name}\" {{\n    \
         stage \"final\" from=\"{from}\" {{\n        \
         workdir \"{workdir}\"\n        \
         // First what dependencies are made of: they are fetched again only when this changes.\n        \
         copy {} to=\"./\"\n        \
         run \"{fetch}\"\n        \
         copy \".\" to=\"./\"\n        \
         cmd {}\n    }}\n}}\n\n\
         test \"{name}\" image=\"{name}\" {{\n    file \"{workdir}\" type=\"directory\"\n}}\n",
        manifests.join(" "),
        command.join(" "),
    )
}

fn resource_name(text: &str) -> String {
    let name: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() || name == "base" { "app".to_string() } else { name.to_string() }
}
