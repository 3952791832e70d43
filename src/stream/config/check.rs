//! Whether a configuration is allowed, what is filled in, and what an update may change.
//!
//! The order of the checks is part of the behaviour: clients see the first that fails.

use std::collections::{BTreeSet, VecDeque};

use subject::{Transform, collides, has_wildcard, is_literal, is_strict, is_subset};

use super::{Discard, PersistMode, Placement, Retention, Source, Storage, StreamConfig};
use crate::errors::{self, ApiError};
use crate::time::{MILLISECOND, SECOND, duration};

/// Names of streams and consumers may be so long, in bytes.
pub const NAME_MAX: usize = 255;
/// Descriptions may be so long, in bytes.
pub const DESCRIPTION_MAX: usize = 4 * 1024;
/// All metadata together may be so long, in bytes.
pub const METADATA_MAX: usize = 128 * 1024;
/// More replicas are refused.
pub const REPLICAS_MAX: i64 = 5;
const DUPLICATES: i64 = 120 * SECOND;

/// What the server and the account set for a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerLimits {
    /// The longest duplicate window, nanoseconds; 0 for no limit.
    pub duplicate_window: i64,
    /// Whether streams must set `max_bytes`.
    pub max_bytes_required: bool,
    /// The largest `max_bytes` for this kind of storage; 0 or less for no limit.
    pub max_stream_bytes: i64,
    /// Whether there is a cluster, so that there can be replicas.
    pub clustered: bool,
}

/// The account's other streams, for what depends on them.
pub trait Streams {
    /// The configuration of a stream of this account.
    fn find(&self, name: &str) -> Option<StreamConfig>;
}

/// No other streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStreams;

impl Streams for NoStreams {
    fn find(&self, _: &str) -> Option<StreamConfig> {
        None
    }
}

/// Whether `name` may name a stream or a consumer; its length is checked apart.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .bytes()
            .any(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b'.' | b'*' | b'>' | b'/' | b'\\'))
}

/// Whether any subject of `a` has something in common with any of `b`.
pub fn subjects_overlap(a: &[String], b: &[String]) -> bool {
    a.iter().any(|x| b.iter().any(|y| collides(x.as_bytes(), y.as_bytes())))
}

fn invalid(text: impl std::fmt::Display) -> ApiError {
    errors::STREAM_INVALID_CONFIG.with(text)
}

fn pedantic_error(text: &str) -> ApiError {
    errors::PEDANTIC.with(text)
}

fn require(condition: bool, text: &str) -> Result<(), ApiError> {
    if condition { Ok(()) } else { Err(invalid(text)) }
}

/// A literal, strictly valid subject.
pub(crate) fn publishable(subject: &str) -> bool {
    is_strict(subject.as_bytes()) && !has_wildcard(subject.as_bytes())
}

/// Whether a transform can be made; an empty destination stands for no change.
fn transform(src: &str, dest: &str) -> Result<(), subject::TransformError> {
    if dest.is_empty() { Ok(()) } else { Transform::new(src.as_bytes(), dest.as_bytes()).map(drop) }
}

impl StreamConfig {
    /// Checks a new configuration and fills in what it leaves open. `pedantic` refuses to change what was given.
    pub fn check(
        &mut self,
        limits: &ServerLimits,
        others: &dyn Streams,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        require(!self.sealed, "stream configuration for create can not be sealed")?;
        require(
            !self.mirror_direct || self.mirror.is_some(),
            "stream has no mirror but does have mirror direct",
        )?;
        self.check_existing(limits, others, pedantic)
    }

    /// As `check`, for a configuration that some stream had already, such as a backup's: it may be sealed.
    pub fn check_existing(
        &mut self,
        limits: &ServerLimits,
        others: &dyn Streams,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        self.check_alone(limits, others, pedantic)?;
        if !limits.clustered && self.num_replicas > 1 {
            return Err(errors::STREAM_REPLICAS_NOT_SUPPORTED.error());
        }
        self.check_source_filters()
    }

