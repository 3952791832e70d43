//! Who becomes a member, and what clients and operators are told of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use env::{
    disk::Disk,
    net::{TcpListener, TcpStream},
};
use links::route::{RouteSettings, RouteUrl, Slot};
use serde_json::{Value, json};
use server::{Server, monitor};

use super::support::*;

fn lists(i: &Value, url: &str) -> bool {
    i["connect_urls"].as_array().is_some_and(|l| l.iter().any(|u| u == url))
}

#[test]
fn clients_are_told_of_members() {
    run(async {
        let first = start("s0", &cluster("name: C", &[])).await;
        let mut p = Peer::new(&first, "").await;
        assert_eq!((&p.info["cluster"], &p.info["connect_urls"]), (&Value::from("C"), &Value::Null));
        let sockets = "websocket { listen: \"127.0.0.1:-1\", no_tls: true }\n";
        let second = start("s1", &format!("{sockets}{}", cluster("name: C", &[cluster_port(&first)]))).await;
        let (one, two) = (client_port(&first).to_string(), client_port(&second).to_string());
        let i = p.info_with("the second", |i| lists(i, &two)).await;
        assert!(lists(&i, &one), "{i}");
        let hidden = start("s2", &cluster("name: C, no_advertise: true", &[cluster_port(&first)])).await;
        meshed(&first, 2, 4).await;
        meshed(&second, 2, 4).await;
        // A lame duck is not named any more, and what it does not advertise is never named.
        let q = Peer::new(&hidden, "").await;
        assert_eq!(q.info["connect_urls"], Value::Null);
        let mut r = Peer::new(&second, "").await;
        let duck = second.clone();
        env::spawn(async move { duck.lame_duck().await });
        // Whom it sends away it does not name itself to, on any of its listeners.
        let i = r.info_with("its own client is sent away", |i| i["ldm"] == true).await;
        assert!(lists(&i, &one) && !lists(&i, &two), "{i}");
        let sockets = second.links.settings().websocket.clone().expect("it is configured");
        assert!(sockets.info.ldm && sockets.info.connect_urls.is_empty());
        let i = p.info_with("the second is a lame duck", |i| !lists(i, &two)).await;
        assert!(lists(&i, &one) && !lists(&i, &client_port(&hidden).to_string()), "{i}");
        second.stop();
        meshed(&first, 1, 4).await;
        first.stop();
        hidden.stop();
    });
}

#[test]
fn who_listens_everywhere_tells_all_its_addresses() {
    run(async {
        let everywhere = |others: &[_]| format!("host: \"0.0.0.0\"\n{}", cluster("name: C", others));
        let first = start("s0", &everywhere(&[])).await;
        let mut p = Peer::new(&first, "").await;
        assert_eq!(p.info["connect_urls"], Value::Null, "there is nobody else yet");
        let second = start("s1", &everywhere(&[cluster_port(&first)])).await;
        let advertised =
            format!("client_advertise: \"b.example:7\"\n{}", everywhere(&[cluster_port(&first)]));
        let third = start("s2", &advertised).await;
        let ports = [client_port(&first).port(), client_port(&second).port()];
        let reachable = |ip: &std::net::IpAddr| {
            !ip.is_loopback() && !matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
        };
        let mut expected = vec!["b.example:7".to_owned()];
        for ip in env::net::interface_addresses().unwrap().into_iter().filter(reachable) {
            expected.extend(ports.map(|port| std::net::SocketAddr::new(ip, port).to_string()));
        }
        expected.sort();
        let told = |i: &Value| {
            let urls = i["connect_urls"].as_array().into_iter().flatten();
            let mut urls: Vec<_> = urls.filter_map(|u| u.as_str().map(str::to_owned)).collect();
            urls.sort();
            urls == expected
        };
        p.info_with("all addresses of all three", told).await;
        for s in [first, second, third] {
            s.stop();
        }
    });
}

