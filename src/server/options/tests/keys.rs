//! Every key of the reference, with its aliases: implemented or refused by name, never unknown and never ignored.

use super::{errors, load, options};
use crate::options::refused::REFUSED;
use crate::options::*;
use std::time::Duration;

const USER: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
const ACCOUNT: &str = "ADFB2JXYTXOJEL6LNAXDREUGRX35BOLZI3B4PFFAC7IRPR3OA4QNKBN2";

/// A configuration for each key; `load` must take it, and the options must differ from those of an empty one.
const TAKEN: &[&str] = &[
    "listen: \"127.0.0.1:5000\"",
    "host: h",
    "net: h",
    "port: 5",
    "client_advertise: \"a:1\"",
    "server_name: n",
    "server_tags: [a, b]",
    "server_tags: \"a, b\"",
    "server_metadata {a: b}",
    "feature_flags {a: true}",
    "debug: true",
    "trace: true",
    "trace_verbose: true",
    "trace_headers: true",
    "logtime: false",
    "logtime_utc: true",
    "logfile: f",
    "log_file: f",
    "logfile_size_limit: 5mb",
    "log_size_limit: 5",
    "logfile_max_num: 5",
    "log_max_num: 5",
    "syslog: true",
    "remote_syslog: \"udp://x:1\"",
    "max_traced_msg_len: 5",
    "pid_file: p",
    "pidfile: p",
    "ports_file_dir: p",
    "http: 8222",
    "http: \"127.0.0.1:8222\"",
    "http_port: 8222",
    "monitor_port: 8222",
    "http_base_path: \"/x\"",
    "prof_port: 5",
    "prof_block_rate: 5",
    "max_connections: 5",
    "max_conn: 0",
    "max_subscriptions: 5",
    "max_subs: 5",
    "max_sub_tokens: 5",
    "max_control_line: 5k",
    "max_payload: 2MB",
    "max_pending: 2MB",
    "max_closed_clients: 5",
    "ping_interval: \"100ms\"",
    "ping_max: 5",
    "write_deadline: \"3s\"",
    "write_timeout: close",
    "lame_duck_duration: \"40s\"",
    "lame_duck_grace_period: \"4s\"",
    "no_fast_producer_stall: true",
    "disable_sublist_cache: true",
    "no_sublist_cache: true",
    "no_header_support: true",
    "proxy_protocol: true",
    "connect_error_reports: 5",
    "reconnect_error_reports: 5",
    "tls {cert_file: a, key_file: b}",
    "allow_non_tls: true",
    "authorization {user: a, password: b}",
    "authorization {username: a, pass: b, timeout: 1.5}",
    "authorization {token: t, proxy_required: true}",
    "authorization {default_permissions {publish: a}}",
    "accounts {A: {}}",
    "accounts: [A, B]",
    "mappings {a: b}",
    "maps {a: b}",
    "accounts {A {}}, system_account: A",
    "accounts {A {}}, system: A",
    "no_system_account: true",
    "no_system: true",
    "no_sys_acc: true",
    "cluster {port: -1}",
    "websocket {port: -1, no_tls: true}",
    "ws {port: -1, no_tls: true}",
    "jetstream: true",
    "jetstream: enabled",
    "jetstream {}",
    "jetstream {}, store_dir: x",
    "default_js_domain {\"$G\": d}",
    "proxies {trusted [{key: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}]}",
];

#[test]
fn opt_1_every_key_at_the_top_has_an_effect() {
    for text in TAKEN {
        let mut got = options(text);
        (got.config_file, got.config_digest) = (None, None);
        assert_ne!(got, Options::default(), "{text}");
        // Keys match without regard to case.
        let key = text.split([' ', ':']).next().unwrap();
        let mut upper = options(&text.replacen(key, &key.to_ascii_uppercase(), 1));
        (upper.config_file, upper.config_digest) = (None, None);
        assert_eq!(got, upper, "{text}");
    }
}

