use super::*;

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
