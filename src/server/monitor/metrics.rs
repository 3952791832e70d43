//! `/metrics`: the text format of Prometheus, version 0.0.4.
//!
//! Own names begin with `fulmar_`. Names that begin with `gnatsd_` are those under which the NATS exporter publishes the
//! same figures, so that dashboards made for it work; see docs/design/0007-monitoring.md.

use std::fmt::Write;

use super::options::{HealthzOptions, VarzOptions};
use crate::{Server, VERSION, options::NATS_VERSION};

/// Accounts that are listed, at most: each costs a series a metric.
const ACCOUNTS_MAX: usize = 1000;

/// A page in the making.
struct Page {
    out: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a String takes all text");
    }
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], v: f64) {
        self.out += name;
        for (i, (k, l)) in labels.iter().enumerate() {
            self.put(format_args!("{}{k}=\"{}\"", if i == 0 { '{' } else { ',' }, escape(l)));
        }
        if !labels.is_empty() {
            self.out += "}";
        }
        self.put(format_args!(" {v}\n"));
    }
    fn one(&mut self, name: &str, kind: &str, help: &str, v: f64) {
        self.head(name, kind, help);
        self.sample(name, &[], v);
    }
    fn counter(&mut self, name: &str, help: &str, v: u64) {
        self.one(name, "counter", help, v as f64)
    }
    fn gauge(&mut self, name: &str, help: &str, v: usize) {
        self.one(name, "gauge", help, v as f64)
    }
}

