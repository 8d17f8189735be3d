//! The names of a client's certificate: what a grant `cert:NAME` is compared with. The certificate was verified before;
//! here its subject's common names and its alternative names (RFC 5280, 4.1.2.6 and 4.2.1.6) are found in its DER.

use crate::CERTIFICATE_NAMES_LIMIT;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// `rfc822Name`, `dNSName`, `uniformResourceIdentifier`.
const TEXT_NAMES: [u8; 3] = [0x81, 0x82, 0x86];
/// UTF8String, PrintableString, IA5String.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// One value and what follows it.
struct Value<'a> {
    tag: u8,
    body: &'a [u8],
}

/// Takes the next value off `bytes`.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (body, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(Value { tag, body })
}

fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(bytes).filter(|value| value.tag == tag).map(|value| value.body)
}

/// The common names and the textual alternative names of a certificate in DER, in this order, each once. Names with
/// characters that are not printable ASCII are left out: nobody could tell them apart.
pub(crate) fn names(certificate: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    // What cannot be read has no more names.
    let _ = collect(certificate, &mut found);
    let mut names: Vec<String> = Vec::new();
    for name in found {
        let text =
            std::str::from_utf8(name).ok().filter(|text| text.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        if let Some(text) = text.filter(|text| !text.is_empty() && !names.iter().any(|known| known == text))
            && names.len() < CERTIFICATE_NAMES_LIMIT
        {
            names.push(text.to_owned());
        }
    }
    names
}

fn collect<'a>(mut certificate: &'a [u8], found: &mut Vec<&'a [u8]>) -> Option<()> {
    let mut whole = expect(&mut certificate, SEQUENCE)?;
    let mut body = expect(&mut whole, SEQUENCE)?;
    // Version (which may be left out), serial number, algorithm, issuer, validity.
    if body.first() == Some(&0xa0) {
        next(&mut body)?;
    }
    for _ in 0..4 {
        next(&mut body)?;
    }
    let mut subject = expect(&mut body, SEQUENCE)?;
    while let Some(mut set) = expect(&mut subject, SET) {
        while let Some(mut attribute) = expect(&mut set, SEQUENCE) {
            let kind = expect(&mut attribute, OID)?;
            let value = next(&mut attribute)?;
            if kind == COMMON_NAME && TEXTS.contains(&value.tag) {
                found.push(value.body);
            }
        }
    }
    // The public key, unique identifiers, and at last the extensions.
    while let Some(part) = next(&mut body) {
        if part.tag != 0xa3 {
            continue;
        }
        let mut inner = part.body;
        let mut extensions = expect(&mut inner, SEQUENCE)?;
        while let Some(mut extension) = expect(&mut extensions, SEQUENCE) {
            let kind = expect(&mut extension, OID)?;
            if extension.first() == Some(&BOOLEAN) {
                next(&mut extension)?;
            }
            let mut value = expect(&mut extension, OCTETS)?;
            if kind != ALTERNATIVE_NAMES {
                continue;
            }
            let mut names = expect(&mut value, SEQUENCE)?;
            while let Some(name) = next(&mut names) {
                if TEXT_NAMES.contains(&name.tag) {
                    found.push(name.body);
                }
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_certificates_have_no_names() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80\x00\x00", b"\x30\x03\x30\x01\x02"] {
            assert_eq!(names(bytes), Vec::<String>::new(), "{bytes:?}");
        }
    }
}
