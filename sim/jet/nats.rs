//! A small NATS client for the storms: one connection, requests and subscriptions, each call with a deadline.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use env::{Instant, net::TcpStream};

use crate::wire;

/// A message that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msg {
    /// The subscription that it came by: a consumer delivers under the message's own subject.
    pub sid: String,
    /// Subject.
    pub subject: String,
    /// Reply, or empty.
    pub reply: String,
    /// Header block.
    pub header: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Msg {
    /// The status of a message without payload, such as 404; 0 if it has none.
    pub fn status(&self) -> u64 {
        let text = String::from_utf8_lossy(&self.header);
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("NATS/1.0 ").and_then(|s| s.get(..3)).and_then(|s| s.parse().ok()).unwrap_or(0)
    }
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.header).into_owned();
        text.lines()
            .find_map(|l| l.split_once(':').filter(|(k, _)| *k == name).map(|(_, v)| v.trim().to_owned()))
    }
    /// The payload as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

/// The connection is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost;

/// A connection.
pub struct Nats {
    stream: TcpStream,
    inb: Vec<u8>,
    /// PONGs that are still to be sent. They go between other operations, never into one.
    owed: Vec<u8>,
    got: VecDeque<Msg>,
    /// The prefix of its inboxes.
    inbox: String,
    next: u64,
}

impl Nats {
    /// Connects and logs in; `None` if that does not work in time.
    pub async fn connect(server: SocketAddr, name: &str) -> Option<Nats> {
        Nats::connect_as(server, name, "").await
    }
    /// The same as a user whose password is the name. An empty one is none.
    pub async fn connect_as(server: SocketAddr, name: &str, user: &str) -> Option<Nats> {
        let login =
            if user.is_empty() { String::new() } else { format!("\"user\":\"{user}\",\"pass\":\"{user}\",") };
        let stream = env::timeout(Duration::from_secs(2), TcpStream::connect(server)).await.ok()?.ok()?;
        let inbox = format!("_I.{name}");
        let mut c = Nats { stream, inb: Vec::new(), owed: Vec::new(), got: VecDeque::new(), inbox, next: 0 };
        let hello = format!(
            "CONNECT {{{login}\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1,\"lang\":\"sim\",\"version\":\"1\"}}\r\nSUB {}.* 1\r\nPING\r\n",
            c.inbox
        );
        let end = env::now() + Duration::from_secs(2);
        c.send(hello.as_bytes(), end).await.ok()?;
        c.pong(end).await.ok()?;
        Some(c)
    }

    /// Waits for a PONG.
    pub async fn pong(&mut self, end: Instant) -> Result<(), Lost> {
        loop {
            if self.read(end).await? {
                return Ok(());
            }
            if env::now() >= end {
                return Err(Lost);
            }
        }
    }

    async fn send(&mut self, bytes: &[u8], end: Instant) -> Result<(), Lost> {
        let owed = std::mem::take(&mut self.owed);
        if !owed.is_empty() {
            self.send_all(&owed, end).await?;
        }
        self.send_all(bytes, end).await
    }

