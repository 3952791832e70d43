//! `/healthz`: whether what was asked for can really be served.

use serde::Serialize;

use super::{json::is_default, options::HealthzOptions};
use crate::Server;

/// The answer. Over HTTP the code is the response's status and left out of the text.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Healthz {
    /// `ok`, `unavailable`, or `error` where the question is wrong or details were asked for.
    pub status: &'static str,
    /// 200, 400 or 503.
    #[serde(skip_serializing_if = "is_default")]
    pub status_code: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub error: String,
    #[serde(skip_serializing_if = "is_default")]
    pub errors: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Fault {
    /// `CONNECTION`, `BAD_REQUEST` or `JETSTREAM`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub error: String,
}

impl Healthz {
    fn ok() -> Healthz {
        Healthz { status: "ok", status_code: 200, error: String::new(), errors: Vec::new() }
    }
    fn fault(o: &HealthzOptions, code: u16, kind: &'static str, error: &str) -> Healthz {
        let (status, errors, error) = match (o.details, code) {
            (true, _) => ("error", vec![Fault { kind, error: error.to_string() }], String::new()),
            (false, 400) => ("error", Vec::new(), error.to_string()),
            (false, _) => ("unavailable", Vec::new(), error.to_string()),
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

/// As [`healthz`], and where that finds nothing wrong: whether the disk makes durable what is written now, and the meta group answers.
pub async fn healthz_now(s: &Server, o: &HealthzOptions) -> Healthz {
    let seen = healthz(s, o);
    let engine = s.jetstream.read().clone();
    match engine.filter(|_| seen.status_code == 200 && !is_on_only(o)) {
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
    if s.bound.lock().client.is_none() {
        return Healthz::fault(o, 503, "CONNECTION", "server is not ready for connections");
    }
    // Whoever has configured JetStream counts on it.
    let engine = s.jetstream.read().clone();
    if s.options().jetstream.is_some()
        && !is_on_only(o)
        && let Some(js) = &engine
        && let Some(text) =
            if o.js_server_only || o.js_meta_only { js.unhealthy_meta() } else { js.unhealthy() }
    {
        return Healthz::fault(o, 503, "JETSTREAM", &text);
    }
    if s.options().jetstream.is_some() && s.jetstream.read().is_none() {
        return Healthz::fault(o, 503, "JETSTREAM", "JetStream is not current");
    }
    let mut ok = Healthz::ok();
    if o.details
        && let Some(js) = s.jetstream.read().as_ref()
    {
        // What is lost stays lost, and the server serves everything else: it is said, but no reason to start it anew.
        ok.errors = js.losses().into_iter().map(|error| Fault { kind: "JETSTREAM", error }).collect();
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
