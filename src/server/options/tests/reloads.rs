//! Differences between configurations.

use super::options;
use crate::options::{Change, diff};

const JS: &str = "jetstream {store_dir: d";
const WS: &str = "websocket {port: -1, no_tls: true";
const CL: &str = "cluster {port: -1";

#[test]
fn what_a_running_server_can_take() {
    let base = "port: 4222";
    let js = |more: &str| format!("{JS}{more}}}");
    let cl = |more: &str| format!("{CL}{more}}}");
    for (old, new, changes) in [
        (base.to_string(), base.to_string(), vec![]),
        (base.into(), "debug: true".into(), vec![Change::Debug]),
        (base.into(), "trace_verbose: true".into(), vec![Change::Trace, Change::TraceVerbose]),
        (base.into(), "logfile: x, logtime_utc: true".into(), vec![Change::LogTimeUtc, Change::LogFile]),
        (base.into(), "trace_headers: true".into(), vec![Change::Trace, Change::TraceHeaders]),
        (
            "accounts {A {users [{user: a}]}}, no_auth_user: a".into(),
            "accounts {A {users [{user: b}]}}".into(),
            vec![Change::Accounts],
        ),
        (
            base.into(),
            "max_payload: 5, max_control_line: 500, max_connections: 5, ping_max: 3, ping_interval: \"5s\""
                .into(),
            vec![
                Change::MaxConnections,
                Change::MaxControlLine,
                Change::MaxPayload,
                Change::PingInterval,
                Change::PingMax,
            ],
        ),
        (
            base.into(),
            "write_deadline: \"5s\", client_advertise: \"a:1\"".into(),
            vec![Change::ClientAdvertise, Change::WriteDeadline],
        ),
        (
            base.into(),
            "server_tags: [a], server_metadata {a: b}, pid_file: p, ports_file_dir: d".into(),
            vec![Change::ServerTags, Change::ServerMetadata, Change::PidFile, Change::PortsFileDir],
        ),
        (
            base.into(),
            "authorization {token: a, timeout: 5}".into(),
            vec![Change::AuthTimeout, Change::Authorization],
        ),
        (base.into(), "accounts {A {}}, mappings {a: b}".into(), vec![Change::Accounts, Change::Mappings]),
        (base.into(), "system_account: \"$SYS\"".into(), vec![]),
        (
            base.into(),
            "max_traced_msg_len: 5, prof_block_rate: 5".into(),
            vec![Change::MaxTracedMsgLen, Change::ProfBlockRate],
        ),
        (
            base.into(),
            "no_fast_producer_stall: true, connect_error_reports: 4, reconnect_error_reports: 4".into(),
            vec![Change::FastProducerStall, Change::ConnectErrorReports, Change::ReconnectErrorReports],
        ),
        (base.into(), "tls {cert_file: a, key_file: b}".into(), vec![Change::Tls, Change::AuthTimeout]),
        // The certificate's file may hold a new one.
        (
            "tls {cert_file: a, key_file: b}".into(),
            "tls {cert_file: a, key_file: b}".into(),
            vec![Change::Tls],
        ),
        (cl(""), cl(", routes: [\"nats://a:1\"]"), vec![Change::ClusterRoutes]),
        (
            cl(""),
            cl(", name: b, pool_size: 5, compression: s2_fast, no_advertise: true"),
            vec![Change::Cluster],
        ),
        (
            cl(""),
            cl(", permissions {import: a}, authorization {user: a, password: b}"),
            vec![Change::Cluster],
        ),
        (base.into(), js(""), vec![Change::JetStreamOn]),
        (js(""), base.into(), vec![Change::JetStreamOff]),
        (js(", max_mem: 5mb"), js(", max_mem: 6mb"), vec![Change::JetStreamMaxMemory]),
        (js(", max_file: 5mb"), js(", max_file: 6mb"), vec![Change::JetStreamMaxFile]),
        (js(""), js(", limits {max_ack_pending: 5}"), vec![Change::JetStreamLimits]),
        (
            js(""),
            js(", meta_compact: 5, meta_compact_size: 6, meta_compact_sync: true"),
            vec![Change::JetStreamMetaCompact],
        ),
    ] {
        let new_options = options(&new);
        assert_eq!(diff(&options(&old), &new_options), Ok(changes.clone()), "{old} -> {new}");
        for change in changes {
            assert!(!change.describe(&new_options).is_empty());
        }
    }
}

#[test]
fn changes_are_told_as_nats_server_tells_them() {
    for (change, config, text) in [
        (Change::AuthTimeout, "authorization {timeout: 5}", "authorization timeout = 5"),
        (Change::AuthTimeout, "authorization {timeout: 0.5}", "authorization timeout = 0.5"),
        (Change::Trace, "trace_verbose: true", "trace = true"),
        (Change::TraceVerbose, "trace_verbose: true", "trace_verbose = true"),
        (Change::LogTimeUtc, "logtime_utc: true", "logtime_utc = true"),
        (Change::RemoteSyslog, "remote_syslog: \"udp://a:1\"", "remote_syslog = udp://a:1"),
        (Change::MaxConnections, "max_connections: -1", "max_connections = -1"),
        (Change::MaxTracedMsgLen, "port: 4222", "max_traced_msg_len = 0"),
        (Change::FastProducerStall, "no_fast_producer_stall: true", "fast producers will not be stalled"),
        (Change::FastProducerStall, "port: 4222", "fast producers will be stalled"),
        (Change::JetStreamMaxMemory, "jetstream {max_mem: 20M}", "JetStream max_mem_store = 19.07 MB"),
        (Change::JetStreamMaxFile, "jetstream {max_file: 20MiB}", "JetStream max_file_store = 20.00 MB"),
    ] {
        assert_eq!(change.describe(&options(config)), text);
    }
}

