//! The accounts that all storms share, as a configuration file, and the reference model: who may see what, and under
//! which subject. The model shares no code with the server: it matches subjects token by token.
//!
//! Queue names are never shared between accounts, so that a queue name alone names a group.

use crate::options::Options;

/// Who may log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// Name and password.
    pub name: &'static str,
    /// Its account.
    pub account: char,
    /// Whether the permissions of [`PUBLISH`] and [`SUBSCRIBE`] apply.
    pub limited: bool,
}

/// The users, by number.
pub const USERS: [User; 4] = [
    User { name: "a", account: 'A', limited: false },
    User { name: "ap", account: 'A', limited: true },
    User { name: "b", account: 'B', limited: false },
    User { name: "c", account: 'C', limited: false },
];

/// A list of patterns that are allowed and one of those that are not.
pub struct Permission {
    allow: &'static [&'static str],
    deny: &'static [&'static str],
}
/// What the limited user may publish.
pub const PUBLISH: Permission =
    Permission { allow: &["t.>", "ex.*", "svc.>", "_INBOX.>", "_R_.>"], deny: &["t.c.>"] };
/// What the limited user may subscribe to.
pub const SUBSCRIBE: Permission = Permission { allow: &["t.>", "svc.>", "_INBOX.>"], deny: &["t.b.*"] };

/// The account that exports the service.
pub const EXPORTER: char = 'A';
/// Where unanswered requests of services are forgotten after, in seconds.
pub const RESPONSE_SECS: u64 = 4;

/// The configuration file. `variant` is what a reload changes: timers and limits that take nothing away.
pub fn config(o: &Options, variant: u64) -> String {
    let list = |l: &[&str]| l.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
    let permission = |p: &Permission| format!("{{ allow: [{}], deny: [{}] }}", list(p.allow), list(p.deny));
    let mut text = format!(
        r#"
listen: "0.0.0.0:4222"
server_name: storm
max_payload: {}
max_pending: {}
max_control_line: {}
ping_interval: "{}s"
ping_max: {}
write_deadline: "{}ms"
no_fast_producer_stall: {}
lame_duck_duration: "30s"
lame_duck_grace_period: "{}s"
debug: {}
"#,
        o.max_payload,
        o.max_pending,
        o.max_control_line,
        o.ping_interval_s + variant % 2,
        o.ping_max,
        o.write_deadline_ms + variant % 3,
        o.no_stall,
        1 + o.seed % 5,
        variant % 2 == 1,
    );
    if o.max_subscriptions > 0 {
        text += &format!("max_subscriptions: {}\n", o.max_subscriptions);
    }
    text += &format!(
        r#"
accounts {{
  A {{
    users: [
      {{ user: a, password: a }}
      {{ user: ap, password: ap, permissions: {{ publish: {}, subscribe: {} }} }}
    ]
    exports: [
      {{ stream: "ex.>" }}
      {{ stream: "px.*", accounts: [B] }}
      {{ service: "svc.>", response_threshold: "{RESPONSE_SECS}s" }}
    ]
    mappings: {{ "map.*.k": "mapped.$1"{} }}
  }}
  B {{
    users: [ {{ user: b, password: b }} ]
    imports: [
      {{ stream: {{ account: A, subject: "ex.>" }}, prefix: "fa" }}
      {{ stream: {{ account: A, subject: "px.*" }} }}
      {{ service: {{ account: A, subject: "svc.>" }} }}
    ]
  }}
  C {{
    users: [ {{ user: c, password: c }}{} ]
    exports: [ {{ stream: "ex.>" }} ]
  }}
}}
"#,
        permission(&PUBLISH),
        permission(&SUBSCRIBE),
        // What is added touches nobody who is there.
        if variant % 2 == 1 { ", \"zz.*\": \"yy.$1\"" } else { "" },
        if variant > 1 { ", { user: z, password: z }" } else { "" },
    );
    text
}

