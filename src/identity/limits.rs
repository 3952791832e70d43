//! Connection and account limits as data. Who counts and refuses is the broker's business.

/// Limits of a user or an account. `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once, leaf nodes included.
    pub max_connections: Option<u64>,
    /// Subscriptions at once, per connection.
    pub max_subscriptions: Option<u64>,
    /// Largest message in bytes, headers included.
    pub max_payload: Option<u64>,
    /// Leaf node connections at once.
    pub max_leafnodes: Option<u64>,
}

impl Limits {
    /// No limit at all.
    pub const UNLIMITED: Limits =
        Limits { max_connections: None, max_subscriptions: None, max_payload: None, max_leafnodes: None };

    /// Reads a configured or claimed number: negative means unlimited, everything else is the limit itself.
    pub fn number(value: i64) -> Option<u64> {
        u64::try_from(value).ok()
    }

    /// The tighter of the two in every dimension: what holds for a user in an account, or for an account on a server.
    #[must_use]
    pub fn min(self, other: Limits) -> Limits {
        Limits {
            max_connections: tighter(self.max_connections, other.max_connections),
            max_subscriptions: tighter(self.max_subscriptions, other.max_subscriptions),
            max_payload: tighter(self.max_payload, other.max_payload),
            max_leafnodes: tighter(self.max_leafnodes, other.max_leafnodes),
        }
    }
}

fn tighter(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_limit_wins_and_unlimited_never_does() {
        let user = Limits { max_payload: Some(10), max_connections: Some(5), ..Limits::UNLIMITED };
        let account = Limits { max_payload: Some(7), max_subscriptions: Some(0), ..Limits::UNLIMITED };
        let both = user.min(account);
        assert_eq!(both, account.min(user));
        assert_eq!(
            both,
            Limits {
                max_payload: Some(7),
                max_connections: Some(5),
                max_subscriptions: Some(0),
                max_leafnodes: None
            }
        );
        assert_eq!(user.min(Limits::UNLIMITED), user);
        assert_eq!((Limits::number(-1), Limits::number(0), Limits::number(9)), (None, Some(0), Some(9)));
    }
}
