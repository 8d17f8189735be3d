//! What runs, what runs once, and what does not run at all.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Bench, can_run};
use ctk_build::Built;
use ctk_plan::Event;

fn counts(built: &Built) -> (usize, usize) {
    (built.executed, built.cached)
}

#[test]
fn a_step_that_makes_the_same_files_stops_the_rebuild() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.epoch_seconds = Some(1_700_000_000);
    let text = |how: &str| {
        format!(
            "FROM busybox AS tool\nRUN {how}\nRUN ln /out/a /out/b && setfattr -n user.x -v 1 /out/a 2>/dev/null; true\n\
             FROM tool AS middle\nRUN cat /out/a > /copy; echo ran\nFROM busybox\nCOPY --from=middle /copy /copy\nRUN echo last >> /copy\n"
        )
    };
    let first = bench.built(&text("mkdir /out && echo one > /out/a"));
    assert_eq!(first.executed, 5);
    // Other words, the same files: only this step runs.
    let again = bench.built(&text("mkdir  /out; echo one > /out/a"));
    assert_eq!(counts(&again), (1, 4));
    assert_eq!(again.descriptor.digest, first.descriptor.digest);
    // Back and forth: the definition is known.
    assert_eq!(bench.built(&text("mkdir /out && echo one > /out/a")).executed, 0);
    for other in [
        "mkdir /out && echo two > /out/a",
        "mkdir /out && echo one > /out/a && chmod 600 /out/a",
        "mkdir /out && echo one > /out/a && chown 7 /out/a",
        "mkdir /out && echo one > /out/a && touch -d 1990-01-01 /out/a",
        "mkdir /out && echo one > /out/a && ln -s a /out/c",
        "mkdir -m 700 /out && echo one > /out/a",
    ] {
        assert!(bench.built(&text(other)).executed >= 3, "{other}");
    }
    // Only the content of what is copied counts for the last stage.
    let copied = bench.built(&text("mkdir /out && echo one > /out/a && echo more > /out/d"));
    assert_eq!(copied.executed, 3);
    assert_eq!(copied.descriptor.digest, first.descriptor.digest);
}

#[test]
fn the_same_work_is_done_once() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let text = "FROM busybox AS one\nRUN --mount=type=cache,target=/c echo x >> /c/runs && cp /c/runs /runs\n\
                FROM busybox AS two\nRUN --mount=type=cache,target=/c echo x >> /c/runs && cp /c/runs /runs\n\
                FROM scratch\nCOPY --from=one /runs /a\nCOPY --from=two /runs /b\n";
    for (no_cache, lines) in [(false, 1), (true, 2)] {
        bench.no_cache = no_cache;
        let built = bench.built(text);
        for path in ["/a", "/b"] {
            assert_eq!(bench.text(&built, path), "x\n".repeat(lines), "{path}, no cache: {no_cache}");
        }
    }
}

#[test]
fn what_the_target_does_not_need_never_runs() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let built = bench.built(
        "FROM busybox AS broken\nRUN exit 1\nFROM broken AS more\nRUN exit 2\nFROM busybox AS used\nRUN echo yes > /yes\n\
         FROM scratch\nCOPY --from=used /yes /yes\n",
    );
    assert_eq!(built.executed, 2);
}

#[test]
fn stages_run_side_by_side_within_the_jobs() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    // Each tells how many run beside it: files of a shared cache.
    let stage = |n: usize| {
        format!(
            "FROM busybox AS s{n}\nRUN --mount=type=cache,target=/c touch /c/{n} && sleep 0.3 && ls /c | wc -l > /seen && sleep 0.3 && rm /c/{n}\n"
        )
    };
    let text: String = (0..4).map(stage).collect::<String>()
        + "FROM scratch\n"
        + &(0..4).map(|n| format!("COPY --link --from=s{n} /seen /{n}\n")).collect::<String>();
    bench.no_cache = true;
    for jobs in [1, 2, 4] {
        bench.jobs = jobs;
        let built = bench.built(&text);
        let seen = (0..4).map(|n| bench.text(&built, &format!("/{n}")).trim().parse::<usize>().unwrap());
        let most = seen.max().unwrap();
        assert!(most <= jobs, "{most} at once, {jobs} allowed");
        assert!(jobs == 1 || most > 1, "nothing ran side by side with {jobs} jobs");
    }
}