    async fn send_all(&mut self, bytes: &[u8], end: Instant) -> Result<(), Lost> {
        let mut at = 0;
        while at < bytes.len() {
            match self.stream.try_write(&bytes[at..]) {
                Ok(n) => at += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    let left = end.since(env::now());
                    // A server that does not read while we write may be waiting for us to read.
                    let mut done = false;
                    env::select! {
                        r = self.stream.writable() => { r.map_err(|_| Lost)?; }
                        _ = self.stream.readable() => { done = true; }
                        _ = env::sleep(left.max(Duration::from_millis(1))) => {
                            if env::now() >= end { return Err(Lost); }
                        }
                    }
                    if done {
                        self.take()?;
                    }
                }
                Err(_) => return Err(Lost),
            }
        }
        Ok(())
    }

    /// Takes what has come; whether a PONG was among it.
    fn take(&mut self) -> Result<bool, Lost> {
        let mut buf = vec![0; 64 << 10];
        match self.stream.try_read(&mut buf) {
            Ok(0) => return Err(Lost),
            Ok(n) => self.inb.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => return Err(Lost),
        }
        let (mut at, mut pong, mut pings) = (0, false, 0);
        while let Ok(Some((op, n))) = wire::cut(&self.inb[at..]) {
            at += n;
            match op {
                wire::Op::Msg { sid, subject, reply, header, payload } => {
                    self.got.push_back(Msg { sid, subject, reply, header, payload });
                }
                wire::Op::Pong => pong = true,
                wire::Op::Ping => pings += 1,
                _ => {}
            }
        }
        self.inb.drain(..at);
        for _ in 0..pings {
            self.owed.extend_from_slice(b"PONG\r\n");
        }
        Ok(pong)
    }

    /// Sends the PONGs that are owed. A window that is full can wait: the server asks again. Half a PONG cannot: whoever only reads would stay
    /// behind by it for ever, and be closed as stale.
    fn pay(&mut self) {
        while !self.owed.is_empty()
            && let Ok(n) = self.stream.try_write(&self.owed)
            && n > 0
        {
            self.owed.drain(..n);
        }
    }

    async fn read(&mut self, end: Instant) -> Result<bool, Lost> {
        self.pay();
        let left = end.since(env::now());
        match env::timeout(left, self.stream.readable()).await {
            Ok(r) => {
                r.map_err(|_| Lost)?;
                let pong = self.take()?;
                self.pay();
                Ok(pong)
            }
            Err(_) => Ok(false),
        }
    }

    /// An inbox that was not used before.
    pub fn inbox(&mut self) -> String {
        self.next += 1;
        format!("{}.{}", self.inbox, self.next)
    }

    /// Subscribes to a subject of its own; the subject and the sid.
    pub async fn subscribe(&mut self, end: Instant) -> Result<(String, String), Lost> {
        self.next += 1;
        let (subject, sid) = (format!("_F{}.{}", &self.inbox[2..], self.next), (self.next + 1).to_string());
        self.send(format!("SUB {subject} {sid}\r\n").as_bytes(), end).await?;
        Ok((subject, sid))
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&mut self, sid: &str, end: Instant) -> Result<(), Lost> {
        self.send(format!("UNSUB {sid}\r\n").as_bytes(), end).await
    }

    /// Publishes. Headers are lines without their end.
    pub async fn publish(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &[String],
        payload: &[u8],
        end: Instant,
    ) -> Result<(), Lost> {
        let mut out = Vec::with_capacity(payload.len() + 200);
        frame(&mut out, subject, reply, headers, payload);
        self.send(&out, end).await
    }

    /// Publishes several messages in one go.
    pub async fn publish_raw(&mut self, bytes: &[u8], end: Instant) -> Result<(), Lost> {
        self.send(bytes, end).await
    }

    /// The next message; `None` at the deadline.
    pub async fn next(&mut self, end: Instant) -> Result<Option<Msg>, Lost> {
        loop {
            if let Some(m) = self.got.pop_front() {
                return Ok(Some(m));
            }
            if env::now() >= end {
                return Ok(None);
            }
            self.read(end).await?;
        }
    }

    /// Asks and waits for the answer; `None` at the deadline. What else comes meanwhile is late and is dropped.
    pub async fn request(
        &mut self,
        subject: &str,
        headers: &[String],
        payload: &[u8],
        end: Instant,
    ) -> Result<Option<Msg>, Lost> {
        let inbox = self.inbox();
        self.publish(subject, &inbox, headers, payload, end).await?;
        while let Some(m) = self.next(end).await? {
            if m.subject == inbox {
                return Ok(Some(m));
            }
        }
        Ok(None)
    }
}

/// Writes PUB or HPUB.
pub fn frame(out: &mut Vec<u8>, subject: &str, reply: &str, headers: &[String], payload: &[u8]) {
    let reply = if reply.is_empty() { String::new() } else { format!("{reply} ") };
    if headers.is_empty() {
        out.extend_from_slice(format!("PUB {subject} {reply}{}\r\n", payload.len()).as_bytes());
    } else {
        let mut block = "NATS/1.0\r\n".to_owned();
        for h in headers {
            block += h;
            block += "\r\n";
        }
        block += "\r\n";
        let (h, n) = (block.len(), block.len() + payload.len());
        out.extend_from_slice(format!("HPUB {subject} {reply}{h} {n}\r\n{block}").as_bytes());
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}
