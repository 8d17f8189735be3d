//! The paths of the protocol, from `/v2/` on. Names and tags are of a grammar that needs no escapes.

use ctk_oci::Digest;

/// `GET`, `HEAD`, `DELETE` a blob (end-2, end-10).
pub fn blob_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// `GET`, `HEAD`, `PUT`, `DELETE` a manifest by tag or digest (end-3, end-7, end-9).
pub fn manifest_path(repository: &str, target: &str) -> String {
    format!("/v2/{repository}/manifests/{target}")
}

/// `POST` an upload (end-4, end-11).
pub fn uploads_path(repository: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/")
}

/// `GET` the tags (end-8).
pub fn tags_path(repository: &str) -> String {
    format!("/v2/{repository}/tags/list")
}

/// `GET` what refers to a manifest (end-12).
pub fn referrers_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/referrers/{digest}")
}

/// The tag under which clients list what refers to a manifest where the registry does not ("Referrers Tag Schema"):
/// at most 32 characters of the algorithm and 64 of the digest.
pub fn referrers_tag(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}-{}", digest.algorithm().name(), &hex[..hex.len().min(64)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referrers_tag_fits_a_tag() {
        for (algorithm, expected) in [("sha256", 71), ("sha512", 71)] {
            let digest: Digest =
                format!("{algorithm}:{}", "0a".repeat(if algorithm == "sha256" { 32 } else { 64 })).parse().unwrap();
            let tag = referrers_tag(&digest);
            assert_eq!(tag.len(), expected);
            assert!(tag.starts_with(&format!("{algorithm}-0a0a")));
        }
    }
}
