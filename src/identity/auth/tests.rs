//! Tables observed on nats-server 2.15.1, the invariants, and malformed input.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType};
use proptest::prelude::*;

use super::*;
use crate::permissions::SubjectPermission;
use crate::tls::Attribute;

const NONCE: &[u8] = b"sOBwQX3wIKFKfiA";
/// bcrypt of `abc` and of `a`.
const ABC: &str = "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i";
const A: &str = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";

fn key(n: u8) -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::User, [n; 32]).unwrap()
}

fn sign(n: u8) -> String {
    URL_SAFE_NO_PAD.encode(key(n).sign(NONCE).unwrap())
}

fn user(name: &str, password: &str) -> UserConfig {
    UserConfig { name: name.into(), password: Some(password.into()), ..UserConfig::default() }
}

fn nkey_user(n: u8) -> UserConfig {
    UserConfig { nkey: Some(key(n).public_key()), ..UserConfig::default() }
}

fn users(users: Vec<UserConfig>) -> AuthConfig {
    AuthConfig { users, ..AuthConfig::default() }
}

fn auth(config: AuthConfig) -> Authenticator {
    Authenticator::new(config, [7; 32]).unwrap()
}

fn attempt<'a>(user: &'a str, pass: &'a str) -> Attempt<'a> {
    Attempt { user, pass, nonce: NONCE, ..Attempt::default() }
}

/// Decides, running bcrypt where it must. The name where accepted.
fn decide(auth: &Authenticator, attempt: &Attempt<'_>) -> Result<Identity, Reason> {
    let decision = match auth.check(attempt) {
        Check::Done(d) => d,
        Check::Pending(job) => job.run(),
    };
    match decision {
        Decision::Accept(identity) => Ok(identity),
        Decision::Reject(reason) => Err(reason),
    }
}

fn outcome(auth: &Authenticator, attempt: &Attempt<'_>) -> Result<String, Reason> {
    decide(auth, attempt).map(|i| i.name.to_string())
}

#[test]
fn users_passwords_and_connection_types() {
    let ws = ConnectionTypes::parse(&["WEBSOCKET"]).0;
    let auth = auth(users(vec![
        user("u", "p"),
        user("nopw", ""),
        UserConfig { name: "none".into(), ..UserConfig::default() },
        UserConfig { connection_types: ws, ..user("ws", "p") },
    ]));
    assert!(auth.is_required() && auth.info_auth_required() && !auth.needs_nonce());
    let cases = [
        ("", "", Err(Reason::NoCredentials)),
        ("", "p", Err(Reason::NoCredentials)),
        ("u", "p", Ok("u")),
        ("u", "", Err(Reason::WrongPassword)),
        ("u", "q", Err(Reason::WrongPassword)),
        ("zz", "p", Err(Reason::UnknownUser)),
        ("nopw", "", Ok("nopw")),
        ("none", "", Ok("none")),
        ("nopw", "p", Err(Reason::WrongPassword)),
        ("ws", "p", Err(Reason::ConnectionType)),
    ];
    for (name, pass, expected) in cases {
        assert_eq!(outcome(&auth, &attempt(name, pass)), expected.map(String::from), "{name} {pass}");
    }
    let over_ws = Attempt { connection_type: ConnectionType::Websocket, ..attempt("ws", "p") };
    assert_eq!(outcome(&auth, &over_ws), Ok("ws".into()));
    // A JWT, a stray nkey and a token do not disturb a server without such things.
    let noisy = Attempt { jwt: "a.b.c", nkey: "junk", token: "x", proxy_sig: "xx", ..attempt("u", "p") };
    assert_eq!(outcome(&auth, &noisy), Ok("u".into()));
    let legacy = Attempt { legacy_account: true, ..attempt("u", "p") };
    assert_eq!(outcome(&auth, &legacy), Err(Reason::LegacyAccount));
}

