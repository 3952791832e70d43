//! Hash maps whose order is the same in every process: a fixed hasher. Iterate them only where order cannot leak.

/// A hash map with a fixed hasher. Not for keys that an attacker chooses freely and that are looked up by everybody.
pub type HashMap<K, V> = hashbrown::HashMap<K, V, rustc_hash::FxBuildHasher>;
/// A hash set with a fixed hasher.
pub type HashSet<K> = hashbrown::HashSet<K, rustc_hash::FxBuildHasher>;
