//! What connections tell the server.

use std::sync::{Arc, OnceLock, Weak};

use broker::{Account, Crossing, Deliveries, Latency, Link, Sub, Trace};
use links::{Client, ClosedClient};

use crate::{Server, events, log::Log};

/// The server as its connections see it. The server is made after it, so it is filled in later.
#[derive(Clone)]
pub struct ServerHooks {
    server: Arc<OnceLock<Weak<Server>>>,
    log: Arc<Log>,
}

impl ServerHooks {
    /// Hooks, and the place where the server is to be put.
    pub fn new(log: Arc<Log>) -> (ServerHooks, Arc<OnceLock<Weak<Server>>>) {
        let slot = Arc::new(OnceLock::new());
        (ServerHooks { server: slot.clone(), log }, slot)
    }
    fn server(&self) -> Option<Arc<Server>> {
        self.server.get()?.upgrade()
    }
    /// Whether lines of that level are to be written.
    fn wants(&self, level: &str) -> bool {
        match level {
            "DBG" => self.log.debugs(),
            "TRC" => self.log.traces(),
            _ => true,
        }
    }
}

/// The head of a log line about a client.
fn prefix(c: &Client) -> String {
    let f = c.facts.lock();
    let mark = if f.kind == "websocket" { "wid" } else { "cid" };
    let mut text = format!("{} - {mark}:{}", c.peer, c.link.id);
    // What somebody says of himself counts once he was let in: those who watch the log for the others know the line by its front.
    if f.identity.is_none() || f.account.is_empty() {
        return text;
    }
    let version = if f.version.is_empty() { String::new() } else { format!("v{}", f.version) };
    let named: Vec<&str> =
        [&version, &f.lang, &f.name].into_iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    if !named.is_empty() {
        text += &format!(" - {:?}", named.join(":"));
    }
    if !f.user.is_empty() {
        let what = if identity::is_public_user_key(&f.user) { "nkey" } else { "user" };
        text += &format!(" - {:?}", format!("{}/{what}:{}", f.account, f.user));
    }
    text
}

/// Why most logins fail, as connz says it.
const USUAL_REASON: &str = "Authentication Failure";

/// What a refused client called itself, as nats-server puts it in its log. A token is shown as a mark only.
fn tried(user: &str) -> String {
    match user {
        "" => String::new(),
        "[REDACTED]" => " - Token \"[REDACTED]\"".to_string(),
        key if identity::is_public_user_key(key) => format!(" - Nkey \"{key}\""),
        name => format!(" - User {name:?}"),
    }
}

impl links::Hooks for ServerHooks {
    fn connected(&self, client: &Client) {
        if let Some(s) = self.server() {
            events::connected(&s, client);
        }
    }
    fn disconnected(&self, client: &ClosedClient) {
        if let Some(s) = self.server() {
            events::disconnected(&s, client);
        }
    }
    fn auth_error(&self, client: &Client, reason: &str) {
        let who = tried(&client.facts.lock().user);
        // The usual reason says nothing that the line does not say already.
        let why = if reason == USUAL_REASON { String::new() } else { format!(": {reason}") };
        self.log.error(format_args!("{} - authentication error{who}{why}", prefix(client)));
        if let Some(s) = self.server() {
            events::auth_error(&s, client, reason);
        }
    }
    fn log(&self, level: &'static str, client: &Client, text: &str) {
        if self.wants(level) {
            self.log.line(level, format_args!("{} - {text}", prefix(client)));
        }
    }
    fn log_rarely(&self, level: &'static str, client: &Client, text: &str) {
        if self.log.is_due(text) {
            links::Hooks::log(self, level, client, text);
        }
    }
    fn log_unbound(&self, level: &'static str, text: &str) {
        if self.wants(level) {
            self.log.line(level, format_args!("{text}"));
        }
    }
    fn tracing(&self) -> Option<links::Tracing> {
        self.log.tracing()
    }
}

impl Crossing for ServerHooks {
    fn request_info(
        &self,
        requestor: &Link,
        importer: &Account,
        share: bool,
        before: Option<&[u8]>,
    ) -> String {
        self.server()
            .map(|s| events::request_info(&s, requestor, importer, share, before))
            .unwrap_or_else(|| "{}".into())
    }
    fn latency(&self, d: &mut Deliveries, l: &Latency<'_>) {
        if let Some(s) = self.server() {
            events::latency(&s, d, l);
        }
    }
    fn traced(&self, d: &mut Deliveries, t: &Trace) {
        if let Some(s) = self.server() {
            events::traced(&s, d, t);
        }
    }
    fn account_made(&self, account: &Arc<Account>) {
        if let Some(s) = self.server() {
            events::account_made(&s, account);
            crate::jetstream::account_made(&s, account);
        }
    }
    fn sent(&self, to: &Link, line: &[u8], body: &[u8], header_len: usize) {
        let Some(tracing) = self.log.tracing() else { return };
        let Some(client) = self.server().and_then(|s| s.links.clients.get(to.id)) else { return };
        let (line, payload) = links::trace::delivered(line, body, header_len, &tracing);
        for text in [Some(line), payload].into_iter().flatten() {
            links::Hooks::log(self, "TRC", &client, &text);
        }
    }
    fn expired(&self, sub: &Sub) {
        if let Some(client) = self.server().and_then(|s| s.links.clients.get(sub.link.id)) {
            links::Hooks::log(self, "TRC", &client, &links::trace::expired(sub));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tried;

    #[test]
    fn a_refused_client_is_named_as_nats_server_names_it() {
        assert_eq!(tried(""), "");
        assert_eq!(tried("zz"), " - User \"zz\"");
        assert_eq!(tried("[REDACTED]"), " - Token \"[REDACTED]\"");
        let key = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
        assert_eq!(tried(key), format!(" - Nkey \"{key}\""));
    }
}
