//! What requests of the API come to, where it takes a look at what is there: as nats-server 2.15.1 answers them.

use serde_json::json;

use super::*;

/// An error's code and text; nothing if there is none.
fn refused(r: &Value) -> (u64, &str) {
    let e = &r["error"];
    (e["err_code"].as_u64().unwrap_or(0), e["description"].as_str().unwrap_or_default())
}

async fn ask_with(server: &Server, what: &str, header: &str, body: &str) -> (String, Value) {
    let to = server.inbox();
    let head = format!("NATS/1.0\r\n{header}\r\n\r\n");
    assert!(server.publish_bytes(&format!("$JS.API.{what}"), &to, &head, body.as_bytes()) > 0);
    let got = server.wait(&to, 1).await.remove(0);
    (got.head, serde_json::from_str(&got.body).expect("JSON"))
}

async fn consumer(server: &Server, name: &str, config: &str, action: &str) -> Value {
    let body = format!(r#"{{"stream_name":"S","config":{config},"action":"{action}"}}"#);
    server.api(&format!("CONSUMER.CREATE.S.{name}"), &body).await
}

#[test]
fn a_pause_outlives_updates() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        server.subscribe("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c");
        let pauses = || server.got("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c").len();
        let paused = |info: &Value| {
            let level = info["config"]["metadata"]["_nats.req.level"].as_str().map(str::to_owned);
            (info["config"]["pause_until"].as_str().map(str::to_owned), info["paused"] == true, level)
        };
        let at = |s: &str| Some(s.to_owned());
        let plain = r#"{"durable_name":"c","ack_policy":"explicit"}"#;
        assert_eq!(paused(&consumer(&server, "c", plain, "").await), (None, false, at("0")));
        assert_eq!(pauses(), 0);
        server.api("CONSUMER.PAUSE.S.c", r#"{"pause_until":"2099-01-01T00:00:00Z"}"#).await;
        server.wait("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c", 1).await;
        let (still, told) = ((at("2099-01-01T00:00:00Z"), true, at("1")), "told again each time");
        let described = r#"{"durable_name":"c","ack_policy":"explicit","description":"x"}"#;
        let other = r#"{"durable_name":"c","ack_policy":"explicit","pause_until":"2031-01-01T00:00:00Z"}"#;
        for (n, (config, action)) in
            [(described, ""), (plain, "update"), (other, ""), (other, "update"), (other, "create")]
                .into_iter()
                .enumerate()
        {
            assert_eq!(paused(&consumer(&server, "c", config, action).await), still, "{config} {action}");
            assert_eq!(pauses(), 2 + n, "{told}");
        }
        assert_eq!(paused(&server.consumer_info("S", "c").await), still);
        server.api("CONSUMER.PAUSE.S.c", "").await;
        assert_eq!(paused(&consumer(&server, "c", other, "").await), (None, false, at("0")));
        // One that begins paused is told of too, one whose pause is over is not.
        let told = "$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.new";
        server.subscribe(told);
        let begins = r#"{"durable_name":"new","ack_policy":"explicit","pause_until":"2099-01-01T00:00:00Z"}"#;
        assert_eq!(paused(&consumer(&server, "new", begins, "").await), still);
        let event: Value = serde_json::from_str(&server.got(told)[0].body).expect("JSON");
        assert_eq!((&event["paused"], &event["pause_until"]), (&json!(true), &json!("2099-01-01T00:00:00Z")));
        let over = r#"{"durable_name":"c","ack_policy":"explicit","pause_until":"2001-01-01T00:00:00Z"}"#;
        server.api("CONSUMER.DELETE.S.c", "").await;
        server.wait("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c", 7).await;
        consumer(&server, "c", over, "").await;
        assert_eq!(pauses(), 7);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn what_a_consumer_was_made_as_it_stays() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let threshold = |r: &Value| r["config"]["inactive_threshold"].as_u64();
        let durable = r#"{"durable_name":"n","ack_policy":"explicit"}"#;
        let by_name = r#"{"name":"n","ack_policy":"explicit"}"#;
        assert_eq!(threshold(&consumer(&server, "n", durable, "").await), None);
        assert_eq!(threshold(&consumer(&server, "n", by_name, "").await), None);
        let fleeting = r#"{"name":"e","ack_policy":"explicit"}"#;
        assert_eq!(threshold(&consumer(&server, "e", fleeting, "").await), Some(5_000_000_000));
        let again = consumer(&server, "e", fleeting, "create").await;
        assert_eq!(refused(&again), (10148, "consumer already exists"), "compared as it was asked for");
        let whole = r#"{"name":"e","ack_policy":"explicit","inactive_threshold":5000000000}"#;
        assert_eq!(threshold(&consumer(&server, "e", whole, "create").await), Some(5_000_000_000));
        let named = r#"{"durable_name":"e","ack_policy":"explicit"}"#;
        assert_eq!(threshold(&consumer(&server, "e", named, "").await), Some(5_000_000_000));
        let names = |r: Value| r["consumers"].clone();
        assert_eq!(names(server.api("CONSUMER.NAMES.S", "").await), json!(["e", "n"]));
        // A name that the server chose stands beside the configuration, not in it.
        let made = server.api("CONSUMER.CREATE.S", r#"{"stream_name":"S","config":{}}"#).await;
        let name = made["name"].as_str().expect("a name");
        assert_eq!((name.len(), &made["config"]["name"]), (8, &Value::Null));
        let listed = server.api("CONSUMER.LIST.S", "").await;
        let listed = listed["consumers"].as_array().expect("a list").iter().find(|c| c["name"] == name);
        assert_eq!(listed.expect("it is there")["config"]["name"], Value::Null);
        let asked = consumer(&server, name, &format!(r#"{{"name":"{name}"}}"#), "").await;
        assert_eq!(asked["config"]["name"], name);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn a_stream_that_is_made_anew_is_told_apart() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let body = r#"{"stream_name":"S","config":{"name":"so","sourcing":true}}"#;
        let identity = |head: &str| {
            head.strip_prefix("NATS/1.0\r\nNats-Stream-Identity: ").map(|rest| rest.trim_end().to_owned())
        };
        let ask = async || {
            let got = server.ask("$JS.API.CONSUMER.CREATE.S.so", body).await;
            assert!(!got.body.contains("error"), "{got:?}");
            identity(&got.head).expect("a header")
        };
        let first = ask().await;
        assert_eq!((first.len(), ask().await), (8, first.clone()));
        let expect = |id: &str| format!("Nats-Stream-Identity: {id}");
        let (head, _) = ask_with(&server, "CONSUMER.CREATE.S.so", &expect(&first), body).await;
        assert_eq!(identity(&head), Some(first.clone()));
        let (head, r) = ask_with(&server, "CONSUMER.CREATE.S.so", &expect("zz"), body).await;
        assert_eq!(head, "");
        assert_eq!(refused(&r), (10225, &*format!("consumer's stream identity does not match: {first}")));
        // A reset shows it to whoever names one, whichever.
        let (head, r) = ask_with(&server, "CONSUMER.RESET.S.so", &expect("zz"), "").await;
        assert_eq!((identity(&head), refused(&r).0), (Some(first.clone()), 0));
        assert_eq!(server.ask("$JS.API.CONSUMER.RESET.S.so", "").await.head, "");
        // Where there is no consumer nobody answers, whatever is asked.
        let (_, r) = ask_with(&server, "CONSUMER.RESET.S.so", "Nats-Required-Api-Level: 99", "17").await;
        assert_eq!(refused(&r).0, 10185);
        assert_eq!(server.api("CONSUMER.RESET.S.so", "17").await["error"]["err_code"], 10025);
        let (none, after) = (server.inbox(), server.inbox());
        server.publish("$JS.API.CONSUMER.RESET.S.none", &none, "17");
        server.publish("$JS.API.CONSUMER.RESET.S.so", &after, "17");
        server.wait(&after, 1).await;
        assert!(server.got(&none).is_empty());
        // Other consumers do not show it, and do not ask for it.
        let other = r#"{"stream_name":"S","config":{"durable_name":"d"}}"#;
        let (head, r) = ask_with(&server, "CONSUMER.CREATE.S.d", &expect("zz"), other).await;
        assert_eq!((&*head, refused(&r).0), ("", 0));
        server.api("STREAM.DELETE.S", "").await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        assert_ne!(ask().await, first);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn sources_of_other_servers_get_a_consumer_each_time() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        let from = |seq: u64| {
            format!(
                r#"{{"name":"src","direct":true,"sourcing":true,"deliver_subject":"d","deliver_policy":"by_start_sequence","opt_start_seq":{seq}}}"#
            )
        };
        let one = consumer(&server, "src", &from(1), "").await;
        let two = consumer(&server, "src", &from(2), "").await;
        let name = |r: &Value| r["name"].as_str().unwrap_or_else(|| panic!("{r}")).to_owned();
        assert!(name(&one).starts_with("src-") && name(&two).starts_with("src-") && name(&one) != name(&two));
        assert_eq!(one["config"]["name"], *name(&one));
        // Of a work queue it stays, since it says what is done with.
        server.make_stream(r#"{"name":"W","subjects":["w.>"],"retention":"workqueue"}"#).await;
        let body = r#"{"stream_name":"W","config":{"name":"src","direct":true,"sourcing":true,"deliver_subject":"d"}}"#;
        server.store("w.x", "1").await;
        server.subscribe("d");
        for n in 1..=3 {
            let r = server.api("CONSUMER.CREATE.W.src", body).await;
            let c = &r["config"];
            assert_eq!((&c["durable_name"], &c["ack_policy"]), (&json!("src"), &json!("flow_control")), "{r}");
            // It begins anew each time, behind what was acknowledged.
            let first = |g: &&Got| g.reply.contains(".1.1.1.");
            server.until("the first comes", || (server.got("d").iter().filter(first).count() == n).then_some(())).await;
        }
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn consumers_go_before_their_stream_and_pins_on_request() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        for what in ["CONSUMER.DELETED.S.*", "STREAM.DELETED.S", "CONSUMER.UNPINNED.S.p"] {
            server.subscribe(&format!("$JS.EVENT.ADVISORY.{what}"));
        }
        let told = |what: &str| server.got(&format!("$JS.EVENT.ADVISORY.{what}"));
        server.make_consumer("S", "d", r#"{"durable_name":"d"}"#).await;
        let grouped = r#"{"durable_name":"p","ack_policy":"explicit","priority_policy":"pinned_client","priority_groups":["a"]}"#;
        server.make_consumer("S", "p", grouped).await;
        let never = json!([{ "group": "a", "pinned_ts": "0001-01-01T00:00:00Z" }]);
        assert_eq!(server.consumer_info("S", "p").await["priority_groups"], never);
        // Nobody is pinned; that is said all the same.
        server.api("CONSUMER.UNPIN.S.p", r#"{"group":"a"}"#).await;
        let event = server.wait("$JS.EVENT.ADVISORY.CONSUMER.UNPINNED.S.p", 1).await.remove(0);
        let event: Value = serde_json::from_str(&event.body).expect("JSON");
        assert_eq!((&event["group"], &event["reason"]), (&json!("a"), &json!("admin")));
        server.api("STREAM.DELETE.S", "").await;
        let gone: Vec<Value> = told("CONSUMER.DELETED.S.*")
            .iter()
            .map(|g| serde_json::from_str::<Value>(&g.body).expect("JSON")["consumer"].clone())
            .collect();
        assert_eq!((gone, told("STREAM.DELETED.S").len()), (vec![json!("d"), json!("p")], 1));
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn what_an_account_does_not_allow_is_said_first() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        let small = AccountLimits {
            max_memory: 0,
            max_store: 100_000,
            max_consumers: 2,
            store_max_stream_bytes: 5000,
            ..AccountLimits::default()
        };
        server.node.set_account(&server.account, Some(small));
        let memory = (10028, "insufficient memory resources available");
        let storage = (10047, "insufficient storage resources available");
        let consumers = (10026, "maximum consumers limit reached");
        let big = (10122, "stream max bytes exceeds account limit max stream bytes");
        let young = (10052, "max age needs to be >= 100ms");
        for (verb, config, answer) in [
            ("CREATE", json!({ "storage": "memory" }), memory),
            ("CREATE", json!({ "max_consumers": 50 }), consumers),
            ("CREATE", json!({ "max_consumers": 50, "max_bytes": 200_000, "max_age": 5 }), consumers),
            ("CREATE", json!({ "max_bytes": 200_000, "max_age": 5 }), young),
            ("CREATE", json!({ "max_bytes": 200_000 }), big),
            ("CREATE", json!({ "num_replicas": 2, "max_age": 5 }), young),
            ("CREATE", json!({ "num_replicas": 2, "max_consumers": 50 }), consumers),
            ("CREATE", json!({ "max_bytes": 6000 }), big),
            ("CREATE", json!({ "max_bytes": 6000, "max_age": 5 }), young),
            ("CREATE", json!({ "max_consumers": 2, "max_bytes": 5000 }), (0, "")),
            ("CREATE", json!({ "max_consumers": 50 }), consumers),
            ("UPDATE", json!({ "max_consumers": 10, "max_age": 5 }), young),
            ("UPDATE", json!({ "max_consumers": 10 }), consumers),
            ("UPDATE", json!({ "max_bytes": 200_000 }), big),
            ("UPDATE", json!({ "max_consumers": -1, "max_bytes": 5000 }), (0, "")),
        ] {
            let mut config = config;
            config["name"] = "C".into();
            let r = server.api(&format!("STREAM.{verb}.C"), &config.to_string()).await;
            assert_eq!(refused(&r), answer, "{verb} {config}: {r}");
        }
        let alone = AccountLimits { max_streams: 1, ..small };
        server.node.set_account(&server.account, Some(alone));
        let second = r#"{"name":"D","max_consumers":50,"num_replicas":2,"max_age":5}"#;
        assert_eq!(refused(&server.api("STREAM.CREATE.D", second).await).0, 10027);
        // What is set aside is all there is: not even a stream that sets nothing aside finds room, but what is there stays as it is.
        server.node.set_account(&server.account, Some(AccountLimits { max_store: 5000, ..small }));
        assert_eq!(refused(&server.api("STREAM.CREATE.D", r#"{"name":"D"}"#).await), storage);
        let same = r#"{"name":"C","max_bytes":5000}"#;
        assert_eq!(refused(&server.api("STREAM.CREATE.C", same).await).0, 0);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn removals_of_what_is_not_there_are_no_errors_of_the_api() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"F","subjects":["f"]}"#).await;
        server.make_stream(r#"{"name":"M","subjects":["m"],"storage":"memory"}"#).await;
        for _ in 0..6 {
            server.store("f", "x").await;
            server.store("m", "x").await;
        }
        let (none, end) = ((10057, "no message found"), (10057, "stream store EOF"));
        let lacks = |text| (10043, text);
        for (stream, body, answer) in [
            ("F", r#"{"seq":5}"#, (0, "")),
            ("F", r#"{"seq":5}"#, lacks("sequence 5 not found")),
            ("F", r#"{"seq":1}"#, none),
            ("F", r#"{"seq":3}"#, none),
            ("F", r#"{"seq":0}"#, none),
            ("F", "null", none),
            ("F", r#"{"seq":7}"#, end),
            ("M", r#"{"seq":1}"#, lacks("sequence 1 not found")),
            ("M", r#"{"seq":0}"#, lacks("sequence 0 not found")),
            ("M", r#"{"seq":7}"#, lacks("sequence 7 not found")),
        ] {
            server.api(&format!("STREAM.PURGE.{stream}"), r#"{"seq":4}"#).await;
            let r = server.api(&format!("STREAM.MSG.DELETE.{stream}"), body).await;
            assert_eq!(refused(&r), answer, "{stream} {body}: {r}");
        }
        server.make_stream(r#"{"name":"L","subjects":["l"],"first_seq":3}"#).await;
        for (seq, answer) in [(2, none), (3, end)] {
            let r = server.api("STREAM.MSG.DELETE.L", &json!({ "seq": seq }).to_string()).await;
            assert_eq!(refused(&r), answer, "{seq}: {r}");
        }
        assert_eq!(server.api("INFO", "").await["api"]["errors"], 0);
        server.api("STREAM.MSG.DELETE.F", "{}").await;
        assert_eq!(server.api("INFO", "").await["api"]["errors"], 1);
        server.make_stream(r#"{"name":"D","subjects":["d"],"deny_delete":true}"#).await;
        assert_eq!(refused(&server.api("STREAM.MSG.DELETE.D", r#"{"seq":1}"#).await).0, 10057);
        assert_eq!(server.api("INFO", "").await["api"]["errors"], 2);
        server.close().await;
    })
    .expect("a runtime starts");
}

#[test]
fn the_servers_notes_count_among_the_metadata() {
    env::run(async {
        let server = Server::start(&new_disk()).await;
        server.make_stream(r#"{"name":"S","subjects":["a.>"]}"#).await;
        // One for the key, sixteen for the level.
        let fits = 128 * 1024 - 17;
        for (len, stream, of_consumer) in [(fits + 1, 10052, 10135), (fits, 0, 0)] {
            let metadata = json!({ "a": "x".repeat(len) });
            let config = json!({ "name": "T", "metadata": metadata }).to_string();
            let r = server.api("STREAM.CREATE.T", &config).await;
            assert_eq!(refused(&r).0, stream, "{len}");
            assert_eq!(refused(&consumer(&server, "T", &config, "").await).0, of_consumer, "{len}");
        }
        // A level stands for what was asked for, also if it is mended then.
        let r = consumer(&server, "z", r#"{"name":"z","priority_timeout":-2}"#, "").await;
        assert_eq!(r["config"]["metadata"]["_nats.req.level"], "1", "{r}");
        server.store("a.b", "x").await;
        let info = server.api("STREAM.INFO.S", r#"{"subjects_filter":">","offset":50}"#).await;
        assert_eq!((&info["total"], &info["offset"]), (&json!(1), &json!(50)));
        server.close().await;
    })
    .expect("a runtime starts");
}