#[test]
fn a_server_that_goes_from_the_configuration_keeps_its_connections() {
    run(async {
        let all = mesh(2, "", "name: C", 4).await;
        let knows = all[1].cluster.mesh.clone().expect("it is clustered");
        let mut without = (*knows.settings()).clone();
        assert_eq!(std::mem::take(&mut without.urls).len(), 1);
        // The tasks that hold them looked for a place again and again, without a pause: nothing else on their workers went on.
        knows.set_settings(without);
        for _ in 0..20 {
            env::sleep(Duration::from_millis(10)).await;
            assert_eq!(counts(&all[1]), (4, 1));
        }
        let (mut a, mut b) = (Peer::new(&all[0], "").await, Peer::new(&all[1], "").await);
        a.sub("goes.on", "").await;
        remote_interest(&all[1], "$G", "goes.on").await;
        b.publish("goes.on", "", "x").await;
        assert_eq!(a.body().await, "x");
        all.iter().for_each(|s| s.stop());
    });
}

#[test]
fn r2_other_clusters_and_doubles_stay_out() {
    run(async {
        let first = start("s0", &cluster("name: C", &[])).await;
        let port = cluster_port(&first);
        let other = start("s1", &cluster("name: D", &[port])).await;
        let double = start("s0", &cluster("name: C", &[port])).await;
        // One that is let in came later than both were turned away.
        let good = start("s2", &cluster("name: C", &[port])).await;
        meshed(&good, 1, 4).await;
        assert_eq!((counts(&other), counts(&double)), ((0, 0), (0, 0)), "R-2");
        assert_eq!(counts(&first).1, 1, "R-2");
        // A server whose routes name itself is no member of itself, and goes on.
        let (mut a, mut b) = (Peer::new(&first, "").await, Peer::new(&good, "").await);
        b.sub("x", "").await;
        interest(&first, "$G", "x", true).await;
        a.publish("x", "", "hi").await;
        assert_eq!(b.body().await, "hi");
        for s in [first, other, double, good] {
            s.stop();
        }
    });
}

#[test]
fn names_that_were_made_up_converge() {
    run(async {
        let a = start("s0", &cluster("", &[])).await;
        let b = start("s1", &cluster("", &[cluster_port(&a)])).await;
        meshed(&a, 1, 4).await;
        meshed(&b, 1, 4).await;
        assert_eq!(a.cluster.name(), b.cluster.name());
        assert_eq!(a.cluster.name().len(), 22);
        // A configured name wins over those, at all members.
        let c = start("s2", &cluster("name: NAMED", &[cluster_port(&a)])).await;
        for s in [&a, &b, &c] {
            meshed(s, 2, 4).await;
            assert_eq!(s.cluster.name(), "NAMED");
        }
        let p = Peer::new(&b, "").await;
        assert_eq!(p.info["cluster"], "NAMED");
        for s in [a, b, c] {
            s.stop();
        }
    });
}

#[test]
fn r1_servers_that_connect_to_each_other_keep_one_set_of_routes() {
    run(async {
        for round in 0..4 {
            let (a, b) =
                (start("s0", &cluster("name: C", &[])).await, start("s1", &cluster("name: C", &[])).await);
            let (pa, pb) = (cluster_port(&a), cluster_port(&b));
            let url = |p: std::net::SocketAddr| links_url(p);
            let add = |s: &Arc<Server>, u| {
                let mesh = s.cluster.mesh.clone().unwrap();
                let mut settings = (*mesh.settings()).clone();
                settings.urls.push(u);
                mesh.set_settings(settings);
            };
            add(&a, url(pb));
            add(&b, url(pa));
            meshed(&a, 1, 4).await;
            meshed(&b, 1, 4).await;
            // Each place has the same connection at both ends: one of them has opened it.
            let ends = |s: &Arc<Server>| -> BTreeMap<Slot, bool> {
                let routes = s.cluster.mesh.as_ref().unwrap().routes();
                routes.iter().map(|r| (r.slot.clone(), r.solicited)).collect()
            };
            let (x, y) = (a.clone(), b.clone());
            eventually("R-1: both ends keep the same", move || {
                let (x, y) = (ends(&x), ends(&y));
                x.len() == 4 && y.len() == 4 && x.iter().zip(&y).all(|(x, y)| x.0 == y.0 && x.1 != y.1)
            })
            .await;
            let (mut p, mut q) = (Peer::new(&a, "").await, Peer::new(&b, "").await);
            q.sub("x", "").await;
            interest(&a, "$G", "x", true).await;
            p.publish("x", "", "hi").await;
            assert_eq!(q.body().await, "hi", "{round}");
            a.stop();
            b.stop();
        }
    });
}

