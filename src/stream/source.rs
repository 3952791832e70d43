//! Mirrors and sources: where a copied message comes from, and what becomes of its headers and subject.
//!
//! Owns the `Nats-Stream-Source` header and the renaming by a source's transforms. Does not subscribe or fetch.

use subject::Transform;

use crate::config::Source;
use crate::headers;

/// What `Nats-Stream-Source` says: `<stream> <seq> <filters> <destinations> <subject> [<identity>]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin<'a> {
    /// The stream, with the hashes that tell it from others of the name.
    pub stream: &'a str,
    /// The sequence there.
    pub seq: u64,
    /// The filters, and the destinations.
    pub path: Option<(&'a str, &'a str)>,
    /// The subject there.
    pub subject: Option<&'a str>,
    /// The stream's identity.
    pub identity: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// Reads the header's value; `None` if it is none.
    pub fn parse(value: &'a [u8]) -> Option<Origin<'a>> {
        let mut fields = std::str::from_utf8(value).ok()?.split(' ');
        let (stream, seq) = (fields.next().filter(|s| !s.is_empty())?, fields.next()?);
        let seq = headers::number(seq.as_bytes())?;
        let path = match (fields.next(), fields.next()) {
            (Some(filters), Some(destinations)) => Some((filters, destinations)),
            (None, _) => None,
            (Some(_), None) => return None,
        };
        Some(Origin { stream, seq, path, subject: fields.next(), identity: fields.next() })
    }

    /// The name under which the source's position is kept: see [`Source::index_name`].
    pub fn index_name(&self) -> String {
        match self.path {
            Some((filters, destinations)) => format!("{} {filters} {destinations}", self.stream),
            None => self.stream.to_owned(),
        }
    }
}

/// What a message of an origin becomes in the stream that gathers it: its header block, into `out`. The names that would be checked
/// again, or belong to a batch or to an origin further up, are taken out.
pub fn gathered(block: &[u8], index_name: &str, seq: u64, subject: &[u8], identity: &str, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(block);
    headers::remove(out, |n| {
        n == headers::STREAM_SOURCE || n.starts_with(b"Nats-Expected-") || n.starts_with(b"Nats-Batch-")
    });
    let (stream, path) = index_name.split_once(' ').unwrap_or((index_name, "> >"));
    let mut value = format!("{stream} {seq} {path} ").into_bytes();
    value.extend_from_slice(subject);
    if !identity.is_empty() {
        value.push(b' ');
        value.extend_from_slice(identity.as_bytes());
    }
    headers::add(out, headers::STREAM_SOURCE, &value);
}

/// The transforms of a source or a mirror, ready to use.
#[derive(Clone, Debug, Default)]
pub struct Renames(Vec<Transform>);

impl Renames {
    /// Those of a checked configuration.
    pub fn new(source: &Source) -> Renames {
        let all = source.subject_transforms.iter().filter(|t| !t.dest.is_empty());
        Renames(all.filter_map(|t| Transform::new(t.src.as_bytes(), t.dest.as_bytes()).ok()).collect())
    }

    /// Writes what becomes of a subject into `out`: the first that matches decides. False if it stays as it is.
    pub fn apply(&self, subject: &[u8], mut random: impl FnMut(u32) -> u32, out: &mut Vec<u8>) -> bool {
        self.0.iter().any(|t| t.apply(subject, &mut random, out))
    }
}

/// The filters that a source's consumer gets; none for all.
pub fn filters(source: &Source) -> Vec<String> {
    if source.subject_transforms.is_empty() {
        return if source.filter_subject.is_empty() {
            Vec::new()
        } else {
            vec![source.filter_subject.clone()]
        };
    }
    source
        .subject_transforms
        .iter()
        .map(|t| if t.src.is_empty() { ">".to_owned() } else { t.src.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_reads_what_was_written() {
        let source = Source { name: "EU".into(), filter_subject: "a.*".into(), ..Source::default() };
        let mut out = Vec::new();
        let block = b"NATS/1.0\r\nNats-Expected-Last-Sequence: 4\r\nX: y\r\nNats-Batch-Id: z\r\n\r\n";
        gathered(block, &source.index_name(), 42, b"a.b", "id1", &mut out);
        assert_eq!(out, b"NATS/1.0\r\nX: y\r\nNats-Stream-Source: EU 42 a.* > a.b id1\r\n\r\n");
        let value = headers::get(&out, headers::STREAM_SOURCE).unwrap();
        let origin = Origin::parse(value).unwrap();
        assert_eq!(origin.index_name(), source.index_name());
        assert_eq!((origin.seq, origin.subject, origin.identity), (42, Some("a.b"), Some("id1")));
        assert_eq!(Origin::parse(b"EU 7").unwrap().index_name(), "EU");
        for bad in [&b""[..], b"EU", b"EU x", b"EU 1 a", b" 1 a b"] {
            assert_eq!(Origin::parse(bad), None);
        }
    }
}
