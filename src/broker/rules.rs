//! What accounts give to and take from each other, as plain data, and whether it fits together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use subject::{Mappings, Transform};

/// Latency of a service is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyRule {
    /// Percent of requests; `None`: those that carry a trace header.
    pub sampling: Option<u8>,
    /// Where results go, in the exporter's account.
    pub subject: Vec<u8>,
}

/// Messages with a sampled `traceparent` are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRule {
    /// Where traces go, in the same account.
    pub subject: Vec<u8>,
    /// Percent of such messages.
    pub sampling: u8,
}

/// How many answers a service gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Responses {
    /// One message.
    #[default]
    One,
    /// Any number, until nothing has come for the threshold.
    Many,
    /// Any number, up to an empty one.
    Chunked,
}

/// What others may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// A service (requests come in) rather than a stream (messages go out).
    pub service: bool,
    /// What may be imported; a pattern.
    pub subject: Vec<u8>,
    /// The accounts that may, if not all.
    pub accounts: Option<Vec<Arc<str>>>,
    /// The token (from 1) of an imported subject that must be the importer's name; 0 for none.
    pub account_token: usize,
    /// Services: how many answers.
    pub responses: Responses,
    /// Services: how long an answer may take.
    pub threshold: Duration,
    /// Services: measured latency.
    pub latency: Option<LatencyRule>,
    /// Services: traces of messages may pass.
    pub allow_trace: bool,
}

/// What is taken from another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// A service rather than a stream.
    pub service: bool,
    /// Whose.
    pub account: Arc<str>,
    /// Its subject there; a pattern.
    pub subject: Vec<u8>,
    /// Its subject here, if another: a pattern with `*`, or a destination with `$1` for streams.
    pub to: Option<Vec<u8>>,
    /// Services: the exporter learns who asks.
    pub share: bool,
    /// Streams: traces of messages may pass.
    pub allow_trace: bool,
}

/// What an account is told.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What it gives.
    pub exports: Vec<Export>,
    /// What it takes.
    pub imports: Vec<Import>,
    /// Renaming of what is published in it.
    pub mappings: Mappings,
    /// Limits.
    pub limits: crate::AccountLimits,
    /// Traces of messages.
    pub trace: Option<TraceRule>,
}

impl Import {
    /// The pattern under which it appears in the importing account.
    pub fn local(&self) -> Vec<u8> {
        match &self.to {
            Some(to) => subject::transform::starred(to),
            None => self.subject.clone(),
        }
    }
    /// Whether `to` says which of the exporter's wildcards stands where.
    fn is_numbered(&self) -> bool {
        self.to.as_ref().is_some_and(|to| subject::transform::starred(to) != *to)
    }
    /// Local subjects to the exporter's (requests of a service).
    pub fn outward(&self) -> Result<Transform, String> {
        let local = self.local();
        if self.is_numbered() {
            let back = self.inward()?.inverse();
            return back.ok_or_else(|| format!("no way back from {:?}", String::from_utf8_lossy(&local)));
        }
        let dest = subject::transform::numbered(&self.subject);
        Transform::strict(&local, &dest).map_err(|e| e.to_string())
    }
    /// The exporter's subjects to local ones (messages of a stream).
    pub fn inward(&self) -> Result<Transform, String> {
        let dest = self.to.clone().unwrap_or_else(|| self.subject.clone());
        let dest = if self.is_numbered() { dest } else { subject::transform::numbered(&dest) };
        Transform::strict(&self.subject, &dest).map_err(|e| e.to_string())
    }
}

/// The export of `rules` that lets `importer` take `import`.
pub fn export_for<'a>(rules: &'a Rules, import: &Import, importer: &str) -> Option<&'a Export> {
    rules.exports.iter().find(|e| {
        e.service == import.service
            && subject::is_subset(&import.subject, &e.subject)
            && e.accounts.as_ref().is_none_or(|list| list.iter().any(|a| **a == *importer))
            && (e.account_token == 0
                || subject::tokens(&import.subject).nth(e.account_token - 1) == Some(importer.as_bytes()))
    })
}