    /// Whether what a mirror or sources are filtered by are subjects; transforms have been looked at.
    fn check_source_filters(&self) -> Result<(), ApiError> {
        let bad = |s: &&Source| !s.filter_subject.is_empty() && !is_strict(s.filter_subject.as_bytes());
        if let Some(m) = self.mirror.as_ref().filter(bad) {
            let text = format_args!("subject filter '{}' for the mirror invalid subject", m.filter_subject);
            return Err(errors::STREAM_CREATE.with(text));
        }
        if let Some(s) = self.sources.iter().find(bad) {
            let text = format_args!("subject filter '{}' for the source: invalid subject", s.filter_subject);
            return Err(errors::STREAM_CREATE.with(text));
        }
        Ok(())
    }

    /// Checks what `self` is to become from `old`, and fills in what it leaves open.
    pub fn check_update(
        &mut self,
        old: &StreamConfig,
        limits: &ServerLimits,
        others: &dyn Streams,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        self.check_alone(limits, others, pedantic)?;
        if self.name != old.name {
            return Err(errors::STREAM_MISMATCH.error());
        }
        // Also where it follows from markers, which the check of the configuration by itself lets pass.
        require(!self.allow_msg_counter || !self.allow_msg_ttl, "counter stream cannot use message TTLs")?;
        if !limits.clustered && self.num_replicas > 1 {
            return Err(errors::STREAM_REPLICAS_NOT_SUPPORTED.error());
        }
        require(self.storage == old.storage, "stream configuration update can not change storage type")?;
        let from_queue = old.retention == Retention::WorkQueue || self.retention == Retention::WorkQueue;
        require(
            self.retention == old.retention || !from_queue,
            "stream configuration update can not change retention policy to/from workqueue",
        )?;
        require(self.sealed || !old.sealed, "stream configuration update can not unseal a sealed stream")?;
        require(
            self.deny_delete || !old.deny_delete,
            "stream configuration update can not cancel deny message deletes",
        )?;
        require(self.deny_purge || !old.deny_purge, "stream configuration update can not cancel deny purge")?;
        // A mirror can only be given up: that makes it a stream of its own.
        if self.mirror.is_some() && self.mirror != old.mirror {
            return Err(errors::STREAM_MIRROR_NOT_UPDATABLE.error());
        }
        require(self.allow_msg_ttl || !old.allow_msg_ttl, "message TTL status can not be disabled")?;
        require(
            self.allow_msg_counter == old.allow_msg_counter,
            "stream configuration update can not change message counter setting",
        )?;
        require(
            self.allow_msg_schedules || !old.allow_msg_schedules,
            "message schedules can not be disabled",
        )?;
        require(
            self.persist_mode == old.persist_mode,
            "stream configuration update can not change persist mode",
        )?;
        if self.sealed {
            self.max_age = 0;
            self.discard = Discard::New;
            self.deny_delete = true;
            self.deny_purge = true;
            self.allow_rollup_hdrs = false;
        }
        Ok(())
    }

    /// The part of the checks that new and changed configurations have in common, which comes first. The update of a stream that there is
    /// not gets no further.
    pub fn check_alone(
        &mut self,
        limits: &ServerLimits,
        others: &dyn Streams,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        require(
            valid_name(&self.name),
            "stream name is required and can not contain '.', '*', '>', '\\', '/'",
        )?;
        if self.name.len() > NAME_MAX {
            return Err(invalid(format_args!("stream name is too long, maximum allowed is {NAME_MAX}")));
        }
        if self.description.len() > DESCRIPTION_MAX {
            return Err(invalid(format_args!(
                "stream description is too long, maximum allowed is {DESCRIPTION_MAX}"
            )));
        }
        if self.metadata.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > METADATA_MAX {
            return Err(invalid(format_args!(
                "stream metadata exceeds maximum size of {METADATA_MAX} bytes"
            )));
        }
        self.check_numbers(pedantic)?;
        self.check_window(limits, pedantic)?;
        self.check_features(pedantic)?;
        let found = self.check_origins(others, pedantic)?;
        check_prefixes(&found)?;
        self.check_cycles(others)?;
        self.check_subjects()?;
        if limits.max_bytes_required && self.max_bytes <= 0 {
            return Err(errors::STREAM_MAX_BYTES_REQUIRED.error());
        }
        if limits.max_stream_bytes > 0 && self.max_bytes > limits.max_stream_bytes {
            return Err(errors::STREAM_MAX_STREAM_BYTES_EXCEEDED.error());
        }
        self.check_transforms(pedantic)?;
        if self.placement.as_ref().is_some_and(|p| *p == Placement::default()) {
            self.placement = None;
        }
        let preferred = self.placement.as_ref().is_some_and(|p| !p.preferred.is_empty());
        require(!preferred, "preferred server not permitted in placement")
    }