/// Blocks by what encloses them: each key, with a value, changes the options.
const BLOCKS: &[(&str, &[&str])] = &[
    (
        "cluster {port: -1, %}",
        &[
            "name: n",
            "host: h",
            "net: h",
            "listen: \"h:1\"",
            "routes: [\"nats://a:1\"]",
            "authorization {user: a, password: b, timeout: 5}",
            "tls {insecure: true}",
            "permissions {import: a, export: b}",
            "advertise: \"a:1\"",
            "cluster_advertise: \"a:1\"",
            "no_advertise: true",
            "connect_retries: 5",
            "connect_backoff: true",
            "pool_size: 5",
            "pool_size: -1",
            "accounts: [A]",
            "compression: s2_best",
            "compression: true",
            "compression {mode: s2_auto, rtt_thresholds: [\"1ms\", \"2ms\"]}",
            "ping_interval: \"5s\"",
            "ping_max: 5",
            "write_deadline: \"5s\"",
            "write_timeout: retry",
        ],
    ),
    (
        "websocket {port: -1, no_tls: true, %}",
        &[
            "host: h",
            "net: h",
            "listen: \"h:1\"",
            "advertise: \"a:1\"",
            "tls {cert_file: a, key_file: b}",
            "same_origin: true",
            "allowed_origins: [\"http://a\"]",
            "handshake_timeout: \"5s\"",
            "compression: true",
            "authorization {user: a, password: b, token: c, timeout: 5}",
            "user_cookie: c",
            "pass_cookie: c",
            "token_cookie: c",
            "headers {a: b}",
            "ping_interval: \"5s\"",
        ],
    ),
    (
        "jetstream {%}",
        &[
            "store_dir: d",
            "store: d",
            "storedir: d",
            "strict: false",
            "max_memory_store: 5mb",
            "max_mem_store: \"5MB\"",
            "max_mem: 5",
            "max_file_store: 5",
            "max_file: \"5GiB\"",
            "sync_interval: always",
            "sync: \"1m\"",
            "domain: d",
            "extension_hint: will_extend",
            "unique_tag: t",
            "key: k",
            "ek: k",
            "encryption_key: k",
            "prev_key: k",
            "prev_encryption_key: k",
            "cipher: aes",
            "limits {max_ack_pending: 5}",
            "limits {max_ha_assets: 5}",
            "limits {max_request_batch: 5}",
            "limits {duplicate_window: \"1m\"}",
            "limits {default_max_consumers: 5}",
            "limits {batch {max_inflight_per_stream: 5}}",
            "limits {batch {max_inflight_total: 5}}",
            "limits {batch {max_msgs: 5}}",
            "limits {batch {timeout: \"5s\"}}",
            "max_outstanding_catchup: 5",
            "max_buffered_msgs: 5",
            "max_buffered_size: 5",
            "request_queue_limit: 5",
            "info_queue_limit: 5",
            "meta_compact: 5",
            "meta_compact_size: 5",
            "meta_compact_sync: true",
            "max_concurrent_io: 5",
        ],
    ),
    (
        "tls {cert_file: c, key_file: k, %}",
        &[
            "ca_file: a",
            "verify: true",
            "verify_and_map: true",
            "insecure: true",
            "timeout: 5",
            "timeout: 0.0001",
            "cipher_suites: [TLS_AES_128_GCM_SHA256]",
            "curve_preferences: [CurveP256]",
            "allow_insecure_cipher_suites: true",
            "min_version: \"1.3\"",
            "pinned_certs: [\"0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef\"]",
            "connection_rate_limit: 5",
            "handshake_first: true",
            "handshake_first: auto",
            "handshake_first: \"300ms\"",
        ],
    ),
    (
        "authorization {users [{user: a, password: b, %}]}",
        &[
            "permissions {publish: a}",
            "permission {pub: [a, b]}",
            "authorization {sub {allow: a, deny: [b]}}",
            "permissions {subscribe: \"a q.*\"}",
            "permissions {allow_responses: true}",
            "permissions {publish_allow_responses {max_msgs: 5, ttl: \"1m\"}}",
            "allowed_connection_types: [STANDARD, websocket]",
            "connection_types: MQTT",
            "clients: [IN_PROCESS]",
            "proxy_required: true",
        ],
    ),
    (
        "accounts {B {exports [{service: \"b.*\"}, {stream: \"s.>\"}]}, A {%}}",
        &[
            "users [{user: a, pass: b}]",
            "default_permissions {publish: a}",
            "exports [{stream: \"a.>\", accounts: [B]}]",
            "exports [{service: a, response: chunked, threshold: \"1s\", allow_trace: true}]",
            "exports [{service: a, response: singleton, latency: l}]",
            "exports [{service: a, response_type: stream, response_threshold: \"1s\"}]",
            "exports [{service: a, latency {sampling: headers, subject: l}}]",
            "exports [{service: \"a.*\", account_token_position: 2}]",
            "imports [{stream {account: B, subject: \"s.x\"}, to: \"t.x\", allow_trace: true}]",
            "imports [{stream {account: B, subject: \"s.x\"}, prefix: p}]",
            "imports [{service {account: B, subject: \"b.x\"}, to: c, share: true}]",
            "jetstream: enabled",
            "jetstream: true",
            "jetstream {max_mem: 5, max_file: 6, max_streams: 7, max_consumers: 8, max_bytes_required: true}",
            "jetstream {max_memory: 5, store: 6, mem_max_stream_bytes: 5, disk_max_stream_bytes: 6, max_ack_pending: 7}",
            "jetstream {memory_max_stream_bytes: 5, store_max_stream_bytes: 6, cluster_traffic: owner}",
            "mappings {a: b}",
            "maps {a: [{destination: b, weight: \"40%\"}, {dest: c, weight: 60}, {dest: d, weight: 100, cluster: x}]}",
            "limits {max_connections: 5}",
            "limits {max_conn: 5, max_subs: 6, max_payload: 7, max_leafnodes: 8}",
            "msg_trace: a",
            "trace_dest {dest: a, sampling: \"50%\"}",
        ],
    ),
];

