//! Reads values as the types that options need, and collects what is wrong with them.

use crate::options::refused;
use conf::{Entry, Error, Map, Node, Pos, Value, duration};
use std::time::Duration;

/// What was found wrong so far. Every method that reads a value notes a mistake with its place and gives `None`, so
/// that one pass reports all mistakes of a file.
#[derive(Default)]
pub struct Reader {
    /// Mistakes that forbid the configuration.
    pub errors: Vec<Error>,
    /// Doubtful uses: printed at start-up, failures of a mere check.
    pub warnings: Vec<Error>,
}

/// A span as nats-server takes it: `Duration` cannot be negative, and no option has a use for a negative one.
fn from_nanos(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

impl Reader {
    pub(crate) fn error(&mut self, pos: &Pos, reason: impl Into<String>) {
        self.errors.push(Error::new(pos, reason));
    }

    pub(crate) fn warn(&mut self, pos: &Pos, field: &str, reason: impl AsRef<str>) {
        self.warnings.push(Error::new(pos, format!("invalid use of field {field:?}: {}", reason.as_ref())));
    }

    /// A key that no arm took: refused by name, a variable's definition, or unknown.
    pub(crate) fn unknown(&mut self, block: &str, entry: &Entry, known: &[&str]) {
        let key = entry.key.to_ascii_lowercase();
        if let Some(refused) = refused::find(block, &key) {
            if entry.node.value != Value::Bool(false) {
                let text = format!(
                    "{:?} is not yet supported: this server has no {} yet",
                    entry.key, refused.feature
                );
                self.error(&entry.pos, text);
            }
            return;
        }
        if entry.used_as_variable {
            return;
        }
        let text = match conf::nearest(&entry.key, known) {
            Some(near) => format!("unknown field {:?}, did you mean {near:?}?", entry.key),
            None => format!("unknown field {:?}", entry.key),
        };
        self.error(&entry.pos, text);
    }

    fn wrong_type(&mut self, entry: &Entry, wanted: &str) {
        let text = format!("{:?} must be {wanted}, but is {}", entry.key, entry.node.value.kind());
        self.error(&entry.pos, text);
    }

    pub(crate) fn int(&mut self, entry: &Entry) -> Option<i64> {
        if let Value::Int(n) = entry.node.value {
            return Some(n);
        }
        self.wrong_type(entry, "an integer");
        None
    }

    /// An integer that fits an i32 (nats-server's limit for sizes), as a usize.
    pub(crate) fn size(&mut self, entry: &Entry) -> Option<usize> {
        let n = self.int(entry)?;
        let key = entry.key.to_ascii_lowercase();
        if n > i64::from(i32::MAX) {
            self.error(&entry.pos, format!("{key} value is too big"));
            return None;
        }
        if n < 0 {
            self.error(&entry.pos, format!("{key} value can not be negative"));
            return None;
        }
        usize::try_from(n).ok()
    }

    /// A limit: zero and below mean none.
    pub(crate) fn limit(&mut self, entry: &Entry) -> Option<Option<usize>> {
        self.int(entry).map(|n| if n > 0 { usize::try_from(n).ok() } else { None })
    }

    pub(crate) fn port(&mut self, entry: &Entry) -> Option<i32> {
        let n = self.int(entry)?;
        match i32::try_from(n).ok().filter(|p| (-1..=65535).contains(p)) {
            Some(port) => Some(port),
            None => {
                self.error(&entry.pos, format!("invalid port {n}: it must be between -1 and 65535"));
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, entry: &Entry) -> Option<bool> {
        if let Value::Bool(b) = entry.node.value {
            return Some(b);
        }
        self.wrong_type(entry, "a boolean");
        None
    }

    pub(crate) fn string<'a>(&mut self, entry: &'a Entry) -> Option<&'a str> {
        if let Value::String(s) = &entry.node.value {
            return Some(s);
        }
        self.wrong_type(entry, "a string");
        None
    }

    /// A string of which an empty one says that there is none.
    pub(crate) fn text(&mut self, entry: &Entry) -> Option<Option<String>> {
        self.string(entry).map(|s| (!s.is_empty()).then(|| s.to_string()))
    }

    pub(crate) fn map<'a>(&mut self, entry: &'a Entry) -> Option<&'a Map> {
        if let Value::Map(map) = &entry.node.value {
            return Some(map);
        }
        self.wrong_type(entry, "a map");
        None
    }

    pub(crate) fn array<'a>(&mut self, entry: &'a Entry) -> Option<&'a [Node]> {
        if let Value::Array(items) = &entry.node.value {
            return Some(items);
        }
        self.wrong_type(entry, "an array");
        None
    }

    /// One string or an array of strings.
    pub(crate) fn strings<'a>(&mut self, entry: &'a Entry) -> Option<Vec<(&'a Pos, &'a str)>> {
        let items = match &entry.node.value {
            Value::String(s) => return Some(vec![(&entry.node.pos, s.as_str())]),
            Value::Array(items) => items,
            _ => {
                self.wrong_type(entry, "a string or an array of strings");
                return None;
            }
        };
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::String(s) => out.push((&item.pos, s.as_str())),
                other => {
                    let text = format!("{:?} must hold strings, but one is {}", entry.key, other.kind());
                    self.error(&item.pos, text);
                    return None;
                }
            }
        }
        Some(out)
    }

    /// A map of strings; its keys keep their case.
    pub(crate) fn string_map(&mut self, entry: &Entry) -> Option<Vec<(String, String)>> {
        let map = self.map(entry)?;
        let mut out = Vec::new();
        for item in map {
            if let Some(text) = self.string(item) {
                out.push((item.key.clone(), text.to_string()));
            }
        }
        Some(out)
    }

    /// A duration in Go's syntax, or, with a warning, an integer of seconds.
    pub(crate) fn duration(&mut self, entry: &Entry) -> Option<Duration> {
        let key = entry.key.to_ascii_lowercase();
        match &entry.node.value {
            Value::String(text) => self.duration_text(&entry.pos, &key, text),
            Value::Int(seconds) => {
                self.warn(&entry.pos, &key, format!("{key} should be converted to a duration"));
                let nanos = seconds.checked_mul(1_000_000_000).and_then(from_nanos);
                if nanos.is_none() {
                    self.error(&entry.pos, format!("error parsing {key}: {seconds} seconds is out of range"));
                }
                nanos
            }
            _ => {
                self.wrong_type(entry, "a duration such as \"2m\"");
                None
            }
        }
    }

    /// A duration that may only be a string.
    pub(crate) fn duration_string(&mut self, entry: &Entry) -> Option<Duration> {
        let key = entry.key.to_ascii_lowercase();
        match &entry.node.value {
            Value::String(text) => self.duration_text(&entry.pos, &key, text),
            _ => {
                self.wrong_type(entry, "a duration string such as \"2m\"");
                None
            }
        }
    }

    fn duration_text(&mut self, pos: &Pos, key: &str, text: &str) -> Option<Duration> {
        match duration::parse(text) {
            Ok(nanos) => match from_nanos(nanos) {
                Some(d) => Some(d),
                None => {
                    self.error(pos, format!("invalid {key}, needs to be positive"));
                    None
                }
            },
            Err(e) => {
                self.error(pos, format!("error parsing {key}: {e}"));
                None
            }
        }
    }

    /// A timeout of a handshake: seconds, with or without a fraction, or a duration string. More than a minute is
    /// doubtful when `doubt_long` is set: `timeout: 2m` without quotes is two million seconds.
    pub(crate) fn timeout(&mut self, entry: &Entry, config: &str, doubt_long: bool) -> Option<Duration> {
        let (seconds, shown) = match &entry.node.value {
            #[expect(clippy::cast_precision_loss, reason = "a timeout beyond 2^53 seconds is refused below")]
            Value::Int(n) => (*n as f64, n.to_string()),
            Value::Float(x) => (*x, x.to_string()),
            Value::String(text) => match duration::parse(text) {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "fractions of a microsecond do not matter here"
                )]
                Ok(nanos) => (nanos as f64 / 1e9, text.clone()),
                Err(e) => {
                    self.error(&entry.pos, format!("error parsing {config} config, 'timeout' {e}"));
                    return None;
                }
            },
            _ => {
                self.error(&entry.pos, format!("error parsing {config} config, 'timeout' wrong type"));
                return None;
            }
        };
        let Ok(timeout) = Duration::try_from_secs_f64(seconds) else {
            self.error(
                &entry.pos,
                format!("error parsing {config} config, 'timeout' of {shown} is out of range"),
            );
            return None;
        };
        if doubt_long && timeout > Duration::from_secs(60) {
            self.warn(
                &entry.pos,
                "timeout",
                format!(
                    "timeout of {shown} ({seconds:.6} seconds) is high, consider keeping it under 60 seconds. \
                     possibly caused by unquoted duration; use '1m' instead of 1m, for example"
                ),
            );
        }
        Some(timeout)
    }

    /// A size: an integer, or a string such as "10GB". Below zero means that none is set.
    pub(crate) fn storage_size(&mut self, entry: &Entry, what: &str) -> Option<Option<u64>> {
        match &entry.node.value {
            Value::Int(n) => Some(u64::try_from(*n).ok()),
            Value::String(text) if text.is_empty() => Some(None),
            Value::String(text) => match conf::parse_size(text) {
                Ok(n) => Some(u64::try_from(n).ok()),
                Err(conf::SizeError::BadSuffix) => {
                    self.error(&entry.pos, format!("{what} sizes defined as strings must end in K, M, G, T"));
                    None
                }
                Err(_) => {
                    self.error(&entry.pos, format!("{what} is not a size: {text:?}"));
                    None
                }
            },
            _ => {
                self.wrong_type(entry, "a size");
                None
            }
        }
    }

    /// `listen`: a port, or `host:port`. Gives the host, when there is one, and the port.
    pub(crate) fn listen(&mut self, entry: &Entry) -> Option<(Option<String>, i32)> {
        match &entry.node.value {
            Value::Int(_) => self.port(entry).map(|p| (None, p)),
            Value::String(text) => {
                let Some((host, port)) = text.rsplit_once(':') else {
                    self.error(&entry.pos, format!("could not parse address string {text:?}"));
                    return None;
                };
                let Some(port) = port.trim().parse::<i32>().ok().filter(|p| (-1..=65535).contains(p)) else {
                    self.error(&entry.pos, format!("could not parse port {port:?}"));
                    return None;
                };
                let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
                    Some(inner) => inner,
                    None if host.contains(':') => {
                        self.error(&entry.pos, format!("could not parse address string {text:?}"));
                        return None;
                    }
                    None => host,
                };
                Some((Some(host.to_string()), port))
            }
            other => {
                let kind = other.kind().split(' ').next_back().unwrap_or_default().to_string();
                self.error(&entry.pos, format!("expected port or host:port, got {kind}"));
                None
            }
        }
    }
}

/// Sets `$place` when the value could be read.
macro_rules! set {
    ($place:expr, $value:expr) => {
        if let Some(value) = $value {
            $place = value;
        }
    };
}
pub(crate) use set;