#[test]
fn two_handles_build_the_same_once() {
    if !can_run() {
        return;
    }
    let bench = Arc::new(Bench::new());
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/runs && sleep 0.3 && cp /c/runs /runs\n";
    bench.write("Dockerfile", text);
    let decl = bench.decl();
    let built: Vec<Built> = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| bench.run(&decl).unwrap()));
        both.map(|one| one.join().unwrap()).into()
    });
    assert_eq!(built[0].descriptor.digest, built[1].descriptor.digest);
    assert_eq!(built[0].executed + built[1].executed, 1);
    assert_eq!(bench.text(&built[0], "/runs"), "x\n");
}

#[test]
fn who_waits_for_another_hears_a_stop() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    bench.write("Dockerfile", "FROM busybox\nRUN sleep 60\n");
    let decl = bench.decl();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| bench.run(&decl)));
        std::thread::sleep(Duration::from_millis(700));
        bench.cancel.cancel();
        assert!(both.into_iter().all(|one| one.join().unwrap().unwrap_err().is_cancelled()));
    });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn copied_files_stay_where_they_do_not_meet_what_changed() {
    if !can_run() {
        return;
    }
    let passwd = |uid: u32| format!("mkdir -p /etc && echo me:x:{uid}:{uid}::/:/bin/sh > /etc/passwd");
    let (five, six, five_more) = (passwd(5), passwd(6), format!("{}; echo 2 > /x", passwd(5)));
    let (five, six, five_more) = (five.as_str(), six.as_str(), five_more.as_str());
    // What is below before and after, what is copied there, and how many steps run the second time.
    let cases = [
        ("echo 1 > /x", "echo 2 > /x", "COPY tree /data/", 1),
        ("echo 1 > /x", "echo 2 > /x", "COPY tree/b /data/b", 1),
        ("echo 1 > /x", "echo 2 > /x", "COPY --chown=7:8 --chmod=u+x tree /data/", 1),
        ("echo 1 > /x", "echo 2 > /x", "ADD tree /data/", 1),
        ("echo 1 > /x", "echo 2 > /x; rm -f /bin/none", "COPY tree /", 1),
        // The directory is there, with something else in it.
        ("mkdir /data && echo 1 > /data/x", "mkdir /data && echo 2 > /data/x", "COPY tree /data/", 1),
        ("mkdir /data", "mkdir /data && echo 2 > /data/x", "COPY tree /data/", 1),
        ("mkdir /data", "mkdir -m 700 /data", "COPY tree /data/", 2),
        ("mkdir /data", "mkdir /data && chown 5 /data", "COPY tree /data/", 2),
        ("mkdir /data", "mkdir -p /data/deep", "COPY tree /data/", 2),
        ("mkdir /data", "echo 1 > /x", "COPY tree /data/", 2),
        // A file that is replaced, whatever is in it, and one that was not there.
        ("mkdir /data && echo 1 > /data/b", "mkdir /data && echo 2 > /data/b", "COPY tree /data/", 1),
        ("mkdir /data", "mkdir /data && echo 2 > /data/b", "COPY tree /data/", 2),
        ("mkdir /data", "mkdir /data && ln -s /x /data/b", "COPY tree/b /data/b", 2),
        // Links on the way.
        ("mkdir /r; ln -s r /data; echo 1 > /x", "mkdir /r; ln -s r /data; echo 2 > /x", "COPY tree /data/", 1),
        ("mkdir /r /s; ln -s r /data", "mkdir /r /s; ln -s s /data", "COPY tree /data/", 2),
        ("mkdir /r; ln -s /r/b /b; echo 1 > /x", "mkdir /r; ln -s /r/b /b; echo 2 > /x", "COPY tree/b /b", 1),
        ("mkdir /r; ln -s /r/b /b", "mkdir /r; ln -s /r/c /b", "COPY tree/b /b", 2),
        // A link in the destination that only its last name meets: not certain, so it is copied again.
        ("mkdir /r /d; ln -s /r/b /d/b", "mkdir /r /d; ln -s /r/c /d/b", "COPY tree/b /d/", 2),
        // Names of owners.
        (five, five_more, "COPY --chown=me tree /data/", 1),
        (five, six, "COPY --chown=me tree /data/", 2),
        (five, six, "COPY --chown=3 tree /data/", 1),
    ];
    for (before, after, copy, executed) in cases {
        let mut bench = Bench::new();
        bench.epoch_seconds = Some(1_700_000_000);
        bench.write("tree/deep/a", "a").write("tree/b", "b");
        let text = |below: &str| format!("FROM busybox\nRUN {below}\n{copy}\n");
        assert_eq!(bench.built(&text(before)).executed, 2, "{before} | {copy}");
        let again = bench.built(&text(after));
        assert_eq!(again.executed, executed, "{before} -> {after} | {copy}");
        bench.no_cache = true;
        let anew = bench.built(&text(after));
        assert_eq!(again.descriptor.digest, anew.descriptor.digest, "{before} -> {after} | {copy}");
    }
}

