//! Bytes through a whole server, over TCP: in pieces they are answered as in one, the answers are the server's protocol,
//! and when the client has gone nothing of it is left.
//!
//! The server has no accounts and no limits but its own. What is random by right is not compared: INFO, the server's own
//! PINGs, and which member of a queue group got a message.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, OnceLock, mpsc},
    time::{Duration, Instant},
};

use server::{
    Server,
    options::{Flags, Options},
};

use super::{cuts, draws};
use crate::engine::{about, seen};

const PATIENCE: Duration = Duration::from_secs(20);
/// Writes of one input at most: each is a system call, and so is each read that it causes.
const PIECES_MAX: usize = 6;

struct World {
    server: Arc<Server>,
    address: SocketAddr,
    /// Subscriptions of the server's own.
    subscriptions: usize,
}

/// One server for all inputs.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (tell, told) = mpsc::channel();
        // It ends with the process.
        std::thread::spawn(move || {
            env::run(async {
                let mut options = Options { host: "127.0.0.1".into(), port: -1, ..Options::default() };
                // Every input is a complaint in the log, twice.
                options.log.file = Some("/dev/null".into());
                let server = Server::new(options, Flags::default()).unwrap();
                server.listen().await.unwrap();
                tell.send(server.clone()).unwrap();
                server.stopped().await;
            })
        });
        let server = told.recv_timeout(PATIENCE).expect("the server starts");
        let address = server.bound.lock().client.expect("it listens");
        World { address, subscriptions: server.broker.subscriptions(), server }
    })
}

/// Runs one input.
pub fn target(data: &[u8]) {
    // System requests and traces tell times and ids.
    let has = |w: &[u8]| data.windows(w.len()).any(|x| x.eq_ignore_ascii_case(w));
    if has(b"$SYS") || has(b"Nats-Trace") || has(b"traceparent") {
        return;
    }
    let mut rng = draws(data);
    let whole = talk(data, &[data.len()]);
    let mut pieces = cuts(&mut rng, data.len());
    while pieces.len() > PIECES_MAX {
        pieces.remove(rng.below(pieces.len() as u64 - 1) as usize);
    }
    let split = talk(data, &pieces);
    match (whole.is_cut, split.is_cut) {
        (false, false) => {
            assert_eq!(whole.answers, split.answers, "W-1: answers differ in pieces at {pieces:?}")
        }
        // A reset may have eaten the last words.
        _ => {
            let n = whole.answers.len().min(split.answers.len());
            assert_eq!(whole.answers[..n], split.answers[..n], "W-1: answers differ in pieces at {pieces:?}");
            seen("reset", 0);
        }
    }
    for (i, a) in whole.answers.iter().enumerate() {
        let verb = a.split(|b| matches!(b, b' ' | b'\r')).next().unwrap_or_default();
        let tag = match verb {
            b"MSG" | b"HMSG" => "message",
            b"PONG" => "pong",
            b"+OK" => "ok",
            _ => {
                seen(
                    if a.starts_with(b"-ERR") { "error" } else { "other" },
                    about(a.len()) + a.len() as u64 % 7,
                );
                continue;
            }
        };
        seen(tag, about(i) * 2 + verb.len() as u64 % 2);
    }
}

struct Answers {
    /// Operations of the server, without what is random by right.
    answers: Vec<Vec<u8>>,
    /// The connection was reset.
    is_cut: bool,
}

fn talk(data: &[u8], cuts: &[usize]) -> Answers {
    let world = world();
    let mut socket = TcpStream::connect(world.address).expect("the server takes connections");
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut from, mut is_cut) = (0, false);
    for &to in cuts {
        is_cut |= socket.write_all(&data[from..to]).is_err();
        from = to;
    }
    is_cut |= socket.shutdown(Shutdown::Write).is_err();
    let mut got = Vec::new();
    match socket.read_to_end(&mut got) {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the server does not close after {}", got.escape_ascii())
        }
        Err(_) => is_cut = true,
    }
    let answers = operations(&got, is_cut);
    // What the client had is gone: nothing leaks, and the next connection is alone.
    let until = Instant::now() + PATIENCE;
    let broker = &world.server.broker;
    while broker.connections() > 0 || broker.subscriptions() > world.subscriptions {
        assert!(Instant::now() < until, "{} connections are left", broker.connections());
        std::thread::yield_now();
    }
    Answers { answers, is_cut }
}

/// Cuts what a server sent, and holds it against the protocol.
fn operations(mut got: &[u8], is_cut: bool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !got.is_empty() {
        let Some(end) = got.windows(2).position(|w| w == b"\r\n") else {
            assert!(is_cut, "half a line: {}", got.escape_ascii());
            break;
        };
        let (line, rest) = (&got[..end], &got[end + 2..]);
        got = rest;
        let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        match words[0] {
            b"INFO" | b"PING" => {}
            b"PONG" | b"+OK" => all.push(line.to_vec()),
            b"-ERR" => {
                assert!(line.starts_with(b"-ERR '") && line.ends_with(b"'"), "{}", line.escape_ascii());
                all.push(line.to_vec());
            }
            b"MSG" | b"HMSG" => {
                let sizes = 1 + usize::from(words[0] == b"HMSG");
                assert!((3 + sizes..=4 + sizes).contains(&words.len()), "{}", line.escape_ascii());
                let size = words.last().and_then(|w| std::str::from_utf8(w).ok()?.parse::<usize>().ok());
                let size = size.unwrap_or_else(|| panic!("no size: {}", line.escape_ascii()));
                let Some(body) = got.get(..size + 2) else {
                    assert!(is_cut, "half a message");
                    break;
                };
                assert!(body.ends_with(b"\r\n"));
                got = &got[size + 2..];
                // Without the sid.
                all.push([&[&words[..2], &words[3..]].concat().join(&b' '), &b"\r\n"[..], body].concat());
            }
            _ => panic!("not the server's protocol: {}", line.escape_ascii()),
        }
    }
    all
}