#[test]
fn nkeys_come_before_passwords() {
    let auth = auth(users(vec![user("u", "p"), nkey_user(1)]));
    assert!(auth.needs_nonce());
    let (good, other) = (key(1).public_key(), key(2).public_key());
    let (sig1, sig2) = (sign(1), sign(2));
    let standard = STANDARD.encode(key(1).sign(NONCE).unwrap());
    let ask = |nkey, sig, user, pass| outcome(&auth, &Attempt { nkey, sig, ..attempt(user, pass) });
    assert_eq!(ask(&good, &sig1, "", ""), Ok(good.clone()));
    assert_eq!(ask(&good, &standard, "", ""), Ok(good.clone()));
    assert_eq!(ask(&good, &sig1, "u", "wrong"), Ok(good.clone()));
    for sig in [&*sig2, "", "!!"] {
        assert_eq!(ask(&good, sig, "u", "p"), Err(Reason::BadSignature));
    }
    assert_eq!(ask(&other, &sig2, "u", "p"), Err(Reason::UnknownNkey));
    assert_eq!(ask("junk", "", "u", "p"), Err(Reason::UnknownNkey));
    assert_eq!(ask("", &sig1, "", ""), Err(Reason::NoCredentials));
    assert_eq!(ask("", "", &good, "p"), Err(Reason::UnknownUser), "an nkey is not a user name");
    let stale = Attempt { nkey: &good, sig: &sig1, nonce: b"another", ..Attempt::default() };
    assert_eq!(outcome(&auth, &stale), Err(Reason::BadSignature));
}

#[test]
fn token_and_single_user() {
    let listener = ListenerConfig { token: Some("tok".into()), ..ListenerConfig::default() };
    let token = auth(AuthConfig { listener, ..AuthConfig::default() });
    let ask = |token_sent, user, pass| outcome(&token, &Attempt { token: token_sent, ..attempt(user, pass) });
    assert_eq!(ask("tok", "", ""), Ok("[REDACTED]".into()));
    assert_eq!(ask("tok", "u", ""), Ok("u".into()));
    assert_eq!(ask("x", "", ""), Err(Reason::WrongToken));
    for (user, pass) in [("", ""), ("tok", ""), ("", "tok")] {
        assert_eq!(ask("", user, pass), Err(Reason::NoCredentials));
    }
    let single = |password: &str| {
        let single = Some(SingleUser { name: "zed".into(), password: password.into() });
        auth(AuthConfig {
            listener: ListenerConfig { single, ..ListenerConfig::default() },
            ..AuthConfig::default()
        })
    };
    assert_eq!(outcome(&single("p"), &attempt("zed", "p")), Ok("zed".into()));
    assert_eq!(outcome(&single("p"), &attempt("zed", "")), Err(Reason::WrongPassword));
    assert_eq!(outcome(&single("p"), &attempt("u", "p")), Err(Reason::UnknownUser));
    assert_eq!(outcome(&single("p"), &attempt("", "")), Err(Reason::UnknownUser));
    assert_eq!(outcome(&single(""), &attempt("zed", "")), Ok("zed".into()));
    assert_eq!(outcome(&single(""), &attempt("zed", "p")), Err(Reason::WrongPassword));
    assert_eq!(outcome(&single(ABC), &attempt("zed", "abc")), Ok("zed".into()));
    assert_eq!(outcome(&single(ABC), &attempt("zed", ABC)), Err(Reason::WrongPassword));
    assert!(single("p").has_plaintext_passwords());
    assert!(!single(ABC).has_plaintext_passwords() && !single("").has_plaintext_passwords());
    let listener = ListenerConfig { token: Some(ABC.into()), ..ListenerConfig::default() };
    let token = auth(AuthConfig { listener, ..AuthConfig::default() });
    assert_eq!(outcome(&token, &Attempt { token: "abc", ..Attempt::default() }), Ok("[REDACTED]".into()));
    assert_eq!(outcome(&token, &Attempt { token: "abd", ..Attempt::default() }), Err(Reason::WrongToken));
}

