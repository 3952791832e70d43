//! Compares with what a real nats-server answered: `src/jetstream/testdata/record.py` asked it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stream::ApiError;

use super::ack::{AckPrefix, Extra};
use super::direct::{self, About};
use super::event::{Abandoned, Action, ClientInfo, Delivery, Event, Unpinned, Who};
use super::request::{self, Parsed, Request, Rules};
use super::response::*;
use super::{Kind, Time, text};

fn rows(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).expect("the recorder writes JSON")).collect()
}

fn api() -> Vec<Value> {
    rows(include_str!("../testdata/api.jsonl"))
}

fn string(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

/// The body as it was sent.
fn body(row: &Value) -> Vec<u8> {
    let text = string(row, "body");
    if row["latin1"] == true {
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).expect("the recorder says that it is Latin-1"))
            .collect()
    } else {
        text.into_bytes()
    }
}

fn headers(row: &Value) -> Vec<u8> {
    let Some(list) = row["headers"].as_array().filter(|l| !l.is_empty()) else { return Vec::new() };
    let mut block = b"NATS/1.0\r\n".to_vec();
    for pair in list {
        block.extend_from_slice(
            format!("{}: {}\r\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()).as_bytes(),
        );
    }
    block.extend_from_slice(b"\r\n");
    block
}

fn error_of(reply: &str) -> Option<ApiError> {
    let reply: Value = serde_json::from_str(reply).ok()?;
    serde_json::from_value(reply.get("error")?.clone()).ok()
}

/// Errors that can be told from the request alone. Where a look-up could have told them too, the recorded requests do not.
const FROM_REQUEST: [u16; 19] = [
    10003, 10010, 10015, 10017, 10018, 10020, 10025, 10038, 10039, 10056, 10074, 10127, 10128, 10131, 10137,
    10162, 10185, 10016, 10019,
];

#[test]
fn refusals_are_those_of_the_original() {
    let mut refused = 0;
    for row in api() {
        let mode = string(&row, "mode");
        if !matches!(mode.as_str(), "strict" | "lenient" | "disabled") || row["body"] == "<end>" {
            continue;
        }
        let rules = Rules { strict: mode != "lenient", enabled: mode != "disabled", clustered: false };
        let (subject, body) = (string(&row, "subject"), body(&row));
        let case = format!("{mode} {subject} {}", String::from_utf8_lossy(&body[..body.len().min(200)]));
        let reply = row["reply"].as_str();
        // A reset of a consumer that does not exist is not answered, whatever it says.
        let silent = subject.contains(".RESET.") && reply.is_none();
        match request::parse(&subject, &headers(&row), &body, rules) {
            _ if silent => {}
            Parsed::Ignore => assert_eq!(reply, None, "{case}"),
            Parsed::Refuse(refusal) => {
                refused += 1;
                assert_eq!(
                    std::str::from_utf8(&refusal.answer()).unwrap(),
                    reply.unwrap_or("nothing"),
                    "{case}"
                );
            }
            Parsed::Ask(request) => {
                let reply = reply.unwrap_or_else(|| panic!("{case}: taken for {request:?}"));
                let Some(error) = error_of(reply) else { continue };
                let early = FROM_REQUEST.contains(&error.err_code);
                let later = match &request {
                    Request::StreamUpdate { .. } => error.err_code == 10056,
                    Request::StreamSnapshot { how: Err(how), .. } => *how == error,
                    _ => false,
                };
                assert!(!early || later, "{case}: {request:?} should have been {error}");
            }
        }
    }
    assert!(refused > 600, "{refused}");
}

/// Reads an answer as `T` and writes it again.
fn again<T: DeserializeOwned + Serialize>(kind: Kind, reply: &str) -> String {
    let body: T = serde_json::from_str(reply).unwrap_or_else(|e| panic!("{e}: {reply}"));
    String::from_utf8(success(kind, &body).to_vec()).unwrap()
}

fn write_again(kind: Kind, reply: &str) -> String {
    match kind {
        Kind::AccountInfo => again::<AccountInfo>(kind, reply),
        Kind::StreamCreate => again::<StreamCreated>(kind, reply),
        Kind::StreamUpdate => again::<StreamInfo>(kind, reply),
        Kind::StreamNames => again::<StreamNames>(kind, reply),
        Kind::StreamList => again::<StreamList>(kind, reply),
        Kind::StreamInfo => again::<StreamInfoPage>(kind, reply),
        Kind::StreamPurge => again::<Purged>(kind, reply),
        Kind::MsgGet => again::<MsgGot>(kind, reply),
        Kind::StreamSnapshot => again::<Snapshot>(kind, reply),
        Kind::StreamRestore => again::<Restore>(kind, reply),
        Kind::ConsumerCreate | Kind::ConsumerInfo => again::<ConsumerInfo>(kind, reply),
        Kind::ConsumerNames => again::<ConsumerNames>(kind, reply),
        Kind::ConsumerList => again::<ConsumerList>(kind, reply),
        Kind::ConsumerPause => again::<Paused>(kind, reply),
        Kind::ConsumerReset => again::<ConsumerResetDone>(kind, reply),
        Kind::ConsumerUnpin => again::<Empty>(kind, reply),
        Kind::StreamDelete | Kind::MsgDelete | Kind::ConsumerDelete => again::<Done>(kind, reply),
        other => panic!("{other:?} has no recorded success"),
    }
}

#[test]
fn answers_are_those_of_the_original() {
    let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
    for row in api() {
        let Some(reply) = row["reply"].as_str() else { continue };
        let subject = string(&row, "subject").replace("$JS.hub.API", "$JS.API");
        let tokens: Vec<&str> = subject.split('.').collect();
        let Some((kind, _)) = Kind::of(&tokens) else { continue };
        // The last answer to a restore is that of a create; the system account is told of another type.
        let kind = if row["body"] == "<end>" { Kind::StreamCreate } else { kind };
        if !reply.contains(kind.type_name()) {
            assert_eq!(string(&row, "mode"), "system", "{subject} {reply}");
            assert_eq!(system_failure(), reply);
            continue;
        }
        let ours = match error_of(reply) {
            Some(error) => String::from_utf8(failure(kind, &error).to_vec()).unwrap(),
            None => {
                *seen.entry(kind).or_default() += 1;
                write_again(kind, reply)
            }
        };
        let same = ours.bytes().zip(reply.bytes()).take_while(|(a, b)| a == b).count();
        let tail =
            |text: &str| text.get(same.saturating_sub(40)..).map(|t| t.chars().take(200).collect::<String>());
        assert!(ours == reply, "{subject} {}:\n{:?}\n{:?}", string(&row, "body"), tail(&ours), tail(reply));
    }
    assert!(seen.len() >= 18, "{seen:?}");
}

#[test]
fn pages_are_those_of_the_original() {
    for row in api().iter().filter(|row| row["mode"] == "paging") {
        let number = |name: &str| usize::try_from(row[name].as_u64().unwrap()).unwrap();
        let asked = request::parse(&string(row, "subject"), b"", &body(row), Rules::default());
        let (offset, limit) = match asked {
            Parsed::Ask(Request::StreamNames { offset, .. }) => (offset, NAMES_LIMIT),
            Parsed::Ask(Request::StreamList { offset, .. }) => (offset, LIST_LIMIT),
            other => panic!("{other:?}"),
        };
        let (page, range) = Page::cut(number("total"), offset, limit);
        assert_eq!(page, Page { total: number("total"), offset: number("offset"), limit: number("limit") });
        assert_eq!(range.len(), number("count"));
    }
    let names = |n: usize| (0..n).map(|i| format!("{i:05}")).collect::<Vec<_>>();
    assert_eq!(StreamNames::page_of(names(3), 3, false).streams, None);
    assert_eq!(StreamNames::page_of(names(3), 3, true).streams, Some(vec![]));
    assert_eq!(StreamNames::page_of(names(0), 0, true).streams, None);
    assert_eq!(StreamNames::page_of(names(2000), 1023, false).streams.unwrap().len(), 977);
    assert_eq!(ConsumerNames::page_of(names(2000), 5).consumers.len(), NAMES_LIMIT);
    assert_eq!(ConsumerNames::page_of(names(2), 9).page, Page { total: 2, offset: 2, limit: NAMES_LIMIT });
}

fn client(event: &Value) -> ClientInfo {
    let client = &event["client"];
    ClientInfo {
        start: Time::parse(&string(client, "start")),
        host: string(client, "host"),
        id: client["id"].as_u64().unwrap(),
        acc: string(client, "acc"),
        name: string(client, "name"),
        lang: string(client, "lang"),
        ver: string(client, "ver"),
        rtt: client["rtt"].as_u64().unwrap(),
        server: string(client, "server"),
        kind: string(client, "kind"),
        client_type: string(client, "client_type"),
        ..ClientInfo::default()
    }
}

#[test]
fn events_are_those_of_the_original() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows(include_str!("../testdata/events.jsonl")) {
        let (subject, body) = (string(&row, "subject"), string(&row, "body"));
        if !subject.starts_with("$JS.EVENT") {
            continue;
        }
        let event: Value = serde_json::from_str(&body).unwrap();
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let number = |name: &str| event[name].as_u64().unwrap();
        let time = |name: &str| Time::parse(text(name)).unwrap();
        let who = Who { stream: text("stream"), consumer: text("consumer") };
        let stream = who.stream;
        let delivery = || Delivery { consumer_seq: number("consumer_seq"), stream_seq: number("stream_seq") };
        let action = match text("action") {
            "create" => Action::Create,
            "modify" => Action::Modify,
            _ => Action::Delete,
        };
        let client = if event["client"].is_object() { client(&event) } else { ClientInfo::default() };
        let state: StreamState = serde_json::from_value(event["state"].clone()).unwrap_or_default();
        let kind = text("type").rsplit('.').next().unwrap().to_owned();
        let (account, group) = (text("account"), text("group"));
        let told = match kind.as_str() {
            "api_audit" => Event::Api {
                server: text("server"),
                client: &client,
                subject: text("subject"),
                request: text("request"),
                response: text("response"),
            },
            "stream_action" => Event::Stream { stream, action },
            "consumer_action" => Event::Consumer { who, action },
            "consumer_pause" => {
                Event::Pause { who, paused: event["paused"] == true, until: time("pause_until") }
            }
            "consumer_group_pinned" => Event::Pinned { account, who, group, id: text("pinned_id") },
            "consumer_group_unpinned" => Event::Unpinned { account, who, group, reason: Unpinned::Admin },
            "max_deliver" => {
                Event::MaxDeliver { who, stream_seq: number("stream_seq"), deliveries: number("deliveries") }
            }
            "nak" => Event::Nak { who, delivery: delivery(), deliveries: number("deliveries") },
            "terminated" => Event::Terminated {
                who,
                delivery: delivery(),
                deliveries: number("deliveries"),
                reason: text("reason"),
            },
            "consumer_ack" => Event::Acked {
                who,
                delivery: delivery(),
                ack_time: event["ack_time"].as_i64().unwrap(),
                deliveries: number("deliveries"),
            },
            "snapshot_create" => Event::SnapshotCreate { stream, state: &state, client: &client },
            "snapshot_complete" => Event::SnapshotComplete {
                stream,
                start: time("start"),
                end: time("end"),
                client: &client,
                error: "",
            },
            "restore_create" => Event::RestoreCreate { stream, client: &client },
            "restore_complete" => Event::RestoreComplete {
                stream,
                start: time("start"),
                end: time("end"),
                bytes: number("bytes"),
                client: &client,
            },
            "stream_batch_abandoned" => {
                Event::BatchAbandoned { stream, batch: text("batch"), reason: Abandoned::Incomplete }
            }
            other => panic!("{other} is new"),
        };
        assert_eq!(told.subject(), subject);
        let ours = told.body(text("id"), time("timestamp"), "");
        assert_eq!(std::str::from_utf8(&ours).unwrap(), body);
        *seen.entry(kind).or_default() += 1;
    }
    assert_eq!(seen.len(), 15, "{seen:?}");
}

