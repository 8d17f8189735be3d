//! COPY and ADD to the byte. What is expected here is what BuildKit 0.25 made of the same contexts.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::{Bench, can_run};
use ctk_build::Built;

/// Runs a shell script in the context.
fn sh(bench: &Bench, script: &str) {
    let status = std::process::Command::new("sh").args(["-euc", script]).current_dir(bench.project()).status();
    assert!(status.unwrap().success(), "{script}");
}

/// Every path of the image: kind, mode, owner, what it holds.
fn listing(bench: &Bench, built: &Built) -> Vec<String> {
    let tree = bench.tree(built);
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.root().as_raw_fd()));
    let mut lines = Vec::new();
    walk(&root, &root, &mut lines);
    lines
}

fn walk(root: &Path, directory: &Path, lines: &mut Vec<String>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let found = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let (mode, owner) = (found.mode() & 0o7777, format!("{}:{}", found.uid(), found.gid()));
        lines.push(match found.file_type() {
            kind if kind.is_dir() => format!("{name}/ {mode:04o} {owner}"),
            kind if kind.is_symlink() => {
                format!("{name} -> {} {owner}", std::fs::read_link(&path).unwrap().display())
            }
            kind if kind.is_file() => {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).trim_end().to_owned();
                format!("{name} {mode:04o} {owner} {text}")
            }
            kind if kind.is_fifo() => format!("{name} pipe {mode:04o} {owner}"),
            _ => format!("{name} device {mode:04o} {owner} {:x}", found.rdev()),
        });
        if found.is_dir() {
            walk(root, &path, lines);
        }
    }
}

const TREE: &str = "mkdir -p d/e d/f; echo a>a; echo b>b.txt; echo c>c.txt; echo x>d/x; echo y>d/e/y; chmod 600 d/x;
    chmod 750 d/e; chmod 4755 b.txt; chmod 1777 d/f; ln -s x d/l; ln -s d ld; ln -s a la; ln -s nowhere dang;
    ln -s /d/x labs; ln -s ../../../d/x lout; chmod 644 a c.txt d/e/y; chmod 755 d";

/// What of `TREE` the instructions make.
#[track_caller]
fn check(instructions: &str, expected: &[&str]) {
    check_in(TREE, instructions, expected);
}

#[track_caller]
fn check_in(setup: &str, instructions: &str, expected: &[&str]) {
    if !can_run() {
        return;
    }
    let bench = Bench::bare();
    sh(&bench, setup);
    let built = bench.built(&format!("FROM scratch\n{instructions}\n"));
    assert_eq!(listing(&bench, &built), expected, "{instructions}");
}

/// How the build fails.
#[track_caller]
fn refused(setup: &str, instructions: &str, expected: &str) {
    if !can_run() {
        return;
    }
    let bench = Bench::bare();
    sh(&bench, setup);
    let error = bench.failure(&format!("FROM scratch\n{instructions}\n"));
    assert!(error.contains(expected), "{instructions}\n{error}");
}

const D: [&str; 6] =
    ["x/ 0755 0:0", "x/e/ 0750 0:0", "x/e/y 0644 0:0 y", "x/f/ 1777 0:0", "x/l -> x 0:0", "x/x 0600 0:0 x"];

