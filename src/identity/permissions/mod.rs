//! Permissions of a user, compiled once and shared by all its connections.
//!
//! Does not cache per connection (the broker does, above [`Permissions::can_publish`]), knows no aliases of
//! configuration keys, and does not check that a client's subject is well formed: a malformed one matches nothing.
//!
//! Invariants, each observed on nats-server 2.15.1 unless it says otherwise:
//! - `P-1: deny wins` over allow, and only a reply grant wins over deny.
//! - `P-2: nothing denied is delivered`: a subscription that could see a denied subject is either refused or answered
//!   with [`Verdict::AllowFiltered`], and then [`Permissions::deny_on_delivery`] decides per message.
//! - `P-3: nothing outside allow is delivered`. nats-server accepts a subscription to `foo.>` where `foo.*` is allowed
//!   and then delivers `foo.a.b`. We accept it too, but as `AllowFiltered`, so only `foo.a` arrives.
//! - `P-4: a queue entry speaks for its queue`: where an allow list has entries with queues for a subject, a queue
//!   subscription must match one of them; a plain entry for the same subject no longer suffices.

mod config;
mod pattern;
mod set;
#[cfg(test)]
mod tests;

use set::{Entry, Hits, SubjectSet};

pub use config::{PermissionError, PermissionsConfig, ResponsePermission, SubjectPermission};

/// Who asks. Server links and MQTT sessions use subjects of their own that no administrator is made to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asker {
    /// A NATS client.
    #[default]
    Client,
    /// An MQTT client, which may use its own session's subjects.
    Mqtt,
    /// A leaf node, which may ask for more than it is allowed and gets what it is allowed.
    Leaf,
}

impl Asker {
    /// Whether `subject` needs no entry in an allow list. Deny lists still count.
    fn is_implied(self, subject: &[u8]) -> bool {
        match self {
            Asker::Client => false,
            Asker::Mqtt => {
                subject.starts_with(b"$MQTT.sub.") || subject.starts_with(b"$MQTT.deliver.pubrel.")
            }
            Asker::Leaf => subject.starts_with(b"$MQTT."),
        }
    }
}

/// The answer to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Refused.
    Deny,
    /// Granted; nothing it matches needs a further check.
    Allow,
    /// Granted, but each message must pass [`Permissions::deny_on_delivery`].
    AllowFiltered,
}

#[derive(Debug, Default)]
struct Rules {
    /// `None`: everything is allowed.
    allow: Option<SubjectSet>,
    deny: Option<SubjectSet>,
    allow_list: Vec<Entry>,
    deny_list: Vec<Entry>,
}

/// Compiled permissions. Cheap to share behind an `Arc`; immutable.
#[derive(Debug)]
pub struct Permissions {
    publish: Rules,
    subscribe: Rules,
    config: PermissionsConfig,
}

impl Permissions {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// The first entry that is no subject, or no subject and queue.
    pub fn compile(config: &PermissionsConfig) -> Result<Permissions, PermissionError> {
        let mut config = config.clone();
        config.responses = config.responses.map(ResponsePermission::with_defaults);
        let list =
            |texts: &[String]| texts.iter().map(|t| config::publish_entry(t)).collect::<Result<Vec<_>, _>>();
        let publish = Rules {
            // With allow_responses, silence means that only responses are allowed.
            allow: set_of(&list(&config.publish.allow)?, config.responses.is_some()),
            deny: set_of(&list(&config.publish.deny)?, false),
            ..Rules::default()
        };
        let list = |texts: &mut [String]| {
            let mut entries = Vec::with_capacity(texts.len());
            for text in texts {
                let (entry, normal) = config::subscribe_entry(text)?;
                entries.push(entry);
                *text = normal;
            }
            Ok(entries)
        };
        let (allow_list, deny_list) = (list(&mut config.subscribe.allow)?, list(&mut config.subscribe.deny)?);
        let subscribe = Rules {
            allow: set_of(&allow_list, false),
            deny: set_of(&deny_list, false),
            allow_list,
            deny_list,
        };
        Ok(Permissions { publish, subscribe, config })
    }

    /// Whether a client may publish to `subject`. Reply grants come on top: see [`crate::ReplyGrants`].
    pub fn can_publish(&self, subject: &[u8]) -> bool {
        self.can_publish_as(Asker::Client, subject)
    }