#[test]
fn a_mounted_path_counts_and_nothing_beside_it() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.epoch_seconds = Some(1_700_000_000);
    let text = |made: &str| {
        format!(
            "FROM busybox AS made\nRUN mkdir -p /out/sub && {made}\nFROM busybox\n\
             RUN --mount=from=made,source=/out/sub,target=/in --mount=from=made,source=out/one,target=/one cat /in/* /one > /all\n"
        )
    };
    let base = "echo a > /out/sub/a && echo 1 > /out/one";
    assert_eq!(bench.built(&text(base)).executed, 2);
    for (more, executed) in [
        ("echo x > /beside", 1),
        ("echo x > /out/beside", 1),
        ("echo x > /out/sub/b", 2),
        ("echo 2 > /out/one", 2),
        ("chmod 600 /out/sub/a", 2),
        ("ln -s a /out/sub/c", 2),
        ("rm /out/one && mkdir /out/one && ls -d", 2),
    ] {
        // A directory in place of a file is no file to read: only that the step runs again counts.
        let built = bench.dockerfile(&text(&format!("{base} && {more}")));
        let Ok(built) = built else {
            assert!(more.contains("mkdir"), "{more}");
            continue;
        };
        assert_eq!(built.executed, executed, "{more}");
        bench.no_cache = true;
        let anew = bench.built(&text(&format!("{base} && {more}")));
        assert_eq!(built.descriptor.digest, anew.descriptor.digest, "{more}");
        bench.no_cache = false;
    }
    // A path that is a link, and one that is not there.
    let linked = |to: &str| {
        text(&format!(
            "{base} && rm -r /out/sub && mkdir /p /q && echo p > /p/x && echo q > /q/x && ln -s {to} /out/sub"
        ))
    };
    bench.built(&linked("/p"));
    let built = bench.built(&linked("/q"));
    assert_eq!((built.executed, bench.text(&built, "/all").as_str()), (2, "q\n1\n"));
    let error = bench.failure(&text("echo 1 > /out/one; rm -r /out/sub"));
    assert!(error.contains("out/sub"), "{error}");
}

#[test]
fn another_date_gives_what_a_build_without_a_cache_gives() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.write("file", "1");
    // Files that a step makes, and those that later steps give another mode, copy, move and take from stages; and times
    // that were chosen, on both sides of the dates.
    let text = "FROM busybox AS one\nRUN mkdir /d && echo 1 > /d/made && touch -d @1650000000 /d/chosen && touch -d @1 /d/old\n\
        RUN chmod 600 /d/made && cp -p /d/made /d/copied && ln /d/made /d/linked\n\
        FROM busybox\nWORKDIR /work\nCOPY file /work/\nCOPY --from=one /d /d\nRUN mv /d/copied /d/moved && mkdir /e && cp -p /work/file /e\n";
    bench.epoch_seconds = Some(1_600_000_000);
    let first = bench.built(text);
    std::thread::sleep(Duration::from_millis(2100));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for epoch in [1_500_000_000, 1_700_000_000, now, now + 86_400, 1_600_000_000] {
        bench.epoch_seconds = Some(epoch);
        (bench.no_cache, bench.now_seconds) = (false, now);
        let cached = bench.built(text);
        assert_eq!(cached.executed, 0);
        bench.no_cache = true;
        let anew = bench.built(text);
        assert!(anew.executed > 0);
        assert_eq!(cached.descriptor.digest, anew.descriptor.digest, "{epoch}");
    }
    bench.no_cache = false;
    assert_eq!(bench.built(text).descriptor.digest, first.descriptor.digest);
}

