//! A nats-server as a member of our mesh: core messages, queue groups, requests, imports, system requests. Skipped where
//! there is none.

use links::route::RouteSettings;

use super::support::*;

const ACCOUNTS: &str = r#"accounts {
  $SYS { users: [{user: sys, password: pw}] }
  A { users: [{user: a, password: pw}], exports: [{service: svc}, {stream: "st.>"}] }
  B { users: [{user: b, password: pw}], imports: [{service: {account: A, subject: svc}}, {stream: {account: A, subject: "st.>"}}] }
}"#;

/// Runs the same with us connecting to them, them connecting to us, and with these words in both cluster blocks.
fn with_both(extra: &str, routes_each: usize) {
    with_each(extra, extra, routes_each, "off");
}

/// The same with words of each in its cluster block; `compression` is how we write to them.
fn with_each(our_words: &str, their_words: &str, routes_each: usize, compression: &str) {
    let Some(bin) = nats_server() else { return };
    for we_connect in [true, false] {
        run(async {
            let (ours, theirs);
            if we_connect {
                theirs = Real::start(&bin, "theirs", ACCOUNTS, their_words, &[]).await;
                ours = start("ours", &format!("{ACCOUNTS}\n{}", cluster(our_words, &[theirs.cluster]))).await;
            } else {
                ours = start("ours", &format!("{ACCOUNTS}\n{}", cluster(our_words, &[]))).await;
                theirs = Real::start(&bin, "theirs", ACCOUNTS, their_words, &[cluster_port(&ours)]).await;
            }
            meshed(&ours, 1, routes_each).await;
            let mesh = ours.cluster.mesh.clone().unwrap();
            let all_so = move || mesh.routes().iter().all(|r| r.compression() == compression);
            eventually(&format!("routes are compressed: {compression}"), all_so).await;
            let (mut a, mut b) = (Peer::new(&ours, "a").await, Peer::new(&ours, "b").await);
            let (mut ra, mut rb) = (Peer::at(theirs.client, "a").await, Peer::at(theirs.client, "b").await);
            traces_cross(&mut a, &mut ra).await;
            traces_cross(&mut ra, &mut a).await;
            // Messages, both ways.
            ra.sub("to.them.*", "").await;
            a.sub("to.us.>", "").await;
            flows(&mut a, &mut ra, "to.them.1").await;
            flows(&mut ra, &mut a, "to.us.1").await;
            a.publish_with_header("to.them.2", "K", "v", "body").await;
            let m = ra.next().await;
            assert_eq!(
                (&*m.subject, &*m.header, &*m.body),
                ("to.them.2", "NATS/1.0\r\nK: v\r\n\r\n", "body")
            );
            ra.publish_with_header("to.us.2", "K", "v", "body").await;
            assert_eq!(a.next().await.header, "NATS/1.0\r\nK: v\r\n\r\n");
            // Queue groups: a member here and two there, one of which gets a message.
            a.sub("work", "g").await;
            ra.sub("work", "g").await;
            ra.sub("work", "g").await;
            weight(&ours, "A", "work", 2).await;
            for _ in 0..300 {
                a.send(b"PUB work 1\r\nx\r\n").await;
            }
            let mut got = (0, 0);
            while got.0 + got.1 < 300 {
                a.settle().await;
                ra.settle().await;
                got = (a.msgs.len(), ra.msgs.len());
            }
            assert!((60..140).contains(&got.0), "{got:?}");
            a.msgs.clear();
            ra.msgs.clear();
            for _ in 0..300 {
                ra.send(b"PUB work 1\r\nx\r\n").await;
            }
            while a.msgs.len() + ra.msgs.len() < 300 {
                a.settle().await;
                ra.settle().await;
            }
            assert!((60..140).contains(&a.msgs.len()), "{}", a.msgs.len());
            a.msgs.clear();
            ra.msgs.clear();
            // Requests, and a request across accounts whose answer comes back over the route.
            ra.sub("ask.them", "").await;
            interest(&ours, "A", "ask.them", true).await;
            let serve = async |p: &mut Peer| {
                let q = p.next().await;
                p.publish(&q.reply, "", "!").await;
            };
            let (answer, ()) = tokio::join!(a.ask("ask.them", "?"), serve(&mut ra));
            assert_eq!(answer.body, "!");
            let sid = ra.sub("svc", "").await;
            interest(&ours, "A", "svc", true).await;
            let (answer, ()) = tokio::join!(b.ask("svc", "?"), serve(&mut ra));
            assert_eq!(answer.body, "!");
            ra.unsub(sid).await;
            interest(&ours, "A", "svc", false).await;
            a.sub("svc", "").await;
            a.sub("mark", "").await;
            flows(&mut ra, &mut a, "mark").await;
            let (answer, ()) = tokio::join!(rb.ask("svc", "?"), serve(&mut a));
            assert_eq!(answer.body, "!");
            // Streams of another account.
            rb.sub("st.x", "").await;
            interest(&ours, "A", "st.x", true).await;
            a.publish("st.x", "", "streamed").await;
            assert_eq!(rb.body().await, "streamed");
            // Interest goes with its client.
            drop(ra);
            interest(&ours, "A", "to.them.1", false).await;
            // System requests to all servers are answered by both.
            let mut sys = Peer::new(&ours, "sys").await;
            sys.sub("answers", "").await;
            sys.publish("$SYS.REQ.SERVER.PING", "answers", "").await;
            let mut names = Vec::new();
            while names.len() < 2 {
                let v: serde_json::Value = serde_json::from_str(&sys.body().await).unwrap();
                names.push(v["server"]["name"].as_str().unwrap().to_string());
                assert_eq!(v["server"]["cluster"], "C");
            }
            names.sort();
            assert_eq!(names, ["ours", "theirs"]);
            let mut sys = Peer::at(theirs.client, "sys").await;
            let ask = format!("$SYS.REQ.SERVER.{}.ROUTEZ", ours.id());
            let v: serde_json::Value = serde_json::from_str(&sys.ask(&ask, "").await.body).unwrap();
            assert_eq!(v["data"]["num_routes"], routes_each, "{v}");
            // Clients learn of the other server, and that it has gone.
            let url = theirs.client.to_string();
            let lists = |i: &serde_json::Value| {
                i["connect_urls"].as_array().is_some_and(|l| l.iter().any(|u| *u == *url))
            };
            let mut watcher = Peer::new(&ours, "a").await;
            if !lists(&watcher.info) {
                watcher.info_with("the other server", lists).await;
            }
            drop(theirs);
            watcher.info_with("the other server is gone", |i| !lists(i)).await;
            meshed(&ours, 0, 0).await;
            ours.stop();
        });
    }
}

