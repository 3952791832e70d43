//! The event that tells where a message went.

use std::{collections::BTreeMap, sync::Arc};

use broker::{Deliveries, Kind, Step, Trace};
use serde_json::{Map, Value, json};

use super::{encode, encode::Coding, parts, publish_with};
use crate::Server;

/// A message was traced: tells the subject that asked for it.
pub fn traced(server: &Arc<Server>, d: &mut Deliveries, t: &Trace) {
    if !t.account.has_interest(&t.dest) {
        return;
    }
    let mut header = BTreeMap::<String, Vec<String>>::new();
    for (key, value) in wire::headers::lines(&t.header) {
        header.entry(text(key)).or_default().push(text(value));
    }
    let mut events = vec![ingress(server, t)];
    events.extend(t.steps.iter().map(|(at, step)| event(server, at.rfc3339(), step)));
    let mut body = json!({
        "server": parts::server(server),
        "request": { "header": header, "msgsize": t.size },
        "events": events,
    });
    if t.hops > 0 {
        body["hops"] = json!(t.hops);
    }
    let (head, body) = Coding::wanted(&t.header).message(encode::json(&body));
    publish_with(server, d, &t.account, &t.dest, &head, &body);
}

fn text(b: &[u8]) -> String {
    String::from_utf8_lossy(b).into_owned()
}

/// The number by which nats-server knows a kind of connection.
fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Client => 0,
        Kind::Route => 1,
        Kind::Gateway => 2,
        Kind::Internal => 3,
        Kind::Leaf => 4,
    }
}

fn start(kind: &str, at: String) -> Map<String, Value> {
    let mut m = Map::new();
    m.insert("type".into(), json!(kind));
    m.insert("ts".into(), json!(at));
    m
}

fn connection(server: &Server, m: &mut Map<String, Value>, kind: Kind, cid: u64) {
    m.insert("kind".into(), json!(number(kind)));
    m.insert("cid".into(), json!(cid));
    let name = match kind {
        Kind::Route => server.cluster.mesh.as_ref().and_then(|mesh| mesh.name_at(cid)),
        _ => server.links.clients.get(cid).map(|c| c.facts.lock().name.clone()),
    };
    let name = name.unwrap_or_default();
    if !name.is_empty() {
        m.insert("name".into(), json!(name));
    }
}

fn ingress(server: &Server, t: &Trace) -> Value {
    let mut m = start("in", t.at.rfc3339());
    connection(server, &mut m, t.from.kind, t.from.id);
    m.insert("acc".into(), json!(&*t.account.name));
    m.insert("subj".into(), json!(text(&t.subject)));
    if let Some(subject) = &t.denied {
        let error = format!("Permissions Violation for Publish to \"{}\"", text(subject));
        m.insert("error".into(), json!(error));
    }
    Value::Object(m)
}

fn event(server: &Server, at: String, step: &Step) -> Value {
    let m = match step {
        Step::Mapped { to } => {
            let mut m = start("sm", at);
            m.insert("to".into(), json!(text(to)));
            m
        }
        Step::StreamExport { account, to } => {
            let mut m = start("se", at);
            m.insert("acc".into(), json!(&**account));
            m.insert("to".into(), json!(text(to)));
            m
        }
        Step::ServiceImport { account, from, to } => {
            let mut m = start("si", at);
            m.insert("acc".into(), json!(&**account));
            m.insert("from".into(), json!(text(from)));
            m.insert("to".into(), json!(text(to)));
            m
        }
        Step::Egress { kind, cid, account, subject, queue, error } => {
            let mut m = start("eg", at);
            connection(server, &mut m, *kind, *cid);
            if let Some(a) = account {
                m.insert("acc".into(), json!(&**a));
            }
            m.insert("sub".into(), json!(text(subject)));
            if !queue.is_empty() {
                m.insert("queue".into(), json!(text(queue)));
            }
            if let Some(error) = error {
                m.insert("error".into(), json!(error));
            }
            m
        }
        Step::Hop { kind, cid, hop } => {
            let mut m = start("eg", at);
            connection(server, &mut m, *kind, *cid);
            m.insert("hop".into(), json!(hop));
            m
        }
    };
    Value::Object(m)
}
