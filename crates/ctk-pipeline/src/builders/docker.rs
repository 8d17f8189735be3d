//! `docker`: build, push, pull, tag, run, save, load, images, inspect, login, and `buildx build`.

use super::options::{Known, Line, line, switch, value};
use super::{Action, Build, Password};

/// The client's own, before the command.
const CLIENT: &[Known] = &[
    value('\0', &["config"]),
    value('c', &["context"]),
    switch('D', &["debug"]),
    value('H', &["host"]),
    value('l', &["log-level"]),
    switch('\0', &["tls"]),
    switch('\0', &["tlsverify"]),
    value('\0', &["tlscacert"]),
    value('\0', &["tlscert"]),
    value('\0', &["tlskey"]),
];

const BUILD: &[Known] = &[
    value('t', &["tag"]),
    value('f', &["file"]),
    value('\0', &["build-arg"]),
    value('\0', &["target"]),
    value('\0', &["platform"]),
    switch('\0', &["push"]),
    switch('\0', &["no-cache"]),
    value('\0', &["label"]),
    value('\0', &["annotation"]),
    value('\0', &["cache-from"]),
    value('\0', &["cache-to"]),
    value('\0', &["secret"]),
    value('\0', &["ssh"]),
    value('\0', &["network"]),
    value('\0', &["add-host"]),
    value('\0', &["build-context"]),
    value('o', &["output"]),
    value('\0', &["iidfile"]),
    value('\0', &["metadata-file"]),
    value('\0', &["no-cache-filter"]),
    value('\0', &["allow"]),
    value('\0', &["shm-size"]),
    value('\0', &["ulimit"]),
    switch('\0', &["pull"]),
    switch('q', &["quiet"]),
    switch('\0', &["load"]),
    switch('\0', &["rm"]),
    switch('\0', &["force-rm"]),
    switch('\0', &["compress"]),
    switch('\0', &["squash"]),
    switch('\0', &["disable-content-trust"]),
    value('\0', &["progress"]),
    value('\0', &["builder"]),
    value('\0', &["isolation"]),
    value('\0', &["security-opt"]),
    value('\0', &["provenance"]),
    value('\0', &["sbom"]),
    value('\0', &["attest"]),
    value('m', &["memory"]),
    value('\0', &["memory-swap"]),
    value('c', &["cpu-shares"]),
    value('\0', &["cpu-period"]),
    value('\0', &["cpu-quota"]),
    value('\0', &["cpuset-cpus"]),
    value('\0', &["cpuset-mems"]),
    value('\0', &["cgroup-parent"]),
];

/// Those of a build that `ctk build` takes as they are.
const BUILD_KEPT: &[&str] = &[
    "label",
    "annotation",
    "cache-from",
    "cache-to",
    "secret",
    "ssh",
    "network",
    "add-host",
    "build-context",
    "output",
    "iidfile",
    "metadata-file",
    "no-cache-filter",
    "allow",
    "shm-size",
    "ulimit",
    "pull",
    "quiet",
    "memory",
    "memory-swap",
    "cpu-shares",
    "cpu-period",
    "cpu-quota",
    "cpuset-cpus",
    "cpuset-mems",
    "cgroup-parent",
];

/// Those that change nothing here: the image is in the store at once, and intermediate containers are not kept.
const BUILD_IGNORED: &[&str] = &[
    "load",
    "rm",
    "force-rm",
    "compress",
    "squash",
    "disable-content-trust",
    "progress",
    "builder",
    "isolation",
    "security-opt",
    "provenance",
    "sbom",
    "attest",
];

