//! Messages between our own servers.

use super::support::*;

/// Routes to each member with the default pool: three, and one of the system account.
const POOL: usize = 4;

#[test]
fn messages_queues_and_requests_cross() {
    run(async {
        let all = mesh(3, "", "name: C", POOL).await;
        let (mut a, mut b, mut c) =
            (Peer::new(&all[0], "").await, Peer::new(&all[1], "").await, Peer::new(&all[2], "").await);
        b.sub("foo.*", "").await;
        c.sub("foo.>", "").await;
        c.sub("foo.1", "").await;
        interest(&all[0], "$G", "foo.1", true).await;
        for s in [&all[1], &all[2]] {
            interest(s, "$G", "foo.1", true).await;
        }
        // Wait until the first server knows of both others.
        let first = all[0].clone();
        eventually("both are known", move || {
            let a = first.broker.account("$G").unwrap();
            a.matching(b"foo.1").len() == 3
        })
        .await;
        a.publish("foo.1", "", "hi").await;
        assert_eq!((b.body().await, c.body().await, c.body().await), ("hi".into(), "hi".into(), "hi".into()));
        a.publish_with_header("foo.1", "K", "v", "hh").await;
        let m = b.next().await;
        assert_eq!((&*m.header, &*m.body), ("NATS/1.0\r\nK: v\r\n\r\n", "hh"));
        c.next().await;
        c.next().await;
        // B-8: nothing came twice, by way of a third server.
        for p in [&mut a, &mut b, &mut c] {
            p.settle().await;
            assert_eq!(p.msgs.len(), 0, "{:?}", p.msgs);
        }
        traces_cross(&mut a, &mut b).await;
        // A request over a route, its answer back, and no answer where nobody listens.
        b.sub("svc", "").await;
        interest(&all[0], "$G", "svc", true).await;
        let asking = async {
            let m = a.ask("svc", "?").await;
            (m.body, a.ask("nobody", "?").await.header)
        };
        let serving = async {
            let q = b.next().await;
            assert_eq!(q.body, "?");
            b.publish(&q.reply, "", "!").await;
        };
        let ((answer, none), ()) = tokio::join!(asking, serving);
        assert_eq!(answer, "!");
        assert!(none.starts_with("NATS/1.0 503"), "{none}");
        for s in all {
            s.stop();
        }
    });
}

#[test]
fn b2_one_member_of_a_queue_group_gets_a_message_wherever_it_is() {
    run(async {
        let all = mesh(3, "", "name: C", POOL).await;
        let mut p = Vec::new();
        for (i, s) in all.iter().enumerate() {
            let mut peer = Peer::new(s, "").await;
            for _ in 0..=i {
                peer.sub("work", "g").await;
            }
            p.push(peer);
        }
        weight(&all[0], "$G", "work", 5).await;
        weight(&all[1], "$G", "work", 4).await;
        weight(&all[2], "$G", "work", 3).await;
        let n = 1200;
        for from in 0..3 {
            for i in 0..n {
                p[from].send(format!("PUB work 4\r\n{i:04}\r\n").as_bytes()).await;
            }
            let mut got = [0; 3];
            let mut seen = std::collections::BTreeSet::new();
            while got.iter().sum::<usize>() < n {
                for (i, peer) in p.iter_mut().enumerate() {
                    peer.settle().await;
                    got[i] += peer.msgs.len();
                    for m in peer.msgs.drain(..) {
                        assert!(seen.insert(m.body.clone()), "B-2: {} came twice", m.body);
                    }
                }
            }
            // One, two and three members of six.
            for (i, share) in got.iter().enumerate() {
                let want = n * (i + 1) / 6;
                assert!((want * 7 / 10..want * 13 / 10).contains(share), "from {from}: {got:?}");
            }
        }
        // Members leave: the rest get all.
        drop(p.pop());
        drop(p.pop());
        weight(&all[0], "$G", "work", 0).await;
        for _ in 0..10 {
            p[0].publish("work", "", "x").await;
        }
        assert_eq!(p[0].msgs.len(), 10);
        for s in all {
            s.stop();
        }
    });
}

