//! Tables observed on nats-server 2.15.1, and a naive model.

use proptest::prelude::*;

use super::*;

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

fn sub(allow: &[&str], deny: &[&str]) -> Permissions {
    let subscribe = SubjectPermission { allow: list(allow), deny: list(deny) };
    Permissions::compile(&PermissionsConfig { subscribe, ..Default::default() }).unwrap()
}

fn publish(allow: &[&str], deny: &[&str]) -> Permissions {
    let publish = SubjectPermission { allow: list(allow), deny: list(deny) };
    Permissions::compile(&PermissionsConfig { publish, ..Default::default() }).unwrap()
}

fn ask(p: &Permissions, subject_and_queue: &str) -> Verdict {
    let (subject, queue) = subject_and_queue.split_once(' ').unwrap_or((subject_and_queue, ""));
    p.can_subscribe(subject.as_bytes(), queue.as_bytes())
}

/// Splits `cases` at `|`: granted on the left, refused on the right.
fn check_sub(allow: &[&str], deny: &[&str], granted: &[&str], refused: &[&str]) {
    let p = sub(allow, deny);
    for case in granted {
        assert_ne!(ask(&p, case), Verdict::Deny, "allow {allow:?} deny {deny:?}: {case}");
    }
    for case in refused {
        assert_eq!(ask(&p, case), Verdict::Deny, "allow {allow:?} deny {deny:?}: {case}");
    }
}

#[test]
fn subscriptions_as_observed() {
    check_sub(
        &["foo.*"],
        &[],
        &["foo.>", "foo.*", "foo.bar"],
        &["foo", "*.bar", ">", "foo.*.x", "foo.bar.baz", "foo..", "", ".foo.a"],
    );
    check_sub(
        &["foo.*.x", "a.>"],
        &[],
        &["foo.*.x", "a.>", "a.*", "a.b.c"],
        &["foo.>", "foo.*.>", "foo.b.*", "a", "*.b"],
    );
    check_sub(&[], &["foo.>"], &["foo", "*.bar", ">", "*", "*.*"], &["foo.*", "foo.>", "foo.bar"]);
    check_sub(&[], &["foo"], &[">", "*", "foo.*", "> q"], &["foo", "foo q"]);
    check_sub(&[], &["foo.*"], &["foo.*.x", "*.>", "*.*"], &["foo.>", "foo.*", "foo.bar"]);
}

#[test]
fn p_1_deny_wins() {
    check_sub(&["foo"], &["foo"], &[], &["foo", "foo q"]);
    let p = publish(&["a", "b.*", "c.>"], &["b.x", "c.*.e"]);
    for ok in ["a", "b.y", "c.d", "c.d.e.f", "b.*", "c.>", "b.>"] {
        assert!(p.can_publish(ok.as_bytes()), "{ok}");
    }
    for no in ["b", "b.x", "b.x.y", "c", "c.d.e", "", "a.", "c..d"] {
        assert!(!p.can_publish(no.as_bytes()), "{no}");
    }
    let p = publish(&[], &["b.x", "c.*.e"]);
    for (subject, ok) in
        [("a", true), ("b.*", true), ("c.>", true), ("b.x", false), ("c.*.e", false), ("c.>.e", false)]
    {
        assert_eq!(p.can_publish(subject.as_bytes()), ok, "{subject}");
    }
}

#[test]
fn p_4_a_queue_entry_speaks_for_its_queue() {
    check_sub(
        &["foo q1", "bar", "baz q.*", "qux *.prod", "z >", "w q", "w"],
        &[],
        &["foo q1", "bar", "bar q1", "baz q.1", "baz q.*", "qux a.prod", "z any", "w", "w q"],
        &["foo", "foo q2", "baz", "baz q", "baz q.1.2", "baz q.>", "qux prod", "z", "w other"],
    );
    check_sub(&["foo q1", "foo.* q2", ">"], &[], &["foo", "foo q1", "foo.x q2"], &["foo q2", "foo.x q1"]);
    check_sub(
        &[">"],
        &["foo q1", "> *.dev", "bar", "baz >"],
        &["foo", "foo q2", "x a.prod", "baz", "> q1", ">", "* q1", "*"],
        &[
            "foo q1",
            "bar",
            "bar q1",
            "x a.dev",
            "baz q",
            "baz a.b",
            "foo.* a.dev",
            "foo a.dev",
            "bar a.dev",
            "bar a.prod",
        ],
    );
    check_sub(&[], &["foo q1", "foo"], &[], &["foo", "foo q1", "foo q2"]);
    // Queue names that are no subjects.
    check_sub(
        &["foo q.*", "bar >", "baz a.>"],
        &[],
        &["foo q.x", "bar a..b", "bar .", "baz a.", "baz a..b"],
        &["foo q.", "baz .a"],
    );
    check_sub(&[], &["foo.* q1"], &["foo.a", "foo.a q2", "> q1"], &["foo.a q1", "foo.* q1", "foo.> q1"]);
}