const RUN: &[Known] = &[
    switch('\0', &["rm"]),
    switch('d', &["detach"]),
    switch('i', &["interactive"]),
    switch('t', &["tty"]),
    switch('\0', &["init"]),
    switch('\0', &["privileged"]),
    switch('\0', &["read-only"]),
    switch('P', &["publish-all"]),
    switch('q', &["quiet"]),
    value('a', &["attach"]),
    value('v', &["volume"]),
    value('e', &["env"]),
    value('\0', &["env-file"]),
    value('w', &["workdir"]),
    value('u', &["user"]),
    value('\0', &["name"]),
    value('\0', &["entrypoint"]),
    value('\0', &["network", "net"]),
    value('\0', &["network-alias", "net-alias"]),
    value('p', &["publish"]),
    value('\0', &["expose"]),
    value('h', &["hostname"]),
    value('\0', &["add-host"]),
    value('\0', &["dns"]),
    value('\0', &["mount"]),
    value('\0', &["tmpfs"]),
    value('\0', &["volumes-from"]),
    value('\0', &["device"]),
    value('\0', &["gpus"]),
    value('l', &["label"]),
    value('m', &["memory"]),
    value('\0', &["cpus"]),
    value('c', &["cpu-shares"]),
    value('\0', &["cap-add"]),
    value('\0', &["cap-drop"]),
    value('\0', &["security-opt"]),
    value('\0', &["ulimit"]),
    value('\0', &["shm-size"]),
    value('\0', &["platform"]),
    value('\0', &["pull"]),
    value('\0', &["restart"]),
    value('\0', &["stop-signal"]),
    value('\0', &["stop-timeout"]),
    value('\0', &["ipc"]),
    value('\0', &["pid"]),
    value('\0', &["uts"]),
    value('\0', &["userns"]),
    value('\0', &["cidfile"]),
    value('\0', &["group-add"]),
    value('\0', &["sysctl"]),
    value('\0', &["log-driver"]),
    value('\0', &["log-opt"]),
];

/// What `docker` is asked for.
pub(super) fn read(args: &[String]) -> Result<Action, String> {
    let client = line("docker", args, CLIENT, true)?;
    if let Some(host) = client.last("host").or_else(|| client.last("context")) {
        return Err(format!("a Docker daemon at `{host}`"));
    }
    let words: Vec<&str> = client.words.iter().map(String::as_str).collect();
    let behind = |count: usize| &client.words[count.min(client.words.len())..];
    match words.as_slice() {
        ["build", ..] => build("docker build", behind(1)),
        ["buildx" | "builder" | "image", "build" | "b", ..] => build(&format!("docker {} build", words[0]), behind(2)),
        [
            "buildx",
            verb @ ("create" | "use" | "inspect" | "install" | "rm" | "stop" | "ls" | "version" | "prune"),
            ..,
        ] => {
            Ok(Action::Nothing { why: format!("`docker buildx {verb}`: there is one builder, and it is always there") })
        }
        ["push", ..] => push(behind(1)),
        ["image", "push", ..] => push(behind(2)),
        ["pull", ..] => pull(behind(1)),
        ["image", "pull", ..] => pull(behind(2)),
        ["tag", ..] => tag(behind(1)),
        ["image", "tag", ..] => tag(behind(2)),
        ["run", ..] => run(behind(1)),
        ["container", "run", ..] => run(behind(2)),
        ["save", ..] => save(behind(1)),
        ["image", "save", ..] => save(behind(2)),
        ["load", ..] => load(behind(1)),
        ["image", "load", ..] => load(behind(2)),
        ["images", ..] => images(behind(1)),
        ["image", "ls" | "list", ..] => images(behind(2)),
        ["inspect", ..] => inspect(behind(1)),
        ["image", "inspect", ..] => inspect(behind(2)),
        ["login", ..] => login(behind(1)),
        ["logout", ..] => Ok(Action::Nothing { why: "`docker logout`: credentials end with the build".into() }),
        [] => Err("`docker` without a command".into()),
        [group @ ("buildx" | "builder" | "image" | "container"), verb, ..] => {
            Err(format!("`docker {group} {verb}` needs a Docker daemon"))
        }
        [first, ..] => Err(format!("`docker {first}` needs a Docker daemon")),
    }
}

fn build(program: &str, args: &[String]) -> Result<Action, String> {
    let line = line(program, args, BUILD, false)?;
    let context = match line.words.as_slice() {
        [context] => context.clone(),
        [] => return Err(format!("`{program}` without a context")),
        words => return Err(format!("`{program}` with {} contexts: `{}`", words.len(), words.join("` `"))),
    };
    if context == "-" {
        return Err(format!("`{program} -`: a step has nothing on standard input"));
    }
    let split = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    };
    // The network of Cloud Build's own containers: here every network of a build reaches what the machine reaches.
    let (network, options) =
        line.among(BUILD, BUILD_KEPT).into_iter().partition(|option| option == "--network=cloudbuild");
    let mut ignored: Vec<String> = network;
    ignored.extend(line.among(BUILD, BUILD_IGNORED));
    let platforms = line.all("platform").iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
    Ok(Action::Build(Box::new(Build {
        context,
        file: line.last("file"),
        tags: line.all("tag"),
        args: line.all("build-arg").into_iter().map(split).collect(),
        target: line.last("target"),
        platforms,
        push: line.is("push"),
        cache: !line.is("no-cache"),
        options,
        ignored,
    })))
}

