//! Random configurations and command lines: each is taken or refused, none panics.

use super::load;
use crate::options::{Command, diff, flags};
use conf::Memory;
use proptest::prelude::*;

const WORDS: &[&str] = &[
    "port",
    "listen",
    "authorization",
    "users",
    "user",
    "pass",
    "nkey",
    "accounts",
    "exports",
    "imports",
    "stream",
    "service",
    "account",
    "subject",
    "permissions",
    "publish",
    "allow_responses",
    "cluster",
    "routes",
    "compression",
    "jetstream",
    "limits",
    "batch",
    "max_mem",
    "store_dir",
    "tls",
    "certs",
    "cipher_suites",
    "websocket",
    "headers",
    "mappings",
    "weight",
    "dest",
    "latency",
    "sampling",
    "msg_trace",
    "proxies",
    "trusted",
    "key",
    "server_tags",
    "ping_interval",
    "timeout",
    "http",
    "gateway",
    "operator",
    "ocsp_peer",
    "feature_flags",
    "default_js_domain",
    "account_token_position",
    "threshold",
    "max_payload",
];

const VALUES: &[&str] = &[
    "5",
    "-5",
    "0",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "true",
    "off",
    "x",
    "\"\"",
    "\"a b\"",
    "\"1m\"",
    "-1.5",
    "\"-1s\"",
    "\"99999999h\"",
    "[]",
    "{}",
    "[a, b]",
    "[[]]",
    "[{}]",
    "{a: {a: {}}}",
    "\"h:1\"",
    "\"[::1\"",
    "2024-01-01T00:00:00Z",
    "\"50%\"",
    "\"101%\"",
    "\"{{wildcard(1)}}\"",
    "\"nats://u:p@h:1\"",
    "\"U\u{e9}\"",
    "1e5",
    "\"5GB\"",
    "\"99999999999T\"",
];

fn entry() -> impl Strategy<Value = String> {
    let key = prop::sample::select(WORDS);
    let leaf = (key.clone(), prop::sample::select(VALUES)).prop_map(|(k, v)| format!("{k}: {v}\n"));
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let inner = prop::collection::vec(inner, 0..4).prop_map(|e| e.concat());
        prop_oneof![
            (key.clone(), inner.clone()).prop_map(|(k, b)| format!("{k} {{\n{b}}}\n")),
            (key.clone(), inner).prop_map(|(k, b)| format!("{k} [\n{{\n{b}}}\n]\n")),
        ]
    })
}

proptest! {
    #[test]
    fn any_configuration_is_taken_or_refused(entries in prop::collection::vec(entry(), 1..6)) {
        let text = entries.concat();
        match load(&text) {
            Ok(loaded) => {
                // What is loaded equals itself: at most certificates count as changed.
                let changes = diff(&loaded.options, &loaded.options).unwrap();
                prop_assert!(changes.iter().all(|c| format!("{c:?}").contains("Tls")), "{changes:?}");
            }
            Err(errors) => prop_assert!(errors.iter().all(|e| !e.is_empty()) && !errors.is_empty()),
        }
    }

    #[test]
    fn any_command_line_is_answered(words in prop::collection::vec(prop_oneof![
        prop::sample::select(vec![
            "-p", "-c", "f.conf", "-t", "-js", "--cluster", "nats://h:1", "--routes", "-D=false", "--", "-", "--=", "-1", "5",
            "--signal", "ldm=1", "-tls", "--tlscert", "x", "-m", "version", "--user", "", "-cluster_name", "--profile=70000",
        ]).prop_map(String::from),
        "\\PC{0,8}",
    ], 0..8)) {
        let mut args = vec!["nats-server".to_string()];
        args.extend(words);
        let command = flags::command(&args, &Memory::file("f.conf", "port: 5"));
        match command.text() {
            Some(text) => prop_assert!(!text.stdout.is_empty() || !text.stderr.is_empty()),
            None => {
                let serves = matches!(command, Command::Run(_) | Command::Signal { .. });
                prop_assert!(serves, "neither text nor deed");
            }
        }
    }
}
