use super::*;
use crate::{
    crypt::{Cipher, Key},
    record::{Batch, NewEntry},
};
use proptest::prelude::*;

const G: GroupId = GroupId(5);

/// Entries of the given numbers of messages; every third has something after its messages, every fourth has none.
fn entries(counts: &[u8], size: usize) -> Vec<Entry> {
    let mut seq = 0;
    let mut out = Vec::new();
    for (i, n) in counts.iter().enumerate() {
        let index = i as u64 + 1;
        let mut b = Batch::new();
        for _ in 0..*n {
            seq += 1;
            let subject = format!("s.{}", seq % 7);
            let body = vec![seq as u8; size + seq as usize % 5];
            let m = Message {
                seq: StreamSeq(seq),
                time: 1000 + seq as i64,
                expires: (seq % 3 == 0).then_some(9000 - seq as i64),
                redacted: false,
                subject: subject.as_bytes(),
                headers: if seq % 2 == 0 { b"NATS/1.0\r\n\r\n" } else { b"" },
                body: &body,
            };
            b.push(G, &m);
        }
        let rest: &[u8] = if i % 3 == 0 { b"rest of it" } else { b"" };
        let (kind, payload) = if *n == 0 {
            (Kind::Control, Bytes::from_static(b"control"))
        } else {
            (Kind::Messages, b.finish(rest))
        };
        let e = NewEntry {
            kind,
            index: LogIndex(index),
            term: Term(1),
            prev: Chain(i as u64),
            chain: Chain(index),
            payload,
            digest: None,
        };
        out.push(e.seal(G).expect("valid"));
    }
    out
}

fn piece(entries: &[Entry], codec: BlockCodec<'_>, target: usize) -> Built {
    let mut b =
        Builder::new(G, FileId(1), FILE_HEADER as u64, Counting::default(), codec).block_target(target);
    entries.iter().for_each(|e| b.push(e));
    b.finish().expect("entries were added")
}

/// When all of a damaged piece is removed nothing of it stays counted.
#[test]
fn s50_messages_that_cannot_be_read_count_for_what_the_others_leave() {
    let of = |f: &SubjectFoot| f.slots.iter().map(|s| u64::from(s.size)).sum::<u64>();
    for keep in [0, 1, 7, 11, 12] {
        let Built { meta, mut subjects, .. } =
            piece(&entries(&[3, 4, 5], 40), BlockCodec::default(), 1 << 20);
        assert_eq!(of(&subjects), meta.bytes);
        subjects.slots.truncate(keep);
        let filled = subjects.filled(&meta);
        assert_eq!((filled.slots.len(), of(&filled)), (12, meta.bytes), "{keep} are known");
    }
}

#[test]
fn what_is_taken_away_while_it_is_built_and_the_rest_are_the_piece() {
    let all = entries(&(0..200).map(|i| i % 9).collect::<Vec<u8>>(), 40);
    for compress in [false, true] {
        let codec = || BlockCodec { key: None, compress };
        let whole = piece(&all, codec(), 700);
        let mut b =
            Builder::new(G, FileId(1), FILE_HEADER as u64, Counting::default(), codec()).block_target(700);
        let mut taken = Vec::new();
        for (i, e) in all.iter().enumerate() {
            b.push(e);
            if i % 5 == 0 {
                b.finished().iter().for_each(|part| taken.extend_from_slice(part));
                b.taken();
                assert_eq!(b.finished(), [b""; 2]);
            }
        }
        let rest = b.finish().expect("entries were added");
        assert!(!taken.is_empty() && rest.meta == whole.meta && rest.index == whole.index);
        assert_eq!([&taken[..], &rest.bytes].concat(), whole.bytes);
    }
}

