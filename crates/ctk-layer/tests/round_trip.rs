//! Entries through tar and back, and GNU tar's opinion of both directions.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ctk_layer::{
    Compression, Encoding, Entry, EntryKind, LayerError, LayerWriter, TarReader, TarWriter, Time, decode, decode_ahead,
};
use ctk_oci::Digest;
use ctk_plan::Cancel;

fn entries() -> Vec<(Entry, Vec<u8>)> {
    let plain = |path: &[u8], kind, mode| Entry::new(path, kind, mode);
    let file =
        |path: &[u8], data: &[u8]| (plain(path, EntryKind::File { size: data.len() as u64 }, 0o644), data.to_vec());
    let mut all = vec![
        (plain(b"", EntryKind::Directory, 0o755), vec![]),
        (plain(b"dir", EntryKind::Directory, 0o1777), vec![]),
        file(b"dir/empty", b""),
        file(b"dir/513", &[7; 513]),
        file(&[b'n'; 200], b"long name"),
        file(&[&[b'd'; 99][..], b"/", &[b'e'; 60]].concat(), b"long path"),
        file(b"latin\xe9", b"no UTF-8"),
        (plain(b"link", EntryKind::Symlink { target: b"/abs/../\xff".to_vec() }, 0o777), vec![]),
        (plain(b"long-link", EntryKind::Symlink { target: vec![b't'; 300] }, 0o777), vec![]),
        (plain(b"hard", EntryKind::HardLink { target: b"dir/513".to_vec() }, 0o644), vec![]),
        (plain(b"long-hard", EntryKind::HardLink { target: vec![b'n'; 200] }, 0o644), vec![]),
        (plain(b"null", EntryKind::CharDevice { major: 1, minor: 3 }, 0o666), vec![]),
        (plain(b"disk", EntryKind::BlockDevice { major: 259, minor: 70_000 }, 0o660), vec![]),
        (plain(b"pipe", EntryKind::Fifo, 0o600), vec![]),
        (plain(b"setuid", EntryKind::File { size: 0 }, 0o4755), vec![]),
    ];
    let mut rich = plain(b"rich", EntryKind::File { size: 3 }, 0o600);
    (rich.uid, rich.gid) = (4_000_000_000, 3_000_000);
    rich.mtime = Time { seconds: 1_700_000_000, nanos: 123_456_789 };
    rich.xattrs = BTreeMap::from([
        (b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 4, 0, 0, 0, b'\n', 0, 0, b'=', 0, 0, 0, 0, 0, 0, 0]),
        (b"user.\xc3\xbc".to_vec(), vec![]),
    ]);
    all.push((rich, b"abc".to_vec()));
    let mut old = plain(b"old", EntryKind::File { size: 0 }, 0o644);
    old.mtime = Time { seconds: -2, nanos: 500_000_000 };
    all.push((old, vec![]));
    all
}

fn tar_of(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        tar.append(entry, &data[..]).unwrap();
    }
    tar.finish().unwrap()
}

fn read_all(tar: impl Read) -> Result<Vec<(Entry, Vec<u8>)>, LayerError> {
    let mut reader = TarReader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).map_err(LayerError::Read)?;
        found.push((entry, data));
    }
    reader.finish()?;
    Ok(found)
}

#[test]
fn every_kind_of_entry_comes_back() {
    assert_eq!(read_all(&tar_of(&entries())[..]).unwrap(), entries());
    assert_eq!(tar_of(&entries()), tar_of(&entries()));
}

#[test]
fn unread_bytes_are_skipped() {
    let tar = tar_of(&entries());
    let mut reader = TarReader::new(&tar[..]);
    let mut count = 0;
    while reader.next_entry().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, entries().len());
}

#[test]
fn sizes_over_8_gib_survive() {
    const SIZE: u64 = (8 << 30) + 5;
    let entry = Entry::new("huge", EntryKind::File { size: SIZE }, 0o644);
    let (mut there, mut here) = std::os::unix::net::UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || {
        let mut tar = TarWriter::new(Vec::new());
        // Only the head is looked at; the data would take seconds.
        let refused = tar.append(&entry, std::io::empty());
        assert!(matches!(refused, Err(LayerError::SizeChanged { expected: SIZE, found: 0, .. })));
        let small = Entry::new("huge", EntryKind::File { size: SIZE }, 0o644);
        let _ = TarWriter::new(&mut there).append(&small, std::io::repeat(0).take(1 << 16));
    });
    let mut bytes = Vec::new();
    here.read_to_end(&mut bytes).unwrap();
    writer.join().unwrap();
    assert_eq!(TarReader::new(&bytes[..]).next_entry().unwrap().unwrap().size(), SIZE);
}

