//! What must hold inside of a store whenever it has just been opened, and nobody outside can see.
//!
//! Owns the checks of footers and of bounds. Only for a store that is not damaged.

use crate::{Store, group::Group};

/// Checks every piece and every budget.
pub(crate) async fn holds(store: &Store) -> Result<(), String> {
    for shard in store.shards() {
        let groups: Vec<_> = shard.groups.lock().iter().map(|(id, g)| (id.0, g.clone())).collect();
        let mut tails = 0;
        for (id, group) in groups {
            let pieces = group.lock().pieces.clone();
            for p in pieces {
                let same =
                    shard.feet_are_right(&p.meta).await.map_err(|e| format!("S-40: group {id}: {e}"))?;
                if !same {
                    return Err(format!("S-40: footers of segment {} at {}", p.meta.file.0, p.meta.off));
                }
            }
            tails += tail_bytes(&group.lock());
        }
        // What is in memory is in the journal, and that has a budget, which one file more may exceed.
        let most = shard.opts.journal_budget + shard.opts.journal_file_max;
        if tails > most {
            return Err(format!("{tails} bytes in memory, a journal of at most {most}"));
        }
        if !shard.cache.is_within_budget() {
            return Err("S-90: a cache is beyond its budget".to_owned());
        }
    }
    Ok(())
}

fn tail_bytes(g: &Group) -> u64 {
    if g.memory { 0 } else { g.tail.iter().map(|t| t.entry.head.size()).sum() }
}