#[test]
fn sources_are_files_contents_of_directories_and_patterns() {
    check("COPY a /x", &["x 0644 0:0 a"]);
    for dest in ["/x/", "/x/.", "x/"] {
        check(&format!("COPY a {dest}"), &["x/ 0755 0:0", "x/a 0644 0:0 a"]);
    }
    for dest in ["/", ".", "./"] {
        check(&format!("COPY a {dest}"), &["a 0644 0:0 a"]);
    }
    for source in ["d", "d/", "d/.", "d/e/..", "/d", "../d", "../../x/../d", "ld", "ld/"] {
        check(&format!("COPY {source} /x"), &D);
    }
    check("COPY a b.txt /x/", &["x/ 0755 0:0", "x/a 0644 0:0 a", "x/b.txt 4755 0:0 b"]);
    check("COPY *.txt /x/", &["x/ 0755 0:0", "x/b.txt 4755 0:0 b", "x/c.txt 0644 0:0 c"]);
    check("COPY [^a-b].txt /x/", &["x/ 0755 0:0", "x/c.txt 0644 0:0 c"]);
    check("COPY [!b].txt /x/", &["x/ 0755 0:0", "x/b.txt 4755 0:0 b"]);
    check("COPY */x /x/", &["x/ 0755 0:0", "x/x 0600 0:0 x"]);
    // `**` is `*` here: one component.
    check("COPY **/x /x/", &["x/ 0755 0:0", "x/x 0600 0:0 x"]);
    check("COPY **/y /x/", &[]);
    check("COPY *.none /x/", &[]);
    // Without a directory to go into, the last one wins.
    check("COPY *.txt /x", &["x 0644 0:0 c"]);
    check("COPY b.txt a /x", &["x 0644 0:0 a"]);
    check_in("echo 1 >'a[b'; echo 2 >axb; chmod 644 *", "COPY a[[]b /x/", &["x/ 0755 0:0", "x/a[b 0644 0:0 1"]);
    check_in(
        "echo 1 >'a b'; echo 2 >ü; chmod 644 *",
        r#"COPY ["a b", "ü", "/x y/"]"#,
        &["x y/ 0755 0:0", "x y/a b 0644 0:0 1", r"x y/\xc3\xbc 0644 0:0 2"],
    );
}

#[test]
fn links_among_sources() {
    check("COPY la /x", &["x 0644 0:0 a"]);
    check("COPY la* /x/", &["x/ 0755 0:0", "x/la 0644 0:0 a", "x/labs 0600 0:0 x"]);
    check("COPY labs lout /x/", &["x/ 0755 0:0", "x/labs 0600 0:0 x", "x/lout 0600 0:0 x"]);
    check("COPY ld/x /x/", &["x/ 0755 0:0", "x/x 0600 0:0 x"]);
    check("COPY ld/* /x/", &["x/ 0755 0:0", "x/l 0600 0:0 x", "x/x 0600 0:0 x", "x/y 0644 0:0 y"]);
    refused(TREE, "COPY dang /x", "`dang` does not exist in the context");
    refused(TREE, "COPY dan* /x/", "`dang` does not exist in the context");
    refused("ln -s lo lo", "COPY lo /x", "Too many levels of symbolic links");
}

#[test]
fn what_is_missing_or_malformed_is_told() {
    refused(TREE, "COPY nope /x/", "`nope` does not exist in the context");
    refused(TREE, "COPY b.tx /x/", "`b.tx` does not exist in the context; did you mean `b.txt`?");
    refused(
        "echo 1 >a; echo a >.dockerignore",
        "COPY a /x/",
        "`a` does not exist in the context: an ignore pattern excludes it",
    );
    refused("mkdir d; echo 1 >d/a; ln -s d/a l; echo d >.dockerignore", "COPY l /x/", "excludes it");
    refused("echo 1 >a; printf '*\\n!**/b\\n' >.dockerignore", "COPY a /x/", "an ignore pattern excludes it");
    refused(TREE, "COPY [ /x/", "`[` is no pattern: a `[` is never closed");
    refused(TREE, "COPY --exclude=[ . /x/", "`[` is no pattern to exclude: a `[` is never closed");
    refused(TREE, "COPY --exclude=! . /x/", "`!` is no pattern to exclude");
    refused("printf 'a\\n\\n[]\\n' >.dockerignore; echo 1 >a", "COPY . /x/", ".dockerignore:3: `[]` is no pattern");
    refused(TREE, "COPY --chmod=888 a /x", "`888` is no mode");
    refused(TREE, "COPY --chmod=u+q a /x", "`u+q` is no mode");
    refused(TREE, "COPY --chown=app a /x", "no user `app` in the image's `/etc/passwd`");
    refused(TREE, "COPY --link --chown=app a /x", "`--link` knows no `app`");
    refused(TREE, "ADD --checksum=sha256:aa a /x", "`--checksum` is for URLs and repositories");
    refused(TREE, "COPY https://example.com/a /x", "is a URL, which COPY does not take; write ADD");
    refused(TREE, "COPY <<a/b /x/\n1\na/b", "holds a `/`");
}

