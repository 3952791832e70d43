//! Direct gets: messages as messages, past the JSON API. Served in the asker's task if nothing has to be read from the disk; those for the last messages of
//! subjects that were read together are looked up together.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use broker::{Deliveries, Gathered, Gatherer, Message};
use store::{Last, Need, Read, StreamSeq, View};

use stream::Now;

use super::streams::last_matching;
use crate::{
    account::{ACK, Assets, named},
    api::direct::{self, About, Direct, Start, UpTo, Which},
    cluster::calls::{Forward, Way},
    shell::Stream,
};

/// Bytes of one batch where the request sets none.
const BYTES_MAX: usize = 1 << 20;

/// Bytes of answers that are made before the first of them is sent.
const TOGETHER_MAX: usize = 256 << 10;

/// What a batch has sent so far, so that a need in between does not send twice.
#[derive(Default)]
struct Sent {
    next: u64,
    msgs: usize,
    bytes: usize,
    last: u64,
    pending: Option<u64>,
    list: Option<Vec<u64>>,
    up_to: u64,
    over: bool,
}

/// A message that is to be sent: its headers and its payload.
type Out = (Vec<u8>, bytes::Bytes);

/// Sends answers by the account's own post.
fn post(assets: &Assets, reply: &[u8], out: &[Out]) {
    let mut post = assets.posts.take();
    for (head, body) in out {
        post.send(reply, None, b"", head.len(), &[&head[..], &body[..]]);
    }
}

impl Gatherer for Stream {
    fn take(&self, d: &mut Deliveries, asked: &Gathered) {
        let (Some(me), Some(assets)) = (self.me.upgrade(), self.assets.upgrade()) else { return };
        match asked.prefix().starts_with(ACK) {
            true => me.take_acks(&assets, d, asked),
            false => me.take_gets(&assets, d, asked),
        }
    }
}

impl Stream {
    /// Acknowledgements of one consumer that came together: one look for it, under one lock.
    fn take_acks(self: &Arc<Stream>, assets: &Arc<Assets>, d: &mut Deliveries, acks: &Gathered) {
        let prefix = acks.prefix();
        let names = prefix.strip_prefix(ACK).and_then(|names| names.strip_suffix(b"."));
        let consumer = names.and_then(|n| n.get(self.name.len() + 1..)).and_then(named);
        let (wall, mono) = d.now();
        let mut odd = Vec::new();
        let taken = consumer.and_then(|consumer| {
            let at = Now { wall: wall.0, mono: mono.0 };
            self.acks(consumer, acks.iter().map(|(rest, _)| rest), acks.payload(), at, &mut odd)
        });
        let mut subject = prefix.to_vec();
        for (i, (rest, reply)) in acks.iter().enumerate() {
            // What looks like one and is not, or has no consumer here any more, goes the way of those that come alone.
            if taken.is_some() && !odd.contains(&i) {
                continue;
            }
            subject.truncate(prefix.len());
            subject.extend_from_slice(rest);
            let (way, hops, account, stream, headers) = (Way::Ack, 0, &b""[..], &b""[..], &b""[..]);
            let (subject, body) = (&subject[..], acks.payload());
            assets.take(Some(d), &Forward { way, hops, account, stream, subject, reply, headers, body });
        }
    }

    /// Direct gets of subjects' last messages that came together.
    fn take_gets(self: &Arc<Stream>, assets: &Arc<Assets>, d: &mut Deliveries, asked: &Gathered) {
        let subjects: Vec<&[u8]> = asked.iter().map(|(subject, _)| subject).collect();
        // Ends of headers and answer in `text`, for those that are answered at once.
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(asked.len()));
        if self.allows_direct() {
            // The view is gone before anything is sent.
            self.group().view().last_each(&subjects, |i, last| {
                let header_len = match last {
                    // Wildcards are found by another way, what is no text is nobody's, and much is sent one by one.
                    Last::Absent if !is_plain(subjects[i]) => None,
                    Last::Message(_) if text.len() >= TOGETHER_MAX || has_marks(subjects[i]) => None,
                    Last::Unsure => None,
                    Last::Absent => {
                        text.extend_from_slice(direct::NOT_FOUND);
                        Some(direct::NOT_FOUND.len())
                    }
                    Last::Message(m) => {
                        let start = text.len();
                        direct::push_headers(&mut text, &self.about(&m));
                        let header_len = text.len() - start;
                        text.extend_from_slice(m.body);
                        Some(header_len)
                    }
                };
                text.extend_from_slice(if header_len.is_some() { b"\r\n" } else { b"" });
                ends.push((header_len, text.len()));
            });
        }
        let mut at = 0;
        for (i, (subject, reply)) in asked.iter().enumerate() {
            let Some(&(header_len, end)) = ends.get(i) else {
                // It serves none any more, and the client was told that somebody does.
                assets.posts.take().status(reply, b"NATS/1.0 503\r\n\r\n");
                continue;
            };
            match header_len {
                Some(header_len) => {
                    let (body_crlf, shared, shown) = (&text[at..end], None, None);
                    let m = Message { subject: reply, reply: b"", header_len, body_crlf, shared, shown };
                    d.publish(&assets.account, &assets.desk, &m);
                }
                None => drop(self.direct_get(Some(d), Some(subject), reply, b"", b"")),
            }
            at = end;
        }
    }
}

