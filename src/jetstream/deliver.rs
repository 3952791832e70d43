//! The way out: what consumers want to be done, carried out.
//!
//! Deliveries are made under the stream's lock and sent without it (J-23). One task at a time delivers for a stream, so that what a
//! consumer decided first is sent first; whoever finds somebody delivering says `again` and goes.

use std::{sync::Arc, time::Duration};

use store::Need;
use stream::consumer::{AckSubject, Deliver, Output, Status};

use crate::{
    advisory,
    api::text::push_number,
    consumers::{Pumped, ROUND},
    post::Post,
    shell::Stream,
};

/// How long a stream pauses whose receivers are nearly full.
const CONGESTED: Duration = Duration::from_millis(5);

/// Payloads from this size on are written from where they were read. A slow receiver may hold on to a mebibyte for each that it has not taken (what was read
/// or published together), so that it is not done with small ones.
const LOOSE_BYTES_MIN: usize = 64 << 10;

/// Pause before a leader that nobody answers asks again whether it still leads.
const UNSURE: Duration = Duration::from_millis(50);

/// What a consumer wants to be done, in its order.
pub(crate) struct Task {
    pub consumer: Arc<str>,
    pub subject: Arc<AckSubject>,
    pub outputs: Vec<Output>,
}

/// How a round of deliveries ended.
enum Round {
    /// Nothing more to deliver now.
    Over,
    /// There is more.
    More,
    /// The disk has to answer first.
    Need(Need),
    /// Whether it still leads has to be found out first (K-10): who does not know that another leads would give what is done with.
    Unsure,
}

impl Stream {
    /// Delivers what can be delivered now. What needs the disk, or is too much for one turn, goes on in a task of its own.
    pub(crate) fn pump(self: &Arc<Stream>) {
        {
            let mut core = self.core.lock();
            if core.pumping {
                core.again = true;
                return;
            }
            if !core.consumers.has_work() {
                return;
            }
            core.pumping = true;
        }
        let mut tasks = Vec::new();
        match self.round(&mut tasks, None) {
            (Round::Over, false) => {}
            (round, congested) => {
                env::spawn(self.clone().pump_on(round, congested));
            }
        }
    }

    /// Goes on delivering until nothing is left.
    async fn pump_on(self: Arc<Stream>, mut round: Round, mut congested: bool) {
        let mut tasks = Vec::new();
        loop {
            let mut confirmed = None;
            if congested {
                env::sleep(CONGESTED).await;
            }
            match round {
                Round::Over => return,
                Round::More => tokio::task::yield_now().await,
                Round::Need(need) => {
                    if let Err(e) = self.group().fetch(need).await
                        && let Some(node) = self.node.upgrade()
                    {
                        node.host
                            .log("ERR", &format!("JetStream stream '{} > {}': {e}", self.account, self.name));
                        // Not in a hurry: the disk may come back.
                        env::sleep(Duration::from_secs(1)).await;
                    }
                }
                Round::Unsure => {
                    let asked = env::now().0;
                    match self.confirm().await {
                        Ok(()) => confirmed = Some(asked),
                        // Leadership has gone or is going.
                        Err(_) => env::sleep(UNSURE).await,
                    }
                }
            }
            (round, congested) = self.round(&mut tasks, confirmed);
        }
    }

    /// One round: decide under the lock, send without it. Keeps `pumping` unless it is over. `confirmed`: when a question was asked to which the
    /// others have said by now that nobody else led.
    fn round(self: &Arc<Stream>, tasks: &mut Vec<Task>, confirmed: Option<u64>) -> (Round, bool) {
        tasks.clear();
        let (mut round, handle) = {
            let mut core = self.core.lock();
            core.again = false;
            let r = core.pump(self, confirmed, tasks);
            let handle = core.wants_group().then(|| core.handle.clone()).flatten();
            let r = match r {
                Err(need) => Round::Need(need),
                Ok(Pumped::Unsure) => Round::Unsure,
                Ok(_) if tasks.iter().map(|t| t.outputs.len()).sum::<usize>() >= ROUND => Round::More,
                Ok(_) => Round::Over,
            };
            (r, handle)
        };
        if let Some(h) = handle {
            h.wake();
        }
        let congested = self.carry(tasks);
        if matches!(round, Round::Over) {
            let mut core = self.core.lock();
            if std::mem::take(&mut core.again) {
                round = Round::More;
            } else {
                core.pumping = false;
                drop(core);
                self.wound_up();
            }
        }
        (round, congested)
    }