fn links_url(a: std::net::SocketAddr) -> links::route::RouteUrl {
    links::route::RouteUrl { host: a.ip().to_string(), port: a.port(), credentials: None }
}

/// What a nats-server says of itself at the beginning of a route, and of others.
fn says_nats_server(id: &str, more: &Value) -> String {
    let mut info = json!({
        "server_id": id, "server_name": id, "version": "2.15.1", "proto": 1, "headers": true, "cluster": "C",
        "max_payload": 1 << 20, "route_pool_size": 3, "host": "127.0.0.1", "port": 1,
    });
    info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("INFO {info}\r\n")
}

#[test]
fn the_route_of_an_account_is_opened_to_a_nats_server_that_gossip_tells_of() {
    run(async {
        let ours = start("ours", &cluster("name: C", &[])).await;
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = format!("nats-route://{}/", listener.local_addr().unwrap());
        let mut routes = Vec::new();
        for id in ["F", "G"] {
            let mut p = Peer::on(TcpStream::connect(cluster_port(&ours)).await.unwrap());
            assert_eq!(p.step().await, "INFO");
            let connect =
                json!({"echo": true, "verbose": false, "pedantic": false, "name": id, "cluster": "C"});
            p.send(format!("CONNECT {connect}\r\n{}", says_nats_server(id, &json!({}))).as_bytes()).await;
            p.settle().await;
            routes.push(p);
        }
        let known = ours.clone();
        eventually("both are members", move || counts(&known) == (2, 2)).await;
        // F has opened the first connection. Of that for the system account only G tells.
        let told = json!({"ip": at, "route_account": "$SYS", "gossip_mode": 1});
        routes[1].send(says_nats_server("F", &told).as_bytes()).await;
        let (accepted, _) =
            env::timeout(PATIENCE, listener.accept()).await.expect("it is connected to").unwrap();
        let mut p = Peer::on(accepted.attach().unwrap());
        p.send(says_nats_server("F", &json!({})).as_bytes()).await;
        while p.step().await != "INFO" {}
        assert_eq!(p.infos[0]["route_account"], "$SYS", "{}", p.infos[0]);
        ours.stop();
    });
}

#[test]
fn routes_that_break_come_back() {
    run(async {
        let all = mesh(3, "", "name: C", 4).await;
        let (mut a, mut c) = (Peer::new(&all[0], "").await, Peer::new(&all[2], "").await);
        c.sub("x", "").await;
        interest(&all[0], "$G", "x", true).await;
        // All connections of one server break: those of its configuration, and those by gossip.
        for r in all[2].cluster.mesh.as_ref().unwrap().routes() {
            r.link.close(broker::Closed::ReadError);
        }
        let third = all[2].clone();
        eventually("they are gone", move || counts(&third).0 < 8).await;
        for s in &all {
            meshed(s, 2, 4).await;
        }
        interest(&all[0], "$G", "x", true).await;
        interest(&all[1], "$G", "x", true).await;
        a.publish("x", "", "again").await;
        assert_eq!(c.body().await, "again");
        for s in all {
            s.stop();
        }
    });
}

#[test]
fn passwords_of_routes() {
    run(async {
        let auth = |p: &str| format!("name: C, authorization {{ user: u, password: {p:?}, timeout: 1 }}");
        let first = start("s0", &cluster(&auth("secret"), &[])).await;
        let port = cluster_port(&first);
        let with = |user: &str, p: &str| {
            format!(
                "cluster {{ listen: \"127.0.0.1:-1\", routes: [\"nats-route://{user}{port}\"], {} }}",
                auth(p)
            )
        };
        let wrong = start("s1", &with("u:wrong@", "wrong")).await;
        let none = start("s2", &with("", "secret")).await;
        let good = start("s3", &with("u:secret@", "secret")).await;
        meshed(&good, 1, 4).await;
        assert_eq!((counts(&wrong), counts(&none), counts(&first).1), ((0, 0), (0, 0), 1));
        // Who knows one member is told of the others, and shows them the password of the configuration.
        let later = start("s4", &with("u:secret@", "secret")).await;
        meshed(&later, 2, 4).await;
        for s in [first, wrong, none, good, later] {
            s.stop();
        }
    });
}