#[test]
fn opt_1_every_key_of_every_block_has_an_effect() {
    for (block, keys) in BLOCKS {
        let mut without = options(&block.replace('%', ""));
        (without.config_file, without.config_digest) = (None, None);
        for key in *keys {
            let mut with = options(&block.replace('%', key));
            (with.config_file, with.config_digest) = (None, None);
            assert_ne!(with, without, "{block} {key}");
        }
        // And a key of no meaning is an error with its place.
        let text = errors(&block.replace('%', "zzzz: 1"));
        assert!(text.contains("nknown field \"zzzz\"") && text.starts_with("f.conf:1:"), "{block}: {text}");
    }
}

#[test]
fn opt_1_refused_keys_are_refused_by_name() {
    for refused in REFUSED {
        let text = match refused.block {
            "" => format!("{}: x", refused.key),
            block => format!("{block} {{{}: x}}", refused.key),
        };
        let said = errors(&text);
        assert!(said.contains(&format!("{:?} is not yet supported", refused.key)), "{text}: {said}");
        assert!(said.contains(refused.feature) && said.starts_with("f.conf:1:"), "{said}");
        // `false` asks for nothing.
        let off = match refused.block {
            "" => format!("port: 5, {}: false", refused.key),
            block => format!("{block} {{{}: false}}", refused.key),
        };
        assert!(load(&off).is_ok(), "{off}");
    }
}

