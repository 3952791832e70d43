//! The listeners, and as much of HTTP/1.1 as monitoring needs: GET and HEAD, keep-alive, pipelining; no bodies.
//!
//! What a peer may cost is bounded (M-2): [`CONNECTIONS_MAX`] connections, [`HEAD_BYTES_MAX`] bytes of a request,
//! [`HEAD_TIME`] from its first byte to its last, [`IDLE_TIME`] between requests, and [`WRITE_TIME`] without progress of
//! an answer.

// The ban of tokio::select! would strike every use of env::select!, which wraps it.
#![allow(clippy::disallowed_macros)]

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use env::{
    Instant, Wall,
    net::{Accepted, TcpListener, TcpStream},
};
use links::tls::Session;

use super::pages::{self, Answer};
use crate::{
    Server, StartError,
    options::{HttpOptions, Options},
    start::shown,
};

/// Connections at a time, over all listeners; who comes after is told to come back later.
const CONNECTIONS_MAX: usize = 256;
/// Largest request in bytes. There is no body.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header lines of a request, at most.
const HEADERS_MAX: usize = 64;
/// From the first byte of a request to its last.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// From an answer to the next request.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How long a peer may take nothing of an answer.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long, and how many bytes, are read past a refusal, so that the refusal is not lost with the connection.
const LINGER_TIME: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Bytes of TLS records that are read or made at a time.
const RAW_BYTES: usize = 16 << 10;

thread_local!(static RAW: RefCell<Box<[u8]>> = RefCell::new(vec![0; RAW_BYTES].into_boxed_slice()));

/// Binds the monitoring listeners and serves them until the server stops.
pub async fn listen(server: &Arc<Server>, o: &Options) -> Result<(), StartError> {
    if o.https.is_some() && o.tls.as_ref().is_none_or(|t| t.certificates.is_empty()) {
        return Err(failed("TLS cert and key required for HTTPS"));
    }
    let open = Arc::new(AtomicUsize::new(0));
    for (listener, tls) in [(&o.http, false), (&o.https, true)] {
        let Some(at) = listener else { continue };
        let (listener, bound) = bind(at).await?;
        let scheme = if tls { "https" } else { "http" };
        {
            let mut b = server.bound.lock();
            *if tls { &mut b.https } else { &mut b.http } = Some(bound);
        }
        server.log.info(format_args!("Starting {scheme} monitor on {}", shown(&at.host, bound)));
        env::spawn(accept(server.clone(), listener, tls, open.clone()));
    }
    Ok(())
}

fn failed(why: &str) -> StartError {
    StartError(vec![format!("Can't start monitoring: {why}")])
}

async fn bind(o: &HttpOptions) -> Result<(TcpListener, SocketAddr), StartError> {
    let wrong = |at: &str, e: &io::Error| {
        let why = match e.kind() {
            ErrorKind::AddrInUse => "address already in use".to_string(),
            ErrorKind::PermissionDenied => "permission denied".to_string(),
            ErrorKind::AddrNotAvailable => "cannot assign requested address".to_string(),
            _ => e.to_string(),
        };
        failed(&format!("can't listen to the monitor port: listen tcp {at}: bind: {why}"))
    };
    let at = format!("{}:{}", o.host, o.port);
    let port = u16::try_from(o.port).unwrap_or(0);
    let addresses = env::net::resolve(&o.host, port).await.map_err(|e| wrong(&at, &e))?;
    let mut last = failed(&format!("can't listen to the monitor port: {at} has no address"));
    for a in addresses {
        match TcpListener::bind(a).await.and_then(|l| l.local_addr().map(|b| (l, b))) {
            Ok(bound) => return Ok(bound),
            Err(e) => last = wrong(&a.to_string(), &e),
        }
    }
    Err(last)
}

async fn accept(server: Arc<Server>, listener: TcpListener, tls: bool, open: Arc<AtomicUsize>) {
    loop {
        let accepted = env::select! {
            _ = server.stopped() => return,
            a = listener.accept() => a,
        };
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, most likely: those that are open must end first.
            env::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (server, open) = (server.clone(), open.clone());
        let full = open.fetch_add(1, Relaxed) >= CONNECTIONS_MAX;
        env::spawn(async move {
            env::select! {
                _ = server.stopped() => {}
                _ = serve(&server, socket, tls, full) => {}
            }
            open.fetch_sub(1, Relaxed);
        });
    }
}