#[test]
fn who_may_not_come_in_by_a_route_is_told_no_more_than_that() {
    run(async {
        let log = std::env::temp_dir().join(format!("fulmar-routes-{}.log", env::process::id()));
        let auth = "name: C, authorization { user: r, password: s }";
        let s = start("s0", &format!("log_file: {log:?}\n{}", cluster(auth, &[]))).await;
        let lets_in = |c: &Value| format!("CONNECT {c}\r\nPING\r\n");
        let client = json!({"user": "a", "pass": "p", "lang": "go", "verbose": false});
        let wrong = json!({"user": "r", "pass": "x", "cluster": "C", "name": "N"});
        let known = json!({"user": "r", "pass": "s", "lang": "go"});
        let all =
            [lets_in(&client), lets_in(&wrong), "HELLO\r\n".into(), "RS+ A x\r\n".into(), lets_in(&known)];
        let mut told = Vec::new();
        for first in &all {
            let mut p = Peer::on(TcpStream::connect(cluster_port(&s)).await.unwrap());
            assert_eq!(p.step().await, "INFO");
            p.send(first.as_bytes()).await;
            told.push(p.rest().await);
        }
        assert_eq!(told[..4], ["-ERR 'Authorization Violation'\r\n"; 4]);
        assert_eq!(told[4], "-ERR 'attempted to connect to route port'\r\n");
        let lines = Disk::os().read(&log).await.unwrap();
        let lines = String::from_utf8_lossy(&lines).into_owned();
        let said: Vec<_> = lines
            .lines()
            .filter(|l| l.contains("[ERR]"))
            .filter_map(|l| Some(l.split_once(" - rid:")?.1.split_once(" - ")?.1))
            .collect();
        let nobody = "authentication error";
        assert_eq!(
            said,
            [
                "authentication error - User \"a\"",
                "authentication error - User \"r\"",
                nobody,
                nobody,
                "attempted to connect to route port"
            ]
        );
        Disk::os().remove_file(&log).await.ok();
        s.stop();
    });
}

#[test]
fn who_came_in_under_other_settings_has_to_ask_again() {
    run(async {
        let first = start("s0", &cluster("name: C", &[])).await;
        let second = start("s1", &cluster("name: C", &[cluster_port(&first)])).await;
        meshed(&first, 1, 4).await;
        let asks =
            "name: D, authorization { user: u, password: p }, permissions { export: { deny: secret } }";
        let other = start("s2", &cluster(asks, &[])).await;
        let mesh = first.cluster.mesh.clone().unwrap();
        let (open, asks) = (mesh.settings(), other.cluster.mesh.as_ref().unwrap().settings());
        let mut p = Peer::new(&second, "").await;
        p.sub("secret", "").await;
        p.sub("x", "").await;
        interest(&first, "$G", "secret", true).await;
        // A reload that changes nothing of it closes nothing.
        let ids = || mesh.routes().iter().map(|r| r.link.id).collect::<std::collections::BTreeSet<_>>();
        let before = ids();
        mesh.set_settings((*open).clone());
        meshed(&first, 1, 4).await;
        assert_eq!(ids(), before);
        // What is not given any more is not known any more.
        let mut info = open.info.clone();
        info.export.clone_from(&asks.info.export);
        let permissions = asks.permissions.clone();
        mesh.set_settings(RouteSettings { info, permissions, ..(*open).clone() });
        interest(&first, "$G", "secret", false).await;
        interest(&first, "$G", "x", true).await;
        assert_eq!(ids(), before, "what is given is agreed on over the connections that there are");
        // Whom nobody asked is asked now, and has no password.
        let (authenticator, credentials) = (asks.authenticator.clone(), asks.credentials.clone());
        let asking = RouteSettings { authenticator, credentials, ..(*open).clone() };
        mesh.set_settings(asking.clone());
        let gone = first.clone();
        eventually("nobody is here", move || counts(&gone) == (0, 0)).await;
        // Unless the configuration has him.
        let at = cluster_port(&second);
        let url = RouteUrl { host: at.ip().to_string(), port: at.port(), credentials: None };
        mesh.set_settings(RouteSettings { urls: vec![url.clone()], ..(*open).clone() });
        meshed(&first, 1, 4).await;
        let (found, id) = (mesh.clone(), second.id().to_owned());
        eventually("the server of the configuration is found", move || found.is_configured(&id)).await;
        mesh.set_settings(RouteSettings { urls: vec![url], ..asking });
        meshed(&first, 1, 4).await;
        assert!(!mesh.is_configured(other.id()));
        for s in [first, second, other] {
            s.stop();
        }
    });
}

