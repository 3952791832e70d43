//! Wrong types, wrong values and broken rules, with the texts and places that nats-server gives where suites or users
//! could look at them.

use super::{errors, load};

/// Text that must be refused, and what the refusal must say.
const REFUSED: &[(&str, &str)] = &[
    // Types.
    ("port: \"abc\"", "f.conf:1:0: \"port\" must be an integer, but is a string"),
    ("debug: 1", "f.conf:1:0: \"debug\" must be a boolean, but is an integer"),
    ("server_name: 5", "f.conf:1:0: \"server_name\" must be a string, but is an integer"),
    ("max_payload: \"1mb\"", "must be an integer"),
    ("tls: 5", "must be a map"),
    ("authorization: 5", "must be a map"),
    ("websocket: 5", "f.conf:1:0: Expected websocket to be a map"),
    ("cluster: 5", "f.conf:1:0: Expected map to define cluster"),
    ("jetstream: 5", "f.conf:1:0: Expected map, bool or string to define JetStream"),
    ("jetstream: foo", "f.conf:1:0: Expected 'enabled' or 'disabled' for string value, got 'foo'"),
    ("accounts {A: 5}", "f.conf:1:10: Expected map entries for accounts"),
    ("server_tags: 5", "f.conf:1:0: error parsing tags: unsupported type"),
    ("feature_flags {x: 1}", "f.conf:1:15: error parsing feature flag \"x\": expected bool"),
    ("authorization {users {user: c}}", "f.conf:1:15: Expected users field to be an array"),
    ("authorization {permissions: 5}", "f.conf:1:15: Expected permissions to be a map/struct"),
    ("cluster {port: 1, routes: \"nats://a:b\"}", "f.conf:1:18: \"routes\" must be an array"),
    ("tls {verify: 5}", "f.conf:1:5: error parsing tls config, expected 'verify' to be a boolean"),
    // Addresses.
    ("listen: \"4222\"", "f.conf:1:0: could not parse address string \"4222\""),
    ("listen: \"localhost:abc\"", "f.conf:1:0: could not parse port \"abc\""),
    ("listen: true", "f.conf:1:0: expected port or host:port, got bool"),
    ("http: \"x:y\"", "f.conf:1:0: could not parse port \"y\""),
    ("port: 70000", "invalid port 70000"),
    // Sizes, counts, durations.
    ("max_payload: 3gb", "f.conf:1:0: max_payload value is too big"),
    ("max_control_line: 3gb", "f.conf:1:0: max_control_line value is too big"),
    ("max_payload: 100mb", "max_payload (104857600) cannot be higher than max_pending (67108864)"),
    ("max_pending: 100", "max_payload (1048576) cannot be higher than max_pending (100)"),
    ("max_sub_tokens: 256", "f.conf:1:0: max_sub_tokens value is too big"),
    ("max_sub_tokens: -1", "f.conf:1:0: max_sub_tokens value can not be negative"),
    ("ping_interval: \"abc\"", "f.conf:1:0: error parsing ping_interval: time: invalid duration \"abc\""),
    ("ping_interval: \"5\"", "f.conf:1:0: error parsing ping_interval: time: missing unit in duration \"5\""),
    ("ping_interval: true", "f.conf:1:0: "),
    ("write_timeout: foo", "f.conf:1:0: write_timeout must be 'default', 'close' or 'retry'"),
    ("lame_duck_duration: \"10s\"", "f.conf:1:0: invalid lame_duck_duration of 10s, minimum is 30 seconds"),
    ("lame_duck_grace_period: \"-1s\"", "f.conf:1:0: invalid lame_duck_grace_period, needs to be positive"),
    (
        "lame_duck_grace_period: \"5m\"",
        "lame duck grace period (5m0s) should be strictly lower than lame duck duration (2m0s)",
    ),
    (
        "authorization {timeout: \"abc\"}",
        "f.conf:1:15: error parsing authorization config, 'timeout' time: invalid",
    ),
    (
        "authorization {timeout: true}",
        "f.conf:1:15: error parsing authorization config, 'timeout' wrong type",
    ),
    (
        "authorization {timeout: -1}",
        "f.conf:1:15: error parsing authorization config, 'timeout' of -1 is out of range",
    ),
    // Names.
    ("server_name: \"a b\"", "f.conf:1:0: server name cannot contain spaces"),
    ("cluster {name: \"a b\", port: 1}", "f.conf:1:9: cluster name cannot contain spaces"),
    ("accounts {\"$G\": {}}", "f.conf:1:11: \"$G\" is a Reserved Account"),
    // Users.
    ("authorization {user: a, pass: b, token: c}", "f.conf:1:0: Cannot have a user/pass and token"),
    (
        "authorization {user: a, pass: b, users [{user: c, pass: d}]}",
        "f.conf:1:0: Can not have a single user/pass and a users array",
    ),
    (
        "authorization {token: c, users [{user: c, pass: d}]}",
        "f.conf:1:0: Can not have a token and a users array",
    ),
    ("authorization {users: [], token: x}", "f.conf:1:0: Can not have a token and a users array"),
    ("authorization {users [{user:c},{user:c}]}", "f.conf:1:0: Duplicate user \"c\" detected"),
    ("authorization {users [{pass:c}]}", "f.conf:1:23: User entry requires a user"),
    ("authorization {users [{nkey:UABC}]}", "f.conf:1:23: Not a valid public nkey for a user"),
    ("authorization {users [{nkey: U, user: x}]}", "Nkey users do not take usernames or passwords"),
    (
        "authorization {users [{user: a, allowed_connection_types: [foo]}]}",
        "f.conf:1:32: invalid connection types [\"FOO\"]",
    ),
    ("accounts {A {users [{user:a}]}, B {users [{user:a}]}}", "f.conf:1:0: Duplicate user \"a\" detected"),
    (
        "accounts {A {users [{user:a}]}}, authorization {token: c}",
        "f.conf:1:33: Can not have a token and a users array",
    ),
    (
        "accounts {A {users [{user:a}]}}, authorization {user: c}",
        "f.conf:1:33: Can not have a single user/pass and a users array",
    ),
    ("no_auth_user: joe", "no_auth_user: \"joe\" present, but users/nkeys are not defined"),
    (
        "no_auth_user: joe, authorization {users [{user: a}]}",
        "no_auth_user: \"joe\" not present as user or nkey in authorization block or account configuration",
    ),
    ("system_account: foo", "error resolving system account: account missing"),
    (
        "jetstream: enabled, system_account: S, accounts {S {jetstream: enabled}}",
        "Not allowed to enable JetStream on the system account",
    ),
    (
        "jetstream: enabled, accounts {$SYS {jetstream: enabled}}",
        "Not allowed to enable JetStream on the system account",
    ),
    // Permissions.
    (
        "authorization {permissions {publish: 5}}",
        "Expected subject permissions to be a subject, or array of subjects",
    ),
    ("authorization {permissions {publish: \"a..b\"}}", "subject \"a..b\" is not a valid subject"),
    ("authorization {permissions {publish: \"a b\"}}", "subject \"a b\" is not a valid subject"),
    ("authorization {permissions {subscribe: \"a b c\"}}", "subject \"a b c\" is not a valid subject"),
    (
        "authorization {permissions {publish {allow: a, foo: 1}}}",
        "Unknown field name \"foo\" parsing subject permissions",
    ),
    (
        "authorization {permissions {allow_responses: 5}}",
        "error parsing response permissions, expected a boolean or a map",
    ),
    (
        "authorization {permissions {allow_responses {expires: 5}}}",
        "error parsing expires, not a duration string",
    ),
    // Accounts.
    ("accounts {A {nkey: foo}}", "f.conf:1:13: Not a valid public nkey for an account: \"foo\""),
    ("accounts {A {exports: 5}}", "f.conf:1:13: Exports should be an array"),
    ("accounts {A {exports [{stream: a, service: b}]}}", "Detected service but already saw a stream"),
    ("accounts {A {exports [{service: a, response: foo}]}}", "f.conf:1:35: Unknown response type: \"foo\""),
    ("accounts {A {exports [{stream: a, response: stream}]}}", "Detected response directive on non-service"),
    ("accounts {A {exports [{service: a, latency: l, response: stream}]}}", "bad service response type"),
    ("accounts {A {exports [{stream: a, latency: l}]}}", "Detected latency directive on non-service"),
    (
        "accounts {A {exports [{service: a, threshold: 1}]}}",
        "Expected response threshold to be a parseable time duration",
    ),
    (
        "accounts {A {exports [{service: a, latency {sampling: 101, subject: l}}]}}",
        "bad sampling percentage, should be 1-100",
    ),
    ("accounts {A {exports [{service: a, latency {sampling: 5}}]}}", "Latency subject required, but missing"),
    ("accounts {A {exports [{service: a, latency: \"a..b\"}]}}", "invalid publish subject"),
    ("accounts {A {exports [{service: a, accounts: [B]}]}}", "\"B\" account not defined for service export"),
    ("accounts {A {exports [{service: a, account_token_position: 1}]}}", "account_token_position 1"),
    ("accounts {A {exports [{accounts: [A]}]}}", "must name a stream or a service"),
    (
        "accounts {A {imports [{stream {account: B, subject: a}}]}}",
        "f.conf:1:0: \"B\" account not defined for stream import",
    ),
    ("accounts {A {imports [{stream {account: B}}]}}", "Expect an account name and a subject"),
    ("accounts {A {imports [{stream: 5}]}}", "Stream entry should be an account map"),
    (
        "accounts {A {imports [{service {account: A, subject: a}, allow_trace: true}]}}",
        "Detected allow_trace directive on a non-stream",
    ),
    ("accounts {A {imports [{stream {account: A, subject: a}, to: x, prefix: y}]}}", "not both"),
    ("accounts {A {jetstream: foo}}", "Expected 'enabled' or 'disabled' for string value, got 'foo'"),
    ("accounts {A {jetstream {max_mem: \"5mb\"}}}", "Expected a parseable size for \"max_mem\""),
    ("accounts {A {jetstream {cluster_traffic: x}}}", "Expected 'system' or 'owner'"),
    ("accounts {A {limits {zzz: 5}}}", "nknown field \"zzz\""),
    ("accounts {A {msg_trace: \"a.*\"}}", "Trace destination \"a.*\" is not valid"),
    ("accounts {A {}}, default_js_domain {B: d}", "references non existing account \"B\""),
    // Mappings.
    ("mappings {\"a..b\": c}", "Subject \"a..b\" is not a valid subject"),
    ("mappings {a: [{dest: b, weight: 101}]}", "Invalid weight 101 for mapping destination"),
    (
        "mappings {a: [{dest: b, weight: 60}, {dest: c, weight: 60}]}",
        "f.conf:1:10: Error adding mapping for \"a\" : total weight needs to be <= 100",
    ),
    ("mappings {a: [{dest: b}]}", "Missing weight for mapping destination \"b\""),
    ("mappings {a: 5}", "Expected an entry for the mapping destination"),
    // TLS.
    ("tls {cert_file: a}", "f.conf:1:0: missing 'key_file' in TLS configuration"),
    ("tls {certs: [{}]}", "both 'cert_file' and 'cert_key' options are required"),
    (
        "tls {certs: [{cert_file: a, key_file: b}], cert_file: x}",
        "cannot combine 'cert_file' option with 'certs' option",
    ),
    ("tls {cipher_suites: []}", "f.conf:1:5: error parsing tls config, 'cipher_suites' cannot be empty"),
    ("tls {cipher_suites: [foo]}", "f.conf:1:21: unrecognized cipher foo"),
    ("tls {cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}", "none of the 'cipher_suites' is supported"),
    ("tls {curve_preferences: [foo]}", "f.conf:1:25: unrecognized curve preference foo"),
    ("tls {min_version: \"1.1\"}", "f.conf:1:5: error parsing tls config: unsupported TLS version: TLS 1.1"),
    ("tls {pinned_certs: [abc]}", "does not look like hex-encoded sha256"),
    ("tls {connection_rate_limit: \"5\"}", "'connection_rate_limit' wrong type"),
    ("tls {handshake_first: foo}", "f.conf:1:5: field \"handshake_first\"'s value \"foo\" is invalid"),
    ("tls {verify_cert_and_check_known_urls: true}", "not supported in this context"),
    ("https: 8443", "TLS cert and key required for HTTPS"),
    ("http: 8222, https: 8443", "can't specify both HTTP (8222) and HTTPs (8443) ports"),
    // WebSocket.
    ("websocket {port: -1}", "websocket requires TLS configuration"),
    (
        "websocket {port: -1, no_tls: true, tls {}, allowed_origins: [\"::bad::\"]}",
        "unable to parse allowed origin",
    ),
    ("websocket {port: -1, no_tls: true, jwt_cookie: x}", "for JWT authentication via cookie \"x\""),
    (
        "websocket {port: -1, no_tls: true, headers {\"Sec-WebSocket-X\": b}}",
        "\"Sec-WebSocket-\" prefix not allowed",
    ),
    ("websocket {port: -1, no_tls: true, no_auth_user: joe}", "users/nkeys are not defined"),
    (
        "websocket {port: -1, no_tls: true, authorization {user: b}}, authorization {users [{user: a}]}",
        "websocket authentication username not compatible with presence of users/nkeys",
    ),
    // Cluster.
    ("cluster {port: 1, routes: [\"::\"]}", "error parsing route url [\"::\"]"),
    (
        "cluster {port: 1, authorization {token: a}}",
        "f.conf:1:18: Cluster authorization does not support tokens",
    ),
    (
        "cluster {port: 1, authorization {users []}}",
        "f.conf:1:18: Cluster authorization does not allow multiple users",
    ),
    (
        "cluster {port: 1, pool_size: -1, accounts: [A]}",
        "pool_size cannot be negative if pinned accounts are specified",
    ),
    ("cluster {port: 1, accounts: [A, A]}", "found duplicate account name \"A\" in pinned accounts list"),
    ("cluster {port: 1, compression: foo}", "unsupported compression mode \"foo\""),
    (
        "cluster {port: 1, compression {mode: s2_auto, rtt_thresholds: [\"50ms\", \"10ms\"]}}",
        "RTT threshold values [50ms 10ms] should be in ascending order",
    ),
    // JetStream.
    ("jetstream {store_dir: a}, store_dir: b", "f.conf:1:26: Duplicate 'store_dir' configuration"),
    (
        "jetstream {max_mem: \"5x\"}",
        "f.conf:1:11: max_mem_store sizes defined as strings must end in K, M, G, T",
    ),
    ("jetstream {cipher: foo}", "f.conf:1:11: Unknown cipher type: \"foo\""),
    ("jetstream {domain: \"a.b\"}", "invalid domain name: may not contain ., * or >"),
    (
        "jetstream {max_concurrent_io: 3}",
        "Expected an absolute size for \"max_concurrent_io\" between 4 and 8192, got 3",
    ),
    ("jetstream {meta_compact: -5}", "Expected an absolute size for \"meta_compact\", got -5"),
    (
        "jetstream {sync_interval: x}",
        "f.conf:1:11: error parsing sync_interval: time: invalid duration \"x\"",
    ),
    ("jetstream {limits: 5}", "f.conf:1:11: Expected a map to define JetStreamLimits"),
    ("proxies {trusted: [{key: abc}]}", "invalid proxy key \"abc\""),
    // The file as a whole.
    ("client_advertise: \"a:x\"", "client_advertise \"a:x\": invalid port \"x\""),
    ("client_advertise: \"a:b:c\"", "client_advertise \"a:b:c\": too many colons in address"),
    ("cluster {port: -1, advertise: \"a:b\"}", "cluster advertise \"a:b\": invalid port \"b\""),
    (
        "authorization {users [{user: a, permissions {subscribe: \" a\"}}]}",
        "subject \" a\" is not a valid subject",
    ),
    ("port: [", "f.conf:1:7: Parse error on line 1: "),
];

