//! Real builds: containers, layers, cache.

mod common;

use common::{Bench, can_run, chain};

#[test]
fn a_second_build_runs_nothing_and_gives_the_same() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write("src/a", "one");
    let text = "FROM busybox AS build\nWORKDIR /src\nCOPY src .\nRUN cat a > /out && echo built $BASE\n\
        FROM scratch\nCOPY --from=build /out /result\nCMD [\"/result\"]\n";
    let first = bench.built(text);
    assert_eq!(bench.text(&first, "/result"), "one");
    assert!(bench.log().contains("built busybox"), "{}", bench.log());
    assert_eq!(first.executed, 4);
    let second = bench.built(text);
    assert_eq!((second.executed, &second.descriptor), (0, &first.descriptor));
    // Touched, with the same content.
    std::thread::sleep(std::time::Duration::from_millis(20));
    bench.write("src/a", "one");
    assert_eq!(bench.built(text).executed, 0);
    bench.write("src/a", "two");
    let third = bench.built(text);
    assert_eq!(bench.text(&third, "/result"), "two");
    assert_ne!(third.descriptor, first.descriptor);
    let config = bench.config(&third);
    assert_eq!(config.config.cmd.as_deref(), Some(&["/result".to_owned()][..]));
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(config.rootfs.diff_ids.len(), 1);
    let layers = config.history.iter().filter(|h| !h.empty_layer).count();
    assert_eq!(layers, 1, "{:?}", config.history);
}

#[test]
fn a_stage_rebuilt_to_the_same_rebuilds_nothing_after_it() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let text =
        "FROM busybox AS a\nCOPY x /x\nRUN head -c 1 /x > /y\nFROM busybox\nCOPY --from=a /y /y\nRUN cat /y > /z\n";
    bench.write("x", "same");
    let first = bench.built(text);
    bench.write("x", "still");
    let second = bench.built(text);
    assert_eq!(first.descriptor, second.descriptor);
    assert_eq!((second.executed, second.cached), (2, 2));
}

#[test]
fn unneeded_stages_do_not_run_and_needed_ones_run_side_by_side() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let wait = |name: &str, other: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,target=/c,id=meet touch /c/{name}; for i in $(seq 100); do [ -e /c/{other} ] && touch /{name} && exit 0; usleep 50000; done; exit 1\n"
        )
    };
    let text = format!(
        "{}{}FROM busybox AS never\nRUN exit 7\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        wait("a", "b"),
        wait("b", "a")
    );
    let built = bench.built(&text);
    assert_eq!(bench.config(&built).rootfs.diff_ids.len(), 2);
}

#[test]
fn ignored_files_do_not_exist() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench
        .write(".dockerignore", "*.log\nsecret\nnode/**\n!node/keep\n")
        .write("a.log", "")
        .write("secret/x", "")
        .write("node/keep", "k");
    bench.write("node/drop", "").write("b", "b");
    let text = "FROM busybox\nCOPY . /w/\nRUN cd /w && find . | sort > /list\n";
    let built = bench.built(text);
    assert_eq!(bench.text(&built, "/list"), ".\n./.dockerignore\n./Dockerfile\n./b\n./node\n./node/keep\n");
    bench.write("a.log", "changed");
    assert_eq!(bench.built(text).executed, 0);
    let error = bench.failure("FROM busybox\nCOPY a.log /\n");
    assert!(error.contains("`a.log` does not exist in the context: an ignore pattern excludes it"), "{error}");
    bench.write("Dockerfile.dockerignore", "b\n");
    let error = bench.failure("FROM busybox\nCOPY b /\n");
    assert!(error.contains("`b` does not exist"), "{error}");
}