/// Everything that does not fit, one sentence each.
pub fn check(all: &BTreeMap<Arc<str>, Rules>) -> Vec<String> {
    let mut wrong = Vec::new();
    let text = |s: &[u8]| String::from_utf8_lossy(s).into_owned();
    for (name, rules) in all {
        for import in &rules.imports {
            let what = if import.service { "service" } else { "stream" };
            let shown = text(&import.subject);
            let Some(exporter) = all.get(&import.account) else {
                wrong.push(format!(
                    "Error adding {what} import {shown:?} to account {name:?}: unknown account {:?}",
                    import.account
                ));
                continue;
            };
            if export_for(exporter, import, name).is_none() {
                wrong.push(format!(
                    "Error adding {what} import {shown:?} to account {name:?}: account {:?} does not export it to {name:?} ({what} import not authorized)",
                    import.account
                ));
            }
            let transform = if import.service { import.outward() } else { import.inward() };
            if let Err(e) = transform {
                wrong.push(format!("Error adding {what} import {shown:?} to account {name:?}: {e}"));
            }
        }
        for (i, import) in rules.imports.iter().enumerate() {
            let same = |o: &&Import| (o.service, &o.account) == (import.service, &import.account);
            let mut before = rules.imports[..i].iter().filter(same);
            let shown = text(&import.subject);
            if !import.service && before.any(|o| o.subject == import.subject) {
                // Each message would come twice.
                wrong.push(format!(
                    "Error adding stream import {shown:?} to account {name:?}: stream import already exists"
                ));
            } else if import.service
                && let Some(o) = before.find(|o| o.local() == import.local())
            {
                wrong.push(format!(
                    "Duplicate service import subject {:?}, previously used in import for account {:?}, subject {:?}",
                    text(&import.local()),
                    o.account,
                    text(&o.subject)
                ));
            }
        }
        for import in &rules.imports {
            if let Some(path) = cycle(all, name, import) {
                wrong.push(format!(
                    "Error adding import {:?} to account {name:?}: {} import forms a cycle ({path})",
                    text(&import.subject),
                    if import.service { "service" } else { "stream" }
                ));
            }
        }
    }
    wrong
}

