//! The kinds of API requests.
//!
//! Owns their subjects, the types of their answers, and which of them wait behind the others.

/// A kind of request, and with it the type of its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// INFO
    AccountInfo,
    /// STREAM.CREATE
    StreamCreate,
    /// STREAM.UPDATE
    StreamUpdate,
    /// STREAM.NAMES
    StreamNames,
    /// STREAM.LIST
    StreamList,
    /// STREAM.INFO
    StreamInfo,
    /// STREAM.DELETE
    StreamDelete,
    /// STREAM.PURGE
    StreamPurge,
    /// STREAM.MSG.GET
    MsgGet,
    /// STREAM.MSG.DELETE
    MsgDelete,
    /// STREAM.SNAPSHOT
    StreamSnapshot,
    /// STREAM.RESTORE
    StreamRestore,
    /// STREAM.PEER.REMOVE
    StreamPeerRemove,
    /// STREAM.PEER.EVACUATE
    StreamPeerEvacuate,
    /// STREAM.CANCEL_MOVE
    StreamCancelMove,
    /// STREAM.LEADER.STEPDOWN
    StreamStepDown,
    /// CONSUMER.CREATE in all its forms
    ConsumerCreate,
    /// CONSUMER.NAMES
    ConsumerNames,
    /// CONSUMER.LIST
    ConsumerList,
    /// CONSUMER.INFO
    ConsumerInfo,
    /// CONSUMER.DELETE
    ConsumerDelete,
    /// CONSUMER.PAUSE
    ConsumerPause,
    /// CONSUMER.UNPIN
    ConsumerUnpin,
    /// CONSUMER.RESET
    ConsumerReset,
    /// CONSUMER.LEADER.STEPDOWN
    ConsumerStepDown,
    /// CONSUMER.PEER.REMOVE
    ConsumerPeerRemove,
    /// CONSUMER.PEER.EVACUATE
    ConsumerPeerEvacuate,
}

