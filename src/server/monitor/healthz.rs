//! `/healthz`: whether what was asked for can really be served.

use jetstream::Absent;
use serde::Serialize;

use super::{json::is_default, options::HealthzOptions};
use crate::Server;

/// The answer. Over HTTP the code is the response's status and left out of the text.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Healthz {
    /// `ok`, `unavailable`, or `error` where the question is wrong or details were asked for.
    pub status: &'static str,
    /// 200, 400, 404 or 503.
    #[serde(skip_serializing_if = "is_default")]
    pub status_code: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub error: String,
    #[serde(skip_serializing_if = "is_default")]
    pub errors: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, Default, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Fault {
    /// `CONNECTION`, `BAD_REQUEST`, `JETSTREAM`, `ACCOUNT`, `STREAM` or `CONSUMER`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    pub account: String,
    #[serde(skip_serializing_if = "is_default")]
    pub stream: String,
    #[serde(skip_serializing_if = "is_default")]
    pub consumer: String,
    pub error: String,
}

impl Healthz {
    fn ok() -> Healthz {
        Healthz { status: "ok", status_code: 200, error: String::new(), errors: Vec::new() }
    }
    fn fault(o: &HealthzOptions, code: u16, kind: &'static str, error: &str) -> Healthz {
        Healthz::of(o, code, Fault { kind, error: error.to_string(), ..Fault::default() })
    }
    /// Something that is asked about is not here.
    fn absent(o: &HealthzOptions, what: Absent) -> Healthz {
        let (account, stream, consumer) = (&o.account, &o.stream, &o.consumer);
        let (kind, error) = match what {
            Absent::Account => ("ACCOUNT", format!("JetStream account {account:?} not found")),
            Absent::Stream => {
                ("STREAM", format!("JetStream stream {stream:?} not found on account {account:?}"))
            }
            Absent::Consumer => (
                "CONSUMER",
                format!(
                    "JetStream consumer {consumer:?} not found for stream {stream:?} on account {account:?}"
                ),
            ),
        };
        let mut fault = Fault { kind, error, account: account.clone(), ..Fault::default() };
        if what != Absent::Account {
            fault.stream.clone_from(stream);
        }
        if what == Absent::Consumer {
            fault.consumer.clone_from(consumer);
        }
        Healthz::of(o, 404, fault)
    }
    /// What the log says of it, if it is not well.
    pub fn why(&self) -> Option<String> {
        let said = if self.error.is_empty() {
            format!("{} errors", self.errors.len())
        } else {
            format!("{:?}", self.error)
        };
        (self.status_code != 200).then_some(said)
    }
    fn of(o: &HealthzOptions, code: u16, fault: Fault) -> Healthz {
        let error = fault.error.clone();
        let (status, errors, error) = match (o.details, code) {
            (true, _) => ("error", vec![fault], String::new()),
            (false, 400 | 500) => ("error", Vec::new(), error),
            (false, _) => ("unavailable", Vec::new(), error),
        };
        Healthz { status, status_code: code, error, errors }
    }
}

/// What a question lacks, if anything.
fn lacking(o: &HealthzOptions) -> Option<&'static str> {
    if o.account.is_empty() && !o.stream.is_empty() {
        return Some("\"account\" must not be empty when checking stream health");
    }
    if o.stream.is_empty() && !o.consumer.is_empty() {
        return Some("\"stream\" must not be empty when checking consumer health");
    }
    None
}

/// Only whether JetStream is on is asked for.
fn is_on_only(o: &HealthzOptions) -> bool {
    o.js_enabled || o.js_enabled_only
}
/// Only what is this server's own matter is asked for: without a meta group it still carries messages, and still is to be sent clients.
fn is_own_only(o: &HealthzOptions) -> bool {
    is_on_only(o) || o.js_server_only && !o.js_meta_only
}

/// As [`healthz`], and where that finds nothing wrong: whether the disk makes durable what is written now, and the meta group answers.
pub async fn healthz_now(s: &Server, o: &HealthzOptions) -> Healthz {
    let seen = healthz(s, o);
    let engine = s.jetstream.read().clone();
    match engine.filter(|_| seen.status_code == 200 && !is_own_only(o)) {
        None => seen,
        Some(js) => match js.probe().await {
            Ok(()) => seen,
            Err(text) => Healthz::fault(o, 503, "JETSTREAM", &text),
        },
    }
}