    /// As [`can_publish`](Self::can_publish), for other askers.
    pub fn can_publish_as(&self, asker: Asker, subject: &[u8]) -> bool {
        let allowed = match &self.publish.allow {
            None => true,
            Some(allow) => asker.is_implied(subject) || allow.contains(subject),
        };
        allowed && self.publish.deny.as_ref().is_none_or(|deny| !deny.contains(subject))
    }

    /// Whether publishing is restricted at all; if not, the publish path needs no check and no cache.
    pub fn restricts_publish(&self) -> bool {
        self.publish.allow.is_some() || self.publish.deny.is_some()
    }

    /// Whether a client may subscribe to `subject`, in `queue` unless that is empty.
    pub fn can_subscribe(&self, subject: &[u8], queue: &[u8]) -> Verdict {
        self.can_subscribe_as(Asker::Client, subject, queue)
    }

    /// As [`can_subscribe`](Self::can_subscribe), for other askers.
    pub fn can_subscribe_as(&self, asker: Asker, subject: &[u8], queue: &[u8]) -> Verdict {
        let rules = &self.subscribe;
        let wildcard = pattern::has_wildcard(subject);
        let mut filter = false;
        if let Some(allow) = &rules.allow
            && !asker.is_implied(subject)
        {
            if speaks(allow.hits(subject, queue)) {
                // Only `>` can reach beyond a pattern that matched it as a token (P-3).
                filter = pattern::ends_open(subject) && !rules.covers(subject, queue);
            } else if asker == Asker::Leaf && wildcard && rules.lies_within(subject) {
                filter = true;
            } else {
                return Verdict::Deny;
            }
        }
        if let Some(deny) = &rules.deny {
            let hits = deny.hits(subject, queue);
            if hits.plain || hits.queue {
                return Verdict::Deny;
            }
            filter = filter || (wildcard && rules.denies_part_of(subject, queue));
        }
        if filter { Verdict::AllowFiltered } else { Verdict::Allow }
    }

    /// Whether a message on `subject` must be withheld from a subscription in `queue` (empty: none) that was
    /// [`Verdict::AllowFiltered`]. `subject` is the one that the subscriber would see.
    pub fn deny_on_delivery(&self, subject: &[u8], queue: &[u8]) -> bool {
        let rules = &self.subscribe;
        let hit = |set: &SubjectSet| {
            let hits = set.hits(subject, queue);
            hits.plain || hits.queue
        };
        rules.deny.as_ref().is_some_and(hit) || rules.allow.as_ref().is_some_and(|allow| !hit(allow))
    }

    /// The `allow_responses` setting with its defaults filled in.
    pub fn responses(&self) -> Option<ResponsePermission> {
        self.config.responses
    }

    /// The configuration, entries normalised; serialises to what USER.INFO shows.
    pub fn config(&self) -> &PermissionsConfig {
        &self.config
    }

    /// The `permissions` object of USER.INFO.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.config).expect("lists of strings and numbers always serialise")
    }
}

/// P-4. Without a queue `any_queue` is never set, so the plain entries decide.
fn speaks(hits: Hits) -> bool {
    if hits.any_queue { hits.queue } else { hits.plain }
}

fn set_of(entries: &[Entry], even_if_empty: bool) -> Option<SubjectSet> {
    (even_if_empty || !entries.is_empty()).then(|| SubjectSet::new(entries))
}

impl Rules {
    fn speaking<'a>(list: &'a [Entry], queue: &'a [u8]) -> impl Iterator<Item = &'a Entry> {
        list.iter().filter(move |e| match &e.queue {
            None => true,
            Some(q) => !queue.is_empty() && q.matches(queue),
        })
    }

    /// Whether one allow entry covers all of `subject`.
    fn covers(&self, subject: &[u8], queue: &[u8]) -> bool {
        Self::speaking(&self.allow_list, queue).any(|e| pattern::is_subset(subject, &e.subject))
    }

    /// Whether an allow entry lies within the wildcard `subject`.
    fn lies_within(&self, subject: &[u8]) -> bool {
        Self::speaking(&self.allow_list, b"").any(|e| pattern::is_subset(&e.subject, subject))
    }

    /// Whether a deny entry overlaps the wildcard `subject`.
    fn denies_part_of(&self, subject: &[u8], queue: &[u8]) -> bool {
        Self::speaking(&self.deny_list, queue).any(|e| pattern::collides(&e.subject, subject))
    }
}