#[test]
fn permissions_of_routes() {
    run(async {
        let first = start(
            "s0",
            &cluster(
                "name: C, permissions { import: { deny: \"not.in.>\" }, export: { deny: \"not.out.>\" } }",
                &[],
            ),
        )
        .await;
        let second = start("s1", &cluster("name: C", &[cluster_port(&first)])).await;
        meshed(&second, 1, 4).await;
        let (mut a, mut b) = (Peer::new(&first, "").await, Peer::new(&second, "").await);
        for p in [&mut a, &mut b] {
            for s in ["not.in.1", "not.out.1", "ok", ">"] {
                p.sub(s, "").await;
            }
        }
        for s in [&first, &second] {
            remote_interest(s, "$G", "ok").await;
        }
        for s in ["not.in.1", "not.out.1", "ok"] {
            b.publish(s, "", "of b").await;
            a.publish(s, "", "of a").await;
        }
        let end = |p: &Peer| {
            let mut got: Vec<String> = p.msgs.iter().map(|m| format!("{} {}", m.subject, m.body)).collect();
            got.sort();
            got.dedup();
            got
        };
        let deadline = env::now() + PATIENCE;
        while !end(&a).contains(&"ok of b".into()) || !end(&b).contains(&"ok of a".into()) {
            assert!(env::now() < deadline, "{:?} {:?}", end(&a), end(&b));
            a.settle().await;
            b.settle().await;
        }
        // What is not taken does not come in, though `>` asks for it; what is not given is not told of.
        assert!(!end(&a).contains(&"not.in.1 of b".into()), "{:?}", end(&a));
        assert!(end(&a).contains(&"not.out.1 of b".into()), "{:?}", end(&a));
        let specific = second.broker.account("$G").unwrap().matching(b"not.in.1");
        let told = |s: &broker::Sub| s.link.kind == broker::Kind::Route && s.subject() == b"not.in.1";
        assert!(!specific.iter().any(|s| told(s)));
        first.stop();
        second.stop();
    });
}

/// As with a nats-server: of two that have each other in their configuration both have asked for the connection, and each route shows what the
/// server at its other end takes and gives.
#[test]
fn routes_are_shown_as_the_configuration_has_them() {
    run(async {
        let first = start("s0", &cluster("name: C, permissions { export: { deny: \"x.>\" } }", &[])).await;
        let second = start("s1", &cluster("name: C", &[cluster_port(&first)])).await;
        let third = start("s2", &cluster("name: C", &[cluster_port(&first)])).await;
        for s in [&first, &second, &third] {
            meshed(s, 2, 4).await;
        }
        let at = cluster_port(&second);
        let url = RouteUrl { host: at.ip().to_string(), port: at.port(), credentials: None };
        let mesh = first.cluster.mesh.clone().unwrap();
        let open = mesh.settings();
        mesh.set_settings(RouteSettings { urls: vec![url], ..(*open).clone() });
        let (found, id) = (mesh.clone(), second.id().to_owned());
        eventually("the server of the configuration is found", move || found.is_configured(&id)).await;
        let shown = |s: &Arc<Server>, to: &Arc<Server>| {
            let v = serde_json::to_value(monitor::routez(s, &monitor::RoutezOptions::default())).unwrap();
            let routes = v["routes"].as_array().unwrap().clone();
            let all: Vec<_> = routes
                .iter()
                .filter(|r| r["remote_name"] == *to.name)
                .map(|r| {
                    (r["did_solicit"] == true, r["is_configured"] == true, r["export"]["deny"][0].clone())
                })
                .collect();
            assert!(all.len() == 4 && all.iter().all(|r| *r == all[0]), "{v}");
            all[0].clone()
        };
        assert_eq!(shown(&first, &second), (true, true, Value::Null));
        assert_eq!(shown(&second, &first), (true, true, "x.>".into()));
        assert_eq!(shown(&first, &third), (false, false, Value::Null));
        assert_eq!(shown(&third, &first), (true, true, "x.>".into()));
        let between = [shown(&second, &third), shown(&third, &second)];
        assert!(between.iter().all(|r| !r.1) && between[0].0 != between[1].0, "{between:?}");
        for s in [first, second, third] {
            s.stop();
        }
    });
}

