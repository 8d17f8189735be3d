//! Byte ranges: of downloads (RFC 9110 §14) and of upload chunks (distribution-spec, "Pushing a blob in chunks").

/// Bytes `start..end` of something, `end` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// What a `Range` header asks of a body of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// No range, several, or a unit that is not bytes: send everything (allowed by RFC 9110 §14.2).
    Whole,
    /// These bytes.
    Part(ByteRange),
    /// Outside of the body: 416.
    Unsatisfiable,
}

/// Reads a `Range` request header.
pub fn parse_range(value: &str, size: u64) -> RangeRequest {
    let Some(spec) = value.trim().strip_prefix("bytes=") else { return RangeRequest::Whole };
    let Some((first, last)) = spec.split_once('-') else { return RangeRequest::Whole };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (number(first), number(last)) {
        (Some(start), _) if start >= size => match (last.is_empty(), number(last)) {
            (false, None) => RangeRequest::Whole,
            (false, Some(last)) if last < start => RangeRequest::Whole,
            _ => RangeRequest::Unsatisfiable,
        },
        (Some(start), None) if last.is_empty() => RangeRequest::Part(ByteRange { start, end: size }),
        (Some(start), Some(last)) if last >= start => {
            RangeRequest::Part(ByteRange { start, end: last.saturating_add(1).min(size) })
        }
        (None, Some(0)) if first.is_empty() => RangeRequest::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() && size > 0 => {
            RangeRequest::Part(ByteRange { start: size.saturating_sub(suffix), end: size })
        }
        (None, Some(_)) if first.is_empty() => RangeRequest::Unsatisfiable,
        _ => RangeRequest::Whole,
    }
}

/// The `Content-Range` of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes in this body.
    pub range: ByteRange,
    /// Size of the whole, when told.
    pub size: Option<u64>,
}

/// Reads `bytes 5-9/100`.
pub fn parse_content_range(value: &str) -> Option<ContentRange> {
    let (range, size) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    if last < first {
        return None;
    }
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    Some(ContentRange { range: ByteRange { start: first, end: last.checked_add(1)? }, size })
}

/// Reads the `Content-Range` of an upload chunk, `5-9`: the bytes it says it holds. `None` when malformed.
/// `bytes=` or `bytes ` in front and `/size` behind are tolerated; some clients write them.
pub fn chunk_start(value: &str) -> Option<ByteRange> {
    let value = value.trim();
    let value = value.strip_prefix("bytes").map_or(value, |v| v.trim_start_matches(['=', ' ']));
    let value = value.split('/').next()?;
    let (first, last) = value.split_once('-')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1)?;
    // `5-4` is how some say that they send nothing; what ends further before its start is no range.
    (first <= end).then_some(ByteRange { start: first, end })
}

/// How many bytes an upload holds, from the `Range: 0-9` of its status. `0-0` means none, since every registry
/// writes that for a fresh upload; after a true first byte the next chunk is refused and the upload starts over.
pub fn upload_offset(value: &str) -> Option<u64> {
    let range = chunk_start(value)?;
    match (range.start, range.end) {
        (0, 1) => Some(0),
        (0, end) => Some(end),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: u64, end: u64) -> RangeRequest {
        RangeRequest::Part(ByteRange { start, end })
    }

    #[test]
    fn requests() {
        for (value, size, expected) in [
            ("bytes=0-9", 100, part(0, 10)),
            ("bytes=90-", 100, part(90, 100)),
            ("bytes=90-200", 100, part(90, 100)),
            ("bytes=-10", 100, part(90, 100)),
            ("bytes=-200", 100, part(0, 100)),
            ("bytes=100-", 100, RangeRequest::Unsatisfiable),
            ("bytes=-0", 100, RangeRequest::Unsatisfiable),
            ("bytes=0-", 0, RangeRequest::Unsatisfiable),
            ("bytes=9-5", 100, RangeRequest::Whole),
            ("bytes=0-1,5-6", 100, RangeRequest::Whole),
            ("items=0-1", 100, RangeRequest::Whole),
            ("bytes=a-b", 100, RangeRequest::Whole),
            ("bytes=-", 100, RangeRequest::Whole),
        ] {
            assert_eq!(parse_range(value, size), expected, "{value} of {size}");
        }
    }

    #[test]
    fn content_ranges() {
        let range = ByteRange { start: 5, end: 10 };
        assert_eq!(parse_content_range("bytes 5-9/100"), Some(ContentRange { range, size: Some(100) }));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some(ContentRange { range, size: None }));
        assert_eq!(parse_content_range("bytes */100"), None);
        assert_eq!(parse_content_range("bytes 9-5/100"), None);
        assert_eq!(chunk_start("5-9"), Some(range));
        assert_eq!(chunk_start("bytes=5-9"), Some(range));
        assert_eq!(chunk_start("5-"), None);
        assert_eq!(chunk_start("5-4"), Some(ByteRange { start: 5, end: 5 }));
        assert_eq!(chunk_start("5-3"), None);
        assert_eq!(chunk_start("18446744073709551615-0"), None);
        assert_eq!(upload_offset("0-9"), Some(10));
        assert_eq!(upload_offset("0-0"), Some(0));
        assert_eq!(upload_offset("bytes=0-9"), Some(10));
    }

    proptest::proptest! {
        #[test]
        fn parts_lie_within(value in "bytes=[0-9]{0,4}-[0-9]{0,4}", size in 0u64..2000) {
            if let RangeRequest::Part(ByteRange { start, end }) = parse_range(&value, size) {
                proptest::prop_assert!(start < end && end <= size);
            }
        }
    }
}
