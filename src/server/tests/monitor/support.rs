//! A server, an HTTP client and a NATS client, as small as will do.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use env::net::TcpStream;
use serde_json::Value;
use server::{
    Server,
    options::{self, Flags},
};

/// Longest wait for anything. A test that comes here has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test against a server with this configuration. `PORTS` in it stands for random ports of both listeners.
pub fn with_server<F: Future<Output = ()>>(config: &str, test: impl FnOnce(Arc<Server>) -> F) {
    env::run(async {
        let server = new_server(config);
        server.listen().await.expect("random ports are free");
        test(server.clone()).await;
        server.stop();
    })
    .expect("a runtime can be made");
}

/// A server that does not listen yet.
pub fn new_server(config: &str) -> Arc<Server> {
    let text = config.replace("PORTS", "listen: \"127.0.0.1:-1\"\nhttp: \"127.0.0.1:-1\"");
    let loaded = options::load_text("test.conf", &text, &Flags::default(), &conf::Memory::default());
    Server::new(loaded.expect("the test's configuration is right").options, Flags::default()).unwrap()
}

/// Bytes both ways, with a limit on patience.
pub struct Wire {
    tcp: TcpStream,
    buf: Vec<u8>,
}

impl Wire {
    pub async fn connect(at: SocketAddr) -> Wire {
        Wire { tcp: TcpStream::connect(at).await.unwrap(), buf: Vec::new() }
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
    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        loop {
            env::timeout(PATIENCE, self.tcp.readable()).await.expect("something comes").ok();
            let mut some = [0; 16 << 10];
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
    /// Everything up to the end.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buf)).into_owned()
    }
    /// Everything up to and including `mark`, if it comes.
    pub async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            let found = self.buf.windows(mark.len()).position(|w| w == mark.as_bytes());
            if let Some(i) = found {
                let head = self.buf.drain(..i + mark.len()).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }
    async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.buf.len() < n {
            assert!(self.more().await, "the answer ends early");
        }
        self.buf.drain(..n).collect()
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A connection to monitoring.
pub struct Http(pub Wire);

impl Http {
    pub async fn connect(s: &Server) -> Http {
        let at = s.bound.lock().http.expect("the configuration asks for monitoring");
        Http(Wire::connect(at).await)
    }
    pub async fn get(&mut self, path: &str) -> Answer {
        assert!(self.0.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await);
        self.answer(true).await
    }
    pub async fn json(&mut self, path: &str) -> Value {
        let a = self.get(path).await;
        assert_eq!(a.status, 200, "{path}: {a:?}");
        a.json()
    }
    /// Reads an answer, with its body if it has one.
    pub async fn answer(&mut self, body: bool) -> Answer {
        let head = self.0.until("\r\n\r\n").await.expect("an answer comes");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<_, _> = lines
            .map(|l| l.split_once(": ").unwrap())
            .map(|(k, v)| (k.to_ascii_lowercase(), v.to_string()))
            .collect();
        let n = if body { headers["content-length"].parse().unwrap() } else { 0 };
        let body = String::from_utf8(self.0.exactly(n).await).unwrap();
        Answer { status, headers, body }
    }
}

/// A NATS client.
pub struct Nats(pub Wire);

impl Nats {
    /// Logs in as `user`, whose password is his name.
    pub async fn connect(s: &Server, user: &str) -> Nats {
        let mut c = Nats::refused(s, user, user).await;
        c.sync().await;
        c
    }
    /// Sends a CONNECT and waits for nothing.
    pub async fn refused(s: &Server, user: &str, pass: &str) -> Nats {
        let at = s.bound.lock().client.expect("the server listens");
        let mut wire = Wire::connect(at).await;
        wire.until("\r\n").await.expect("INFO comes");
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":0,\
             \"lang\":\"test\",\"version\":\"1.2\",\"name\":\"{user}-client\",\"user\":\"{user}\",\"pass\":\"{pass}\"}}\r\n"
        );
        assert!(wire.send(connect).await);
        Nats(wire)
    }
    /// Everything sent so far has been handled.
    pub async fn sync(&mut self) {
        assert!(self.0.send("PING\r\n").await);
        self.0.until("PONG\r\n").await.expect("PONG comes");
    }
    pub async fn say(&mut self, text: &str) {
        assert!(self.0.send(text).await);
        self.sync().await;
    }
    /// Waits for the server's PING, and answers it.
    pub async fn answer_ping(&mut self) {
        self.0.until("PING\r\n").await.expect("PING comes");
        self.say("PONG\r\n").await;
    }
}

/// Polls until `done`, giving the server its turn in between.
pub async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = env::now() + PATIENCE;
    while !done() {
        assert!(env::now() < deadline, "{what}");
        env::sleep(Duration::from_millis(2)).await;
    }
}