    fn check_numbers(&mut self, pedantic: bool) -> Result<(), ApiError> {
        if self.num_replicas == 0 {
            self.num_replicas = 1;
        }
        if self.num_replicas > REPLICAS_MAX {
            return Err(invalid(format_args!("maximum replicas is {REPLICAS_MAX}")));
        }
        if self.num_replicas < 0 {
            return Err(errors::REPLICAS_COUNT_CANNOT_BE_NEGATIVE.error());
        }
        let unlimited = |n: &mut i64, text: &str| {
            if pedantic && *n < -1 {
                return Err(pedantic_error(text));
            }
            if *n == 0 || *n < -1 {
                *n = -1;
            }
            Ok(())
        };
        unlimited(&mut self.max_msgs, "max_msgs must be set to -1")?;
        unlimited(&mut self.max_msgs_per_subject, "max_msgs_per_subject must be set to -1")?;
        unlimited(&mut self.max_bytes, "max_bytes must be set to -1")?;
        let mut size = i64::from(self.max_msg_size);
        unlimited(&mut size, "max_msg_size must be set to -1")?;
        if size == -1 {
            self.max_msg_size = -1;
        }
        unlimited(&mut self.max_consumers, "max_consumers must be set to -1")?;
        require(self.max_age >= 0, "max age can not be negative")?;
        require(self.max_age == 0 || self.max_age >= 100 * MILLISECOND, "max age needs to be >= 100ms")
    }

    fn check_window(&mut self, limits: &ServerLimits, pedantic: bool) -> Result<(), ApiError> {
        if self.duplicate_window == 0 && self.mirror.is_none() && self.sources.is_empty() {
            let mut window = DUPLICATES;
            if limits.duplicate_window > 0 && window > limits.duplicate_window {
                if pedantic {
                    return Err(pedantic_error("duplicate window limits are higher than current limits"));
                }
                window = limits.duplicate_window;
            }
            if self.max_age != 0 && self.max_age < window {
                if pedantic {
                    return Err(pedantic_error("duplicate window cannot be bigger than max age"));
                }
                window = self.max_age;
            }
            self.duplicate_window = window;
        }
        let window = self.duplicate_window;
        require(window >= 0, "duplicates window can not be negative")?;
        require(
            self.max_age == 0 || window <= self.max_age,
            "duplicates window can not be larger then max age",
        )?;
        if limits.duplicate_window > 0 && window > limits.duplicate_window {
            return Err(invalid(format_args!(
                "duplicates window can not be larger then server limit of {}",
                duration(limits.duplicate_window)
            )));
        }
        require(window == 0 || window >= 100 * MILLISECOND, "duplicates window needs to be >= 100ms")
    }

    fn check_features(&mut self, pedantic: bool) -> Result<(), ApiError> {
        require(!(self.deny_purge && self.allow_rollup_hdrs), "roll-ups require the purge permission")?;
        if self.allow_msg_counter {
            require(self.discard == Discard::Old, "counter stream cannot use discard new")?;
            require(!self.allow_msg_ttl, "counter stream cannot use message TTLs")?;
            require(!self.allow_msg_schedules, "counter stream cannot use message schedules")?;
            require(self.retention == Retention::Limits, "counter stream can only use limits retention")?;
        }
        if self.discard_new_per_subject {
            require(
                self.discard == Discard::New,
                "discard new per subject requires discard new policy to be set",
            )?;
            require(
                self.max_msgs_per_subject > 0,
                "discard new per subject requires max msgs per subject > 0",
            )?;
        }
        require(self.subject_delete_marker_ttl >= 0, "subject delete marker TTL must not be negative")?;
        if self.subject_delete_marker_ttl > 0 {
            require(
                self.subject_delete_marker_ttl >= SECOND,
                "subject delete marker TTL must be at least 1 second",
            )?;
            if !self.allow_msg_ttl {
                require(!pedantic, "subject delete marker cannot be set if message TTLs are disabled")?;
                self.allow_msg_ttl = true;
            }
            if !self.allow_rollup_hdrs {
                require(!pedantic, "subject delete marker cannot be set if roll-ups are disabled")?;
                self.allow_rollup_hdrs = true;
                self.deny_purge = false;
            }
        }
        if self.allow_msg_schedules {
            require(self.discard == Discard::Old, "message scheduling cannot use discard new")?;
            if !self.allow_rollup_hdrs {
                require(!pedantic, "message scheduling cannot be set if roll-ups are disabled")?;
                self.allow_rollup_hdrs = true;
                self.deny_purge = false;
            }
        }
        if self.persist_mode == PersistMode::Async {
            require(self.storage == Storage::File, "async persist mode is only supported on file storage")?;
            require(self.num_replicas <= 1, "async persist mode is not supported on replicated streams")?;
            require(!self.allow_atomic, "async persist mode is not supported with atomic batch publish")?;
        }
        Ok(())
    }

