//! A server in this process and a client over loopback, as small as will do.
#![allow(dead_code, clippy::unwrap_used)]

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use broker::Closed;
use env::net::TcpStream;
use server::{
    Server,
    options::{self, Flags},
};

/// Longest wait for anything. A test that comes here has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What a modern client sends, without credentials.
pub const CONNECT: &str = r#"CONNECT {"verbose":false,"protocol":1,"headers":true,"no_responders":true}"#;

/// Runs a test against a server with this configuration, which listens on a random port.
pub fn with_server<F: Future<Output = ()>>(config: &str, test: impl FnOnce(Arc<Server>) -> F) {
    env::run(async {
        let text = format!("listen: \"127.0.0.1:-1\"\n{config}");
        let flags = Flags::default();
        let loaded = options::load_text("test.conf", &text, &flags, &conf::Memory::default());
        let server = Server::new(loaded.expect("the test's configuration is right").options, flags).unwrap();
        server.listen().await.expect("random ports are free");
        test(server.clone()).await;
        server.stop();
    })
    .expect("a runtime can be made");
}

pub fn address(s: &Server) -> SocketAddr {
    s.bound.lock().client.expect("the server listens")
}

/// Waits for a condition.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = env::now() + PATIENCE;
    while !condition() {
        assert!(env::now() < deadline, "it never comes true: {what}");
        env::sleep(Duration::from_millis(2)).await;
    }
}

/// Why the client with that id ended, once it has.
pub async fn end_of(s: &Server, id: u64) -> Closed {
    eventually("the client ends", || s.links.clients.closed().iter().any(|c| c.id == id)).await;
    s.links.clients.closed().iter().find(|c| c.id == id).unwrap().reason
}

pub fn with_user(name: &str, pass: &str) -> String {
    format!(
        r#"CONNECT {{"verbose":false,"protocol":1,"headers":true,"no_responders":true,"user":"{name}","pass":"{pass}"}}"#
    )
}

/// A client.
pub struct Wire {
    tcp: TcpStream,
    buf: Vec<u8>,
    /// Its id, from INFO; 0 before that.
    pub id: u64,
}

impl Wire {
    /// Connects, and no more.
    pub async fn silent(s: &Server) -> Wire {
        let tcp = TcpStream::connect(address(s)).await.unwrap();
        Wire { tcp, buf: Vec::new(), id: 0 }
    }
    /// Connects and reads INFO.
    pub async fn greeted(s: &Server) -> Wire {
        let mut w = Wire::silent(s).await;
        let info = w.until("\r\n").await;
        let json = info.strip_prefix("INFO ").expect("a server greets");
        let json: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
        w.id = json["client_id"].as_u64().unwrap();
        w
    }
    /// Connects and logs in with this CONNECT.
    pub async fn connect(s: &Server, connect: &str) -> Wire {
        let mut w = Wire::greeted(s).await;
        assert!(w.send(format!("{connect}\r\nPING\r\n")).await);
        let answer = w.until("PONG\r\n").await;
        assert!(!answer.contains("-ERR"), "{answer}");
        // The answer to the first PING is followed by the INFO that only those may see who have logged in.
        w.until("\r\n").await;
        w
    }
    /// Sends; false if the other side has gone.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> bool {
        let mut bytes = bytes.as_ref();
        while !bytes.is_empty() {
            match self.tcp.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    env::timeout(PATIENCE, self.tcp.writable()).await.expect("it takes bytes").ok();
                }
                Err(_) => return false,
            }
        }
        true
    }
    /// Sends what the socket takes at once; the number of bytes.
    pub fn send_some(&self, bytes: &[u8]) -> usize {
        self.tcp.try_write(bytes).unwrap_or(0)
    }
    /// Reads more; false at the end.
    pub async fn more(&mut self) -> bool {
        loop {
            env::timeout(PATIENCE, self.tcp.readable()).await.expect("something comes").ok();
            let mut some = [0; 64 << 10];
            match self.tcp.try_read(&mut some) {
                Ok(0) => return false,
                Ok(n) => {
                    self.buf.extend_from_slice(&some[..n]);
                    return true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }
    /// What was read and not taken.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buf)
    }
    /// Everything up to the end.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buf)).into_owned()
    }
    /// Reads to the end and counts the bytes.
    pub async fn drain(&mut self) -> usize {
        let mut n = self.buf.len();
        self.buf.clear();
        while self.more().await {
            n += self.buf.len();
            self.buf.clear();
        }
        n
    }
    /// Everything up to and including `mark`.
    pub async fn until(&mut self, mark: &str) -> String {
        loop {
            let found = self.buf.windows(mark.len()).position(|w| w == mark.as_bytes());
            if let Some(i) = found {
                let head = self.buf.drain(..i + mark.len()).collect();
                return String::from_utf8(head).unwrap();
            }
            let so_far = self.buf.clone();
            assert!(self.more().await, "it ends before {mark:?}: {:?}", String::from_utf8_lossy(&so_far));
        }
    }
    /// Sends, and returns what comes before the answer to a PING behind it.
    pub async fn ask(&mut self, bytes: &str) -> String {
        assert!(self.send(format!("{bytes}PING\r\n")).await, "the connection is gone");
        let answer = self.until("PONG\r\n").await;
        // The server's own PING comes when it wants to.
        answer.strip_suffix("PONG\r\n").unwrap().replace("PING\r\n", "")
    }
}
