//! Leadership that moves while clients work: what they see of it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
    time::Duration,
};

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use server::Server;

use super::{jetstream::*, support::*};

async fn three(dir: &Dir) -> Vec<Arc<Server>> {
    let s0 = member(0, dir, &[]).await;
    let s1 = member(1, dir, &[&s0]).await;
    let s2 = member(2, dir, &[&s0, &s1]).await;
    let all = vec![s0, s1, s2];
    formed(&all).await;
    all
}

async fn make(js: &jetstream::Context, retention: stream::RetentionPolicy) -> stream::Stream {
    let config = stream::Config {
        name: "S".into(),
        subjects: vec!["S.>".into()],
        num_replicas: 3,
        retention,
        ..Default::default()
    };
    js.create_stream(config).await.expect("it is made")
}

/// Who leads the stream, once somebody does.
async fn leader(js: &jetstream::Context) -> String {
    let deadline = env::now() + PATIENCE;
    loop {
        assert!(env::now() < deadline, "nobody leads");
        if let Ok(s) = js.get_stream("S").await
            && let Some(name) = s.cached_info().cluster.as_ref().and_then(|c| c.leader.clone())
        {
            return name;
        }
    }
}

/// Tells the leader to step down; who leads then.
async fn step_down(js: &jetstream::Context) -> String {
    let before = leader(js).await;
    let said: serde_json::Value =
        js.request("STREAM.LEADER.STEPDOWN.S", &()).await.expect("somebody answers");
    assert_eq!(said["success"], true, "{said}");
    let deadline = env::now() + PATIENCE;
    loop {
        assert!(env::now() < deadline, "{before} leads on");
        let now = leader(js).await;
        if now != before {
            return now;
        }
    }
}

/// What a publisher saw.
#[derive(Default)]
struct Seen {
    acked: u64,
    failed: Vec<String>,
    /// When a publish left and how long its acknowledgement took.
    took: Vec<(env::Instant, Duration)>,
}