/// The one word of a command.
fn only(program: &str, line: &Line, what: &str) -> Result<String, String> {
    match line.words.as_slice() {
        [word] => Ok(word.clone()),
        [] => Err(format!("`{program}` without {what}")),
        words => Err(format!("`{program}` with {} words, and it takes {what}", words.len())),
    }
}

fn push(args: &[String]) -> Result<Action, String> {
    let known = &[switch('a', &["all-tags"]), switch('q', &["quiet"]), switch('\0', &["disable-content-trust"])];
    let line = line("docker push", args, known, false)?;
    Ok(Action::Push { image: only("docker push", &line, "an image")?, all_tags: line.is("all-tags") })
}

fn pull(args: &[String]) -> Result<Action, String> {
    let known = &[value('\0', &["platform"]), switch('q', &["quiet"]), switch('\0', &["disable-content-trust"])];
    let line = line("docker pull", args, known, false)?;
    Ok(Action::Pull { image: only("docker pull", &line, "an image")?, platform: line.last("platform") })
}

fn tag(args: &[String]) -> Result<Action, String> {
    match line("docker tag", args, &[], false)?.words.as_slice() {
        [from, to] => Ok(Action::Tag { from: from.clone(), to: to.clone() }),
        words => Err(format!("`docker tag` with {} names, and it takes two", words.len())),
    }
}

fn run(args: &[String]) -> Result<Action, String> {
    let line = line("docker run", args, RUN, true)?;
    let Some((image, command)) = line.words.split_first() else {
        return Err("`docker run` without an image".into());
    };
    if line.all("volume").iter().chain(&line.all("mount")).any(|one| one.contains("docker.sock")) {
        return Err("`docker run` with the socket of a Docker daemon".into());
    }
    let names: Vec<&str> = RUN.iter().map(|known| known.names[0]).collect();
    Ok(Action::Run { image: image.clone(), command: command.to_vec(), options: line.among(RUN, &names) })
}

fn save(args: &[String]) -> Result<Action, String> {
    let line = line("docker save", args, &[value('o', &["output"]), value('\0', &["platform"])], false)?;
    if line.words.is_empty() {
        return Err("`docker save` without an image".into());
    }
    Ok(Action::Save { output: line.last("output"), images: line.words })
}

fn load(args: &[String]) -> Result<Action, String> {
    let line = line("docker load", args, &[value('i', &["input"]), switch('q', &["quiet"])], false)?;
    match line.words.first() {
        Some(word) => Err(format!("`docker load` takes no word such as `{word}`")),
        None => Ok(Action::Load { input: line.last("input") }),
    }
}

fn images(args: &[String]) -> Result<Action, String> {
    let known = &[
        switch('a', &["all"]),
        switch('q', &["quiet"]),
        switch('\0', &["digests"]),
        switch('\0', &["no-trunc"]),
        value('f', &["filter"]),
        value('\0', &["format"]),
    ];
    let line = line("docker images", args, known, false)?;
    let mut options = line.among(known, &["quiet"]);
    options.extend(line.words);
    Ok(Action::Images { options })
}

fn inspect(args: &[String]) -> Result<Action, String> {
    let known = &[value('f', &["format"]), switch('s', &["size"]), value('\0', &["type"]), value('\0', &["platform"])];
    let line = line("docker inspect", args, known, false)?;
    if line.words.is_empty() {
        return Err("`docker inspect` without a name".into());
    }
    Ok(Action::Inspect { format: line.last("format"), names: line.words })
}

fn login(args: &[String]) -> Result<Action, String> {
    let known = &[value('u', &["username"]), value('p', &["password"]), switch('\0', &["password-stdin"])];
    let line = line("docker login", args, known, false)?;
    let registry = match line.words.as_slice() {
        [] => "docker.io".to_owned(),
        [one] => one.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned(),
        words => return Err(format!("`docker login` with {} registries", words.len())),
    };
    let password = match (line.last("password"), line.is("password-stdin")) {
        (Some(_), _) => Password::Argument,
        (None, true) => Password::Stdin,
        (None, false) => Password::None,
    };
    Ok(Action::Login { registry, username: line.last("username"), password, secret: line.last("password") })
}
