//! The tree that a configuration parses into.

use std::fmt;
use std::sync::Arc;

/// A place in a configuration. Lines count from 1. Columns count bytes from the preceding newline, so the first column
/// of a file's first line is 0 and that of every other line is 1: nats-server counts so, and tools compare its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// The file as it was named, or "" for the text of an environment variable.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 0 on line 1, from 1 elsewhere.
    pub column: u32,
}

impl Pos {
    /// The very beginning of a file.
    pub fn start(file: &str) -> Pos {
        Pos { file: file.into(), line: 1, column: 0 }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A full datetime in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// 0 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to the month's length.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DateTime { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// A value. Sizes such as `64MB` have become integers; variables have been replaced by what they stand for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, quoted or bare. Bytes that are not UTF-8 were replaced by U+FFFD.
    String(String),
    /// An integer, its size suffix multiplied out.
    Int(i64),
    /// A number with a dot.
    Float(f64),
    /// true, yes, on, false, no, off.
    Bool(bool),
    /// `2006-01-02T15:04:05Z`, unquoted.
    DateTime(DateTime),
    /// `[…]`.
    Array(Vec<Node>),
    /// `{…}`.
    Map(Map),
}

impl Value {
    /// What the value is, with its article, for error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::DateTime(_) => "a datetime",
            Value::Array(_) => "an array",
            Value::Map(_) => "a map",
        }
    }
}

/// A value and where it begins (inside the opening quote or bracket).
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub pos: Pos,
    /// What.
    pub value: Value,
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As it was written, without quotes.
    pub key: String,
    /// Where the key stands.
    pub pos: Pos,
    /// Its value.
    pub node: Node,
    /// A `$key` has referred to it. Such keys are definitions: whoever gives the options their meaning must not call
    /// them unknown.
    pub used_as_variable: bool,
}

/// The entries of a map in the order of the file. A key that is given again replaces the earlier one and takes its
/// place at the end; keys that differ in case are different keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
}

impl Map {
    /// All entries, in file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of exactly this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No keys at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Wraps entries whose keys are known to differ.
    pub(crate) fn from_distinct(entries: Vec<Entry>) -> Map {
        Map { entries }
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}
