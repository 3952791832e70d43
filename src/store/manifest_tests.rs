use super::*;

fn sample(generation: u64) -> Manifest {
    Manifest {
        shard: 1,
        generation,
        replay_from: Round(7),
        synced: Round(9),
        epoch: Epoch(3),
        next_file: FileId(12),
        groups: vec![GroupRecord {
            id: GroupId(5),
            options: Bytes::from_static(b"o"),
            hard: Bytes::from_static(b"vote"),
            hard_valid: true,
            flushed: LogIndex(10),
            flushed_term: Term(2),
            flushed_chain: Chain(99),
            checkpoint: Checkpoint {
                index: LogIndex(8),
                term: Term(2),
                chain: Chain(77),
                totals: Totals {
                    first: StreamSeq(1),
                    last: StreamSeq(6),
                    msgs: 5,
                    bytes: 500,
                    last_time: -3,
                },
                blob: Bytes::from_static(b"consumers"),
            },
            floor_seq: StreamSeq(0),
            floor_index: LogIndex(0),
            pieces: vec![],
            lost: vec![Lost {
                first: LogIndex(3),
                last: LogIndex(4),
                first_seq: StreamSeq(2),
                last_seq: StreamSeq(2),
                sure: true,
            }],
        }],
        tombs: vec![(GroupId(2), Round(6))],
        garbage: vec![FileId(4)],
        eras: Eras::default(),
        ring: vec![],
        key: 0,
    }
}

#[test]
fn s70_the_truth_table_of_the_slots() {
    let v = |g| Slot::Valid(Box::new(sample(g)));
    let used = |c| match c {
        Choice::Use(m, again) => (m.generation, again),
        other => panic!("{other:?}"),
    };
    assert_eq!(choose(Slot::Absent, Slot::Absent), Choice::Fresh);
    assert_eq!(choose(Slot::Damaged, Slot::Absent), Choice::Fresh);
    assert_eq!(used(choose(v(2), v(2))), (2, false));
    assert_eq!(used(choose(v(3), v(2))), (3, true));
    assert_eq!(used(choose(v(2), v(3))), (3, true));
    assert_eq!(used(choose(v(2), Slot::Damaged)), (2, true));
    assert_eq!(used(choose(v(2), Slot::Absent)), (2, true));
    assert_eq!(used(choose(Slot::Damaged, v(2))), (2, true));
    assert_eq!(used(choose(Slot::Absent, v(2))), (2, true));
    assert_eq!(choose(Slot::Damaged, Slot::Damaged), Choice::BothDamaged);
    assert_eq!(choose(Slot::Absent, Slot::Damaged), Choice::BothDamaged);
    assert_eq!(choose(v(1), Slot::Foreign(9)), Choice::Foreign(9));
    let s = |key, generation| Slot::Sealed { key, generation };
    assert_eq!(used(choose(v(3), s(7, 2))), (3, true));
    assert_eq!(choose(v(2), s(7, 2)), Choice::Sealed(7));
    assert_eq!(choose(s(7, 3), v(2)), Choice::Sealed(7));
    assert_eq!(choose(s(7, 3), s(8, 2)), Choice::Sealed(7));
    assert_eq!(choose(s(7, 2), s(8, 3)), Choice::Sealed(8));
    assert_eq!(choose(s(7, 2), Slot::Damaged), Choice::Sealed(7));
    assert_eq!(choose(Slot::Absent, s(7, 2)), Choice::Sealed(7));
}

#[test]
fn slots_come_back_and_no_flipped_bit_or_cut_goes_unseen() {
    let m = sample(4);
    let none = Keys::default();
    let b = m.encode(512, None);
    assert_eq!(b.len() % 512, 0);
    assert_eq!(Manifest::decode(&b, &none), Slot::Valid(Box::new(m.clone())));
    let used = SLOT_HEADER + u64_at(&b, 24) as usize;
    for bit in 0..used * 8 {
        let mut bad = b.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(Manifest::decode(&bad, &none), Slot::Valid(_)), "bit {bit}");
    }
    for cut in 1..used {
        assert_eq!(Manifest::decode(&b[..cut], &none), Slot::Damaged, "cut {cut}");
    }
    assert_eq!(Manifest::decode(&[], &none), Slot::Absent);
    let mut newer = b.clone();
    newer[4] = 9;
    let crc = checksum::crc32c(&newer[..SLOT_HEADER - 4]);
    newer[SLOT_HEADER - 4..SLOT_HEADER].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Manifest::decode(&newer, &none), Slot::Foreign(9));
}

#[test]
fn s31_a_sealed_slot_opens_with_its_key_only() {
    let key = |s: &str| Key::new(crate::Cipher::ChaCha, s.as_bytes());
    let (new, old) = (key("new"), key("old"));
    let mut m = sample(4);
    m.eras.begin(FileId(3), old.id());
    m.ring = vec![old.clone()];
    m.key = new.id();
    let b = m.encode(512, Some((&new, [5; SALT])));
    assert!(!b.windows(9).any(|w| w == b"consumers"));
    let keys = Keys(vec![new.clone()]);
    assert_eq!(Manifest::decode(&b, &keys), Slot::Valid(Box::new(m)));
    let sealed = Slot::Sealed { key: new.id(), generation: 4 };
    assert_eq!(Manifest::decode(&b, &Keys::default()), sealed);
    assert_eq!(Manifest::decode(&b, &Keys(vec![old])), sealed);
    let used = SLOT_HEADER + u64_at(&b, 24) as usize;
    for bit in 0..used * 8 {
        let mut bad = b.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Manifest::decode(&bad, &keys), Slot::Damaged, "bit {bit}");
        // Also where every checksum was made anew: the names in the header are sealed with the body.
        let crc = checksum::crc32c(&bad[SLOT_HEADER..used]);
        bad[12..16].copy_from_slice(&crc.to_le_bytes());
        let crc = checksum::crc32c(&bad[..SLOT_HEADER - 4]);
        bad[SLOT_HEADER - 4..SLOT_HEADER].copy_from_slice(&crc.to_le_bytes());
        let hit = matches!(bit / 8, 8..12 | 16..24) || bit / 8 >= SLOT_HEADER;
        assert!(!hit || Manifest::decode(&bad, &keys) == Slot::Damaged, "bit {bit}");
    }
}