/// Whether a wildcard's mark is anywhere in a subject.
fn has_marks(subject: &[u8]) -> bool {
    subject.iter().fold(false, |marks, b| marks | (*b == b'*') | (*b == b'>'))
}
/// Whether a subject means itself alone.
fn is_plain(subject: &[u8]) -> bool {
    !subject.is_empty() && str::from_utf8(subject).is_ok_and(|s| subject::is_literal(s.as_bytes()))
}

impl Stream {
    /// Whether it serves such requests.
    pub(crate) fn allows_direct(&self) -> bool {
        self.core.lock().rules.as_ref().is_some_and(|r| {
            let c = r.config();
            c.allow_direct || c.mirror_direct && c.mirror.is_some()
        })
    }

    /// Takes a request. False if this stream does not serve such requests.
    pub(crate) fn direct_get(
        self: &Arc<Stream>,
        mut d: Option<&mut Deliveries>,
        subject: Option<&[u8]>,
        reply: &[u8],
        headers: &[u8],
        body: &[u8],
    ) -> bool {
        if !self.allows_direct() {
            return false;
        }
        let Some(assets) = self.assets.upgrade() else { return false };
        if reply.is_empty() {
            return true;
        }
        let subject = match subject.map(str::from_utf8) {
            None => None,
            Some(Ok(s)) => Some(s),
            Some(Err(_)) => return true,
        };
        let ask = match direct::parse(subject, headers, body) {
            Ok(d) => d,
            Err(status) => {
                assets.posts.take().status(reply, status);
                return true;
            }
        };
        let mut sent = Sent::default();
        // What goes out now is written with all else that this publisher has sent, if it is here.
        let now = |d: &mut Option<&mut Deliveries>, out: Vec<Out>| {
            let Some(d) = d else { return post(&assets, reply, &out) };
            let mut text = Vec::new();
            for (head, body) in &out {
                text.clear();
                text.extend_from_slice(head);
                text.extend_from_slice(body);
                text.extend_from_slice(b"\r\n");
                let (shared, shown) = (None, None);
                let m = Message {
                    subject: reply,
                    reply: b"",
                    header_len: head.len(),
                    body_crlf: &text,
                    shared,
                    shown,
                };
                d.publish(&assets.account, &assets.desk, &m);
            }
        };
        let mut serve = |sent: &mut Sent| {
            if let Direct::One { which, no_headers } = &ask
                && let Some(d) = &mut d
            {
                let mut text = Vec::new();
                let header_len = self.one_whole(which, *no_headers, &mut text)?;
                let (shared, shown) = (None, None);
                let m = Message { subject: reply, reply: b"", header_len, body_crlf: &text, shared, shown };
                d.publish(&assets.account, &assets.desk, &m);
                return Ok(());
            }
            let (out, r) = self.serve_direct(&ask, sent);
            now(&mut d, out);
            r
        };
        let mut r = serve(&mut sent);
        while let Err(need) = r {
            let me = self.clone();
            let mut fetch = Box::pin(async move { me.group().fetch(need).await });
            // What the page cache holds is there at once.
            match fetch.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => r = serve(&mut sent),
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => {
                    let (me, reply) = (self.clone(), reply.to_vec());
                    env::spawn(async move {
                        if fetch.await.is_ok() {
                            me.serve_slowly(ask, &reply, sent).await;
                        }
                    });
                    return true;
                }
            }
        }
        true
    }

    /// Serves the rest of a request, whatever the disk has to answer.
    async fn serve_slowly(self: Arc<Stream>, ask: Direct, reply: &[u8], mut sent: Sent) {
        loop {
            let (out, r) = self.serve_direct(&ask, &mut sent);
            let Some(assets) = self.assets.upgrade() else { return };
            post(&assets, reply, &out);
            let Err(need) = r else { return };
            if self.group().fetch(need).await.is_err() {
                return;
            }
        }
    }

    /// Makes as many answers as go without the disk.
    fn serve_direct(&self, ask: &Direct, sent: &mut Sent) -> (Vec<Out>, Result<(), Need>) {
        // The view is gone before anything is sent.
        let mut out: Vec<Out> = Vec::new();
        let r = {
            let v = self.group().view();
            match ask {
                Direct::One { which, no_headers } => self.one(&v, which, *no_headers, &mut out),
                Direct::Batch { first, batch, max_bytes, no_headers } => {
                    self.batch(&v, first, *batch, *max_bytes, *no_headers, sent, &mut out)
                }
                Direct::Multi { subjects, from, up_to, batch, max_bytes } => {
                    self.last_of_many(&v, subjects, *from, up_to, *batch, *max_bytes, sent, &mut out)
                }
            }
        };
        (out, r)
    }

    fn about<'a>(&'a self, m: &store::Message<'a>) -> About<'a> {
        About {
            stream: self.name.as_bytes(),
            subject: m.subject,
            seq: m.seq.0,
            time: m.time,
            headers: m.headers,
        }
    }

    /// What a request for one message finds.
    fn found(v: &View<'_>, which: &Which) -> Result<Read, Need> {
        let seq = match which {
            Which::Seq(seq) => Some(StreamSeq(*seq)),
            Which::Last(subject) => last_matching(v, subject.as_bytes())?,
            other => find(v, other)?,
        };
        match seq {
            Some(seq) => v.get(seq),
            None => Ok(Read::Absent),
        }
    }

    /// Writes the whole answer of one message, to the end of its line; how long its headers are.
    fn one_whole(&self, which: &Which, bare: bool, text: &mut Vec<u8>) -> Result<usize, Need> {
        let found = Self::found(&self.group().view(), which)?;
        let Read::Valid(m) = found else {
            text.extend_from_slice(direct::NOT_FOUND);
            text.extend_from_slice(b"\r\n");
            return Ok(direct::NOT_FOUND.len());
        };
        let msg = m.message();
        // The headers say the subject once more, and the stream's name.
        text.reserve(m.record().len() + msg.subject.len() + self.name.len() + 160);
        if !bare {
            direct::push_headers(text, &self.about(&msg));
        }
        let header_len = text.len();
        text.extend_from_slice(msg.body);
        text.extend_from_slice(b"\r\n");
        Ok(header_len)
    }

    fn one(&self, v: &View<'_>, which: &Which, bare: bool, out: &mut Vec<Out>) -> Result<(), Need> {
        let Read::Valid(m) = Self::found(v, which)? else {
            out.push((direct::NOT_FOUND.to_vec(), Default::default()));
            return Ok(());
        };
        let (msg, mut head) = (m.message(), Vec::new());
        if !bare {
            direct::push_headers(&mut head, &self.about(&msg));
        }
        out.push((head, m.record().slice_ref(msg.body)));
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn batch(
        &self,
        v: &View<'_>,
        first: &Which,
        count: usize,
        max_bytes: usize,
        bare: bool,
        sent: &mut Sent,
        out: &mut Vec<Out>,
    ) -> Result<(), Need> {
        let filters: Vec<&[u8]> = match first {
            Which::Next(subject, _) => vec![subject.as_bytes()],
            _ => Vec::new(),
        };
        if sent.next == 0 {
            sent.next = match find(v, first)? {
                Some(s) => s.0,
                None => u64::MAX,
            };
        }
        let max = if max_bytes == 0 { BYTES_MAX } else { max_bytes };
        if sent.pending.is_none() {
            let n = if sent.next == u64::MAX { 0 } else { v.pending(&filters, StreamSeq(sent.next))? };
            sent.pending = Some(n);
        }
        while sent.msgs < count && sent.bytes < max && sent.next != u64::MAX {
            let Some(seq) = v.next(&filters, StreamSeq(sent.next))? else { break };
            if let Read::Valid(m) = v.get(seq)? {
                let (msg, mut head) = (m.message(), Vec::new());
                let size = msg.subject.len() + msg.headers.len() + msg.body.len();
                // As in nats-server nothing is counted down where no message says what is left.
                if !bare {
                    let left = sent.pending.unwrap_or(0).saturating_sub(1);
                    direct::push_batch_headers(&mut head, &self.about(&msg), left, sent.last);
                    sent.pending = Some(left);
                }
                out.push((head, m.record().slice_ref(msg.body)));
                (sent.msgs, sent.bytes, sent.last) = (sent.msgs + 1, sent.bytes + size, seq.0);
            }
            sent.next = seq.0 + 1;
        }
        let mut head = Vec::new();
        if sent.msgs == 0 && count > 0 {
            head.extend_from_slice(direct::NOT_FOUND);
        } else {
            direct::push_end(&mut head, sent.pending.unwrap_or(0), sent.last);
        }
        out.push((head, Default::default()));
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn last_of_many(
        &self,
        v: &View<'_>,
        subjects: &[String],
        from: u64,
        up_to: &UpTo,
        count: usize,
        max_bytes: usize,
        sent: &mut Sent,
        out: &mut Vec<Out>,
    ) -> Result<(), Need> {
        let end = |out: &mut Vec<Out>, status: &[u8]| out.push((status.to_vec(), Default::default()));
        if sent.list.is_none() {
            let t = v.totals();
            let upto = match up_to {
                UpTo::Now => t.last.0,
                UpTo::Seq(seq) => (*seq).min(t.last.0),
                UpTo::Time(time) => v.at_time(time.nanos())?.0.saturating_sub(1),
            };
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            for filter in subjects {
                v.subjects(filter.as_bytes(), |s, t| {
                    if t.first.0 <= upto {
                        match t.last.0 <= upto {
                            true => found.push(t.last.0),
                            false => wanted.push(s.to_vec()),
                        }
                    }
                    found.len() + wanted.len() <= direct::MULTI_MAX
                })?;
            }
            for s in &wanted {
                found.extend(v.last_of(s, StreamSeq(upto))?.map(|s| s.0));
            }
            found.sort_unstable();
            found.dedup();
            if found.len() > direct::MULTI_MAX {
                end(out, direct::TOO_MANY_RESULTS);
                return Ok(());
            }
            if found.is_empty() {
                end(out, direct::NO_RESULTS);
                return Ok(());
            }
            // Both are said of the subjects, wherever the answer is to begin.
            found.retain(|seq| *seq >= from);
            (sent.list, sent.up_to) = (Some(found), upto);
        }
        let list = sent.list.as_deref().unwrap_or_default();
        let max = if max_bytes == 0 { BYTES_MAX } else { max_bytes };
        let count = if count == 0 { usize::MAX } else { count };
        while sent.msgs < count.min(list.len()) && sent.bytes < max {
            let seq = list[sent.msgs];
            let left = (list.len() - sent.msgs - 1) as u64;
            if let Read::Valid(m) = v.get(StreamSeq(seq))? {
                let (msg, mut head) = (m.message(), Vec::new());
                sent.bytes += msg.subject.len() + msg.headers.len() + msg.body.len();
                direct::push_batch_headers(&mut head, &self.about(&msg), left, sent.last);
                out.push((head, m.record().slice_ref(msg.body)));
                sent.last = seq;
            }
            sent.msgs += 1;
        }
        let left = (list.len() - sent.msgs) as u64;
        let mut head = Vec::new();
        direct::push_multi_end(&mut head, left, sent.last, sent.up_to);
        out.push((head, Default::default()));
        sent.over = true;
        Ok(())
    }
}

/// Where a request begins.
fn find(v: &View<'_>, which: &Which) -> Result<Option<StreamSeq>, Need> {
    let none: [&[u8]; 0] = [];
    Ok(match which {
        Which::Seq(seq) => v.next(&none, StreamSeq(*seq))?,
        Which::Last(subject) => last_matching(v, subject.as_bytes())?,
        Which::Next(subject, start) => {
            let from = match start {
                Start::Seq(seq) => StreamSeq(*seq),
                Start::Time(t) => v.at_time(t.nanos())?,
            };
            v.next(&[subject.as_bytes()], from)?
        }
        Which::Time(t) => {
            let from = v.at_time(t.nanos())?;
            v.next(&none, from)?
        }
    })
}