fn wire(kind: &str) -> Vec<Value> {
    let all = rows(include_str!("../testdata/wire.jsonl"));
    let of_kind: Vec<Value> = all.into_iter().filter(|row| row["kind"] == kind).collect();
    assert!(!of_kind.is_empty(), "{kind}");
    of_kind
}

#[test]
fn publish_acknowledgements_are_those_of_the_original() {
    for row in wire("puback") {
        let reply = string(&row, "reply");
        if reply.is_empty() {
            continue;
        }
        let said: Value = serde_json::from_str(&reply).unwrap();
        let text = |name: &str| said[name].as_str().unwrap_or_default();
        let prefix = AckPrefix::new(text("stream"), text("domain"));
        let seq = said["seq"].as_u64().unwrap();
        let extra = Extra {
            duplicate: said["duplicate"] == true,
            value: said["val"].as_str(),
            batch: said["batch"].as_str().map(|id| (id, said["count"].as_u64().unwrap())),
        };
        let mut out = Vec::new();
        match error_of(&reply) {
            Some(error) => prefix.push_error(&mut out, &error),
            None if extra == Extra::default() => prefix.push(&mut out, seq),
            None => prefix.push_extra(&mut out, seq, extra),
        }
        assert_eq!(String::from_utf8(out).unwrap(), reply);
    }
}