#[test]
fn here_documents_run_and_are_copied() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let built = bench.built(
        "FROM busybox\nARG WHO=world\nRUN <<EOF\nset -e\necho \"hello $WHO\" > /said\nEOF\nRUN <<EOF\n#!/bin/sh\necho script > /scripted\nEOF\n\
         RUN cat <<A > /a && cat <<-B > /b\nfirst\nA\n\tsecond\n\tB\nCOPY <<x.txt <<'y.txt' /d/\n$WHO\nx.txt\n$WHO\ny.txt\n",
    );
    let read = |path: &str| bench.text(&built, path);
    assert_eq!(read("/said"), "hello world\n");
    assert_eq!(read("/scripted"), "script\n");
    assert_eq!((read("/a").as_str(), read("/b").as_str()), ("first\n", "second\n"));
    assert_eq!((read("/d/x.txt").as_str(), read("/d/y.txt").as_str()), ("world\n", "$WHO\n"));
}

#[test]
fn mounts_are_there_and_leave_nothing() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.secrets.0.insert("token".into(), "s3cr3t-value".into());
    bench.write("in/file", "bound");
    let text = "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\n\
        RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token [ ${#TOKEN} = 12 ] && \
        [ $(wc -c < /run/secrets/token) = 12 ] && [ $(stat -c %a /run/secrets/token) = 400 ]\n\
        RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x && df -k /t | grep -q 1024\n\
        RUN --mount=target=/ctx,source=in cat /ctx/file > /bound; ! touch /ctx/new\n\
        RUN --mount=target=/ctx,source=in,rw touch /ctx/new && ls /ctx > /listed\n\
        RUN --mount=from=tools,source=/tool,target=/usr/tool cat /usr/tool > /used\n\
        RUN --mount=type=cache,target=/cache echo again >> /cache/count\n\
        RUN --mount=type=cache,target=/cache wc -l < /cache/count > /count\n\
        RUN --network=none ip -o link | wc -l > /links\n";
    let built = bench.built(text);
    assert_eq!(bench.text(&built, "/bound"), "bound");
    assert_eq!(bench.text(&built, "/listed"), "file\nnew\n");
    assert_eq!(bench.text(&built, "/used"), "tool\n");
    assert_eq!(bench.text(&built, "/count").trim(), "1");
    assert_eq!(bench.text(&built, "/links").trim(), "1");
    assert!(!bench.project().join("in/new").exists());
    for path in ["/ctx", "/run/secrets", "/cache", "/t", "/usr/tool"] {
        assert_eq!(bench.tree(&built).stat(path).unwrap(), None, "{path}");
    }
    // A secret is in no layer, no config, no record.
    let found =
        std::process::Command::new("grep").args(["-rl", "s3cr3t-value"]).arg(bench.store.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    // Another value is the same build.
    bench.secrets.0.insert("token".into(), "other".into());
    assert_eq!(bench.built(text).executed, 0);
    bench.secrets.0.clear();
    let error = bench.failure("FROM busybox\nRUN --mount=type=secret,id=nope,required true\n");
    assert!(error.contains("secret `nope` is not given"), "{error}");
}

#[test]
fn a_failing_command_says_what_and_where() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let error = bench.dockerfile("FROM busybox\nRUN echo before; echo sorry >&2; exit 3\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`[stage-0 2/2] RUN echo before; echo sorry >&2; exit 3` failed with exit code 3 at Dockerfile:2:1"
    );
    let ctk_build::BuildError::Command { last_lines, .. } = &error else { panic!("{}", chain(&error)) };
    let mut lines = last_lines.clone();
    lines.sort();
    assert_eq!(lines, ["before", "sorry"]);
    let error = bench.failure("FROM busybox\nCOPY nothing /\n");
    assert!(error.contains("`nothing` does not exist in the context"), "{error}");
    assert!(error.contains("Dockerfile:2:1"), "{error}");
    let error = bench.failure("FROM busybox AS a\nFROM scratch\nCOPY --from=a /nothing /\n");
    assert!(error.contains("Dockerfile:3:1") && error.contains("does not exist in the result of"), "{error}");
    let error = bench.failure("FROM nowhere\n");
    assert!(error.contains("docker.io/library/nowhere:latest"), "{error}");
}