    /// Carries out what consumers want, in order; not under the lock. Whether a receiver is nearly full.
    pub(crate) fn carry(self: &Arc<Stream>, tasks: &mut Vec<Task>) -> bool {
        if tasks.is_empty() {
            return false;
        }
        let (Some(assets), Some(node)) = (self.assets.upgrade(), self.node.upgrade()) else {
            tasks.clear();
            return false;
        };
        let mut post = assets.posts.take();
        let mut missed = Vec::new();
        let mut reply = Vec::with_capacity(128);
        let mut head = Vec::new();
        for t in tasks.drain(..) {
            for output in t.outputs {
                match output {
                    Output::Deliver(d) => {
                        if deliver(&mut post, &t.subject, &d, &mut reply, &mut head) == 0 {
                            missed.push((t.consumer.clone(), d.message.seq, d.to));
                        }
                    }
                    Output::Status(s) => status(&mut post, &s, &mut head),
                    Output::AckReply { to } => {
                        post.plain(&to, b"");
                    }
                    Output::Advisory(a) => {
                        advisory::consumer(&node, &assets, self, &t.consumer, &a, &mut post);
                    }
                    Output::Inactive => {
                        let (me, name) = (self.clone(), t.consumer.clone());
                        env::spawn(async move {
                            // It is said once.
                            me.notes_taken().await;
                            me.remove_consumer(&name).await
                        });
                    }
                    Output::Acked { .. } => {}
                }
            }
        }
        let congested = post.take_congestion();
        drop(post);
        if !missed.is_empty() {
            self.undelivered(&missed);
        }
        congested
    }
}

fn deliver(
    post: &mut Post,
    subject: &AckSubject,
    d: &Deliver,
    reply: &mut Vec<u8>,
    head: &mut Vec<u8>,
) -> usize {
    let m = &d.message;
    reply.clear();
    subject.write(reply, d.deliveries, m.seq, d.dseq, m.time, d.pending);
    if !d.headers_only && d.pin.is_none() {
        if m.payload().len() >= LOOSE_BYTES_MIN
            && let Some(n) = post.loose(&d.to, m.subject(), reply, m.headers().len(), &m.body())
        {
            return n;
        }
        let parts = [m.headers(), m.payload()];
        return post.send(&d.to, Some(m.subject()), reply, m.headers().len(), &parts);
    }
    head.clear();
    head.extend_from_slice(m.headers());
    if let Some(pin) = &d.pin {
        add_header(head, b"Nats-Pin-Id", pin);
    }
    if d.headers_only {
        let mut size = Vec::new();
        push_number(&mut size, m.payload().len() as u64);
        add_header(head, b"Nats-Msg-Size", &size);
    }
    let body: &[u8] = if d.headers_only { b"" } else { m.payload() };
    post.send(&d.to, Some(m.subject()), reply, head.len(), &[head, body])
}

/// Adds a header to a block, or begins one.
pub(crate) fn add_header(block: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if block.is_empty() {
        block.extend_from_slice(b"NATS/1.0\r\n");
    } else {
        // The blank line at the end gives way.
        block.truncate(block.len() - 2);
    }
    for part in [key, b": ", value, b"\r\n\r\n"] {
        block.extend_from_slice(part);
    }
}

fn status(post: &mut Post, s: &Status, head: &mut Vec<u8>) {
    head.clear();
    s.write(head);
    let reply: &[u8] = s.reply.as_deref().unwrap_or_default();
    post.send(&s.to, None, reply, head.len(), &[head]);
}