/// Writes a header block again from what it says.
fn block_again(block: &str) -> String {
    let line = |name: &str| {
        let lines = || block.lines().filter_map(|line| line.split_once(": "));
        lines().find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    let number = |name: &str| line(name).and_then(|n| n.parse::<u64>().ok());
    let mut out = Vec::new();
    if block.starts_with("NATS/1.0 204") {
        let (pending, last) = (number("Nats-Num-Pending").unwrap(), number("Nats-Last-Sequence").unwrap());
        match number("Nats-UpTo-Sequence") {
            None => direct::push_end(&mut out, pending, last),
            Some(up_to) => direct::push_multi_end(&mut out, pending, last, up_to),
        }
        return String::from_utf8(out).unwrap();
    }
    // The message's own headers are those before ours.
    let own = block.split("Nats-Stream: ").next().unwrap();
    let own = if own == "NATS/1.0\r\n" { String::new() } else { format!("{own}\r\n") };
    let about = About {
        stream: line("Nats-Stream").unwrap().as_bytes(),
        subject: line("Nats-Subject").unwrap().as_bytes(),
        seq: number("Nats-Sequence").unwrap(),
        time: Time::parse(line("Nats-Time-Stamp").unwrap()).unwrap().nanos(),
        headers: own.as_bytes(),
    };
    match (number("Nats-Num-Pending"), number("Nats-Last-Sequence")) {
        (None, None) => direct::push_headers(&mut out, &about),
        (Some(pending), Some(last)) => direct::push_batch_headers(&mut out, &about, pending, last),
        (None, Some(last)) => direct::push_republish_headers(&mut out, &about, last, number("Nats-Msg-Size")),
        (Some(_), None) => panic!("{block}"),
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn direct_gets_are_those_of_the_original() {
    let statuses = [direct::NOT_FOUND, direct::NO_RESULTS].map(|s| std::str::from_utf8(s).unwrap());
    for row in wire("direct") {
        let subject = string(&row, "subject");
        let replies: Vec<&str> =
            row["replies"].as_array().unwrap().iter().map(|r| r[0].as_str().unwrap()).collect();
        let case = format!("{subject} {}", string(&row, "body"));
        let rest = subject.strip_prefix("$JS.API.DIRECT.GET.").unwrap();
        if !rest.starts_with('K') {
            continue;
        }
        let parsed = direct::parse(rest.strip_prefix("K."), &headers(&row), &body(&row));
        match parsed {
            Err(status) => assert_eq!(replies, [std::str::from_utf8(status).unwrap()], "{case}"),
            Ok(get) => {
                for block in &replies {
                    assert!(
                        !block.starts_with("NATS/1.0 4") || statuses.contains(block),
                        "{case} {get:?} {block}"
                    );
                    if !block.is_empty() && !statuses.contains(block) {
                        assert_eq!(block_again(block), *block, "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn republished_headers_are_those_of_the_original() {
    for row in wire("republish") {
        let block = string(&row, "headers");
        assert_eq!(block_again(&block), block);
    }
}

/// What nats-server 2.15.1 says behind `Bad Request - `.
#[test]
fn complaints_about_pull_requests_are_those_of_the_original() {
    for (payload, text) in [
        ("{", "unexpected end of JSON input"),
        (r#" {"batch":1"#, "unexpected end of JSON input"),
        (r#"{"batch":"x"}"#, "json: cannot unmarshal string into Go struct field .batch of type int"),
        (r#"{"batch":1.5}"#, "json: cannot unmarshal number 1.5 into Go struct field .batch of type int"),
        (r#"{"no_wait":1}"#, "json: cannot unmarshal number into Go struct field .no_wait of type bool"),
        (r#"{"group":1}"#, "json: cannot unmarshal number into Go struct field .group of type string"),
        (
            r#"{"expires":"1s"}"#,
            "json: cannot unmarshal string into Go struct field .expires of type time.Duration",
        ),
        (
            r#"{"min_pending":"a"}"#,
            "json: cannot unmarshal string into Go struct field .min_pending of type int64",
        ),
        (r#"{"batch":1} x"#, "invalid character 'x' after top-level value"),
        ("{batch:1}", "invalid character 'b' looking for beginning of object key string"),
        (r#"{"batch":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
        (r#"{"batch":1,"batch":2,"idle_heartbeat":1}"#, "heartbeat value too large"),
        (r#"{"idle_heartbeat":1}"#, "heartbeat value too large"),
    ] {
        let refused = request::pull(b"", payload.as_bytes()).unwrap_err();
        assert_eq!((refused.code, &*refused.text), (400, &*format!("Bad Request - {text}")), "{payload}");
    }
    let batch = |payload: &str| request::pull(b"", payload.as_bytes()).map(|(r, json)| (r.batch, json));
    assert_eq!(batch(r#"{"batch":1,"batch":2}"#), Ok((2, true)), "the last one wins");
    assert_eq!(batch(" 7 "), Ok((7, false)));
    for (level, met) in [("99", false), ("x", false), ("", true), ("1", true)] {
        let head = format!("NATS/1.0\r\nNats-Required-Api-Level: {level}\r\n\r\n");
        let r = request::pull(head.as_bytes(), b"{");
        let code = r.expect_err("it is no JSON").code;
        assert_eq!(code, if met { 400 } else { 412 }, "{level:?}");
    }
}

#[test]
fn the_level_is_told() {
    let info = AccountInfo {
        api: ApiStats { level: super::LEVEL, ..ApiStats::default() },
        ..AccountInfo::default()
    };
    let json = String::from_utf8(text::to_vec(&info)).unwrap();
    assert!(json.contains(r#""api":{"level":5,"total":0,"errors":0}"#), "{json}");
}

#[test]
fn clusters_are_shown_as_the_original_does() {
    // Told by three servers of 2.15.1: right after a create, and of a consumer's group.
    for text in [
        r#"{"name":"C","raft_group":"S-R3F-MTppQu8h","leader":"n1","leader_since":"2026-11-21T08:41:57.77924656Z","system_account":true,"traffic_account":"SYS","replicas":[{"name":"n0","current":true,"active":324632,"peer":"6DVFpukC"},{"name":"n2","current":false,"active":0,"lag":1,"peer":"44jzkV9D"}]}"#,
        r#"{"leader":"srv"}"#,
    ] {
        let cluster: ClusterInfo = serde_json::from_str(text).unwrap();
        assert_eq!(String::from_utf8(super::text::to_vec(&cluster)).unwrap(), text);
    }
    let peers: Vec<PeerInfo> =
        serde_json::from_str(r#"[{"name":"n1","current":true,"active":3153246,"peer":"fjFyEjc1"}]"#).unwrap();
    let event = Event::StreamLeader { account: "A", stream: "S", leader: "n1", replicas: &peers };
    let time = Time::parse("2026-11-21T08:41:57.779543071Z").unwrap();
    assert_eq!(event.subject(), "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.S");
    assert_eq!(
        event.body("F3gJOT3VlO3IflHLnOg6kO", time, ""),
        r#"{"type":"io.nats.jetstream.advisory.v1.stream_leader_elected","id":"F3gJOT3VlO3IflHLnOg6kO","timestamp":"2026-11-21T08:41:57.779543071Z","account":"A","stream":"S","leader":"n1","replicas":[{"name":"n1","current":true,"active":3153246,"peer":"fjFyEjc1"}]}"#
    );
}
