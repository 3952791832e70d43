//! What crosses from one account to another (B-3).
//!
//! A stream import is a shadow: a subscription in the exporter's interest for each subscription of the importer that it
//! touches, which carries the transform back to local subjects. A service import is an internal subscription in the
//! importer's interest that sends requests on into the exporter's account with a reply subject of our own; the answers
//! come back through one internal subscription in the exporter's account.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use env::Instant;
use parking_lot::Mutex;
use subject::Transform;

use crate::{
    Account, Broker, Inbound, Kind, Link, Message, Step, Sub, Trace,
    router::{Deliveries, Renamed},
    rules::{Export, Import, LatencyRule, Responses},
    trace,
};

/// Where reply subjects of service imports begin.
pub const REPLY_PREFIX: &[u8] = b"_R_.";
/// Requests of a service that wait for their answers, at most, in one exporting account.
const WAITING_MAX: usize = 1 << 20;

/// A stream import, ready for use.
pub(crate) struct StreamImport {
    pub exporter: Arc<Account>,
    pub allow_trace: bool,
    from: Vec<u8>,
    local: Vec<u8>,
    inward: Transform,
    outward: Option<Transform>,
}

impl StreamImport {
    pub fn new(exporter: Arc<Account>, import: &Import) -> Result<StreamImport, String> {
        let inward = import.inward()?;
        Ok(StreamImport {
            exporter,
            allow_trace: import.allow_trace,
            from: import.subject.clone(),
            local: import.local(),
            outward: inward.inverse(),
            inward,
        })
    }
    /// What must be subscribed in the exporter's account for a local subscription to `subject`, if anything.
    pub fn shadow(&self, subject: &[u8]) -> Option<(Vec<u8>, Transform)> {
        let pattern = if subject::is_subset(&self.local, subject) {
            self.from.clone()
        } else {
            let narrow = overlap(subject, &self.local)?;
            match &self.outward {
                Some(t) => {
                    let mut out = Vec::new();
                    t.write(&narrow, |_| 0, &mut out);
                    out
                }
                None => return None,
            }
        };
        Some((pattern, self.inward.clone()))
    }
}

/// The pattern of what both patterns match.
pub(crate) fn overlap(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    if !subject::collides(a, b) {
        return None;
    }
    let (mut x, mut y) = (subject::tokens(a), subject::tokens(b));
    let mut out: Vec<&[u8]> = Vec::new();
    loop {
        match (x.next(), y.next()) {
            (None, _) | (_, None) => break,
            (Some(b">"), Some(t)) => {
                out.push(t);
                out.extend(y);
                break;
            }
            (Some(t), Some(b">")) => {
                out.push(t);
                out.extend(x);
                break;
            }
            (Some(b"*"), Some(t)) | (Some(t), Some(_)) => out.push(t),
        }
    }
    Some(out.join(&b'.'))
}

/// A request that waits for its answer.
struct Waiting {
    importer: Weak<Account>,
    requestor: Arc<Link>,
    share: bool,
    reply: Vec<u8>,
    responses: Responses,
    threshold: Duration,
    deadline: Instant,
    latency: Option<LatencyRule>,
    start: env::Wall,
    started: Instant,
    /// Names of the trace headers that asked for a sample, with their values.
    trigger: Vec<(String, String)>,
}

/// What was measured of one request.
pub struct Latency<'a> {
    /// Where the result goes, in `exporter`.
    pub subject: &'a [u8],
    /// The account of the service.
    pub exporter: &'a Account,
    /// Who asked.
    pub requestor: &'a Link,
    /// Its account.
    pub importer: Option<Arc<Account>>,
    /// The exporter may learn who asks.
    pub share: bool,
    /// Who answered, if anybody.
    pub responder: Option<&'a Link>,
    /// 200, 400 (nowhere to answer to), 503 (nobody serves) or 504 (no answer in time).
    pub status: u16,
    /// When the request came.
    pub start: env::Wall,
    /// From then to the answer.
    pub total: Duration,
    /// The headers that asked for the sample.
    pub trigger: &'a [(String, String)],
}

