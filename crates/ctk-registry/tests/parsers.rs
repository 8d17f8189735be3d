//! What reads others' text takes anything without a panic, and says of what it takes only what is true. `fuzz/` has the
//! same for as long as one likes.

use ctk_distribution::{ContentRange, RangeRequest, Route, Scope, chunk_start, parse_content_range, parse_range};
use ctk_oci::Reference;
use ctk_registry::check_manifest;
use proptest::prelude::*;

/// Texts of the pieces that the grammars are made of, in any order.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => ".{0,4}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"schemaVersion\":2",
    "\"mediaType\":",
    "\"config\":{",
    "\"layers\":[",
    "\"manifests\":[",
    "\"digest\":",
    "\"size\":",
    "-1",
    "18446744073709551616",
    "null",
    "\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
    "\"data\":\"",
    "\"subject\":{",
    "\"application/vnd.oci.image.manifest.v1+json\"",
    "\\u0000",
    "\"annotations\":{",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges(text in pieces(&["bytes=", "bytes ", "-", ",", "0", "9", " ", "/", "*", "18446744073709551615"]), size in any::<u64>()) {
        if let RangeRequest::Part(range) = parse_range(&text, size) {
            prop_assert!(range.start < range.end && range.end <= size, "{text}: {range:?} of {size}");
        }
        if let Some(range) = chunk_start(&text) {
            prop_assert!(range.start <= range.end, "{text}: {range:?}");
        }
        if let Some(ContentRange { range, .. }) = parse_content_range(&text) {
            prop_assert!(range.start <= range.end, "{text}: {range:?}");
        }
    }

    #[test]
    fn scopes(text in pieces(&["repository", "registry", ":", ",", " ", "a/b", "pull", "push", "*", "\"", "(x)", "\n"])) {
        if let Ok(scopes) = Scope::parse_list([text.as_str()]) {
            let written: Vec<String> = scopes.iter().map(Scope::to_string).collect();
            let again = Scope::parse_list(written.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(&again, &scopes);
            prop_assert!(written.iter().all(|text| http::HeaderValue::from_str(text).is_ok() && !text.contains('"')));
        }
    }

    #[test]
    fn references(text in pieces(&["localhost", ":", "5000", "/", "a", "A", "..", "-", "_", "@sha256:", "[::1]", "v1"])) {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
        }
    }

    #[test]
    fn paths(text in pieces(&["/", "v2", "/v2/", "a", "manifests", "blobs", "uploads/", "tags/list", "..", "%2f", "referrers"])) {
        if let Ok(route) = Route::parse(&text)
            && let Some(name) = route.name()
        {
            prop_assert!(Reference::new("localhost", name, None, None).is_ok(), "{text}: {name}");
        }
    }

    #[test]
    fn manifests(text in pieces(JSON), bytes in prop::collection::vec(any::<u8>(), 0..40), index in any::<bool>()) {
        let kind = if index { ctk_oci::media_type::INDEX } else { ctk_oci::media_type::MANIFEST };
        let _ = check_manifest(kind, text.as_bytes());
        let _ = check_manifest(kind, &bytes);
        let whole = format!("{{\"schemaVersion\":2,{text}}}");
        let _ = check_manifest(kind, whole.as_bytes());
    }
}
