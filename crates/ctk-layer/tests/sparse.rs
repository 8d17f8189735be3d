//! Sparse files of every form that GNU tar writes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use ctk_layer::{EntryKind, LayerError, TarReader};

/// The forms, as switches of tar.
const FORMS: [&[&str]; 5] = [
    &["--format=gnu"],
    &["--format=oldgnu"],
    &["--format=posix", "--sparse-version=0.0"],
    &["--format=posix", "--sparse-version=0.1"],
    &["--format=posix", "--sparse-version=1.0"],
];

/// The tar that GNU tar makes of a folder; `None` where it is not installed.
fn packed(folder: &Path, form: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("tar");
    command.args(form).args(["--sparse", "--sort=name", "-C"]).arg(folder).args(["-cf", "-", "."]);
    let Ok(output) = command.output() else {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "tar is missing");
        println!("skipped: needs tar");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// A file of `size` bytes with some data at each of `offsets`.
fn sparse(path: &Path, size: u64, offsets: impl IntoIterator<Item = u64>) {
    let mut file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for offset in offsets {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(format!("data at {offset}").as_bytes()).unwrap();
    }
}

#[test]
fn every_form_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    sparse(&path("all-holes"), 5 << 20, []);
    sparse(&path("begins-with-data"), 3 << 20, [0, 1 << 20]);
    sparse(&path("ends-with-data"), (3 << 20) + 20, [1 << 20, 3 << 20]);
    // More segments than fit into a header and the blocks behind it, or into a block in front of the data.
    sparse(&path("many"), 8 << 20, (0..300).map(|n| n * 20_000 + 7));
    let long = "n".repeat(180);
    sparse(&path(&long), 2 << 20, [1 << 20]);
    std::fs::write(path("plain"), "not sparse").unwrap();
    for form in FORMS {
        let Some(tar) = packed(folder.path(), form) else { return };
        assert!(tar.len() < 4 << 20, "{form:?} gave {} bytes: nothing is sparse here", tar.len());
        let mut reader = TarReader::new(&tar[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let EntryKind::File { size } = entry.kind else { continue };
            let expected = std::fs::read(path(&entry.display())).unwrap();
            let mut found = Vec::new();
            reader.read_to_end(&mut found).unwrap();
            assert_eq!(size, expected.len() as u64, "{form:?} {}", entry.display());
            assert!(found == expected, "{form:?} {}", entry.display());
            names.push(entry.display());
        }
        assert_eq!(names, ["all-holes", "begins-with-data", "ends-with-data", "many", &long, "plain"], "{form:?}");
        // Whoever reads nothing finds the same entries.
        let mut reader = TarReader::new(&tar[..]);
        let mut count = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            count += usize::from(entry.kind != EntryKind::Directory);
        }
        assert_eq!(count, names.len(), "{form:?}");
        // Cut anywhere it is an error or ends between entries; never a panic, never wrong bytes at the end.
        for length in (0..tar.len()).step_by(4099) {
            let mut reader = TarReader::new(&tar[..length]);
            while let Ok(Some(_)) = reader.next_entry() {
                if std::io::copy(&mut reader, &mut std::io::sink()).is_err() {
                    break;
                }
            }
        }
    }
}

#[test]
fn sizes_past_8_gib_are_read() {
    const SIZE: u64 = (9 << 30) + 11;
    let folder = tempfile::tempdir().unwrap();
    sparse(&folder.path().join("huge"), SIZE, [8 << 30]);
    for form in FORMS {
        let Some(tar) = packed(folder.path(), form) else { return };
        let mut reader = TarReader::new(&tar[..]);
        let huge = std::iter::from_fn(|| reader.next_entry().unwrap()).find(|entry| entry.display() == "huge").unwrap();
        assert_eq!(huge.size(), SIZE, "{form:?}");
    }
}

/// Replaces `from` in a tar and mends the checksums of all headers that are not data.
fn damaged(mut tar: Vec<u8>, at: usize, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let found = tar.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
    tar[found..found + to.len()].copy_from_slice(to.as_bytes());
    let header = &mut tar[at..at + 512];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

#[test]
fn maps_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    sparse(&folder.path().join("s"), 2 << 20, [1 << 20]);
    let check = |tar: Vec<u8>, expected: &str| {
        let mut reader = TarReader::new(&tar[..]);
        let error = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("read to the end instead of `{expected}`"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LayerError::Header { .. }), "{error}");
        assert!(error.to_string().contains(expected), "`{error}` does not contain `{expected}`");
    };
    let Some(old) = packed(folder.path(), FORMS[0]) else { return };
    let octal = |n: u64| format!("{n:011o}");
    check(damaged(old.clone(), 512, &octal(2 << 20), &octal(1 << 20)), "leaves the file");
    check(damaged(old, 512, &octal(1 << 20), &octal(3 << 20)), "leaves the file");
    let posix = |form: usize| packed(folder.path(), FORMS[form]).unwrap();
    check(damaged(posix(2), 0, "GNU.sparse.numbytes=4096", "GNU.sparse.numbytes=4097"), "are stored");
    check(damaged(posix(3), 0, "GNU.sparse.map=1048576,", "GNU.sparse.map=104857x,"), "malformed");
    check(damaged(posix(3), 0, "GNU.sparse.map=1048576,4096", "GNU.sparse.map=1048576,8192"), "are stored");
    check(damaged(posix(4), 0, "GNU.sparse.major=1", "GNU.sparse.major=7"), "version 7.0");
    check(damaged(posix(4), 0, "GNU.sparse.realsize=2097152", "GNU.sparse.realsize=1x97152"), "malformed");
    check(damaged(posix(4), 0, "\n1048576\n", "\n9048576\n"), "leaves the file");
}
