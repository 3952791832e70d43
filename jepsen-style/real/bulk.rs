//! Many messages, without a record of each: what was acknowledged, at which sequence, and what was read again are kept in two
//! lists, and judged by the rules of the log (P-1 to P-3).

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout};

use super::{
    Wrong,
    client::{self, PATIENCE},
    report::Row,
    workload::Load,
};
use crate::history::body;

/// Messages on their way at a time.
const WINDOW: u64 = 1_024;
/// Values from here on are probes, which are none of these messages.
pub const PROBES: u64 = 1 << 40;

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Sent when so much was acknowledged; nobody knows more.
    Sent(u64),
    /// Acknowledged with this sequence.
    Acked(u64),
    /// The server said no.
    Refused,
}

/// What was published, and what was found.
#[derive(Default, Debug)]
pub struct Bulk {
    fates: Vec<Fate>,
    seen: Vec<bool>,
    /// How many were acknowledged.
    pub acknowledged: u64,
    reordered: u64,
    highest: u64,
    duplicated: u64,
    phantom: u64,
    moved: u64,
    /// How long publishing took.
    pub took: Duration,
}

impl Bulk {
    fn answered(&mut self, n: u64, seq: Option<u64>) -> bool {
        let Some(fate) = self.fates.get_mut(n as usize) else { return false };
        let Fate::Sent(before) = *fate else { return false };
        match seq {
            Some(seq) => {
                // P-3: what was acknowledged before this was sent stands before it.
                self.reordered += u64::from(seq <= before);
                self.highest = self.highest.max(seq);
                self.acknowledged += 1;
                *fate = Fate::Acked(seq);
            }
            None => *fate = Fate::Refused,
        }
        true
    }

    /// A message of the reading.
    pub fn found(&mut self, seq: u64, value: Option<u64>) {
        let Some(v) = value.filter(|v| *v < self.fates.len() as u64) else {
            self.phantom += u64::from(value.is_none_or(|v| v < PROBES));
            return;
        };
        if std::mem::replace(&mut self.seen[v as usize], true) {
            self.duplicated += 1;
        } else {
            match self.fates[v as usize] {
                Fate::Refused => self.phantom += 1,
                Fate::Acked(at) => self.moved += u64::from(at != seq),
                Fate::Sent(_) => {}
            }
        }
    }

    /// Whether this message was acknowledged.
    pub fn is_acked(&self, v: u64) -> bool {
        matches!(self.fates.get(v as usize), Some(Fate::Acked(_)))
    }

    /// The sequences of the acknowledged messages that `asked` names.
    pub fn sequences(&self, asked: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
        let of = move |(v, fate): (usize, &Fate)| match fate {
            Fate::Acked(seq) if asked(v as u64) => Some(*seq),
            _ => None,
        };
        self.fates.iter().enumerate().filter_map(of)
    }

    /// Fills the row; `asked` says which messages the reading was to bring.
    pub fn judge(&self, row: &mut Row, asked: impl Fn(u64) -> bool) {
        let of = |v: &usize| asked(*v as u64) && self.is_acked(*v as u64);
        row.acknowledged = (0..self.fates.len()).filter(of).count() as u64;
        row.lost = (0..self.fates.len()).filter(of).filter(|v| !self.seen[*v]).count() as u64;
        row.unknown = self.fates.iter().filter(|f| matches!(f, Fate::Sent(_))).count() as u64;
        (row.duplicated, row.phantom, row.reordered) = (self.duplicated, self.phantom, self.reordered);
        if self.moved > 0 {
            row.note += &format!("{} stand at another sequence than the acknowledged one; ", self.moved);
        }
    }
}

/// Publishes up to `count` messages from one client as fast as they are acknowledged, for `limit` at most.
///
/// # Errors
/// No node can be reached.
pub async fn publish(
    load: &Load,
    count: u64,
    limit: Duration,
    subject: impl Fn(u64) -> String,
) -> Result<Bulk, Wrong> {
    let client = client::connect(&load.ports, 0).await?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await.map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let (mut bulk, mut open) = (Bulk::default(), 0);
    loop {
        let more = || begun.elapsed() < limit;
        while open < WINDOW && (bulk.fates.len() as u64) < count && more() {
            let n = bulk.fates.len() as u64;
            bulk.fates.push(Fate::Sent(bulk.highest));
            let reply = format!("{inbox}.{n}");
            client
                .publish_with_reply(subject(n), reply, body(n, 64).into())
                .await
                .map_err(|e| e.to_string())?;
            open += 1;
        }
        if open == 0 {
            break;
        }
        // All that is there, or the next to come; after a silence nobody knows of those that are open.
        let mut next = match answers.next().now_or_never() {
            Some(m) => m,
            None => match timeout(PATIENCE, answers.next()).await {
                Ok(m) => m,
                Err(_) => {
                    open = 0;
                    continue;
                }
            },
        };
        while let Some(m) = next {
            let n = m.subject.rsplit('.').next().and_then(|n| n.parse().ok());
            if n.is_some_and(|n| bulk.answered(n, sequence(&m.payload))) {
                open = open.saturating_sub(1);
            }
            next = answers.next().now_or_never().flatten();
        }
    }
    bulk.took = begun.elapsed();
    bulk.seen = vec![false; bulk.fates.len()];
    Ok(bulk)
}

/// The sequence of an acknowledgement; none if it is an error.
fn sequence(payload: &[u8]) -> Option<u64> {
    let said: serde_json::Value = serde_json::from_slice(payload).ok()?;
    said["seq"].as_u64().filter(|_| said.get("error").is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_counted() {
        let mut b = Bulk { fates: vec![Fate::Sent(0); 6], seen: vec![false; 6], ..Bulk::default() };
        for (n, seq) in [(0, Some(1)), (1, Some(2)), (2, None), (3, Some(3))] {
            assert!(b.answered(n, seq));
        }
        assert!(!b.answered(0, Some(9)), "an answer counts once");
        // Sent when sequence 3 was acknowledged, and stored before it.
        b.fates[4] = Fate::Sent(3);
        assert!(b.answered(4, Some(3)));
        for (seq, v) in
            [(1, Some(0)), (1, Some(0)), (7, Some(3)), (8, Some(2)), (9, None), (10, Some(PROBES + 5))]
        {
            b.found(seq, v);
        }
        let mut row = Row::default();
        b.judge(&mut row, |_| true);
        // Lost: 1 and 4. Not written: the refused one and the one without a value.
        assert_eq!((row.acknowledged, row.lost, row.unknown), (4, 2, 1));
        assert_eq!((row.duplicated, row.phantom, row.reordered), (1, 2, 1));
        assert!(row.note.starts_with("1 stand at another sequence"), "{}", row.note);
        b.judge(&mut row, |v| v == 0);
        assert_eq!((row.acknowledged, row.lost), (1, 0));
    }

    #[test]
    fn acknowledgements_are_read() {
        assert_eq!(sequence(br#"{"stream":"LOG","seq":17}"#), Some(17));
        assert_eq!(sequence(br#"{"error":{"code":503},"seq":0}"#), None);
        assert_eq!(sequence(b"x"), None);
    }
}
