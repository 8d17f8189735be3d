//! The index never says something wrong, whatever was done to the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::index::{FileKey, settled};
use crate::limits::{CONTEXT_DEPTH, RACY_NANOSECONDS};

/// A context and an index of it that every look opens anew, and trusts as if all files were old.
struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let ground = Ground { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(ground.path("")).unwrap();
        ground
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("context").join(path)
    }

    fn write(&self, path: &str, content: &str) -> &Ground {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn look(&self, ignore: &str, source: &str, keep: usize, index: &StatIndex) -> Result<Vec<Found>, BuildError> {
        let context = Context::open(&self.path(""), Ignore::parse(ignore).unwrap()).unwrap();
        context.look(&selection(source), index, i64::MAX, keep)
    }

    /// What the kept index says, with all names and without; they must agree with each other and with the files.
    fn check(&self, ignore: &str, source: &str) -> BTreeMap<String, String> {
        // Older kernels' clocks tick so slowly.
        std::thread::sleep(Duration::from_millis(12));
        let truth = self.look(ignore, source, usize::MAX, &StatIndex::in_memory()).unwrap();
        let mut words = BTreeMap::new();
        file_words(&truth, &mut words);
        for keep in [0, usize::MAX, 0, 3] {
            let index = StatIndex::open(&self.folder.path().join("stats"));
            let found = self.look(ignore, source, keep, &index).unwrap();
            assert_eq!(digest_of(&found), digest_of(&truth), "keeping {keep}");
            assert_eq!(found[0].count, truth[0].count);
            if keep == usize::MAX {
                let mut known = BTreeMap::new();
                file_words(&found, &mut known);
                assert_eq!(known, words);
            }
            index.save();
        }
        words
    }
}

fn selection(source: &str) -> Selection {
    Selection { context: String::new(), paths: vec![source.into()], exclude: Vec::new(), parents: false }
}

