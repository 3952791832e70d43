//! What stands between the nodes: a TCP proxy for each ordered pair, which can hold bytes back in either direction.
//!
//! A cut holds bytes, and ends of connections, and loses none: that is what a partition is to TCP, whose segments come
//! later. A connection made through a cut stays without an answer. Loss shows as a segment that comes a retransmission
//! timeout later. It works without privileges; what it cannot do is to lose a SYN quickly or to reorder connections.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::Wrong;

/// How one direction between two nodes behaves.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Link {
    /// Nothing passes.
    pub cut: bool,
    /// Everything passes so much later.
    pub delay: Duration,
    /// Parts in 1000 that pass [`RETRANSMIT`] later.
    pub loss: u32,
}

/// What a lost segment costs.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Chunks on their way in one direction of one connection.
const CHUNKS: usize = 64;

#[derive(Clone, PartialEq, Debug)]
struct Table {
    nodes: usize,
    links: Vec<Link>,
    /// Rises when a node comes back from a death that nobody was told of: what is older is reset.
    lives: Vec<u64>,
}

impl Table {
    fn link(&self, from: usize, to: usize) -> Link {
        self.links[from * self.nodes + to]
    }
}

/// The proxies of a cluster.
#[derive(Debug)]
pub struct Links {
    table: watch::Sender<Table>,
    /// Where `from` dials `to`.
    ports: Vec<u16>,
    tasks: Vec<JoinHandle<()>>,
}

impl Links {
    /// Proxies between nodes that listen on these ports of the loopback.
    ///
    /// # Errors
    /// No port could be had.
    pub async fn start(targets: &[u16]) -> Result<Links, Wrong> {
        let n = targets.len();
        let table = Table { nodes: n, links: vec![Link::default(); n * n], lives: vec![0; n] };
        let mut links = Links { table: watch::Sender::new(table), ports: vec![0; n * n], tasks: Vec::new() };
        for from in 0..n {
            for to in (0..n).filter(|to| *to != from) {
                let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
                links.ports[from * n + to] = listener.local_addr().map_err(|e| e.to_string())?.port();
                let target = SocketAddr::from(([127, 0, 0, 1], targets[to]));
                let table = links.table.subscribe();
                links.tasks.push(tokio::spawn(serve(listener, target, (from, to), table)));
            }
        }
        Ok(links)
    }

    /// Where a node dials the others.
    pub fn routes(&self, from: usize) -> Vec<u16> {
        let n = self.table.borrow().nodes;
        (0..n).filter(|to| *to != from).map(|to| self.ports[from * n + to]).collect()
    }

    /// Changes one direction.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.table.send_modify(|t| {
            let at = from * t.nodes + to;
            t.links[at] = link;
        });
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, node: usize) {
        let n = self.table.borrow().nodes;
        for other in (0..n).filter(|o| *o != node) {
            self.set(node, other, Link { cut: true, ..Link::default() });
            self.set(other, node, Link { cut: true, ..Link::default() });
        }
    }

    /// Resets every connection of a node: it has forgotten them.
    pub fn forget(&self, node: usize) {
        self.table.send_modify(|t| t.lives[node] += 1);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.table.send_modify(|t| t.links.fill(Link::default()));
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    ends: (usize, usize),
    table: watch::Receiver<Table>,
) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(carry(near, target, ends, table.clone()));
    }
}

/// One connection that `ends.0` made to `ends.1`.
async fn carry(near: TcpStream, target: SocketAddr, ends: (usize, usize), mut table: watch::Receiver<Table>) {
    let (a, b) = ends;
    let lives = {
        let t = table.borrow();
        (t.lives[a], t.lives[b])
    };
    let (mut first, there, back) = (table.clone(), table.clone(), table.clone());
    let whole = async {
        passable(&mut first, a, b).await;
        let Ok(far) = TcpStream::connect(target).await else { return };
        near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).ok();
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        tokio::join!(pump(near_read, far_write, (a, b), there), pump(far_read, near_write, (b, a), back));
    };
    let dead = table.wait_for(|t| (t.lives[a], t.lives[b]) != lives);
    // Dropping both sides ends them; a cut hides nothing from a node that forgot.
    tokio::select! { () = whole => {}, _ = dead => {} }
}

/// Waits until the direction is not cut.
async fn passable(table: &mut watch::Receiver<Table>, from: usize, to: usize) {
    // The sender lives as long as the proxies.
    table.wait_for(|t| !t.link(from, to).cut).await.ok();
}

/// Carries one direction until its end, and then ends it on the other side.
async fn pump(
    mut read: tcp::OwnedReadHalf,
    mut write: tcp::OwnedWriteHalf,
    ends: (usize, usize),
    mut table: watch::Receiver<Table>,
) {
    let (tx, mut rx) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let state = table.clone();
    let take = async move {
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64 ^ (ends.0 as u64) << 8 ^ ends.1 as u64;
        let mut buf = vec![0; CHUNK];
        while let Ok(n) = read.read(&mut buf).await
            && n > 0
        {
            let link = state.borrow().link(ends.0, ends.1);
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let lost = (dice >> 33) % 1000 < u64::from(link.loss);
            let due = Instant::now() + link.delay + if lost { RETRANSMIT } else { Duration::ZERO };
            if tx.send((due, buf[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let give = async move {
        while let Some((due, bytes)) = rx.recv().await {
            tokio::time::sleep_until(due).await;
            passable(&mut table, ends.0, ends.1).await;
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        passable(&mut table, ends.0, ends.1).await;
        write.shutdown().await.ok();
    };
    tokio::join!(take, give);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes that answer each byte with the next one.
    async fn echo() -> u16 {
        let l = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = l.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut s, _)) = l.accept().await {
                tokio::spawn(async move {
                    while let Ok(b) = s.read_u8().await {
                        s.write_u8(b + 1).await.unwrap();
                    }
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_cut_holds_one_direction_and_loses_nothing() {
        let links = Links::start(&[echo().await, echo().await]).await.unwrap();
        assert_eq!((links.routes(0).len(), links.routes(1).len()), (1, 1));
        let mut s = TcpStream::connect(("127.0.0.1", links.routes(0)[0])).await.unwrap();
        s.write_u8(1).await.unwrap();
        assert_eq!(s.read_u8().await.unwrap(), 2);
        // The answer is held, the question is not.
        links.set(1, 0, Link { cut: true, ..Link::default() });
        s.write_u8(3).await.unwrap();
        let mut answer = [0];
        let early = tokio::time::timeout(Duration::from_millis(100), s.read_exact(&mut answer)).await;
        assert!(early.is_err(), "a cut let {answer:?} pass");
        links.heal();
        s.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [4]);
        // Later by the delay, both ways.
        links.set(0, 1, Link { delay: Duration::from_millis(60), ..Link::default() });
        let begun = Instant::now();
        s.write_u8(5).await.unwrap();
        assert_eq!(s.read_u8().await.unwrap(), 6);
        assert!(begun.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn who_forgets_resets_even_through_a_cut() {
        let links = Links::start(&[echo().await, echo().await]).await.unwrap();
        let mut s = TcpStream::connect(("127.0.0.1", links.routes(0)[0])).await.unwrap();
        s.write_u8(1).await.unwrap();
        assert_eq!(s.read_u8().await.unwrap(), 2);
        links.isolate(1);
        links.forget(1);
        assert!(s.read_u8().await.is_err());
    }
}
