//! What the endpoints say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use env::Workers;
use serde_json::{Value, json};
use server::monitor::{self, ConnzOptions};

use crate::support::{Http, Nats, new_server, wait_for, with_server};

const CONFIG: &str = r#"
PORTS
server_name: "<here>"
accounts: {
  A: { users: [{user: a, password: a}, {user: b, password: b}],
       mappings: {"m.*": [{destination: "n.$1", weight: 40%}]},
       exports: [{service: "t.>", response_type: chunked, accounts: [B]}, {service: "l.x", latency: {sampling: headers, subject: "lat"}}] }
  B: { users: [{user: c, password: c}], imports: [{service: {account: A, subject: "l.x"}}] }
}
"#;

fn cids(v: &Value) -> Vec<u64> {
    v["connections"].as_array().unwrap().iter().map(|c| c["cid"].as_u64().unwrap()).collect()
}

#[test]
fn connections_are_sorted_filtered_and_paged() {
    with_server(CONFIG, async |s| {
        let (mut a, mut b) = (Nats::connect(&s, "a").await, Nats::connect(&s, "b").await);
        let (mut c, d) = (Nats::connect(&s, "c").await, Nats::connect(&s, "c").await);
        let mut http = Http::connect(&s).await;
        let all = cids(&http.json("/connz").await);
        let [na, nb, nc, nd] = all[..] else { panic!("{all:?}") };
        a.say("SUB > 1\r\nPUB x 2\r\nab\r\n").await;
        b.say("SUB foo.bar 1\r\nSUB z 2\r\nPUB x 2\r\nab\r\nPUB x 0\r\n\r\n").await;
        c.say("PUB x 9\r\nabcdefghi\r\n").await;
        drop(d);
        wait_for("it is gone", || s.links.clients.len() == 3).await;
        for (query, want) in [
            ("", vec![na, nb, nc]),
            ("sort=start", vec![na, nb, nc]),
            ("sort=subs", vec![nb, na, nc]),
            ("sort=msgs_from", vec![nb, na, nc]),
            ("sort=msgs_to", vec![na, nb, nc]),
            ("sort=bytes_from", vec![nc, na, nb]),
            ("sort=last", vec![nc, nb, na]),
            ("sort=idle", vec![na, nb, nc]),
            ("sort=uptime", vec![nc, nb, na]),
            ("limit=1&offset=1", vec![nb]),
            ("offset=9", vec![]),
            ("limit=-1&offset=-1", vec![na, nb, nc]),
            ("acc=A", vec![na, nb]),
            ("user=b", vec![nb]),
            ("acc=B&user=b", vec![]),
            ("state=closed", vec![nd]),
            ("state=any", vec![na, nb, nc, nd]),
            ("state=any&acc=B", vec![nc, nd]),
            ("mqtt_client=x", vec![]),
        ] {
            let v = http.json(&format!("/connz?{query}")).await;
            assert_eq!(cids(&v), want, "{query}");
            assert_eq!(v["num_connections"], want.len(), "{query}");
        }
        let v = http.json("/connz?acc=A&user=b").await;
        assert_eq!((&v["total"], &v["limit"]), (&json!(2), &json!(1024)));
        let v = http.json(&format!("/connz?cid={nd}")).await;
        assert_eq!((cids(&v), &v["limit"], &v["total"]), (vec![], &json!(1), &json!(3)));
        assert_eq!(http.json("/connz?acc=NO").await["connections"], Value::Null);
        let v = http.json(&format!("/connz?state=closed&cid={nd}&auth=1")).await;
        let one = &v["connections"][0];
        assert_eq!((&one["reason"], &one["authorized_user"]), (&json!("Client Closed"), &json!("c")));
        // What only requests under $SYS can ask.
        let by = |f: &str| {
            let o = ConnzOptions { account: "A".into(), filter_subject: f.into(), ..ConnzOptions::default() };
            monitor::connz(&s, &o).unwrap().connections.unwrap().iter().map(|c| c.cid).collect::<Vec<_>>()
        };
        assert_eq!((by("foo.*"), by("foo"), by("z")), (vec![na, nb], vec![na], vec![na, nb]));
        let o = ConnzOptions { filter_subject: "foo".into(), ..ConnzOptions::default() };
        assert_eq!(
            monitor::connz(&s, &o).unwrap_err(),
            "filter by subject only valid with account filtering"
        );
    });
}