#[test]
fn an_open_server_asks_nobody() {
    let open = auth(AuthConfig::default());
    assert!(!open.is_required() && !open.info_auth_required());
    for (name, a) in [
        ("", Attempt::default()),
        ("zed", attempt("zed", "p")),
        ("zed", Attempt { nkey: "zed", ..attempt("u", "") }),
        ("[REDACTED]", Attempt { token: "t", ..Attempt::default() }),
    ] {
        let identity = decide(&open, &a).unwrap();
        assert_eq!((&*identity.name, &*identity.account, identity.source), (name, "$G", Source::Open));
    }
    let legacy = Attempt { legacy_account: true, ..Attempt::default() };
    assert_eq!(outcome(&open, &legacy), Err(Reason::LegacyAccount));
}

fn stand_in(name: &str) -> ListenerConfig {
    ListenerConfig { no_auth_user: Some(name.into()), ..ListenerConfig::default() }
}

#[test]
fn no_auth_user_stands_in_for_absent_credentials_only() {
    let base = auth(users(vec![
        UserConfig { account: "A".into(), ..user("u", "p") },
        UserConfig { connection_types: ConnectionTypes::parse(&["WEBSOCKET"]).0, ..user("ws", "p") },
        UserConfig { proxy_required: true, ..user("behind", "p") },
        user("hashed", ABC),
        nkey_user(1),
    ]));
    let auth = base.for_listener(stand_in("u")).unwrap();
    assert!(auth.is_required() && !auth.info_auth_required());
    let (good, sig) = (key(1).public_key(), sign(2));
    let identity = decide(&auth, &Attempt::default()).unwrap();
    assert_eq!((&*identity.name, &*identity.account, identity.source), ("u", "A", Source::NoAuthUser));
    for a in [
        Attempt { sig: "x", ..Attempt::default() },
        Attempt { jwt: "x", ..Attempt::default() },
        attempt("u", "p"),
    ] {
        assert_eq!(outcome(&auth, &a), Ok("u".into()));
    }
    for (a, reason) in [
        (attempt("u", ""), Reason::WrongPassword),
        (attempt("x", ""), Reason::UnknownUser),
        (attempt("", "p"), Reason::NoCredentials),
        (Attempt { token: "x", ..Attempt::default() }, Reason::NoCredentials),
        (Attempt { nkey: &good, ..Attempt::default() }, Reason::BadSignature),
        (Attempt { nkey: "junk", ..Attempt::default() }, Reason::UnknownNkey),
    ] {
        assert_eq!(outcome(&auth, &a), Err(reason), "{a:?}");
    }
    for (name, reason) in [
        ("ws", Reason::ConnectionType),
        ("behind", Reason::ProxyRequired),
        ("hashed", Reason::NoAuthUserHashed),
    ] {
        let auth = base.for_listener(stand_in(name)).unwrap();
        assert_eq!(outcome(&auth, &Attempt::default()), Err(reason), "{name}");
    }
    let by_key = base.for_listener(stand_in(&good)).unwrap();
    for sig in ["", "xx", &*sig] {
        assert_eq!(outcome(&by_key, &Attempt { nkey: &good, sig, ..Attempt::default() }), Ok(good.clone()));
        assert_eq!(outcome(&by_key, &Attempt { sig, ..Attempt::default() }), Ok(good.clone()));
    }
    assert_eq!(outcome(&by_key, &attempt("u", "")), Err(Reason::WrongPassword));
    assert_eq!(outcome(&by_key, &attempt("u", "p")), Ok("u".into()));
}

fn certificate(common_name: &str) -> PeerCert {
    let cn = Attribute { oid: "2.5.4.3".into(), value: common_name.into() };
    PeerCert { subject: vec![vec![cn]], emails: vec!["joe@x.io".into()], ..PeerCert::default() }
}

