//! The exam of every [`Blobs`]: call [`run`] with an empty home. Panics say what is wrong.

use bytes::Bytes;
use ctk_distribution::ByteRange;
use ctk_oci::Descriptor;
use futures_util::StreamExt;

use super::{Blobs, Reading};
use crate::RegistryError;
use crate::meta::Place;

/// Everything an implementation must do. Runs [`ctk_http::runtime`].
pub fn run(blobs: &dyn Blobs) {
    goes_on_where_it_was(blobs);
    one_writer_at_a_time(blobs);
    ranges(blobs);
    readers_outlive_removal(blobs);
    adopts_files(blobs);
    places_are_listed(blobs);
}

fn place(number: u32) -> Place {
    Place(format!("{number:032x}"))
}

/// Bytes that differ from each other for as long as matters.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u8).collect()
}

fn read(reading: Reading) -> Vec<u8> {
    ctk_http::runtime().block_on(async {
        let pieces: Vec<_> = reading.collect().await;
        pieces.into_iter().flat_map(|piece| piece.expect("a piece")).collect()
    })
}

fn whole(blobs: &dyn Blobs, place: &Place) -> Vec<u8> {
    let size = blobs.size(place).expect("size").expect("it is there");
    read(blobs.read(place, ByteRange { start: 0, end: size }).expect("read").expect("it is there"))
}

fn put(blobs: &dyn Blobs, place: &Place, bytes: &[u8]) {
    let mut writing = blobs.append(place, "").expect("append");
    writing.write(&[Bytes::copy_from_slice(bytes)]).expect("write");
    writing.finish().expect("finish");
}

fn goes_on_where_it_was(blobs: &dyn Blobs) {
    let text = bytes(13_000_000);
    // Cuts that are in the middle of every kind of part.
    let cuts = [0, 0, 1, 100, 5_000_000, 5_242_880, 12_999_999, 13_000_000];
    let (mut parts, place) = (String::new(), place(1));
    for pair in cuts.windows(2) {
        let mut writing = blobs.append(&place, &parts).expect("append");
        assert_eq!(writing.held(), pair[0] as u64, "bytes held after they were saved");
        let pieces: Vec<Bytes> = text[pair[0]..pair[1]].chunks(300_001).map(Bytes::copy_from_slice).collect();
        writing.write(&pieces).expect("write");
        assert_eq!(writing.held(), pair[1] as u64);
        parts = writing.save().expect("save");
    }
    let mut writing = blobs.append(&place, &parts).expect("append");
    writing.unsaved(13_000_000, &mut |_| panic!("nothing was unsaved")).expect("unsaved");
    writing.finish().expect("finish");
    drop(writing);
    assert!(whole(blobs, &place) == text, "the bytes are not those written");
    // Saved, written to, and left: what is there of the rest is right, and what is not is written again.
    let (start, place) = (6_000_000, self::place(7));
    let mut writing = blobs.append(&place, "").expect("append");
    writing.write(&[Bytes::copy_from_slice(&text[..start])]).expect("write");
    let parts = writing.save().expect("save");
    writing.write(&[Bytes::copy_from_slice(&text[start..12_000_000])]).expect("write");
    drop(writing);
    let mut writing = blobs.append(&place, &parts).expect("append");
    let held = writing.held() as usize;
    assert!((start..=12_000_000).contains(&held), "{held} bytes held");
    let mut found = Vec::new();
    writing.unsaved(start as u64, &mut |piece| found.extend_from_slice(piece)).expect("unsaved");
    assert!(found == text[start..held], "other bytes after those saved");
    writing.write(&[Bytes::copy_from_slice(&text[held..])]).expect("write");
    writing.finish().expect("finish");
    drop(writing);
    assert!(whole(blobs, &place) == text, "the bytes are not those written");
    blobs.remove(&place, "").expect("remove");
    // Empty ones exist, too.
    let mut writing = blobs.append(&self::place(2), "").expect("append");
    writing.finish().expect("finish");
    assert_eq!(blobs.size(&self::place(2)).expect("size"), Some(0));
    assert_eq!(whole(blobs, &self::place(2)), b"");
}

fn one_writer_at_a_time(blobs: &dyn Blobs) {
    let first = blobs.append(&place(3), "").expect("append");
    match blobs.append(&place(3), "") {
        Err(RegistryError::UploadBusy) => {}
        Err(other) => panic!("expected UploadBusy, found {other}"),
        Ok(_) => panic!("two writers of one place"),
    }
    drop(first);
    drop(blobs.append(&place(3), "").expect("free again"));
    blobs.remove(&place(3), "").expect("remove what was never finished");
}

fn ranges(blobs: &dyn Blobs) {
    let text = bytes(1_200_000);
    put(blobs, &place(4), &text);
    for (start, end) in [(0, 1), (0, 0), (5, 1_200_000), (524_288, 1_048_576), (1_199_999, 1_200_000)] {
        let range = ByteRange { start, end };
        let found = read(blobs.read(&place(4), range).expect("read").expect("it is there"));
        assert!(found == text[start as usize..end as usize], "bytes {start}..{end}");
    }
    assert!(blobs.read(&place(99), ByteRange { start: 0, end: 1 }).expect("read").is_none(), "a place never written");
    assert_eq!(blobs.size(&place(99)).expect("size"), None);
}

fn readers_outlive_removal(blobs: &dyn Blobs) {
    let text = bytes(700_000);
    put(blobs, &place(5), &text);
    let reading = blobs.read(&place(5), ByteRange { start: 0, end: 700_000 }).expect("read").expect("it is there");
    blobs.remove(&place(5), "").expect("remove");
    assert!(read(reading) == text, "a reader lost its bytes");
    assert_eq!(blobs.size(&place(5)).expect("size"), None);
    blobs.remove(&place(5), "").expect("removing twice is fine");
}

fn adopts_files(blobs: &dyn Blobs) {
    let path = std::env::temp_dir().join(format!("ctk-registry-adopts-{}", std::process::id()));
    std::fs::write(&path, b"adopted").expect("a file");
    let adopted = blobs.adopt(&place(6), &path, &Descriptor::of("x/y", b"adopted"));
    let _ = std::fs::remove_file(&path);
    adopted.expect("adopt");
    assert_eq!(whole(blobs, &place(6)), b"adopted");
}

fn places_are_listed(blobs: &dyn Blobs) {
    let mut found = Vec::new();
    blobs
        .places(&mut |place| {
            found.push(place);
            Ok(())
        })
        .expect("places");
    found.sort();
    found.dedup();
    assert_eq!(found, [place(1), place(2), place(4), place(6)]);
}