#[test]
fn figures_are_those_of_the_traffic() {
    with_server(CONFIG, async |s| {
        let mut a = Nats::connect(&s, "a").await;
        a.say("SUB foo.> 1\r\nSUB x q 2\r\nPUB foo.a 5\r\nhello\r\nHPUB foo.b 12 14\r\nNATS/1.0\r\n\r\nab\r\nPUB none 1\r\nx\r\n")
            .await;
        let mut http = Http::connect(&s).await;
        let v = http.json("/varz").await;
        for (k, want) in
            [("in_msgs", 3), ("in_bytes", 20), ("out_msgs", 2), ("out_bytes", 19), ("connections", 1)]
        {
            assert_eq!(v[k], want, "{k}");
        }
        assert_eq!((&v["http_req_stats"]["/varz"], &v["total_connections"]), (&json!(1), &json!(1)));
        assert_eq!(v["http_port"], s.bound.lock().http.unwrap().port());
        assert!(v["mem"].as_u64().unwrap() > 0);
        let v = http.json("/accstatz").await;
        let list = v["account_statz"].as_array().unwrap();
        assert_eq!((list.len(), &list[0]["acc"], &list[0]["received"]["msgs"]), (1, &json!("A"), &json!(3)));
        assert_eq!(http.json("/accstatz?unused=1").await["account_statz"].as_array().unwrap().len(), 4);
        let v = http.json("/subsz?subs=1&acc=A&test=foo.x").await;
        assert_eq!((&v["total"], &v["subscriptions_list"][0]["subject"]), (&json!(1), &json!("foo.>")));
        assert_eq!(v["subscriptions_list"][0]["msgs"], 2);
        assert!(http.get("/subsz?subs=1&acc=A").await.body.contains("\"foo.\\u003e\""));
        let v = http.json("/subsz?subs=1&limit=1&offset=1&acc=A").await;
        assert_eq!(v["subscriptions_list"].as_array().unwrap().len(), 1);
        assert_eq!(v["num_inserts"], v["num_subscriptions"]);
        let v = http.json("/accountz?acc=A").await["account_detail"].clone();
        assert_eq!(
            v["mappings"]["m.*"],
            json!([{"subject": "n.$1", "weight": 40}, {"subject": "m.$1", "weight": 100}])
        );
        assert_eq!(v["exports"][0]["response_type"], "Chunked");
        assert_eq!(v["exports"][1]["service_latency"], json!({"sampling": "headers", "results": "lat"}));
        let v = http.json("/accountz?acc=B").await["account_detail"].clone();
        assert_eq!(v["imports"][0]["latency"]["results"], "lat");
    });
}

#[test]
fn bad_parameters_are_named() {
    with_server(CONFIG, async |s| {
        let mut http = Http::connect(&s).await;
        let bool_error = |k: &str| {
            format!("Error decoding boolean for '{k}': strconv.ParseBool: parsing \"x\": invalid syntax")
        };
        let int_error =
            |k: &str| format!("Error decoding int for '{k}': strconv.Atoi: parsing \"x\": invalid syntax");
        for (path, want) in [
            ("/connz?sort=foo", "invalid sorting option: foo".to_string()),
            ("/connz?sort=stop", "sort by stop only valid on closed connections".to_string()),
            ("/connz?sort=reason&state=any", "sort by reason only valid on closed connections".to_string()),
            ("/connz?state=foo", "Error decoding state for foo".to_string()),
            ("/connz?limit=x", int_error("limit")),
            ("/connz?auth=x", bool_error("auth")),
            ("/connz?subs=x", bool_error("subs")),
            ("/routez?subs=x", bool_error("subs")),
            ("/leafz?subs=x", bool_error("subs")),
            ("/gatewayz?accs=x", bool_error("accs")),
            ("/subsz?offset=x", int_error("offset")),
            ("/subsz?test=*", "invalid test subject, must be valid publish subject: *".to_string()),
            ("/accountz?acc=NO", "Account NO does not exist".to_string()),
            ("/accstatz?unused=x", bool_error("unused")),
            ("/jsz?raft=x", bool_error("raft")),
            ("/healthz?details=x", bool_error("details")),
            ("/ipqueuesz?all=x", bool_error("all")),
        ] {
            let a = http.get(path).await;
            assert_eq!((a.status, &a.body), (400, &want), "{path}");
        }
        let a = http.get("/raftz").await;
        assert_eq!((a.status, &*a.body), (404, "No Raft nodes registered"));
    });
}

