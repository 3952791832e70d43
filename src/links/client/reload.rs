//! What new settings do to a connection that is here already.
//!
//! Owns the change of one connection's rights and limits. Decides nothing about who stays: `identity` does. What the
//! settings say of new connections only (TLS, the PROXY header) is none of its business.
//!
//! Invariant:
//! * L-11: a client does nothing under settings that are no longer in force: whatever it sends after a reload has been
//!   announced is judged by the new ones, and subscriptions that they do not allow are gone.

use std::sync::Arc;

use broker::Closed;
use identity::{Authenticator, Identity, Renewal, Verdict};

use super::Connection;

impl Connection {
    /// What becomes of somebody whom `before` let in.
    pub(super) fn renewal(&self, before: &Arc<Authenticator>, who: &Identity) -> Renewal {
        let now = self.authenticator();
        if Arc::ptr_eq(now, before) {
            return Renewal::Keep(who.clone());
        }
        now.renew(before, who, self.connection_type())
    }

    /// New settings are in force; `before` decided logins until now.
    pub(super) fn reloaded(&mut self, before: &Arc<Authenticator>) {
        let s = &self.settings;
        self.limits.max_control_line = s.control_line_bytes_max.min(super::CONTROL_LINE_BYTES_MAX);
        self.link.set_pending_bytes_max(s.pending_bytes_max);
        self.deadlines.ping = self.deadlines.ping.min(env::now() + self.ping_interval());
        if self.link.closed().is_some() {
            return;
        }
        let who = self.client.facts.lock().identity.clone();
        let Some(who) = who.filter(|_| self.connected) else { return self.reloaded_early() };
        match self.renewal(before, &who) {
            Renewal::Keep(identity) => self.renewed(&who, identity),
            Renewal::Removed => self.link.close(Closed::ClientClosed),
            Renewal::Reject(reason) => self.unauthorized(reason),
        }
    }

    /// New settings before the login.
    fn reloaded_early(&mut self) {
        let required = self.authenticator().is_required();
        if required && self.router.is_some() {
            // It was let in without a login, and may have published already (L-1).
            return self.unauthorized(identity::Reason::NoCredentials);
        }
        if !required {
            self.deadlines.auth = None;
        }
        self.payload_bytes_max = self.settings.payload_bytes_max;
        self.limits.max_payload = self.payload_bytes_max;
    }

    /// L-11: the client stays, and from here on what it may do is what the new settings say.
    fn renewed(&mut self, was: &Identity, identity: Identity) {
        let same = match (&was.permissions, &identity.permissions) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !same {
            self.link.set_permissions(identity.permissions.clone());
            if let (Some(r), Some(account)) = (&mut self.router, self.link.account()) {
                r.rebind(account);
            }
            self.judge_subscriptions(&identity);
        }
        self.limit(&identity);
        self.client.facts.lock().identity = Some(identity);
        if self.link.subscriptions() > self.link.subscriptions_max() {
            self.refuse("maximum subscriptions exceeded", Closed::MaximumSubscriptionsExceeded);
        }
        self.link.flush();
    }

    /// Removes the subscriptions that the new permissions do not allow, each with an error.
    fn judge_subscriptions(&self, identity: &Identity) {
        let Some(account) = self.link.account() else { return };
        for sub in self.link.list_subscriptions() {
            let p = &identity.permissions;
            let verdict = p.as_ref().map_or(Verdict::Allow, |p| p.can_subscribe(sub.subject(), sub.queue()));
            if verdict != Verdict::Deny {
                sub.set_filtered(verdict == Verdict::AllowFiltered);
                continue;
            }
            self.link.unsubscribe(&account, sub.sid(), 0);
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            let mut what = format!("\"{}\"", text(sub.subject()));
            if let Some(queue) = sub.queue_name() {
                what += &format!(" using queue \"{}\"", text(queue));
            }
            what += &format!(" (sid \"{}\")", text(sub.sid()));
            let line = format!("Removed sub {what} for User {:?} - not authorized", identity.name);
            self.cx.hooks.log_unbound("INF", &line);
            self.error(&format!("Permissions Violation for Subscription to {what}"));
        }
    }
}