#[test]
fn a_nats_server_in_the_mesh() {
    with_both("name: C", 4);
}

#[test]
fn a_nats_server_with_an_account_of_its_own_route() {
    with_both("name: C, accounts: [A], pool_size: 2", 4);
}

#[test]
fn a_nats_server_without_a_pool() {
    with_both("name: C, pool_size: -1", 1);
}

#[test]
fn a_nats_server_with_passwords() {
    let Some(bin) = nats_server() else { return };
    run(async {
        let extra = "name: C, authorization { user: u, password: p }";
        let theirs = Real::start(&bin, "theirs", "", extra, &[]).await;
        let text = format!(
            "cluster {{ listen: \"127.0.0.1:-1\", routes: [\"nats-route://u:p@{}\"], {extra} }}",
            theirs.cluster
        );
        let ours = start("ours", &text).await;
        meshed(&ours, 1, 4).await;
        // A third is told of us by gossip, and knows the password.
        let third = Real::start(&bin, "third", "", extra, &[]).await;
        let text = format!(
            "cluster {{ listen: \"127.0.0.1:-1\", routes: [\"nats-route://u:p@{}\", \"nats-route://u:p@{}\"], {extra} }}",
            theirs.cluster, third.cluster
        );
        let fourth = start("fourth", &text).await;
        meshed(&fourth, 3, 4).await;
        meshed(&ours, 3, 4).await;
        ours.stop();
        fourth.stop();
    });
}

