//! Names that no client may use, whatever its permissions. All of it was observed on nats-server 2.15.1.
//!
//! The order of checks on a publish: permission for the subject, then [`is_reserved_subject`], then
//! [`is_reserved_reply`]. A refusal of the last kind reads `Permissions Violation for Publish with Reply of "S"`.

/// Whether a client may not publish to `subject`: the reply spaces of gateways. Refused even without permissions.
pub fn is_reserved_subject(subject: &[u8]) -> bool {
    subject.starts_with(b"_GR_.") || subject.starts_with(b"$GR.")
}

/// Whether only clients of the system account may publish to `subject`: servers replicate streams there.
pub fn is_system_subject(subject: &[u8]) -> bool {
    subject.starts_with(b"$NRG.")
}

/// Whether a client may not name `reply` as a reply subject: service import replies, gateway replies and JetStream
/// acks. Otherwise a client could make the server acknowledge or answer in another's name.
pub fn is_reserved_reply(reply: &[u8]) -> bool {
    // Nearly every reply subject starts with "_INBOX", so the first two bytes settle it.
    match reply {
        [b'_', b'R' | b'G', ..] => reply.starts_with(b"_R_.") || reply.starts_with(b"_GR_."),
        [b'$', b'G' | b'J', ..] => reply.starts_with(b"$GR.") || reply.starts_with(b"$JS.ACK."),
        _ => false,
    }
}

/// Whether a client may not use `queue` as a queue group.
pub fn is_reserved_queue(queue: &[u8]) -> bool {
    queue == b"_sys_"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_observed() {
        for r in ["_R_.a", "_R_.", "_GR_.a", "_GR_.a.b.c", "$GR.1.x", "$JS.ACK.a", "$JS.ACK.s.c.1.2.3.4.5"] {
            assert!(is_reserved_reply(r.as_bytes()), "{r}");
        }
        for r in [
            "",
            "_",
            "_R_",
            "_RX_.a",
            "$GNR.a",
            "$JS.ACK",
            "$JS.API.x",
            "_INBOX.x",
            "$JS.FC.x",
            "$SYS.x",
            "a",
        ] {
            assert!(!is_reserved_reply(r.as_bytes()), "{r}");
        }
        for s in ["_GR_.a", "$GR.1.x"] {
            assert!(is_reserved_subject(s.as_bytes()), "{s}");
        }
        for s in ["_R_.a", "$JS.ACK.a", "$GNR.a", "_GR_", "$GR", ""] {
            assert!(!is_reserved_subject(s.as_bytes()), "{s}");
        }
        assert!(is_system_subject(b"$NRG.x") && is_system_subject(b"$NRG.P.a"));
        assert!(
            !is_system_subject(b"$NRG") && !is_system_subject(b"$SYS.x") && !is_system_subject(b"$JSC.x")
        );
        assert!(is_reserved_queue(b"_sys_") && !is_reserved_queue(b"_sys_.") && !is_reserved_queue(b""));
    }
}