/// Publishes one message after another, without ids, so that what is stored twice shows.
async fn publisher(js: jetstream::Context, stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    while !stop.load(Acquire) {
        let begun = env::now();
        let done = match js.publish("S.x", "x".into()).await {
            Ok(ack) => ack.await.map(|_| ()).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let mut seen = seen.lock().unwrap();
        match done {
            Ok(()) => {
                seen.acked += 1;
                seen.took.push((begun, begun.elapsed()));
            }
            Err(e) => seen.failed.push(e),
        }
    }
}

#[test]
fn k7_publishes_wait_while_leadership_moves() {
    run(async {
        let dir = Dir::new("waits");
        let all = three(&dir).await;
        let js = context(&all[0]).await;
        make(&js, stream::RetentionPolicy::Limits).await;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let mut tasks = Vec::new();
        for s in &all {
            tasks.push(env::spawn(publisher(context(s).await, stop.clone(), seen.clone())));
        }
        let mut longest = Vec::new();
        for _ in 0..20 {
            let begun = env::now();
            step_down(&js).await;
            // Until the next step-down some are acknowledged by the new leader.
            let before = seen.lock().unwrap().acked;
            eventually("publishing goes on", || seen.lock().unwrap().acked > before + 30).await;
            let seen = seen.lock().unwrap();
            let worst =
                seen.took.iter().filter(|(at, took)| *at + *took > begun).map(|(_, took)| *took).max();
            longest.push(worst.expect("some were acknowledged"));
        }
        stop.store(true, Release);
        for t in tasks {
            t.await.expect("the publisher ends");
        }
        longest.sort();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        println!("{} acknowledged; the slowest around each step-down: {longest:?}", seen.acked);
        assert_eq!(seen.failed, Vec::<String>::new(), "none is refused or lost on the way");
        let mut s = js.get_stream("S").await.expect("it is there");
        let stored = s.info().await.expect("it answers").state.messages;
        assert_eq!(stored, seen.acked, "K-7: each is stored once");
        assert!(longest[10] < Duration::from_millis(700), "half of them take longer: {longest:?}");
        for s in &all {
            s.stop();
        }
    });
}

/// Who is told to leave a server finds others leading, and nothing was refused on the way there.
#[test]
fn k7_a_lame_duck_leads_nothing_when_it_tells_its_clients() {
    run(async {
        let dir = Dir::new("duck");
        let mut all: Vec<Arc<Server>> = Vec::new();
        for i in 0..3 {
            let ports: Vec<_> = all.iter().map(|s| cluster_port(s)).collect();
            let config = format!(
                "jetstream {{ store_dir: {:?} }}\nlame_duck_grace_period: 100s\n{}",
                dir.0.join(i.to_string()),
                cluster("name: C", &ports)
            );
            all.push(start(&format!("s{i}"), &config).await);
        }
        formed(&all).await;
        let js = context(&all[0]).await;
        make(&js, stream::RetentionPolicy::Limits).await;
        let leads = leader(&js).await;
        let duck = all.iter().find(|s| *s.name == *leads).expect("it is one of them").clone();
        let other = all.iter().find(|s| *s.name != *leads).expect("there are others");
        let js = context(other).await;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let mut tasks = Vec::new();
        for s in &all {
            tasks.push(env::spawn(publisher(context(s).await, stop.clone(), seen.clone())));
        }
        eventually("it is published", || seen.lock().unwrap().acked > 30).await;
        let mut told = Peer::new(&duck, "").await;
        let goes = duck.clone();
        env::spawn(async move { goes.lame_duck().await });
        told.info_with("its clients are told", |i| i["ldm"] == true).await;
        assert_ne!(leader(&js).await, leads, "another leads before that");
        let meta = || other.jetstream.read().as_ref().and_then(|js| js.meta_leader());
        assert_ne!(meta().as_ref(), Some(&leads), "also the meta group");
        for i in 0..6 {
            let (name, num_replicas) = (format!("N{i}"), if i % 2 == 0 { 3 } else { 1 });
            let config = stream::Config { name, num_replicas, ..Default::default() };
            let s = js.create_stream(config).await.expect("it is made");
            let by = s.cached_info().cluster.as_ref().and_then(|c| c.leader.clone());
            assert_ne!(by.as_ref(), Some(&leads), "nothing new is led there");
        }
        let before = seen.lock().unwrap().acked;
        eventually("publishing goes on", || seen.lock().unwrap().acked > before + 30).await;
        stop.store(true, Release);
        for t in tasks {
            t.await.expect("the publisher ends");
        }
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!(seen.failed, Vec::<String>::new(), "none is refused or lost on the way");
        let mut s = js.get_stream("S").await.expect("it is there");
        assert_eq!(
            s.info().await.expect("it answers").state.messages,
            seen.acked,
            "K-7: each is stored once"
        );
        for s in &all {
            s.stop();
        }
    });
}

/// Publishes without waiting for each acknowledgement; the sequences in the order of sending.
async fn streamer(js: jetstream::Context, stop: Arc<AtomicBool>, acked: Arc<AtomicU64>) -> Vec<u64> {
    const WINDOW: usize = 32;
    let (mut waiting, mut seqs) = (VecDeque::new(), Vec::new());
    loop {
        let over = stop.load(Acquire);
        if !over {
            waiting.push_back(js.publish("S.x", "x".into()).await.expect("it is sent"));
        }
        if waiting.len() >= WINDOW || over {
            let Some(ack) = waiting.pop_front() else { return seqs };
            seqs.push(ack.await.expect("none is refused or lost on the way").sequence);
            acked.fetch_add(1, AcqRel);
        }
    }
}

#[test]
fn k11_each_connection_keeps_its_order_while_leadership_moves() {
    run(async {
        let dir = Dir::new("order");
        let all = three(&dir).await;
        let js = context(&all[0]).await;
        make(&js, stream::RetentionPolicy::Limits).await;
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for s in &all {
            tasks.push(env::spawn(streamer(context(s).await, stop.clone(), acked.clone())));
        }
        for _ in 0..15 {
            step_down(&js).await;
            let before = acked.load(Acquire);
            eventually("publishing goes on", || acked.load(Acquire) > before + 200).await;
        }
        stop.store(true, Release);
        let mut stored = 0;
        for (i, t) in tasks.into_iter().enumerate() {
            let seqs = t.await.expect("the publisher ends");
            stored += seqs.len() as u64;
            let swapped = seqs.windows(2).position(|w| w[0] >= w[1]);
            let around = swapped.map(|at| &seqs[at.saturating_sub(5)..(at + 70).min(seqs.len())]);
            assert_eq!(around, None, "K-11: of connection {i}, {} messages", seqs.len());
        }
        let mut s = js.get_stream("S").await.expect("it is there");
        assert_eq!(s.info().await.expect("it answers").state.messages, stored, "K-7: each is stored once");
        for s in &all {
            s.stop();
        }
    });
}

#[test]
fn a_work_queue_is_emptied_while_leadership_moves() {
    run(async {
        let dir = Dir::new("queue");
        let all = three(&dir).await;
        let js = context(&all[0]).await;
        let s = make(&js, stream::RetentionPolicy::WorkQueue).await;
        let config = consumer::pull::Config {
            durable_name: Some("w".into()),
            ack_wait: Duration::from_secs(60),
            ..Default::default()
        };
        s.create_consumer(config).await.expect("it is made");
        const ALL: usize = 400;
        let got: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut tasks = Vec::new();
        for s in &all {
            let (js, got) = (context(s).await, got.clone());
            tasks.push(env::spawn(async move {
                let c: consumer::PullConsumer =
                    js.get_consumer_from_stream("w", "S").await.expect("it is there");
                while got.lock().unwrap().len() < ALL {
                    // Longer than the test: who is forgotten shows.
                    let pull = c.batch().max_messages(5).expires(Duration::from_secs(3600));
                    let Ok(mut batch) = pull.messages().await else { continue };
                    while let Some(Ok(m)) = batch.next().await {
                        m.double_ack().await.expect("it is acknowledged");
                        got.lock().unwrap().push(String::from_utf8_lossy(&m.payload).into_owned());
                    }
                }
            }));
        }
        for round in 0..4 {
            for i in 0..ALL / 4 {
                let body = (round * (ALL / 4) + i).to_string();
                js.publish("S.x", body.into()).await.expect("it goes").await.expect("it is stored");
                if i == ALL / 8 {
                    step_down(&js).await;
                }
            }
        }
        eventually("all is worked on", || got.lock().unwrap().len() >= ALL).await;
        let mut got = got.lock().unwrap().clone();
        got.sort_by_key(|s| s.parse::<usize>().unwrap());
        assert_eq!(got, (0..ALL).map(|i| i.to_string()).collect::<Vec<_>>(), "each once");
        tasks.iter().for_each(|t| t.abort());
        for s in &all {
            s.stop();
        }
    });
}

#[test]
fn an_ordered_consumer_goes_on_under_another_leader() {
    run(async {
        let dir = Dir::new("ordered");
        let all = three(&dir).await;
        let js = context(&all[0]).await;
        let s = make(&js, stream::RetentionPolicy::Limits).await;
        let pull = s.create_consumer(consumer::pull::OrderedConfig::default()).await.expect("it is made");
        let mut pulled = pull.messages().await.expect("it begins");
        let push = consumer::push::OrderedConfig {
            deliver_subject: all[0].name.clone() + ".to",
            ..Default::default()
        };
        let push = s.create_consumer(push).await.expect("it is made");
        let mut pushed = push.messages().await.expect("it begins");
        for round in 0..4u64 {
            for i in 1..=5 {
                let ack = js.publish("S.x", "x".into()).await.expect("it goes").await.expect("it is stored");
                assert_eq!(ack.sequence, round * 5 + i);
                let begun = env::now();
                let m = env::timeout(PATIENCE, pulled.next()).await.expect("it comes").expect("it lives");
                let m = m.expect("it is a message");
                assert_eq!(m.info().expect("it has one").stream_sequence, ack.sequence);
                let m = env::timeout(PATIENCE, pushed.next()).await.expect("it comes").expect("it lives");
                let m = m.expect("it is a message");
                assert_eq!(m.info().expect("it has one").stream_sequence, ack.sequence);
                // A client that has to notice by silence takes ten seconds.
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            }
            step_down(&js).await;
        }
        for s in &all {
            s.stop();
        }
    });
}

/// The doors of a stream on all servers are a queue group: not one with those of another account's stream.
#[test]
fn what_an_account_imports_goes_to_the_streams_of_both() {
    run(async {
        let dir = Dir::new("imports");
        let accounts = "accounts {
            A { jetstream: enabled, users: [{user: a, password: pw}], exports: [{stream: \"S.>\"}] }
            B { jetstream: enabled, users: [{user: b, password: pw}], imports: [{stream: {account: A, subject: \"S.>\"}}] }
        }
        no_auth_user: a
        ";
        let mut all: Vec<Arc<Server>> = Vec::new();
        for i in 0..3 {
            let ports: Vec<_> = all.iter().map(|s| cluster_port(s)).collect();
            let js = format!("jetstream {{ store_dir: {:?} }}\n{accounts}", dir.0.join(i.to_string()));
            all.push(start(&format!("s{i}"), &format!("{js}{}", cluster("name: C", &ports))).await);
        }
        formed(&all).await;
        let js = context(&all[0]).await;
        make(&js, stream::RetentionPolicy::Limits).await;
        let options = async_nats::ConnectOptions::with_user_and_password("b".into(), "pw".into());
        let client = options.connect(client_port(&all[1]).to_string()).await.expect("it connects");
        let importer = jetstream::new(client);
        make(&importer, stream::RetentionPolicy::Limits).await;
        // Once the first has come through, each does.
        let deadline = env::now() + PATIENCE;
        let stored = async |js: &jetstream::Context| {
            let mut s = js.get_stream("S").await.expect("it is there");
            s.info().await.expect("it answers").state.messages
        };
        while stored(&importer).await == 0 {
            assert!(env::now() < deadline, "nothing is imported");
            // Interest that is still on its way may cost one its answer.
            js.publish("S.x", "x".into()).await.expect("it goes").await.ok();
        }
        let (own, before) = (stored(&js).await, stored(&importer).await);
        for _ in 0..50 {
            js.publish("S.x", "x".into()).await.expect("it goes").await.expect("it is stored");
        }
        assert_eq!(stored(&js).await, own + 50);
        while stored(&importer).await < before + 50 {
            assert!(env::now() < deadline, "{} of 50", stored(&importer).await - before);
        }
        for s in &all {
            s.stop();
        }
    });
}