/// A stream of messages does not notice what is forbidden and allowed beside it.
#[test]
fn b9_permissions_that_change_hold_on_the_routes_that_are_there() {
    run(async {
        let first = start("s0", &cluster("name: C", &[])).await;
        let second = start("s1", &cluster("name: C", &[cluster_port(&first)])).await;
        meshed(&first, 1, 4).await;
        let words = "name: D, permissions { import: { deny: \"in.>\" }, export: { deny: \"out.>\" } }";
        let other = start("s2", &cluster(words, &[])).await;
        let mesh = first.cluster.mesh.clone().unwrap();
        let (open, narrow) = (mesh.settings(), other.cluster.mesh.as_ref().unwrap().settings());
        let mut info = open.info.clone();
        (info.import, info.export) = (narrow.info.import.clone(), narrow.info.export.clone());
        let narrow = RouteSettings { info, permissions: narrow.permissions.clone(), ..(*open).clone() };
        let ids = || mesh.routes().iter().map(|r| r.link.id).collect::<Vec<_>>();
        let before = ids();
        let (mut a, mut b) = (Peer::new(&first, "").await, Peer::new(&second, "").await);
        for p in [&mut a, &mut b] {
            for (subject, queue) in [("in.x", ""), ("in.q", "g"), ("out.x", ""), ("out.q", "g"), ("ok", "")] {
                p.sub(subject, queue).await;
            }
        }
        a.sub("in.*", "").await;
        for s in [&first, &second] {
            remote_interest(s, "$G", "ok").await;
        }
        let mut sent = 0;
        for round in 0..4 {
            let is_narrow = round % 2 == 0;
            for i in 0..50 {
                if i == 20 {
                    mesh.set_settings(if is_narrow { narrow.clone() } else { (*open).clone() });
                }
                for p in [&mut a, &mut b] {
                    p.publish("ok", "", &sent.to_string()).await;
                }
                sent += 1;
            }
            let told = |s: &Arc<Server>, subject: &str| {
                let found = s.broker.account("$G").unwrap().matching(subject.as_bytes());
                found.iter().any(|s| s.link.kind == broker::Kind::Route && s.subject() == subject.as_bytes())
            };
            let (one, two) = (first.clone(), second.clone());
            eventually(&format!("round {round}: what passes is known, and nothing else"), move || {
                ["in.x", "in.q", "in.*"].iter().all(|s| told(&two, s) != is_narrow)
                    && ["out.x", "out.q"].iter().all(|s| told(&one, s) != is_narrow)
                    && ["out.x", "out.q"].iter().all(|s| told(&two, s))
                    && ["in.x", "in.q"].iter().all(|s| told(&one, s))
            })
            .await;
            weight(&first, "$G", "in.q", 1).await;
        }
        for p in [&mut a, &mut b] {
            let deadline = env::now() + PATIENCE;
            while p.msgs.len() < 2 * sent {
                assert!(env::now() < deadline, "{} of {} came", p.msgs.len(), 2 * sent);
                p.settle().await;
            }
            assert_eq!(p.msgs.len(), 2 * sent);
        }
        assert_eq!(ids(), before, "the routes stay");
        for s in [first, second, other] {
            s.stop();
        }
    });
}