#[test]
fn destinations_that_are_there() {
    let base =
        "mkdir -p r/d r/q/e r/w; ln -s /d r/kd; ln -s f r/kf; ln -s n/m r/kn; ln -s ../../f9 r/d/out; echo 1 >r/f;
        chmod 700 r/q/e r/w; ln -s /w r/q/l; chmod 755 r r/d r/q; mkdir r/q2 r/q3; ln -s /w r/q2/e; mkdir r/q3/x; ";
    let all = format!("{base}{TREE}");
    let has = |instruction: &str, expected: &[&str]| {
        if !can_run() {
            return;
        }
        let bench = Bench::bare();
        sh(&bench, &all);
        let built = bench.built(&format!("FROM scratch\nCOPY r /\n{instruction}\n"));
        let lines = listing(&bench, &built);
        for line in expected {
            assert!(lines.iter().any(|l| l == line), "{instruction}: no `{line}` in {lines:#?}");
        }
    };
    has("COPY a /d", &["d/a 0644 0:0 a"]);
    has("COPY a b.txt /d", &["d/a 0644 0:0 a", "d/b.txt 4755 0:0 b"]);
    has("COPY a /kd", &["kd -> /d 0:0", "d/a 0644 0:0 a"]);
    has("COPY a /kd/z/q", &["d/z/ 0755 0:0", "d/z/q 0644 0:0 a"]);
    has("COPY a /kf", &["kf -> f 0:0", "f 0644 0:0 a"]);
    has("COPY a /kn", &["kn -> n/m 0:0", "n/ 0755 0:0", "n/m 0644 0:0 a"]);
    has("COPY d /kn", &["n/m/ 0755 0:0", "n/m/x 0600 0:0 x"]);
    has("COPY a /d/out", &["f9 0644 0:0 a"]);
    // What is the destination itself stays as it is, directories below it become the source's.
    has("COPY d /w", &["w/ 0700 0:0", "w/x 0600 0:0 x"]);
    has("COPY d /q", &["q/e/ 0750 0:0", "q/l -> x 0:0"]);
    refused(&all, "COPY r /\nCOPY d /q2", "`/q2/e` is a symbolic link; expected a directory or nothing");
    refused(&all, "COPY r /\nCOPY d /q3", "`/q3/x` is a directory; expected a file or nothing");
    refused(&all, "COPY r /\nCOPY a /f/", "Not a directory");
    // `--link` sees nothing of it.
    has("COPY --link a /kd/a", &["kd/ 0755 0:0", "kd/a 0644 0:0 a"]);
    has("COPY --link a /d", &["d 0644 0:0 a"]);
}