impl Kind {
    /// The `type` of the answer.
    pub const fn type_name(self) -> &'static str {
        macro_rules! v1 {
            ($name:literal) => {
                concat!("io.nats.jetstream.api.v1.", $name, "_response")
            };
        }
        match self {
            Kind::AccountInfo => v1!("account_info"),
            Kind::StreamCreate => v1!("stream_create"),
            Kind::StreamUpdate => v1!("stream_update"),
            Kind::StreamNames => v1!("stream_names"),
            Kind::StreamList => v1!("stream_list"),
            Kind::StreamInfo => v1!("stream_info"),
            Kind::StreamDelete => v1!("stream_delete"),
            Kind::StreamPurge => v1!("stream_purge"),
            Kind::MsgGet => v1!("stream_msg_get"),
            Kind::MsgDelete => v1!("stream_msg_delete"),
            Kind::StreamSnapshot => v1!("stream_snapshot"),
            Kind::StreamRestore => v1!("stream_restore"),
            Kind::StreamPeerRemove => v1!("stream_remove_peer"),
            Kind::StreamPeerEvacuate => v1!("stream_evacuate_peer"),
            Kind::StreamCancelMove => v1!("stream_cancel_move"),
            Kind::StreamStepDown => v1!("stream_leader_stepdown"),
            Kind::ConsumerCreate => v1!("consumer_create"),
            Kind::ConsumerNames => v1!("consumer_names"),
            Kind::ConsumerList => v1!("consumer_list"),
            Kind::ConsumerInfo => v1!("consumer_info"),
            Kind::ConsumerDelete => v1!("consumer_delete"),
            Kind::ConsumerPause => v1!("consumer_pause"),
            Kind::ConsumerUnpin => v1!("consumer_unpin"),
            Kind::ConsumerReset => v1!("consumer_reset"),
            Kind::ConsumerStepDown => v1!("consumer_leader_stepdown"),
            Kind::ConsumerPeerRemove => v1!("consumer_remove_peer"),
            Kind::ConsumerPeerEvacuate => v1!("consumer_evacuate_peer"),
        }
    }

    /// Whether it only asks: such requests wait behind those that change something.
    pub const fn is_info(self) -> bool {
        matches!(
            self,
            Kind::AccountInfo
                | Kind::StreamNames
                | Kind::StreamList
                | Kind::StreamInfo
                | Kind::ConsumerNames
                | Kind::ConsumerList
                | Kind::ConsumerInfo
        )
    }

    /// Whether only a cluster knows what to do with it.
    pub const fn needs_cluster(self) -> bool {
        matches!(
            self,
            Kind::StreamPeerRemove
                | Kind::StreamPeerEvacuate
                | Kind::StreamCancelMove
                | Kind::StreamStepDown
                | Kind::ConsumerStepDown
                | Kind::ConsumerPeerRemove
                | Kind::ConsumerPeerEvacuate
        )
    }

    /// Whether an answer counts as an API request and is told to `$JS.EVENT.ADVISORY.API`. A message that was found is not, nor is
    /// a reset.
    pub const fn is_audited(self, failed: bool) -> bool {
        match self {
            Kind::MsgGet => failed,
            Kind::ConsumerReset => false,
            _ => true,
        }
    }

    /// The kind of a subject.
    pub fn of_subject(subject: &str) -> Option<Kind> {
        let tokens: Vec<&str> = subject.split('.').collect();
        Kind::of(&tokens).map(|k| k.0)
    }

    /// The kind of a subject, split at its dots, and how many tokens stand before the stream's name.
    pub(super) fn of(tokens: &[&str]) -> Option<(Kind, usize)> {
        let ["$JS", "API", rest @ ..] = tokens else { return None };
        let found = match rest {
            ["INFO"] => (Kind::AccountInfo, 3),
            ["STREAM", "NAMES"] => (Kind::StreamNames, 4),
            ["STREAM", "LIST"] => (Kind::StreamList, 4),
            ["STREAM", "CREATE", _] => (Kind::StreamCreate, 4),
            ["STREAM", "UPDATE", _] => (Kind::StreamUpdate, 4),
            ["STREAM", "INFO", _] => (Kind::StreamInfo, 4),
            ["STREAM", "DELETE", _] => (Kind::StreamDelete, 4),
            ["STREAM", "PURGE", _] => (Kind::StreamPurge, 4),
            ["STREAM", "SNAPSHOT", _] => (Kind::StreamSnapshot, 4),
            ["STREAM", "RESTORE", _] => (Kind::StreamRestore, 4),
            ["STREAM", "CANCEL_MOVE", _] => (Kind::StreamCancelMove, 4),
            ["STREAM", "MSG", "GET", _] => (Kind::MsgGet, 5),
            ["STREAM", "MSG", "DELETE", _] => (Kind::MsgDelete, 5),
            ["STREAM", "PEER", "REMOVE", _] => (Kind::StreamPeerRemove, 5),
            ["STREAM", "PEER", "EVACUATE", _] => (Kind::StreamPeerEvacuate, 5),
            ["STREAM", "LEADER", "STEPDOWN", _] => (Kind::StreamStepDown, 5),
            ["CONSUMER", "DURABLE", "CREATE", _, _] => (Kind::ConsumerCreate, 5),
            ["CONSUMER", "CREATE", _, ..] => (Kind::ConsumerCreate, 4),
            ["CONSUMER", "NAMES", _] => (Kind::ConsumerNames, 4),
            ["CONSUMER", "LIST", _] => (Kind::ConsumerList, 4),
            ["CONSUMER", "INFO", _, _] => (Kind::ConsumerInfo, 4),
            ["CONSUMER", "DELETE", _, _] => (Kind::ConsumerDelete, 4),
            ["CONSUMER", "PAUSE", _, _] => (Kind::ConsumerPause, 4),
            ["CONSUMER", "UNPIN", _, _] => (Kind::ConsumerUnpin, 4),
            ["CONSUMER", "RESET", _, _] => (Kind::ConsumerReset, 4),
            ["CONSUMER", "LEADER", "STEPDOWN", _, _] => (Kind::ConsumerStepDown, 5),
            ["CONSUMER", "PEER", "REMOVE", _, _] => (Kind::ConsumerPeerRemove, 5),
            ["CONSUMER", "PEER", "EVACUATE", _, _] => (Kind::ConsumerPeerEvacuate, 5),
            _ => return None,
        };
        Some(found)
    }
}
