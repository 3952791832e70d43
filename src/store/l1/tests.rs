use super::*;
use crate::Mutant;

fn must_hold(plan: &Plan) -> Outcome {
    match run(plan) {
        Ok(o) => o,
        Err(e) => {
            let (small, why) = shrink(plan);
            panic!("{e}\nshrunk: {why}\n{small:?}");
        }
    }
}

/// Crashes before and after every single disk operation of small plans.
#[test]
fn a_crash_at_every_disk_operation() {
    let (mut runs, mut total) = (0, Outcome::default());
    for seed in 0..2 {
        let mut plan = Plan::random(seed, 16, Class::Crash);
        plan.crashes.clear();
        let n = must_hold(&plan).disk_ops;
        for op in 0..n {
            for after in [false, true] {
                plan.crashes = vec![(op, after)];
                let o = must_hold(&plan);
                runs += 1;
                total.acked += o.acked;
                total.flushes += o.flushes;
            }
        }
    }
    assert!(runs > 200 && total.acked > 200 && total.flushes > 80, "{runs} runs: {total:?}");
}

/// The disk is full from each single step on, and has room again two steps later.
#[test]
fn a_full_disk_at_every_step() {
    let mut total = Outcome::default();
    for seed in 0..3 {
        let mut plan = Plan::random(seed, 40, Class::Errors);
        plan.crashes.clear();
        plan.ops.retain(|op| !matches!(op, Op::Fill | Op::Free));
        for at in 0..plan.ops.len() {
            let mut full = plan.clone();
            full.ops.insert((at + 2).min(full.ops.len()), Op::Free);
            full.ops.insert(at, Op::Fill);
            let o = must_hold(&full);
            total.acked += o.acked;
            total.flushes += o.flushes;
        }
    }
    assert!(total.acked > 500 && total.flushes > 500, "{total:?}");
}

#[test]
fn random_plans() {
    let mut total = Outcome::default();
    for seed in 0..150 {
        let class = [Class::Crash, Class::Errors, Class::Reads, Class::Rot, Class::Lies][seed as usize % 5];
        let o = must_hold(&Plan::random(seed, 60, class));
        total.acked += o.acked;
        total.restarts += o.restarts;
        total.damaged += o.damaged;
        total.refused += o.refused;
        total.flushes += o.flushes;
    }
    assert!(total.acked > 800 && total.restarts > 300 && total.flushes > 300, "{total:?}");
}

/// Every planted bug is found, by the first plan that does (`scripts/sim-store --mutants` finds new ones if plans change).
#[test]
fn planted_bugs_are_found() {
    for (mutant, seed) in [
        (Mutant::ReplyBeforeSync, 0),
        (Mutant::NoDirectorySync, 0),
        (Mutant::TruncateOnDamage, 509),
        (Mutant::StaleRecycledRound, 1283),
        (Mutant::IndexNotRebuilt, 52),
        (Mutant::FreeBeforeManifest, 80),
        (Mutant::NoSegmentSync, 0),
        (Mutant::NoPadding, 0),
        (Mutant::KeysForgotten, 7),
        (Mutant::UnsyncedVouched, 460),
        (Mutant::ReferenceUnsynced, 11),
        (Mutant::ReferenceRemoved, 11),
    ] {
        let plan = Plan::mixed(seed, 60);
        must_hold(&plan);
        let planted = Plan { mutant: Some(mutant), ..plan };
        assert!(run(&planted).is_err(), "{mutant:?} is not found by plan {seed}");
    }
}

#[test]
fn a_piece_that_is_rewritten_while_it_is_read() {
    must_hold(&Plan::mixed(213_492, 60));
}

