//! A page that shows a run: machines as lanes, time downwards, what was sent and read, deaths, pauses, cuts, log lines, and
//! the violated invariant. It is drawn from the trace that a run prints, needs nothing but itself, and is the same for
//! the same trace.
//!
//! [`trace`] reads the trace, [`page`] draws it.

pub mod page;
#[cfg(test)]
mod tests;
pub mod trace;

pub use page::html;
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
}