/// One connection, request after request.
async fn serve(server: &Arc<Server>, socket: Accepted, tls: bool, full: bool) {
    let Ok(tcp) = socket.attach() else { return };
    let mut c = Connection { tcp, tls: None, pending: Vec::new(), buf: BytesMut::new() };
    if tls && c.handshake(server).await.is_err() {
        return;
    }
    if full {
        c.refuse(&Refusal::new(503, "too many monitoring connections")).await.ok();
        return;
    }
    loop {
        let request = match c.request().await {
            Ok(Some(r)) => r,
            Ok(None) | Err(Gone) => return,
        };
        let mut request = match request {
            Ok(r) => r,
            Err(refusal) => {
                c.refuse(&refusal).await.ok();
                return;
            }
        };
        let answer = match request.method {
            Method::Other => {
                Answer { allow: true, ..Answer::plain(405, "405 method not allowed: GET and HEAD only\n") }
            }
            _ => {
                let (path, query) = (std::mem::take(&mut request.path), std::mem::take(&mut request.query));
                pages::answer(server, path, query).await
            }
        };
        let out = response(&request, &answer, env::wall());
        if c.write(&out).await.is_err() {
            return;
        }
        if !request.keep_alive {
            c.linger().await;
            return;
        }
        // Requests that were sent together must not keep others on this thread waiting.
        tokio::task::yield_now().await;
    }
}

/// The peer is gone, or too slow.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Gone {
        Gone
    }
}
impl From<env::Elapsed> for Gone {
    fn from(_: env::Elapsed) -> Gone {
        Gone
    }
}

/// A request that is not answered but refused, after which the connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Refusal {
    status: u16,
    text: String,
}