/// A dead piece between two that were merged left its deletions in the new one, so that the message behind was passed over.
#[test]
fn a_dead_piece_leaves_nothing_in_its_merged_neighbours() {
    let group = 2;
    let append = |msgs, size| Op::Append { group, msgs, size };
    let apply = |n| Op::Apply { group, n };
    let ops = vec![
        append(1, 10),
        Op::Step,
        append(1, 100),
        apply(4),
        Op::Flush,
        Op::Step,
        Op::Flush,
        append(1, 0),
        Op::Step,
        apply(5),
        append(3, 100),
        Op::Flush,
        Op::Delete { group, pick: 30_541 },
        Op::Step,
        apply(1),
        Op::Flush,
        Op::Checkpoint { group },
        Op::Flush,
    ];
    must_hold(&Plan { seed: 2_062_249, class: Class::Crash, mutant: None, ops, crashes: vec![] });
}

/// A process that died between making a directory and syncing its name left one that the next life took for durable.
#[test]
fn s82_a_directory_that_is_merely_there_is_made_durable() {
    let ops = vec![Op::Flush, Op::Step, Op::Flush];
    must_hold(&Plan { seed: 81, class: Class::Errors, mutant: None, ops, crashes: vec![] });
}

/// The header of a recycled journal file was lost by a sync that said Ok: all that was written behind it went unseen.
#[test]
fn s80_a_header_that_was_never_replaced_hides_no_rounds() {
    let append = |group, msgs, size| Op::Append { group, msgs, size };
    let (step, flush) = (Op::Step, Op::Flush);
    let ops = vec![
        step,
        Op::Apply { group: 2, n: 4 },
        Op::Apply { group: 1, n: 1 },
        Op::Death,
        flush,
        Op::Apply { group: 0, n: 3 },
        Op::Purge { group: 0, subject: 3 },
        append(2, 3, 0),
        step,
        append(2, 4, 100),
        step,
        Op::Apply { group: 1, n: 3 },
        append(1, 2, 100),
        append(2, 0, 100),
        Op::Truncate { group: 1, back: 3 },
        Op::Read { group: 0, pick: 2889 },
        Op::Truncate { group: 1, back: 2 },
        step,
        flush,
        step,
        flush,
        Op::Clear { group: 0 },
        Op::Death,
        step,
        step,
        Op::Clear { group: 1 },
        append(0, 0, 10),
        Op::Read { group: 0, pick: 30_251 },
        append(0, 3, 100),
        append(1, 2, 0),
        flush,
        append(2, 1, 10),
        Op::Death,
        append(0, 4, 10),
        step,
        Op::Read { group: 1, pick: 33_158 },
        append(0, 0, 10),
        step,
    ];
    must_hold(&Plan { seed: 1400, class: Class::Lies, mutant: None, ops, crashes: vec![] });
}

/// A sealed file whose header did not reach the disk with its first round: a hard state was read as it was sealed.
#[test]
fn s30_without_its_header_nothing_sealed_is_taken_for_plain() {
    let append = |size| Op::Append { group: 1, msgs: 4, size };
    let (step, power) = (Op::Step, Op::PowerFailure);
    let hard = |group| Op::Hard { group };
    let ops = vec![
        step,
        append(100),
        step,
        append(900),
        step,
        hard(2),
        append(100),
        step,
        power,
        power,
        hard(0),
        step,
    ];
    let crashes = vec![(56, true), (42, true)];
    must_hold(&Plan { seed: 14_555, class: Class::Errors, mutant: None, ops, crashes });
}

/// A piece above the checkpoint was sealed anew, and its file was gone, while its entries were read: they were called damaged.
#[test]
fn what_is_rewritten_while_it_is_read_is_found_in_its_new_place() {
    let append = |group, msgs, size| Op::Append { group, msgs, size };
    let (step, hard) = (Op::Step, |group| Op::Hard { group });
    let ops = vec![
        Op::End,
        append(1, 2, 10),
        step,
        Op::PowerFailure,
        step,
        append(2, 1, 0),
        Op::Apply { group: 2, n: 6 },
        Op::Apply { group: 0, n: 4 },
        step,
        Op::End,
        step,
        hard(2),
        append(2, 2, 100),
        hard(1),
        Op::Flush,
        step,
        step,
        append(0, 3, 0),
        step,
        append(1, 3, 0),
        Op::Read { group: 1, pick: 44_805 },
        hard(2),
        Op::Apply { group: 2, n: 5 },
    ];
    must_hold(&Plan { seed: 29_221, class: Class::Crash, mutant: None, ops, crashes: vec![] });
}