#[test]
fn system_requests_reach_every_server() {
    run(async {
        let accounts = "accounts { $SYS { users: [{user: sys, password: pw}] }, A { users: [{user: a, password: pw}] } }";
        let all = mesh(3, accounts, "name: C", 4).await;
        let mut sys = Peer::new(&all[0], "sys").await;
        sys.sub("answers", "").await;
        for s in &all[1..] {
            interest(s, "$SYS", "answers", true).await;
        }
        sys.publish("$SYS.REQ.SERVER.PING.STATSZ", "answers", "").await;
        let mut names = Vec::new();
        for _ in 0..3 {
            let v: Value = serde_json::from_str(&sys.body().await).unwrap();
            assert_eq!(v["statsz"]["active_servers"], 3);
            names.push(v["server"]["name"].as_str().unwrap().to_string());
        }
        names.sort();
        assert_eq!(names, ["s0", "s1", "s2"]);
        // One server by its id, from another.
        let ask = format!("$SYS.REQ.SERVER.{}.ROUTEZ", all[2].id());
        sys.publish(&ask, "answers", "").await;
        let v: Value = serde_json::from_str(&sys.body().await).unwrap();
        assert_eq!((&v["server"]["name"], &v["data"]["num_routes"]), (&"s2".into(), &8.into()));
        let route = &v["data"]["routes"][0];
        for key in [
            "rid",
            "remote_id",
            "remote_name",
            "did_solicit",
            "is_configured",
            "ip",
            "port",
            "start",
            "compression",
        ] {
            assert!(!route[key].is_null(), "{key}: {route}");
        }
        accounts_ask_every_server(&all).await;
        // Events of one server come to the others.
        sys.sub("$SYS.ACCOUNT.A.CONNECT", "").await;
        interest(&all[1], "$SYS", "$SYS.ACCOUNT.A.CONNECT", true).await;
        let _a = Peer::new(&all[1], "a").await;
        let v: Value = serde_json::from_str(&sys.body().await).unwrap();
        assert_eq!(v["server"]["name"], "s1");
        for s in all {
            s.stop();
        }
    });
}

