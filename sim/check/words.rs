//! L-4: who is closed for what it sent is told why, if nothing else took the connection away.
//! SIM-13: a connection to which nothing was done, and that did nothing wrong, lives (a reload closes nobody in vain).

use env::sim::RETRANSMIT_NS;

use crate::{
    history::{History, Violation},
    options::{FAULTS, Fault, Options},
};

/// Faults that take a connection, or the server's last words on it, away.
const TAKING: [Fault; 13] = [
    Fault::Cut,
    Fault::Reset,
    Fault::AtByte,
    Fault::HalfClose,
    Fault::SlowReader,
    Fault::Deaf,
    Fault::Flood,
    Fault::ClientDeath,
    Fault::ServerDeath,
    Fault::Pause,
    Fault::LameDuck,
    Fault::Churn,
    Fault::Slow,
];
const _: () = assert!(TAKING.len() < FAULTS.len());

/// Whether last words can be judged: nothing else takes connections away.
pub fn judged(o: &Options) -> bool {
    !TAKING.iter().any(|f| o.has(*f))
}

/// Whether a single message may take longer to arrive than a client may be silent: through a narrow window segment by segment, each of which is lost now
/// and then and repeated after [`RETRANSMIT_NS`], as its acknowledgement is. Who sends one can be closed as stale first.
fn is_silent_for_long(o: &Options) -> bool {
    let segments = (o.body_bytes_max as f64 / o.window.max(1) as f64).ceil();
    let way_ms = o.latency_max_us as f64 / 1e3 + o.loss * RETRANSMIT_NS as f64 / 1e6;
    segments * 2.0 * way_ms > (o.ping_interval_s * o.ping_max) as f64 * 1000.0
}

/// A connection that should be closed and whose client has not read its end: it may still be on its way.
pub fn awaited(h: &History, o: &Options) -> Option<usize> {
    let open = |c: &crate::history::Conn| c.provoked.is_some() && c.client < 1_000 && c.closed_at.is_none();
    h.conns.iter().position(open).filter(|_| judged(o))
}

pub fn check(h: &History, o: &Options) -> Vec<Violation> {
    if !judged(o) {
        return Vec::new();
    }
    let mut found = Vec::new();
    // With room for everything nobody is slow, and no PONG waits behind a long upload.
    let wide =
        o.max_pending >= 64 << 20 && o.write_deadline_ms >= 10_000 && o.loss == 0.0 && o.window >= 16 << 10;
    for (i, c) in h.conns.iter().enumerate().filter(|(_, c)| wide && !c.tainted && c.client < 1_000) {
        if !c.survived() {
            let text = format!("connection {i} of client {} was closed, told {:?}", c.client, c.errors);
            found.push(Violation::new("SIM-13", text));
        }
    }
    let slow = is_silent_for_long(o);
    for (i, c) in h.conns.iter().enumerate() {
        let Some(words) = c.provoked.filter(|_| c.client < 1_000) else { continue };
        if c.closed_at.is_none() {
            found.push(Violation::new(
                "L-4",
                format!("connection {i} of client {} was not closed for {words:?}", c.client),
            ));
        } else if !words.is_empty()
            && !c.errors.iter().any(|e| e.contains(words))
            && !c.errors.iter().any(|e| e == "Slow Consumer")
            && !(slow && c.errors.iter().any(|e| e == "Stale Connection"))
        {
            // A reset can overtake last words; only bytes that the server left unread cause one. What it said before without
            // closing may have arrived.
            let bears =
                |e: &String| e.starts_with("Permissions Violation") || e == "maximum subscriptions exceeded";
            let unread = c.errors.iter().all(bears);
            if !unread {
                found.push(Violation::new(
                    "L-4",
                    format!(
                        "connection {i} of client {} was told {:?} instead of {words:?}",
                        c.client, c.errors
                    ),
                ));
            }
        }
    }
    found
}
