//! Options of docker, buildx, buildah and podman that `ctk build` does not have, and what to write instead.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// What to do instead, by option.
const INSTEAD: &[(&str, &str)] = &[
    ("--all-platforms", "name them: `--platform linux/amd64,linux/arm64`"),
    (
        "--authfile",
        "`ctk login` keeps credentials, and those of docker and podman are found; `REGISTRY_AUTH_FILE` names another file",
    ),
    ("--build-args", "write `--build-arg NAME=VALUE`, once for each"),
    ("--cache-ttl", "results stay until `ctk gc` frees them; `--no-cache` uses none"),
    (
        "--cap-add",
        "commands of a build have docker's capabilities; `RUN --security=insecure` with `--allow security.insecure` has all",
    ),
    ("--cap-drop", "drop it in the command itself, e.g. with `setpriv`"),
    ("--cert-dir", "say the registry's certificates in registries.conf: `--registries FILE`"),
    ("--cgroupns", "leave it out: every container has a cgroup namespace of its own"),
    ("--compression-format", "write `-o type=image,compression=zstd`"),
    ("--compression-level", "write `-o type=image,compression=zstd,compression-level=9`"),
    ("--cpp-flag", "run the preprocessor first: `cpp … | ctk build -f - .`"),
    ("--creds", "write `ctk login HOST`"),
    ("--decryption-key", "encrypted images are not there yet"),
    ("--device", "write `RUN --device=…`, and `--allow device=…`"),
    ("--disable-compression", "write `-o type=image,compression=uncompressed`"),
    ("--dns", "commands of a build see the machine's /etc/resolv.conf"),
    ("--dns-option", "commands of a build see the machine's /etc/resolv.conf"),
    ("--dns-search", "commands of a build see the machine's /etc/resolv.conf"),
    ("--env", "write `ENV NAME=VALUE` in the Dockerfile, with an `ARG` if it differs"),
    ("--force-compression", "write `-o type=image,compression=…,force-compression=true`"),
    ("--from", "write `--build-context NAME=docker-image://IMAGE` for the name after FROM"),
    ("--group-add", "write `USER name:group` in the Dockerfile"),
    ("--hooks-dir", "hooks are not there"),
    (
        "--http-proxy",
        "proxy variables of the environment are seen by RUN and kept by no layer; unset them to have none",
    ),
    ("--identity-label", "images get no labels of ours"),
    ("--ignorefile", "put it beside the Dockerfile as `NAME.dockerignore`"),
    ("--iidfile-raw", "write `--iidfile FILE`"),
    ("--image", "write `-t NAME`"),
    ("--inherit-labels", "labels of the base stay"),
    ("--insecure", "say it in registries.conf, or by `-o type=registry,registry.insecure=true`"),
    ("--ipc", "every container has an IPC namespace of its own"),
    ("--layer-label", "write `--label NAME=VALUE`"),
    ("--logsplit", "write `--logfile FILE`; lines say for which platform they are"),
    ("--no-hostname", "leave it out: no file of the container's own gets into a layer"),
    ("--no-hosts", "leave it out: no file of the container's own gets into a layer"),
    ("--omit-history", "the history stays, as docker has it"),
    ("--os-feature", "features of Windows images are not there"),
    ("--os-version", "versions of Windows images are not there"),
    ("--pid", "every container has a PID namespace of its own"),
    ("--pull-always", "write `--pull=always`"),
    ("--pull-never", "write `--pull=never`"),
    ("--retry", "leave it out: what may succeed later is tried again"),
    ("--retry-delay", "leave it out: what may succeed later is tried again"),
    ("--runtime", "there is one runtime, `ctk` itself"),
    ("--runtime-flag", "there is one runtime, `ctk` itself"),
    ("--save-stages", "leave it out: results of stages are kept; `--target STAGE -t NAME` names one"),
    ("--security-opt", "write `RUN --security=insecure`, and `--allow security.insecure`"),
    ("--sign-by", "signatures are not there yet"),
    ("--signature-policy", "signatures are not there yet"),
    ("--skip-unused-stages", "leave it out: stages that nothing needs are not built; `--target STAGE` builds one"),
    ("--squash-all", "layers stay as they were built; a last stage that copies from the others has few"),
    ("--stdin", "commands of a build read nothing; give it as a file: `RUN --mount=target=/in cmd < /in/file`"),
    ("--tls-verify", "say `insecure = true` for the registry in registries.conf: `--registries FILE`"),
    ("--unsetenv", "write `ENV NAME=` in the Dockerfile"),
    ("--unsetlabel", "write `--label NAME=`"),
    ("--userns", "commands of a build run as root of this machine's own user namespace, or of the user's"),
    ("--uts", "every container has a host name of its own"),
    (
        "--volume",
        "write `RUN --mount=target=…` in the Dockerfile; `--build-context NAME=FOLDER` makes a folder `from=NAME`",
    ),
    ("-v", "write `RUN --mount=target=…` in the Dockerfile; `--build-context NAME=FOLDER` makes a folder `from=NAME`"),
];

/// What to say of an option that `ctk build` does not know, if others do.
pub fn advice(error: &Error) -> Option<String> {
    let of_build = matches!(error.get(ContextKind::Usage), Some(ContextValue::StyledStr(usage)) if usage.to_string().contains("ctk build"));
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) if of_build && error.kind() == ErrorKind::UnknownArgument => {
            let hint = instead(option)?;
            Some(format!("error: `ctk build` has no `{option}`\n  hint: {hint}\n"))
        }
        _ => None,
    }
}

fn instead(option: &str) -> Option<&'static str> {
    INSTEAD.iter().find(|(name, _)| *name == option).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::commands::Arguments;

    fn told(words: &[&str]) -> Option<String> {
        let all = ["ctk"].iter().chain(words);
        Arguments::try_parse_from(all).err().as_ref().and_then(advice)
    }

    #[test]
    fn others_options_are_told_what_to_write() {
        let told = |words: &[&str]| told(words).unwrap_or_default();
        assert!(told(&["build", "--volume=/a:/b", "."]).contains("has no `--volume`\n  hint: write `RUN --mount"));
        assert!(told(&["build", "-v", "/a:/b", "."]).contains("has no `-v`"));
        assert!(told(&["build", "--tls-verify=false", "."]).contains("registries.conf"));
        assert_eq!(told(&["build", "--nonsense", "."]), "");
        assert_eq!(told(&["images", "--volume=x"]), "");
    }

    #[test]
    fn the_table_is_sorted_and_holds_nothing_that_is_there() {
        assert!(INSTEAD.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[1].0 == "-v"));
        let command = Arguments::command();
        let build = command.find_subcommand("build").expect("it is there");
        for (option, _) in INSTEAD {
            let there = |argument: &&clap::Arg| {
                let names = argument.get_long_and_visible_aliases().unwrap_or_default();
                names.contains(&option.trim_start_matches('-'))
            };
            assert!(build.get_arguments().find(there).is_none(), "{option}");
        }
    }
}
