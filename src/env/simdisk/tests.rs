use proptest::prelude::*;

use super::*;
use crate::{Rng, disk::OpenOptions as How};

fn disk(options: Options, seed: u64) -> SimDisk {
    SimDisk::new(options, Rng::derived(seed, "disk"))
}
/// A disk with the durable file "/f" of 4096 bytes, each 1 + its sector's number.
fn with_file(options: Options, seed: u64) -> (SimDisk, Handle, Vec<u8>) {
    let mut d = disk(Options::default(), seed);
    *d.options() = options;
    let rates = std::mem::take(&mut d.options().rates);
    let h = d.open("/f", How::CREATE).unwrap();
    let data: Vec<u8> = (0..4096u32).map(|i| 1 + (i / 512) as u8).collect();
    d.write(h, 0, &data).unwrap();
    d.sync(h).unwrap();
    d.sync_dir("/").unwrap();
    d.options().rates = rates;
    (d, h, data)
}
fn reopen(d: &mut SimDisk) -> Handle {
    d.power_failure();
    d.open("/f", How::EDIT).unwrap()
}
fn only(fault: Fault, rate: f64) -> Options {
    Options::default().with(fault, rate)
}

/// Steps of the comparison with a plain file system; numbers choose among few files so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Write(u8, u16, u16, u8),
    Read(u8, u16, u16),
    SetLen(u8, u16),
    Punch(u8, u16, u16),
    Allocate(u8, u16, u16),
    Sync(u8),
    Rename(u8, u8),
    Remove(u8),
    SyncDir,
    Truncate(u8),
    ProcessDeath,
}
fn step() -> impl Strategy<Value = Step> {
    let (f, at, n) = (0u8..3, 0u16..3000, 0u16..1500);
    prop_oneof![
        6 => (f.clone(), at.clone(), n.clone(), 1u8..255).prop_map(|(f, a, n, b)| Step::Write(f, a, n, b)),
        3 => (f.clone(), at.clone(), n.clone()).prop_map(|(f, a, n)| Step::Read(f, a, n)),
        2 => (f.clone(), at.clone()).prop_map(|(f, a)| Step::SetLen(f, a)),
        1 => (f.clone(), at.clone(), n.clone()).prop_map(|(f, a, n)| Step::Punch(f, a, n)),
        1 => (f.clone(), at, n).prop_map(|(f, a, n)| Step::Allocate(f, a, n)),
        2 => f.clone().prop_map(Step::Sync),
        1 => (f.clone(), f.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => f.clone().prop_map(Step::Remove),
        1 => Just(Step::SyncDir),
        1 => f.prop_map(Step::Truncate),
        1 => Just(Step::ProcessDeath),
    ]
}

type Model = BTreeMap<String, Vec<u8>>;
fn name(f: u8) -> String {
    format!("/d/f{f}")
}

/// Runs one step on the disk and on plain vectors; what the program sees must be equal.
fn apply(d: &mut SimDisk, m: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    let put = |v: &mut Vec<u8>, at: usize, n: usize, b: u8, grow: bool| {
        if grow && v.len() < at + n && n > 0 {
            v.resize(at + n, 0);
        }
        let (from, to) = (at.min(v.len()), (at + n).min(v.len()));
        v[from..to].fill(b);
    };
    match *step {
        Step::Write(f, at, n, b) => {
            let h = d.open(&name(f), How::CREATE).unwrap();
            d.write(h, at.into(), &vec![b; n.into()]).unwrap();
            put(m.entry(name(f)).or_default(), at.into(), n.into(), b, true);
            d.close(h);
        }
        Step::Read(f, at, n) => match (d.open(&name(f), How::READ), m.get(&name(f))) {
            (Ok(h), Some(v)) => {
                let got = d.read(h, at.into(), n.into(), false).unwrap();
                let (from, to) = (usize::from(at).min(v.len()), usize::from(at + n).min(v.len()));
                prop_assert_eq!(&got[..], &v[from..to]);
                d.close(h);
            }
            (Err(Error::NotFound), None) => {}
            (a, b) => prop_assert!(false, "{:?} {:?}", a, b),
        },
        Step::SetLen(f, len) => {
            let h = d.open(&name(f), How::CREATE).unwrap();
            d.set_len(h, len.into()).unwrap();
            m.entry(name(f)).or_default().resize(len.into(), 0);
            d.close(h);
        }
        Step::Punch(f, at, n) => {
            let h = d.open(&name(f), How::CREATE).unwrap();
            d.punch_hole(h, at.into(), n.into()).unwrap();
            put(m.entry(name(f)).or_default(), at.into(), n.into(), 0, false);
            d.close(h);
        }
        Step::Allocate(f, at, n) => {
            let h = d.open(&name(f), How::CREATE).unwrap();
            d.allocate(h, at.into(), n.into()).unwrap();
            let v = m.entry(name(f)).or_default();
            v.resize(v.len().max(usize::from(at) + usize::from(n)), 0);
            d.close(h);
        }
        Step::Sync(f) => {
            if let Ok(h) = d.open(&name(f), How::EDIT) {
                d.sync(h).unwrap();
                d.close(h);
            }
        }
        Step::Rename(a, b) => {
            let r = d.rename(&name(a), &name(b));
            prop_assert_eq!(r.is_ok(), m.contains_key(&name(a)));
            if a != b
                && let Some(v) = m.remove(&name(a))
            {
                m.insert(name(b), v);
            }
        }
        Step::Remove(f) => prop_assert_eq!(d.remove_file(&name(f)).is_ok(), m.remove(&name(f)).is_some()),
        Step::SyncDir => d.sync_dir("/d").unwrap(),
        Step::Truncate(f) => {
            let h = d.open(&name(f), How::TRUNCATE).unwrap();
            m.insert(name(f), Vec::new());
            d.close(h);
        }
        Step::ProcessDeath => d.process_death(),
    }
    Ok(())
}

fn seen(d: &mut SimDisk) -> Model {
    d.files()
        .into_iter()
        .map(|p| {
            let h = d.open(&p, How::READ).unwrap();
            let v = d.read(h, 0, 1 << 20, false).unwrap();
            d.close(h);
            (p, v)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e6_without_faults_it_is_a_plain_file_system(steps in prop::collection::vec(step(), 1..80), seed: u64) {
        let mut d = disk(Options { sector: 64, ..Options::default() }, seed);
        d.create_dir("/d").unwrap();
        let mut m = Model::new();
        for s in &steps {
            apply(&mut d, &mut m, s)?;
        }
        prop_assert_eq!(seen(&mut d), m);
        prop_assert!(d.strikes().is_empty());
    }

    #[test]
    fn e1_e3_what_was_synced_survives(
        before in prop::collection::vec(step(), 0..40), after in prop::collection::vec(step(), 0..12), seed: u64,
    ) {
        let mut d = disk(Options { sector: 64, ..Options::default() }, seed);
        d.create_dir("/d").unwrap();
        d.sync_dir("/").unwrap();
        let mut m = Model::new();
        for s in &before {
            apply(&mut d, &mut m, s)?;
        }
        for f in 0..3 {
            apply(&mut d, &mut m, &Step::Sync(f))?;
        }
        d.sync_dir("/d").unwrap();
        let synced = m.clone();
        for s in &after {
            apply(&mut d, &mut m, s)?;
        }
        d.power_failure();
        let now = seen(&mut d);
        if after.is_empty() {
            prop_assert_eq!(&now, &synced);
        }
        // Files that nothing touched since are exactly there.
        let touched = |f: u8| after.iter().any(|s| match *s {
            Step::Write(g, ..) | Step::SetLen(g, ..) | Step::Punch(g, ..) | Step::Allocate(g, ..)
            | Step::Remove(g) | Step::Truncate(g) => f == g,
            Step::Rename(a, b) => f == a || f == b,
            _ => false,
        });
        for f in (0..3).filter(|f| !touched(*f)) {
            prop_assert_eq!(now.get(&name(f)), synced.get(&name(f)));
        }
        // Nothing is there that was never there, and a crash alone is no damage.
        for (path, v) in &now {
            let known = synced.contains_key(path) || (0..3).any(|f| &name(f) == path && touched(f));
            prop_assert!(known);
            prop_assert!(d.damage(path, 0..u64::MAX / 2).unwrap().is_empty());
            prop_assert_eq!(&d.pristine(path, 0..1 << 20).unwrap(), v);
        }
    }

    #[test]
    fn e7_a_run_repeats(steps in prop::collection::vec(step(), 1..60), seed: u64) {
        let run = || {
            let mut o = Options { sector: 64, ..Options::default() };
            for f in [Fault::LostWrite, Fault::TornWrite, Fault::MisdirectedWrite, Fault::BitRot, Fault::LostSync] {
                o = o.with(f, 0.1);
            }
            let mut d = disk(o, seed);
            d.create_dir("/d").unwrap();
            d.sync_dir("/").unwrap();
            for s in &steps {
                // Only the effects count here; reads may differ from the model by design.
                if !matches!(s, Step::Read(..)) {
                    apply(&mut d, &mut Model::new(), s).ok();
                }
            }
            d.power_failure();
            (seen(&mut d), d.strikes().to_vec(), d.ops())
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn e1_damage_names_every_difference(seed: u64, writes in prop::collection::vec((0u64..3000, 1u64..600, 1u8..255), 1..30)) {
        let mut o = Options { sector: 64, ..Options::default() };
        for f in [Fault::LostWrite, Fault::TornWrite, Fault::MisdirectedWrite, Fault::BitRot, Fault::LostSync] {
            o = o.with(f, 0.05);
        }
        let mut d = disk(o, seed);
        let mut model = Vec::new();
        let h = d.open("/f", How::CREATE).unwrap();
        d.sync_dir("/").unwrap();
        d.sync_dir("/").unwrap();
        for (at, n, b) in writes {
            d.write(h, at, &vec![b; n as usize]).unwrap();
            model.resize(model.len().max((at + n) as usize), 0);
            model[at as usize..(at + n) as usize].fill(b);
            d.sync(h).unwrap();
        }
        // What the medium was told and what it holds differ only where damage says so.
        d.power_failure();
        if d.files().is_empty() {
            prop_assert!(d.counts().contains_key(&Fault::LostSync));
            return Ok(());
        }
        let damage = d.damage("/f", 0..1 << 20).unwrap();
        let lost_length = d.counts().contains_key(&Fault::LostSync);
        let h = d.open("/f", How::READ).unwrap();
        d.options().rates.clear();
        let now = d.read(h, 0, 1 << 20, false).unwrap();
        prop_assert!(lost_length || now.len() == model.len());
        for (i, b) in now.iter().enumerate() {
            let named = damage.iter().any(|(r, _)| r.contains(&(i as u64)));
            prop_assert!(named || *b == model[i], "byte {} differs and nothing says why", i);
        }
        let pristine = d.pristine("/f", 0..1 << 20).unwrap();
        prop_assert!(pristine.iter().zip(&model).all(|(a, b)| a == b));
    }
}

#[test]
fn e1_unsynced_sectors_are_kept_lost_and_torn() {
    let (mut kept, mut lost, mut torn, mut zeros, mut short) = (0, 0, 0, 0, 0);
    for seed in 0..300 {
        let (mut d, h, _) = with_file(Options::default(), seed);
        d.write(h, 0, &[9; 6144]).unwrap();
        let h = reopen(&mut d);
        let now = d.read(h, 0, 1 << 20, false).unwrap();
        for (i, s) in now[..4096].chunks(512).enumerate() {
            let old = 1 + i as u8;
            match (s[0], s[511]) {
                (9, 9) => kept += 1,
                (9, b) if b == old => torn += 1,
                (a, b) if a == old && b == old => lost += 1,
                other => panic!("neither old nor new: {other:?}"),
            }
        }
        short += u32::from(now.len() < 6144);
        zeros += u32::from(now.len() > 4096 && now[4096..].contains(&0));
    }
    assert!(
        kept > 100 && lost > 100 && torn > 50 && zeros > 20 && short > 20,
        "{kept} {lost} {torn} {zeros} {short}"
    );
}

#[test]
fn atomic_sectors_do_not_tear() {
    for seed in 0..200 {
        let (mut d, h, _) = with_file(Options { atomic_sectors: true, ..Options::default() }, seed);
        d.write(h, 0, &[9; 4096]).unwrap();
        let h = reopen(&mut d);
        assert!(d.read(h, 0, 4096, true).unwrap().chunks(512).all(|s| s.iter().all(|b| *b == s[0])));
    }
}

#[test]
fn e3_a_rename_without_directory_sync_may_be_lost() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let (mut d, _, _) = with_file(Options::default(), seed);
        d.create_dir("/d").unwrap();
        d.sync_dir("/").unwrap();
        d.rename("/f", "/d/g").unwrap();
        let t = d.open("/t", How::CREATE).unwrap();
        d.sync(t).unwrap();
        d.power_failure();
        outcomes.insert(d.files());
    }
    let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    // A rename is in both directories or in none; what depends on a lost operation is lost too.
    let expected = [set(&["/f"]), set(&["/d/g"]), set(&["/d/g", "/t"])];
    assert_eq!(outcomes, expected.into_iter().collect());
    let (mut d, _, _) = with_file(Options::default(), 1);
    d.rename("/f", "/g").unwrap();
    d.sync_dir("/").unwrap();
    d.power_failure();
    assert_eq!(d.files(), ["/g"]);
}

#[test]
fn never_written_bytes_are_an_error_of_their_own() {
    let (mut d, h, _) = with_file(Options::default(), 1);
    d.allocate(h, 4096, 4096).unwrap();
    d.write(h, 5000, b"x").unwrap();
    assert_eq!(d.read(h, 4000, 200, true), Err(Error::NeverWritten(4096)));
    assert_eq!(d.read(h, 5000, 2, true), Err(Error::NeverWritten(5001)));
    assert_eq!(d.read(h, 5000, 1, true), Ok(vec![b'x']));
    assert_eq!(d.read(h, 4096, 3, false), Ok(vec![0; 3]));
    d.punch_hole(h, 0, 10).unwrap();
    assert_eq!(d.read(h, 9, 2, true), Err(Error::NeverWritten(9)));
}

/// A fault at every sync of one rewritten sector, and what the medium and the record then say.
fn after_sync(fault: Fault) -> (SimDisk, Vec<u8>) {
    let (mut d, h, _) = with_file(only(fault, 1.0), 3);
    d.write(h, 512, &[9; 512]).unwrap();
    d.sync(h).unwrap();
    d.options().rates.clear();
    let h = reopen(&mut d);
    let now = d.read(h, 0, 4096, true).unwrap();
    (d, now)
}

#[test]
fn lost_torn_and_misdirected_writes() {
    let (d, now) = after_sync(Fault::LostWrite);
    assert_eq!((now[512], d.damage("/f", 0..4096).unwrap()), (2, vec![(512..1024, Fault::LostWrite)]));
    assert_eq!(d.pristine("/f", 512..1024).unwrap(), [9; 512]);
    let (d, now) = after_sync(Fault::TornWrite);
    assert_eq!((now[512], now[1023]), (9, 2));
    assert_eq!(d.damage("/f", 0..4096).unwrap(), [(512..1024, Fault::TornWrite)]);
    let (d, now) = after_sync(Fault::MisdirectedWrite);
    assert_eq!((now[512], now.iter().filter(|b| **b == 9).count()), (2, 512));
    let damage = d.damage("/f", 0..4096).unwrap();
    assert_eq!(damage.len(), 2);
    assert!(damage.iter().all(|(_, f)| *f == Fault::MisdirectedWrite));
    let (_, _, mut data) = with_file(Options::default(), 3);
    data[512..1024].fill(9);
    assert_eq!(d.pristine("/f", 0..4096).unwrap(), data);
}

#[test]
fn a_later_write_heals_damage() {
    let (mut d, _) = after_sync(Fault::LostWrite);
    let h = d.open("/f", How::EDIT).unwrap();
    d.write(h, 512, &[8; 512]).unwrap();
    d.sync(h).unwrap();
    assert!(d.damage("/f", 0..4096).unwrap().is_empty());
}

#[test]
fn reads_that_lie_do_so_once() {
    for fault in [Fault::MisdirectedRead, Fault::TransientFlip, Fault::StaleRead] {
        let (mut d, h, mut data) = with_file(only(fault, 0.0), 5);
        d.write(h, 0, &[7; 512]).unwrap();
        d.sync(h).unwrap();
        data[..512].fill(7);
        let op = d.ops();
        d.plan(op, Planned::Fault(fault));
        let lie = d.read(h, 0, 4096, true).unwrap();
        assert_ne!(lie, data, "{fault:?}");
        assert_eq!(d.read(h, 0, 4096, true).unwrap(), data);
        assert_eq!((d.strikes()[0].fault, d.strikes()[0].op), (fault, op));
        assert!(d.damage("/f", 0..4096).unwrap().is_empty());
        if fault == Fault::StaleRead {
            assert_eq!(lie[..512], [1; 512]);
        }
    }
}

#[test]
fn rot_stays() {
    let (mut d, h, data) = with_file(only(Fault::BitRot, 1.0), 5);
    let first = d.read(h, 0, 4096, true).unwrap();
    d.options().rates.clear();
    assert_ne!(first, data);
    assert_eq!(d.read(h, 0, 4096, true).unwrap(), first);
    assert_eq!(d.damage("/f", 0..4096).unwrap().len(), 1);
    assert_eq!(d.pristine("/f", 0..4096).unwrap(), data);
    let (mut d, h, mut data) = with_file(Options::default(), 5);
    d.rot("/f", 700, 3).unwrap();
    data[700] ^= 8;
    assert_eq!(d.read(h, 0, 4096, true).unwrap(), data);
    assert_eq!(d.damage("/f", 600..800).unwrap(), [(600..800, Fault::BitRot)]);
}

#[test]
fn a_lost_sync_loses_only_at_a_power_failure() {
    let mut lost = 0;
    for seed in 0..60 {
        let (mut d, h, data) = with_file(only(Fault::LostSync, 1.0), seed);
        d.write(h, 0, &[9; 512]).unwrap();
        d.sync(h).unwrap();
        d.process_death();
        d.options().rates.clear();
        let h = d.open("/f", How::EDIT).unwrap();
        assert_eq!(d.read(h, 0, 512, true).unwrap(), [9; 512]);
        let h = reopen(&mut d);
        let now = d.read(h, 0, 512, true).unwrap();
        let damage = d.damage("/f", 0..4096).unwrap();
        assert_eq!(damage.is_empty(), now == [9; 512]);
        assert!(damage.iter().all(|(r, f)| *f == Fault::LostSync && *r == (0..512)));
        assert_eq!(d.pristine("/f", 0..512).unwrap(), [9; 512]);
        lost += u32::from(now == data[..512]);
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn e2_a_failed_sync_forgets_some_and_poisons() {
    let (mut d, h, data) = with_file(only(Fault::SyncError, 1.0), 4);
    let other = d.open("/f", How::EDIT).unwrap();
    d.write(h, 0, &[9; 4096]).unwrap();
    assert_eq!(d.sync(h), Err(Error::Io));
    assert_eq!(
        (d.sync(h), d.write(h, 0, b"x"), d.set_len(other, 0)),
        (Err(Error::Poisoned), Err(Error::Poisoned), Err(Error::Poisoned))
    );
    let now = d.read(h, 0, 4096, true).unwrap();
    assert!(now.contains(&9) && now.chunks(512).zip(data.chunks(512)).any(|(a, b)| a == b));
}

#[test]
fn errors_on_read_write_and_names() {
    let (mut d, h, data) = with_file(only(Fault::ReadError, 1.0), 4);
    assert_eq!(d.read(h, 0, 10, true), Err(Error::Io));
    *d.options() = only(Fault::WriteError, 1.0);
    assert_eq!(d.write(h, 0, &[9; 2048]), Err(Error::Io));
    assert_eq!((d.set_len(h, 1), d.punch_hole(h, 0, 1)), (Err(Error::Io), Err(Error::Io)));
    *d.options() = only(Fault::NameError, 1.0);
    assert_eq!((d.open("/f", How::EDIT), d.sync_dir("/")), (Err(Error::Io), Err(Error::Io)));
    assert_eq!((d.rename("/f", "/g"), d.remove_file("/f")), (Err(Error::Io), Err(Error::Io)));
    d.options().rates.clear();
    // A failed write did a random part of its work.
    let now = d.read(h, 0, 4096, true).unwrap();
    assert!(now.iter().zip(&data).enumerate().all(|(i, (a, b))| a == b || (*a == 9 && i < 2048)));
}

#[test]
fn a_full_disk_refuses_and_frees() {
    let (mut d, h, _) = with_file(Options { capacity: 8192, ..Options::default() }, 4);
    assert_eq!(d.space(), (4096, 8192));
    d.allocate(h, 4096, 2048).unwrap();
    assert_eq!(d.allocate(h, 6144, 4096), Err(Error::NoSpace));
    // Reserved space takes the write; beyond it only what fits is written.
    d.write(h, 4096, &[1; 2048]).unwrap();
    assert_eq!(d.write(h, 6144, &[2; 4096]), Err(Error::NoSpace));
    let len = d.len(h).unwrap();
    assert!((6144..=8192).contains(&len), "{len}");
    d.write(h, 0, &[3; 6144]).unwrap();
    d.punch_hole(h, 0, 1024).unwrap();
    assert!(d.space().0 <= 7168);
    d.remove_file("/f").unwrap();
    assert!(d.space().0 > 0, "an open file keeps its space");
    d.close(h);
    assert_eq!(d.space(), (0, 8192));
    let (mut d, h, _) = with_file(only(Fault::NoSpace, 1.0), 4);
    assert_eq!(d.write(h, 4096, b"x"), Err(Error::NoSpace));
    d.write(h, 0, b"x").unwrap();
}

#[test]
fn slowness_is_data() {
    let (mut d, h, _) = with_file(Options::default(), 4);
    d.sync(h).unwrap();
    let fast = d.cost_ns();
    *d.options() = only(Fault::Slow, 1.0);
    d.sync(h).unwrap();
    assert_eq!(d.cost_ns(), 100 * fast);
}

#[test]
fn missing_and_truncated_files() {
    let (mut d, _, data) = with_file(Options::default(), 4);
    d.damage_file("/f", Some(1000)).unwrap();
    let h = reopen(&mut d);
    assert_eq!(d.read(h, 0, 4096, true).unwrap(), data[..1000]);
    d.damage_file("/f", None).unwrap();
    d.power_failure();
    assert_eq!(d.open("/f", How::EDIT), Err(Error::NotFound));
    let kinds: Vec<Fault> = d.strikes().iter().map(|s| s.fault).collect();
    assert_eq!(kinds, [Fault::TruncatedFile, Fault::MissingFile]);
}

#[test]
fn a_crash_at_every_operation() {
    // A tiny log: each record is one sector, acknowledged after its sync. Whatever operation the power fails at, what
    // was acknowledged is there.
    let run = |d: &mut SimDisk| -> u64 {
        let mut acked = 0;
        let mut go = || -> Result<(), Error> {
            let h = d.open("/log", How::CREATE)?;
            d.sync_dir("/")?;
            for i in 0..5u64 {
                d.write(h, i * 512, &[1 + i as u8; 512])?;
                d.sync(h)?;
                acked = i + 1;
            }
            Ok(())
        };
        go().ok();
        acked
    };
    let mut counting = disk(Options::default(), 0);
    assert_eq!(run(&mut counting), 5);
    let mut seen = BTreeSet::new();
    for op in 0..counting.ops() {
        for what in [Planned::CrashBefore, Planned::CrashAfter] {
            for seed in 0..20 {
                let mut d = disk(Options::default(), seed);
                d.plan(op, what);
                let acked = run(&mut d);
                assert!(d.crashed());
                assert_eq!(d.stat("/log"), Err(Error::Crashed));
                d.power_failure();
                seen.insert(acked);
                if acked > 0 {
                    let h = d.open("/log", How::READ).unwrap();
                    let all = d.read(h, 0, acked as usize * 512, true).unwrap();
                    assert!((0..acked).all(|i| all[i as usize * 512..][..512] == [1 + i as u8; 512]));
                }
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn bad_paths_are_refused() {
    let mut d = disk(Options::default(), 0);
    d.create_dir("/d").unwrap();
    d.create_dir("/d/e").unwrap();
    let h = d.open("/d/f", How::CREATE).unwrap();
    assert_eq!(d.open("/../f", How::CREATE), Err(Error::Invalid));
    assert_eq!(d.open("/d", How::READ), Err(Error::IsDir));
    assert_eq!(d.open("/d/f/x", How::CREATE), Err(Error::NotDir));
    assert_eq!(d.open("/x/y", How::CREATE), Err(Error::NotFound));
    assert_eq!(d.open("/d/f", How::CREATE_NEW), Err(Error::Exists));
    assert_eq!(d.create_dir("/d"), Err(Error::Exists));
    assert_eq!(d.remove_dir("/d"), Err(Error::NotEmpty));
    assert_eq!(d.remove_file("/d"), Err(Error::IsDir));
    assert_eq!(d.rename("/d", "/d/e/x"), Err(Error::Invalid));
    assert_eq!(d.rename("/d/f", "/d/e"), Err(Error::IsDir));
    assert_eq!(d.write(h, u64::MAX, b"xx"), Err(Error::Invalid));
    d.power_failure();
    assert_eq!(d.write(h, 0, b"x"), Err(Error::BadHandle));
    let names: Vec<String> = d.list("/").unwrap().into_iter().map(|(n, _)| n).collect();
    assert!(names.is_empty() || names == ["d"]);
}
