//! Who may do what, and what others are told of it: answers of whole servers, as nats-server 2.15.1 gave them to the same bytes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod loopback;

use loopback::{Wire, with_server, with_user};
use serde_json::{Value, json};

/// Who stands in for those without credentials logs in with the first operation, unasked and unanswered.
#[test]
fn a_login_without_connect_is_not_answered() {
    let config = "accounts { A { users [{user: guest, password: g, permissions: {publish: \"g.>\", subscribe: \"g.>\"}}] } }
        no_auth_user: guest";
    let denied = "-ERR 'Permissions Violation for";
    with_server(config, async |s| {
        for (first, answer) in [
            ("", String::new()),
            ("SUB g.a 1\r\n", "+OK\r\n".into()),
            ("SUB a 1\r\n", format!("{denied} Subscription to \"a\"'\r\n")),
            ("PUB g.a 1\r\nx\r\n", "+OK\r\n".into()),
            ("PUB a 1\r\nx\r\n", format!("{denied} Publish to \"a\"'\r\n")),
            ("UNSUB 1\r\n", "+OK\r\n".into()),
            ("CONNECT {}\r\n", "+OK\r\n".into()),
        ] {
            let mut w = Wire::greeted(&s).await;
            assert_eq!(w.ask(first).await, answer, "{first}");
        }
    });
}

/// Who configures nothing but operators does not lock the server thereby; INFO asks for credentials all the same.
#[test]
fn beside_operators_alone_everybody_is_let_in() {
    let dir = std::env::temp_dir().join(format!("fulmar-server-rights-{}", std::process::id()));
    let js = format!("jetstream {{ store_dir: {dir:?} }}");
    let op = "users [{user: s, password: p}, {user: \"$G\", password: p}]";
    let bad = "-ERR 'Authorization Violation'\r\n";
    for (config, is_open) in [
        (format!("accounts {{ $SYS {{ {op} }} }}\n{js}"), true),
        (format!("accounts {{ X {{ {op} }} }}\nsystem_account: X\n{js}"), true),
        (format!("accounts {{ X {{ {op} }} }}"), false),
        (format!("accounts {{ $SYS {{ {op} }}, A {{}} }}"), false),
        (format!("accounts {{ $SYS {{ {op} }} }}\nauthorization {{ timeout: 3 }}"), false),
        (
            format!("accounts {{ $SYS {{ {op} }} }}\nauthorization {{ users [{{user: a, password: p}}] }}"),
            false,
        ),
    ] {
        with_server(&config, async |s| {
            assert!(s.links.settings().info.auth_required, "{config}");
            let mut w = Wire::greeted(&s).await;
            if !is_open {
                w.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await;
                assert_eq!(w.rest().await, bad, "{config}");
                return;
            }
            w.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n").await;
            w.until("PONG\r\n").await;
            assert!(w.until("\r\n").await.contains("\"remote_account\":\"$G\""), "{config}");
            w.send("SUB r 1\r\nPUB $JS.API.INFO r 0\r\n\r\n").await;
            let info = w.until("\r\n").await + &w.until("\r\n").await;
            assert!(
                info.contains("account_info_response") && !info.contains("\"error\":"),
                "{config}: {info}"
            );
            // Whoever says who he is has to prove it, and operators are in their account.
            for (user, pass) in [("s", "x"), ("$G", "x"), ("$G", ""), ("nobody", "p")] {
                let mut w = Wire::greeted(&s).await;
                w.send(format!("{}\r\nPING\r\n", with_user(user, pass))).await;
                assert_eq!(w.rest().await, bad, "{config}: {user} {pass}");
            }
            let mut w = Wire::connect(&s, &with_user("s", "p")).await;
            assert_eq!(w.ask("PUB $NRG.x 1\r\nx\r\n").await, "");
        });
    }
    std::fs::remove_dir_all(dir).ok();
}

#[test]
fn what_servers_replicate_is_the_system_accounts() {
    let config = "accounts { A { users [{user: a, password: p}] }, SYS { users [{user: s, password: p}] } }
        system_account: SYS";
    with_server(config, async |s| {
        for (user, answer) in [("a", "-ERR 'Permissions Violation for Publish to \"$NRG.x\"'\r\n"), ("s", "")]
        {
            let mut w = Wire::connect(&s, &with_user(user, "p")).await;
            assert_eq!(w.ask("PUB $NRG.x 1\r\nx\r\n").await, answer);
            // Two that go one way, so that those behind them may go together.
            let many =
                "SUB here 1\r\n".to_string() + &"PUB here 1\r\nx\r\n".repeat(3) + "PUB $NRG.x 1\r\nx\r\n";
            let said = w.ask(&many).await;
            assert_eq!(
                (said.matches("MSG here").count(), said.contains("$NRG.x")),
                (3, user == "a"),
                "{said}"
            );
        }
    });
}