#[test]
fn pages_for_people_and_for_prometheus() {
    with_server(CONFIG, async |s| {
        let mut a = Nats::connect(&s, "a").await;
        a.say("PUB x 3\r\nabc\r\n").await;
        let mut http = Http::connect(&s).await;
        let root = http.get("/").await;
        assert!(root.body.contains("&lt;here&gt;") && !root.body.contains("<here>"));
        // Every link leads somewhere.
        for link in root.body.split("href=\"").skip(1).map(|l| l.split('"').next().unwrap()) {
            let status = http.get(link).await.status;
            assert_eq!(status, if link == "/raftz" { 404 } else { 200 }, "{link}");
        }
        let text = http.get("/metrics").await.body;
        let mut described = "";
        for line in text.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(t) => described = t.split(' ').next().unwrap(),
                None if line.starts_with("# HELP ") => {}
                None => {
                    let (name, v) = line.rsplit_once(' ').unwrap();
                    assert_eq!(name.split('{').next().unwrap(), described, "{line}");
                    v.parse::<f64>().unwrap();
                }
            }
        }
        for want in [
            "fulmar_received_messages_total 1\n".to_string(),
            "fulmar_account_received_bytes_total{account=\"A\"} 3\n".to_string(),
            "fulmar_healthy 1\n".to_string(),
            format!("gnatsd_varz_connections{{server_id=\"{}\"}} 1\n", s.id()),
        ] {
            assert!(text.contains(&want), "{want} in {text}");
        }
        assert!(http.get("/stacksz").await.body.contains("worker threads"));
        assert_eq!(http.get("/debug/vars").await.status, 200);
    });
}

#[test]
fn the_base_path_is_a_prefix_of_all() {
    with_server("PORTS\nhttp_base_path: \"/nats\"", async |s| {
        let mut http = Http::connect(&s).await;
        for (path, status) in [
            ("/nats", 200),
            ("/nats/varz", 200),
            ("/varz", 404),
            ("/", 404),
            ("/nats/", 404),
            ("/natsvarz", 404),
        ] {
            assert_eq!(http.get(path).await.status, status, "{path}");
        }
        assert!(http.get("/nats").await.body.contains("href=\"/nats/varz\""));
    });
}

