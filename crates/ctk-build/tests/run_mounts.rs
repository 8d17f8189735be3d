//! `RUN --mount`: what BuildKit 0.25 does with the same lines, except where a comment says otherwise.

mod common;

use common::{Bench, can_run, chain};

const BASE: &str = "etc/ etc/group etc/passwd dev/ proc/ sys/ tmp/";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("dir/a", "a\n").write("dir/sub/b", "b\n").write("file.txt", "hello\n");
    std::os::unix::fs::symlink("a", bench.project().join("dir/link")).unwrap();
    bench
}

/// A stage to mount from and a working directory.
fn with(line: &str) -> String {
    format!(
        "FROM scratch AS st\nCOPY dir /d\nFROM busybox\nARG V=dir\nARG T=/tgt\nARG M=0700\nARG K=tmpfs\nWORKDIR /wd\n{line}\n"
    )
}

fn prints(bench: &Bench, table: &[(&str, &str)]) {
    let table: Vec<(String, &str)> = table.iter().map(|(line, expected)| (with(line), *expected)).collect();
    bench.prints(&table.iter().map(|(text, expected)| (text.as_str(), *expected)).collect::<Vec<_>>());
}

fn refuses(bench: &Bench, table: &[(&str, &str)]) {
    let table: Vec<(String, &str)> = table.iter().map(|(line, expected)| (with(line), *expected)).collect();
    bench.refuses(&table.iter().map(|(text, expected)| (text.as_str(), *expected)).collect::<Vec<_>>());
}