#[test]
fn certificates_name_users() {
    let listener = ListenerConfig { tls_map: true, ..ListenerConfig::default() };
    let ws = ConnectionTypes::parse(&["WEBSOCKET"]).0;
    let auth = auth(AuthConfig {
        listener,
        ..users(vec![
            user("CN=plain", ""),
            user("CN=secret", "p"),
            UserConfig { connection_types: ws, ..user("CN=web", "") },
            UserConfig { proxy_required: true, ..user("CN=behind", "") },
            user("y", "p"),
            nkey_user(1),
        ])
    });
    let ask = |cn: &str, user: &str, pass: &str| {
        let cert = certificate(cn);
        decide(&auth, &Attempt { tls: Some(&cert), ..attempt(user, pass) })
            .map(|i| (i.name.to_string(), i.source))
    };
    let found = |name: &str| Ok((name.to_owned(), Source::Certificate));
    assert_eq!(ask("plain", "", ""), found("CN=plain"));
    assert_eq!(ask("plain", "zz", ""), found("CN=plain"), "the name in CONNECT is not looked at");
    assert_eq!(ask("plain", "", "zz"), Err(Reason::WrongPassword));
    assert_eq!(ask("secret", "", ""), Err(Reason::WrongPassword));
    assert_eq!(ask("secret", "", "p"), found("CN=secret"));
    assert_eq!(ask("web", "", ""), Err(Reason::UnknownCertificate));
    assert_eq!(ask("behind", "", ""), Err(Reason::ProxyRequired));
    assert_eq!(ask("nobody", "y", "p"), Err(Reason::UnknownCertificate));
    assert_eq!(
        outcome(&auth, &attempt("y", "p")),
        Err(Reason::UnknownCertificate),
        "no certificate, no entry"
    );
    let (good, sig) = (key(1).public_key(), sign(1));
    assert_eq!(outcome(&auth, &Attempt { nkey: &good, sig: &sig, ..attempt("", "") }), Ok(good.clone()));
}

#[test]
fn i_4_a_user_that_a_certificate_can_name_is_not_open_by_name() {
    let types = |t: &str| ConnectionTypes::parse(&[t]).0;
    let base = auth(AuthConfig {
        tls_mapped: vec![ConnectionType::Websocket, ConnectionType::MqttWs],
        ..users(vec![
            user("nopw", ""),
            user("w", "p"),
            UserConfig { connection_types: types("STANDARD"), ..user("st", "") },
        ])
    });
    assert_eq!(outcome(&base, &attempt("nopw", "")), Err(Reason::CertificateRequired));
    assert_eq!(outcome(&base, &attempt("w", "p")), Ok("w".into()));
    assert_eq!(outcome(&base, &attempt("st", "")), Ok("st".into()));
    let auth = base.for_listener(stand_in("nopw")).unwrap();
    assert_eq!(outcome(&auth, &Attempt::default()), Ok("nopw".into()));
    assert_eq!(outcome(&auth, &attempt("nopw", "")), Ok("nopw".into()));
}

#[test]
fn proxies() {
    let base = users(vec![UserConfig { proxy_required: true, ..user("u", "p") }, user("v", "p")]);
    let auth_with = auth(AuthConfig { trusted_proxies: vec![key(9).public_key()], ..base.clone() });
    assert!(auth_with.needs_nonce());
    let (good, bad) = (sign(9), sign(8));
    let standard = STANDARD.encode(key(9).sign(NONCE).unwrap());
    let ask = |name, pass, proxy_sig| outcome(&auth_with, &Attempt { proxy_sig, ..attempt(name, pass) });
    assert_eq!(ask("u", "p", ""), Err(Reason::ProxyRequired));
    assert_eq!(ask("u", "p", &good), Ok("u".into()));
    for sig in [&*bad, "x", &*standard] {
        assert_eq!(ask("u", "p", sig), Err(Reason::ProxyNotTrusted));
        assert_eq!(
            ask("v", "p", sig),
            Err(Reason::ProxyNotTrusted),
            "a bad signature harms where none is needed"
        );
    }
    assert_eq!(ask("v", "p", ""), Ok("v".into()));
    assert_eq!(ask("u", "w", &good), Err(Reason::WrongPassword));
    let identity = decide(&auth_with, &Attempt { proxy_sig: &good, ..attempt("v", "p") }).unwrap();
    assert_eq!(identity.proxy.as_deref(), Some(&*key(9).public_key()));
    let everybody = auth(AuthConfig { proxy_required: true, ..base });
    assert_eq!(outcome(&everybody, &attempt("v", "p")), Err(Reason::ProxyRequired));
    assert_eq!(Reason::ProxyRequired.closed_reason(), "Proxy Required");
}