/// Whether `pattern` matches `subject`, which may itself be a pattern (then: all of it).
pub fn matches(pattern: &str, subject: &str) -> bool {
    let (mut p, mut s) = (pattern.split('.'), subject.split('.'));
    loop {
        match (p.next(), s.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(t)) if t != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

impl Permission {
    /// Whether a whole pattern, or a subject, is allowed.
    pub fn allows(&self, subject: &str) -> bool {
        self.allow.iter().any(|p| matches(p, subject)) && !self.denies(subject)
    }
    /// Whether a subject is denied.
    pub fn denies(&self, subject: &str) -> bool {
        self.deny.iter().any(|p| matches(p, subject))
    }
}

impl User {
    /// What the account's mappings make of a subject.
    pub fn mapped(&self, subject: &str) -> String {
        if self.account == 'A' {
            let tokens: Vec<&str> = subject.split('.').collect();
            if let ["map", x, "k"] = tokens[..] {
                return format!("mapped.{x}");
            }
        }
        subject.to_owned()
    }
    /// Whether the user may publish that.
    pub fn may_publish(&self, subject: &str) -> bool {
        !self.limited || PUBLISH.allows(&self.mapped(subject))
    }
    /// Whether the user may subscribe to that.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        !self.limited || SUBSCRIBE.allows(filter)
    }
    /// Under which subject a message of this user reaches a subscription of `to` for `filter`, if it does.
    pub fn reaches(&self, subject: &str, to: &User, filter: &str) -> Option<String> {
        if !self.may_publish(subject) || !to.may_subscribe(filter) {
            return None;
        }
        through(self.account, &self.mapped(subject), to, filter)
    }
}

/// The same for a message that stands in an account after mapping.
pub fn through(account: char, subject: &str, to: &User, filter: &str) -> Option<String> {
    let local = match (account, to.account) {
        (a, b) if a == b => subject.to_owned(),
        ('A', 'B') if matches("ex.>", subject) => format!("fa.{subject}"),
        ('A', 'B') if matches("px.*", subject) => subject.to_owned(),
        ('B', 'A') if matches("svc.>", subject) => subject.to_owned(),
        _ => return None,
    };
    let denied = to.limited && SUBSCRIBE.denies(&local);
    (matches(filter, &local) && !denied).then_some(local)
}

/// Whether a request with this subject leaves its account as the request of a service.
pub fn is_service(account: char, subject: &str) -> bool {
    account == 'B' && matches("svc.>", subject)
}

/// Subjects to publish to.
pub const SUBJECTS: [&str; 20] = [
    "t.a", "t.b", "t.c", "t.a.a", "t.a.b", "t.b.a", "t.b.b", "t.c.a", "ex.a", "ex.b", "ex.a.b", "px.a",
    "px.b", "map.a.k", "map.b.k", "svc.a", "svc.b", "mapped.a", "fa.ex.a", "other",
];
/// Subjects to send requests to.
pub const REQUESTS: [&str; 6] = ["svc.a", "svc.b", "svc.a.b", "t.a", "t.b.a", "nobody.home"];
/// Patterns to subscribe to.
pub const FILTERS: [&str; 24] = [
    "t.a", "t.*", "t.>", "t.*.a", "t.a.*", "t.*.*", ">", "*.a", "ex.>", "ex.*", "ex.a", "fa.>", "fa.ex.*",
    "mapped.*", "mapped.a", "svc.*", "svc.>", "svc.a", "px.*", "px.a", "*.*.*", "fa.ex.a", "t.b.a", "*.>",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (p, s, yes) in [
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a.b", true),
            ("a.*", "a.*", true),
            ("a.*", "a.>", false),
            ("a.>", "a.>", true),
            ("a.b", "a.*", false),
        ] {
            assert_eq!(matches(p, s), yes, "{p} {s}");
        }
    }

    #[test]
    fn ways_between_accounts() {
        let [a, ap, b, c] = USERS;
        assert_eq!(a.reaches("ex.a", &b, "fa.>").as_deref(), Some("fa.ex.a"));
        assert_eq!(a.reaches("ex.a", &b, "ex.>"), None);
        assert_eq!(a.reaches("ex.a", &c, ">"), None);
        assert_eq!(b.reaches("svc.a", &a, "svc.*").as_deref(), Some("svc.a"));
        assert_eq!(b.reaches("ex.a", &a, ">"), None);
        assert_eq!(a.reaches("map.a.k", &a, "mapped.*").as_deref(), Some("mapped.a"));
        assert_eq!(ap.reaches("t.c.a", &a, ">"), None);
        assert_eq!(a.reaches("t.b.a", &ap, "t.>"), None);
        assert_eq!(a.reaches("t.b.a", &ap, "t.b.a"), None);
    }
}
