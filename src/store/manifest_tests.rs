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
}

#[test]
fn slots_come_back_and_no_flipped_bit_or_cut_goes_unseen() {
    let m = sample(4);
    let b = m.encode(512);
    assert_eq!(b.len() % 512, 0);
    assert_eq!(Manifest::decode(&b), Slot::Valid(Box::new(m.clone())));
    let used = SLOT_HEADER + u64_at(&b, 24) as usize;
    for bit in 0..used * 8 {
        let mut bad = b.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(Manifest::decode(&bad), Slot::Valid(_)), "bit {bit}");
    }
    for cut in 1..used {
        assert_eq!(Manifest::decode(&b[..cut]), Slot::Damaged, "cut {cut}");
    }
    assert_eq!(Manifest::decode(&[]), Slot::Absent);
    let mut newer = b.clone();
    newer[4] = 9;
    let crc = crc32c::crc32c(&newer[..SLOT_HEADER - 4]);
    newer[SLOT_HEADER - 4..SLOT_HEADER].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Manifest::decode(&newer), Slot::Foreign(9));
}
