use proptest::prelude::*;

use super::*;

fn put(out: &mut Vec<u8>, p: &Piece<'_>) {
    out.extend_from_slice(&header(p));
    out.extend_from_slice(p.body);
}

/// All frames of a stream that comes in pieces which end at `cuts`.
fn frames(stream: &[u8], cuts: &[usize]) -> Result<Vec<(u8, u8, Vec<u8>)>, Error> {
    let (mut joiner, mut buf, mut out) = (Joiner::new(1 << 20), Vec::new(), Vec::new());
    let mut from = 0;
    for to in cuts.iter().copied().chain([stream.len()]) {
        buf.extend_from_slice(&stream[from.min(to)..to]);
        from = from.max(to);
        let mut at = 0;
        while let Parsed::Piece(p, used) = parse(&buf[at..])? {
            if let Some(body) = joiner.push(&p)? {
                out.push((p.lane, p.kind, body.to_vec()));
            }
            at += used;
        }
        buf.drain(..at);
    }
    Ok(out)
}

#[test]
fn the_layout_of_version_1() {
    let mut out = Vec::new();
    put(&mut out, &Piece { lane: 2, kind: 7, more: true, body: b"abc" });
    assert_eq!(out[..8], [2, 7, 1, 0, 3, 0, 0, 0]);
    let sum = checksum::crc32c(&[2, 7, 1, 0, 3, 0, 0, 0, b'a', b'b', b'c']);
    assert_eq!(out[8..12], sum.to_le_bytes());
    assert_eq!(&out[12..], b"abc");
    let hello = Hello { version: 1, version_min: 1, node: hex(255), user: "u".into(), ..Hello::default() };
    let mut line = Vec::new();
    hello.push(&mut line);
    let text = String::from_utf8(line).unwrap();
    assert!(
        text.starts_with("PEER {\"version\":1,\"version_min\":1,\"node\":\"00000000000000ff\","),
        "{text}"
    );
    assert!(text.ends_with("\"user\":\"u\"}\r\n"), "{text}");
    assert_eq!(Hello::parse(text[5..].trim_end().as_bytes()).unwrap(), hello);
    assert!(!format!("{hello:?}").contains("user"), "secrets stay out of logs");
}

#[test]
fn lanes_do_not_mix() {
    let mut out = Vec::new();
    put(&mut out, &Piece { lane: 4, kind: 1, more: true, body: b"bulk " });
    put(&mut out, &Piece { lane: 1, kind: 2, more: false, body: b"vote" });
    put(&mut out, &Piece { lane: 4, kind: 1, more: false, body: b"ends" });
    let all = frames(&out, &[]).unwrap();
    assert_eq!(all, [(1, 2, b"vote".to_vec()), (4, 1, b"bulk ends".to_vec())]);
}

#[test]
fn what_is_wrong_is_refused() {
    let good = Piece { lane: 1, kind: 1, more: true, body: b"abc" };
    let mut out = Vec::new();
    put(&mut out, &good);
    for at in 0..out.len() {
        let mut bad = out.clone();
        bad[at] ^= 0x80;
        assert!(parse(&bad).is_err() || at == 4, "a flipped bit at {at} is seen");
    }
    // A length that is too small or too large by a bit is seen when all is there.
    let mut bad = out.clone();
    bad[4] ^= 1;
    assert_eq!(parse(&bad), Err(Error::Checksum));
    out[5] ^= 0x80;
    assert_eq!(parse(&out), Err(Error::Length(3 + (0x80 << 8))));
    let mut joiner = Joiner::new(8);
    assert_eq!(joiner.push(&good), Ok(None));
    assert_eq!(joiner.push(&Piece { kind: 2, ..good }), Err(Error::Order));
    assert_eq!(joiner.push(&good), Ok(None));
    assert_eq!((joiner.held(), joiner.push(&good)), (6, Err(Error::TooLong)));
}

#[test]
fn versions_meet_where_both_are() {
    let of = |version, version_min| Hello { version, version_min, ..Hello::default() }.agree();
    assert_eq!((of(1, 1), of(9, 1)), (Some(1), Some(1)));
    assert_eq!((of(9, 2), of(0, 0)), (None, None));
    for bad in ["", "1", "00000000000000FF", "+000000000000001", "g000000000000000", "00000000000000000"] {
        assert_eq!(unhex(bad), None, "{bad}");
    }
    assert_eq!(unhex(&hex(u64::MAX)), Some(u64::MAX));
}

proptest! {
    #[test]
    fn w1_any_split_gives_the_same(
        pieces in proptest::collection::vec((0u8..5, 0u8..3, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
        mut cuts in proptest::collection::vec(0usize..600, 0..12),
    ) {
        let mut out = Vec::new();
        for (lane, kind, body) in &pieces {
            put(&mut out, &Piece { lane: *lane, kind: *kind, more: false, body });
        }
        cuts.iter_mut().for_each(|c| *c = (*c).min(out.len()));
        cuts.sort_unstable();
        let whole = frames(&out, &[]).unwrap();
        prop_assert_eq!(whole.len(), pieces.len());
        prop_assert_eq!(frames(&out, &cuts).unwrap(), whole);
    }

    #[test]
    fn w2_no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        frames(&bytes, &[]).ok();
        Hello::parse(&bytes).ok();
    }
}