/// How a check ended, without running anything slow.
fn is_pending(auth: &Authenticator, attempt: &Attempt<'_>) -> bool {
    matches!(auth.check(attempt), Check::Pending(_))
}

#[test]
fn i_3_unknown_users_cost_what_known_ones_do() {
    let ws = ConnectionTypes::parse(&["WEBSOCKET"]).0;
    let strong = ABC.replace("$06$", "$07$");
    let auth = auth(users(vec![
        user("abc", ABC),
        user("a", A),
        user("strong", &strong),
        UserConfig { connection_types: ws, ..user("ws", ABC) },
    ]));
    for name in ["abc", "nobody", "ws"] {
        let wrong = attempt(name, "wrong");
        let Check::Pending(job) = auth.check(&wrong) else { panic!("{name}: decided without work") };
        assert_eq!(job.rounds(), 64, "the commonest cost");
        assert!(matches!(job.run(), Decision::Reject(_)));
        // The second time the memory answers, for the unknown as for the known.
        assert!(!is_pending(&auth, &wrong), "{name}");
        assert!(is_pending(&auth, &attempt(name, "wrong too")), "{name}");
    }
    assert_eq!(
        outcome(&auth, &attempt("nobody", "abc")),
        Err(Reason::UnknownUser),
        "the decoy's password is no key"
    );
    assert_eq!(outcome(&auth, &attempt("ws", "abc")), Err(Reason::ConnectionType));
}

#[test]
fn a_storm_of_reconnects_computes_once() {
    let auth = auth(users(vec![user("abc", ABC), user("cut", "$2a$06$short")]));
    assert!(is_pending(&auth, &attempt("abc", "abc")));
    let Check::Pending(first) = auth.check(&attempt("abc", "abc")) else { panic!("nothing is known yet") };
    let Check::Pending(second) = auth.check(&attempt("abc", "abc")) else { panic!("nothing is known yet") };
    assert!(matches!(first.run(), Decision::Accept(_)) && matches!(second.run(), Decision::Accept(_)));
    let clone = auth.for_listener(ListenerConfig::default()).unwrap();
    for auth in [&auth, &clone] {
        let Check::Done(Decision::Accept(identity)) = auth.check(&attempt("abc", "abc")) else {
            panic!("known by now")
        };
        assert_eq!((&*identity.name, identity.source), ("abc", Source::User));
    }
    assert!(is_pending(&auth, &attempt("abc", "ab")), "another password is another question");
    assert_eq!(outcome(&auth, &attempt("cut", "$2a$06$short")), Err(Reason::WrongPassword));
}