    fn check_mirror(
        &mut self,
        mirror: &Source,
        found: &mut Found,
        others: &dyn Streams,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        let excluded = [
            (self.first_seq > 0, errors::MIRROR_WITH_FIRST_SEQ),
            (!self.subjects.is_empty(), errors::MIRROR_WITH_SUBJECTS),
            (!self.sources.is_empty(), errors::MIRROR_WITH_SOURCES),
            (self.allow_msg_counter, errors::MIRROR_WITH_COUNTERS),
            (self.allow_atomic, errors::MIRROR_WITH_ATOMIC_PUBLISH),
            (self.allow_batched, errors::MIRROR_WITH_BATCH_PUBLISH),
            (self.allow_msg_schedules, errors::MIRROR_WITH_MSG_SCHEDULES),
            (!valid_consumer(mirror), errors::MIRROR_DURABLE_CONSUMER_CFG_INVALID),
            (
                !mirror.filter_subject.is_empty() && !mirror.subject_transforms.is_empty(),
                errors::MIRROR_MULTIPLE_FILTERS_NOT_ALLOWED,
            ),
        ];
        if let Some((_, e)) = excluded.iter().find(|(bad, _)| *bad) {
            return Err(e.error());
        }
        // A marker would take a sequence that the origin gives to something else.
        require(self.subject_delete_marker_ttl == 0, "subject delete markers forbidden on mirrors")?;
        for (i, t) in mirror.subject_transforms.iter().enumerate() {
            if !t.src.is_empty() && !is_strict(t.src.as_bytes()) {
                return Err(
                    errors::MIRROR_INVALID_SUBJECT_FILTER.with(format_args!("invalid subject {}", t.src))
                );
            }
            transform(&t.src, &t.dest).map_err(|e| errors::MIRROR_INVALID_TRANSFORM_DESTINATION.with(e))?;
            let overlaps = mirror.subject_transforms.iter().enumerate();
            if overlaps.into_iter().any(|(j, o)| i != j && collides(t.src.as_bytes(), o.src.as_bytes())) {
                return Err(errors::MIRROR_OVERLAPPING_SUBJECT_FILTERS.error());
            }
        }
        if let Some(e) = &mirror.external {
            found.prefixes(e);
            return Ok(());
        }
        if !valid_name(&mirror.name) {
            return Err(errors::MIRROR_INVALID_STREAM_NAME.error());
        }
        if let Some(origin) = others.find(&mirror.name) {
            if self.max_msg_size > 0 && origin.max_msg_size > 0 && self.max_msg_size < origin.max_msg_size {
                return Err(errors::MIRROR_MAX_MESSAGE_SIZE_TOO_BIG.error());
            }
            if pedantic && self.mirror_direct != origin.allow_direct {
                return Err(pedantic_error("origin stream has direct get set, mirror has it disabled"));
            }
            self.mirror_direct = origin.allow_direct;
            found.subjects.extend(origin.subjects);
        }
        Ok(())
    }