#[test]
fn owners_modes_and_users() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write("f", "f").write("d/e", "e");
    let built = bench.built(
        "FROM busybox\nCOPY --chown=app --chmod=640 f /f\nCOPY --chown=app:1234 d /d\nCOPY f /plain\nUSER app\nRUN id -u > /tmp/id; id -g >> /tmp/id\n",
    );
    let tree = bench.tree(&built);
    let of = |path: &str| tree.stat(path).unwrap().map(|n| (n.uid, n.gid, n.mode)).unwrap();
    assert_eq!(of("/f"), (1000, 1001, 0o640));
    assert_eq!((of("/d/e").0, of("/d/e").1), (1000, 1234));
    assert_eq!((of("/plain").0, of("/plain").1), (0, 0));
    let error = bench.failure("FROM busybox\nCOPY --chown=nobody-here f /f\n");
    assert!(error.contains("nobody-here"), "{error}");
}

#[test]
fn the_same_inputs_give_the_same_digest_in_another_store() {
    if !can_run() {
        return;
    }
    let text = "FROM busybox\nCOPY . /w/\nRUN mkdir /made && date > /dev/null && touch /made/now && ln -s now /made/link\nWORKDIR /w\n";
    let digest = |wait: bool| {
        let bench = Bench::new();
        if wait {
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
        bench.write("z", "z").write("a/b", "b");
        bench.built(text).descriptor.digest
    };
    assert_eq!(digest(false), digest(true));
}

#[test]
fn both_languages_give_the_same_image() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.write("main.c", "int main;");
    let written = bench.built(
        "FROM busybox AS build\nWORKDIR /src\nARG MODE=fast\nCOPY main.c ./\nRUN --mount=type=cache,target=/c cp main.c out-$MODE\n\
         FROM scratch\nCOPY --from=build --chmod=755 /src/out-fast /usr/bin/app\nENV A=1 B=2\nEXPOSE 8080\nUSER 65532:65532\n\
         LABEL k=v\nENTRYPOINT [\"/usr/bin/app\"]\nCMD [\"--help\",\"me\"]\nSTOPSIGNAL SIGINT\nVOLUME /data\nHEALTHCHECK --interval=10s CMD [\"/usr/bin/app\",\"ok\"]\n",
    );
    let decl = bench.native(
        r#"image "native" {
    context "."
    stage "build" from="busybox" {
        workdir "/src"
        arg "MODE" "fast"
        copy "main.c" to="./"
        run "cp main.c out-$MODE" { cache "/c" }
    }
    stage "final" {
        copy "/src/out-fast" to="/usr/bin/app" from="build" chmod="755"
        env A="1" B="2"
        expose 8080
        user "65532:65532"
        label k="v"
        entrypoint "/usr/bin/app"
        cmd "--help" "me"
        stopsignal "SIGINT"
        volume "/data"
        healthcheck "/usr/bin/app" "ok" every="10s"
    }
}
"#,
        "native",
    );
    let native = bench.run(&decl).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(native.executed, 0);
    assert_eq!(native.descriptor, written.descriptor);
}

#[test]
fn an_account_can_be_made() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let decl = bench
        .native("image \"x\" from=\"busybox\" {\n    user \"nonroot\" uid=65532\n    run \"id -u; whoami\"\n}\n", "x");
    let built = bench.run(&decl).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(bench.log(), "65532\nnonroot");
    assert!(
        bench.text(&built, "/etc/passwd").ends_with("nonroot:x:65532:65532:nonroot:/nonexistent:/usr/sbin/nologin\n")
    );
    assert_eq!(bench.config(&built).config.user, "nonroot");
}

