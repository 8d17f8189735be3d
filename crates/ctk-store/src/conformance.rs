//! The exam of every [`Blobs`]: call [`run`] with a fresh home of blobs. Panics say what is wrong.

use std::io::{Read, Write};

use ctk_oci::{Algorithm, Descriptor, Digest};

use crate::{Blobs, StoreError};

/// Everything an implementation must do.
pub fn run(blobs: &dyn Blobs) {
    round_trip(blobs);
    nothing_before_commit(blobs);
    mismatch_is_refused(blobs);
    twice_is_fine(blobs);
    missing_is_named(blobs);
    lies_about_size_are_caught(blobs);
    many_at_once(blobs);
}

fn put(blobs: &dyn Blobs, bytes: &[u8]) -> Descriptor {
    let mut sink = blobs.create(None).expect("a sink");
    sink.write_all(bytes).expect("writing");
    let (digest, size) = sink.commit().expect("commit");
    Descriptor::new("application/octet-stream", digest, size)
}

fn get(blobs: &dyn Blobs, descriptor: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    blobs.open(descriptor).expect("open").read_to_end(&mut bytes).expect("verified read");
    bytes
}

fn round_trip(blobs: &dyn Blobs) {
    for bytes in [&b""[..], b"x", &vec![7u8; 3_000_000]] {
        let descriptor = put(blobs, bytes);
        assert_eq!(descriptor.digest, Digest::of(bytes), "commit gives the digest");
        assert_eq!(blobs.size(&descriptor.digest).expect("size"), Some(bytes.len() as u64));
        assert_eq!(get(blobs, &descriptor), bytes);
    }
    let mut digester = Algorithm::Sha512.digester();
    digester.update(b"long");
    let expected = Descriptor::new("x/y", digester.finish(), 4);
    let mut sink = blobs.create(Some(&expected)).expect("a sink");
    sink.write_all(b"long").expect("writing");
    sink.commit().expect("sha512 is verified too");
    assert_eq!(get(blobs, &expected), b"long");
}

fn nothing_before_commit(blobs: &dyn Blobs) {
    let bytes = b"never committed";
    let mut sink = blobs.create(None).expect("a sink");
    sink.write_all(bytes).expect("writing");
    assert_eq!(blobs.size(&Digest::of(bytes)).expect("size"), None, "visible before commit");
    drop(sink);
    assert_eq!(blobs.size(&Digest::of(bytes)).expect("size"), None, "visible after drop");
}

fn mismatch_is_refused(blobs: &dyn Blobs) {
    let expected = Descriptor::of("x/y", b"right");
    for wrong in [&b"wrong"[..], b"righ", b""] {
        let mut sink = blobs.create(Some(&expected)).expect("a sink");
        sink.write_all(wrong).expect("writing");
        let refused = matches!(sink.commit(), Err(StoreError::Mismatch { .. }));
        assert!(refused, "{wrong:?} was taken for `right`");
    }
    let mut sink = blobs.create(Some(&expected)).expect("a sink");
    assert!(sink.write_all(b"right and more").is_err(), "more bytes than promised were taken");
    drop(sink);
    assert_eq!(blobs.size(&expected.digest).expect("size"), None);
}

fn twice_is_fine(blobs: &dyn Blobs) {
    assert_eq!(put(blobs, b"twice"), put(blobs, b"twice"));
}

fn missing_is_named(blobs: &dyn Blobs) {
    let descriptor = Descriptor::of("x/y", b"nobody has this");
    match blobs.open(&descriptor) {
        Err(StoreError::Missing { digest }) => assert_eq!(digest, descriptor.digest),
        Err(other) => panic!("expected Missing, found {other}"),
        Ok(_) => panic!("opened what is not there"),
    }
}

fn lies_about_size_are_caught(blobs: &dyn Blobs) {
    let mut descriptor = put(blobs, b"honest");
    for size in [5, 7] {
        descriptor.size = size;
        let read = blobs.open(&descriptor).map(|mut r| r.read_to_end(&mut Vec::new()));
        assert!(!matches!(read, Ok(Ok(_))), "a size of {size} instead of 6 went unnoticed");
    }
}

fn many_at_once(blobs: &dyn Blobs) {
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            scope.spawn(move || {
                for number in 0..20u32 {
                    // Half of the content is the same in every thread.
                    let text = if number % 2 == 0 { format!("{number}") } else { format!("{thread} {number}") };
                    let descriptor = put(blobs, text.as_bytes());
                    assert_eq!(get(blobs, &descriptor), text.as_bytes());
                }
            });
        }
    });
}