/// A journal file whose name could not be made durable, and that could not be removed either, was taken for one that waits to be used again:
/// a power failure took it with what was acknowledged in it.
#[test]
fn s82_a_journal_file_that_is_merely_there_is_made_durable() {
    must_hold(&Plan {
        seed: 64_035,
        class: Class::Errors,
        mutant: None,
        ops: vec![Op::Step],
        crashes: vec![],
    });
}

/// A process died while it wrote the first manifest, and the next life found that in the page cache: it removed what the manifest made
/// needless, before a power failure took the manifest.
#[test]
fn s23_what_only_the_page_cache_says_gives_nothing_up() {
    let (step, checkpoint) = (Op::Step, Op::Checkpoint { group: 0 });
    let ops = vec![
        checkpoint,
        step,
        step,
        step,
        step,
        checkpoint,
        Op::Apply { group: 1, n: 5 },
        Op::Flush,
        Op::Death,
    ];
    must_hold(&Plan { seed: 78_629, class: Class::Lies, mutant: None, ops, crashes: vec![(52, false)] });
}

/// A round that was given up as torn kept its file, and the file asked for a key that had left the ring.
#[test]
fn s32_a_round_that_was_given_up_refuses_no_store() {
    let append = |group, msgs, size| Op::Append { group, msgs, size };
    let (step, flush, hard) = (Op::Step, Op::Flush, |group| Op::Hard { group });
    let ops = vec![
        flush,
        step,
        append(1, 2, 100),
        Op::Apply { group: 1, n: 3 },
        Op::End,
        Op::End,
        hard(1),
        step,
        append(1, 4, 0),
        hard(2),
        step,
        flush,
        step,
        append(2, 0, 100),
        step,
    ];
    let crashes = vec![(120, false), (156, false)];
    must_hold(&Plan { seed: 50_817, class: Class::Reads, mutant: None, ops, crashes });
}

/// The power failed while the slots of the manifest differed; what the newer one had made needless was gone.
#[test]
fn s70_slots_that_differ_give_nothing_up() {
    let append = |group, msgs, size| Op::Append { group, msgs, size };
    let (step, hard) = (Op::Step, |group| Op::Hard { group });
    let ops = vec![
        step,
        append(0, 2, 900),
        Op::Flush,
        step,
        Op::Truncate { group: 0, back: 1 },
        step,
        append(0, 3, 100),
        step,
        hard(0),
        step,
        hard(2),
        step,
        append(1, 4, 0),
        step,
        hard(0),
        step,
        append(2, 0, 0),
        append(2, 0, 100),
        step,
    ];
    let crashes = vec![(86, false), (113, true)];
    must_hold(&Plan { seed: 91_810, class: Class::Crash, mutant: None, ops, crashes });
}

/// The power failed while slot B was written, and again while the opening that found it torn wrote slot A, which was all that there was: the store did not
/// open any more.
#[test]
fn s70_the_only_slot_that_is_whole_is_written_last() {
    let append = |group, msgs, size| Op::Append { group, msgs, size };
    let (step, flush, end) = (Op::Step, Op::Flush, Op::End);
    let (hard, apply) = (|group| Op::Hard { group }, |group, n| Op::Apply { group, n });
    let read = |group, pick| Op::Read { group, pick };
    let ops = vec![
        end,
        read(0, 3970),
        apply(1, 1),
        read(0, 28_576),
        end,
        step,
        apply(0, 2),
        append(0, 0, 2500),
        end,
        step,
        Op::Purge { group: 1, subject: 1 },
        hard(1),
        step,
        step,
        flush,
        hard(2),
        flush,
        step,
        hard(2),
        read(0, 64_637),
        apply(0, 1),
        apply(1, 1),
        step,
        read(2, 60_640),
        flush,
        apply(0, 4),
        hard(0),
        apply(0, 6),
        Op::Clear { group: 1 },
        step,
        append(0, 2, 100),
    ];
    let crashes = vec![(175, false), (203, true)];
    must_hold(&Plan { seed: 31_115_880, class: Class::Crash, mutant: None, ops, crashes });
}