#[test]
fn gnu_tar_reads_files_past_8_gib() {
    const SIZE: u64 = (8 << 30) + 5;
    let Some(_) = run("tar", &["--version"], b"") else { return };
    let mut tar = Command::new("tar").args(["-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut writer = TarWriter::new(tar.stdin.take().unwrap());
    let entry = Entry::new("huge", EntryKind::File { size: SIZE }, 0o644);
    writer.append(&entry, std::io::repeat(0).take(SIZE)).unwrap();
    writer.append(&Entry::new("behind", EntryKind::File { size: 2 }, 0o644), &b"it"[..]).unwrap();
    drop(writer.finish().unwrap());
    let output = tar.wait_with_output().unwrap();
    let listing = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && listing.contains(&SIZE.to_string()) && listing.contains("behind"), "{listing}");
}

#[test]
fn a_stream_cut_anywhere_is_an_error_or_a_clean_prefix() {
    let tar = tar_of(&entries());
    let all = entries();
    for length in (1..tar.len() - 1024).step_by(97) {
        match read_all(&tar[..length]) {
            Ok(found) => assert_eq!(found[..], all[..found.len()], "cut at {length}"),
            Err(LayerError::Truncated { .. } | LayerError::Read(_)) => {}
            Err(other) => panic!("cut at {length}: {other}"),
        }
    }
}

#[test]
fn bad_headers_are_named() {
    let check = |damage: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut tar = tar_of(&entries()[1..4]);
        damage(&mut tar);
        let error = read_all(&tar[..]).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` does not contain `{expected}`");
    };
    check(&|tar| tar[0] ^= 1, "checksum");
    let evil = |path: &str, kind| tar_of(&[(Entry::new(path, kind, 0o644), vec![])]);
    let error = read_all(&evil("../x", EntryKind::Fifo)[..]).unwrap_err().to_string();
    assert!(error.contains("`..`"), "{error}");
    let link = evil("x", EntryKind::HardLink { target: b"a/../../b".to_vec() });
    assert!(read_all(&link[..]).unwrap_err().to_string().contains("`..`"));
}

/// Runs `program` on `input`; `None` where it is not installed.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .spawn();
    let Ok(mut child) = spawned else {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "{program} is missing");
        println!("skipped: needs {program}");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", output.status);
    Some(output.stdout)
}

#[test]
fn gnu_tar_reads_what_we_write() {
    let tar = tar_of(&entries());
    let Some(listing) = run("tar", &["-tvf", "-", "--full-time", "--numeric-owner"], &tar) else { return };
    let listing = String::from_utf8_lossy(&listing);
    assert_eq!(listing.lines().count(), entries().len(), "{listing}");
    for expected in [
        "-rw------- 4000000000/3000000 ",
        "2023-11-14 22:13:20.123456789 rich",
        " 1969-12-31 23:59:59.5 ",
        "crw-rw-rw- 0/0             1,3",
        "brw-rw---- 0/0       259,70000",
        "-rwsr-xr-x",
        " hard link to dir/513",
    ] {
        assert!(listing.contains(expected), "no `{expected}` in\n{listing}");
    }
    let gzip = {
        let mut writer = LayerWriter::new(Vec::new(), Compression::GZIP, 2).unwrap();
        writer.write_all(&tar).unwrap();
        writer.finish().unwrap().0
    };
    assert_eq!(run("gzip", &["-dc"], &gzip).unwrap(), tar);
}

#[test]
fn we_read_what_gnu_tar_writes() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    std::fs::create_dir(directory.path().join("d".repeat(120))).unwrap();
    std::fs::write(directory.path().join(&name), b"deep").unwrap();
    std::fs::hard_link(directory.path().join(&name), directory.path().join("hard")).unwrap();
    std::os::unix::fs::symlink("l".repeat(150), directory.path().join("link")).unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        let root = directory.path().to_str().unwrap();
        let Some(tar) = run("tar", &["-C", root, "--sort=name", "--format", format, "-cf", "-", "."], b"") else {
            return;
        };
        let found = read_all(&tar[..]).unwrap();
        let paths: Vec<String> = found.iter().map(|(entry, _)| entry.display()).collect();
        assert_eq!(paths, ["/", &"d".repeat(120), &name, "hard", "link"], "{format}");
        assert_eq!(found[2].1, b"deep");
        assert_eq!(found[3].0.kind, EntryKind::HardLink { target: name.clone().into_bytes() });
        assert_eq!(found[4].0.kind, EntryKind::Symlink { target: vec![b'l'; 150] });
        if format == "pax" {
            assert_ne!(found[2].0.mtime.nanos, 0, "PAX times have nanoseconds");
        }
    }
}

#[test]
fn compressed_bytes_do_not_depend_on_the_workers() {
    let mut data = Vec::new();
    for number in 0u32..200_000 {
        writeln!(data, "{} {}", number, number.wrapping_mul(2_654_435_761)).unwrap();
    }
    for compression in [
        Compression::None,
        Compression::GZIP,
        Compression::Gzip { level: 1 },
        Compression::Gzip { level: 9 },
        Compression::ZSTD,
        Compression::Zstd { level: 1 },
        Compression::Zstd { level: 9 },
    ] {
        for data in [&data[..], &data[..256 << 10], &data[..(256 << 10) + 1], &b""[..]] {
            let pack = |workers, piece: usize| {
                let mut writer = LayerWriter::new(Vec::new(), compression, workers).unwrap();
                for piece in data.chunks(piece) {
                    writer.write_all(piece).unwrap();
                }
                writer.finish().unwrap()
            };
            let (bytes, summary) = pack(1, 1 << 20);
            for (workers, piece) in [(0, 777), (2, 64 << 10), (3, 1 << 22), (5, 512)] {
                let (again, same) = pack(workers, piece);
                assert!(again == bytes && same == summary, "{compression:?} with {workers} workers");
            }
            assert_eq!(summary.digest, Digest::of(&bytes));
            assert_eq!(summary.size, bytes.len() as u64);
            assert_eq!(summary.diff_id.0, Digest::of(data));
            assert_eq!(summary.uncompressed_size, data.len() as u64);
            let mut back = Vec::new();
            decode(&bytes[..]).unwrap().1.read_to_end(&mut back).unwrap();
            assert!(back == data, "{compression:?} came back changed");
            for workers in [1, 3] {
                back.clear();
                let ahead = decode_ahead(std::io::Cursor::new(bytes.clone()), workers);
                ahead.unwrap().1.read_to_end(&mut back).unwrap();
                assert!(back == data, "{compression:?} came back changed by {workers} workers");
            }
        }
    }
}

fn gzip_of(data: &[u8], level: u32) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new(), Compression::Gzip { level }, 2).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap().0
}

/// Files of the system's libraries, one after the other.
fn libraries(most: usize) -> Vec<u8> {
    let (mut found, mut folders) = (Vec::new(), vec![std::path::PathBuf::from("/usr/lib")]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| !path.is_symlink()) {
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.extend(bytes);
            }
            if found.len() > most {
                found.truncate(most);
                return found;
            }
        }
    }
    found
}

/// At a level that takes a second for a block, nobody waits for the blocks that are under way.
#[test]
fn a_writer_that_is_cancelled_stops_at_once() {
    let cancel = Cancel::new();
    let mut writer = LayerWriter::new(Vec::new(), Compression::Zstd { level: 19 }, 2).unwrap().cancelled_by(&cancel);
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 60) as u8
    };
    let block: Vec<u8> = (0..2 << 20).map(|_| next()).collect();
    for _ in 0..3 {
        writer.write_all(&block).unwrap();
    }
    cancel.cancel();
    let at = Instant::now();
    let error = writer.finish().map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
    assert!(at.elapsed() < Duration::from_millis(700), "{:?}", at.elapsed());
}

#[test]
fn gzip_is_about_as_small_as_zlibs() {
    let data = libraries(32 << 20);
    if data.len() < 8 << 20 {
        assert!(std::env::var_os("CTK_TEST_REQUIRE").is_none(), "/usr/lib is too small");
        println!("skipped: needs some libraries");
        return;
    }
    let Some(theirs) = run("gzip", &["-6"], &data) else { return };
    let Compression::Gzip { level } = Compression::GZIP else { panic!() };
    let ours = gzip_of(&data, level);
    let percent = 100.0 * ours.len() as f64 / theirs.len() as f64;
    println!("{} and {} of {} bytes: {percent:.1} %", ours.len(), theirs.len(), data.len());
    // 101.6 % over 693 MB of libraries; other files, other numbers.
    assert!(percent < 103.0, "{} bytes, and gzip -6 needs {}", ours.len(), theirs.len());
}

/// Bytes that do not compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn gzip_of_any_make_is_decompressed_by_members_or_whole() {
    let check = |what: &str, stream: Vec<u8>, expected: &[u8]| {
        let mut back = Vec::new();
        let result = decode_ahead(std::io::Cursor::new(stream), 3).unwrap().1.read_to_end(&mut back);
        result.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(back == expected, "{what}: {} bytes instead of {}", back.len(), expected.len());
    };
    let text: Vec<u8> = (0..300_000u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
    let random = noise(3 << 20);
    // Members in members: stored as they are, their headers look like ours.
    let nested: Vec<u8> = [gzip_of(b"inner", 4), random.clone(), gzip_of(&random, 4), gzip_of(b"last", 12)].concat();
    for level in [1, 4, 9, 12] {
        check("text", gzip_of(&text, level), &text);
        check("random", gzip_of(&random, level), &random);
        check("nested", gzip_of(&nested, level), &nested);
    }
    let both = [&text[..], &random].concat();
    check("two streams", [gzip_of(&text, 4), gzip_of(&random, 4)].concat(), &both);
    let empty = gzip_of(b"", 4);
    check("empty members", [&empty[..], &empty, &gzip_of(&text, 4), &empty].concat(), &text);
    let Some(foreign) = run("gzip", &["-n"], &both) else { return };
    check("one member", foreign.clone(), &both);
    let again = [&both[..], &text, &both].concat();
    check("ours, theirs, named", [foreign.clone(), gzip_of(&text, 4), foreign].concat(), &again);
    let whole = gzip_of(&both, 4);
    for length in [11, 70_000, whole.len() - 1] {
        let stream = std::io::Cursor::new(whole[..length].to_vec());
        assert!(decode_ahead(stream, 2).unwrap().1.read_to_end(&mut Vec::new()).is_err(), "cut at {length}");
    }
}

fn zstd_of(data: &[u8]) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new(), Compression::ZSTD, 2).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap().0
}

#[test]
fn zstd_of_any_make_is_decompressed_by_frames_or_whole() {
    let read = |stream: Vec<u8>, workers| {
        let mut back = Vec::new();
        decode_ahead(std::io::Cursor::new(stream), workers).unwrap().1.read_to_end(&mut back).map(|_| back)
    };
    let check = |what: &str, stream: Vec<u8>, expected: &[u8]| {
        for workers in [1, 3] {
            let back = read(stream.clone(), workers).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(back == expected, "{what}: {} bytes instead of {}", back.len(), expected.len());
        }
    };
    let text: Vec<u8> = (0..900_000u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
    let random = noise(5 << 20);
    let both = [&text[..], &random].concat();
    let ours = zstd_of(&both);
    check("ours", ours.clone(), &both);
    check("frames in frames", zstd_of(&ours), &ours);
    check("zeros", zstd_of(&vec![0; 9 << 20]), &vec![0; 9 << 20]);
    check("empty", zstd_of(b""), b"");
    check("empty frames", [zstd_of(b""), zstd_of(&text), zstd_of(b"")].concat(), &text);
    // A frame that says nothing of its size, one that is large, and one that is skipped.
    let unsized_frame = zstd::stream::encode_all(&both[..], 1).unwrap();
    check("one frame", unsized_frame.clone(), &both);
    let small: Vec<u8> = both.chunks(700_000).flat_map(|piece| zstd::stream::encode_all(piece, 1).unwrap()).collect();
    check("small frames without their sizes", small, &both);
    let mut whole = zstd::bulk::Compressor::new(1).unwrap();
    whole.long_distance_matching(true).unwrap();
    check("one large frame with its size", whole.compress(&both).unwrap(), &both);
    let again = [&both[..], &text, &both].concat();
    check("theirs, ours, theirs", [unsized_frame.clone(), zstd_of(&text), unsized_frame].concat(), &again);
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    check(
        "skipped frames",
        [&skipped[..], &zstd_of(&text), &skipped, &zstd_of(&text), &skipped].concat(),
        &[&text[..], &text].concat(),
    );
    for length in [5, 17, 70_000, ours.len() - 1] {
        assert!(read(ours[..length].to_vec(), 2).is_err(), "cut at {length}");
    }
    for at in [4, 6, 20, 70_000, ours.len() - 2] {
        let mut damaged = ours.clone();
        damaged[at] ^= 0x55;
        assert!(read(damaged, 2).is_err(), "damaged at {at}");
    }
    assert!(read([&ours[..], b"garbage"].concat(), 2).is_err());
}

#[test]
fn a_reader_given_up_ends_its_threads() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let stream = gzip_of(&noise(20 << 20), 1);
    let before = threads();
    let mut reader = decode_ahead(std::io::Cursor::new(stream), 3).unwrap().1;
    reader.read_exact(&mut [0; 100]).unwrap();
    assert!(threads() > before);
    drop(reader);
    for _ in 0..500 {
        if threads() <= before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("threads are left");
}

#[test]
fn encodings_are_recognised() {
    let check = |bytes: &[u8], expected| assert_eq!(Encoding::sniff(bytes), expected);
    check(&[0x1f, 0x8b, 8], Encoding::Gzip);
    check(&[0x28, 0xb5, 0x2f, 0xfd], Encoding::Zstd);
    check(&[0x50, 0x2a, 0x4d, 0x18], Encoding::Zstd);
    check(b"\xfd7zXZ\0", Encoding::Xz);
    check(b"BZh9", Encoding::Bzip2);
    check(b"ustar", Encoding::Plain);
    check(b"", Encoding::Plain);
}