#[test]
fn mistyped_keys_are_answered_with_the_nearest() {
    for (text, expected) in [
        ("zzz: 1", "f.conf:1:0: unknown field \"zzz\""),
        ("max_paylod: 5", "f.conf:1:0: unknown field \"max_paylod\", did you mean \"max_payload\"?"),
        ("port: 5\nlisen: 5", "f.conf:2:1: unknown field \"lisen\", did you mean \"listen\"?"),
        ("jetstream {max_fil: 5}", "f.conf:1:11: unknown field \"max_fil\", did you mean \"max_file\"?"),
        (
            "a: 1\nauthorization { users [ {user: a, passwrd: b} ] }",
            "f.conf:1:0: unknown field \"a\"\nf.conf:2:35: unknown field \"passwrd\", did you mean \"password\"?",
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn keys_that_variables_use_are_no_unknown_keys() {
    let got = options(
        "my_port: 4333, perms {publish: a}\nport: $my_port\nauthorization {default_permissions: $perms}",
    );
    assert_eq!(got.port, 4333);
    assert!(got.authorization.default_permissions.is_some());
}

#[test]
fn values_arrive_as_they_were_meant() {
    let o = options(
        "ping_interval: \"100ms\", max_connections: 0, server_tags: \"A, b\", listen: \"[::1]:5\", max_payload: 0",
    );
    assert_eq!(o.ping_interval, Duration::from_millis(100));
    assert_eq!(o.max_connections, None);
    assert_eq!(o.server_tags.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((o.host.as_str(), o.port), ("::1", 5));
    assert_eq!(o.max_payload, 1 << 20);
    let o = options(
        "jetstream {max_mem: \"1K\", max_file: -1}, http: 8222, host: h, tls {cert_file: a, key_file: b, timeout: 4}",
    );
    let js = o.jetstream.unwrap();
    assert_eq!((js.max_memory, js.max_file), (Some(1024), None));
    assert_eq!(o.http, Some(HttpOptions { host: "h".into(), port: 8222 }));
    assert_eq!(o.auth_timeout, Duration::from_secs(5));
    assert!(options("jetstream: disabled").jetstream.is_none());
    assert!(options("jetstream {enabled: false, max_mem: 5}").jetstream.is_none());
}

#[test]
fn users_and_permissions() {
    let o = options(&format!(
        "accounts {{ A {{ nkey: {ACCOUNT}, users [ {{nkey: {USER}}}, {{user: u, password: p, permissions {{
            publish {{allow: [\"a.>\"], deny: b}}, subscribe: [], allow_responses: true }}}} ] }} }}, no_auth_user: u"
    ));
    let account = &o.accounts[0];
    assert_eq!(account.nkey.as_deref(), Some(ACCOUNT));
    assert_eq!(account.users[0].identity, UserIdentity::Nkey(USER.into()));
    let permissions = account.users[1].permissions.as_ref().unwrap();
    let publish = permissions.publish.as_ref().unwrap();
    assert_eq!(
        (publish.allow.as_deref(), publish.deny.as_slice()),
        (Some(&["a.>".to_string()][..]), &["b".to_string()][..])
    );
    assert_eq!(permissions.subscribe.as_ref().unwrap().allow, None);
    assert_eq!(permissions.responses, Some(ResponsePermission::default()));
    // Leave to answer alone takes away everything else.
    let o = options(
        "authorization {users [{user: a, permissions {allow_responses {max: -1, expires: \"-1s\"}}}]}",
    );
    let permissions = o.authorization.users[0].permissions.as_ref().unwrap();
    assert_eq!(permissions.publish.as_ref().unwrap().allow, Some(Vec::new()));
    assert_eq!(permissions.responses, Some(ResponsePermission { max: -1, expires_nanos: -1_000_000_000 }));
}

#[test]
fn opt_3_secrets_do_not_show() {
    let text = "server_name: n
        authorization {user: a, password: hunter2}, jetstream {key: hunter2, prev_key: hunter2}
        cluster {name: C, port: -1, authorization {user: r, password: hunter2}, routes [\"nats://u:hunter2@a:1\"]}
        websocket {port: -1, no_tls: true, authorization {token: hunter2}}";
    let shown = format!("{:?}", options(text));
    assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
    let shown = format!("{:?}", options("accounts {A {users [{user: a, password: hunter2}]}}"));
    assert!(!shown.contains("hunter2"));
    let bad = errors("cluster {port: -1, routes [\"nats://u:hunter2@a:port\"]}");
    assert!(!bad.contains("hunter2"), "{bad}");
}

#[test]
fn the_design_document_lists_the_refused_keys() {
    const DOCUMENT: &str = include_str!("../../../../docs/design/0004-configuration.md");
    let (_, table) =
        DOCUMENT.split_once("| block | key | feature |\n|---|---|---|\n").expect("the table's head");
    let listed: Vec<&str> = table.lines().take_while(|l| l.starts_with('|')).collect();
    let expected: Vec<String> = REFUSED
        .iter()
        .map(|r| {
            let block = if r.block.is_empty() { "top".to_string() } else { format!("`{}`", r.block) };
            format!("| {block} | `{}` | {} |", r.key, r.feature)
        })
        .collect();
    assert_eq!(listed, expected);
}