/// Allow, deny, the subscription, what is published, what arrives.
type DeliveryCase = (Texts, Texts, &'static str, Texts, Texts);
type Texts = &'static [&'static str];

/// What of `published` reaches a subscription, or `None` where it is refused.
fn seen(p: &Permissions, subscription: &str, published: &[&str]) -> Option<Vec<String>> {
    let (subject, queue) = subscription.split_once(' ').unwrap_or((subscription, ""));
    let verdict = p.can_subscribe(subject.as_bytes(), queue.as_bytes());
    let passes = |m: &str| verdict == Verdict::Allow || !p.deny_on_delivery(m.as_bytes(), queue.as_bytes());
    (verdict != Verdict::Deny).then(|| {
        let hit = published.iter().filter(|m| pattern::is_subset(m.as_bytes(), subject.as_bytes()));
        hit.filter(|m| passes(m)).map(|m| (*m).to_owned()).collect()
    })
}

#[test]
fn p_2_nothing_denied_is_delivered() {
    let cases: &[DeliveryCase] = &[
        (&[], &["foo"], ">", &["foo", "bar"], &["bar"]),
        (&[], &["foo"], "* q", &["foo", "bar"], &["bar"]),
        (&[], &["foo.>"], ">", &["foo.a", "x.a", "foo"], &["x.a", "foo"]),
        (&[], &["foo.>"], "*.a", &["foo.a", "x.a", "foo"], &["x.a"]),
        (&[], &["foo.>"], "*.*", &["foo.a", "x.a", "foo"], &["x.a"]),
        (&[], &["*.a"], "foo.*", &["foo.a", "foo.b"], &["foo.b"]),
        (&[], &["foo q1"], ">", &["foo", "bar"], &["foo", "bar"]),
        (&[], &["foo q1"], "> q1", &["foo", "bar"], &["bar"]),
        (&[], &["foo q1"], "* q2", &["foo", "bar"], &["foo", "bar"]),
        (&[], &["foo.* q1", "foo.x"], "> q1", &["foo.b", "foo.x", "bar.a"], &["bar.a"]),
        (&[], &["foo.* q1", "foo.x"], "*.* q2", &["foo.b", "foo.x", "bar.a"], &["foo.b", "bar.a"]),
        (&[], &["foo.* q1", "foo.x"], "*.*", &["foo.b", "foo.x", "bar.a"], &["foo.b", "bar.a"]),
        (&[], &["foo q.*"], "> q.1", &["foo", "bar"], &["bar"]),
        (&[], &["foo q.*"], "* q.*", &["foo", "bar"], &["bar"]),
        (&[], &["foo q.*"], "* q", &["foo", "bar"], &["foo", "bar"]),
        (&["> q1", "foo"], &[], "> q1", &["foo", "bar"], &["foo", "bar"]),
        (
            &["foo.>", "bar.*"],
            &["foo.secret.>"],
            "foo.>",
            &["foo.secret.x", "foo.secret", "foo.p.x"],
            &["foo.secret", "foo.p.x"],
        ),
        (&["foo.>", "bar.*"], &["foo.secret.>"], "foo.*.x", &["foo.secret.x", "foo.p.x"], &["foo.p.x"]),
    ];
    for (allow, deny, subscription, published, expected) in cases {
        let got = seen(&sub(allow, deny), subscription, published);
        assert_eq!(got, Some(list(expected)), "allow {allow:?} deny {deny:?} sub {subscription}");
    }
    assert_eq!(ask(&sub(&[], &["foo"]), "bar.*"), Verdict::Allow, "no overlap, no filter");
    assert_eq!(ask(&sub(&[], &["foo"]), "bar"), Verdict::Allow);
    assert_eq!(
        ask(&sub(&[], &["foo q1"]), "*"),
        Verdict::Allow,
        "a queue's denial is not a plain subscription's"
    );
}

#[test]
fn p_3_nothing_outside_allow_is_delivered() {
    let p = sub(&["foo.*"], &[]);
    assert_eq!(ask(&p, "foo.>"), Verdict::AllowFiltered);
    assert_eq!(seen(&p, "foo.>", &["foo.a", "foo.a.b"]), Some(list(&["foo.a"])));
    assert_eq!(ask(&p, "foo.*"), Verdict::Allow);
    assert_eq!(ask(&sub(&["*"], &[]), ">"), Verdict::AllowFiltered);
    assert_eq!(ask(&sub(&["foo.>"], &[]), "foo.*.>"), Verdict::Allow);
}

