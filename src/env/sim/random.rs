//! Seeds that follow from the run's.

use super::world::World;
use crate::Rng;

pub fn seed(salt: &str) -> [u8; 32] {
    let mut out = [0; 32];
    if let Some((seed, path)) = World::salt(salt) {
        Rng::derived(seed, &path).fill(&mut out);
    }
    out
}