fn escape(s: &str) -> String {
    s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page.
pub fn page(s: &Server) -> String {
    let mut p = Page { out: String::with_capacity(8 << 10) };
    server(&mut p, s);
    accounts(&mut p, s);
    exporter(&mut p, s);
    p.out
}

fn server(p: &mut Page, s: &Server) {
    let stats = &s.broker.stats;
    p.head("fulmar_info", "gauge", "Always 1; what runs is in the labels.");
    let labels = [
        ("server_id", s.id()),
        ("server_name", &*s.name),
        ("version", VERSION),
        ("nats_version", NATS_VERSION),
    ];
    p.sample("fulmar_info", &labels, 1.0);
    p.one("fulmar_start_time_seconds", "gauge", "Start of the server, Unix time.", s.start.0 as f64 / 1e9);
    let loaded = s.config_time.lock().0 as f64 / 1e9;
    p.one(
        "fulmar_config_load_time_seconds",
        "gauge",
        "When the configuration was last read, Unix time.",
        loaded,
    );
    p.gauge("fulmar_workers", "Worker threads.", s.workers());
    let healthy = super::healthz(s, &HealthzOptions::default()).status_code == 200;
    p.gauge("fulmar_healthy", "1 if /healthz is green.", usize::from(healthy));
    p.gauge("fulmar_lame_duck", "1 once the server is a lame duck.", usize::from(s.is_lame_duck()));
    p.one(
        "fulmar_cpu_seconds_total",
        "counter",
        "Processor time that was used.",
        env::process::cpu_seconds(),
    );
    p.gauge("fulmar_resident_memory_bytes", "Memory that is held.", env::process::rss_bytes() as usize);
    p.gauge("fulmar_connections", "Clients that are connected.", s.links.clients.len());
    p.counter("fulmar_connections_total", "Connections that were opened.", stats.connections_total.get());
    p.gauge("fulmar_subscriptions", "Subscriptions in all accounts.", s.broker.subscriptions());
    p.counter("fulmar_received_messages_total", "Messages that came in.", stats.in_msgs.get());
    p.counter("fulmar_received_bytes_total", "Their headers and payloads.", stats.in_bytes.get());
    p.counter("fulmar_sent_messages_total", "Deliveries.", stats.out_msgs.get());
    p.counter("fulmar_sent_bytes_total", "Their headers and payloads.", stats.out_bytes.get());
    let help = "Connections that were closed because they did not read.";
    p.counter("fulmar_slow_consumers_total", help, stats.slow_consumers.get());
    let help = "Connections that were closed because they did not answer.";
    p.counter("fulmar_stale_connections_total", help, stats.stale.get());
    let help = "Times a publisher was held back for a receiver.";
    p.counter("fulmar_stalls_total", help, stats.stalled.get());
    p.head("fulmar_monitor_requests_total", "counter", "Requests to monitoring.");
    for (path, n) in s.monitor.requests() {
        p.sample("fulmar_monitor_requests_total", &[("path", path)], n as f64);
    }
}

fn accounts(p: &mut Page, s: &Server) {
    let all = s.broker.accounts();
    p.gauge("fulmar_accounts", "Accounts.", all.len());
    type Figure = fn(&broker::Account) -> u64;
    let figures: [(&str, &str, &str, Figure); 8] = [
        ("connections", "gauge", "Clients of the account.", |a| a.connections() as u64),
        ("subscriptions", "gauge", "Its subscriptions.", |a| a.subscriptions() as u64),
        ("received_messages_total", "counter", "Messages that its clients sent.", |a| a.stats.in_msgs.get()),
        ("received_bytes_total", "counter", "Their headers and payloads.", |a| a.stats.in_bytes.get()),
        ("sent_messages_total", "counter", "Deliveries to its clients.", |a| a.stats.out_msgs.get()),
        ("sent_bytes_total", "counter", "Their headers and payloads.", |a| a.stats.out_bytes.get()),
        ("slow_consumers_total", "counter", "Clients that did not read.", |a| a.stats.slow_consumers.get()),
        ("waiting_requests", "gauge", "Requests of its services that wait for answers.", |a| {
            a.waiting_requests() as u64
        }),
    ];
    for (name, kind, help, figure) in figures {
        let name = format!("fulmar_account_{name}");
        p.head(&name, kind, help);
        for a in all.iter().take(ACCOUNTS_MAX) {
            p.sample(&name, &[("account", &a.name)], figure(a) as f64);
        }
    }
}

/// The figures of the NATS exporter that dashboards use, under its names.
fn exporter(p: &mut Page, s: &Server) {
    let v = super::varz(s, &VarzOptions {});
    let figures = [
        ("connections", v.connections as f64),
        ("total_connections", v.total_connections as f64),
        ("routes", v.routes as f64),
        ("remotes", v.remotes as f64),
        ("leafnodes", v.leafnodes as f64),
        ("in_msgs", v.in_msgs as f64),
        ("in_bytes", v.in_bytes as f64),
        ("out_msgs", v.out_msgs as f64),
        ("out_bytes", v.out_bytes as f64),
        ("slow_consumers", v.slow_consumers as f64),
        ("stale_connections", v.stale_connections as f64),
        ("subscriptions", v.subscriptions as f64),
        ("cpu", v.cpu),
        ("mem", v.mem as f64),
        ("cores", v.cores as f64),
        ("gomaxprocs", v.gomaxprocs as f64),
        ("max_connections", v.max_connections as f64),
        ("max_payload", v.max_payload as f64),
        ("max_pending", v.max_pending as f64),
        ("max_control_line", v.max_control_line as f64),
        ("ping_max", f64::from(v.ping_max)),
        ("ping_interval", v.ping_interval as f64),
        ("write_deadline", v.write_deadline as f64),
        ("auth_timeout", v.auth_timeout),
        ("tls_timeout", v.tls_timeout),
    ];
    let labels = [("server_id", &*v.server_id)];
    for (name, n) in figures {
        let name = format!("gnatsd_varz_{name}");
        p.head(&name, "gauge", "As in /varz.");
        p.sample(&name, &labels, n);
    }
    for (name, n) in [("num_connections", v.connections), ("total", v.connections)] {
        let name = format!("gnatsd_connz_{name}");
        p.head(&name, "gauge", "As in /connz.");
        p.sample(&name, &labels, n as f64);
    }
    p.head("gnatsd_subsz_num_subscriptions", "gauge", "As in /subsz.");
    p.sample("gnatsd_subsz_num_subscriptions", &labels, v.subscriptions as f64);
    p.head("gnatsd_healthz_status", "gauge", "0 if /healthz is green, else 1.");
    let green = super::healthz(s, &HealthzOptions::default()).status_code == 200;
    p.sample("gnatsd_healthz_status", &labels, f64::from(u8::from(!green)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut p = Page { out: String::new() };
        p.sample("a", &[("x", "q\"\\\n"), ("y", "z")], 1.5);
        p.sample("b", &[], 3.0);
        assert_eq!(p.out, "a{x=\"q\\\"\\\\\\n\",y=\"z\"} 1.5\nb 3\n");
    }
}
