//! The fields of every endpoint against those of nats-server.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Http, Nats, wait_for, with_server};

const CONFIG: &str = r#"
PORTS
ping_interval: "100ms"
server_tags: ["a:b"]
accounts: {
  A: { users: [{user: a, password: a},
               {user: b, password: b, permissions: {publish: "x.>", subscribe: {allow: ["q.>", "r qq"], deny: ["q.z"]}, allow_responses: true}}],
       mappings: {"m.1": "m.2"}, exports: [{service: "svc.>", accounts: [B]}, {stream: "st.>"}], limits: {max_conn: 50} }
  B: { users: [{user: c, password: c}],
       imports: [{service: {account: A, subject: "svc.x"}, to: "loc.x", share: true}, {stream: {account: A, subject: "st.>"}, prefix: "pre"}] }
  SYS: { users: [{user: s, password: s}] }
}
system_account: SYS
"#;

/// `path: fields` of nats-server, each with its type.
fn golden() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut path = "";
    for line in include_str!("fields.txt").lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(field) => all.get_mut(path).expect("a path comes before its fields").push(field),
            None => {
                path = line;
                all.insert(path, Vec::new());
            }
        }
    }
    all
}

/// Fields with their types, in order, each once.
fn flat(v: &Value, at: &str, out: &mut Vec<String>) {
    match v {
        Value::Object(o) => {
            for (k, x) in o {
                let data = at.ends_with("mappings") || at.ends_with("http_req_stats");
                let k = if data { "*" } else { k };
                let name = if at.is_empty() { k.to_string() } else { format!("{at}.{k}") };
                let kind = match x {
                    Value::Object(_) => "{}",
                    Value::Array(_) => "[]",
                    Value::String(_) => "text",
                    Value::Bool(_) => "bool",
                    Value::Number(_) => "number",
                    Value::Null => "null",
                };
                let field = format!("{name}:{kind}");
                if !out.contains(&field) {
                    out.push(field);
                }
                flat(x, &name, out);
            }
        }
        Value::Array(a) => a.iter().for_each(|x| flat(x, &format!("{at}[]"), out)),
        _ => {}
    }
}

#[test]
fn every_endpoint_has_nats_servers_fields() {
    with_server(CONFIG, async |s| {
        let (mut a, mut b) = (Nats::connect(&s, "a").await, Nats::connect(&s, "b").await);
        let mut c = Nats::connect(&s, "c").await;
        a.say("SUB foo 1\r\nSUB bar q 2\r\nUNSUB 2 10\r\nSUB svc.> 3\r\nPUB foo 5\r\nhello\r\n").await;
        b.say("SUB q.> 1\r\n").await;
        c.say("SUB pre.st.x 1\r\n").await;
        let mut d = Nats::connect(&s, "c").await;
        d.say("SUB a 1\r\nSUB b q 2\r\n").await;
        // Round trips are known once a PING is answered.
        for client in [&mut a, &mut b, &mut c, &mut d] {
            client.answer_ping().await;
        }
        drop(d);
        Nats::refused(&s, "a", "wrong").await.0.rest().await;
        wait_for("both are gone", || s.links.clients.closed().len() == 2).await;
        let mut http = Http::connect(&s).await;
        let golden = golden();
        assert!(golden.len() >= 15);
        for (path, want) in golden {
            let answer = http.get(path).await;
            let mut fields = Vec::new();
            flat(&answer.json(), "", &mut fields);
            let top = |f: &[String]| f.iter().filter(|f| !f.contains('.')).cloned().collect::<Vec<_>>();
            let mut want: Vec<String> = want.into_iter().map(str::to_string).collect();
            assert_eq!(top(&fields), top(&want), "order of {path}");
            fields.sort();
            want.sort();
            assert_eq!(fields, want, "{path}");
        }
    });
}
