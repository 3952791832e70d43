//! Monitoring over TLS.

use std::{io::ErrorKind, sync::Arc};

use env::{disk::Disk, net::TcpStream};
use links::tls::Session;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::support::{PATIENCE, Wire, new_server};

/// A certificate for `localhost` and its files.
async fn certificate(name: &str) -> (CertificateDer<'static>, String, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let path =
        |end: &str| format!("{}/monitor-{name}-{}.{end}", env!("CARGO_TARGET_TMPDIR"), env::process::id());
    let (cert_file, key_file) = (path("crt"), path("key"));
    let disk = Disk::os();
    disk.write_atomic(&cert_file, cert.pem()).await.unwrap();
    disk.write_atomic(&key_file, signing_key.serialize_pem()).await.unwrap();
    (cert.der().clone(), cert_file, key_file)
}

/// A TLS client.
struct Client {
    tcp: TcpStream,
    session: Session,
    plain: Vec<u8>,
}

impl Client {
    async fn connect(at: std::net::SocketAddr, trusted: CertificateDer<'static>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session = Session::client(&Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let tcp = TcpStream::connect(at).await.unwrap();
        let mut c = Client { tcp, session, plain: Vec::new() };
        let mut hello = Vec::new();
        c.session.receive(&[], &mut hello, |_| {}).unwrap();
        c.write(&hello).await;
        while c.session.is_handshaking() {
            assert!(c.more().await, "the handshake is ended by the server");
        }
        c
    }
    async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.tcp.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.tcp.writable().await.unwrap(),
                Err(e) => panic!("{e}"),
            }
        }
    }
    async fn more(&mut self) -> bool {
        let mut raw = [0; 16 << 10];
        loop {
            env::timeout(PATIENCE, self.tcp.readable()).await.expect("something comes").unwrap();
            match self.tcp.try_read(&mut raw) {
                Ok(0) => return false,
                Ok(n) => {
                    let mut out = Vec::new();
                    let plain = &mut self.plain;
                    self.session.receive(&raw[..n], &mut out, |p| plain.extend_from_slice(p)).unwrap();
                    self.write(&out).await;
                    return !self.session.is_peer_closed();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        }
    }
    async fn say(&mut self, text: &str) {
        let mut out = Vec::new();
        self.session.send(text.as_bytes(), &mut out).unwrap();
        self.write(&out).await;
    }
}

#[test]
fn https_serves_what_http_serves() {
    env::run(async {
        let (cert, cert_file, key_file) = certificate("serves").await;
        // Clients of the NATS port must show certificates; whoever looks at monitoring need not.
        let server = new_server(&format!(
            "listen: \"127.0.0.1:-1\"\nhttps: \"127.0.0.1:-1\"\ntls: {{ cert_file: {cert_file:?}, key_file: {key_file:?}, ca_file: {cert_file:?}, verify: true }}"
        ));
        server.listen().await.unwrap();
        let https = server.bound.lock().https.unwrap();
        let mut c = Client::connect(https, cert).await;
        c.say("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /varz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        // The end is TLS's own, so that nothing can have been cut off.
        while c.more().await {}
        assert!(c.session.is_peer_closed());
        let text = String::from_utf8(std::mem::take(&mut c.plain)).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        let fields = [
            format!("\"https_port\": {}", https.port()),
            "\"http_port\": 0".to_string(),
            "\"tls_required\": true".to_string(),
            "\"tls_verify\": true".to_string(),
        ];
        for f in fields {
            assert!(text.contains(&f), "{f} in {text}");
        }
        // Who does not speak TLS is not served.
        let mut plain = Wire::connect(https).await;
        plain.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(!plain.rest().await.contains("HTTP/1.1"));
        server.stop();
    })
    .unwrap();
}

#[test]
fn m2_a_handshake_has_a_deadline() {
    env::run(async {
        let (_, cert_file, key_file) = certificate("deadline").await;
        let server = new_server(&format!(
            "listen: \"127.0.0.1:-1\"\nhttps: \"127.0.0.1:-1\"\ntls: {{ cert_file: {cert_file:?}, key_file: {key_file:?}, timeout: 0.2 }}"
        ));
        server.listen().await.unwrap();
        let at = server.bound.lock().https.unwrap();
        let begun = env::now();
        assert_eq!(Wire::connect(at).await.rest().await, "");
        assert!(begun.elapsed() >= std::time::Duration::from_millis(150));
        server.stop();
    })
    .unwrap();
}

#[test]
fn https_needs_a_certificate() {
    env::run(async {
        let mut o = server::options::Options { host: "127.0.0.1".into(), port: -1, ..Default::default() };
        o.https = Some(server::options::HttpOptions { host: "127.0.0.1".into(), port: -1 });
        let server = server::Server::new(o, Default::default()).unwrap();
        assert_eq!(
            server.listen().await.unwrap_err().0,
            ["Can't start monitoring: TLS cert and key required for HTTPS"]
        );
    })
    .unwrap();
}
