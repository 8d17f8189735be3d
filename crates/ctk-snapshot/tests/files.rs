//! Copying and the other file operations.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink as link};
use std::path::Path;

use common::*;
use ctk_layer::{Compression, EntryKind, Time};
use ctk_plan::Cancel;
use ctk_snapshot::SnapshotError;
use ctk_snapshot::copy::{
    Attributes, CopyOptions, CopyStats, Mtime, Verdict, copy_into, extract, is_archive, mkdir, mkfile, remove,
};
use ctk_snapshot::users::lookup_owner;

struct Trees {
    _directory: tempfile::TempDir,
    from: std::path::PathBuf,
    to: std::path::PathBuf,
}

fn trees() -> Trees {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    std::fs::create_dir_all(&from).unwrap();
    std::fs::create_dir_all(&to).unwrap();
    Trees { _directory: directory, from, to }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn copy(trees: &Trees, source: &str, dest: &str, options: &CopyOptions<'_>) -> Result<CopyStats, SnapshotError> {
    let (from, to) = (open(&trees.from), open(&trees.to));
    copy_into(root(&to), dest.as_bytes(), root(&from), source.as_bytes(), options, &Cancel::new())
}

#[test]
fn a_tree_is_merged_with_all_it_has() {
    let t = trees();
    write(&t.from.join("src/a/b"), "b");
    write(&t.from.join("src/big"), &"x".repeat(300_000));
    std::fs::hard_link(t.from.join("src/big"), t.from.join("src/a/big-too")).unwrap();
    link("../../outside", t.from.join("src/a/link")).unwrap();
    std::fs::set_permissions(t.from.join("src/a"), PermissionsExt::from_mode(0o2750)).unwrap();
    std::fs::set_permissions(t.from.join("src/a/b"), PermissionsExt::from_mode(0o4711)).unwrap();
    run("touch", &["-d", "2001-02-03 04:05:06.789", t.from.join("src/a").to_str().unwrap()]);
    write(&t.to.join("dest/a-before"), "stays");
    write(&t.to.join("dest/big"), "is replaced");
    let stats = copy(&t, "src", "dest", &PLAIN).unwrap();
    assert_eq!(stats, CopyStats { entries: 5, bytes: 300_001 });
    let dest = t.to.join("dest");
    assert_eq!(read(&dest.join("a/b")), "b");
    assert_eq!(read(&dest.join("a-before")), "stays");
    assert_eq!(
        std::fs::metadata(dest.join("big")).unwrap().ino(),
        std::fs::metadata(dest.join("a/big-too")).unwrap().ino()
    );
    assert_eq!(std::fs::read_link(dest.join("a/link")).unwrap(), Path::new("../../outside"));
    let a = std::fs::metadata(dest.join("a")).unwrap();
    assert_eq!((a.mode() & 0o7777, a.mtime_nsec()), (0o2750, 789_000_000));
    assert_eq!(std::fs::metadata(dest.join("a/b")).unwrap().mode() & 0o7777, 0o4711);
}

#[test]
fn owner_mode_and_time_can_be_said() {
    let t = trees();
    write(&t.from.join("d/f"), "f");
    std::fs::create_dir(t.from.join("d/e")).unwrap();
    std::fs::set_permissions(t.from.join("d/e"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(t.from.join("d/f"), PermissionsExt::from_mode(0o640)).unwrap();
    let executable = |mode: u32, directory: bool| if directory { mode } else { mode | 0o111 };
    let options = CopyOptions {
        owner: Some((1000, 1001)),
        mode: Some(&executable),
        parents_mode: 0o711,
        mtime: Mtime::Set(Time::seconds(42)),
        ..PLAIN
    };
    copy(&t, "d", "new/parent", &options).unwrap();
    let check = |path: &str, mode: u32| {
        let found = std::fs::metadata(t.to.join(path)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1000, 1001, mode), "{path}");
    };
    check("new", 0o711);
    check("new/parent", 0o711);
    check("new/parent/e", 0o600);
    check("new/parent/f", 0o751);
    assert_eq!(std::fs::metadata(t.to.join("new/parent/f")).unwrap().mtime(), 42);
    let clamp = CopyOptions { mtime: Mtime::Clamp(7), ..PLAIN };
    copy(&t, "d/f", "f", &clamp).unwrap();
    assert_eq!(std::fs::metadata(t.to.join("f")).unwrap().mtime(), 7);
}

#[test]
fn many_files_are_complete_whoever_makes_them() {
    let t = trees();
    let file = |directory: usize, file: usize| format!("{directory:02}/sub/{file:03}");
    for directory in 0..40 {
        for number in 0..50 {
            // Some larger than what is read at once.
            let size = if number == 7 { 200_000 } else { number * 97 };
            write(&t.from.join(file(directory, number)), &"x".repeat(size));
        }
        let sub = t.from.join(format!("{directory:02}/sub"));
        std::fs::set_permissions(&sub, PermissionsExt::from_mode(0o555 - directory as u32 % 2)).unwrap();
        run("touch", &["-d", &format!("2001-02-03 04:05:{directory:02}.5"), sub.to_str().unwrap()]);
    }
    write(&t.to.join(file(39, 49)), "is replaced");
    let stats = copy(&t, "/", "/", &PLAIN).unwrap();
    assert_eq!(stats.entries, 40 * 50 + 40 * 2 - 2);
    let look = |root: &Path| {
        let script = "cd \"$1\" && find . -mindepth 1 -type d -printf '%P %m %T@\\n' -o -type f -printf '%P %m %s %T@\\n' | sort";
        let output = std::process::Command::new("sh").args(["-ec", script, "-"]).arg(root).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (from, to) = (look(&t.from), look(&t.to));
    assert_eq!(from.lines().count(), 2080);
    assert_eq!(from, to);
    // One that cannot be made ends the copy.
    std::fs::remove_file(t.to.join(file(20, 3))).unwrap();
    write(&t.to.join(file(20, 3)).join("inside"), "");
    let error = copy(&t, "/", "/", &PLAIN).unwrap_err();
    assert!(matches!(&error, SnapshotError::WrongKind { path, .. } if path.ends_with("20/sub/003")), "{error:?}");
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::FileExt;
    let t = trees();
    std::fs::create_dir_all(t.from.join("src")).unwrap();
    const MIB: u64 = 1 << 20;
    let files: [(&str, u64, &[u64]); 5] = [
        ("only-a-hole", 8 * MIB, &[]),
        ("begins-with-data", 8 * MIB, &[0]),
        ("ends-with-data", 8 * MIB, &[8 * MIB - 5]),
        ("between", 8 * MIB + 3, &[MIB, 3 * MIB + 17, 6 * MIB]),
        ("small", 40_000, &[20_000]),
    ];
    for (name, size, places) in files {
        let file = std::fs::File::create(t.from.join("src").join(name)).unwrap();
        file.set_len(size).unwrap();
        for place in places {
            file.write_all_at(b"data!", *place).unwrap();
        }
        // Large enough for the kernel to copy it.
        if places.len() == 3 {
            file.write_all_at(&vec![7; 200_000], places[0]).unwrap();
        }
    }
    copy(&t, "src", "dest", &PLAIN).unwrap();
    for (name, size, _) in files {
        let (from, to) = (t.from.join("src").join(name), t.to.join("dest").join(name));
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "{name}");
        let (before, after) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert_eq!(after.len(), size, "{name}");
        assert!(after.blocks() <= before.blocks(), "{name}: {} blocks of {}", after.blocks(), before.blocks());
    }
}

#[test]
fn filters_leave_out_and_take_back() {
    let t = trees();
    for path in ["keep", "node_modules/x/y", "docs/a.md", "docs/b.txt", "docs/deep/c.md", "empty-after/z"] {
        write(&t.from.join(path), path);
    }
    // Everything but node_modules; of docs and empty-after only Markdown.
    let filter = |path: &[u8], directory: bool| {
        let path = String::from_utf8_lossy(path);
        match path.split('/').next().unwrap() {
            "node_modules" => Verdict::Skip,
            "docs" | "empty-after" if directory => Verdict::Descend,
            "docs" | "empty-after" if !path.ends_with(".md") => Verdict::Skip,
            _ => Verdict::Take,
        }
    };
    let options = CopyOptions { filter: Some(&filter), ..PLAIN };
    copy(&t, "/", "/", &options).unwrap();
    let found = run("find", &[t.to.to_str().unwrap(), "-mindepth", "1", "-printf", "%P\n"]);
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["docs", "docs/a.md", "docs/deep", "docs/deep/c.md", "keep"]);
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let t = trees();
    write(&t.from.join("real"), "real");
    link("/real", t.from.join("abs")).unwrap();
    copy(&t, "abs", "followed", &PLAIN).unwrap();
    assert_eq!(read(&t.to.join("followed")), "real");
    copy(&t, "abs", "kept", &CopyOptions { follow: false, ..PLAIN }).unwrap();
    assert_eq!(std::fs::read_link(t.to.join("kept")).unwrap(), Path::new("/real"));
    // A link in the destination leads inside the destination: /usr/lib for /lib, as distributions have it.
    link("/usr/lib", t.to.join("lib")).unwrap();
    write(&t.from.join("tree/lib/x.so"), "so");
    copy(&t, "real", "lib/new", &PLAIN).unwrap();
    assert_eq!(read(&t.to.join("usr/lib/new")), "real");
    // A directory takes no link's place, wherever that leads.
    let refused = copy(&t, "tree", "/", &PLAIN).unwrap_err().to_string();
    assert_eq!(refused, "`/lib` is a symbolic link; expected a directory or nothing");
    // The last name of a file's destination is followed too.
    link("/run/resolv.conf", t.to.join("resolv")).unwrap();
    copy(&t, "real", "resolv", &PLAIN).unwrap();
    assert_eq!(read(&t.to.join("run/resolv.conf")), "real");
    link("loop", t.to.join("loop")).unwrap();
    assert!(copy(&t, "real", "loop", &PLAIN).is_err());
}

#[test]
fn mistakes_are_named() {
    let t = trees();
    write(&t.from.join("file"), "f");
    write(&t.from.join("dir/sub/x"), "x");
    std::fs::create_dir(t.to.join("is-directory")).unwrap();
    write(&t.to.join("sub"), "a file");
    let check = |source: &str, dest: &str, expected: &str| {
        let error = copy(&t, source, dest, &PLAIN).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` does not contain `{expected}`");
    };
    check("nope", "x", "cannot copy `/nope`");
    check("file", "is-directory", "`/is-directory` is a directory; expected a file or nothing");
    check("dir", "/", "`/sub` is a file; expected a directory or nothing");
    let to = open(&t.to);
    assert!(!remove(root(&to), b"not/there").unwrap());
    assert!(matches!(remove(root(&to), b"/"), Err(SnapshotError::Refused { .. })));
    assert!(mkdir(root(&to), b"sub/x", &NEW, true).is_err());
    assert!(mkdir(root(&to), b"is-directory", &NEW, false).is_err());
    mkdir(root(&to), b"is-directory", &NEW, true).unwrap();
    mkfile(
        root(&to),
        b"p/q",
        b"text",
        &Attributes { owner: (5, 6), mode: 0o400, mtime: Some(Time::seconds(9)) },
        0o755,
    )
    .unwrap();
    let made = std::fs::metadata(t.to.join("p/q")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777, made.mtime()), (5, 6, 0o400, 9));
    assert!(remove(root(&to), b"p").unwrap() && !t.to.join("p").exists());
}

#[test]
fn archives_of_any_compression_are_unpacked() {
    let t = trees();
    write(&t.from.join("x/.wh.y"), "a name like any other");
    for (flag, name) in [("-z", "gz"), ("-j", "bz2"), ("-J", "xz"), ("--zstd", "zst"), ("--format=gnu", "tar")] {
        let archive = t.from.with_file_name(name);
        run("tar", &["-C", t.from.to_str().unwrap(), flag, "-cf", archive.to_str().unwrap(), "x"]);
        assert!(is_archive(std::fs::File::open(&archive).unwrap()), "{name}");
        let to = open(&t.to);
        let stream = std::fs::File::open(&archive).unwrap();
        let dest = format!("/unpacked/{name}/");
        extract(root(&to), dest.as_bytes(), name, stream, Some((7, 8)), Mtime::Keep, &Cancel::new()).unwrap();
        let path = t.to.join("unpacked").join(name).join("x/.wh.y");
        assert_eq!(read(&path), "a name like any other");
        assert_eq!(std::fs::metadata(&path).unwrap().uid(), 7);
    }
    assert!(!is_archive(&b"#!/bin/sh\n"[..]));
    assert!(!is_archive(&b""[..]));
    let _ = Compression::GZIP;
}

#[test]
fn archives_end_at_their_destination() {
    let t = trees();
    // The archive: a link to /etc, then a file through it; a directory where the destination has a link.
    write(&t.from.join("q/l/z"), "z");
    write(&t.from.join("q/lib/b"), "b");
    let archive = t.from.with_file_name("a.tar");
    let (archive_text, from) = (archive.to_str().unwrap(), t.from.to_str().unwrap());
    std::fs::rename(t.from.join("q/l"), t.from.join("q/real")).unwrap();
    link("/etc", t.from.join("q/l")).unwrap();
    run("tar", &["-C", from, "-cf", archive_text, "q/l"]);
    std::fs::remove_file(t.from.join("q/l")).unwrap();
    std::fs::rename(t.from.join("q/real"), t.from.join("q/l")).unwrap();
    run("tar", &["-C", from, "-rf", archive_text, "q/l/z", "q/lib"]);
    write(&t.to.join("x/q/usr/keep"), "keep");
    link("usr", t.to.join("x/q/lib")).unwrap();
    let to = open(&t.to);
    let stream = std::fs::File::open(&archive).unwrap();
    extract(root(&to), b"/x", "a.tar", stream, None, Mtime::Keep, &Cancel::new()).unwrap();
    assert_eq!(read(&t.to.join("x/etc/z")), "z");
    assert_eq!(read(&t.to.join("x/q/lib/b")), "b");
    assert!(!t.to.join("etc").exists() && !t.to.join("x/q/usr/b").exists());
    // One that would leave it is an archive all the same, and refused.
    run("tar", &["-C", from, "-cPf", archive_text, "--transform=s,^,../,", "q/lib"]);
    assert!(is_archive(std::fs::File::open(&archive).unwrap()));
    let stream = std::fs::File::open(&archive).unwrap();
    assert!(extract(root(&to), b"/x", "a.tar", stream, None, Mtime::Keep, &Cancel::new()).is_err());
}

#[test]
fn names_become_ids() {
    let t = trees();
    write(&t.to.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:2000::/:/bin/sh\n");
    write(&t.to.join("etc/group"), "root:x:0:\nstaff:x:50:app\n");
    let to = open(&t.to);
    let check = |owner: &str, expected: Option<(u32, u32)>| {
        assert_eq!(lookup_owner(root(&to), owner).ok(), expected, "{owner}");
    };
    check("app", Some((1000, 2000)));
    check("app:staff", Some((1000, 50)));
    check("app:", Some((1000, 0)));
    check(":staff", Some((0, 50)));
    check(":7", Some((0, 7)));
    check("4294967295", None);
    let near = lookup_owner(root(&to), "ap").unwrap_err().to_string();
    assert_eq!(near, "no user `ap` in the image's `/etc/passwd`; did you mean `app`?");
    check("33", Some((33, 33)));
    check("33:44", Some((33, 44)));
    check("nobody", None);
    check("app:nobody", None);
    let empty = open(&t.from);
    assert_eq!(lookup_owner(root(&empty), "0:5").unwrap(), (0, 5));
    assert_eq!(lookup_owner(root(&empty), "root:root").unwrap(), (0, 0));
    assert!(lookup_owner(root(&empty), "app").is_err());
}

/// How many names each file of a directory has, the most first.
fn groups(directory: &Path) -> Vec<usize> {
    let mut groups = std::collections::HashMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        *groups.entry(entry.unwrap().metadata().unwrap().ino()).or_insert(0) += 1;
    }
    let mut counts: Vec<usize> = groups.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// As many names of one file as a layer has of one, and some more.
const MANY: usize = 65_003;

#[test]
fn a_file_with_very_many_names_is_copied_in_groups() {
    // ext4 itself takes no more: the source has to be elsewhere.
    let Ok(source) = tempfile::tempdir_in("/dev/shm") else { return };
    write(&source.path().join("d/n00000"), "same");
    for number in 1..MANY {
        let name = source.path().join(format!("d/n{number:05}"));
        if std::fs::hard_link(source.path().join("d/n00000"), name).is_err() {
            eprintln!("skipped: /dev/shm takes no more than {number} names of a file");
            return;
        }
    }
    let t = trees();
    let (from, to) = (open(source.path()), open(&t.to));
    copy_into(root(&to), b"x", root(&from), b"d", &PLAIN, &Cancel::new()).unwrap();
    assert_eq!(groups(&t.to.join("x")), [65_000, 3]);
    // In the order of names, so that it is the same everywhere.
    let ino = |name: &str| std::fs::metadata(t.to.join(name)).unwrap().ino();
    assert_ne!(ino("x/n64999"), ino("x/n65000"));
    assert_eq!(ino("x/n65000"), ino("x/n65002"));
    assert_eq!(read(&t.to.join("x/n65002")), "same");
}

#[test]
fn very_many_hard_links_of_an_archive_are_unpacked_in_groups() {
    let mut entries = vec![file("n00000", "same")];
    let hard = |number| node(&format!("n{number:05}"), EntryKind::HardLink { target: b"n00000".to_vec() }, 0o640);
    entries.extend((1..MANY).map(hard));
    let t = trees();
    let to = open(&t.to);
    extract(root(&to), b"/x", "a.tar", &tar(&entries)[..], None, Mtime::Keep, &Cancel::new()).unwrap();
    assert_eq!(groups(&t.to.join("x")), [65_000, 3]);
    assert_eq!(read(&t.to.join("x/n65002")), "same");
    assert_eq!(std::fs::metadata(t.to.join("x/n65002")).unwrap().mode() & 0o7777, 0o640);
}
