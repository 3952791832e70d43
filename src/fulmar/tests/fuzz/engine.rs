//! The loop: take an input that has shown something new, change it, run it, keep it if it shows something new again.
//!
//! Owns the feedback, the inputs of a run, what is said about a failure, and the watch over inputs that hang. Changes
//! no input itself ([`crate::mutate`] does) and knows no format.
//!
//! The feedback is what a target says of itself through [`seen`]: the classes of outcomes and the structure that it met,
//! as pairs of a tag and a small number. That is coarser than the edges of a binary, but it costs nothing, works on any
//! toolchain, and names what was reached, so that a run can be held to it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once, mpsc},
    time::{Duration, Instant},
};

use env::rng::{Fnv, Rng};

use crate::mutate::{Mutator, mutate};

/// Features that one execution may report; what comes after them is left out.
const FEATURES_MAX: usize = 256;
/// How long one input may take before it counts as hanging, on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tries at making a failing input shorter.
const SHRINK_TRIES: usize = 3000;

thread_local! {
    static FEATURES: RefCell<Vec<(&'static str, u64)>> = const { RefCell::new(Vec::new()) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Notes that the present input has reached something: `tag`, and a number that tells cases of it apart. Numbers should
/// have few values, or the fuzzer keeps inputs that differ in nothing: see [`about`].
pub fn seen(tag: &'static str, value: u64) {
    FEATURES.with_borrow_mut(|f| {
        if f.len() < FEATURES_MAX {
            f.push((tag, value));
        }
    });
}

/// The order of magnitude of `n`: 0, 1, 2, 3 to 4, 5 to 8 …
pub fn about(n: usize) -> u64 {
    u64::from((n as u64).next_power_of_two().trailing_zeros()) + u64::from(n > 0)
}

/// Something to fuzz.
pub struct Target {
    /// Its name, which is that of its folder of inputs.
    pub name: &'static str,
    /// Runs one input; panics if a property does not hold.
    pub run: fn(&[u8]),
    /// What the format's inputs are made of.
    pub words: &'static [&'static [u8]],
    /// Tags that a run must have seen.
    pub must: &'static [&'static str],
    /// Inputs of an ordinary run, beside those in files.
    pub executions: u64,
    /// Longest input in bytes.
    pub bytes_max: usize,
}

