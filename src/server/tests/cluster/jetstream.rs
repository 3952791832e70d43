//! JetStream over several servers, with a real client.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use server::Server;

use super::support::*;

/// A directory that goes with the test.
pub struct Dir(pub PathBuf);

impl Dir {
    #[allow(clippy::disallowed_methods, reason = "a test's own directory")]
    pub fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("fulmar-server-cluster-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        Dir(dir)
    }
}
impl Drop for Dir {
    #[allow(clippy::disallowed_methods, reason = "a test's own directory")]
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub async fn member(i: usize, dir: &Dir, others: &[&Arc<Server>]) -> Arc<Server> {
    let ports: Vec<_> = others.iter().map(|s| cluster_port(s)).collect();
    let js = format!("jetstream {{ store_dir: {:?} }}\n", dir.0.join(i.to_string()));
    start(&format!("s{i}"), &format!("{js}{}", cluster("name: C", &ports))).await
}

/// Waits until all know one leader of the meta group.
pub async fn formed(all: &[Arc<Server>]) {
    let of = |s: &Arc<Server>| s.jetstream.read().as_ref().and_then(|js| js.meta_leader());
    let all = all.to_vec();
    eventually("all know who leads the meta group", move || {
        let first = of(&all[0]);
        first.is_some() && all.iter().all(|s| of(s) == first)
    })
    .await;
}

pub async fn context(s: &Arc<Server>) -> jetstream::Context {
    let client = async_nats::connect(client_port(s).to_string()).await.expect("it connects");
    jetstream::new(client)
}

/// Publishes until it is acknowledged; the sequence.
async fn publish(js: &jetstream::Context, id: u64) -> u64 {
    let deadline = env::now() + PATIENCE;
    loop {
        assert!(env::now() < deadline, "message {id} is never acknowledged");
        let m = jetstream::message::PublishMessage::build()
            .payload(id.to_string().into())
            .message_id(format!("m{id}"));
        // What is refused while leadership moves is tried again; its id keeps it from being stored twice.
        let Ok(ack) = js.send_publish("S.x", m).await else { continue };
        match env::timeout(Duration::from_secs(5), ack.into_future()).await {
            Ok(Ok(ack)) => return ack.sequence,
            _ => env::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The desk of each server is a member of one queue group: that another server has one too says nothing of who is there behind it.
#[test]
fn who_asks_for_a_stream_that_nobody_has_is_told_at_once() {
    run(async {
        let dir = Dir::new("nobody");
        let s0 = member(0, &dir, &[]).await;
        let s1 = member(1, &dir, &[&s0]).await;
        let s2 = member(2, &dir, &[&s0, &s1]).await;
        let all = vec![s0, s1, s2];
        formed(&all).await;
        let js = context(&all[0]).await;
        let config = stream::Config { name: "S".into(), num_replicas: 3, ..Default::default() };
        js.create_stream(config).await.expect("it is made");
        for s in &all {
            let client = async_nats::connect(client_port(s).to_string()).await.expect("it connects");
            for what in ["DIRECT.GET.NOPE", "DIRECT.GET.NOPE.a", "CONSUMER.MSG.NEXT.NOPE.c", "DIRECT.GET.S"] {
                let body = if what.starts_with("DIRECT") { r#"{"seq":1}"# } else { r#"{"batch":1}"# };
                let asked = client.request(format!("$JS.API.{what}"), body.into());
                let none = env::timeout(Duration::from_secs(5), asked).await;
                let none = none.unwrap_or_else(|_| panic!("{what}: silence")).expect_err("nobody is there");
                assert_eq!(none.kind(), async_nats::client::RequestErrorKind::NoResponders, "{what}");
            }
        }
        for s in all {
            s.stop();
        }
    });
}

#[test]
fn a_leader_goes_and_comes_back_and_nothing_is_lost_or_doubled() {
    run(async {
        let dir = Dir::new("comes-back");
        let s0 = member(0, &dir, &[]).await;
        let s1 = member(1, &dir, &[&s0]).await;
        let s2 = member(2, &dir, &[&s0, &s1]).await;
        let mut all = vec![s0, s1, s2];
        formed(&all).await;
        let js = context(&all[0]).await;
        let config = stream::Config {
            name: "S".into(),
            subjects: vec!["S.>".into()],
            num_replicas: 3,
            ..Default::default()
        };
        let mut s = js.create_stream(config).await.expect("it is made");
        let info = s.info().await.expect("it answers").clone();
        let cluster = info.cluster.expect("it is in a cluster");
        assert_eq!((cluster.name.as_deref(), cluster.replicas.len()), (Some("C"), 2));
        let leads = cluster.leader.expect("somebody leads");
        let leader = all.iter().position(|s| *s.name == *leads).expect("it is one of them");
        // The client is at a server that stays.
        let at = (leader + 1) % 3;
        let js = context(&all[at]).await;
        for id in 1..=30 {
            assert_eq!(publish(&js, id).await, id);
        }
        let s = js.get_stream("S").await.expect("it is there");
        let pull = consumer::pull::Config { durable_name: Some("c".into()), ..Default::default() };
        let c = s.create_consumer(pull).await.expect("it is made");
        let mut got = Vec::new();
        let mut batch = c.fetch().max_messages(30).messages().await.expect("it pulls");
        while let Some(Ok(m)) = batch.next().await {
            got.push(String::from_utf8_lossy(&m.payload).into_owned());
            m.double_ack().await.expect("it is acknowledged");
        }
        assert_eq!(got.len(), 30);

        all[leader].stop();
        let ended = all[leader].clone();
        eventually("the leader's engine has ended", move || ended.jetstream.read().is_none()).await;
        for id in 31..=60 {
            assert_eq!(publish(&js, id).await, id, "nothing is lost, nothing is stored twice");
        }
        let deadline = env::now() + PATIENCE;
        while got.len() < 60 {
            assert!(env::now() < deadline, "only {} came", got.len());
            let Ok(mut batch) = c.fetch().max_messages(60 - got.len()).messages().await else { continue };
            while let Some(Ok(m)) = batch.next().await {
                got.push(String::from_utf8_lossy(&m.payload).into_owned());
                m.double_ack().await.expect("it is acknowledged");
            }
        }
        let want: Vec<String> = (1..=60).map(|i| i.to_string()).collect();
        assert_eq!(got, want);

        let others: Vec<_> = (0..3).filter(|i| *i != leader).map(|i| all[i].clone()).collect();
        all[leader] = member(leader, &dir, &others.iter().collect::<Vec<_>>()).await;
        let deadline = env::now() + PATIENCE;
        loop {
            let mut s = js.get_stream("S").await.expect("it is there");
            let info = s.info().await.expect("it answers").clone();
            let replicas = info.cluster.map(|c| c.replicas).unwrap_or_default();
            if replicas.len() == 2 && replicas.iter().all(|r| r.current && !r.offline) {
                assert_eq!(info.state.messages, 60);
                break;
            }
            assert!(env::now() < deadline, "the one that came back does not catch up: {replicas:?}");
            env::sleep(Duration::from_millis(50)).await;
        }
        // It answers for what others lead.
        let back = context(&all[leader]).await;
        assert_eq!(publish(&back, 61).await, 61);
        for s in &all {
            s.stop();
        }
    });
}

/// A stream in memory with one replica stays, empty, when its server starts again, and goes on behind the numbers that it has given; so do its consumers (K-14).
#[test]
fn j2_a_stream_in_memory_goes_on_behind_its_numbers() {
    run(async {
        let dir = Dir::new("in-memory");
        let s0 = member(0, &dir, &[]).await;
        let s1 = member(1, &dir, &[&s0]).await;
        let s2 = member(2, &dir, &[&s0, &s1]).await;
        let mut all = vec![s0, s1, s2];
        formed(&all).await;
        let config = stream::Config {
            name: "S".into(),
            subjects: vec!["S.>".into()],
            storage: stream::StorageType::Memory,
            ..Default::default()
        };
        let mut js = context(&all[0]).await;
        js.create_stream(config).await.expect("it is made");
        let mut last = 0;
        for life in 0..3 {
            let mut s = js.get_stream("S").await.expect("it is there");
            let info = s.info().await.expect("it answers").clone();
            assert_eq!((info.state.messages, info.state.last_sequence), (0, last), "life {life}");
            let leads = info.cluster.and_then(|c| c.leader).expect("somebody leads");
            let leader = all.iter().position(|s| *s.name == *leads).expect("it is one of them");
            js = context(&all[(leader + 1) % 3]).await;
            let s = js.get_stream("S").await.expect("it is there");
            let durable =
                |name: &str| consumer::pull::Config { durable_name: Some(name.into()), ..Default::default() };
            if life == 0 {
                for name in ["c", "gone"] {
                    s.create_consumer(durable(name)).await.expect("it is made");
                }
                s.delete_consumer("gone").await.expect("it is deleted");
            }
            // Its consumers were in its memory, too, and are made anew with it, also for who has only their names.
            let c = s.get_consumer::<consumer::pull::Config>("c").await.expect("K-14: it is there");
            let gone = s.get_consumer::<consumer::pull::Config>("gone").await;
            assert!(gone.is_err(), "K-14: it was deleted");
            for _ in 0..3 {
                last += 1;
                assert_eq!(publish(&js, last).await, last, "J-2: life {life}");
            }
            let mut batch = c.fetch().max_messages(3).messages().await.expect("it pulls");
            for i in last - 2..=last {
                let m = batch.next().await.expect("it comes").expect("it comes");
                assert_eq!(m.payload, i.to_string());
                m.double_ack().await.expect("it is acknowledged");
            }
            all[leader].stop();
            let ended = all[leader].clone();
            eventually("its engine has ended", move || ended.jetstream.read().is_none()).await;
            let others: Vec<_> = (0..3).filter(|i| *i != leader).map(|i| all[i].clone()).collect();
            all[leader] = member(leader, &dir, &others.iter().collect::<Vec<_>>()).await;
            let deadline = env::now() + PATIENCE;
            // Asked until its server leads it again.
            while js.get_stream("S").await.is_err() {
                assert!(env::now() < deadline, "it does not come back");
                env::sleep(Duration::from_millis(50)).await;
            }
        }
        for s in &all {
            s.stop();
        }
    });
}

/// Who may pull says where it goes: to those who have subscribed, at whichever server, and to no desk at any.
#[test]
fn b11_j28_a_pull_moves_nobody_but_those_who_listen() {
    run(async {
        let dir = Dir::new("rights");
        let mut all: Vec<Arc<Server>> = Vec::new();
        for i in 0..3 {
            let others: Vec<_> = all.iter().collect();
            all.push(member(i, &dir, &others).await);
        }
        formed(&all).await;
        let js = context(&all[0]).await;
        let make = async |name: &str, replicas: usize| {
            let subjects = vec![format!("{}.>", name.to_lowercase())];
            let config = stream::Config {
                name: name.into(),
                subjects,
                num_replicas: replicas,
                allow_direct: true,
                ..Default::default()
            };
            js.create_stream(config).await.expect("it is made")
        };
        let s = make("S", 3).await;
        make("X", 1).await;
        make("W", 1).await;
        let durable = consumer::pull::Config { durable_name: Some("c".into()), ..Default::default() };
        s.create_consumer(durable).await.expect("it is made");
        for _ in 0..3 {
            js.publish("s.1", "".into()).await.expect("it goes").await.expect("it is stored");
        }
        let messages = async |name: &str| {
            let mut s = js.get_stream(name).await.expect("it is there");
            s.info().await.expect("it answers").state.messages
        };
        // From each server, so that the consumer's leader is elsewhere for some.
        let listener = async_nats::connect(client_port(&all[2]).to_string()).await.expect("it connects");
        let pull = "$JS.API.CONSUMER.MSG.NEXT.S.c";
        for server in &all {
            let client = async_nats::connect(client_port(server).to_string()).await.expect("it connects");
            for (to, reply) in [
                (pull, "$JS.API.STREAM.DELETE.X"),
                ("$JS.API.DIRECT.GET.S.s.1", "$JS.API.STREAM.DELETE.X"),
                (pull, "w.1"),
            ] {
                client.publish_with_reply(to, reply, "".into()).await.expect("it goes");
            }
            client.flush().await.expect("it is sent");
        }
        // Requests of before are over when this one is: what waits for interest waits half a second.
        env::sleep(Duration::from_millis(700)).await;
        assert_eq!((messages("X").await, messages("W").await), (0, 0));
        let mut c: consumer::PullConsumer = s.get_consumer("c").await.expect("it is there");
        let info = c.info().await.expect("it answers");
        assert_eq!((info.delivered.consumer_sequence, info.num_waiting), (0, 0));
        let mut inbox = listener.subscribe("elsewhere").await.expect("it subscribes");
        listener.flush().await.expect("it is sent");
        // Its own server knows of it; a consumer that is led elsewhere drops the pull of whom its server has not heard of.
        for s in &all {
            interest(s, "$G", "elsewhere", true).await;
        }
        let client = async_nats::connect(client_port(&all[0]).to_string()).await.expect("it connects");
        client.publish_with_reply(pull, "elsewhere", r#"{"batch":3}"#.into()).await.expect("it goes");
        for _ in 0..3 {
            assert!(env::timeout(PATIENCE, inbox.next()).await.expect("it comes in time").is_some());
        }
        for s in &all {
            s.stop();
        }
    });
}
