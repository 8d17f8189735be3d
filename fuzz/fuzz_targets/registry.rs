//! What a registry server reads of its clients: manifests, ranges, scopes, references, paths.
#![no_main]

use ctk_distribution::{Query, RangeRequest, Route, Scope, chunk_start, parse_content_range, parse_range};
use ctk_oci::{Reference, media_type};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for kind in [media_type::MANIFEST, media_type::INDEX, media_type::DOCKER_MANIFEST] {
        let _ = ctk_registry::check_manifest(kind, bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for size in [0, 1, 1000, u64::MAX] {
        if let RangeRequest::Part(range) = parse_range(text, size) {
            assert!(range.start < range.end && range.end <= size);
        }
    }
    if let Some(range) = chunk_start(text) {
        assert!(range.start <= range.end);
    }
    let _ = parse_content_range(text);
    if let Ok(scopes) = Scope::parse_list([text]) {
        for scope in scopes {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
    }
    let _ = (Route::parse(text), Query::parse(text));
});