#[test]
fn copies_as_docker_makes_them() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench
        .write("d/x", "x")
        .write("d/sub/y", "y")
        .write("e.txt", "e")
        .write("f.txt", "f")
        .write("skip/a.md", "")
        .write("skip/b", "b");
    std::os::unix::fs::symlink("d/x", bench.project().join("link")).unwrap();
    let text = "FROM busybox\nCOPY d /flat\nCOPY d/ /there/d/\nCOPY *.txt /txt/\nCOPY link /l/\nCOPY --exclude=*.md skip /kept\n\
        COPY --parents d/sub/y ./d/./x /p/\nCOPY --link e.txt /linked/\nRUN mkdir /dir\nCOPY e.txt /dir\nCOPY e.txt f.txt /dir/\n\
        WORKDIR /into\nCOPY e.txt renamed\nRUN cd / && find flat there txt l kept p linked dir into -type f | sort > /list\n";
    let built = bench.built(text);
    let expected = "dir/e.txt\ndir/f.txt\nflat/sub/y\nflat/x\ninto/renamed\nkept/b\nl/link\nlinked/e.txt\np/d/sub/y\np/x\nthere/d/sub/y\nthere/d/x\ntxt/e.txt\ntxt/f.txt\n";
    assert_eq!(bench.text(&built, "/list"), expected);
    assert_eq!(bench.text(&built, "/l/link"), "x");
}

#[test]
fn archives_are_added_unpacked() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write("in/a", "a");
    let tar =
        std::process::Command::new("tar").args(["-czf", "in.tgz", "in"]).current_dir(bench.project()).status().unwrap();
    assert!(tar.success());
    let built = bench.built("FROM busybox\nADD in.tgz /out/\nADD --unpack=false in.tgz /raw/\nADD Dockerfile /\n");
    assert_eq!(bench.text(&built, "/out/in/a"), "a");
    assert!(bench.tree(&built).stat("/raw/in.tgz").unwrap().is_some());
    assert!(bench.tree(&built).stat("/Dockerfile").unwrap().is_some());
}

#[test]
fn triggers_of_a_base_run() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.write("app", "app");
    let base = bench.built("FROM busybox\nONBUILD COPY app /app\nONBUILD RUN cat /app > /copied\n");
    let name = ctk_buildgraph::BaseName::Project(ctk_plan::Address::new(ctk_plan::Kind::Image, "base"));
    bench.images.insert(name, base.descriptor);
    let decl = bench.native(
        "image \"base\" from=\"busybox\" {\n    run \"true\"\n}\nimage \"x\" from=\"base\" {\n    env A=\"1\"\n}\n",
        "x",
    );
    let built = bench.run(&decl).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(bench.text(&built, "/copied"), "app");
    assert!(bench.config(&built).config.on_build.is_empty());
}

#[test]
fn what_triggers_read_is_seen_once_the_base_is_here() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write("app", "app");
    let base = bench.built("FROM busybox\nONBUILD COPY app /app\n");
    bench.store.set_reference("docker.io/library/trigger:latest", &ctk_store::Ref::new(base.descriptor)).unwrap();
    bench.write("Dockerfile", "FROM trigger\nENV A=1\n");
    assert_eq!(bench.observe(&bench.decl()).unwrap().unresolved.len(), 1);
    bench.run(&bench.decl()).unwrap();
    let seen = bench.observe(&bench.decl()).unwrap();
    assert!(seen.unresolved.is_empty() && seen.inputs.keys().any(|i| i.to_string() == "file app"), "{seen:?}");
}

#[test]
fn without_the_cache_all_runs_again() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let text = "FROM busybox\nRUN cat /proc/uptime /proc/sys/kernel/random/uuid > /now\n";
    let first = bench.built(text);
    bench.no_cache = true;
    let second = bench.built(text);
    assert_eq!(second.executed, 1);
    assert_ne!(bench.text(&first, "/now"), bench.text(&second, "/now"));
    bench.no_cache = false;
    assert_eq!(bench.built(text).descriptor, second.descriptor);
}

