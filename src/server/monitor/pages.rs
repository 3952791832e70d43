//! From a path to an answer.

use std::sync::Arc;

use super::{json, metrics, options::*, query::Query, root, state::COUNTED};
use crate::Server;

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
    /// Pages of any origin may read it, as with nats-server.
    pub any_origin: bool,
    /// The methods that are allowed are to be named.
    pub allow: bool,
}

impl Answer {
    /// A JSON text.
    pub fn json(body: String) -> Answer {
        Answer { status: 200, content_type: "application/json", body, any_origin: true, allow: false }
    }
    /// A sentence.
    pub fn plain(status: u16, text: &str) -> Answer {
        let content_type = "text/plain; charset=utf-8";
        Answer { status, content_type, body: text.to_string(), any_origin: false, allow: false }
    }
}

/// Whether the answer for `path` takes time that grows with the number of connections or subscriptions.
fn is_heavy(path: &str) -> bool {
    ["/connz", "/subsz", "/subscriptionsz", "/accountz", "/accstatz", "/metrics"]
        .iter()
        .any(|p| path.ends_with(p))
}

/// Pages for which JetStream's tasks, and perhaps other servers, are asked.
const ASKING: [&str; 2] = ["/healthz", "/jsz"];

/// One of [`ASKING`]. Errors are sentences for the caller: his parameters are wrong.
async fn asking(s: &Arc<Server>, page: &str, q: &Query) -> Result<Answer, String> {
    if page == "/jsz" {
        let o = JszOptions::from_query(q)?;
        if !super::jsz_is_meant(s, &o) {
            return Err("filtered response: not leader".to_string());
        }
        let accounts = super::jsz_accounts(s, &o).await;
        return Ok(Answer::json(json::pretty(&super::jsz(s, &o, accounts))));
    }
    let h = super::healthz_now(s, &HealthzOptions::from_query(q)?).await;
    let status = h.status_code;
    if let Some(why) = h.why().filter(|why| s.log.is_due(why)) {
        s.log.warn(format_args!("Healthcheck failed: {why}"));
    }
    Ok(Answer { status, ..Answer::json(json::compact(&super::Healthz { status_code: 0, ..h })) })
}

/// Answers a request for `path`, on a thread of its own if that may take long (M-1).
pub async fn answer(s: &Arc<Server>, path: String, query: String) -> Answer {
    let page = path.strip_prefix(&base_path(&s.options().http_base_path));
    if let Some(page) = page.filter(|p| ASKING.contains(p)) {
        s.monitor.count(page);
        let answer = asking(s, page, &Query::parse(&query)).await;
        return answer.unwrap_or_else(|e| Answer::plain(400, &e));
    }
    if !is_heavy(&path) {
        return answer_here(s, &path, &query);
    }
    let server = s.clone();
    // The server goes back with the answer: its last owner must not be the thread that its end waits for.
    let job = s.monitor.elsewhere.run(move || (answer_here(&server, &path, &query), server));
    let Some(mut job) = job else { return Answer::plain(503, "too many monitoring requests") };
    job.wait().await.map_or_else(|| Answer::plain(503, "the server is stopping"), |(a, _)| a)
}

/// Answers a request for `path`.
fn answer_here(s: &Server, path: &str, query: &str) -> Answer {
    let not_found = || Answer::plain(404, "404 page not found\n");
    let o = s.options();
    let base = base_path(&o.http_base_path);
    let Some(path) = path.strip_prefix(&base) else { return not_found() };
    // The base path itself is the root page.
    let path = if path.is_empty() && !base.is_empty() {
        "/"
    } else if path == "/" && !base.is_empty() {
        return not_found();
    } else {
        path
    };
    let Ok(i) = COUNTED.binary_search(&path) else { return not_found() };
    s.monitor.count(COUNTED[i]);
    endpoint(s, path, &Query::parse(query), &base).unwrap_or_else(|e| Answer::plain(400, &e))
}

/// With a slash in front and none behind; empty for none.
fn base_path(p: &str) -> String {
    match p.trim_matches('/') {
        "" => String::new(),
        p => format!("/{p}"),
    }
}

/// Errors are sentences for the caller: his parameters are wrong.
fn endpoint(s: &Server, path: &str, q: &Query, base: &str) -> Result<Answer, String> {
    let ok = |body| Ok(Answer::json(body));
    match path {
        "/" => Ok(Answer {
            content_type: "text/html; charset=utf-8",
            any_origin: false,
            ..Answer::json(root::page(s, base))
        }),
        "/varz" => ok(json::pretty(&super::varz(s, &VarzOptions {}))),
        "/connz" => ok(json::pretty(&super::connz(s, &ConnzOptions::from_query(q)?)?)),
        "/routez" => ok(json::pretty(&super::routez(s, &RoutezOptions::from_query(q)?))),
        "/gatewayz" => ok(json::pretty(&super::gatewayz(s, &GatewayzOptions::from_query(q)?))),
        "/leafz" => ok(json::pretty(&super::leafz(s, &LeafzOptions::from_query(q)?))),
        "/subsz" | "/subscriptionsz" => ok(json::pretty(&super::subsz(s, &SubszOptions::from_query(q)?)?)),
        "/accountz" => ok(json::pretty(&super::accountz(s, &AccountzOptions::from_query(q)?)?)),
        "/accstatz" => ok(json::pretty(&super::accstatz(s, &AccountStatzOptions::from_query(q)?))),
        "/raftz" => match super::raftz(s, &RaftzOptions::from_query(q)?) {
            Some(groups) => ok(json::pretty(&groups)),
            None => Ok(Answer::plain(404, "No Raft nodes registered")),
        },
        "/ipqueuesz" => ok(json::pretty3(&super::ipqueuesz(s, &IpqueueszOptions::from_query(q)?))),
        "/debug/vars" => {
            let v = super::expvarz(s, &ExpvarzOptions {});
            let body = format!(
                "{{\n\"cmdline\": {},\n\"memstats\": {}\n}}\n",
                json::compact(&v.cmdline),
                json::compact(&v.memstats)
            );
            Ok(Answer {
                content_type: "application/json; charset=utf-8",
                any_origin: false,
                ..Answer::json(body)
            })
        }
        "/stacksz" => Ok(Answer::plain(
            200,
            &format!(
                "{} worker threads run this server. Their stacks cannot be listed from inside; use a debugger or perf.\n",
                s.workers()
            ),
        )),
        "/metrics" => Ok(Answer {
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            ..Answer::plain(200, &metrics::page(s))
        }),
        _ => Ok(Answer::plain(404, "404 page not found\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_paths() {
        for (p, want) in [("", ""), ("/", ""), ("nats", "/nats"), ("/a/b/", "/a/b")] {
            assert_eq!(base_path(p), want);
        }
    }
}
