//! The page at `/`, for people.

use super::json;
use crate::{Server, VERSION, options::NATS_VERSION};

/// Endpoints that are worth a link, with what they are.
const LINKS: [(&str, &str); 14] = [
    ("varz", "General"),
    ("jsz", "JetStream"),
    ("connz", "Connections"),
    ("accountz", "Accounts"),
    ("accstatz", "Account statistics"),
    ("subsz", "Subscriptions"),
    ("routez", "Routes"),
    ("leafz", "Leaf nodes"),
    ("gatewayz", "Gateways"),
    ("raftz", "Raft groups"),
    ("ipqueuesz", "Queues"),
    ("healthz", "Health"),
    ("metrics", "Prometheus metrics"),
    ("debug/vars", "Process"),
];

/// The page.
pub fn page(s: &Server, base: &str) -> String {
    let name = escape(&s.name);
    let up = json::age(s.started.elapsed());
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{name}</title>\n\
         <style>body{{font:16px/1.6 system-ui,sans-serif;margin:2rem;color:#223}}a{{color:#15608a}}\
         code{{color:#667}}</style>\n</head>\n<body>\n<h1>{name}</h1>\n\
         <p>Fulmar {VERSION}, NATS {NATS_VERSION}, up {up}.</p>\n<ul>\n"
    );
    for (path, what) in LINKS {
        out += &format!("<li><a href=\"{}/{path}\">{what}</a> <code>/{path}</code></li>\n", escape(base));
    }
    out += "</ul>\n</body>\n</html>\n";
    out
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_escaped() {
        assert_eq!(super::escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
