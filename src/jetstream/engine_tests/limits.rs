//! What accounts and the server may store: publishes are refused where nats-server refuses them.

use super::*;

/// The error of the last answer to publishes of 1,000 bytes, and how many were stored before.
async fn fill(server: &Server, subject: &str) -> (u64, u64) {
    let body = "x".repeat(1000);
    for n in 0..100 {
        let answer: Value = serde_json::from_str(&server.ask(subject, &body).await.body).expect("JSON");
        if let Some(code) = answer["error"]["err_code"].as_u64() {
            assert_eq!((&answer["seq"], answer["error"]["code"].is_u64()), (&Value::from(0), true));
            return (n, code);
        }
    }
    panic!("all 100 are stored");
}

#[test]
fn publishes_stop_at_the_limits_and_go_on_below_them() {
    let disk = new_disk();
    let limits = AccountLimits { max_store: 40_000, max_memory: 20_000, ..AccountLimits::default() };
    env::run(async {
        let server = Server::start(&disk).await;
        server.node.set_account(&server.account, Some(limits));
        let f = server.make_stream(r#"{"name":"F","subjects":["F.>"]}"#).await;
        server.make_stream(r#"{"name":"M","subjects":["M.>"],"storage":"memory"}"#).await;
        // As many as nats-server 2.15.1 takes.
        assert_eq!(fill(&server, "F.x").await, (38, 10002));
        assert_eq!(fill(&server, "M.x").await, (19, 10002));
        server.api("STREAM.PURGE.F", r#"{"keep":10}"#).await;
        assert_eq!(fill(&server, "F.x").await, (28, 10002));
        // More room, and then the server's own limit: full when it is reached.
        server.node.set_account(&server.account, Some(AccountLimits::default()));
        let t = server.node.tunable();
        server.node.tune(crate::Tunable { storage_max: f.group().state().bytes + 1500, ..t });
        assert_eq!(fill(&server, "F.x").await, (2, 10023));
        server.api("STREAM.DELETE.F", "").await;
        server.make_stream(r#"{"name":"G","subjects":["G.>"]}"#).await;
        assert_eq!(server.store("G.x", "x").await, 1);
        assert_eq!(fill(&server, "G.x").await.1, 10023);
        server.close().await;
    })
    .expect("a runtime starts");
    env::run(async {
        // What was there before counts.
        let server = Server::start(&disk).await;
        server.node.set_account(&server.account, Some(limits));
        let there = server.stream("G").group().state().msgs;
        assert_eq!(fill(&server, "G.x").await, (0, 10002), "{there}");
        server.close().await;
    })
    .expect("a runtime starts");
}