/// The accounts on a way back to `start` that begins with `import`, if there is one.
fn cycle(all: &BTreeMap<Arc<str>, Rules>, start: &str, import: &Import) -> Option<String> {
    // Walk from account to account with the pattern as it is called there.
    let mut open = vec![(import.account.clone(), import.subject.clone(), vec![start.to_string()])];
    let mut steps = 0;
    while let Some((account, pattern, mut path)) = open.pop() {
        path.push(account.to_string());
        if *account == *start && subject::collides(&pattern, &import.local()) {
            return Some(path.join(" -> "));
        }
        steps += 1;
        if path.len() > all.len() + 1 || steps > 10_000 {
            continue;
        }
        for next in all.get(&account).into_iter().flat_map(|r| &r.imports) {
            if next.service == import.service && subject::collides(&pattern, &next.local()) {
                open.push((next.account.clone(), next.subject.clone(), path.clone()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(service: bool, subject: &str) -> Export {
        Export {
            service,
            subject: subject.into(),
            accounts: None,
            account_token: 0,
            responses: Responses::One,
            threshold: Duration::from_secs(120),
            latency: None,
            allow_trace: false,
        }
    }
    fn import(service: bool, account: &str, subject: &str, to: Option<&str>) -> Import {
        Import {
            service,
            account: account.into(),
            subject: subject.into(),
            to: to.map(Into::into),
            share: false,
            allow_trace: false,
        }
    }
    fn world(list: Vec<(&str, Rules)>) -> BTreeMap<Arc<str>, Rules> {
        list.into_iter().map(|(n, r)| (n.into(), r)).collect()
    }

    #[test]
    fn an_import_needs_its_export() {
        let a = Rules { exports: vec![export(false, "foo.>"), export(true, "svc.*")], ..Rules::default() };
        let ok = Rules {
            imports: vec![
                import(false, "A", "foo.bar", Some("p.foo.bar")),
                import(true, "A", "svc.*", Some("my.*")),
            ],
            ..Rules::default()
        };
        assert_eq!(check(&world(vec![("A", a.clone()), ("B", ok)])), Vec::<String>::new());
        for (bad, says) in [
            (import(false, "A", "bar", None), "not authorized"),
            (import(true, "A", "foo.bar", None), "not authorized"),
            (import(true, "Z", "svc.*", None), "unknown account"),
            (import(true, "A", "svc.*", Some("my")), ""),
        ] {
            let b = Rules { imports: vec![bad], ..Rules::default() };
            let wrong = check(&world(vec![("A", a.clone()), ("B", b)]));
            assert!(wrong.len() == 1 && wrong[0].contains(says), "{wrong:?}");
        }
    }

    #[test]
    fn an_import_comes_once() {
        let a = Rules { exports: vec![export(false, ">"), export(true, ">")], ..Rules::default() };
        let wrong = |imports: Vec<Import>| {
            let b = Rules { imports, ..Rules::default() };
            check(&world(vec![("A", a.clone()), ("B", b), ("C", a.clone())]))
        };
        let twice = "Error adding stream import \"x\" to account \"B\": stream import already exists";
        for to in [None, Some("y")] {
            let found = wrong(vec![import(false, "A", "x", None), import(false, "A", "x", to)]);
            assert_eq!(found, [twice]);
        }
        let twice = "Duplicate service import subject \"a\", previously used in import for account \"A\", subject \"a\"";
        for (subject, to) in [("a", None), ("b", Some("a"))] {
            assert_eq!(wrong(vec![import(true, "A", "a", None), import(true, "A", subject, to)]), [twice]);
        }
        for fine in [
            vec![import(false, "A", "x", Some("z")), import(false, "A", "y", Some("z"))],
            vec![import(false, "A", "x.>", None), import(false, "A", "x.y", None)],
            vec![import(true, "A", "a", None), import(true, "A", "a", Some("b"))],
            vec![import(true, "A", "a", None), import(true, "C", "a", None)],
            vec![import(true, "A", "a", None), import(false, "A", "a", None)],
        ] {
            assert_eq!(wrong(fine.clone()), Vec::<String>::new(), "{fine:?}");
        }
    }

    #[test]
    fn private_exports_name_their_importers() {
        let mut e = export(true, "q.*.get");
        e.accounts = Some(vec!["B".into()]);
        e.account_token = 2;
        let a = Rules { exports: vec![e], ..Rules::default() };
        let take = |s: &str| Rules { imports: vec![import(true, "A", s, None)], ..Rules::default() };
        assert!(check(&world(vec![("A", a.clone()), ("B", take("q.B.get"))])).is_empty());
        assert_eq!(check(&world(vec![("A", a.clone()), ("B", take("q.C.get"))])).len(), 1);
        assert_eq!(check(&world(vec![("A", a), ("C", take("q.C.get"))])).len(), 1);
    }

    #[test]
    fn cycles_are_found() {
        let node = |from: &str| Rules {
            exports: vec![export(true, "s.>")],
            imports: vec![import(true, from, "s.>", None)],
            ..Rules::default()
        };
        let wrong = check(&world(vec![("A", node("B")), ("B", node("C")), ("C", node("A"))]));
        assert_eq!(wrong.len(), 3);
        assert!(wrong[0].contains("A -> B -> C -> A"), "{wrong:?}");
        let mut open = node("B");
        open.imports.clear();
        assert!(check(&world(vec![("A", open), ("B", node("A"))])).is_empty());
    }
}
