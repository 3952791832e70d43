//! Permissions against a naive model. An input is lines: `+p`, `-p`, `+s`, `-s` and an entry; `r` with a number for
//! allow_responses; `?p` and a subject, `?s` and a subject and perhaps a queue to ask about. Subjects of `?p` are the
//! messages that are then delivered.

use identity::{Permissions, PermissionsConfig, ResponsePermission, Verdict};

use super::reaches;
use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut config = PermissionsConfig::default();
    let (mut publishes, mut subscriptions) = (Vec::new(), Vec::new());
    for line in text.split('\n').take(24) {
        let Some((what, rest)) = line.split_once(' ') else { continue };
        match what {
            "+p" => config.publish.allow.push(rest.to_string()),
            "-p" => config.publish.deny.push(rest.to_string()),
            "+s" => config.subscribe.allow.push(rest.to_string()),
            "-s" => config.subscribe.deny.push(rest.to_string()),
            "r" => {
                let max_messages = rest.trim().parse().unwrap_or(0);
                config.responses = Some(ResponsePermission { max_messages, expires_ns: 0 });
            }
            "?p" => publishes.push(rest),
            "?s" => subscriptions.push(rest.split_once(' ').unwrap_or((rest, ""))),
            _ => {}
        }
    }
    let blank = |s: &str| s.bytes().any(|b| b.is_ascii_whitespace());
    let subject = |s: &str| super::well_formed(s.as_bytes()) && !blank(s);
    let entry = |s: &str| {
        let words: Vec<&str> = s.split_whitespace().collect();
        (1..=2).contains(&words.len()) && words.iter().all(|w| subject(w))
    };
    let fine = config.publish.allow.iter().chain(&config.publish.deny).all(|s| subject(s))
        && config.subscribe.allow.iter().chain(&config.subscribe.deny).all(|s| entry(s));
    let compiled = Permissions::compile(&config);
    assert_eq!(compiled.is_ok(), fine, "{config:?}");
    let Ok(permissions) = compiled else { return seen("refused", about(config.publish.allow.len())) };
    assert!(serde_json::to_value(permissions.config()).is_ok_and(|v| v == permissions.to_json()));
    let again = Permissions::compile(permissions.config()).expect("what was normalised is in order");
    assert_eq!(again.config(), permissions.config());
    if let Some(r) = permissions.responses() {
        assert!(r.max_messages != 0 && r.expires_ns != 0, "the defaults are filled in");
        seen("responses", u64::from(r.max_messages > 0));
    }
    for s in &publishes {
        let in_list = |l: &[String]| l.iter().any(|e| reaches(s.as_bytes(), e.as_bytes()));
        let all = config.publish.allow.is_empty() && config.responses.is_none();
        let may = (all || in_list(&config.publish.allow)) && !in_list(&config.publish.deny);
        assert_eq!(permissions.can_publish(s.as_bytes()), may, "publish {s:?} under {config:?}");
        seen(if may { "may publish" } else { "may not publish" }, about(config.publish.deny.len()));
    }
    let split = |l: &[String]| l.iter().map(|e| Entry::new(e)).collect::<Vec<_>>();
    let (allow, deny) = (split(&config.subscribe.allow), split(&config.subscribe.deny));
    for (s, q) in subscriptions {
        subscription(&permissions, (&allow, &deny), s, q, &publishes);
    }
}

struct Entry {
    subject: String,
    queue: Option<String>,
}

impl Entry {
    fn new(text: &str) -> Entry {
        let mut words = text.split_whitespace().map(str::to_string);
        Entry { subject: words.next().expect("it was compiled"), queue: words.next() }
    }
    /// Whether its queue speaks of `queue`: by name, or as a pattern of it.
    fn speaks_of(&self, queue: &str) -> bool {
        let Some(mine) = &self.queue else { return false };
        let (q, m): (Vec<&str>, Vec<&str>) = (queue.split('.').collect(), mine.split('.').collect());
        let open = m.last() == Some(&">");
        let fixed = &m[..m.len() - usize::from(open)];
        // A queue need not be a subject: `*` wants some token, the tail wants anything.
        let fits = |(m, q): (&&str, &&str)| m == q && *m != "*" || *m == "*" && *q != ">" && !q.is_empty();
        let long_enough = if open { q.len() > fixed.len() } else { q.len() == fixed.len() };
        mine == queue || long_enough && fixed.iter().zip(&q).all(fits)
    }
}

/// Of the entries for `subject`: whether a plain one is there, one with any queue, and one with this queue.
fn hits(entries: &[Entry], subject: &str, queue: &str) -> (bool, bool, bool) {
    let of = |e: &&Entry| reaches(subject.as_bytes(), e.subject.as_bytes());
    let mine: Vec<&Entry> = entries.iter().filter(of).collect();
    let queued = !queue.is_empty();
    (
        mine.iter().any(|e| e.queue.is_none()),
        queued && mine.iter().any(|e| e.queue.is_some()),
        queued && mine.iter().any(|e| e.speaks_of(queue)),
    )
}

fn subscription(p: &Permissions, (allow, deny): (&[Entry], &[Entry]), s: &str, q: &str, messages: &[&str]) {
    // Others are refused by the protocol before anybody asks.
    let queue = q.is_empty() || subject::valid_queue(q.as_bytes());
    if !super::well_formed(s.as_bytes()) || !queue {
        p.can_subscribe(s.as_bytes(), q.as_bytes());
        return;
    }
    let (plain, any, queue) = hits(allow, s, q);
    // P-4, P-1
    let allowed = allow.is_empty() || if any { queue } else { plain };
    let (plain, _, queue) = hits(deny, s, q);
    let verdict = p.can_subscribe(s.as_bytes(), q.as_bytes());
    assert_eq!(verdict != Verdict::Deny, allowed && !plain && !queue, "subscribe {s:?} {q:?}: {verdict:?}");
    let tag = match verdict {
        Verdict::Deny => "deny",
        Verdict::Allow => "allow",
        Verdict::AllowFiltered => "filtered",
    };
    seen(tag, about(allow.len()) * 8 + about(deny.len()));
    if verdict == Verdict::Deny {
        return;
    }
    for m in
        messages.iter().filter(|m| subject::is_literal(m.as_bytes()) && reaches(m.as_bytes(), s.as_bytes()))
    {
        let (plain, _, queue) = hits(allow, m, q);
        let (denied, _, denied_queue) = hits(deny, m, q);
        let expected = !(allow.is_empty() || plain || queue) || denied || denied_queue;
        let withheld = verdict == Verdict::AllowFiltered && p.deny_on_delivery(m.as_bytes(), q.as_bytes());
        assert_eq!(withheld, expected, "P-2, P-3: {m:?} to {s:?} {q:?}, {verdict:?}");
        seen(if withheld { "withheld" } else { "let through" }, u64::from(q.is_empty()));
    }
}
