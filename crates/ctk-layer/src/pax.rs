//! PAX extended header records: `length key=value\n` (POSIX.1-2017 `pax`, "pax Extended Header").

/// Appends one record.
pub fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if rest + digits(length) != length {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// The records of a block, in order; `None` when it is malformed.
pub fn parse(mut block: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !block.is_empty() && block[0] != 0 {
        let space = block.iter().take(12).position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&block[..space]).ok()?.parse().ok()?;
        if length <= space + 2 || length > block.len() || block[length - 1] != b'\n' {
            return None;
        }
        let record = &block[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        block = &block[length..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn records_round_trip(key in "[a-zA-Z.]{1,120}", value in proptest::collection::vec(0u8.., 0..12000)) {
            let mut block = Vec::new();
            push(&mut block, key.as_bytes(), &value);
            push(&mut block, b"z", b"");
            let records = parse(&block).unwrap();
            proptest::prop_assert_eq!(records, vec![(key.as_bytes(), &value[..]), (&b"z"[..], &b""[..])]);
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [&b"x"[..], b"5 a=b", b"99 a=b\n", b"4 ab\n", b"0 \n", b"18446744073709551616 a=b\n"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