#[test]
fn what_needs_a_restart() {
    let base = "port: 4222";
    let js = |more: &str| format!("{JS}{more}}}");
    let ws = |more: &str| format!("{WS}{more}}}");
    for (old, new, expected) in [
        (
            base.to_string(),
            "port: 4223".to_string(),
            "config reload not supported for Port: old=4222, new=4223",
        ),
        (base.into(), "host: h".into(), "config reload not supported for Host: old=0.0.0.0, new=h"),
        (
            "server_name: a".into(),
            "server_name: b".into(),
            "config reload not supported for ServerName: old=a, new=b",
        ),
        (base.into(), "max_subs: 6".into(), "config reload not supported for MaxSubs: old=0, new=6"),
        ("max_subs: 5".into(), "max_subs: 6".into(), "config reload not supported for MaxSubs: old=5, new=6"),
        (
            "max_pending: 50mb".into(),
            "max_pending: 40mb".into(),
            "config reload not supported for MaxPending: old=52428800, new=41943040",
        ),
        (
            base.into(),
            "feature_flags {x: true}".into(),
            "config reload not supported for FeatureFlags: old=map[], new=map[x:true]",
        ),
        (
            "lame_duck_duration: \"1m\"".into(),
            "lame_duck_duration: \"2m\"".into(),
            "config reload not supported for LameDuckDuration: old=1m0s, new=2m0s",
        ),
        (base.into(), "http: 8999".into(), "config reload not supported for HTTP: old=, new=0.0.0.0:8999"),
        (base.into(), "no_header_support: true".into(), "for NoHeaderSupport: old=false, new=true"),
        (base.into(), "write_timeout: close".into(), "for WriteTimeout: old=, new=close"),
        (base.into(), "log_size_limit: 1mb".into(), "for LogSizeLimit: old=0, new=1048576"),
        (
            base.into(),
            "authorization {user: a, proxy_required: true}".into(),
            "for ProxyRequired: old=false, new=true",
        ),
        (base.into(), "allow_non_tls: true".into(), "for AllowNonTLS: old=false, new=true"),
        (
            "accounts {A {users [{user: a}]}}, no_auth_user: a".into(),
            "accounts {A {users [{user: a}]}}".into(),
            "for NoAuthUser: old=a, new=",
        ),
        (
            "accounts {A {}, B {}}, system_account: A".into(),
            "accounts {A {}, B {}}, system_account: B".into(),
            "for SystemAccount: old=A, new=B",
        ),
        (base.into(), "no_system_account: true".into(), "for NoSystemAccount: old=false, new=true"),
        (base.into(), ws(""), "config reload not supported for Websocket: old=, new=0.0.0.0:-1"),
        (
            ws(""),
            ws(", compression: true"),
            "config reload not supported for Websocket compression: old=false, new=true",
        ),
        (base.into(), format!("{CL}}}"), "config reload not supported for cluster host: old=, new=0.0.0.0"),
        (format!("{CL}}}"), base.into(), "config reload not supported for cluster host: old=0.0.0.0, new="),
        (
            format!("{CL}}}"),
            "cluster {port: 7788}".into(),
            "config reload not supported for cluster port: old=-1, new=7788",
        ),
        (js(""), "jetstream {store_dir: e}".into(), "for StoreDir: old=d, new=e"),
        (
            js(", max_mem: 5mb"),
            js(", max_mem: 4mb"),
            "config reload not supported for decreasing jetstream max memory and store",
        ),
        (js(", max_mem: 5mb"), js(""), "config reload not supported for jetstream max memory and max store"),
        (
            js(""),
            js(", max_file: 5mb"),
            "config reload not supported for jetstream dynamic max memory and store",
        ),
        (js(""), js(", domain: a"), "for JetStreamDomain: old=, new=a"),
        (js(""), js(", sync_interval: always"), "for SyncInterval: old=, new=always"),
        (js(""), js(", strict: false"), "for JetStreamStrict"),
        (js(""), js(", max_concurrent_io: 5"), "for JetStreamConcurrentIOs: old=4096, new=5"),
        (js(""), js(", key: hunter2"), "for JetStreamKey"),
        (
            base.into(),
            "default_js_domain {\"$G\": a}".into(),
            "for JsAccDefaultDomain: old=map[], new=map[$G:a]",
        ),
    ] {
        let refused = diff(&options(&old), &options(&new)).expect_err(&new);
        assert!(refused.iter().any(|r| r.contains(expected)), "{old} -> {new}: {refused:?}");
        assert!(refused.iter().all(|r| !r.contains("hunter2")));
    }
}

#[test]
fn one_refusal_refuses_all_and_all_are_told() {
    let refused =
        diff(&options("debug: false"), &options("debug: true, port: 5, server_name: x")).unwrap_err();
    assert_eq!(refused.len(), 2, "{refused:?}");
}
