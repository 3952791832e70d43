//! What nats-server 2.15.1 answered to the same publishes, and what it then had stored.

use serde_json::{Value, json};

use super::harness::Shell;
use crate::publish::{Ack, Answer};

/// An answer as it is sent.
fn render(a: &Answer) -> Value {
    match a {
        Answer::Ack(Ack { seq, duplicate, extra }) => {
            let mut v = json!({"stream": "A", "seq": seq});
            if *duplicate {
                v["duplicate"] = json!(true);
            }
            if let Some(value) = extra.as_ref().and_then(|e| e.value.as_ref()) {
                v["val"] = json!(value);
            }
            if let Some((id, count)) = extra.as_ref().and_then(|e| e.batch.as_ref()) {
                v["batch"] = json!(id);
                v["count"] = json!(count);
            }
            v
        }
        Answer::Error(e) => json!({"error": e, "stream": "A", "seq": 0}),
        Answer::Empty => json!(""),
        Answer::Flow { seq, msgs } => json!({"type": "ack", "seq": seq, "msgs": msgs}),
        Answer::Gap { last_seq, seq } => json!({"type": "gap", "last_seq": last_seq, "seq": seq}),
        Answer::Failed { seq, error } => json!({"type": "err", "seq": seq, "error": error}),
    }
}

#[test]
fn publishes_are_answered_as_by_nats_server() {
    let recorded: Value = serde_json::from_str(include_str!("../../testdata/publishes.json")).unwrap();
    let mut wrong = Vec::new();
    for scenario in recorded.as_array().unwrap() {
        let mut s = Shell::new(&scenario["config"].to_string());
        for step in scenario["steps"].as_array().unwrap() {
            let text = |name: &str| step[name].as_str().unwrap();
            if let Some(ms) = step.get("wait_ms") {
                s.pass(ms.as_i64().unwrap() * 1_000_000);
            }
            let headers: Vec<(&str, &str)> = step["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|h| (h[0].as_str().unwrap(), h[1].as_str().unwrap()))
                .collect();
            s.answers.clear();
            s.publish_to(text("subject"), text("reply"), &headers, text("payload"));
            s.apply();
            let got: Vec<Value> = s.answers.iter().map(render).collect();
            let want: Vec<Value> = step["answers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|a| serde_json::from_str(a.as_str().unwrap()).unwrap_or(json!("")))
                .collect();
            if got != want {
                wrong.push(format!("{}\n  {step}\n   got {got:?}\n  want {want:?}", scenario["config"]));
            }
        }
        let live: Vec<Value> = s
            .seqs()
            .iter()
            .map(|seq| {
                let m = s.message(*seq);
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                json!({"seq": m.seq, "subject": text(&m.subject), "headers": text(&m.headers), "payload": text(&m.payload)})
            })
            .collect();
        for (got, want) in live.iter().zip(scenario["messages"].as_array().unwrap()) {
            if got != want {
                wrong.push(format!("{}\n   stored {got}\n     want {want}", scenario["config"]));
            }
        }
        let t = s.stream.totals(&s.msgs);
        if json!([t.first, t.last, live.len()])
            != json!([
                scenario["first_seq"],
                scenario["last_seq"],
                scenario["messages"].as_array().unwrap().len()
            ])
        {
            wrong.push(format!(
                "{}: {t:?}, want {} to {}",
                scenario["config"], scenario["first_seq"], scenario["last_seq"]
            ));
        }
        if json!(t.bytes) != scenario["bytes"] {
            wrong.push(format!("{}: {t:?}, want {} bytes", scenario["config"], scenario["bytes"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
