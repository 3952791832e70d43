//! How a connection becomes a link: the hello and its answer, and all reasons to refuse one (N-5).
//!
//! Both ends have a deadline for all of it.

use std::{
    io::{ErrorKind, IoSlice},
    net::SocketAddr,
    sync::Arc,
};

use broker::Transport;
use bytes::BytesMut;
use env::net::TcpStream;
use identity::{Attempt, Check, Decision};
use wire::{
    frame,
    peer::{Hello, LINE_BYTES_MAX, OPENING, VERSION, VERSION_MIN, hex, unhex},
};

use super::{
    Hub, Node,
    hub::Offer,
    judge::Live,
    link::{Begin, Task},
};
use crate::{
    Socket,
    handshake::Handshake,
    route::{Mesh, RouteSettings, RouteUrl},
};

/// Longest INFO of the other end, which is skipped.
const INFO_BYTES_MAX: usize = 64 << 10;
/// Longest name that is taken.
const NAME_BYTES_MAX: usize = 1024;

/// How an attempt to open a link ended.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody could be reached, or it did not speak as it should.
    Unreachable(String),
    /// The other end, or this one, wants no such link.
    Refused(String),
    /// There is a better one.
    Duplicate,
}

/// What is said to whoever comes second.
const DUPLICATE: &str = "Duplicate Peer Link";

/// Why a link ends that came in under settings that are no more.
pub(super) const RELOADED: &str = "the right to be here has changed";

/// Serves a connection to the cluster port that began with [`OPENING`], to its end. `early` is what was read of it.
pub(crate) async fn accept(mesh: &Arc<Mesh>, socket: Arc<Socket>, peer: SocketAddr, early: BytesMut) {
    let Some(hub) = mesh.peers() else {
        let text = "this server takes no peer links";
        mesh.hooks.log("WRN", &format!("Peer link from {peer} refused: {text}"));
        return refuse(&socket, text);
    };
    let settings = mesh.settings();
    let limit = hub.limits.greeting_max.max(settings.auth_timeout);
    let answered = env::timeout(limit, answer(&hub, &settings, &socket, peer, early)).await;
    match answered.unwrap_or_else(|_| Err("the greeting takes too long".to_owned())) {
        Ok(task) => task.run().await,
        Err(text) => {
            let level = if text == DUPLICATE { "DBG" } else { "ERR" };
            hub.log(level, &format!("Peer link from {peer} refused: {text}"));
            refuse(&socket, &text);
        }
    }
}

/// Says why not, as far as the socket takes it, and closes.
fn refuse(socket: &Socket, text: &str) {
    let mut out = Vec::new();
    frame::push_err(&mut out, text);
    socket.try_write(&[IoSlice::new(&out)]).ok();
    socket.farewell(broker::Closed::ClientClosed);
    socket.shutdown();
}

async fn answer(
    hub: &Arc<Hub>,
    settings: &RouteSettings,
    socket: &Arc<Socket>,
    peer: SocketAddr,
    mut early: BytesMut,
) -> Result<Task, String> {
    let line = read_line(socket, &mut early, LINE_BYTES_MAX).await?;
    let json = line.strip_prefix(OPENING).ok_or("it does not begin as a peer link does")?;
    let hello = Hello::parse(json).map_err(|e| format!("its hello cannot be read: {e}"))?;
    // The right to be here comes first: the others are told nothing.
    if let Some(certificates) = &settings.certificates {
        if !certificates.admit_peer(socket) {
            return Err(identity::AUTHORIZATION_VIOLATION.to_owned());
        }
    } else if settings.authenticator.is_required() {
        authorize(hub, settings, &hello).await?;
    }
    let (node, life, version) = judge(hub, &hello)?;
    if !hello.to.is_empty() && hello.to != hex(hub.me.0) {
        return Err(format!("node {} is not here, this is {}", hello.to, hub.me));
    }
    let begin = |generation| Begin {
        node,
        name: hello.name.clone(),
        address: peer,
        version,
        live: Live { by_us: false, life, links: hello.links.saturating_add(1) },
        generation,
    };
    let offer = Offer { life, links: hello.links, name: &hello.name };
    let (link, before) = hub.take(node, &offer, begin)?.ok_or(DUPLICATE)?;
    if !hub.mesh.settings().admit_all_of(settings) {
        // The settings have changed meanwhile, and whoever is in was looked at already.
        link.close(RELOADED);
    }
    let mut first = Vec::new();
    Hello { links: link.generation, ..hub.hello() }.push(&mut first);
    socket.tcp().limit_send_buffer(super::hub::SEND_BUFFER_BYTES);
    Ok(Task { hub: hub.clone(), link, socket: socket.clone(), before, early, first })
}