#[test]
fn b9_interest_comes_and_goes() {
    run(async {
        let all = mesh(2, "", "name: C", POOL).await;
        let mut a = Peer::new(&all[0], "").await;
        let first = a.sub("x.y", "").await;
        let second = a.sub("x.y", "").await;
        let queued = a.sub("x.y", "q").await;
        interest(&all[1], "$G", "x.y", true).await;
        a.unsub(first).await;
        a.unsub(queued).await;
        // The group is gone and the subject stays.
        let other = all[1].clone();
        eventually("the group is gone", move || {
            let subs = other.broker.account("$G").unwrap().matching(b"x.y");
            subs.len() == 1 && subs[0].queue().is_empty()
        })
        .await;
        a.unsub(second).await;
        interest(&all[1], "$G", "x.y", false).await;
        // A client that goes takes its interest along, and so does a subscription that has had its maximum.
        let mut b = Peer::new(&all[0], "").await;
        b.sub("gone", "").await;
        let sid = b.sub("once", "").await;
        b.send(format!("UNSUB {sid} 1\r\n").as_bytes()).await;
        interest(&all[1], "$G", "once", true).await;
        b.publish("once", "", "").await;
        interest(&all[1], "$G", "once", false).await;
        interest(&all[1], "$G", "gone", true).await;
        drop(b);
        interest(&all[1], "$G", "gone", false).await;
        // A server that joins later is told of all there is.
        a.sub("late.>", "").await;
        a.sub("late.1", "g").await;
        a.sub("late.1", "g").await;
        let third = start("s2", &cluster("name: C", &[cluster_port(&all[1])])).await;
        meshed(&third, 2, POOL).await;
        weight(&third, "$G", "late.1", 3).await;
        // A server that ends takes its interest along.
        all[0].stop();
        interest(&third, "$G", "late.1", false).await;
        meshed(&third, 1, POOL).await;
        all[1].stop();
        third.stop();
    });
}

const ACCOUNTS: &str = r#"accounts {
  $SYS { users: [{user: sys, password: pw}] }
  A { users: [{user: a, password: pw}], exports: [{service: svc}, {stream: "st.>"}] }
  B { users: [{user: b, password: pw}], imports: [{service: {account: A, subject: svc}, to: my.svc}, {stream: {account: A, subject: "st.>"}, to: "in.>"}] }
}"#;

#[test]
fn b3_accounts_stay_apart_and_imports_cross() {
    for extra in ["name: C", "name: C, accounts: [A, B]", "name: C, pool_size: 1", "name: C, pool_size: -1"] {
        run(async {
            let routes = match extra {
                "name: C" => 4,
                "name: C, accounts: [A, B]" => 6,
                "name: C, pool_size: 1" => 2,
                _ => 1,
            };
            let all = mesh(2, ACCOUNTS, extra, routes).await;
            let (mut a0, mut b0) = (Peer::new(&all[0], "a").await, Peer::new(&all[0], "b").await);
            let (mut a1, mut b1) = (Peer::new(&all[1], "a").await, Peer::new(&all[1], "b").await);
            a0.sub("same", "").await;
            b0.sub("same", "").await;
            interest(&all[1], "A", "same", true).await;
            interest(&all[1], "B", "same", true).await;
            a1.publish("same", "", "of a").await;
            b1.publish("same", "", "of b").await;
            assert_eq!((a0.body().await, b0.body().await), ("of a".into(), "of b".into()), "{extra}");
            // A stream import: the message crosses the route in its own account, and the accounts at its end.
            b0.sub("in.x", "").await;
            interest(&all[1], "A", "st.x", true).await;
            a1.publish("st.x", "", "streamed").await;
            let m = b0.next().await;
            assert_eq!((&*m.subject, &*m.body), ("in.x", "streamed"), "{extra}");
            // A service import: the requestor's server crosses the accounts, and the answer finds its way back.
            a1.sub("svc", "").await;
            interest(&all[0], "A", "svc", true).await;
            let asking = b0.ask("my.svc", "?");
            let serving = async {
                let q = a1.next().await;
                assert!(q.header.contains("Nats-Request-Info"), "{q:?}");
                a1.publish(&q.reply, "", "!").await;
            };
            let (answer, ()) = tokio::join!(asking, serving);
            assert_eq!(answer.body, "!", "{extra}");
            for p in [&mut a0, &mut b0, &mut a1, &mut b1] {
                p.settle().await;
                assert_eq!(p.msgs.len(), 0, "{extra} {:?}", p.msgs);
            }
            for s in all {
                s.stop();
            }
        });
    }
}

#[test]
fn large_messages_keep_their_order() {
    run(async {
        let all = mesh(2, "", "name: C", POOL).await;
        let (a, mut b) = (Peer::new(&all[0], "").await, Peer::new(&all[1], "").await);
        b.sub("big", "").await;
        b.sub("big", "").await;
        interest(&all[0], "$G", "big", true).await;
        for i in 0..60usize {
            let body = format!("{i} ").repeat(i * 997 % 70_000 + 1);
            a.send(format!("PUB big {}\r\n{body}\r\n", body.len()).as_bytes()).await;
            if i % 10 == 9 {
                for j in i - 9..=i {
                    for _ in 0..2 {
                        let m = b.next().await;
                        assert_eq!(m.body.len(), format!("{j} ").len() * (j * 997 % 70_000 + 1));
                        assert!(m.body.starts_with(&format!("{j} ")));
                    }
                }
            }
        }
        for s in all {
            s.stop();
        }
    });
}