/// What a run has come to.
struct Found {
    seen: BTreeSet<(&'static str, u64)>,
    kept: Vec<Vec<u8>>,
    executions: u64,
}

fn number(name: &str) -> Option<u64> {
    let text = env::process::var(name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

/// Fuzzes `target`: its files first, then changed inputs, `executions` of them or for FULMAR_FUZZ_SECONDS. The inputs
/// follow from FULMAR_FUZZ_SEED (1 if it is not set) alone, so that a failure comes again.
pub fn fuzz(target: &Target) {
    let (run, name, words) = (target.run, target.name, target.words);
    let (executions, bytes_max) = (target.executions, target.bytes_max);
    let seed = number("FULMAR_FUZZ_SEED").unwrap_or(1);
    let until = number("FULMAR_FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let files = corpus(name);
    hush();
    let started = Instant::now();
    let (num_files, bytes_in_files) = (files.len(), files.iter().map(|(_, b)| b.len()).sum::<usize>());
    // The inputs run in a thread of their own, so that this one can tell when an input does not end.
    let at: Arc<Mutex<(u64, Vec<u8>)>> = Arc::default();
    let (done, ended) = mpsc::channel();
    let watched = at.clone();
    let worker = std::thread::spawn(move || {
        let mut found = Found { seen: BTreeSet::new(), kept: Vec::new(), executions: 0 };
        let step = |found: &mut Found, input: &[u8], file: Option<&Path>| {
            {
                let mut at = watched.lock().unwrap();
                at.0 += 1;
                at.1.clear();
                at.1.extend_from_slice(input);
            }
            found.executions += 1;
            let Err(failure) = attempt(run, input) else {
                let new = FEATURES.with_borrow(|f| f.iter().any(|x| !found.seen.contains(x)));
                if new {
                    FEATURES.with_borrow(|f| found.seen.extend(f.iter().copied()));
                }
                if new || file.is_some() {
                    found.kept.push(input.to_vec());
                }
                return;
            };
            let place = file.map_or_else(|| format!("seed {seed}"), |f| f.display().to_string());
            complain(name, run, input, &place, &failure);
        };
        for (path, input) in &files {
            step(&mut found, input, Some(path));
        }
        let mut rng = Rng::derived(seed, name);
        while match until {
            None => found.executions < executions + num_files as u64,
            // The clock is asked now and then only.
            Some(until) => !found.executions.is_multiple_of(64) || Instant::now() < until,
        } {
            let input = mutate(&mut rng, &Mutator { inputs: &found.kept, words, bytes_max });
            step(&mut found, &input, None);
        }
        done.send(()).expect("the test waits for this");
        found
    });
    let mut last = 0;
    while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(PATIENCE) {
        let (n, input) = &*at.lock().unwrap();
        assert!(*n != last, "{name}: an input does not end: {}", show(input));
        last = *n;
    }
    let found = worker.join().unwrap_or_else(|e| panic::resume_unwind(e));
    println!(
        "fuzz {name}: {} executions in {:.1} s, {} features, {} inputs kept ({num_files} from files, {bytes_in_files} bytes)",
        found.executions,
        started.elapsed().as_secs_f64(),
        found.seen.len(),
        found.kept.len(),
    );
    for must in target.must {
        let met = found.seen.iter().any(|(tag, _)| tag == must);
        assert!(met, "{name}: no input has shown {must:?}: the fuzzer has become blind to it");
    }
}

/// The files of a target, by name.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<_> = entries
        .map(|e| {
            let path = e.unwrap().path();
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path, bytes)
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{} holds no input", folder.display());
    all
}

/// Runs one input; what it panicked with if it did.
fn attempt(run: fn(&[u8]), input: &[u8]) -> Result<(), String> {
    FEATURES.with_borrow_mut(Vec::clear);
    panic::catch_unwind(AssertUnwindSafe(|| run(input))).map_err(|e| {
        let text = e.downcast_ref::<String>().cloned();
        text.or_else(|| e.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

/// Panics that the shrinker provokes are not printed.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

/// Makes a failing input short, writes it to a file, and fails.
fn complain(name: &str, run: fn(&[u8]), input: &[u8], place: &str, failure: &str) -> ! {
    QUIET.set(true);
    let mut short = input.to_vec();
    let (mut tries, mut piece) = (0, short.len().div_ceil(2));
    while piece > 0 && tries < SHRINK_TRIES {
        let (mut from, before) = (0, short.len());
        while from < short.len() && tries < SHRINK_TRIES {
            let mut less = short.clone();
            less.drain(from..(from + piece).min(less.len()));
            tries += 1;
            match attempt(run, &less) {
                Err(_) => short = less,
                Ok(()) => from += piece,
            }
        }
        if short.len() == before || piece > 1 {
            piece /= 2;
        }
    }
    let said = attempt(run, &short).err().unwrap_or_else(|| failure.to_string());
    QUIET.set(false);
    let mut hash = Fnv::new();
    hash.write(&short);
    let file =
        Path::new(option_env!("CARGO_TARGET_TMPDIR").unwrap_or(".")).join(format!("{name}-{:016x}", hash.0));
    let saved = match fs::write(&file, &short) {
        Ok(()) => format!("saved as {}", file.display()),
        Err(e) => format!("not saved: {e}"),
    };
    panic!(
        "fuzz {name} ({place}): {said}\ninput: {}\n{saved}; it belongs to tests/corpus/{name} with its fix",
        show(&short)
    );
}

/// Bytes as a Rust literal.
fn show(input: &[u8]) -> String {
    format!("b\"{}\"", input.escape_ascii())
}