    fn check_origins(&mut self, others: &dyn Streams, pedantic: bool) -> Result<Found, ApiError> {
        let mut found = Found::default();
        if let Some(mirror) = self.mirror.clone() {
            self.check_mirror(&mirror, &mut found, others, pedantic)?;
        }
        if !self.sources.is_empty() && self.allow_msg_schedules {
            return Err(errors::SOURCE_WITH_MSG_SCHEDULES.error());
        }
        let (mut names, mut consumers) = (BTreeSet::new(), BTreeSet::new());
        for source in &self.sources {
            if !valid_name(&source.name) {
                return Err(errors::SOURCE_INVALID_STREAM_NAME.error());
            }
            if !names.insert(source.index_name()) {
                return Err(errors::SOURCE_DUPLICATE_DETECTED.error());
            }
            if !source.filter_subject.is_empty() && !source.subject_transforms.is_empty() {
                return Err(errors::SOURCE_MULTIPLE_FILTERS_NOT_ALLOWED.error());
            }
            for t in &source.subject_transforms {
                if !t.src.is_empty() && !is_strict(t.src.as_bytes()) {
                    let text = format_args!("invalid subject {}", t.src);
                    return Err(errors::SOURCE_INVALID_SUBJECT_FILTER.with(text));
                }
                transform(&t.src, &t.dest)
                    .map_err(|e| errors::SOURCE_INVALID_TRANSFORM_DESTINATION.with(e))?;
            }
            let all = &source.subject_transforms;
            let overlap =
                |i: usize, j: usize| i != j && is_subset(all[i].src.as_bytes(), all[j].src.as_bytes());
            if (0..all.len()).any(|i| (0..all.len()).any(|j| overlap(i, j))) {
                return Err(errors::SOURCE_OVERLAPPING_SUBJECT_FILTERS.error());
            }
            if let Some(c) = &source.consumer {
                if !valid_consumer(source) {
                    return Err(errors::SOURCE_DURABLE_CONSUMER_CFG_INVALID.error());
                }
                let api = source.external.as_ref().map(|e| e.api.clone());
                if !consumers.insert((source.name.clone(), api, c.name.clone())) {
                    return Err(errors::SOURCE_DURABLE_CONSUMER_DUPLICATE_DETECTED.error());
                }
            }
            if let Some(e) = &source.external {
                found.prefixes(e);
            } else if let Some(origin) = others.find(&source.name) {
                if self.max_msg_size > 0 && origin.max_msg_size > 0 && self.max_msg_size < origin.max_msg_size
                {
                    return Err(errors::SOURCE_MAX_MESSAGE_SIZE_TOO_BIG.error());
                }
                found.subjects.extend(origin.subjects);
            }
        }
        Ok(found)
    }

    /// No stream may feed itself, by whatever way round.
    fn check_cycles(&self, others: &dyn Streams) -> Result<(), ApiError> {
        let mut visited = BTreeSet::new();
        let mut ahead = VecDeque::from([self.clone()]);
        while let Some(config) = ahead.pop_front() {
            visited.insert(config.name.clone());
            for source in config.sources.iter().filter(|s| s.external.is_none()) {
                if visited.contains(&source.name) {
                    let filter = source.filter_subject.as_bytes();
                    let feeds =
                        filter.is_empty() || config.subjects.iter().any(|s| collides(s.as_bytes(), filter));
                    require(!feeds, "detected cycle")?;
                } else if let Some(next) = others.find(&source.name) {
                    ahead.push_back(next);
                }
            }
            if let Some(m) = config.mirror.as_ref().filter(|m| m.external.is_none()) {
                require(!visited.contains(&m.name), "detected cycle")?;
                ahead.extend(others.find(&m.name));
            }
        }
        Ok(())
    }