/// Whether what was asked for can really be served, as far as that is known without asking anybody.
pub fn healthz(s: &Server, o: &HealthzOptions) -> Healthz {
    if let Some(text) = lacking(o) {
        return Healthz::fault(o, 400, "BAD_REQUEST", text);
    }
    if s.bound.lock().client.is_none() || s.is_lame_duck() {
        // nats-server looks for a millisecond.
        let text = "failed to be ready for connections after 1ms: server";
        return Healthz::fault(o, 500, "CONNECTION", text);
    }
    // Whoever has configured JetStream counts on it.
    let engine = s.jetstream.read().clone();
    if s.options().jetstream.is_some()
        && !is_own_only(o)
        && let Some(js) = &engine
    {
        let found = match o.js_meta_only {
            true => Ok(js.unhealthy_meta()),
            false if o.account.is_empty() => Ok(js.unhealthy()),
            false => js.unhealthy_of(&o.account, &o.stream, &o.consumer),
        };
        match found {
            Ok(None) => {}
            Ok(Some(text)) => return Healthz::fault(o, 503, "JETSTREAM", &text),
            Err(what) => return Healthz::absent(o, what),
        }
    }
    if s.options().jetstream.is_some() && s.jetstream.read().is_none() {
        return Healthz::fault(o, 503, "JETSTREAM", "JetStream is not current");
    }
    let mut ok = Healthz::ok();
    if o.details
        && let Some(js) = s.jetstream.read().as_ref()
    {
        // What is lost stays lost, and the server serves everything else: it is said, but no reason to start it anew.
        let fault = |error| Fault { kind: "JETSTREAM", error, ..Fault::default() };
        ok.errors = js.losses().into_iter().map(fault).collect();
    }
    ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_take_both_shapes() {
        let plain = HealthzOptions::default();
        let details = HealthzOptions { details: true, ..HealthzOptions::default() };
        let text = |h: &Healthz| serde_json::to_string(&Healthz { status_code: 0, ..h.clone() }).unwrap();
        assert_eq!(text(&Healthz::ok()), r#"{"status":"ok"}"#);
        let why = |o| Healthz::fault(o, 503, "JETSTREAM", "x").why();
        assert_eq!((why(&plain), why(&details)), (Some("\"x\"".into()), Some("1 errors".into())));
        assert_eq!(Healthz::ok().why(), None);
        assert_eq!(
            text(&Healthz::fault(&plain, 503, "JETSTREAM", "x")),
            r#"{"status":"unavailable","error":"x"}"#
        );
        assert_eq!(
            text(&Healthz::fault(&plain, 400, "BAD_REQUEST", "x")),
            r#"{"status":"error","error":"x"}"#
        );
        assert_eq!(
            text(&Healthz::fault(&details, 503, "JETSTREAM", "x")),
            r#"{"status":"error","errors":[{"type":"JETSTREAM","error":"x"}]}"#
        );
        let asked = |details| HealthzOptions {
            account: "A".into(),
            stream: "S".into(),
            consumer: "C".into(),
            details,
            ..HealthzOptions::default()
        };
        for (what, plain, details) in [
            (
                Absent::Account,
                r#"{"status":"unavailable","error":"JetStream account \"A\" not found"}"#,
                r#"{"status":"error","errors":[{"type":"ACCOUNT","account":"A","error":"JetStream account \"A\" not found"}]}"#,
            ),
            (
                Absent::Stream,
                r#"{"status":"unavailable","error":"JetStream stream \"S\" not found on account \"A\""}"#,
                r#"{"status":"error","errors":[{"type":"STREAM","account":"A","stream":"S","error":"JetStream stream \"S\" not found on account \"A\""}]}"#,
            ),
            (
                Absent::Consumer,
                r#"{"status":"unavailable","error":"JetStream consumer \"C\" not found for stream \"S\" on account \"A\""}"#,
                r#"{"status":"error","errors":[{"type":"CONSUMER","account":"A","stream":"S","consumer":"C","error":"JetStream consumer \"C\" not found for stream \"S\" on account \"A\""}]}"#,
            ),
        ] {
            for (given, want) in [(false, plain), (true, details)] {
                let h = Healthz::absent(&asked(given), what);
                assert_eq!((h.status_code, &*text(&h)), (404, want));
            }
        }
    }

    #[test]
    fn a_stream_needs_its_account_and_a_consumer_its_stream() {
        let o = |account: &str, stream: &str, consumer: &str| HealthzOptions {
            account: account.into(),
            stream: stream.into(),
            consumer: consumer.into(),
            ..HealthzOptions::default()
        };
        assert!(lacking(&o("", "s", "")).is_some_and(|t| t.starts_with("\"account\"")));
        assert!(lacking(&o("a", "", "c")).is_some_and(|t| t.starts_with("\"stream\"")));
        assert_eq!(lacking(&o("a", "s", "c")), None);
        assert_eq!(lacking(&o("", "", "")), None);
    }
}
