//! Paging by `Link: <…>; rel="next"` (RFC 5988, as the distribution specification uses it).

/// The target of the first link with `rel="next"`, as written: mostly relative to the host.
pub fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let target = &rest[start + 1..end];
        let parameters = &rest[end + 1..];
        let stop = parameters.find('<').unwrap_or(parameters.len());
        let is_next = parameters[..stop].split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|r| r.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target);
        }
        rest = &parameters[stop..];
    }
    None
}

/// The header that points at the page after `last`.
pub fn page_link(path: &str, n: usize, last: &str) -> String {
    let last: String = url::form_urlencoded::byte_serialize(last.as_bytes()).collect();
    format!("<{path}?n={n}&last={last}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(next_link(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#), Some("/v2/a/tags/list?n=2&last=b"));
        assert_eq!(next_link(r#"<x>; rel=prev, <y,z>; title="t"; rel=next"#), Some("y,z"));
        assert_eq!(next_link(r#"<x>; rel=prev"#), None);
        assert_eq!(next_link("<x"), None);
        assert_eq!(next_link(&page_link("/v2/_catalog", 5, "a/b")), Some("/v2/_catalog?n=5&last=a%2Fb"));
    }
}