/// A process died when slot A stood in the page cache only, and the power failed while the opening that found it wrote slot B, since A was all that there
/// was: neither was left. The power fails at every place that can be the one.
#[test]
fn s70_the_slot_that_is_to_stand_is_synced_before_the_other_one_is_written() {
    let apply = |group, n| Op::Apply { group, n };
    let ops = vec![
        Op::Checkpoint { group: 1 },
        Op::Checkpoint { group: 2 },
        Op::PowerFailure,
        Op::Step,
        apply(2, 6),
        apply(2, 6),
        Op::Step,
        Op::Step,
        Op::Append { group: 0, msgs: 2, size: 0 },
        Op::PowerFailure,
        apply(0, 4),
        apply(0, 3),
        Op::Step,
        Op::Flush,
        Op::Checkpoint { group: 1 },
        Op::Read { group: 1, pick: 3737 },
        Op::Death,
    ];
    for at in 70..120 {
        let crashes = vec![(at, true)];
        must_hold(&Plan { seed: 33_286_203, class: Class::Crash, mutant: None, ops: ops.clone(), crashes });
    }
}

/// The only round rotted, and the power failed while the store was opened without it: the next opening has nothing to say of it.
#[test]
fn a_last_round_that_was_given_up_before_a_crash_is_not_told_of() {
    let ops = vec![Op::Step, Op::Rot { what: 0, file: 38_964, at: 4_024_877_583 }];
    must_hold(&Plan { seed: 1_089_968, class: Class::Rot, mutant: None, ops, crashes: vec![(56, false)] });
}

/// A whole file of the journal was gone, and the power failed while the store was opened without it, again and again: what the first of these openings wrote
/// said nothing of the loss, so the last one had nothing to say.
#[test]
fn s84_a_loss_is_found_again_after_a_crash_in_the_opening_that_found_it() {
    let (step, flush, hard) = (Op::Step, Op::Flush, |group| Op::Hard { group });
    let (append, apply) =
        (|group, msgs, size| Op::Append { group, msgs, size }, |group, n| Op::Apply { group, n });
    let checkpoint = Op::Checkpoint { group: 0 };
    let ops = vec![
        flush,
        hard(2),
        append(0, 1, 100),
        append(1, 0, 900),
        hard(0),
        apply(2, 5),
        checkpoint,
        checkpoint,
        Op::Clear { group: 1 },
        append(2, 0, 100),
        step,
        Op::PowerFailure,
        hard(0),
        apply(2, 1),
        apply(0, 4),
        flush,
        step,
        step,
        Op::Lose { what: 0, file: 49_412, keep: None },
    ];
    must_hold(&Plan { seed: 31_007_188, class: Class::Rot, mutant: None, ops, crashes: vec![(102, true)] });
}

/// A checkpoint waited while the one before it left a deleted message of the tail out of its piece: the next flush marked that one in the piece all
/// the same.
#[test]
fn s72_a_waiting_checkpoint_marks_nothing_that_was_not_written() {
    let (group, checkpoint) = (2, Op::Checkpoint { group: 2 });
    let ops = vec![
        Op::Append { group, msgs: 3, size: 0 },
        Op::Apply { group, n: 5 },
        Op::Delete { group, pick: 27_646 },
        checkpoint,
        Op::Step,
        Op::Flush,
        Op::Delete { group, pick: 15_035 },
        checkpoint,
        Op::Flush,
        Op::Step,
        Op::Clear { group: 1 },
    ];
    must_hold(&Plan { seed: 2_029_693, class: Class::Crash, mutant: None, ops, crashes: vec![] });
}