#[test]
fn a_large_record_that_is_not_laid_out_stands_in_the_piece_as_if_it_were() {
    let sizes = [10, 40 << 10, 33 << 10, 100, 20 << 10, 64 << 10, 70 << 10, 5, 1];
    for counts in [vec![1; 9], vec![3, 2, 4], vec![9], vec![0, 4, 0, 5]] {
        let (mut all, mut seq) = (Vec::new(), 0u64);
        for (i, count) in counts.iter().enumerate() {
            let mut batch = Batch::new();
            for _ in 0..*count {
                seq += 1;
                let body = vec![seq as u8; sizes[seq as usize - 1]];
                let (subject, headers) = (&b"far"[..], &b""[..]);
                let seq = StreamSeq(seq);
                let m =
                    Message { seq, time: 1, expires: None, redacted: false, subject, headers, body: &body };
                batch.push(G, &m);
            }
            // Some are followed by what is no message.
            let (payload, digest) = batch.finish_digested(if i % 3 == 1 { b"rest" } else { b"" });
            assert_eq!(digest, checksum::crc32c(&payload));
            let (index, chain) = (LogIndex(i as u64 + 1), Chain(i as u64 + 1));
            let e = NewEntry {
                kind: Kind::Messages,
                index,
                term: Term(1),
                prev: Chain(i as u64),
                chain,
                payload,
                digest: Some(digest),
            };
            all.push(e.seal(G).expect("valid"));
        }
        let new = || {
            let codec = BlockCodec::default();
            Builder::new(G, FileId(1), FILE_HEADER as u64, Counting::default(), codec).block_target(700)
        };
        // Laid out, since nobody takes anything away on the way.
        let mut whole = new();
        all.iter().for_each(|e| whole.push(e));
        let whole = whole.finish().expect("entries were added");
        let (mut b, mut taken, mut far) = (new(), Vec::new(), 0);
        for e in &all {
            let mut part = b.open(e);
            let mut more = true;
            while more {
                more = b.go_on(e, &mut part, 1000);
                let [laid, record] = b.finished();
                far += usize::from(!record.is_empty());
                taken.extend_from_slice(laid);
                taken.extend_from_slice(record);
                b.taken();
            }
        }
        let rest = b.finish().expect("entries were added");
        assert!(far >= 3, "{far} records stayed where they are");
        assert!(rest.meta == whole.meta && rest.index == whole.index);
        assert_eq!([&taken[..], &rest.bytes].concat(), whole.bytes);
        for b in blocks(&whole, None) {
            assert!(b.sure, "its checksum is that of its bytes");
        }
        let records: Vec<usize> = all.iter().flat_map(|e| e.records().flatten().map(<[u8]>::len)).collect();
        assert_eq!(records.len(), 9);
    }
}

fn blocks(p: &Built, key: Option<&FileKey>) -> Vec<Block> {
    let ends = p.index.blocks.iter().skip(1).map(|l| l.off).chain([p.meta.data]);
    p.index
        .blocks
        .iter()
        .zip(ends)
        .map(|(l, end)| {
            let b = p.bytes.slice(l.off as usize..end as usize);
            Block::read(key, p.meta.file, p.meta.off + u64::from(l.off), &b).expect("not damaged")
        })
        .collect()
}