/// What a client may not subscribe to is refused for that, whatever else is wrong with it.
#[test]
fn permissions_are_asked_before_anything_else() {
    let config = "authorization { users [{user: a, password: p, permissions: {subscribe: \"ok.>\"}}, {user: b, password: p}] }
        max_subscription_tokens: 3";
    let denied = |s: &str| format!("-ERR 'Permissions Violation for Subscription to \"{s}\"'\r\n");
    with_server(config, async |s| {
        let mut a = Wire::connect(&s, &with_user("a", "p")).await;
        let many = "-ERR 'Permissions Violation for Subscription to \"ok.b.c.d\", too many tokens'\r\n";
        for (subject, answer) in [
            ("no", denied("no")),
            ("no..x", denied("no..x")),
            ("no.b.c.d", denied("no.b.c.d")),
            ("ok.b.c.d", many.into()),
            ("ok.a", String::new()),
        ] {
            assert_eq!(a.ask(&format!("SUB {subject} 1\r\n")).await, answer);
        }
        let mut b = Wire::connect(&s, &with_user("b", "p")).await;
        assert_eq!(b.ask("SUB no..x 1\r\n").await, "-ERR 'Invalid Subject'\r\n");
        assert_eq!(b.ask("SUB x _sys_ 1\r\n").await.matches("using queue \"_sys_\"").count(), 1);
    });
}

/// A service that passes through an account on its way: its owner reads who asked first, and whose service he used.
#[test]
fn a_request_by_the_import_of_an_import_is_its_first_requestors() {
    let config = r#"accounts {
        A { users [{user: a, password: p}], exports [{service: one}, {service: two}] }
        B { users [{user: b, password: p}], exports [{service: one}, {service: two}], imports [
            {service: {account: A, subject: one}}
            {service: {account: A, subject: two}, share: true}] }
        C { users [{user: c, password: p}], imports [
            {service: {account: B, subject: one}}
            {service: {account: B, subject: two}}] }
        D { users [{user: d, password: p}], imports [{service: {account: B, subject: one}, share: true}] }
    }"#;
    with_server(config, async |s| {
        let mut a = Wire::connect(&s, &with_user("a", "p")).await;
        a.ask("SUB * 1\r\n").await;
        let shared = ["start", "host", "id", "acc", "svc", "user", "rtt", "server", "kind", "client_type"];
        for (user, subject, keys) in [
            ("c", "one", &["acc", "svc", "rtt"][..]),
            // What B shares is what it knows: where the request was made, not by whom.
            ("c", "two", &["acc", "svc", "rtt", "server"]),
            ("d", "one", &shared),
        ] {
            let mut w = Wire::connect(&s, &with_user(user, "p")).await;
            // What the requestor says of himself does not count.
            let own = "NATS/1.0\r\nNats-Request-Info: {\"acc\":\"X\"}\r\n\r\n";
            w.ask(&format!("HPUB {subject} {} {0}\r\n{own}\r\n", own.len())).await;
            let got = a.ask("").await;
            let info = got.split("Nats-Request-Info: ").nth(1).unwrap().lines().next().unwrap();
            let info: Value = serde_json::from_str(info).unwrap();
            let found: Vec<&str> = info.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(found, keys, "{got}");
            assert_eq!((&info["acc"], &info["svc"]), (&json!(user.to_uppercase()), &json!("B")));
        }
    });
}

/// An answer is no request by an import, also where it goes on by one: what its sender says of who asks is not believed.
#[test]
fn who_answers_says_nothing_of_who_asks() {
    let config = r#"accounts {
        A { users [{user: a, password: p}], exports [{service: one}] }
        B { users [{user: b, password: p}], imports [{service: {account: A, subject: one}}, {service: {account: C, subject: two}}] }
        C { users [{user: c, password: p}], exports [{service: two}] }
    }"#;
    with_server(config, async |s| {
        let mut a = Wire::connect(&s, &with_user("a", "p")).await;
        a.ask("SUB one 1\r\n").await;
        let mut c = Wire::connect(&s, &with_user("c", "p")).await;
        c.ask("SUB two 1\r\n").await;
        let mut b = Wire::connect(&s, &with_user("b", "p")).await;
        b.ask("PUB one two 1\r\nx\r\n").await;
        let got = a.ask("").await;
        let reply = got.split(' ').find(|w| w.starts_with("_R_.")).unwrap().to_string();
        let own = "NATS/1.0\r\nNats-Request-Info: {\"acc\":\"X\"}\r\n\r\n";
        a.ask(&format!("HPUB {reply} {} {0}\r\n{own}\r\n", own.len())).await;
        let got = c.ask("").await;
        assert!(got.contains("Nats-Request-Info: {\"acc\":\"B\"") && !got.contains("\"X\""), "{got}");
    });
}