/// What both ends ask of a hello.
fn judge(hub: &Hub, hello: &Hello) -> Result<(Node, u64, u32), String> {
    let version = hello.agree().ok_or_else(|| {
        let (a, b) = (hello.version_min, hello.version);
        format!("it speaks versions {a} to {b} of peer links, this server {VERSION_MIN} to {VERSION}")
    })?;
    let node = unhex(&hello.node).map(Node).ok_or("its node id is none")?;
    let life = unhex(&hello.life).ok_or("its life is none")?;
    if node == hub.me {
        return Err(format!("node id {node} of server {:?} is this server's own", shown(&hello.name)));
    }
    let ours = hub.mesh.name();
    if hello.cluster != ours {
        return Err(format!("cluster name {:?} does not match {ours:?}", shown(&hello.cluster)));
    }
    if hello.name.is_empty() || hello.name.len() > NAME_BYTES_MAX {
        return Err("its server has no name".to_owned());
    }
    Ok((node, life, version))
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

async fn authorize(hub: &Hub, settings: &RouteSettings, hello: &Hello) -> Result<(), String> {
    let attempt = Attempt { user: &hello.user, pass: &hello.pass, ..Attempt::default() };
    let decision = match settings.authenticator.check(&attempt) {
        Check::Done(d) => Some(d),
        Check::Pending(job) => match hub.mesh.cpu.run(move || job.run()) {
            Some(mut end) => end.wait().await,
            None => None,
        },
    };
    match decision {
        Some(Decision::Accept(_)) => Ok(()),
        _ => Err(identity::AUTHORIZATION_VIOLATION.to_owned()),
    }
}

/// Opens a connection to a node and greets it.
pub(super) async fn open(hub: &Arc<Hub>, node: Node, url: &RouteUrl) -> Result<Task, Failed> {
    let unreachable = |e: String| Failed::Unreachable(e);
    let limit = hub.limits.greeting_max;
    let timed_out = |_| Failed::Unreachable("i/o timeout".to_owned());
    let (tcp, address) = env::timeout(limit, connect(url)).await.map_err(timed_out)?.map_err(unreachable)?;
    let settings = hub.mesh.settings();
    let socket = match &settings.tls {
        None => Arc::new(Socket::plain(tcp)),
        Some(tls) => {
            let socket = Arc::new(Socket::held(tcp));
            let h = Handshake { socket: &socket, link: None, deadline: env::now() + tls.server.timeout };
            if let Err(e) = h.tls_client(&tls.client, &url.host).await {
                socket.shutdown();
                return Err(Failed::Unreachable(format!("TLS handshake: {e}")));
            }
            socket.open();
            socket
        }
    };
    // From here on the other end may wait for us: whoever comes meanwhile is judged by that.
    let Some(asked) = hub.ask(node) else {
        socket.shutdown();
        return Err(Failed::Duplicate);
    };
    let limit = limit.max(settings.auth_timeout);
    let greeted = env::timeout(limit, greet(hub, node, url, &socket, address)).await;
    let greeted = greeted.map_err(timed_out).and_then(|r| r);
    drop(asked);
    greeted.inspect_err(|_| socket.shutdown())
}

async fn connect(url: &RouteUrl) -> Result<(TcpStream, SocketAddr), String> {
    let addresses = env::net::resolve(&url.host, url.port).await.map_err(|e| e.to_string())?;
    let mut failed = format!("lookup {}: no such host", url.host);
    for a in addresses {
        match TcpStream::connect(a).await {
            Ok(tcp) => return Ok((tcp, a)),
            Err(e) => failed = format!("dial tcp {a}: {e}"),
        }
    }
    Err(failed)
}

async fn greet(
    hub: &Arc<Hub>,
    node: Node,
    url: &RouteUrl,
    socket: &Arc<Socket>,
    address: SocketAddr,
) -> Result<Task, Failed> {
    let mut hello = Hello { to: hex(node.0), links: hub.links_with(node), ..hub.hello() };
    if let Some((user, pass)) = &url.credentials {
        (hello.user, hello.pass) = (user.clone(), pass.expose().to_owned());
    }
    let mut out = Vec::new();
    hello.push(&mut out);
    write_all(socket, &out).await.map_err(Failed::Unreachable)?;
    let mut early = BytesMut::new();
    let hello = loop {
        let line = read_line(socket, &mut early, INFO_BYTES_MAX).await.map_err(Failed::Unreachable)?;
        if let Some(json) = line.strip_prefix(OPENING) {
            break Hello::parse(json).map_err(|e| Failed::Unreachable(e.to_string()))?;
        }
        if let Some(text) = line.strip_prefix(b"-ERR ") {
            let text = String::from_utf8_lossy(text).trim_matches(['\'', ' ']).to_owned();
            return Err(if text == DUPLICATE { Failed::Duplicate } else { Failed::Refused(text) });
        }
        if !line.starts_with(b"INFO ") {
            return Err(Failed::Unreachable("it does not answer as a Fulmar does".to_owned()));
        }
    };
    let (said, life, version) = judge(hub, &hello).map_err(Failed::Refused)?;
    if said != node {
        return Err(Failed::Refused(format!("node {node} is not there, it is {said}")));
    }
    let begin = |generation| Begin {
        node,
        name: hello.name.clone(),
        address,
        version,
        live: Live { by_us: true, life, links: hello.links },
        generation,
    };
    let (link, before) = hub.taken(node, begin).ok_or(Failed::Duplicate)?;
    socket.tcp().limit_send_buffer(super::hub::SEND_BUFFER_BYTES);
    Ok(Task { hub: hub.clone(), link, socket: socket.clone(), before, early, first: Vec::new() })
}

/// The next line without its end; what comes after it stays in `buf`.
async fn read_line(socket: &Socket, buf: &mut BytesMut, max: usize) -> Result<Vec<u8>, String> {
    let mut looked = 0;
    loop {
        if let Some(i) = buf[looked..].iter().position(|b| *b == b'\n') {
            let line = buf.split_to(looked + i + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            return Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
        }
        looked = buf.len();
        if looked > max {
            return Err("a line is too long".to_owned());
        }
        match socket.try_read_more(buf, 4096) {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                socket.readable().await.map_err(|e| e.to_string())?
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() || socket.has_unwritten() {
        let slices = [IoSlice::new(bytes)];
        match socket.try_write(if bytes.is_empty() { &[] } else { &slices }) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                socket.writable().await.map_err(|e| e.to_string())?
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(())
}