/// What an account asks about itself is answered by all servers, and of itself alone (Y-2).
async fn accounts_ask_every_server(all: &[Arc<Server>]) {
    let mut a = Peer::new(&all[1], "a").await;
    let _other = Peer::new(&all[2], "a").await;
    a.sub("mine", "").await;
    for s in [&all[0], &all[2]] {
        interest(s, "$SYS", &format!("$SYS._INBOX.{}.x", all[1].id()), true).await;
    }
    for (subject, body, want) in [
        ("$SYS.REQ.ACCOUNT.PING.CONNZ", "", [0, 1, 1]),
        ("$SYS.REQ.SERVER.PING.CONNZ", r#"{"acc":"$SYS","auth":true}"#, [0, 1, 1]),
    ] {
        a.publish(subject, "mine", body).await;
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..3 {
            let v: Value = serde_json::from_str(&a.body().await).unwrap();
            seen.insert(v["server"]["name"].to_string(), v["data"]["num_connections"].as_u64().unwrap());
        }
        assert_eq!(seen.into_values().collect::<Vec<_>>(), want, "{subject}");
    }
    // Servers where it has nobody say nothing.
    a.publish("$SYS.REQ.ACCOUNT.PING.STATZ", "mine", r#"{"accounts":["$SYS"]}"#).await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let v: Value = serde_json::from_str(&a.body().await).unwrap();
        assert_eq!(v["data"]["account_statz"][0]["acc"], "A");
        names.push(v["server"]["name"].as_str().unwrap().to_string());
    }
    names.sort();
    assert_eq!(names, ["s1", "s2"]);
    a.settle().await;
    assert_eq!(a.msgs.len(), 0, "{:?}", a.msgs);
}

#[test]
fn routes_over_tls() {
    run(async {
        let dir = std::env::temp_dir().join(format!("fulmar-route-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let (cert, private) = (dir.join("c.pem"), dir.join("k.pem"));
        std::fs::write(&cert, key.cert.pem()).unwrap();
        std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
        let tls =
            format!("tls {{ cert_file: {cert:?}, key_file: {private:?}, ca_file: {cert:?}, verify: true }}");
        let extra = format!("name: C, {tls}");
        let all = mesh(3, "", &extra, 4).await;
        let plain = start("plain", &cluster("name: C", &[cluster_port(&all[0])])).await;
        let (mut a, mut c) = (Peer::new(&all[0], "").await, Peer::new(&all[2], "").await);
        c.sub("x", "").await;
        interest(&all[0], "$G", "x", true).await;
        let body = "y".repeat(200_000);
        a.publish("x", "", &body).await;
        assert_eq!(c.body().await, body);
        let routes = all[0].cluster.mesh.as_ref().unwrap().routes();
        assert!(routes.iter().all(|r| r.tls.is_some()));
        assert_eq!(counts(&plain), (0, 0));
        plain.stop();
        if let Some(bin) = nats_server() {
            let theirs = Real::start(&bin, "theirs", "", &extra, &[cluster_port(&all[0])]).await;
            for s in &all {
                meshed(s, 3, 4).await;
            }
            let mut r = Peer::at(theirs.client, "").await;
            r.sub("theirs", "").await;
            interest(&all[1], "$G", "theirs", true).await;
            interest(&all[0], "$G", "theirs", true).await;
            a.publish("theirs", "", "hi").await;
            assert_eq!(r.body().await, "hi");
        }
        for s in all {
            s.stop();
        }
        std::fs::remove_dir_all(&dir).ok();
    });
}

#[test]
fn routes_are_compressed() {
    run(async {
        for (mode, shown) in [("s2_better", "s2_better"), ("off", "off"), ("accept", "off")] {
            let all = mesh(2, "", &format!("name: C, compression: {mode}"), 4).await;
            let (mut a, mut c) = (Peer::new(&all[0], "").await, Peer::new(&all[1], "").await);
            c.sub("x", "").await;
            interest(&all[0], "$G", "x", true).await;
            for body in ["".to_owned(), "y".repeat(900_000), "abcdefghijklmnopqrstuvwxyz".repeat(7)] {
                a.publish("x", "", &body).await;
                assert!(c.body().await == body, "{mode}");
            }
            let routes = all.iter().flat_map(|s| s.cluster.mesh.as_ref().unwrap().routes());
            let modes: Vec<_> = routes.map(|r| r.compression()).collect();
            assert_eq!(modes, [shown; 8], "{mode}");
            for s in all {
                s.stop();
            }
        }
        // Who compresses by itself and who accepts it.
        let accepts = start("s0", &cluster("name: C", &[])).await;
        let best = start("s1", &cluster("name: C, compression: s2_best", &[cluster_port(&accepts)])).await;
        meshed(&accepts, 1, 4).await;
        for s in [&accepts, &best] {
            let routes = s.cluster.mesh.as_ref().unwrap().routes();
            assert!(routes.iter().all(|r| r.compression() == "s2_best"));
        }
        accepts.stop();
        best.stop();
    });
}

#[test]
fn members_are_let_in_by_certificate() {
    run(async {
        let dir = std::env::temp_dir().join(format!("fulmar-route-map-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let names = vec!["127.0.0.1".into(), "localhost".into(), "member.example".into()];
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        let (cert, private) = (dir.join("c.pem"), dir.join("k.pem"));
        std::fs::write(&cert, key.cert.pem()).unwrap();
        std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
        let tls = |how: &str| {
            format!("tls {{ cert_file: {cert:?}, key_file: {private:?}, ca_file: {cert:?}, {how}: true }}")
        };
        let words = |user: &str, how: &str| {
            format!("name: C, authorization {{ user: {user:?}, password: not-asked }}, {}", tls(how))
        };
        let by_name = start("s0", &cluster(&words("member.example", "verify_and_map"), &[])).await;
        let other = start("s1", &cluster(&words("other.example", "verify_and_map"), &[])).await;
        let plain = format!("name: C, {}", tls("verify"));
        let member = start("s2", &cluster(&plain, &[cluster_port(&by_name)])).await;
        meshed(&by_name, 1, 4).await;
        meshed(&member, 1, 4).await;
        // The certificate names nobody that the second knows; who is let in after it shows that it was refused.
        let refused = start("s3", &cluster(&plain, &[cluster_port(&other), cluster_port(&by_name)])).await;
        meshed(&by_name, 2, 4).await;
        assert_eq!(counts(&other), (0, 0));
        // A host of the configured routes is a name of the certificate.
        let known = tls("verify_cert_and_check_known_urls");
        let knows = |host: &str| {
            format!(
                "cluster {{ listen: \"127.0.0.1:-1\", name: D, routes: [\"nats-route://{host}:1\"], {known} }}"
            )
        };
        let (yes, no) =
            (start("s4", &knows("localhost")).await, start("s5", &knows("nowhere.example")).await);
        let to_yes = format!("name: D, {}", tls("verify"));
        let comes = start("s6", &cluster(&to_yes, &[cluster_port(&no), cluster_port(&yes)])).await;
        meshed(&yes, 1, 4).await;
        assert_eq!(counts(&no), (0, 0));
        for s in [by_name, other, member, refused, yes, no, comes] {
            s.stop();
        }
        std::fs::remove_dir_all(&dir).ok();
    });
}