#[test]
fn responses_close_publish_unless_allow_is_given() {
    let responses = Some(ResponsePermission { max_messages: 0, expires_ns: 0 });
    let p = Permissions::compile(&PermissionsConfig { responses, ..Default::default() }).unwrap();
    assert!(p.restricts_publish() && !p.can_publish(b"svc"));
    assert_eq!(p.responses(), Some(ResponsePermission { max_messages: 1, expires_ns: 120_000_000_000 }));
    assert_eq!(ask(&p, ">"), Verdict::Allow);
    let publish = SubjectPermission { allow: list(&["svc"]), deny: vec![] };
    let p = Permissions::compile(&PermissionsConfig { publish, responses, ..Default::default() }).unwrap();
    assert!(p.can_publish(b"svc") && !p.can_publish(b"r.1"));
    assert!(!Permissions::compile(&PermissionsConfig::default()).unwrap().restricts_publish());
}

#[test]
fn other_askers() {
    let p = publish(&["a"], &["$MQTT.sub.x"]);
    assert!(p.can_publish_as(Asker::Mqtt, b"$MQTT.sub.y") && !p.can_publish_as(Asker::Mqtt, b"$MQTT.sub.x"));
    assert!(!p.can_publish_as(Asker::Mqtt, b"$MQTT.other") && p.can_publish_as(Asker::Leaf, b"$MQTT.other"));
    assert!(!p.can_publish(b"$MQTT.sub.y"));
    let p = sub(&["foo.a"], &["foo.b"]);
    assert_eq!(p.can_subscribe_as(Asker::Leaf, b"foo.*", b""), Verdict::AllowFiltered);
    assert!(!p.deny_on_delivery(b"foo.a", b"") && p.deny_on_delivery(b"foo.c", b""));
    assert_eq!(p.can_subscribe_as(Asker::Leaf, b"bar.*", b""), Verdict::Deny);
    assert_eq!(p.can_subscribe_as(Asker::Leaf, b"foo.b", b""), Verdict::Deny);
    assert_eq!(p.can_subscribe_as(Asker::Mqtt, b"$MQTT.sub.y", b""), Verdict::Allow);
}

#[test]
fn shape_of_user_info() {
    let json = |c: &PermissionsConfig| Permissions::compile(c).unwrap().to_json().to_string();
    assert_eq!(json(&PermissionsConfig::default()), r#"{"publish":{},"subscribe":{}}"#);
    let config = PermissionsConfig {
        publish: SubjectPermission { allow: list(&["$SYS.>"]), deny: list(&["z"]) },
        subscribe: SubjectPermission { allow: list(&["a q1", "r"]), deny: list(&["b", " c  q.* "]) },
        responses: Some(ResponsePermission { max_messages: -1, expires_ns: 90_000_000_000 }),
    };
    assert_eq!(
        json(&config),
        r#"{"publish":{"allow":["$SYS.>"],"deny":["z"]},"subscribe":{"allow":["a q1","r"],"deny":["b","c q.*"]},"responses":{"max":-1,"ttl":90000000000}}"#
    );
    let default = PermissionsConfig { responses: Some(ResponsePermission::default()), ..Default::default() };
    assert!(json(&default).ends_with(r#""responses":{"max":1,"ttl":120000000000}}"#));
}

#[test]
fn bad_entries_are_refused_with_the_texts_of_nats_server() {
    let error = |publish: &str, subscribe: &str| {
        let mut c = PermissionsConfig::default();
        c.publish.allow.extend((!publish.is_empty()).then(|| publish.to_owned()));
        c.subscribe.deny.extend((publish.is_empty()).then(|| subscribe.to_owned()));
        Permissions::compile(&c).unwrap_err().to_string()
    };
    for bad in ["a q", "a..b", "a.>.b", " a "] {
        assert_eq!(error(bad, ""), format!("subject \"{bad}\" is not a valid subject"));
    }
    assert_eq!(error("", ""), "subject \"\" is not a valid subject");
    assert_eq!(error("", "a q w"), "subject \"a q w\" is not a valid subject");
    assert_eq!(error("", "a q..x"), "queue \"q..x\" is not a valid queue");
    assert_eq!(ask(&sub(&["a q>x"], &[]), "a q>x"), Verdict::Allow);
}

#[test]
fn very_deep_patterns_and_subjects_do_not_exhaust_the_stack() {
    let deep = vec!["*"; 2_000].join(".");
    let deeper = vec!["a"; 200_000].join(".");
    let p = sub(&[&deep, &deeper], &[&format!("{deep}.>")]);
    assert_eq!(ask(&p, &deep), Verdict::Allow);
    assert_eq!(ask(&p, &vec!["a"; 2_000].join(".")), Verdict::Allow);
    assert_eq!(ask(&p, &deeper), Verdict::Deny);
    assert_eq!(ask(&p, &vec!["a"; 1_999].join(".")), Verdict::Deny);
}

/// How nats-server looks a subject up: the subject's own wildcards are plain tokens.
fn naive_match(subject: &str, entry: &str) -> bool {
    let (s, p): (Vec<_>, Vec<_>) = (subject.split('.').collect(), entry.split('.').collect());
    if s.contains(&"") {
        return false;
    }
    for (i, token) in p.iter().enumerate() {
        match (*token, s.get(i)) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (t, Some(u)) if t == *u => {}
            _ => return false,
        }
    }
    s.len() == p.len()
}

fn naive_queue(queue: &str, entry: &str) -> bool {
    queue == entry || (entry.contains(['*', '>']) && pattern::is_subset(queue.as_bytes(), entry.as_bytes()))
}

struct Naive {
    plain: bool,
    any_queue: bool,
    queue: bool,
}

fn naive(entries: &[String], subject: &str, queue: &str) -> Naive {
    let mut n = Naive { plain: false, any_queue: false, queue: false };
    for e in entries {
        let (s, q) = e.split_once(' ').unwrap_or((e, ""));
        if !naive_match(subject, s) {
            continue;
        }
        if q.is_empty() {
            n.plain = true;
        } else if !queue.is_empty() {
            n.any_queue = true;
            n.queue |= naive_queue(queue, q);
        }
    }
    n
}

fn subject() -> impl Strategy<Value = String> {
    let token = prop_oneof![4 => Just("a"), 3 => Just("b"), 2 => Just("*")];
    (proptest::collection::vec(token, 1..5), 0..4).prop_map(|(mut t, open)| {
        if open == 0 {
            *t.last_mut().expect("one token at least") = ">";
        }
        t.join(".")
    })
}

fn literal() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![4 => Just("a"), 3 => Just("b"), 1 => Just("c")], 1..5)
        .prop_map(|t| t.join("."))
}

