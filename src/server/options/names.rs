//! Small checks of names that options hold: subjects and public keys. The broker and identity check again when they
//! use them; these exist so that a mistake is reported with its place in the file.

/// Tokens between dots, none empty or with whitespace; `*` alone in a token; `>` alone and last.
pub(crate) fn is_subject(subject: &str) -> bool {
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        if token.is_empty() || token.chars().any(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}' | '\0')) {
            return false;
        }
        if token == ">" && !last {
            return false;
        }
    }
    true
}

/// A subject without wildcards.
pub(crate) fn is_literal_subject(subject: &str) -> bool {
    is_subject(subject) && !subject.split('.').any(|t| t == "*" || t == ">")
}

/// `subject` or `subject queue`, both possibly with wildcards.
pub(crate) fn is_subject_and_queue(text: &str) -> bool {
    if text.trim() != text {
        return false;
    }
    let mut parts = text.split_whitespace();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(subject), None, _) => is_subject(subject),
        (Some(subject), Some(queue), None) => is_subject(subject) && is_subject(queue),
        _ => false,
    }
}

/// A valid public nkey whose first letter is `kind`: `U` user, `A` account, `N` server …
pub(crate) fn is_public_nkey(text: &str, kind: char) -> bool {
    text.starts_with(kind) && decode_base32(text).is_some_and(|bytes| checksum_fits(&bytes))
}

/// A public key is one prefix byte, 32 key bytes and their CRC-16, least significant byte first.
fn checksum_fits(bytes: &[u8]) -> bool {
    let Some((body, check)) = bytes.split_last_chunk::<2>() else { return false };
    body.len() == 33 && crc16(body) == u16::from_le_bytes(*check)
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, b| {
        (0..8)
            .fold(crc ^ (u16::from(*b) << 8), |c, _| if c & 0x8000 != 0 { (c << 1) ^ 0x1021 } else { c << 1 })
    })
}

fn decode_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for b in text.bytes() {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'2'..=b'7' => b - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).expect("masked to a byte"));
        }
        bits &= 0xff;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        for ok in ["a", "a.b", "*", ">", "a.*.b.>", "a>b", "$SYS.x"] {
            assert!(is_subject(ok), "{ok}");
        }
        for bad in ["", ".", "a.", "a..b", "a b", ">.a", "a.>.b"] {
            assert!(!is_subject(bad), "{bad}");
        }
        assert!(is_literal_subject("a.b") && !is_literal_subject("a.*"));
        assert!(
            is_subject_and_queue("a.> q.*") && !is_subject_and_queue("a b c") && !is_subject_and_queue("")
        );
    }

    #[test]
    fn public_nkeys() {
        let user = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
        assert!(is_public_nkey(user, 'U'));
        assert!(!is_public_nkey(user, 'A'));
        assert!(!is_public_nkey(&user.replace('X', "Y"), 'U'));
        for bad in ["U", "UABC", "", "U1", "u"] {
            assert!(!is_public_nkey(bad, 'U'), "{bad}");
        }
    }
}