#[test]
fn mistakes_are_refused_with_their_place() {
    let mut wrong = Vec::new();
    for (text, expected) in REFUSED {
        let said = errors(text);
        if !said.contains(expected) {
            wrong.push(format!("{text}\n  said     {said}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Doubtful uses: taken at the start, with these words on standard error.
const WARNED: &[(&str, &str)] = &[
    (
        "ping_interval: 5",
        "invalid use of field \"ping_interval\": ping_interval should be converted to a duration",
    ),
    ("write_deadline: 5", "write_deadline should be converted to a duration"),
    ("authorization {timeout: 61}", "timeout of 61 (61.000000 seconds) is high"),
    ("authorization {timeout: \"2m\"}", "timeout of 2m (120.000000 seconds) is high"),
    ("cluster {port: 1, ping_interval: \"5m\"}", "will reset to 30s which is the max for routes"),
    (
        "cluster {port: 1, authorization {permissions {publish: a}}}",
        "within cluster authorization block is deprecated",
    ),
    ("authorization {users [{user: a, clients: [STANDARD, NEW]}]}", "unknown connection types [\"NEW\"]"),
    ("tls {cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_RC4_128_SHA]}", "is left out"),
];

#[test]
fn doubtful_uses_are_told_and_taken() {
    for (text, expected) in WARNED {
        let loaded = load(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert!(loaded.warnings.iter().any(|w| w.contains(expected)), "{text}: {:?}", loaded.warnings);
        assert!(loaded.warnings.iter().all(|w| w.starts_with("f.conf:1:")), "{:?}", loaded.warnings);
    }
    assert_eq!(load("ping_interval: \"5s\"").unwrap().warnings, Vec::<String>::new());
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let said = errors("port: x\ndebug: 5\nping_interval: 5\nzzz: 1\ntls {verify: 5}\n");
    assert_eq!(said.lines().count(), 5, "{said}");
}