#[test]
fn health_is_green_only_if_all_can_be_served() {
    env::run(async {
        let s = new_server("PORTS");
        let health = |s: &server::Server| monitor::healthz(s, &Default::default());
        assert_eq!((health(&s).status_code, health(&s).status), (500, "error"));
        s.listen().await.unwrap();
        assert_eq!((health(&s).status_code, health(&s).status), (200, "ok"));
        let mut http = Http::connect(&s).await;
        assert_eq!(http.get("/healthz").await.body, r#"{"status":"ok"}"#);
        let dir = std::env::temp_dir().join(format!("fulmar-healthz-{}", env::process::id()));
        let stores = new_server(&format!("PORTS\njetstream {{ store_dir: {:?} }}", dir.display()));
        stores.listen().await.unwrap();
        assert_eq!(Http::connect(&stores).await.get("/healthz?js-enabled-only=1").await.status, 200);
        let v = Http::connect(&stores).await.json("/jsz").await;
        assert_eq!((v["streams"].as_u64(), v["disabled"].as_bool()), (Some(0), None));
        assert_eq!(v["config"]["store_dir"], dir.join("jetstream").to_string_lossy().as_ref());
        stores.stop();
        env::disk::Disk::os().remove_dir_all(&dir).await.ok();
        let a = http.get("/healthz?stream=x&details=1").await;
        let want = r#"{"status":"error","errors":[{"type":"BAD_REQUEST","error":"\"account\" must not be empty when checking stream health"}]}"#;
        assert_eq!((a.status, &*a.body), (400, want));
        // A lame duck is no place to send clients to. One of them is still there.
        let _client = Nats::connect(&s, "").await;
        let duck = s.clone();
        let ends = env::spawn(async move { duck.lame_duck().await });
        while !s.is_lame_duck() {
            env::sleep(Duration::from_millis(1)).await;
        }
        let text = "failed to be ready for connections after 1ms: server";
        for (question, want) in [
            ("", format!(r#"{{"status":"error","error":"{text}"}}"#)),
            ("?js-enabled-only=1", format!(r#"{{"status":"error","error":"{text}"}}"#)),
            (
                "?details=1",
                format!(r#"{{"status":"error","errors":[{{"type":"CONNECTION","error":"{text}"}}]}}"#),
            ),
        ] {
            let a = http.get(&format!("/healthz{question}")).await;
            assert_eq!((a.status, a.body), (500, want));
        }
        s.stop();
        drop(ends);
    })
    .unwrap();
}

#[test]
fn a_port_that_is_taken_is_named() {
    with_server("PORTS", async |s| {
        let taken = s.bound.lock().http.unwrap();
        let other = new_server(&format!("listen: \"127.0.0.1:-1\"\nhttp: \"{taken}\""));
        let lines = other.listen().await.unwrap_err().0;
        assert_eq!(
            lines,
            [format!(
                "Can't start monitoring: can't listen to the monitor port: listen tcp {taken}: bind: address already in use"
            )]
        );
    });
}

#[test]
fn m1_messages_do_not_wait_for_a_page() {
    with_server(CONFIG, async |s| {
        let mut a = Nats::connect(&s, "a").await;
        let mut http = Http::connect(&s).await;
        // The page cannot get past this client, whose facts somebody holds.
        let workers = Workers::start(2).unwrap();
        let (held, release) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let client = s.links.clients.open().remove(0);
        let (held2, release2) = (held.clone(), release.clone());
        let holder = workers.all()[1].spawn(async move {
            let _facts = client.facts.lock();
            held2.store(true, Release);
            let deadline = env::now() + Duration::from_secs(10);
            while !release2.load(Acquire) && env::now() < deadline {
                std::thread::yield_now();
            }
            release2.load(Acquire)
        });
        wait_for("it is held", || held.load(Acquire)).await;
        http.0.send("GET /connz?auth=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        wait_for("the page is begun", || s.monitor.requests().contains_key("/connz")).await;
        for _ in 0..100 {
            // Each of these would wait for the page, if its thread were ours or its lock one of these.
            a.say("SUB x 1\r\nPUB x 1\r\na\r\nUNSUB 1\r\n").await;
            assert_eq!((s.links.clients.len(), s.broker.connections()), (1, 1));
        }
        release.store(true, Release);
        assert!(holder.await.unwrap(), "messages have waited for the page");
        let page = http.answer(true).await.json();
        assert_eq!(page["connections"][0]["authorized_user"], "a");
    });
}

#[test]
fn m3_no_page_holds_a_secret() {
    let config = r#"
PORTS
accounts: { A: { users: [{user: a, password: "s3cret-word"}] } }
"#;
    with_server(config, async |s| {
        let _c = Nats::refused(&s, "a", "s3cret-word").await;
        wait_for("it has logged in", || s.broker.account("A").unwrap().connections() == 1).await;
        let mut http = Http::connect(&s).await;
        for path in [
            "/",
            "/varz",
            "/connz?auth=1&subs=detail&state=any",
            "/routez",
            "/gatewayz?accs=1",
            "/leafz",
            "/subsz?subs=1",
            "/accountz",
            "/accountz?acc=A",
            "/accstatz?unused=1",
            "/jsz",
            "/healthz",
            "/ipqueuesz?all=1",
            "/debug/vars",
            "/stacksz",
            "/metrics",
        ] {
            let a = http.get(path).await;
            assert_eq!(a.status, 200, "{path}");
            assert!(!a.body.contains("s3cret-word"), "{path}");
        }
    });
}

/// Sends a request and reads its answer up to `end`.
async fn ask(n: &mut Nats, subject: &str, body: &str, end: &str) -> String {
    assert!(n.0.send(format!("PUB {subject} answers {}\r\n{body}\r\n", body.len())).await);
    n.0.until(end).await.expect("an answer comes")
}

#[test]
fn health_of_one_asset_and_what_the_statistics_say_of_jetstream() {
    let dir = std::env::temp_dir().join(format!("fulmar-asset-health-{}", env::process::id()));
    let config = format!(
        "PORTS\njetstream {{ store_dir: {:?} }}\naccounts: {{ A: {{ jetstream: enabled, users: [{{user: a, password: a}}] }}, \
         B: {{ users: [{{user: b, password: b}}] }}, $SYS: {{ users: [{{user: s, password: s}}] }} }}",
        dir.display()
    );
    with_server(&config, async |s| {
        let mut a = Nats::connect(&s, "a").await;
        a.say("SUB answers 1\r\n").await;
        for (name, storage) in [("M", "file"), ("MM", "memory")] {
            let stream = format!(r#"{{"name":"{name}","subjects":["{name}"],"storage":"{storage}"}}"#);
            ask(&mut a, &format!("$JS.API.STREAM.CREATE.{name}"), &stream, "did_create").await;
        }
        let consumer = r#"{"stream_name":"M","config":{"durable_name":"K","ack_policy":"explicit"}}"#;
        ask(&mut a, "$JS.API.CONSUMER.CREATE.M.K", consumer, "\"name\":\"K\"").await;
        let mut http = Http::connect(&s).await;
        for (question, status) in [
            ("", 200),
            ("?account=A", 200),
            ("?account=A&stream=M", 200),
            ("?account=A&stream=MM", 200),
            ("?account=A&stream=M&consumer=K", 200),
            ("?account=NOPE", 404),
            ("?account=B", 404),
            ("?account=A&stream=N", 404),
            ("?account=A&stream=N&js-server-only=true", 200),
            ("?account=A&stream=M&consumer=Z", 404),
        ] {
            let answer = http.get(&format!("/healthz{question}")).await;
            assert_eq!(answer.status, status, "{question}: {}", answer.body);
        }
        let answer = http.get("/healthz?account=A&stream=N&details=1").await.json();
        let error = r#"JetStream stream "N" not found on account "A""#;
        let fault = json!({"type": "STREAM", "account": "A", "stream": "N", "error": error});
        assert_eq!(answer, json!({"status": "error", "errors": [fault]}));
        // Their configuration alone lists no accounts.
        assert_eq!(http.json("/jsz?config=1").await["account_details"], Value::Null);
        // Alone it leads all that it has, which only those hear who ask about groups.
        let (plain, raft) = (http.json("/jsz").await, http.json("/jsz?raft=1").await);
        assert_eq!((&plain["streams_leader"], &plain["consumers_leader"]), (&Value::Null, &Value::Null));
        assert_eq!(
            (&raft["streams_leader"], &raft["consumers_leader"]),
            (&raft["streams"], &raft["consumers"])
        );
        assert_eq!(raft["consumers"], 1);
        assert_eq!(http.json("/varz").await["jetstream"]["stats"]["accounts"], 1);
        let mut system = Nats::connect(&s, "s").await;
        system.say("SUB answers 1\r\n").await;
        let text = ask(
            &mut system,
            "$SYS.REQ.SERVER.PING.HEALTHZ",
            r#"{"account":"A","stream":"N"}"#,
            "\"status_code\":404",
        )
        .await;
        assert!(text.contains(r#""status":"unavailable","status_code":404"#), "{text}");
        let text = ask(&mut system, "$SYS.REQ.SERVER.PING", "", "gomaxprocs").await;
        assert!(text.contains(r#""jetstream":true,"flags":7"#), "{text}");
        assert!(text.contains(r#""jetstream":{"config":{"max_memory":"#), "{text}");
        assert!(!text.contains("store_dir"), "{text}");
        let text = ask(&mut system, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":5}"#, "\"connections\":").await;
        assert!(text.contains("\"total\":0"), "{text}");
        assert!(system.0.until("]").await.unwrap().starts_with("[]"));
        let text = ask(&mut system, "$SYS.REQ.ACCOUNT.B.JSZ", "", "description\":\"account ").await;
        assert!(text.contains("500"), "{text}");
        assert!(system.0.until("}").await.unwrap().starts_with(r#"\"B\" not jetstream enabled"#));
    });
    env::run(async { env::disk::Disk::os().remove_dir_all(&dir).await }).unwrap().ok();
}