impl Refusal {
    /// `why` may be empty.
    fn new(status: u16, why: &str) -> Refusal {
        let reason = reason(status);
        Refusal { status, text: if why.is_empty() { reason.to_string() } else { format!("{reason}: {why}") } }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Get,
    Head,
    Other,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Request {
    method: Method,
    /// Decoded.
    path: String,
    /// As it was sent.
    query: String,
    /// HTTP/1.0, not 1.1.
    old: bool,
    keep_alive: bool,
}

struct Connection {
    tcp: TcpStream,
    /// TLS, where it is spoken.
    tls: Option<Box<Session>>,
    /// What TLS has made and was not sent yet.
    pending: Vec<u8>,
    /// What has been read and not been used.
    buf: BytesMut,
}

impl Connection {
    /// The next request; `None` if the peer has ended the connection between two.
    async fn request(&mut self) -> Result<Option<Result<Request, Refusal>>, Gone> {
        // The clock of a request starts with its first byte.
        let mut deadline = env::now() + if self.buf.is_empty() { IDLE_TIME } else { HEAD_TIME };
        let mut look = !self.buf.is_empty();
        loop {
            if look {
                match parse(&self.buf) {
                    Parsed::Request(r, n) => {
                        self.buf.advance(n);
                        return Ok(Some(Ok(r)));
                    }
                    Parsed::Refused(r) => return Ok(Some(Err(r))),
                    Parsed::Partial if self.buf.len() >= HEAD_BYTES_MAX => {
                        return Ok(Some(Err(Refusal::new(431, ""))));
                    }
                    Parsed::Partial => {}
                }
            }
            // M-2
            let had = self.buf.len();
            let n = self.read(deadline).await?;
            if n == 0 {
                return if had == 0 { Ok(None) } else { Err(Gone) };
            }
            if had == 0 {
                deadline = env::now() + HEAD_TIME;
            }
            // A request that trickles in is looked at once a line, not once a byte.
            look = self.buf[had..].contains(&b'\n') || self.buf.len() >= HEAD_BYTES_MAX;
        }
    }

    /// Reads what is there, about as much as a request may have. 0 is the end.
    async fn read(&mut self, deadline: Instant) -> Result<usize, Gone> {
        let room = HEAD_BYTES_MAX.saturating_sub(self.buf.len()).max(1);
        let had = self.buf.len();
        loop {
            let left = deadline.since(env::now());
            env::timeout(left, self.tcp.readable()).await??;
            let read = match &self.tls {
                None => {
                    self.buf.reserve(room);
                    self.tcp.try_read_buf(&mut (&mut self.buf).limit(room))
                }
                Some(_) => RAW.with_borrow_mut(|raw| self.read_tls(raw)),
            };
            self.send_pending().await?;
            match read {
                Ok(_) if self.buf.len() > had => return Ok(self.buf.len() - had),
                Ok(0) => return Ok(0),
                // Records of a handshake bring nothing for us.
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Reads records. Returns the number of raw bytes, 0 at the end.
    fn read_tls(&mut self, raw: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return Ok(0) };
        let n = self.tcp.try_read(raw)?;
        let (buf, out) = (&mut self.buf, &mut self.pending);
        tls.receive(&raw[..n], out, |plain| buf.extend_from_slice(plain)).map_err(io::Error::other)?;
        Ok(if tls.is_peer_closed() { 0 } else { n })
    }

    /// Agrees on TLS, within the time that the options give.
    async fn handshake(&mut self, server: &Server) -> Result<(), Gone> {
        let Some(settings) = server.https_tls() else { return Err(Gone) };
        if !settings.rate.allow(env::now()) {
            return Err(Gone);
        }
        self.tls = Some(Box::new(Session::server(&settings.server_config).map_err(|_| Gone)?));
        let deadline = env::now() + settings.timeout;
        while self.tls.as_ref().is_some_and(|t| t.is_handshaking()) {
            let left = deadline.since(env::now());
            env::timeout(left, self.tcp.readable()).await??;
            let read = RAW.with_borrow_mut(|raw| self.read_tls(raw));
            self.send_pending().await.ok();
            match read {
                Ok(0) => return Err(Gone),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Sends what TLS has made.
    async fn send_pending(&mut self) -> Result<(), Gone> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.pending);
        self.send(&out).await
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), Gone> {
        // An idle connection holds no buffer.
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
        if self.tls.is_none() {
            return self.send(out).await;
        }
        for part in out.chunks(RAW_BYTES) {
            if let Some(tls) = &mut self.tls {
                tls.send(part, &mut self.pending).map_err(|_| Gone)?;
            }
            self.send_pending().await?;
        }
        Ok(())
    }

    async fn send(&self, mut out: &[u8]) -> Result<(), Gone> {
        while !out.is_empty() {
            match self.tcp.try_write(out) {
                Ok(0) => return Err(Gone),
                Ok(n) => out = &out[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    env::timeout(WRITE_TIME, self.tcp.writable()).await??;
                }
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    async fn refuse(&mut self, r: &Refusal) -> Result<(), Gone> {
        let Refusal { status, text } = r;
        let body = format!("{status} {text}");
        let head = format!(
            "HTTP/1.1 {body}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.write((head + &body).as_bytes()).await?;
        self.linger().await;
        Ok(())
    }

    /// Lets the peer read the last answer: unread bytes at a close would reset the connection.
    async fn linger(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close(&mut self.pending);
        }
        self.send_pending().await.ok();
        self.tcp.shutdown_write().ok();
        let deadline = env::now() + LINGER_TIME;
        let mut read = 0;
        while read < LINGER_BYTES_MAX {
            self.buf.clear();
            match self.read(deadline).await {
                Ok(n) if n > 0 => read += n,
                _ => return,
            }
        }
    }
}

enum Parsed {
    /// A request, and its length in bytes.
    Request(Request, usize),
    Partial,
    Refused(Refusal),
}

/// Looks for a request at the front of `buf`.
fn parse(buf: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut r = httparse::Request::new(&mut headers);
    let n = match r.parse(buf) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(Refusal::new(431, "")),
        Err(httparse::Error::Version) => {
            return Parsed::Refused(Refusal::new(505, "unsupported protocol version"));
        }
        Err(_) => return Parsed::Refused(Refusal::new(400, "")),
    };
    if n > HEAD_BYTES_MAX {
        return Parsed::Refused(Refusal::new(431, ""));
    }
    let old = r.version == Some(0);
    let has = |name: &str, word: &str| {
        r.headers
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case(name))
            .filter_map(|h| std::str::from_utf8(h.value).ok())
            .any(|v| v.split(',').any(|w| w.trim().eq_ignore_ascii_case(word)))
    };
    let count = |name: &str| r.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
    match count("host") {
        1 => {}
        0 if old => {}
        0 => return Parsed::Refused(Refusal::new(400, "missing required Host header")),
        _ => return Parsed::Refused(Refusal::new(400, "too many Host headers")),
    }
    // A body is not read, so that what follows it cannot be told from it: the connection ends with the answer.
    let body = count("transfer-encoding") > 0 || (count("content-length") > 0 && !has("content-length", "0"));
    let keep = if old { has("connection", "keep-alive") } else { !has("connection", "close") };
    let Some((path, query)) = r.path.and_then(target) else { return Parsed::Refused(Refusal::new(400, "")) };
    let method = match r.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => Method::Other,
    };
    Parsed::Request(Request { method, path, query, old, keep_alive: keep && !body }, n)
}

/// Path and query of a request's target: `/path?query`, `http://host/path?query` or `*`.
fn target(t: &str) -> Option<(String, String)> {
    let t = match t.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map_or("/", |i| &rest[i..]),
        _ => t,
    };
    if t != "*" && !t.starts_with('/') {
        return None;
    }
    let (path, query) = t.split_once('?').unwrap_or((t, ""));
    Some((super::query::decode_path(path)?, query.to_string()))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

fn response(r: &Request, a: &Answer, now: Wall) -> Vec<u8> {
    let mut out = format!("HTTP/1.{} {} {}\r\n", u8::from(!r.old), a.status, reason(a.status));
    if a.any_origin {
        out += "Access-Control-Allow-Origin: *\r\n";
    }
    if a.allow {
        out += "Allow: GET, HEAD\r\n";
    }
    out += &format!(
        "Content-Type: {}\r\nX-Content-Type-Options: nosniff\r\nDate: {}\r\nContent-Length: {}\r\n",
        a.content_type,
        date(now),
        a.body.len()
    );
    match (r.keep_alive, r.old) {
        (false, false) => out += "Connection: close\r\n",
        (true, true) => out += "Connection: keep-alive\r\n",
        _ => {}
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    if r.method != Method::Head {
        out.extend_from_slice(a.body.as_bytes());
    }
    out
}

/// `Sat, 21 Nov 2026 05:17:31 GMT`.
fn date(at: Wall) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let secs = at.0.div_euclid(1_000_000_000);
    let (days, s) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (y, m, d) = env::time::civil_from_days(days);
    // The first day of the count was a Thursday.
    let (day, month) = (DAYS[days.rem_euclid(7) as usize], MONTHS[m as usize - 1]);
    format!("{day}, {d:02} {month} {y:04} {:02}:{:02}:{:02} GMT", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Request, u16> {
        match parse(text.as_bytes()) {
            Parsed::Request(r, n) => {
                assert_eq!(n, text.find("\r\n\r\n").unwrap() + 4);
                Ok(r)
            }
            Parsed::Partial => Err(0),
            Parsed::Refused(r) => Err(r.status),
        }
    }

    #[test]
    fn requests() {
        let r = request("GET /connz?subs=1&x=%41 HTTP/1.1\r\nHost: h\r\n\r\nGET").unwrap();
        let want = Request {
            method: Method::Get,
            path: "/connz".into(),
            query: "subs=1&x=%41".into(),
            old: false,
            keep_alive: true,
        };
        assert_eq!(r, want);
        let r =
            request("HEAD http://h/%76arz HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n").unwrap();
        assert_eq!((r.method, &*r.path, r.keep_alive), (Method::Head, "/varz", false));
        let r = request("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(r.old && !r.keep_alive);
        assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().keep_alive);
        let r = request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert!(r.method == Method::Other && !r.keep_alive);
        assert!(request("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").unwrap().keep_alive);
    }

    #[test]
    fn refusals() {
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GARBAGE\r\n\r\n", 400),
            ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET varz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n", 400),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\nHost:", 0),
        ] {
            assert_eq!(request(text).unwrap_err(), status, "{text}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX));
        assert_eq!(request(&many).unwrap_err(), 431);
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(request(&long).unwrap_err(), 431);
    }

    #[test]
    fn dates() {
        assert_eq!(date(Wall(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(Wall(1_795_238_251_000_000_000)), "Sat, 21 Nov 2026 05:17:31 GMT");
    }

    #[test]
    fn answers() {
        let r = Request {
            method: Method::Get,
            path: "/".into(),
            query: String::new(),
            old: false,
            keep_alive: true,
        };
        let a = Answer::json("{}".into());
        let head = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: application/json\r\n\
                    X-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n";
        assert_eq!(String::from_utf8(response(&r, &a, Wall(0))).unwrap(), format!("{head}\r\n{{}}"));
        let r = Request { method: Method::Head, keep_alive: false, ..r };
        assert_eq!(
            String::from_utf8(response(&r, &a, Wall(0))).unwrap(),
            format!("{head}Connection: close\r\n\r\n")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(v in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            parse(&v);
            parse(&[b"GET ".to_vec(), v].concat());
        }
    }
}