#[test]
fn every_way_to_change_a_file_is_seen() {
    let ground = Ground::new();
    ground.write("a", "one").write("d/b", "one").write("d/e/c", "one").write("other", "two");
    let stamp = fs::metadata(ground.path("a")).unwrap().modified().unwrap() - Duration::from_secs(3600);
    let backdate = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_modified(stamp).unwrap();
    backdate(&ground.path("a"));
    let before = ground.check("", ".");

    // The same size and mtime, other content.
    ground.write("a", "two");
    backdate(&ground.path("a"));
    let after = ground.check("", ".");
    assert_ne!(before["a"], after["a"]);
    assert_eq!(before["d/b"], after["d/b"]);

    // Another file of the same size and mtime takes its place.
    let new = ground.folder.path().join("new");
    fs::write(&new, "six").unwrap();
    backdate(&new);
    fs::rename(&new, ground.path("a")).unwrap();
    assert_ne!(ground.check("", ".")["a"], after["a"]);

    // Written through a name outside of the context.
    fs::hard_link(ground.path("d/b"), ground.folder.path().join("outside")).unwrap();
    let before = ground.check("", ".");
    fs::write(ground.folder.path().join("outside"), "two").unwrap();
    assert_ne!(ground.check("", ".")["d/b"], before["d/b"]);

    // Two names of one file are not two files.
    fs::hard_link(ground.path("other"), ground.path("d/twin")).unwrap();
    let linked = ground.check("", ".");
    assert_eq!(linked["other"], format!("{}=d/twin", linked["d/twin"]));
    fs::remove_file(ground.path("d/twin")).unwrap();
    ground.write("d/twin", "two");
    assert_eq!(ground.check("", ".")["other"], linked["d/twin"]);

    // A directory takes another's place.
    ground.write("f/e/c", "two");
    fs::rename(ground.path("d/e"), ground.folder.path().join("away")).unwrap();
    fs::rename(ground.path("f/e"), ground.path("d/e")).unwrap();
    assert_ne!(ground.check("", ".")["d/e/c"], before["d/e/c"]);

    // Modes of files and directories, targets of links, kinds.
    std::os::unix::fs::symlink("a", ground.path("link")).unwrap();
    let before = ground.check("", ".");
    fs::set_permissions(ground.path("a"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(ground.path("d"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::remove_file(ground.path("link")).unwrap();
    std::os::unix::fs::symlink("b", ground.path("link")).unwrap();
    let after = ground.check("", ".");
    assert!(["a", "d", "link"].iter().all(|path| before[*path] != after[*path]), "{after:?}");
    fs::remove_file(ground.path("a")).unwrap();
    fs::create_dir(ground.path("a")).unwrap();
    assert_eq!(ground.check("", ".")["a"], "d755");

    // Only the file itself.
    let one = ground.check("", "d/b");
    ground.write("d/b", "new");
    assert_ne!(ground.check("", "d/b"), one);
}

#[test]
fn each_part_of_a_stat_counts() {
    let ground = Ground::new();
    ground.write("a", "one");
    let stat = rustix::fs::stat(ground.path("a")).unwrap();
    let changes: [fn(&mut rustix::fs::Stat); 7] = [
        |stat| stat.st_dev += 1,
        |stat| stat.st_ino += 1,
        |stat| stat.st_size += 1,
        |stat| stat.st_mtime += 1,
        |stat| stat.st_mtime_nsec ^= 1,
        |stat| stat.st_ctime += 1,
        |stat| stat.st_ctime_nsec ^= 1,
    ];
    for change in changes {
        let mut other = stat;
        change(&mut other);
        assert!(FileKey::of(&stat) != FileKey::of(&other));
    }
}

#[test]
fn what_is_fresh_is_read_again() {
    let ground = Ground::new();
    ground.write("a", "one");
    let mut stat = rustix::fs::stat(ground.path("a")).unwrap();
    (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime_nsec) = (100, 1, 0);
    let changed = 100_000_000_001;
    assert!(!settled(&stat, changed - 1_000_000_000), "from the future");
    assert!(!settled(&stat, changed + RACY_NANOSECONDS - 1));
    assert!(settled(&stat, changed + RACY_NANOSECONDS));
    stat.st_ctime_nsec = 0;
    assert!(!settled(&stat, 102_000_000_000), "a clock of two seconds");
    assert!(settled(&stat, 103_000_000_000));

    // Nothing is noted of a file that is as old as the look at it.
    let index = StatIndex::in_memory();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64;
    let context = Context::open(&ground.path(""), Ignore::default()).unwrap();
    context.look(&selection("."), &index, now - 1_000_000, 0).unwrap();
    let root = rustix::fs::stat(ground.path("")).unwrap();
    let stat = rustix::fs::stat(ground.path("a")).unwrap();
    assert!(!index.shelf(&root).knows_file(&FileKey::of(&stat)));
    context.look(&selection("."), &index, i64::MAX, 0).unwrap();
    assert!(index.shelf(&root).knows_file(&FileKey::of(&stat)));
}

#[test]
fn patterns_may_change_between_looks() {
    let ground = Ground::new();
    for n in 0..30 {
        ground.write(&format!("d{}/e/f{n}.txt", n % 5), &n.to_string()).write(&format!("d{}/g{n}", n % 3), "");
    }
    for ignore in ["", "*.txt", "**/*.txt", "d1", "*\n!d2/e", "**/e\n!d3/e/f3.txt", "d*/g*", "", "**/f1*"] {
        let words = ground.check(ignore, ".");
        let ignored = Ignore::parse(ignore).unwrap();
        assert!(words.keys().all(|path| !ignored.matches(path.as_bytes()) || !ignored.prunes(path.as_bytes())));
    }
    assert!(ground.check("", "d*").len() > 30);
}

#[test]
fn random_changes_are_all_seen() {
    let ground = Ground::new();
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..40 {
        for _ in 0..=random(4) {
            let folder = ["", "a/", "a/b/", "c/", "c/d/e/"][random(5) as usize];
            let (path, other) = (format!("{folder}f{}", random(6)), format!("f{}", random(6)));
            match random(7) {
                0 => drop(fs::remove_file(ground.path(&path))),
                1 => drop(fs::remove_dir_all(ground.path("a"))),
                2 => drop(fs::rename(ground.path(&path), ground.path(&other))),
                3 => drop(fs::hard_link(ground.path(&path), ground.path(&other))),
                4 => drop(fs::rename(ground.path("c"), ground.path("a/c"))),
                _ => drop(ground.write(&path, &random(3).to_string())),
            }
        }
        ground.check("", ".");
    }
}

#[test]
fn only_what_is_named_is_walked() {
    let ground = Ground::new();
    // Whoever goes in there crosses the limit of depth.
    let deep = format!("src/other/{}", "d/".repeat(CONTEXT_DEPTH + 2));
    ground.write("src/a", "").write(&format!("{deep}x"), "");
    let look = |ignore: &str, source: &str| ground.look(ignore, source, 0, &StatIndex::in_memory());
    assert!(matches!(look("", "src").unwrap_err(), BuildError::ContextTooLarge { .. }));
    assert_eq!(look("", "src/a").unwrap()[0].count, 1);
    assert_eq!(look("", "src/a*").unwrap()[0].count, 1);
    assert_eq!(look("**/other", "src").unwrap()[0].count, 2);
    assert_eq!(look("**/other\n!src/a", "src").unwrap()[0].count, 2);
    assert_eq!(look("**/other\n!src/*.x", "src").unwrap()[0].count, 2);
    assert!(look("**/other\n!**/y", "src").is_err(), "something below may be taken back");
}

#[test]
fn files_may_come_and_go_meanwhile() {
    let ground = Ground::new();
    for n in 0..200 {
        ground.write(&format!("d{}/f{n}", n % 20), "x");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let path = format!("d{}/new/g{}", n % 20, n % 7);
                ground.write(&path, &n.to_string());
                if n % 3 == 0 {
                    fs::remove_dir_all(ground.path(&format!("d{}/new", (n / 2) % 20))).ok();
                }
            }
        });
        let index = StatIndex::open(&ground.folder.path().join("stats"));
        for _ in 0..30 {
            // What was listed and went before it was read is an error that says so; anything else is a mistake of ours.
            if let Err(error) = ground.look("", ".", 0, &index) {
                assert!(matches!(error, BuildError::Read { .. }), "{error}");
            }
            index.save();
        }
        stop.store(true, Ordering::Relaxed);
    });
    ground.check("", ".");
}

#[test]
fn a_file_that_keeps_changing_is_told() {
    let ground = Ground::new();
    ground.write("log", &"x".repeat(1 << 20));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().append(true).open(ground.path("log")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut &file, b"line\n").unwrap();
            }
        });
        let found = ground.look("", ".", 0, &StatIndex::in_memory());
        stop.store(true, Ordering::Relaxed);
        if let Err(error) = found {
            let text = with_cause(&error);
            assert!(text.contains("changed each time"), "{text}");
        }
    });
    ground.check("", ".");
}

fn with_cause(error: &BuildError) -> String {
    let cause = std::error::Error::source(error).map(|cause| cause.to_string()).unwrap_or_default();
    format!("{error}: {cause}")
}