#[test]
fn modes_and_owners() {
    check("COPY --chmod=640 a /n/x", &["n/ 0640 0:0", "n/x 0640 0:0 a"]);
    check("COPY --chmod=4750 d/e /n", &["n/ 0750 0:0", "n/y 4750 0:0 y"]);
    check("COPY --chmod=u+x,g+w a /n/x", &["n/ 0755 0:0", "n/x 0764 0:0 a"]);
    check(
        "ARG M=u=rwX,go=rX\nCOPY --chmod=$M d /x",
        &["x/ 0755 0:0", "x/e/ 0755 0:0", "x/e/y 0644 0:0 y", "x/f/ 1755 0:0", "x/l -> x 0:0", "x/x 0644 0:0 x"],
    );
    check("ADD --chmod=go-r a /x", &["x 0600 0:0 a"]);
    check("COPY --chmod=u+x <<E /n/x\nhi\nE", &["n/ 0755 0:0", "n/x 0744 0:0 hi"]);
    check("COPY --chmod=600 --chown=5:6 <<E /n/x\nhi\nE", &["n/ 0600 5:6", "n/x 0600 5:6 hi"]);
    check("COPY --chown=7 a /n/x", &["n/ 0755 7:7", "n/x 0644 7:7 a"]);
    check("COPY --chown=root a /x", &["x 0644 0:0 a"]);
    check("COPY --link --chown=7:root a /x", &["x 0644 7:0 a"]);
    let accounts = "mkdir etc; printf 'root:x:0:0::/:\\napp:x:1000:1001::/:\\n' >etc/passwd;
        printf 'wheel:x:77:\\n' >etc/group; echo a >a; chmod 644 a etc/*; chmod 755 etc";
    for (owner, ids) in [
        ("app", "1000:1001"),
        ("app:wheel", "1000:77"),
        ("7:wheel", "7:77"),
        ("app:7", "1000:7"),
        ("app:", "1000:0"),
        (":wheel", "0:77"),
    ] {
        check_in(
            accounts,
            &format!("COPY etc /etc\nARG O={owner}\nCOPY --chown=$O a /x"),
            &[
                "etc/ 0755 0:0",
                "etc/group 0644 0:0 wheel:x:77:",
                "etc/passwd 0644 0:0 root:x:0:0::/:\napp:x:1000:1001::/:",
                &format!("x 0644 {ids} a"),
            ],
        );
    }
    refused(
        accounts,
        "COPY etc /etc\nCOPY --chown=ap a /x",
        "no user `ap` in the image's `/etc/passwd`; did you mean `app`?",
    );
    refused(accounts, "COPY etc /etc\nCOPY --chown=app:weel a /x", "did you mean `wheel`?");
    refused(accounts, "COPY --chown=4294967295 a /x", "4294967295");
}

#[test]
fn exclusions() {
    let tree = "mkdir -p d/e/f d/g; for f in d/k d/e/k d/e/f/k d/g/z d/t.txt; do echo 1 >$f; chmod 644 $f; done; chmod 755 d d/e d/e/f d/g";
    check_in(
        tree,
        "COPY --exclude=k d /x",
        &[
            "x/ 0755 0:0",
            "x/e/ 0755 0:0",
            "x/e/f/ 0755 0:0",
            "x/e/f/k 0644 0:0 1",
            "x/e/k 0644 0:0 1",
            "x/g/ 0755 0:0",
            "x/g/z 0644 0:0 1",
            "x/t.txt 0644 0:0 1",
        ],
    );
    check_in(
        tree,
        "COPY --exclude=**/k --exclude=g d /x",
        &["x/ 0755 0:0", "x/e/ 0755 0:0", "x/e/f/ 0755 0:0", "x/t.txt 0644 0:0 1"],
    );
    check_in(
        tree,
        "COPY --exclude=** --exclude=!e/f d /x",
        &["x/ 0755 0:0", "x/e/ 0755 0:0", "x/e/f/ 0755 0:0", "x/e/f/k 0644 0:0 1"],
    );
    check_in(
        tree,
        "COPY --exclude=e/** --exclude=g/ d /x",
        &["x/ 0755 0:0", "x/e/ 0755 0:0", "x/k 0644 0:0 1", "x/t.txt 0644 0:0 1"],
    );
    // A named file is not excluded, a leading slash matches nothing, a variable is none.
    check_in(tree, "COPY --exclude=k d/k /x/", &["x/ 0755 0:0", "x/k 0644 0:0 1"]);
    check_in(tree, "ARG E=z\nCOPY --exclude=/z --exclude=$E d/g /x/", &["x/ 0755 0:0", "x/z 0644 0:0 1"]);
}

