//! Whole connections over loopback: every way in, in pieces of every size, and every way to misbehave.

mod layers;
mod peer;
mod refusals;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use broker::{Broker, Closed};
use env::{net::TcpListener, task::JoinHandle};
use identity::{AuthConfig, Authenticator};
use parking_lot::Mutex;
use wire::info::Info;

use crate::{
    Client, ClosedClient, Context, Hooks, Settings, TlsSettings, WebSocketSettings,
    client::{listen, listen_websocket},
    tls::{
        KeyPair, TlsConfig, server_config,
        tests::{Authority, Signed},
    },
    ws::Rules,
};

#[derive(Default)]
struct Log(Arc<Mutex<Vec<String>>>);
impl Hooks for Log {
    fn connected(&self, _: &Client) {}
    fn disconnected(&self, _: &ClosedClient) {}
    fn auth_error(&self, _: &Client, _: &str) {}
    fn log(&self, level: &'static str, _: &Client, text: &str) {
        // That they come and go is no news here.
        if !text.starts_with("Client ") {
            self.0.lock().push(format!("{level} {text}"));
        }
    }
    fn log_unbound(&self, level: &'static str, text: &str) {
        self.0.lock().push(format!("{level} {text}"));
    }
}

/// A server with both ports.
struct Server {
    cx: Arc<Context>,
    client: SocketAddr,
    ws: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
    /// Ends that a test has looked at.
    seen: AtomicUsize,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|t| t.abort());
    }
}

impl Server {
    async fn start(change: impl FnOnce(&mut Settings)) -> Server {
        let mut settings = Settings {
            info: Info { server_id: "N".into(), proto: 1, headers: true, ..Info::default() },
            announced: 0,
            authenticator: Arc::new(Authenticator::new(AuthConfig::default(), [0; 32]).unwrap()),
            default_account: "$G".into(),
            system_account: None,
            control_line_bytes_max: 4096,
            payload_bytes_max: 4 << 20,
            pending_bytes_max: 64 << 20,
            connections_max: None,
            subscriptions_max: None,
            subscription_tokens_max: None,
            ping_interval: Duration::from_secs(60),
            pings_out_max: 2,
            write_deadline: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(2),
            no_stall: true,
            headers: true,
            closed_clients_max: 100,
            tls: None,
            proxy_protocol: None,
            websocket: None,
        };
        change(&mut settings);
        let log = Log::default();
        let lines = log.0.clone();
        // The same world as a server's: the test's own thread is the only worker.
        let workers = env::Workers::start(1).unwrap().all().to_vec();
        let cx = Context::new(Arc::new(Broker::default()), Box::new(log), workers, settings);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (a, b) = (TcpListener::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
        let (client, ws) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        let tasks = vec![
            env::spawn(listen(cx.clone(), a, std::future::pending())),
            env::spawn(listen_websocket(cx.clone(), b, std::future::pending())),
        ];
        Server { cx, client, ws, log: lines, tasks, seen: AtomicUsize::new(0) }
    }

    /// The next client that ends, or the last that did since this was asked.
    async fn closed(&self) -> Arc<ClosedClient> {
        loop {
            let mut all = self.cx.clients.closed();
            if all.len() > self.seen.swap(all.len(), Relaxed)
                && let Some(c) = all.pop()
            {
                return c;
            }
            env::sleep(Duration::from_millis(1)).await;
        }
    }
    async fn closed_for(&self, reason: Closed) {
        assert_eq!(self.closed().await.reason, reason, "{:?}", self.log.lock());
    }
    fn only_client(&self) -> Arc<Client> {
        let all = self.cx.clients.open();
        assert_eq!(all.len(), 1);
        all[0].clone()
    }
}

/// An authority and what it has signed, for both sides.
struct Pki {
    ca: Authority,
    server: Signed,
}

impl Pki {
    fn new() -> Pki {
        let ca = Authority::new("ca");
        let server = ca.server(&["localhost"]);
        Pki { ca, server }
    }
    fn config(&self) -> TlsConfig {
        let certs: Vec<KeyPair> = vec![self.server.pair()];
        TlsConfig { certs, ca: self.ca.pem.clone().into(), ..TlsConfig::default() }
    }
    fn tls(&self) -> TlsSettings {
        TlsSettings::new(server_config(&self.config()).unwrap().config)
    }
    fn verified(&self) -> TlsSettings {
        let config = TlsConfig { verify: true, ..self.config() };
        TlsSettings { verify: true, ..TlsSettings::new(server_config(&config).unwrap().config) }
    }
}

fn websocket(tls: Option<TlsSettings>) -> WebSocketSettings {
    WebSocketSettings {
        info: Info { server_id: "W".into(), proto: 1, headers: true, ..Info::default() },
        authenticator: None,
        auth_timeout: None,
        tls: tls.map(Arc::new),
        handshake_timeout: Duration::from_secs(2),
        rules: Rules { compression: true, ..Rules::default() },
        ping_interval: None,
    }
}

fn test<F: Future>(f: F) -> F::Output {
    // A test that hangs is a test that fails.
    let limit = Duration::from_secs(60);
    env::run(async { env::timeout(limit, f).await.expect("the test takes too long") }).unwrap()
}
