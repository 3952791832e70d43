use super::*;
use crate::{
    crypt::{Cipher, Key},
    record::{Batch, Kind, Message, NewEntry},
    types::{Chain, Term},
};

const SECTOR: u64 = 512;

fn entry(group: u64, index: u64, size: usize) -> Entry {
    let mut b = Batch::new();
    let body = vec![index as u8; size];
    let m = Message {
        seq: StreamSeq(index),
        time: 5,
        expires: None,
        redacted: false,
        subject: b"s",
        headers: b"",
        body: &body,
    };
    b.push(GroupId(group), &m);
    NewEntry {
        kind: Kind::Messages,
        index: LogIndex(index),
        term: Term(1),
        prev: Chain(index - 1),
        chain: Chain(index),
        payload: b.finish(b""),
        digest: None,
    }
    .seal(GroupId(group))
    .expect("valid")
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::control(FrameKind::Create, GroupId(1), LogIndex(0), Bytes::from_static(b"opts")),
        Frame::entry(&entry(1, 1, 10), true),
        Frame::entry(&entry(2, 9, 20_000), true),
        Frame::control(FrameKind::HardState, GroupId(2), LogIndex(0), Bytes::from_static(b"vote")),
    ]
}

/// A file of rounds `first..first + n`, each of [`frames`].
fn file(epoch: u64, n: u64, key: Option<&FileKey>) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let head = FileHead {
        shard: 4,
        epoch: Epoch(epoch),
        first: Round(1),
        salt: [0; 16],
        key: 0,
        len: 0,
        refers: false,
        loose: false,
        behind_cut: false,
    };
    let (mut out, mut at) = (head.encode(SECTOR).to_vec(), Vec::new());
    for r in 1..=n {
        let head = RoundHead {
            shard: 4,
            epoch: Epoch(epoch),
            round: Round(r),
            synced: Round(r - 1),
            off: out.len() as u64,
            total: 0,
        };
        let built = build(head, &frames(), SECTOR, key);
        let start = out.len();
        built.bufs.iter().for_each(|b| out.extend_from_slice(b));
        assert_eq!((out.len() - start) as u64, built.total);
        assert!(built.total <= frames().iter().map(Frame::cost).sum::<u64>() + round_overhead(SECTOR));
        at.push(start..out.len());
    }
    (out, at)
}

fn scan_of(b: &[u8], epoch: u64, key: Option<&FileKey>) -> Vec<Scanned> {
    scan(&Bytes::copy_from_slice(b), 4, Epoch(epoch), SECTOR, key)
}

#[test]
fn rounds_come_back_plain_and_sealed() {
    let key = Key::new(Cipher::ChaCha, b"k").for_file(&[0; 16]);
    for key in [None, Some(&key)] {
        let (b, _) = file(7, 3, key);
        let all = scan_of(&b, 7, key);
        assert_eq!(all.len(), 3);
        for (i, s) in all.iter().enumerate() {
            assert!(s.whole());
            assert_eq!((s.head.round.0, s.head.synced.0), (i as u64 + 1, i as u64));
            assert_eq!(s.found.len(), 4);
            assert_eq!(s.found[1], Found::Entry(entry(1, 1, 10)));
            assert!(matches!(&s.found[3], Found::Control(l, p) if l.group.0 == 2 && &p[..] == b"vote"));
        }
    }
    let head = FileHead {
        shard: 1,
        epoch: Epoch(2),
        first: Round(3),
        salt: [9; 16],
        key: 8,
        len: 4 << 20,
        refers: false,
        loose: true,
        behind_cut: false,
    };
    for refers in [false, true] {
        let head = FileHead { refers, behind_cut: refers, ..head };
        assert_eq!(FileHead::decode(&head.encode(SECTOR)), Some(head));
    }
}

#[test]
fn s20_an_older_epoch_or_another_place_is_not_valid() {
    let (b, at) = file(7, 2, None);
    assert!(scan_of(&b, 8, None).is_empty());
    // The second round, copied over the first's place.
    let mut moved = b.clone();
    moved[at[0].clone()].copy_from_slice(&b[at[1].clone()]);
    let all = scan_of(&moved, 7, None);
    assert_eq!(all.iter().map(|s| s.head.off).collect::<Vec<_>>(), [at[1].start as u64]);
}

#[test]
fn s21_a_bad_sector_is_named_and_the_rest_is_read() {
    let (b, at) = file(7, 3, None);
    for sector in (at[1].start..at[1].end).step_by(SECTOR as usize) {
        let mut bad = b.clone();
        bad[sector..sector + SECTOR as usize].fill(0xee);
        let all = scan_of(&bad, 7, None);
        assert_eq!(all.iter().map(|s| s.head.round.0).collect::<Vec<_>>(), [1, 2, 3], "sector {sector}");
        assert!(all[0].whole() && all[2].whole());
        assert_eq!(all[1].found.len(), 4, "every frame is named");
        assert!(!all[1].whole(), "sector {sector}");
        let bad_frames = all[1].found.iter().filter(|f| matches!(f, Found::Bad(..))).count();
        assert!(bad_frames <= 3, "one sector takes neighbours only");
    }
}

#[test]
fn any_bytes_are_survived_and_any_cut_ends_the_list() {
    let (b, at) = file(7, 2, None);
    for cut in (0..b.len()).step_by(97) {
        let all = scan_of(&b[..cut], 7, None);
        assert_eq!(all.iter().filter(|s| s.whole()).count(), at.iter().filter(|r| r.end <= cut).count());
    }
    let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert!(scan_of(&noise, 7, None).is_empty());
}