fn entries() -> impl Strategy<Value = Vec<String>> {
    let queue = prop_oneof![3 => Just(""), 1 => Just(" q"), 1 => Just(" q.*"), 1 => Just(" >")];
    proptest::collection::vec((subject(), queue).prop_map(|(s, q)| format!("{s}{q}")), 0..6)
}

fn queue() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just(""), 1 => Just("q"), 1 => Just("q.1"), 1 => Just("q.*"), 1 => Just("x")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn subscribe_agrees_with_a_naive_model(allow in entries(), deny in entries(), s in subject(), q in queue(), messages in proptest::collection::vec(literal(), 8)) {
        let config = PermissionsConfig { subscribe: SubjectPermission { allow: allow.clone(), deny: deny.clone() }, ..Default::default() };
        let p = Permissions::compile(&config).unwrap();
        let a = naive(&allow, &s, q);
        let d = naive(&deny, &s, q);
        let allowed = allow.is_empty() || if a.any_queue { a.queue } else { a.plain };
        let granted = allowed && !d.plain && !d.queue;
        let verdict = p.can_subscribe(s.as_bytes(), q.as_bytes());
        prop_assert_eq!(verdict != Verdict::Deny, granted);
        if !granted {
            return Ok(());
        }
        for m in messages.iter().filter(|m| naive_match(m, &s)) {
            let d = naive(&deny, m, q);
            let a = naive(&allow, m, q);
            let withheld = verdict == Verdict::AllowFiltered && p.deny_on_delivery(m.as_bytes(), q.as_bytes());
            // P-2 and P-3, and nothing else is withheld.
            prop_assert_eq!(withheld, d.plain || d.queue || !(allow.is_empty() || a.plain || a.queue), "{}", m);
        }
    }

    #[test]
    fn publish_agrees_with_a_naive_model(allow in proptest::collection::vec(subject(), 0..6), deny in proptest::collection::vec(subject(), 0..6), s in prop_oneof![subject(), literal(), "[ab.*>]{0,8}"]) {
        let config = PermissionsConfig { publish: SubjectPermission { allow: allow.clone(), deny: deny.clone() }, ..Default::default() };
        let p = Permissions::compile(&config).unwrap();
        let expected = (allow.is_empty() || allow.iter().any(|e| naive_match(&s, e))) && !deny.iter().any(|e| naive_match(&s, e));
        prop_assert_eq!(p.can_publish(s.as_bytes()), expected);
    }

    #[test]
    fn no_entry_and_no_subject_panics(entry in "\\PC{0,20}", wild in "[ab.*> ]{0,12}", bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
        for e in [entry, wild] {
            let mut c = PermissionsConfig::default();
            c.subscribe.deny.push(e.clone());
            if let Ok(p) = Permissions::compile(&c) {
                let _ = (p.can_subscribe(&bytes, &bytes), p.deny_on_delivery(&bytes, b""));
            }
            c.publish.allow.push(e);
            if let Ok(p) = Permissions::compile(&c) {
                prop_assert!(!p.can_publish(b""));
                let _ = p.can_publish(&bytes);
            }
        }
    }
}