proptest! {
    #[test]
    fn pieces_come_back_entry_by_entry_and_message_by_message(
        counts in prop::collection::vec(0u8..9, 1..20), size in 0usize..200, target in 100usize..2000,
        compress: bool, sealed: bool,
    ) {
        let key = sealed.then(|| Key::new(Cipher::Aes, b"k").for_file(&[3; 16]));
        let all = entries(&counts, size);
        let p = piece(&all, BlockCodec { key: key.as_ref(), compress }, target);
        let blocks = blocks(&p, key.as_ref());
        let (mut joiner, mut back) = (Joiner::default(), Vec::new());
        for b in &blocks {
            prop_assert!(joiner.push(b, |e| back.push(e.expect("not damaged"))));
        }
        prop_assert!(joiner.cut().is_none());
        prop_assert_eq!(&back, &all);
        // Every message is in the block that the sparse index says.
        for seq in 1..=counts.iter().map(|c| u64::from(*c)).sum::<u64>() {
            let rel = (seq - p.meta.first_seq.0) as u32;
            let i = p.index.blocks.partition_point(|l| l.seq <= rel) - 1;
            let r = blocks[i].whole(G, StreamSeq(seq));
            prop_assert!(r.is_some(), "message {} is not in block {} of {:?}", seq, i, p.index.blocks);
            prop_assert_eq!(Message::decode(G, &r.expect("seen")).map(|m| m.seq.0), Some(seq));
        }
        // Footers come back, and equal a rebuild (S-40).
        let a = p.meta.data as usize;
        let b = a + p.meta.index_foot as usize;
        prop_assert_eq!(read_index_foot(&p.meta, key.as_ref(), &p.bytes[a..b]), Some(p.index.clone()));
        prop_assert_eq!(read_subject_foot(&p.meta, key.as_ref(), &p.bytes[b..]), Some(p.subjects.clone()));
        let records: Vec<Bytes> = blocks.iter().flat_map(|b| b.records().map(|r| b.raw.slice_ref(r))).collect();
        prop_assert_eq!(&rebuild(&p.meta, Counting::default(), records.iter()), &p.subjects);
        let again = rebuild_index(&p.meta, key.as_ref(), &p.bytes.slice(..a)).expect("not damaged");
        let parts = |f: &IndexFoot| (f.blocks.clone(), f.ttl.clone(), f.terms.clone());
        prop_assert_eq!(parts(&again), parts(&p.index));
        // A footer that misses messages of a piece without gaps still has a place for each.
        if p.meta.msgs > 0 {
            let some = rebuild(&p.meta, Counting::default(), records.iter().skip(1)).filled(&p.meta);
            prop_assert_eq!(some.slots.len(), p.meta.msgs as usize);
            prop_assert_eq!(some.subject(some.slots[0].subject), b"");
            let text = |f: &SubjectFoot| f.slots[1..].iter().map(|s| f.subject(s.subject).to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(text(&some), text(&p.subjects));
        }
        for i in 0..p.subjects.subjects() as u32 {
            prop_assert!(p.index.filter.may_hold(p.subjects.subject(i)));
            prop_assert_eq!(p.subjects.find(p.subjects.subject(i)), Some(i));
            prop_assert!(p.subjects.slots_of(i).iter().all(|s| p.subjects.slots[*s as usize].subject == i));
        }
        let mut m = Vec::new();
        p.meta.put(&mut m);
        prop_assert_eq!(PieceMeta::get(&mut Get(&m)), Some(p.meta));
    }

    #[test]
    fn s40_a_rebuilt_index_finds_each_entry_behind_damaged_blocks(
        counts in prop::collection::vec(0u8..20, 1..12), target in 100usize..600, damaged in prop::collection::btree_set(0usize..40, 1..4),
    ) {
        let p = piece(&entries(&counts, 60), BlockCodec::default(), target);
        let mut bytes = p.bytes[..p.meta.data as usize].to_vec();
        for n in damaged {
            let line = &p.index.blocks[n % p.index.blocks.len()];
            bytes[line.off as usize + BLOCK_HEADER] ^= 1;
        }
        let Some(again) = rebuild_index(&p.meta, None, &bytes.into()) else { return Ok(()) };
        let mut begins = Vec::new();
        for (b, l) in blocks(&p, None).iter().zip(&p.index.blocks) {
            begins.extend(b.parts().filter_map(|part| if let Part::Head(h) = part { Some((h.index, l.off)) } else { None }));
        }
        prop_assert_eq!(begins.len(), counts.len());
        for (index, off) in begins {
            for f in [&p.index, &again] {
                prop_assert!(f.blocks[f.block_with(&p.meta, index)].off <= off, "entry {} begins at {off}: {:?}", index.0, f.blocks);
            }
        }
    }

    #[test]
    fn live_messages_are_kept_and_the_rest_is_gone(counts in prop::collection::vec(0u8..6, 1..12), mask: u64) {
        let all = entries(&counts, 20);
        let keep = |s: StreamSeq| mask >> (s.0 % 64) & 1 == 1;
        let mut b = Builder::new(G, FileId(1), 0, Counting::default(), BlockCodec::default()).block_target(300);
        all.iter().for_each(|e| b.push_live(e, keep));
        let p = b.finish().expect("covers entries");
        let total = counts.iter().map(|c| u64::from(*c)).sum::<u64>();
        let want: Vec<u64> = (1..=total).filter(|s| keep(StreamSeq(*s))).collect();
        let got: Vec<u64> = p.subjects.slots.iter().map(|s| u64::from(s.seq) + p.meta.first_seq.0).collect();
        prop_assert_eq!(got, want);
        prop_assert_eq!((p.meta.first_index.0, p.meta.last_index.0), (1, counts.len() as u64));
        let (mut joiner, mut n) = (Joiner::default(), 0);
        for b in blocks(&p, None) {
            prop_assert!(joiner.push(&b, |e| n += e.expect("whole").head.count));
        }
        prop_assert_eq!(n, p.meta.msgs);
    }

    #[test]
    fn damage_never_yields_another_message(at: u16, bit in 0u8..8) {
        let all = entries(&[3, 2, 0, 4], 30);
        let p = piece(&all, BlockCodec::default(), 300);
        let mut bad = p.bytes.to_vec();
        let at = at as usize % p.meta.data as usize;
        bad[at] ^= 1 << bit;
        let bad = Bytes::from(bad);
        let ends = p.index.blocks.iter().skip(1).map(|l| l.off).chain([p.meta.data]);
        for (l, end) in p.index.blocks.iter().zip(ends) {
            let Some(b) = Block::read(None, p.meta.file, p.meta.off + u64::from(l.off), &bad.slice(l.off as usize..end as usize)) else { continue };
            for part in b.parts() {
                if let Part::Record(r) = part && let Some(m) = Message::decode(G, &r) {
                    prop_assert!(m.body.iter().all(|x| *x == m.seq.0 as u8));
                }
            }
        }
        // A footer with a flipped bit is not a footer.
        let foot = p.meta.data as usize..(p.meta.data + p.meta.index_foot) as usize;
        let mut bad = p.bytes[foot].to_vec();
        let at = at % bad.len();
        bad[at] ^= 1 << bit;
        prop_assert_eq!(read_index_foot(&p.meta, None, &bad), None);
    }

    #[test]
    fn any_footer_is_survived(b in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(IndexFoot::decode(&b).is_none());
        let mut framed = Vec::new();
        framed.u32(FOOT_MAGIC);
        framed.u8(FORMAT);
        framed.extend_from_slice(&b);
        SubjectFoot::decode(&framed);
        IndexFoot::decode(&framed);
    }
}

#[test]
fn prefixes_seek() {
    let p = piece(&entries(&[9, 9], 1), BlockCodec::default(), 300);
    assert_eq!(p.subjects.with_prefix(b"s."), 0..7);
    assert_eq!(p.subjects.with_prefix(b"s.3"), 3..4);
    assert_eq!(p.subjects.with_prefix(b"t").len(), 0);
    assert!(!Filter::default().may_hold(b"x"));
}
