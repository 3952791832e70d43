//! Weighted mappings: one source, several destinations, chosen by lot, perhaps per cluster.
//!
//! Owns the weights and their rules as nats-server 2.15.1 keeps them. Draws no lot: the caller passes one in 0..100.
//!
//! - T-3: the weights of one cluster's destinations, and of those without a cluster, sum to at most 100.

use super::{Transform, TransformError};

/// One destination of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The destination, in the language of [`Transform`].
    pub subject: Vec<u8>,
    /// Percent of the messages, 0 to 100.
    pub weight: u8,
    /// Only for servers of this cluster, which then ignore the destinations without one.
    pub cluster: Option<Vec<u8>>,
}

/// Why a mapping was refused. The texts of `Display` are nats-server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingError {
    /// A destination stands there twice, be it for different clusters.
    Duplicate(Vec<u8>),
    /// A weight above 100.
    Weight,
    /// T-3 is broken.
    TotalWeight,
    /// A destination, or the source, is wrong in itself.
    Transform(TransformError),
}

impl std::fmt::Display for MappingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MappingError::Duplicate(d) => write!(f, "duplicate entry for {:?}", String::from_utf8_lossy(d)),
            MappingError::Weight => f.write_str("individual weights need to be <= 100"),
            MappingError::TotalWeight => f.write_str("total weight needs to be <= 100"),
            MappingError::Transform(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for MappingError {}

impl From<TransformError> for MappingError {
    fn from(e: TransformError) -> Self {
        MappingError::Transform(e)
    }
}

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// It goes on under what this transform makes of its subject.
    To(&'a Transform),
    /// It keeps its subject: the weights leave a remainder, which belongs to the source.
    Keep,
    /// It is dropped: a remainder is left although the source is listed among the destinations. Used to test loss.
    Drop,
}

/// The destinations of one cluster, or of all that have none of their own.
#[derive(Clone, Debug)]
struct Scope {
    cluster: Option<Vec<u8>>,
    /// With each transform the lot below which it is chosen.
    choices: Vec<(u8, Transform)>,
}

/// A source and its weighted destinations.
#[derive(Clone, Debug)]
pub struct Mapping {
    source: Vec<u8>,
    scopes: Vec<Scope>,
    /// The source is a destination itself, in whatever scope: then no scope's remainder falls to it.
    lists_source: bool,
}

impl Mapping {
    /// All messages to one destination.
    pub fn simple(source: &[u8], destination: &[u8]) -> Result<Mapping, TransformError> {
        let choices = vec![(100, Transform::new(source, destination)?)];
        let scopes = vec![Scope { cluster: None, choices }];
        Ok(Mapping { source: source.into(), scopes, lists_source: source == destination })
    }

    /// Weighted destinations. None at all leaves every subject as it is.
    pub fn new(source: &[u8], destinations: &[Destination]) -> Result<Mapping, MappingError> {
        let mut scopes: Vec<Scope> = Vec::new();
        for (i, d) in destinations.iter().enumerate() {
            if destinations[..i].iter().any(|e| e.subject == d.subject) {
                return Err(MappingError::Duplicate(d.subject.clone()));
            }
            if d.weight > 100 {
                return Err(MappingError::Weight);
            }
            let at = match scopes.iter().position(|s| s.cluster == d.cluster) {
                Some(at) => at,
                None => {
                    scopes.push(Scope { cluster: d.cluster.clone(), choices: Vec::new() });
                    scopes.len() - 1
                }
            };
            let choices = &mut scopes[at].choices;
            let below = choices.last().map_or(0, |(b, _)| *b) + d.weight;
            if below > 100 {
                return Err(MappingError::TotalWeight);
            }
            choices.push((below, Transform::new(source, &d.subject)?));
        }
        let fits = |s: &Scope| s.choices.last().is_none_or(|(below, _)| *below <= 100);
        assert!(scopes.iter().all(fits), "T-3: no scope gives out more than all of it");
        let lists_source = destinations.iter().any(|d| d.subject == source);
        Ok(Mapping { source: source.into(), scopes, lists_source })
    }

    /// What it applies to.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// Whether a publish to `subject` is subject to it.
    pub fn matches(&self, subject: &[u8]) -> bool {
        crate::matches(subject, &self.source)
    }

    /// The choice for one message, on a server of the cluster `cluster` (empty for none), by `lot` in 0..100.
    pub fn choose(&self, cluster: &[u8], lot: u8) -> Choice<'_> {
        let of = |wanted: Option<&[u8]>| self.scopes.iter().find(|s| s.cluster.as_deref() == wanted);
        let scope = of(Some(cluster)).or_else(|| of(None));
        let chosen = scope.and_then(|s| s.choices.iter().find(|(below, _)| lot < *below));
        match chosen {
            Some((_, transform)) => Choice::To(transform),
            None if self.lists_source => Choice::Drop,
            None => Choice::Keep,
        }
    }
}

/// An account's mappings in their order: the first whose source matches decides.
#[derive(Clone, Debug, Default)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// No mappings.
    pub fn new() -> Self {
        Mappings(Vec::new())
    }

    /// Adds a mapping at the end, or in the place of the one with the same source.
    pub fn add(&mut self, mapping: Mapping) {
        match self.0.iter_mut().find(|m| m.source == mapping.source) {
            Some(old) => *old = mapping,
            None => self.0.push(mapping),
        }
    }

    /// Takes out the mapping of `source`; says whether there was one.
    pub fn remove(&mut self, source: &[u8]) -> bool {
        let before = self.0.len();
        self.0.retain(|m| m.source != source);
        self.0.len() != before
    }

    /// Whether there is none, so that the message path can skip the rest.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.0.iter()
    }

    /// The mapping that decides about `subject`. Goes through all, about 10 ns each.
    pub fn find(&self, subject: &[u8]) -> Option<&Mapping> {
        self.0.iter().find(|m| m.matches(subject))
    }
}
