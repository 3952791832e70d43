//! A page that shows a run: machines as lanes, time downwards, what was sent and read, deaths, pauses, cuts, log lines, and
//! the violated invariant. It is drawn from the trace that a run prints, needs nothing but itself, and is the same for
//! the same trace.
//!
//! [`trace`] reads the trace of a storm, [`raft`] that of the consensus core's own simulator; [`page`] draws, [`table`] writes the
//! last transitions as text.

pub mod page;
pub mod raft;
pub mod table;
#[cfg(test)]
mod tests;
pub mod trace;

pub use page::html;
pub use table::table;
pub use trace::read;

/// What is drawn.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Timeline {
    /// What it is about.
    pub title: String,
    /// Names of the machines, by number.
    pub lanes: Vec<String>,
    /// Points in the order of time.
    pub points: Vec<Point>,
    /// Messages.
    pub messages: Vec<Message>,
    /// What was violated.
    pub violations: Vec<crate::history::Violation>,
    /// How many points stood before those that are drawn.
    pub left_out: usize,
}

/// Something that happened to one machine, or between two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// Virtual nanoseconds.
    pub t: u64,
    /// The machine's number.
    pub lane: usize,
    /// The other one, for links.
    pub other: Option<usize>,
    /// What.
    pub what: What,
    /// In words.
    pub text: String,
}

/// Kinds of points.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum What {
    /// A process begins.
    Start,
    /// It ends against its will.
    Death,
    /// It stands still.
    Pause,
    /// It goes on.
    Resume,
    /// A link is cut, slow or reset.
    Fault,
    /// A link is well again.
    Heal,
    /// A signal.
    Signal,
    /// A connection is established.
    Open,
    /// One end of it is closed.
    Close,
    /// A line of a log.
    Log,
    /// It is a follower, or asks for votes.
    Role,
    /// It leads.
    Elect,
    /// It knows more to be committed.
    Commit,
}

impl What {
    /// The class in the page's style sheet.
    pub fn class(self) -> &'static str {
        match self {
            What::Start => "start",
            What::Death => "death",
            What::Pause => "pause",
            What::Resume => "resume",
            What::Fault => "fault",
            What::Heal => "heal",
            What::Signal => "signal",
            What::Open => "open",
            What::Close => "close",
            What::Log => "log",
            What::Role => "role",
            What::Elect => "elect",
            What::Commit => "commit",
        }
    }
}

/// Bytes on their way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Connection.
    pub conn: u64,
    /// Whence.
    pub from: usize,
    /// Whither.
    pub to: usize,
    /// How many.
    pub bytes: u64,
    /// When they were written.
    pub sent: u64,
    /// When the last of them was read; none if that never happened.
    pub read: Option<u64>,
    /// What it says, where that is known; otherwise only its bytes are.
    pub label: String,
}
