//! bench
use std::{sync::Arc, time::Duration};
struct H;
impl links::Hooks for H {
    fn connected(&self, _: &links::Client) {}
    fn disconnected(&self, _: &links::ClosedClient) {}
    fn auth_error(&self, _: &links::Client, _: &str) {}
    fn log(&self, _: &'static str, _: &links::Client, _t: &str) {}
}
fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    env::run(async move {
        let workers = env::Workers::start(env::Workers::cores()).unwrap();
        let broker = Arc::new(broker::Broker::default());
        let info = wire::info::Info { server_id: "N".into(), server_name: "x".into(), version: "2.15.1".into(), proto: 1, host: "127.0.0.1".into(), port, headers: true, max_payload: 1 << 20, ..Default::default() };
        let s = links::Settings { info, authenticator: Default::default(), default_account: "$G".into(), system_account: None, control_line_bytes_max: 4096, payload_bytes_max: 1 << 20, pending_bytes_max: 64 << 20, connections_max: None, subscriptions_max: None, subscription_tokens_max: None, ping_interval: Duration::from_secs(120), pings_out_max: 2, write_deadline: Duration::from_secs(10), auth_timeout: Duration::from_secs(2), no_stall: false, headers: true, closed_clients_max: 100 };
        let cx = links::Context::new(broker, Box::new(H), workers.all().to_vec(), s);
        let l = env::net::TcpListener::bind(([127, 0, 0, 1], port).into()).await.unwrap();
        links::client::listen(cx, l, std::future::pending()).await;
    }).unwrap();
}
