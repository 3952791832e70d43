use serde_json::Value;

use super::*;
use crate::errors::ApiError;

fn config(json: &str) -> StreamConfig {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_minimal_stream_is_filled_in_and_printed_as_the_server_does() {
    let mut c = config(r#"{"name":"A"}"#);
    c.check(&ServerLimits::default(), &NoStreams, false).unwrap();
    assert_eq!(
        serde_json::to_string(&c).unwrap(),
        r#"{"name":"A","subjects":["A"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false}"#
    );
    let again = config(&serde_json::to_string(&c).unwrap());
    assert_eq!(again, c);
}

#[test]
fn lengths_are_bounded() {
    let invalid = |c: &mut StreamConfig| {
        c.check(&ServerLimits::default(), &NoStreams, false).unwrap_err().description.into_owned()
    };
    let named = |name: String| StreamConfig { name, ..StreamConfig::default() };
    let mut c = named("x".repeat(256));
    assert_eq!(invalid(&mut c), "stream name is too long, maximum allowed is 255");
    let mut c = named("A".into());
    c.description = "d".repeat(4097);
    assert_eq!(invalid(&mut c), "stream description is too long, maximum allowed is 4096");
    let mut c = named("A".into());
    c.metadata.insert("k".into(), "v".repeat(131_072));
    assert_eq!(invalid(&mut c), "stream metadata exceeds maximum size of 131072 bytes");
}

#[test]
fn server_limits_apply() {
    let limits = ServerLimits {
        duplicate_window: 1_000_000_000,
        max_bytes_required: true,
        max_stream_bytes: 10,
        clustered: false,
    };
    let mut c = config(r#"{"name":"A","max_bytes":5}"#);
    c.check(&limits, &NoStreams, false).unwrap();
    assert_eq!(c.duplicate_window, 1_000_000_000);
    let e = |json: &str| config(json).check(&limits, &NoStreams, false).unwrap_err();
    assert_eq!(e(r#"{"name":"A"}"#).err_code, 10113);
    assert_eq!(e(r#"{"name":"A","max_bytes":11}"#).err_code, 10122);
    assert_eq!(
        e(r#"{"name":"A","max_bytes":5,"duplicate_window":2000000000}"#).description,
        "duplicates window can not be larger then server limit of 1s"
    );
}

/// The stream that the recordings were made beside, and the one itself once it is there.
struct Origin(StreamConfig);

impl Streams for Origin {
    fn find(&self, name: &str) -> Option<StreamConfig> {
        (name == self.0.name).then(|| self.0.clone())
    }
}

/// What nats-server 2.15.1 answered to the same requests.
#[test]
fn configurations_are_judged_as_by_nats_server() {
    let recorded: Value = serde_json::from_str(include_str!("../testdata/configs.json")).unwrap();
    let parse = |v: &Value| serde_json::from_value::<StreamConfig>(v.clone()).unwrap();
    let origin = Origin(parse(&recorded["origin"]));
    let mut wrong = Vec::new();
    let mut judge = |what: String, got: Result<StreamConfig, ApiError>, case: &Value| {
        let (got, want) = match got {
            Ok(c) => (serde_json::to_value(&c).unwrap(), &case["config"]),
            Err(e) => (serde_json::to_value(&e).unwrap(), &case["error"]),
        };
        let same =
            got == *want && serde_json::to_string(&got).unwrap() == serde_json::to_string(want).unwrap();
        if !same {
            let want = case.get("error").unwrap_or(&case["config"]);
            wrong.push(format!("{what}\n   got {got}\n  want {want}"));
        }
    };
    for case in recorded["creates"].as_array().unwrap() {
        let mut c = parse(&case["request"]);
        let got = c.check(&ServerLimits::default(), &origin, case["pedantic"].as_bool().unwrap()).map(|()| c);
        judge(format!("create {} {}", case["request"], case["pedantic"]), got, case);
    }
    for case in recorded["updates"].as_array().unwrap() {
        let (mut old, mut new) = (parse(&case["from"]), parse(&case["to"]));
        old.check(&ServerLimits::default(), &origin, false).unwrap();
        let got = new.check_update(&old, &ServerLimits::default(), &origin, false).map(|()| new);
        judge(format!("update {} to {}", case["from"], case["to"]), got, case);
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn filters_are_subjects_and_updates_keep_name_and_counter() {
    let told = |r: Result<(), ApiError>| r.map_err(|e| (e.err_code, e.description.into_owned())).unwrap_err();
    let limits = ServerLimits::default();
    let filter = "subject filter";
    for (json, text) in [
        (
            r#"{"name":"X","mirror":{"name":"M","filter_subject":"m..a"}}"#,
            "'m..a' for the mirror invalid subject",
        ),
        (
            r#"{"name":"X","mirror":{"name":"M","filter_subject":"a b"}}"#,
            "'a b' for the mirror invalid subject",
        ),
        (
            r#"{"name":"X","sources":[{"name":"M"},{"name":"N","filter_subject":"m..a"}]}"#,
            "'m..a' for the source: invalid subject",
        ),
    ] {
        let r = config(json).check(&limits, &NoStreams, false);
        assert_eq!(told(r), (10049, format!("{filter} {text}")), "{json}");
    }
    let made = |json: &str| {
        let mut c = config(json);
        c.check(&limits, &NoStreams, false).unwrap();
        c
    };
    let update = |old: &StreamConfig, json: &str| config(json).check_update(old, &limits, &NoStreams, false);
    let counter = made(r#"{"name":"C","allow_msg_counter":true}"#);
    let marked = r#"{"name":"C","allow_msg_counter":true,"subject_delete_marker_ttl":1000000000}"#;
    assert_eq!(told(update(&counter, marked)), (10052, "counter stream cannot use message TTLs".into()));
    // Made so it can be, but not changed any more.
    assert_eq!(told(update(&made(marked), marked)).0, 10052);
    assert_eq!(update(&counter, r#"{"name":"C","allow_msg_counter":true}"#), Ok(()));
    assert_eq!(told(update(&counter, r#"{"name":"D","storage":"memory"}"#)).0, 10056);
    assert_eq!(told(update(&counter, r#"{"name":"D","max_age":5}"#)).0, 10052);
}
