//! `/subsz`: interest.

use broker::Account;
use serde::Serialize;

use super::{
    connz::{SubDetail, page},
    json::{Time, is_default},
    options::SubszOptions,
};
use crate::Server;

/// The answer. Field names, order and omission are nats-server's.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Subsz {
    pub server_id: String,
    pub now: Time,
    #[serde(flatten)]
    pub stats: InterestStats,
    /// Of those that were asked for; 0 where no list was.
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub subscriptions_list: Vec<SubDetail>,
}

/// Counters of one or all accounts' interest.
///
/// nats-server keeps matched subjects in a cache per account. Here each connection has its own plans, so that there is
/// no shared cache to report: its size and the fan-out of its entries are zero, and matches are those that no plan
/// answered.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct InterestStats {
    pub num_subscriptions: usize,
    pub num_cache: usize,
    pub num_inserts: u64,
    pub num_removes: u64,
    pub num_matches: u64,
    pub cache_hit_rate: f64,
    pub max_fanout: usize,
    pub avg_fanout: f64,
}

impl InterestStats {
    /// Of these accounts together.
    pub fn of<'a>(accounts: impl IntoIterator<Item = &'a std::sync::Arc<Account>>) -> InterestStats {
        accounts.into_iter().fold(InterestStats::default(), |mut all, a| {
            all.num_subscriptions += a.subscriptions();
            all.num_inserts += a.stats.inserts.get();
            all.num_removes += a.stats.removes.get();
            all.num_matches += a.stats.matches.get();
            all
        })
    }
}

/// Interest. The error is a sentence: the subject to be tested cannot be published to.
pub fn subsz(s: &Server, o: &SubszOptions) -> Result<Subsz, String> {
    let test = Some(o.test.as_bytes()).filter(|t| !t.is_empty());
    if test.is_some_and(|t| !subject::is_literal(t)) {
        return Err(format!("invalid test subject, must be valid publish subject: {}", o.test));
    }
    let (offset, limit) = page(o.offset, o.limit);
    let accounts = if o.account.is_empty() {
        s.broker.accounts()
    } else {
        s.broker.account(&o.account).into_iter().collect()
    };
    let mut total = 0;
    let mut subscriptions_list = Vec::new();
    if o.subscriptions {
        for a in &accounts {
            let mut all = match test {
                Some(t) => a.matching(t),
                None => a.list_subscriptions(),
            };
            all.sort_by_cached_key(|s| (s.link.id, s.sid().len(), s.sid().to_vec()));
            // A page goes over all accounts' lists, one behind the other.
            let skip = offset.saturating_sub(total).min(all.len());
            let room = limit - subscriptions_list.len();
            subscriptions_list
                .extend(all[skip..].iter().take(room).map(|s| SubDetail::of(s, &account_of(s, a))));
            total += all.len();
        }
    }
    Ok(Subsz {
        server_id: s.id().to_string(),
        now: Time(env::wall()),
        stats: InterestStats::of(&accounts),
        total,
        offset,
        limit,
        subscriptions_list,
    })
}

/// The account of who subscribed, which is another one for imports.
fn account_of(s: &broker::Sub, stands_in: &Account) -> String {
    s.link.account().map_or_else(|| stands_in.name.to_string(), |a| a.name.to_string())
}