    fn check_subjects(&mut self) -> Result<(), ApiError> {
        if self.subjects.is_empty() {
            if self.mirror.is_none() && self.sources.is_empty() {
                self.subjects.push(self.name.clone());
            }
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        for (i, s) in self.subjects.iter().enumerate() {
            let b = s.as_bytes();
            require(is_strict(b), "invalid subject")?;
            require(!seen.contains(s), "duplicate subjects detected")?;
            if s == ">" {
                require(self.no_ack, "capturing all subjects requires no-ack to be true")?;
                require(self.num_replicas == 1, "capturing all subjects requires replicas of 1")?;
            }
            if !self.no_ack {
                let api = [b"$JS.>".as_slice(), b"$JSC.>", b"$NRG.>"].iter().any(|space| collides(b, space));
                require(
                    !api || is_subset(b, b"$JS.EVENT.>"),
                    "subjects that overlap with jetstream api require no-ack to be true",
                )?;
                require(
                    !collides(b, b"$SYS.>") || is_subset(b, b"$SYS.ACCOUNT.>"),
                    "subjects that overlap with system api require no-ack to be true",
                )?;
            }
            if let Some(other) = self.subjects[i + 1..].iter().find(|o| collides(o.as_bytes(), b)) {
                return Err(invalid(format_args!("subject {s:?} overlaps with {other:?}")));
            }
            seen.insert(s.clone());
        }
        Ok(())
    }

    fn check_transforms(&mut self, pedantic: bool) -> Result<(), ApiError> {
        if let Some(t) = &self.subject_transform {
            if !t.src.is_empty() && !is_strict(t.src.as_bytes()) {
                let text = format_args!("invalid subject {}", t.src);
                return Err(errors::STREAM_TRANSFORM_INVALID_SOURCE.with(text));
            }
            transform(&t.src, &t.dest).map_err(|e| errors::STREAM_TRANSFORM_INVALID_DESTINATION.with(e))?;
        }
        let Some(r) = &mut self.republish else { return Ok(()) };
        if r.src.is_empty() {
            if pedantic {
                return Err(pedantic_error("republish source can not be empty"));
            }
            r.src = ">".to_owned();
        }
        // From all to all would be a cycle, but not if the stream's transform renames every subject: then it is that renaming.
        if r.src == ">"
            && r.dest == ">"
            && let Some(t) = &self.subject_transform
            && self.subjects.len() == 1
            && t.src == self.subjects[0]
        {
            if pedantic {
                return Err(pedantic_error("implicit republish based on subject transform"));
            }
            r.src.clone_from(&t.dest);
            r.dest.clone_from(&t.dest);
        }
        let cycle = self.subjects.iter().any(|s| collides(r.dest.as_bytes(), s.as_bytes()));
        require(!cycle, "stream configuration for republish destination forms a cycle")?;
        transform(&r.src, &r.dest).map_err(|_| {
            invalid(format_args!(
                "stream configuration for republish with transform from '{}' to '{}' not valid",
                r.src, r.dest
            ))
        })
    }
}

/// What the checks of mirror and sources gather for those that follow.
#[derive(Default)]
struct Found {
    subjects: Vec<String>,
    deliver: Vec<String>,
    api: Vec<String>,
}

impl Found {
    fn prefixes(&mut self, e: &super::External) {
        self.deliver.extend((!e.deliver.is_empty()).then(|| e.deliver.clone()));
        self.api.extend((!e.api.is_empty()).then(|| e.api.clone()));
    }
}

fn check_prefixes(found: &Found) -> Result<(), ApiError> {
    for prefix in &found.deliver {
        if !publishable(prefix) {
            return Err(errors::STREAM_INVALID_EXTERNAL_DELIVERY_SUBJ.with(prefix));
        }
        for s in &found.subjects {
            if collides(s.as_bytes(), format!("{prefix}.{s}").as_bytes()) {
                let places: [(&str, &dyn std::fmt::Display); 2] = [("prefix", prefix), ("subject", s)];
                return Err(errors::STREAM_EXTERNAL_DEL_PREFIX_OVERLAPS.filled(&places));
            }
        }
    }
    for prefix in &found.api {
        if !publishable(prefix) {
            return Err(invalid(format_args!(
                "stream external api prefix {prefix:?} must be a valid subject without wildcards"
            )));
        }
        if collides(prefix.as_bytes(), b"$JS.API") {
            let places: [(&str, &dyn std::fmt::Display); 2] = [("prefix", prefix), ("subject", &"$JS.API")];
            return Err(errors::STREAM_EXTERNAL_API_OVERLAP.filled(&places));
        }
    }
    Ok(())
}

/// Whether a source's own consumer, if it has one, can be used.
fn valid_consumer(source: &Source) -> bool {
    source.consumer.as_ref().is_none_or(|c| {
        valid_name(&c.name)
            && is_literal(c.deliver_subject.as_bytes())
            && publishable(&c.deliver_subject)
            && source.opt_start_seq == 0
            && source.opt_start_time.is_none()
            && source.filter_subject.is_empty()
    })
}
