use super::*;
use proptest::prelude::*;

fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x}")).collect()
}

fn sample() -> Message<'static> {
    Message {
        seq: StreamSeq(7),
        time: 1_700_000_000_000_000_001,
        expires: None,
        redacted: false,
        subject: b"a.b",
        headers: b"",
        body: b"hi",
    }
}

/// The bytes of format 1. If this test fails, data directories in the field can no longer be read: raise [`FORMAT`].
#[test]
fn golden_bytes_of_a_message_and_its_envelope() {
    let mut out = BytesMut::new();
    sample().encode(GroupId(3), &mut out);
    let plain = "25000000GGGGGGGG070000000000000001002a36fe9c97170000030000000000612e626869".to_owned();
    let crc = hex(&out[4..8]);
    assert_eq!(hex(&out), plain.replace("GGGGGGGG", &crc));
    assert_eq!(crc, GOLDEN_MESSAGE_CRC);
    let mut b = Batch::new();
    b.push(GroupId(3), &sample());
    let payload = b.finish(b"zz");
    assert_eq!(hex(&payload[..8]), "0100000025000000");
    let e = NewEntry {
        kind: Kind::Messages,
        index: LogIndex(9),
        term: Term(2),
        prev: Chain(0x11),
        chain: Chain(0x22),
        payload,
        digest: None,
    }
    .seal(GroupId(3))
    .expect("valid");
    assert_eq!(hex(&e.head.encode()), GOLDEN_HEAD);
    assert_eq!(&e.rest()[..], b"zz");
    assert_eq!(e.records().count(), 1);
}

const GOLDEN_MESSAGE_CRC: &str = "85548719";
const GOLDEN_HEAD: &str = "4655458001010000030000000000000009000000000000000200000000000000110000000000000022000000000000000700000000000000010000002f0000004edb06cf59b8464e";

proptest! {
    #[test]
    fn messages_come_back(
        seq in 1u64.., time in any::<i64>(), expires in any::<Option<i64>>(), redacted in any::<bool>(),
        subject in prop::collection::vec(any::<u8>(), 0..20), headers in prop::collection::vec(any::<u8>(), 0..20),
        body in prop::collection::vec(any::<u8>(), 0..50), group in any::<u64>(), flip in any::<u64>(),
    ) {
        let m = Message { seq: StreamSeq(seq), time, expires, redacted, subject: &subject, headers: &headers, body: &body };
        let mut out = BytesMut::new();
        m.encode(GroupId(group), &mut out);
        prop_assert_eq!(Message::decode(GroupId(group), &out), Some(m));
        // S-11: another group's record is not data.
        prop_assert_eq!(Message::decode(GroupId(group ^ 1), &out), None);
        // S-10: no single flipped bit goes unseen.
        let mut bad = out.to_vec();
        let bit = flip as usize % (bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Message::decode(GroupId(group), &bad), None);
    }

    #[test]
    fn heads_come_back(kind in 0u8..4, group: u64, index: u64, count: u32, length: u32, bit in 0usize..576) {
        let h = Head {
            kind: Kind::from_u8(kind).expect("0 to 3"), compacted: count & 1 == 0, group: GroupId(group),
            index: LogIndex(index), term: Term(group ^ 5), prev: Chain(index ^ 9), chain: Chain(group ^ 77),
            first: StreamSeq(index), count, length, digest: count ^ length,
        };
        let mut b = h.encode();
        prop_assert_eq!(Head::decode(&b), Some(h));
        b[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Head::decode(&b), None);
    }

    #[test]
    fn any_payload_is_survived(b in prop::collection::vec(any::<u8>(), 0..80)) {
        let e = NewEntry { kind: Kind::Messages, index: LogIndex(1), term: Term(1), prev: Chain(0), chain: Chain(1),
            payload: b.clone().into(), digest: None }.seal(GroupId(1));
        if let Ok(e) = e { prop_assert_eq!(e.records().count(), e.head.count as usize) }
        Message::decode(GroupId(1), &b);
    }
}

#[test]
fn a_batch_with_falling_sequences_is_refused() {
    let mut b = Batch::new();
    b.push(GroupId(1), &sample());
    b.push(GroupId(1), &sample());
    let new = NewEntry {
        kind: Kind::Messages,
        index: LogIndex(1),
        term: Term(1),
        prev: Chain(0),
        chain: Chain(1),
        payload: b.finish(b""),
        digest: None,
    };
    assert_eq!(new.clone().seal(GroupId(1)), Err("sequences do not rise"));
    assert_eq!(
        NewEntry { digest: Some(1), ..new }.seal(GroupId(1)),
        Err("the payload is not what its proposer made")
    );
}

/// A batch as large as the one before, or a little larger, is made in one place: it was copied once more when what follows the messages was added.
#[test]
fn a_batch_like_the_one_before_is_not_copied() {
    let mut batch = Batch::new();
    for round in 0..20u64 {
        let mut place = None;
        for i in 1..=100 + round % 4 {
            let (seq, body) = (StreamSeq(1000 * round + i), [7; 300]);
            let (subject, headers, body) = (&b"a.b"[..], &b""[..], &body[..]);
            batch.push(
                GroupId(1),
                &Message { seq, time: 1, expires: None, redacted: false, subject, headers, body },
            );
            place = place.or(Some(batch.buf.as_ptr()));
        }
        let payload = batch.finish(b"what follows");
        assert!(round == 0 || place == Some(payload.as_ptr()), "batch {round} was moved");
    }
}

/// A large record in bytes whose checksum is known is not looked at again, and what is wrong with it shows all the same.
#[test]
fn s10_s11_a_large_record_is_held_against_the_checksum_of_what_it_stands_in() {
    let group = GroupId(7);
    for size in [100, CARRIED, 100_000] {
        let body = vec![5; size];
        let mut batch = Batch::new();
        let m = Message {
            seq: StreamSeq(3),
            time: 1,
            expires: None,
            redacted: false,
            subject: b"a",
            headers: b"",
            body: &body,
        };
        batch.push(group, &m);
        let payload = batch.finish(b"more");
        let len = u32_at(&payload, PREAMBLE) as usize;
        let at = PREAMBLE..PREAMBLE + len;
        let summed = |all: &[u8]| {
            let before = checksum::crc32c(b"before");
            Summed { before, with: checksum::append(before, all) }
        };
        assert!(summed(&payload).vouches(group, &payload, &at));
        assert!(!summed(&payload).vouches(GroupId(8), &payload, &at), "another group's");
        // What was wrong before it was laid out: the checksum around it is that of what stands there.
        for flipped in [0, 4, 8, 40, len - 1] {
            let mut bad = payload.to_vec();
            bad[PREAMBLE + flipped] ^= 1;
            assert!(!summed(&bad).vouches(group, &bad, &at), "byte {flipped} of {len}");
        }
    }
}