#[test]
fn binds_show_contexts_stages_and_images() {
    if !can_run() {
        return;
    }
    let mut bench = bench();
    bench.no_cache = true;
    let no = "2>/dev/null || echo no";
    prints(
        &bench,
        &[
            ("RUN --mount=target=x,source=dir ls /wd/x", "a\nlink\nsub"),
            ("RUN --mount=target=/x,source=$V ls /x", "a\nlink\nsub"),
            ("RUN --mount=target=$T,source=dir ls /tgt", "a\nlink\nsub"),
            ("RUN --mount=type=$K,target=/x,size=${U:-1m} df /x | tail -n1 | tr -s ' ' | cut -d' ' -f2", "1024"),
            ("RUN --mount=target=/x,source=/dir ls /x", "a\nlink\nsub"),
            ("RUN --mount=target=/x,source=../../dir ls /x", "a\nlink\nsub"),
            ("RUN --mount=target=/x,source=dir/link cat /x", "a"),
            ("RUN --mount=target=/x,from=st ls /x", "d"),
            ("RUN --mount=target=/x,from=st,source=/d/sub ls /x", "b"),
            ("RUN --mount=target=/x,from=st,source=d/link cat /x", "a"),
            ("RUN --mount=target=/x,from=busybox,source=/etc ls /x", "group\npasswd"),
            ("RUN --mount=type=bind,source=dir ls /wd", "a\nlink\nsub"),
            ("RUN --mount=type=BIND,TARGET=/x,source=dir,RO ls /x", "a\nlink\nsub"),
            (r#"RUN --mount=type=bind,'"target=/x,y"',source=dir ls /x,y"#, "a\nlink\nsub"),
            (r#"RUN --mount="type=bind,target=/x y,source=dir" ls "/x y""#, "a\nlink\nsub"),
            (&format!("RUN --mount=target=/x,source=dir touch /x/y {no}"), "no"),
            (&format!("RUN --mount=target=/x,source=dir,rw=false touch /x/y {no}"), "no"),
            (&format!("RUN --mount=target=/x,source=dir,rw,ro touch /x/y {no}"), "no"),
            (&format!("RUN --mount=target=/x,from=st,source=d touch /x/y {no}"), "no"),
            ("RUN --mount=target=/x,source=dir,rw echo new > /x/a && touch /x/y && cat /x/a", "new"),
            ("RUN --mount=target=/x,source=dir,ro=false touch /x/y && ls /x", "a\nlink\nsub\ny"),
            ("RUN --mount=target=/x,source=file.txt,rw echo new > /x && cat /x", "new"),
            ("RUN --mount=target=/x,from=st,source=d,rw echo new > /x/a && rm /x/link && ls /x", "a\nsub"),
            ("RUN --mount=target=/x,from=st,source=d/a,rw echo new > /x && cat /x", "new"),
            ("RUN --mount=target=/x,source=dir cat /x/a", "a"),
            ("RUN --mount=target=/a/b,source=dir --mount=type=tmpfs,target=/a ls /a/b", "a\nlink\nsub"),
            ("RUN --mount=target=/etc/hosts,source=file.txt cat /etc/hosts", "hello"),
            ("RUN --mount=target=/x,source=dir,id=1,env=X ls /x/sub", "b"),
        ],
    );
    assert_eq!(std::fs::read_to_string(bench.project().join("dir/a")).unwrap(), "a\n", "what was written is discarded");
    assert!(!bench.project().join("dir/y").exists());
}

#[test]
fn mounts_that_make_no_sense_are_refused() {
    if !can_run() {
        return;
    }
    let bench = bench();
    refuses(
        &bench,
        &[
            ("RUN --mount=target=/x,from=$V ls /x", "cannot hold a variable"),
            ("RUN --mount=target=/x,from=st,source=nope true", "`nope` does not exist in the result of"),
            ("RUN --mount=target=/x,source=nope true", "`nope` does not exist in the context"),
            ("RUN --mount=target=/x,source=di* true", "`di*` does not exist in the context"),
            ("RUN --mount=target=/x,from=st,source=/d/* true", "does not exist in the result of"),
            // BuildKit takes a stage's number for an image and does not find that.
            ("RUN --mount=target=/x,from=0 true", "by its name, not by its number 0"),
            ("RUN --mount=type=bind,target=/ ls", "cannot cover the whole root"),
            ("WORKDIR /\nRUN --mount=type=bind,source=dir ls", "cannot cover the whole root"),
            ("RUN --mount=target=/x,source=dir,mode=$M true", "a bind mount has no option `mode`"),
            ("RUN --mount=type=$V,target=/x true", "unknown mount type `dir`"),
            ("RUN --mount=type=cache,target=/x,uid=$V true", "`uid` cannot be `dir`"),
            ("RUN --mount=target=/x, source=dir true", "is empty"),
            ("RUN --mount= true", "is empty"),
            ("RUN --mount true", "needs a value"),
            (r#"RUN --mount=type=bind,\"target=/x"y",source=dir true"#, "cannot be split"),
        ],
    );
}

#[test]
fn nothing_of_a_mount_stays_in_the_layer() {
    if !can_run() {
        return;
    }
    let mut bench = bench();
    bench.secrets.0.insert("s".into(), "hi\n".into());
    let all = "--mount=type=bind,source=dir,target=/mnt/deep/x --mount=type=bind,source=file.txt,target=/m2/f/file.txt \
        --mount=type=cache,target=/c1/c2 --mount=type=tmpfs,target=/t1/t2 --mount=type=secret,id=s \
        --mount=type=secret,id=s,target=/sec/ret --mount=target=/w/r,source=dir,rw --mount=from=busybox,target=/w/i";
    for (lines, more) in [
        (format!("RUN {all} true"), ""),
        (format!("RUN {all} touch /mnt/y"), "mnt/ mnt/y"),
        (format!("RUN {all} touch /c1/c2/z /w/r/z /t1/t2/z && echo x > /w/r/a"), ""),
        (format!("RUN mkdir -p /c1/c2\nRUN {all} touch /c1/c2/z"), "c1/ c1/c2/"),
        ("RUN --mount=type=tmpfs,target=/tmp touch /tmp/y".into(), ""),
        ("RUN <<EOF\n#!/bin/sh\ntrue\nEOF".into(), ""),
        ("RUN cat /etc/hosts /etc/resolv.conf".into(), ""),
    ] {
        let built = bench.built(&format!("FROM busybox\n{lines}\n"));
        let mut paths = bench.paths(&built);
        let mut expected: Vec<String> = format!("{BASE} {more}").split_whitespace().map(str::to_owned).collect();
        paths.sort();
        expected.sort();
        assert_eq!(paths, expected, "{lines}");
    }
    // A root without the system's directories gets them, as with everybody else.
    std::fs::copy("/usr/bin/busybox", bench.project().join("busybox")).unwrap();
    let built = bench.built("FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"true\"]\n");
    assert_eq!(bench.paths(&built), ["busybox", "dev/", "proc/", "sys/"]);
}

#[test]
fn contexts_with_ignored_or_foreign_files_are_roots_in_a_mount() {
    if !can_run() {
        return;
    }
    let bench = bench();
    std::os::unix::fs::chown(bench.project().join("dir/a"), Some(1000), Some(1000)).unwrap();
    prints(
        &bench,
        &[("RUN --mount=target=/x,source=dir stat -c '%u:%g %n' /x/*", "0:0 /x/a\n0:0 /x/link\n0:0 /x/sub")],
    );
    bench.write(".dockerignore", "dir/sub\n");
    prints(
        &bench,
        &[
            ("RUN --mount=target=/x,source=dir ls /x", "a\nlink"),
            ("RUN --mount=target=/x,source=dir,rw touch /x/n && ls /x", "a\nlink\nn"),
        ],
    );
    refuses(&bench, &[("RUN --mount=target=/x,source=dir/sub ls /x", "an ignore pattern excludes it")]);
}

#[test]
fn caches_survive_by_their_names() {
    if !can_run() {
        return;
    }
    let mut bench = bench();
    prints(
        &bench,
        &[
            ("RUN --mount=type=cache,target=/x touch /x/1", ""),
            ("RUN --mount=type=cache,target=/y,id=/x ls /y", "1"),
            ("RUN --mount=type=cache,target=/x/../x ls /x", "1"),
            ("RUN --mount=type=cache,target=/x,ro touch /x/2 2>/dev/null || echo no", "no"),
            ("RUN --mount=type=cache,target=rel touch /wd/rel/3", ""),
            ("WORKDIR /other\nRUN --mount=type=cache,target=rel ls /other/rel", "3"),
            ("RUN --mount=type=cache,target=/x,mode=$M,uid=7,gid=8 ls -A /x; stat -c '%a %u:%g' /x", "700 7:8"),
            ("RUN --mount=type=cache,target=/x,id=f,from=st,source=/d ls /x; touch /x/new", "a\nlink\nsub"),
            ("RUN --mount=type=cache,target=/x,id=f,from=st,source=/d ls /x", "a\nlink\nnew\nsub"),
            ("RUN --mount=type=cache,target=/x,id=g,from=st ls /x", "d"),
            ("RUN --mount=type=cache,target=/a,id=h --mount=type=cache,target=/b,id=h touch /a/1 && ls /b", "1"),
            (
                "RUN --mount=type=cache,target=/a,id=i,sharing=locked --mount=type=cache,target=/b,id=i,sharing=locked \
                 touch /a/1 && ls /b",
                "1",
            ),
            ("RUN --mount=type=cache,target=/a,id=j --mount=source=file.txt,target=/a/b/c cat /a/b/c", "hello"),
            ("RUN --mount=type=cache,target=/x,id=k mkdir /x/in && ln -s /etc /x/out", ""),
            ("RUN --mount=type=cache,target=/x,id=k,source=in touch /x/4", ""),
            ("RUN --mount=type=cache,target=/x,id=k ls /x/in", "4"),
        ],
    );
    refuses(
        &bench,
        &[
            ("RUN --mount=type=cache,target=/x,source=nope true", "`nope` does not exist in the cache"),
            ("RUN --mount=type=cache,target=/x,from=st,source=nope true", "`nope` does not exist in the result of"),
            // A link that a build left in a cache leads nowhere outside of it.
            ("RUN --mount=type=cache,target=/x,id=k,source=out true", "`out` does not exist in the cache"),
        ],
    );
    bench.args.insert("BUILDKIT_CACHE_MOUNT_NS".into(), "space".into());
    prints(&bench, &[("RUN --mount=type=cache,target=/x ls -A /x; echo end", "end")]);
}

#[test]
fn caches_are_shared_as_they_say() {
    if !can_run() {
        return;
    }
    let mut bench = bench();
    bench.jobs = 3;
    let two = |sharing: &str, script: &str| {
        let stage = |name: &str| {
            format!(
                "FROM busybox AS {name}\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} me={name}; {script}\n"
            )
        };
        format!("{}{}FROM scratch\nCOPY --from=a /out /a\nCOPY --from=b /out /b\n", stage("a"), stage("b"))
    };
    // Both at once: each sees the other come.
    let shared = "touch /c/$me; for i in $(seq 100); do [ $(ls /c | wc -l) = 2 ] && echo met > /out && exit 0; usleep 50000; done; exit 1";
    let built = bench.built(&two("shared", shared));
    assert_eq!((bench.text(&built, "/a"), bench.text(&built, "/b")), ("met\n".into(), "met\n".into()));
    // One after the other: nobody sees the mark of one who is in there.
    let locked = "[ ! -e /c/busy ] && touch /c/busy && usleep 300000 && rm /c/busy && echo $me >> /c/log && wc -l < /c/log > /out";
    let built = bench.built(&two("locked", locked));
    let mut seen = [bench.text(&built, "/a"), bench.text(&built, "/b")];
    seen.sort();
    assert_eq!(seen, ["1\n", "2\n"]);
    // Each its own.
    let private = "touch /c/$me; usleep 300000; ls /c > /out";
    let built = bench.built(&two("private", private));
    assert_eq!((bench.text(&built, "/a"), bench.text(&built, "/b")), ("a\n".into(), "b\n".into()));
}

#[test]
fn who_waits_for_a_cache_can_be_stopped() {
    if !can_run() {
        return;
    }
    let bench = bench();
    bench.built("FROM busybox\nRUN --mount=type=cache,target=/c,id=x,sharing=locked true\n");
    let folder = bench.store.root().join("cache");
    let lock = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let lock = lock.into_iter().find(|path| path.extension().is_some_and(|e| e == "lock")).unwrap();
    let held = std::fs::File::open(lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let cancel = bench.cancel.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        cancel.cancel();
    });
    let error = bench.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,id=x,sharing=locked echo again\n");
    stopper.join().unwrap();
    assert!(error.is_err_and(|error| error.is_cancelled()));
}

#[test]
fn a_tmpfs_is_memory() {
    if !can_run() {
        return;
    }
    let bench = bench();
    let size = "df /x | tail -n1 | tr -s ' ' | cut -d' ' -f2";
    prints(
        &bench,
        &[
            (&format!("RUN --mount=type=tmpfs,target=/x,size=1m {size}"), "1024"),
            (&format!("RUN --mount=type=tmpfs,target=/x,size=1.5m {size}"), "1536"),
            (&format!("RUN --mount=type=tmpfs,target=/x,size=10MB {size}"), "10240"),
            ("RUN --mount=type=tmpfs,target=/x stat -c '%a %u' /x", "1777 0"),
            ("RUN mkdir -m 0700 /q\nRUN --mount=type=tmpfs,target=/q stat -c '%a %u' /q", "700 0"),
            ("RUN --mount=type=tmpfs,target=/x,ro touch /x/y 2>/dev/null || echo no", "no"),
            (
                "RUN --mount=type=tmpfs,target=/dev/shm,size=1m df /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2",
                "1024",
            ),
            ("RUN --mount=type=tmpfs grep -o ' /wd tmpfs' /proc/mounts", "/wd tmpfs"),
            ("RUN ln -s /real /lnk\nRUN --mount=type=tmpfs,target=/lnk/x ls -d /real/x", "/real/x"),
        ],
    );
}

#[test]
fn secrets_are_files_and_variables() {
    if !can_run() {
        return;
    }
    let mut bench = bench();
    bench.secrets.0.insert("s".into(), "hi".into());
    bench.secrets.0.insert("dir".into(), "var".into());
    bench.no_cache = true;
    let look = "stat -c '%a %u:%g' /run/secrets/s; cat /run/secrets/s; echo";
    prints(
        &bench,
        &[
            (&format!("RUN --mount=type=secret,id=s {look}"), "400 0:0\nhi"),
            (&format!("RUN --mount=type=secret,source=s {look}"), "400 0:0\nhi"),
            (&format!("RUN --mount=type=secret,id=s,mode=0444,uid=5,gid=6 {look}"), "444 5:6\nhi"),
            ("RUN --mount=type=secret,id=s grep -o 'secrets/s .* ro,nosuid,nodev,noexec' /proc/mounts | wc -l", "1"),
            ("RUN --mount=type=secret,target=/x/s cat /x/s; echo", "hi"),
            ("RUN --mount=type=secret,id=s,target=sub/q cat /wd/sub/q; echo", "hi"),
            ("RUN --mount=type=secret,id=s,target=/y/ cat /y; echo", "hi"),
            ("RUN --mount=type=secret,id=s,env=FOO echo $FOO; ls /run 2>/dev/null || echo none", "hi\nnone"),
            ("RUN --mount=type=secret,id=s,env=FOO,target=/x echo $FOO; cat /x; echo", "hi\nhi"),
            ("RUN --mount=type=secret,id=$V,env=$V sh -c 'echo $dir'", "var"),
            ("RUN --mount=type=secret,id=nope ls /run 2>/dev/null || echo none", "none"),
            ("RUN --mount=type=secret,id=nope,env=X echo \"[${X-unset}]\"", "[]"),
            ("RUN --mount=type=secret,id=s (echo x > /run/secrets/s) 2>/dev/null || echo no", "no"),
        ],
    );
    refuses(&bench, &[("RUN --mount=type=secret,id=nope,required true", "secret `nope` is not given")]);
    bench.no_cache = false;
    let built = bench.built(&with("RUN --mount=type=secret,id=s cat /run/secrets/s > /copy"));
    assert_eq!(bench.text(&built, "/copy"), "hi");
    bench.secrets.0.insert("s".into(), "changed".into());
    let again = bench.built(&with("RUN --mount=type=secret,id=s cat /run/secrets/s > /copy"));
    assert_eq!(again.descriptor, built.descriptor, "a secret is no part of a key");
    let left: Vec<_> = std::fs::read_dir(bench.folder.path().join("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn native_runs_have_the_same_mounts() {
    if !can_run() {
        return;
    }
    let mut bench = bench();
    bench.secrets.0.insert("s".into(), "hi".into());
    let text = r#"image "x" from="busybox" {
    stage "st" { copy "dir" to="/d"; }
    stage "final" from="busybox" {
        run "cp /m/a /one && touch /m/new && cp /c/sub/b /two && cp /run/secrets/s /three" {
            bind "d" from="st" to="/m" writable=#true
            cache "/c" from="st" source="d"
            secret "s"
        }
    }
}
"#;
    let decl = bench.native(&text.replace("image \"x\" from=\"busybox\"", "image \"x\""), "x");
    let built = bench.run(&decl).unwrap_or_else(|e| panic!("{}", chain(&e)));
    for (path, content) in [("/one", "a\n"), ("/two", "b\n"), ("/three", "hi")] {
        assert_eq!(bench.text(&built, path), content, "{path}");
    }
}
