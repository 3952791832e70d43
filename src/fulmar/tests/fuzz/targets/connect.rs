//! CONNECT and INFO: what is accepted says what its JSON says, survives being written and read, and an INFO is one line
//! whatever stands in it.

use serde_json::Value;
use wire::{
    Parsed,
    client::{Limits, Op, parse},
    info::{Connect, Info},
};

use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    info(data);
    let plain = serde_json::from_slice::<Value>(data);
    let Ok(connect) = Connect::parse(data) else {
        return seen("refused", u64::from(plain.is_ok()));
    };
    let fields = match plain {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => serde_json::Map::new(),
        // What is no Unicode is taken all the same, as Go takes it.
        Err(_)
            if str::from_utf8(data).is_err() || data.windows(3).any(|w| w.eq_ignore_ascii_case(b"\\ud")) =>
        {
            return seen("accepted without being Unicode", about(data.len()));
        }
        _ => panic!("a CONNECT that is no JSON object was accepted"),
    };
    seen("accepted", about(fields.len()));
    let default = Connect { verbose: true, pedantic: true, echo: true, ..Connect::default() };
    if fields.is_empty() {
        assert!(connect == default);
    }
    // The last one counts, in whatever case its name is written; a null counts as not given.
    let given = |name: &str| {
        fields
            .iter()
            .filter(|(k, v)| k.eq_ignore_ascii_case(name) && !v.is_null())
            .map(|(_, v)| v)
            .next_back()
    };
    for (name, is, unless_given) in [
        ("verbose", connect.verbose, true),
        ("pedantic", connect.pedantic, true),
        ("echo", connect.echo, true),
        ("headers", connect.headers, false),
        ("no_responders", connect.no_responders, false),
        ("tls_required", connect.tls_required, false),
        ("new_account", connect.new_account, false),
    ] {
        let expected = given(name).map_or(unless_given, |v| v.as_bool().expect("anything else is refused"));
        assert_eq!(is, expected, "{name}");
        seen(
            if is == unless_given { "default kept" } else { "default changed" },
            u64::from(name.as_bytes()[0]),
        );
    }
    for (name, is) in [
        ("user", &connect.user),
        ("pass", &connect.pass),
        ("auth_token", &connect.auth_token),
        ("name", &connect.name),
        ("jwt", &connect.jwt),
        ("nkey", &connect.nkey),
        ("sig", &connect.sig),
        ("lang", &connect.lang),
        ("account", &connect.account),
    ] {
        assert_eq!(*is, given(name).map_or("", |v| v.as_str().expect("anything else is refused")), "{name}");
        if !is.is_empty() {
            seen("text", u64::from(name.as_bytes()[0]) * 2 + u64::from(is.is_ascii()));
        }
    }
    assert_eq!(
        connect.protocol,
        given("protocol").map_or(0, |v| v.as_i64().expect("anything else is refused"))
    );
    if fields.values().any(Value::is_null) {
        seen("null", 0);
    }
    if fields.keys().any(|k| k.bytes().any(|b| b.is_ascii_uppercase())) {
        seen("another case", 0);
    }
    let text = serde_json::to_vec(&connect).expect("a CONNECT can be written");
    assert!(Connect::parse(&text).is_ok_and(|again| again == connect), "written and read it is the same");
    let over = Connect::parse_over(b"{}", Some(&connect)).expect("an empty object is a CONNECT");
    assert!(over == connect, "what is left out stays");
    let anew = Connect::parse_over(data, Some(&default)).expect("it was accepted before");
    assert!(anew == connect, "over the defaults it says the same");
}

/// An INFO with the input's text in it.
fn info(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let info = Info {
        server_name: text.clone(),
        host: text.chars().rev().collect(),
        cluster: text.clone(),
        connect_urls: vec![text.clone(), String::new()],
        port: data.len() as u16,
        max_payload: -1,
        headers: true,
        client_id: u64::MAX,
        ..Info::default()
    };
    let mut line = Vec::new();
    info.push(&mut line);
    let limits = Limits { max_control_line: usize::MAX - 9, max_payload: 0, headers: true };
    let Ok(Parsed::Op { op: Op::Info(json), used }) = parse(&line, &limits) else {
        panic!("an INFO is not read as one")
    };
    assert_eq!(used, line.len(), "an INFO is one line");
    let fields: Value = serde_json::from_slice(json).expect("an INFO is JSON");
    assert_eq!(fields["server_name"], Value::from(text.as_str()));
    assert_eq!(fields["host"].as_str().map(|h| h.chars().rev().collect::<String>()), Some(text.clone()));
    assert_eq!(fields["connect_urls"][0], Value::from(text.as_str()));
    assert_eq!(fields["port"], Value::from(data.len() as u16));
    assert_eq!((&fields["max_payload"], &fields["client_id"]), (&Value::from(-1), &Value::from(u64::MAX)));
    assert_eq!(fields.get("cluster").is_none(), text.is_empty(), "what is empty is left out");
}