#[test]
fn permissions_are_compiled_once_and_defaults_go_by_account() {
    let only = |subject: &str| PermissionsConfig {
        publish: SubjectPermission { allow: vec![subject.into()], deny: vec![] },
        ..PermissionsConfig::default()
    };
    let auth = auth(AuthConfig {
        default_permissions: [("A".to_owned(), only("a"))].into(),
        ..users(vec![
            UserConfig { account: "A".into(), ..user("d1", "") },
            UserConfig { account: "A".into(), ..user("d2", "") },
            UserConfig { account: "A".into(), permissions: Some(only("own")), ..user("own", "") },
            UserConfig {
                account: "A".into(),
                permissions: Some(PermissionsConfig::default()),
                ..user("all", "")
            },
            user("free", ""),
        ])
    });
    let get = |name| decide(&auth, &attempt(name, "")).unwrap();
    let (d1, d2) = (get("d1").permissions.unwrap(), get("d2").permissions.unwrap());
    assert!(Arc::ptr_eq(&d1, &d2) && d1.can_publish(b"a") && !d1.can_publish(b"own"));
    assert!(get("own").permissions.unwrap().can_publish(b"own"));
    assert!(get("all").permissions.unwrap().can_publish(b"a"), "empty permissions are not absent ones");
    let free = get("free");
    assert!(free.permissions.is_none());
    assert_eq!(free.user_info("$G", 0).to_string(), r#"{"user":"free","account":"$G","account_name":"$G"}"#);
    assert_eq!(
        get("own").user_info("A", 0).to_string(),
        r#"{"user":"own","account":"A","account_name":"A","permissions":{"publish":{"allow":["own"]},"subscribe":{}}}"#
    );
    let timed = Identity { expires_at_ns: Some(50), user_tag: Some("tag".into()), ..free };
    assert_eq!(
        timed.user_info("$G", 20).to_string(),
        r#"{"user":"free","account":"$G","account_name":"$G","user_name":"tag","expires":30}"#
    );
}

#[test]
fn configurations_that_make_no_sense() {
    let error = |config| Authenticator::new(config, [7; 32]).unwrap_err().to_string();
    let public = key(1).public_key();
    assert_eq!(error(users(vec![user("a", "x"), user("a", "y")])), "Duplicate user \"a\" detected");
    assert_eq!(
        error(users(vec![nkey_user(1), nkey_user(1)])),
        format!("Duplicate nkey \"{public}\" detected")
    );
    assert_eq!(error(users(vec![user("", "p")])), "User entry requires a user");
    let both = UserConfig { nkey: Some(public.clone()), ..user("b", "p") };
    assert_eq!(error(users(vec![both])), "Nkey users do not take usernames or passwords");
    let account = KeyPair::new_from_raw(KeyPairType::Account, [1; 32]).unwrap().public_key();
    for bad in ["", "UFOO", &account] {
        let entry = UserConfig { nkey: Some(bad.into()), ..UserConfig::default() };
        assert_eq!(error(users(vec![entry])), "Not a valid public nkey for a user");
    }
    assert_eq!(
        error(AuthConfig { listener: stand_in("zz"), ..users(vec![user("b", "p")]) }),
        "no_auth_user: \"zz\" not present as user or nkey in authorization block or account configuration"
    );
    assert_eq!(
        error(AuthConfig { listener: stand_in("zz"), ..AuthConfig::default() }),
        "no_auth_user: \"zz\" present, but users/nkeys are not defined"
    );
    let mut permissions = PermissionsConfig::default();
    permissions.publish.allow.push("a..b".into());
    let entry = UserConfig { permissions: Some(permissions), ..user("b", "p") };
    assert_eq!(error(users(vec![entry])), "subject \"a..b\" is not a valid subject");
    assert!(
        error(AuthConfig { trusted_proxies: vec!["x".into()], ..AuthConfig::default() }).contains("proxy")
    );
}

#[test]
fn i_1_nothing_secret_is_shown() {
    let a = Attempt { token: "sesame", ..attempt("", "open") };
    let config = users(vec![user("u", "sesame")]);
    let auth = auth(users(vec![user("abc", ABC)]));
    let pending = auth.check(&attempt("abc", "sesame"));
    for text in [format!("{a:?}"), format!("{config:?}"), format!("{auth:?}"), format!("{pending:?}")] {
        assert!(!text.contains("sesame") && !text.contains("open") && !text.contains("$2a"), "{text}");
    }
}

proptest! {
    /// Whatever is sent, nobody gets in without the one password, token or signature.
    #[test]
    fn random_attempts_neither_panic_nor_get_in(
        user_sent in "\\PC{0,8}|u", pass in "\\PC{0,8}", token in "\\PC{0,8}", nkey_sent in "\\PC{0,8}|U[A-Z2-7]{55}",
        sig in "[-_A-Za-z0-9+/=]{0,90}", proxy_sig in "\\PC{0,90}", known in any::<bool>(), kind in 0usize..7,
    ) {
        prop_assume!(pass != "correct horse" && token != "tok");
        let public = key(1).public_key();
        let listener = ListenerConfig { token: Some("tok".into()), ..ListenerConfig::default() };
        let auth = auth(AuthConfig { listener, ..users(vec![user("u", "correct horse"), nkey_user(1)]) });
        let a = Attempt {
            user: &user_sent, pass: &pass, token: &token, nkey: if known { &public } else { &nkey_sent }, sig: &sig,
            proxy_sig: &proxy_sig, nonce: NONCE, connection_type: ConnectionType::ALL[kind], ..Attempt::default()
        };
        prop_assert!(decide(&auth, &a).is_err());
    }
}