/// What the server adds to messages that cross accounts.
pub trait Crossing: Send + Sync {
    /// The JSON of the header `Nats-Request-Info`; with `share` it says who asks. `before` is what stood there where the request
    /// has come to the importer by another import: then the requestor is in neither account.
    fn request_info(
        &self,
        requestor: &Link,
        importer: &Account,
        share: bool,
        before: Option<&[u8]>,
    ) -> String;
    /// A latency was measured.
    fn latency(&self, d: &mut Deliveries, l: &Latency<'_>);
    /// A message was traced.
    fn traced(&self, _: &mut Deliveries, _: &Trace) {}
    /// There is a new account.
    fn account_made(&self, _: &Arc<Account>) {}
    /// A message was put into the outbox of a traced link: its line, and its body of which so much is headers.
    fn sent(&self, _to: &Link, _line: &[u8], _body: &[u8], _header_len: usize) {}
    /// A subscription of a traced link has had its maximum.
    fn expired(&self, _: &Sub) {}
}

/// Answers on their way back, of one exporting account.
#[derive(Default)]
pub(crate) struct Replies {
    waiting: Mutex<BTreeMap<Vec<u8>, Waiting>>,
}

impl Replies {
    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

/// The receiver of all `_R_.>` in an exporting account.
pub(crate) struct AnswerBack {
    pub broker: Weak<Broker>,
    pub exporter: Weak<Account>,
}

impl Inbound for AnswerBack {
    fn serves(&self) -> bool {
        false
    }
    /// Whoever asked may wait in the other account.
    fn listens(&self, subject: &[u8]) -> bool {
        let asked = self.exporter.upgrade().and_then(|exporter| {
            let waiting = exporter.replies.waiting.lock();
            waiting.get(subject).and_then(|w| Some((w.importer.upgrade()?, w.reply.clone())))
        });
        asked.is_some_and(|(importer, reply)| importer.listens(&reply))
    }
    fn deliver(&self, d: &mut Deliveries, _: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let Some(exporter) = self.exporter.upgrade() else { return false };
        let mut waiting = exporter.replies.waiting.lock();
        let Some(w) = waiting.get_mut(m.subject) else { return false };
        let last = match w.responses {
            Responses::One => !env::planted!("service-answers-twice"),
            Responses::Many => false,
            Responses::Chunked => m.payload().is_empty(),
        };
        let (importer, reply, share) = (w.importer.upgrade(), w.reply.clone(), w.share);
        if d.trace.as_ref().is_some_and(|t| t.only) {
            // B-7: the request still waits for its true answer.
            drop(waiting);
            return importer.is_some_and(|i| {
                d.publish_answer(&i, from, &Message { subject: &reply, reply: m.reply, ..*m }) > 0
            });
        }
        w.deadline = env::now() + w.threshold;
        // The first answer is the one that is measured.
        let measured = w
            .latency
            .take()
            .map(|rule| (rule, w.start, w.started, w.requestor.clone(), std::mem::take(&mut w.trigger)));
        if last {
            waiting.remove(m.subject);
        }
        drop(waiting);
        let mut n = 0;
        if let Some(importer) = &importer {
            let importer = if env::planted!("answer-stays-in-exporter") { &exporter } else { importer };
            n = d.publish_answer(importer, from, &Message { subject: &reply, reply: m.reply, ..*m });
        }
        if let (Some((rule, start, started, requestor, trigger)), Some(b)) = (measured, self.broker.upgrade())
        {
            let l = Latency {
                subject: &rule.subject,
                exporter: &exporter,
                requestor: &requestor,
                importer,
                share,
                responder: Some(from),
                status: 200,
                start,
                total: started.elapsed(),
                trigger: &trigger,
            };
            b.crossing(|c| c.latency(d, &l));
        }
        n > 0
    }
}

/// The receiver of requests, in the importing account.
pub(crate) struct ServiceImport {
    pub broker: Weak<Broker>,
    pub importer: Weak<Account>,
    pub exporter: Arc<Account>,
    pub outward: Transform,
    pub export: Export,
    pub share: bool,
}

impl Inbound for ServiceImport {
    fn is_local(&self) -> bool {
        true
    }
    /// What it passes on stays what it is: the services of the other account know by that (B-11).
    fn serves(&self) -> bool {
        false
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, d: &mut Deliveries, _: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        if from.kind == Kind::Route {
            // The requestor's own server has done it.
            return false;
        }
        let (Some(importer), Some(broker)) = (self.importer.upgrade(), self.broker.upgrade()) else {
            return false;
        };
        let mut subject = Vec::new();
        if !self.outward.apply(m.subject, |n| d.below(n as usize) as u32, &mut subject) {
            return false;
        }
        let (account, from_subject) = (self.exporter.name.clone(), m.subject.to_vec());
        d.note(|| Step::ServiceImport { account, from: from_subject, to: subject.clone() });
        let Some(trace) = d.trace.take() else {
            return self.pass_on(d, from, m, &importer, &broker, &subject, None);
        };
        // A trace goes on in the exporter's account only if the exporter allows it.
        if self.export.allow_trace {
            let dest = if trace.only { trace::DISABLED.to_vec() } else { d.new_reply() };
            if !trace.only {
                let now = env::now();
                let back = Waiting {
                    importer: self.importer.clone(),
                    requestor: from.clone(),
                    share: false,
                    reply: trace.dest.clone(),
                    responses: Responses::Many,
                    threshold: self.export.threshold,
                    deadline: now + self.export.threshold,
                    latency: None,
                    start: env::wall(),
                    started: now,
                    trigger: Vec::new(),
                };
                self.exporter.wait(dest.clone(), back);
            }
            d.trace = Some(trace);
            return self.pass_on(d, from, m, &importer, &broker, &subject, Some(&dest));
        }
        // B-7
        let done =
            trace.only || self.pass_on(d, from, m, &importer, &broker, &subject, Some(trace::DISABLED));
        d.trace = Some(trace);
        done
    }
}

impl ServiceImport {
    /// Sends a request into the exporter's account; `trace` is what its trace header is to say there.
    #[allow(clippy::too_many_arguments)]
    fn pass_on(
        &self,
        d: &mut Deliveries,
        from: &Arc<Link>,
        m: &Message<'_>,
        importer: &Account,
        broker: &Arc<Broker>,
        subject: &[u8],
        trace: Option<&[u8]>,
    ) -> bool {
        // What is published in an account is subject to its mappings, whoever does it.
        let renamed =
            if self.exporter.has_mappings() { d.rename(&self.exporter, subject) } else { Renamed::No };
        let subject = match &renamed {
            Renamed::No => subject,
            Renamed::Dropped => return false,
            Renamed::To(to) => to,
        };
        // The exporter is told where a request comes from; a header block that the requestor set himself is replaced. What came here by
        // another import carries what the server has said of it there.
        let before = d.by_import.then(|| wire::headers::get(m.header(), REQUEST_INFO)).flatten();
        let info = broker.crossing(|c| c.request_info(from, importer, self.share, before));
        let mut body = Vec::with_capacity(m.body_crlf.len() + 64);
        let mut header_len = m.header_len;
        if let Some(info) = info {
            let mut without = Vec::new();
            if m.header_len > 0 {
                wire::headers::push_without(&mut without, m.header(), REQUEST_INFO);
            }
            wire::headers::push_with(&mut body, &without, REQUEST_INFO, info.as_bytes());
            if let Some(dest) = trace {
                body = trace::redirected(&body, dest);
            }
            header_len = body.len();
            body.extend_from_slice(&m.body_crlf[m.header_len..]);
        } else {
            body.extend_from_slice(m.body_crlf);
        }
        let mut message =
            Message { subject, reply: b"", header_len, body_crlf: &body, shared: None, shown: None };
        if d.trace.as_ref().is_some_and(|t| t.only) {
            return d.publish_import(&self.exporter, from, &message) > 0;
        }
        let trigger = self.export.latency.as_ref().and_then(|l| sampled(l, m, d));
        let latency = trigger.as_ref().and(self.export.latency.clone());
        let now = env::now();
        let waiting = Waiting {
            importer: self.importer.clone(),
            requestor: from.clone(),
            share: self.share,
            reply: m.reply.to_vec(),
            responses: self.export.responses,
            threshold: self.export.threshold,
            deadline: now + self.export.threshold,
            latency,
            start: env::wall(),
            started: now,
            trigger: trigger.unwrap_or_default(),
        };
        if m.reply.is_empty() {
            self.exporter.report(d, broker, &waiting, 400);
            return d.publish_import(&self.exporter, from, &message) > 0;
        }
        let reply = d.new_reply();
        message.reply = &reply;
        if !self.exporter.wait(reply.clone(), waiting) {
            return false;
        }
        if d.publish_import(&self.exporter, from, &message) > 0 {
            return true;
        }
        let unserved = self.exporter.replies.waiting.lock().remove(&reply);
        if let Some(w) = unserved {
            self.exporter.report(d, broker, &w, 503);
        }
        false
    }
}

/// The header that tells an exporter who asks.
pub const REQUEST_INFO: &str = "Nats-Request-Info";

/// Whether a request is to be measured, and the headers that say so.
fn sampled(rule: &LatencyRule, m: &Message<'_>, d: &mut Deliveries) -> Option<Vec<(String, String)>> {
    match rule.sampling {
        Some(percent) => (d.below(100) < usize::from(percent)).then(Vec::new),
        None => trace_headers(m.header()),
    }
}

/// The trace headers of a block, if they ask for a sample (Zipkin, B3, W3C).
fn trace_headers(block: &[u8]) -> Option<Vec<(String, String)>> {
    let found: Vec<_> = wire::headers::lines(block)
        .map(|(k, v)| (String::from_utf8_lossy(k).into_owned(), String::from_utf8_lossy(v).into_owned()))
        .filter(|(k, _)| {
            let k = k.to_ascii_lowercase();
            matches!(
                &*k,
                "uber-trace-id"
                    | "b3"
                    | "traceparent"
                    | "x-b3-sampled"
                    | "x-b3-traceid"
                    | "x-b3-spanid"
                    | "x-b3-parentspanid"
            )
        })
        .collect();
    let asks = found.iter().any(|(k, v)| match k.to_ascii_lowercase().as_str() {
        "uber-trace-id" => {
            v.rsplit(':').next().and_then(|f| u8::from_str_radix(f, 16).ok()).is_some_and(|f| f & 1 == 1)
        }
        "b3" => !matches!(v.as_str(), "0") && v.split('-').nth(2).is_none_or(|s| s == "1" || s == "d"),
        "traceparent" => {
            v.split('-').nth(3).and_then(|f| u8::from_str_radix(f, 16).ok()).is_some_and(|f| f & 1 == 1)
        }
        "x-b3-sampled" => v == "1",
        "x-b3-spanid" | "x-b3-parentspanid" => false,
        // A trace id without a decision leaves the decision to us.
        _ => !found.iter().any(|(k, _)| k.eq_ignore_ascii_case("x-b3-sampled")),
    });
    asks.then_some(found)
}

impl Account {
    /// Requests of its services that wait for answers.
    pub fn waiting_requests(&self) -> usize {
        self.replies.len()
    }
    /// Forgets requests whose answers are overdue. Call it every few seconds.
    pub fn sweep(&self, broker: &Broker, d: &mut Deliveries, now: Instant) {
        let due: Vec<Waiting> = {
            let mut waiting = self.replies.waiting.lock();
            if waiting.is_empty() {
                return;
            }
            waiting.extract_if(.., |_, w| w.deadline <= now).map(|(_, w)| w).collect()
        };
        for w in due {
            self.report(d, broker, &w, 504);
        }
    }
    /// Notes that answers to `reply` are awaited. False if there is no room.
    fn wait(&self, reply: Vec<u8>, w: Waiting) -> bool {
        let mut waiting = self.replies.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.insert(reply, w);
        true
    }
    fn report(&self, d: &mut Deliveries, broker: &Broker, w: &Waiting, status: u16) {
        let Some(rule) = &w.latency else { return };
        let l = Latency {
            subject: &rule.subject,
            exporter: self,
            requestor: &w.requestor,
            importer: w.importer.upgrade(),
            share: w.share,
            responder: None,
            status,
            start: w.start,
            total: w.started.elapsed(),
            trigger: &w.trigger,
        };
        broker.crossing(|c| c.latency(d, &l));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps() {
        for (a, b, both) in [
            ("foo.*", "*.bar", Some("foo.bar")),
            (">", "foo.*", Some("foo.*")),
            ("foo.>", "foo.bar.*", Some("foo.bar.*")),
            ("foo.bar.*", "foo.>", Some("foo.bar.*")),
            ("a.*.c", "a.b.>", Some("a.b.c")),
            ("a", "b", None),
            ("a.*", "a", None),
        ] {
            assert_eq!(overlap(a.as_bytes(), b.as_bytes()).as_deref(), both.map(str::as_bytes), "{a} {b}");
        }
    }

    #[test]
    fn trace_headers_ask_for_samples() {
        let block = |h: &str| format!("NATS/1.0\r\n{h}\r\n\r\n").into_bytes();
        for (h, yes) in [
            ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false),
            ("Uber-Trace-Id: 1:2:3:1", true),
            ("Uber-Trace-Id: 1:2:3:0", false),
            ("B3: 80f1-e457-1-05e3", true),
            ("B3: 0", false),
            ("X-B3-Sampled: 1", true),
            ("X-B3-Sampled: 0\r\nX-B3-TraceId: 1", false),
            ("X-B3-TraceId: 1", true),
            ("Foo: 1", false),
        ] {
            assert_eq!(trace_headers(&block(h)).is_some(), yes, "{h}");
        }
    }
}