#[test]
fn parents_are_kept() {
    let tree = "mkdir -p a/b/c a/e; for f in a/b/c/1.txt a/b/2.txt a/e/3.md; do echo $f >$f; chmod 644 $f; done;
        chmod 755 a a/e; chmod 700 a/b; chmod 750 a/b/c";
    let whole = ["x/ 0755 0:0", "x/a/ 0755 0:0", "x/a/b/ 0700 0:0"];
    let with = |more: &[&str]| [&whole, more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let check = |instruction: &str, expected: Vec<String>| {
        check_in(tree, instruction, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check("COPY --parents a/b/2.txt /x", with(&["x/a/b/2.txt 0644 0:0 a/b/2.txt"]));
    check("COPY --parents ./a/b/c /x/", with(&["x/a/b/c/ 0750 0:0", "x/a/b/c/1.txt 0644 0:0 a/b/c/1.txt"]));
    check(
        "COPY --parents **/*.txt /x/",
        with(&["x/a/b/2.txt 0644 0:0 a/b/2.txt", "x/a/b/c/ 0750 0:0", "x/a/b/c/1.txt 0644 0:0 a/b/c/1.txt"]),
    );
    let pivot = ["x/ 0755 0:0", "x/c/ 0750 0:0", "x/c/1.txt 0644 0:0 a/b/c/1.txt"].map(str::to_owned).to_vec();
    check("COPY --parents a/b/./c/1.txt /x", pivot.clone());
    check("COPY --parents --exclude=*.txt a/b/./** /x", pivot);
    check("COPY --parents *.none /x", Vec::new());
    refused(
        tree,
        "COPY --parents a/b/3.txt /x",
        "`a/b/3.txt` does not exist in the context; did you mean `a/b/2.txt`?",
    );
    // From a stage too.
    let stage = "COPY a /s/a\nFROM scratch\nCOPY --from=0 --parents /s/./a/e/*.md /x/";
    check_in(tree, stage, &["x/ 0755 0:0", "x/a/ 0755 0:0", "x/a/e/ 0755 0:0", "x/a/e/3.md 0644 0:0 a/e/3.md"]);
}

#[test]
fn names_are_bytes() {
    if !can_run() {
        return;
    }
    let bench = Bench::bare();
    let sub = bench.project().join("q").join(std::ffi::OsString::from_vec(b"d\xfe".to_vec()));
    std::fs::create_dir_all(&sub).unwrap();
    std::fs::write(sub.join("z"), "1").unwrap();
    std::fs::write(bench.project().join("q").join(std::ffi::OsStr::from_bytes(b"a\xff")), "2").unwrap();
    sh(&bench, "chmod -R u=rwX,go=rX q; ln -s $(printf 't\\377') q/l");
    let built = bench.built("FROM scratch\nCOPY q /x\nCOPY q/a? /y/\n");
    assert_eq!(
        listing(&bench, &built),
        [
            "x/ 0755 0:0",
            r"x/a\xff 0644 0:0 2",
            r"x/d\xfe/ 0755 0:0",
            r"x/d\xfe/z 0644 0:0 1",
            "x/l -> t\u{fffd} 0:0",
            "y/ 0755 0:0",
            r"y/a\xff 0644 0:0 2"
        ]
    );
    bench.write(".dockerignore", "**/a?\nq/[^l]?/**\n");
    let built = bench.built("FROM scratch\nCOPY q /x\n");
    assert_eq!(listing(&bench, &built), ["x/ 0755 0:0", r"x/d\xfe/ 0755 0:0", "x/l -> t\u{fffd} 0:0"]);
}

#[test]
fn links_specials_holes_and_attributes_come_along() {
    if !can_run() {
        return;
    }
    let bench = Bench::bare();
    sh(
        &bench,
        "mkdir -p q/w; echo 1 >q/f; ln q/f q/g; ln q/f q/w/h; mkfifo -m 640 q/p; mknod -m 600 q/c c 1 3; truncate -s 8M q/s; echo end >>q/s",
    );
    rustix::fs::setxattr(bench.project().join("q/f"), "user.mark", b"v", rustix::fs::XattrFlags::empty()).unwrap();
    let built = bench.built("FROM scratch\nCOPY q /x\nCOPY q/f q/g /y/\n");
    let tree = bench.tree(&built);
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.root().as_raw_fd()));
    let stat = |path: &str| root.join(path).symlink_metadata().unwrap();
    assert_eq!(stat("x/f").ino(), stat("x/g").ino());
    assert_eq!(stat("x/f").ino(), stat("x/w/h").ino());
    // Each source is a copy of its own.
    assert_ne!(stat("y/f").ino(), stat("y/g").ino());
    assert!(stat("x/p").file_type().is_fifo() && stat("x/p").permissions().mode() & 0o7777 == 0o640);
    assert!(stat("x/c").file_type().is_char_device());
    assert_eq!(stat("x/s").len(), (8 << 20) + 4);
    let mut value = [0u8; 8];
    let length = rustix::fs::getxattr(root.join("x/f"), "user.mark", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"v");
    // All of that is content: a file that is no longer linked, or marked otherwise, is copied again.
    let again = bench.built("FROM scratch\nCOPY q /x\nCOPY q/f q/g /y/\n");
    assert_eq!((again.executed, &again.descriptor), (0, &built.descriptor));
    sh(&bench, "cp -p q/g q/g2; mv q/g2 q/g");
    assert_ne!(bench.built("FROM scratch\nCOPY q /x\nCOPY q/f q/g /y/\n").descriptor, built.descriptor);
    rustix::fs::setxattr(bench.project().join("q/f"), "user.mark", b"w", rustix::fs::XattrFlags::empty()).unwrap();
    assert!(bench.built("FROM scratch\nCOPY q/f /y/\n").executed > 0);
}

#[test]
fn archives_are_unpacked_by_their_content() {
    let tree = "mkdir -p q/d; echo 1>q/f; chmod 4711 q/f; ln q/f q/d/h; ln -s f q/s; chmod 755 q q/d; chown -R 3:4 q; ";
    let expected = |ids: &str| {
        vec![
            "x/ 0755 0:0".to_owned(),
            format!("x/q/ 0755 {ids}"),
            format!("x/q/d/ 0755 {ids}"),
            format!("x/q/d/h 0711 {ids} "),
            format!("x/q/f 0711 {ids} "),
            format!("x/q/s -> f {ids}"),
        ]
    };
    let check = |setup: &str, instruction: &str, expected: Vec<String>| {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check_in(&format!("{tree}{setup}"), instruction, &expected);
    };
    for make in ["tar cf t q", "tar czf t q", "tar cjf t q", "tar cJf t q", "tar --zstd -cf t q"] {
        check(make, "ADD t /x", expected("3:4"));
    }
    // Modes are the archive's own, an owner is not.
    let mut owned = expected("8:9");
    owned[0] = "x/ 0755 8:9".into();
    check("tar cf t q", "ADD --chown=8:9 --chmod=600 t /x", owned);
    check("tar cf t q; ln -s t l", "ADD l /x", expected("3:4"));
    if can_run() {
        let bench = Bench::bare();
        sh(&bench, "echo hi >f; tar czf t f; gzip -c f >f.gz; chmod 644 *");
        let built = bench.built("FROM scratch\nCOPY t /a\nADD --unpack=false t /b\nADD f.gz /c\n");
        for (path, source) in [("a", "t"), ("b", "t"), ("c", "f.gz")] {
            let wanted = std::fs::read(bench.project().join(source)).unwrap();
            assert_eq!(bench.tree(&built).read(path, 1 << 20).unwrap(), wanted, "{path}");
        }
    }
    refused(&format!("{tree} tar cPf t --transform=s,^q,../q, q"), "ADD t /x", "`../q");
}
