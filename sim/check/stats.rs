//! SIM-11: the server's counters lie between what was confirmed and what was sent, and cover what was received.

use crate::history::{History, Violation};

/// Compares the counters of the server's last start.
pub fn stats(h: &History, boot: u64, s: &broker::Stats) -> Vec<Violation> {
    let of_boot = |session: usize| h.conn_of(session).boot == boot;
    let sent = h.pubs.iter().filter(|p| of_boot(p.session)).count() as u64;
    let sure = h.pubs.iter().filter(|p| of_boot(p.session) && h.pub_confirmed(p).is_some()).count() as u64;
    let received = h.msgs.iter().filter(|m| of_boot(h.subs[m.sub].session)).count() as u64;
    let (inward, outward) = (s.in_msgs.get(), s.out_msgs.get());
    let mut found = Vec::new();
    if inward < sure || inward > sent {
        let text = format!("in_msgs is {inward}; {sure} publishes were confirmed, {sent} sent");
        found.push(Violation::new("SIM-11", text));
    }
    if outward < received {
        found.push(Violation::new(
            "SIM-11",
            format!("out_msgs is {outward}; {received} messages were received"),
        ));
    }
    found
}