#[test]
fn a_file_that_changed_while_it_was_built_keeps_its_time() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    // The base is made by a program, whose second is over.
    std::thread::sleep(Duration::from_millis(1100));
    bench.epoch_seconds = Some(now() + 86_400);
    bench.write("in/file", "1").write("plain", "2");
    // Its times are those of this second: whole in one archive, exact in the other.
    for format in ["ustar", "pax"] {
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(bench.project()).args(["--format", format, "-cf"]).arg(bench.project().join(format));
        assert!(tar.arg("in").status().unwrap().success());
    }
    let text = "FROM busybox AS one\nCOPY plain /d/\nADD ustar /d/\n\
        FROM busybox\nWORKDIR /work\nADD pax /work\nADD ustar /made/by/it/\nCOPY --from=one /d /d\nCOPY plain /work/in/\n";
    let mut digests = std::collections::BTreeSet::new();
    for _ in 0..4 {
        (bench.no_cache, bench.now_seconds) = (true, now());
        digests.insert(bench.built(text).descriptor.digest);
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn times_that_a_date_cuts_stay_apart_for_a_later_one() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let text = |time: u32| {
        format!(
            "FROM busybox AS one\nRUN echo 1 > /f && touch -d @{time} /f\nFROM busybox\nCOPY --from=one /f /f\nRUN cp -p /f /g\n"
        )
    };
    bench.epoch_seconds = Some(1_500_000_000);
    let first = bench.built(&text(1_600_000_000));
    assert_eq!(bench.built(&text(1_650_000_000)).descriptor.digest, first.descriptor.digest);
    bench.epoch_seconds = Some(1_700_000_000);
    let later = bench.built(&text(1_650_000_000));
    bench.no_cache = true;
    assert_eq!(bench.built(&text(1_650_000_000)).descriptor.digest, later.descriptor.digest);
}

/// Names of steps as they began and ended, `+` and `-` before them, as far as `wanted` says.
fn told(bench: &Bench, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names = std::collections::BTreeMap::new();
    let mut told = Vec::new();
    for event in bench.story.0.lock().unwrap().drain(..) {
        match event {
            Event::StepStarted { step, name, .. } if wanted(&name) => {
                told.push(format!("+{name}"));
                names.insert(step, name);
            }
            Event::StepFinished { step, .. } => told.extend(names.remove(&step).map(|name| format!("-{name}"))),
            _ => {}
        }
    }
    told
}

#[test]
fn linked_copies_wait_for_nothing_that_they_are_put_onto() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    bench.epoch_seconds = Some(1_700_000_000);
    bench.write("tree/a", "a").write("b", "b");
    let text = "FROM busybox AS made\nRUN sleep 0.2; echo made > /made\nFROM busybox\nRUN sleep 1; mkdir /linked; echo below > /linked/below\n\
                COPY --link tree /linked/\nCOPY --link --from=made /made /linked/made\nCOPY --link b /linked/b\n\
                RUN cat /linked/below /linked/made /linked/a /linked/b > /all\n";
    let mut digests = std::collections::BTreeSet::new();
    for jobs in [1, 2, 4] {
        bench.no_cache = true;
        bench.jobs = jobs;
        bench.story.0.lock().unwrap().clear();
        let built = bench.built(text);
        assert_eq!((built.executed, bench.text(&built, "/all").as_str()), (6, "below\nmade\nab"));
        digests.insert(built.descriptor.digest.clone());
        let told = told(&bench, |name| name.starts_with('['));
        let (mut running, mut most) = (0usize, 0);
        for line in &told {
            running = if line.starts_with('+') { running + 1 } else { running - 1 };
            most = most.max(running);
        }
        assert!(most <= jobs, "{most} at once, {jobs} allowed");
        if jobs > 1 {
            let at = |line: &str| told.iter().position(|told| told.contains(line)).unwrap();
            let slow = at("-[stage-1 2/6] RUN sleep 1");
            assert!(at("-[stage-1 3/6] COPY --link tree") < slow, "{told:#?}");
            assert!(at("-[stage-1 5/6] COPY --link b") < slow, "{told:#?}");
            assert!(jobs == 2 || at("-[stage-1 4/6] COPY --link --from=made") < slow, "{told:#?}");
            assert!(at("+[stage-1 6/6] RUN cat") > slow);
        }
        // All of it is known then, also one step at a time.
        bench.no_cache = false;
        let again = bench.built(text);
        assert_eq!((again.executed, &again.descriptor.digest), (0, &built.descriptor.digest));
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
    // What is below changes, what is linked does not run again.
    let changed = bench.built(&text.replace("echo below", "echo other"));
    assert_eq!((changed.executed, bench.text(&changed, "/all").as_str()), (2, "other\nmade\nab"));
}

#[test]
fn a_linked_copy_that_fails_ends_the_build() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let began = Instant::now();
    let text =
        "FROM busybox AS made\nRUN true > /made\nFROM busybox\nRUN sleep 60\nCOPY --link --from=made /absent /x\n";
    let error = bench.failure(text);
    assert!(error.contains("absent"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