#[test]
fn a_cancelled_build_stops_its_command() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let cancel = bench.cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        cancel.cancel();
    });
    let started = std::time::Instant::now();
    let error = bench.dockerfile("FROM busybox\nRUN sleep 30\n").unwrap_err();
    assert!(error.is_cancelled(), "{}", chain(&error));
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn what_an_image_reads_is_seen_without_building() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write(
        "Dockerfile",
        "FROM busybox AS first\nARG A\nCOPY src/*.c /\nFROM busybox AS other\nCOPY missing /\nFROM first\nRUN true\n",
    );
    bench.write("src/a.c", "a").write("src/b.h", "b");
    let seen = bench.observe(&bench.decl()).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let names: Vec<String> = seen.inputs.keys().map(|i| i.to_string()).collect();
    assert!(names.contains(&"file src/a.c".to_owned()) && !names.contains(&"file src/b.h".to_owned()), "{names:?}");
    assert_eq!(seen.unresolved.len(), 1);
    bench.write("src/b.h", "changed");
    assert_eq!(bench.observe(&bench.decl()).unwrap().inputs, seen.inputs);
    bench.write("src/a.c", "changed");
    assert_ne!(bench.observe(&bench.decl()).unwrap().inputs, seen.inputs);
}

#[test]
fn the_same_work_at_once_is_done_once() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write("Dockerfile", "FROM busybox\nRUN sleep 0.2; echo x > /x\nRUN cat /x > /y\n");
    let counts: Vec<(usize, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| bench.run(&bench.decl()).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).map(|b| (b.executed, b.descriptor.digest.to_string())).collect()
    });
    assert_eq!(counts.iter().map(|(executed, _)| executed).sum::<usize>(), 2, "{counts:?}");
    assert!(counts.iter().all(|(_, digest)| *digest == counts[0].1));
}

#[test]
fn several_platforms_make_an_index_and_foreign_commands_are_refused() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.write("app", "app");
    let text = "image \"x\" {\n    platforms \"linux/amd64\" \"linux/arm64\"\n    copy \"app\" to=\"/app\"\n    label arch=\"${platform.arch}\"\n}\n";
    let decl = bench.native(text, "x");
    let built = bench.run(&decl).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(built.manifests.len(), 2);
    let index: ctk_oci::Index = bench.store.document("image index", &built.descriptor).unwrap().into_value();
    let platforms: Vec<String> = index.manifests.iter().map(|m| m.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let one = |n: usize| ctk_build::Built { descriptor: built.manifests[n].1.clone(), ..built.clone() };
    assert_eq!(bench.config(&one(1)).architecture, "arm64");
    assert_eq!(bench.config(&one(1)).config.labels["arch"], "arm64");
    assert_eq!(bench.manifest(&one(0)).layers, bench.manifest(&one(1)).layers);
    let foreign = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    let text =
        format!("image \"y\" {{\n    platforms \"{foreign}\"\n    copy \"app\" to=\"/app\"\n    run \"/app\"\n}}\n");
    let decl = bench.native(&text, "y");
    let error = chain(&bench.run(&decl).unwrap_err());
    assert!(error.contains(&format!("cannot run commands of {foreign} on this ")), "{error}");
}

#[test]
fn symbolic_links_cannot_lead_out() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    std::os::unix::fs::symlink("/etc/passwd", bench.project().join("out")).unwrap();
    std::os::unix::fs::symlink("../../../../../etc", bench.project().join("up")).unwrap();
    let error = bench.failure("FROM scratch\nCOPY out /x\n");
    assert!(error.contains("`out` does not exist"), "{error}");
    let error = bench.failure("FROM scratch\nCOPY up/hostname /x\n");
    assert!(error.contains("`up/hostname` does not exist"), "{error}");
    // In a tree they lead where they would lead inside.
    let built = bench.built("FROM busybox\nRUN ln -s /etc/passwd /l && ln -s /tmp /dest\nCOPY Dockerfile /dest/\nFROM scratch\nCOPY --from=0 /l /l\nCOPY --from=0 /tmp /tmp\n");
    assert!(bench.text(&built, "/l").starts_with("root:"));
    assert!(bench.tree(&built).stat("/tmp/Dockerfile").unwrap().is_some());
}