/// Also what the nats-server repeats, its queue groups without their size.
#[test]
fn b9_permissions_change_on_routes_to_a_nats_server() {
    let Some(bin) = nats_server() else { return };
    run(async {
        let theirs = Real::start(&bin, "theirs", "", "name: C", &[]).await;
        let ours = start("ours", &cluster("name: C", &[theirs.cluster])).await;
        meshed(&ours, 1, 4).await;
        let words = "name: D, permissions { import: { deny: \"in.>\" }, export: { deny: \"out.>\" } }";
        let other = start("other", &cluster(words, &[])).await;
        let mesh = ours.cluster.mesh.clone().unwrap();
        let (open, narrow) = (mesh.settings(), other.cluster.mesh.as_ref().unwrap().settings());
        let mut info = open.info.clone();
        (info.import, info.export) = (narrow.info.import.clone(), narrow.info.export.clone());
        let narrow = RouteSettings { info, permissions: narrow.permissions.clone(), ..(*open).clone() };
        let ids = || mesh.routes().iter().map(|r| r.link.id).collect::<Vec<_>>();
        let before = ids();
        let (mut a, mut r) = (Peer::new(&ours, "").await, Peer::at(theirs.client, "").await);
        for (subject, queue) in [("out.x", ""), ("out.q", "g"), ("ok", "")] {
            r.sub(subject, queue).await;
        }
        a.sub("in.q", "g").await;
        a.sub("ok", "").await;
        for _ in 0..2 {
            for s in ["out.x", "out.q", "ok"] {
                remote_interest(&ours, "$G", s).await;
            }
            flows(&mut r, &mut a, "in.q").await;
            mesh.set_settings(narrow.clone());
            interest(&ours, "$G", "out.x", false).await;
            interest(&ours, "$G", "out.q", false).await;
            flows(&mut r, &mut a, "ok").await;
            r.publish("in.q", "", "not taken").await;
            flows(&mut r, &mut a, "ok").await;
            mesh.set_settings((*open).clone());
        }
        assert_eq!(ids(), before, "{}", theirs.log());
        assert!(a.msgs.iter().all(|m| m.body != "not taken"));
        ours.stop();
        other.stop();
    });
}

#[test]
fn names_that_were_made_up_give_way_to_a_nats_servers() {
    let Some(bin) = nats_server() else { return };
    run(async {
        let theirs = Real::start(&bin, "theirs", "", "name: REAL", &[]).await;
        let ours = start("ours", &cluster("", &[theirs.cluster])).await;
        meshed(&ours, 1, 4).await;
        assert_eq!(ours.cluster.name(), "REAL");
        let other = start("other", &cluster("name: OTHER", &[theirs.cluster])).await;
        let log = || theirs.log();
        eventually("the other name is refused", || log().contains("Cluster Name Conflict")).await;
        assert_eq!(counts(&other), (0, 0));
        ours.stop();
        other.stop();
    });
}

#[test]
fn a_nats_server_that_compresses() {
    with_each("name: C, compression: s2_fast", "name: C", 4, "s2_fast");
    with_each("name: C", "name: C, compression: s2_best", 4, "s2_best");
}

#[test]
fn a_nats_server_that_compresses_by_the_round_trip() {
    // Shorter than the first threshold, also on a busy machine, which is known after the first PONG.
    let words = "name: C, compression: {mode: s2_auto, rtt_thresholds: [\"30s\", \"40s\", \"50s\"]}";
    with_each(words, words, 4, "s2_uncompressed");
    with_each("name: C, compression: off", "name: C, compression: s2_fast", 4, "off");
}
