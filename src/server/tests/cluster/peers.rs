//! Links between our servers, beside their routes: with passwords and TLS as the routes have them, and with a nats-server in the mesh.

use std::sync::Arc;

use bytes::Bytes;
use jetstream::cluster::{Kind, Wires};
use parking_lot::Mutex;
use replica::NodeId;
use server::{
    Server,
    peers::{self, Receiver},
};

use super::support::*;

/// Notes what comes.
#[derive(Default)]
struct Ear {
    up: Mutex<Vec<NodeId>>,
    got: Mutex<Vec<(NodeId, Kind, Bytes)>>,
}

impl Receiver for Ear {
    fn peer_up(&self, node: NodeId, _name: &str) {
        self.up.lock().push(node);
    }
    fn peer_down(&self, node: NodeId) {
        self.up.lock().retain(|n| *n != node);
    }
    fn received(&self, from: NodeId, kind: Kind, body: Bytes) {
        self.got.lock().push((from, kind, body));
    }
}

fn node(n: usize) -> NodeId {
    NodeId::new(n as u64 + 1, 0)
}

fn ears(all: &[Arc<Server>]) -> Vec<Arc<Ear>> {
    let with_ear = |(i, s): (usize, &Arc<Server>)| {
        let ear = Arc::new(Ear::default());
        peers::start(s, node(i), ear.clone());
        ear
    };
    all.iter().enumerate().map(with_ear).collect()
}

async fn linked(all: &[Arc<Ear>]) {
    for (i, e) in all.iter().enumerate() {
        let mut want: Vec<_> = (0..all.len()).filter(|n| *n != i).map(node).collect();
        want.sort();
        let e = e.clone();
        eventually(&format!("node {i} is linked with {want:?}"), move || {
            let mut up = e.up.lock().clone();
            up.sort();
            up == want
        })
        .await;
    }
}

/// Each sends to each on all lanes.
async fn all_talk(servers: &[Arc<Server>], ears: &[Arc<Ear>]) {
    let large = Bytes::from(vec![9; 300_000]);
    for (i, s) in servers.iter().enumerate() {
        for n in (0..servers.len()).filter(|n| *n != i).map(node) {
            assert!(s.cluster.peers.send(n, Kind::Raft, Bytes::from_static(b"\x01\x03vote")));
            assert!(s.cluster.peers.send(n, Kind::Call, Bytes::from_static(b"call")));
            assert!(s.cluster.peers.send(n, Kind::Forward, large.clone()));
        }
        assert!(!s.cluster.peers.send(node(77), Kind::Call, Bytes::new()));
    }
    for (i, e) in ears.iter().enumerate() {
        for n in (0..ears.len()).filter(|n| *n != i).map(node) {
            for (kind, len) in [(Kind::Raft, 6), (Kind::Call, 4), (Kind::Forward, 300_000)] {
                let e = e.clone();
                let came = move || e.got.lock().iter().any(|g| (g.0, g.1, g.2.len()) == (n, kind, len));
                eventually(&format!("{kind:?} of {n} comes to node {i}"), came).await;
            }
        }
    }
}

#[test]
fn three_servers_are_linked_and_say_so() {
    run(async {
        let config = "accounts { $SYS { users: [{user: sys, password: pw}] } }";
        let auth = "name: C, authorization { user: r, password: s }";
        let first = start("s0", &format!("{config}\n{}", cluster(auth, &[]))).await;
        let route = format!("r:s@{}", cluster_port(&first));
        let mut all = vec![first];
        for i in 1..3 {
            let routes =
                format!("cluster {{ listen: \"127.0.0.1:-1\", routes: [\"nats-route://{route}\"], {auth} }}");
            all.push(start(&format!("s{i}"), &format!("{config}\n{routes}")).await);
        }
        let ears = ears(&all);
        linked(&ears).await;
        all_talk(&all, &ears).await;
        let mut sys = Peer::new(&all[0], "sys").await;
        let mut seen = 0;
        for s in &all {
            let answer = sys.ask(&format!("$SYS.REQ.SERVER.{}.ROUTEZ", s.id()), "").await.body;
            let v: serde_json::Value = serde_json::from_str(&answer).unwrap();
            for link in v["data"]["fulmar_peers"].as_array().unwrap() {
                assert!(link["in_bytes"].as_u64().unwrap() > 300_000, "{link}");
                assert_eq!(link["pending"]["consensus"], 0, "{link}");
                assert_eq!(link["version"], 1);
                seen += 1;
            }
        }
        assert_eq!(seen, 6);
        // A server that ends is missed at once, and the others stay linked.
        all[2].stop();
        linked(&ears[..2]).await;
        all_talk(&all[..2], &ears[..2]).await;
        all.iter().for_each(|s| s.stop());
    });
}

#[test]
fn a_nats_server_between_does_not_mind() {
    let Some(bin) = nats_server() else { return };
    run(async {
        let theirs = Real::start(&bin, "theirs", "", "name: C", &[]).await;
        let mut all = Vec::new();
        for i in 0..2 {
            all.push(start(&format!("s{i}"), &cluster("name: C", &[theirs.cluster])).await);
        }
        // They know of each other by its gossip alone, which may leave out what it does not know: their own routes bring it.
        let ears = ears(&all);
        for s in &all {
            meshed(s, 2, 4).await;
        }
        linked(&ears).await;
        all_talk(&all, &ears).await;
        let (mut a, mut b) = (Peer::at(theirs.client, "").await, Peer::new(&all[1], "").await);
        b.sub("x", "").await;
        let deadline = env::now() + PATIENCE;
        while b.msgs.is_empty() {
            assert!(env::now() < deadline, "a message comes through");
            a.publish("x", "", "hi").await;
            b.settle().await;
        }
        let log = theirs.log();
        assert!(!log.contains("[ERR]"), "{log}");
        all.iter().for_each(|s| s.stop());
    });
}
