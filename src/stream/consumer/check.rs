//! What a consumer's configuration may be: defaults, checks, update rules, and how consumers of one stream agree.
//!
//! Owns the rules and the order in which they are tried, which decides the error that a client sees. Does not own whether the
//! account may have one more consumer in total, nor names that the server chooses.

use subject::{collides, has_wildcard, is_subset, is_valid};

use super::config::{AckPolicy, Action, ConsumerConfig, DeliverPolicy, PriorityPolicy};
use crate::config::{Retention, StreamConfig};
use crate::errors::{self, ApiError};

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLI;
/// The wait for an ack unless the configuration says otherwise, in nanoseconds.
pub const ACK_WAIT_DEFAULT: i64 = 30 * SECOND;
/// How many acks may be awaited unless the configuration says otherwise.
pub const MAX_ACK_PENDING_DEFAULT: i64 = 1000;
/// How many pull requests may wait unless the configuration says otherwise.
pub const MAX_WAITING_DEFAULT: i64 = 512;
/// How long a consumer without a durable name stays unused, in nanoseconds.
pub const INACTIVE_DEFAULT: i64 = 5 * SECOND;
/// How long a pinned client may be silent unless the configuration says otherwise, in nanoseconds.
pub const PIN_TTL_DEFAULT: i64 = 120 * SECOND;
/// The heartbeat of consumers whose acks are flow control, in nanoseconds.
const FLOW_CONTROL_HEARTBEAT: i64 = SECOND;
/// The longest name, in bytes.
pub const NAME_MAX: usize = 255;
const DESCRIPTION_MAX: usize = 4 * 1024;
const METADATA_MAX: usize = 128 * 1024;
const GROUP_MAX: usize = 16;

/// What the server and the account allow; 0 for no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// The server's `max_ack_pending`.
    pub max_ack_pending: i64,
    /// The server's `max_request_batch`.
    pub max_request_batch: i64,
    /// The account's (or tier's) `max_ack_pending`.
    pub account_max_ack_pending: i64,
}

/// What a consumer's rules have to know of its stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parent<'a> {
    /// Whether the stream is a work queue.
    pub work_queue: bool,
    /// Whether the stream keeps messages only as long as a consumer wants them.
    pub interest: bool,
    /// The stream's replicas.
    pub num_replicas: i64,
    /// The stream's subjects.
    pub subjects: &'a [String],
    /// `consumer_limits.max_ack_pending`; 0 if unset.
    pub max_ack_pending: i64,
    /// `consumer_limits.inactive_threshold` in nanoseconds; 0 if unset.
    pub inactive_threshold: i64,
    /// How many consumers there may be, the stream's limit and the account's taken together; 0 or less for no limit.
    pub max_consumers: i64,
}

impl<'a> Parent<'a> {
    /// What a stream's configuration says. `account_max_consumers` is the account's (or tier's) limit, 0 or less for none.
    pub fn of(stream: &'a StreamConfig, account_max_consumers: i64) -> Parent<'a> {
        let (own, account) = (stream.max_consumers, account_max_consumers);
        Parent {
            work_queue: stream.retention == Retention::WorkQueue,
            interest: stream.retention == Retention::Interest,
            num_replicas: stream.num_replicas,
            subjects: &stream.subjects,
            max_ack_pending: stream.consumer_limits.max_ack_pending,
            inactive_threshold: stream.consumer_limits.inactive_threshold,
            max_consumers: if own <= 0 || account > 0 && account < own { account } else { own },
        }
    }
}

/// Whether a consumer (or a stream) may be called so.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([' ', '\t', '\r', '\n', '\x0c', '.', '*', '>', '/', '\\'])
}

/// Fills in what is left out and mends what is out of range. A pedantic request is refused instead of mended.
///
/// # Errors
/// Only for a pedantic request: 10157 with the value that would have been changed.
pub fn set_defaults(
    c: &mut ConsumerConfig,
    parent: &Parent<'_>,
    limits: &Limits,
    pedantic: bool,
) -> Result<(), ApiError> {
    let refuse = |what: &str| if pedantic { Err(errors::PEDANTIC.with(what)) } else { Ok(()) };
    if c.max_deliver < -1 {
        refuse("max_deliver must be set to -1")?;
        c.max_deliver = -1;
    }
    if c.max_deliver == 0 {
        c.max_deliver = -1;
    }
    if c.max_ack_pending < -1 {
        refuse("max_ack_pending must be set to -1")?;
        c.max_ack_pending = -1;
    }
    let at_least_zero = [
        (&mut c.max_waiting, "max_waiting"),
        (&mut c.max_batch, "max_batch"),
        (&mut c.max_expires, "max_expires"),
        (&mut c.max_bytes, "max_bytes"),
        (&mut c.idle_heartbeat, "idle_heartbeat"),
        (&mut c.inactive_threshold, "inactive_threshold"),
        (&mut c.priority_timeout, "priority_timeout"),
    ];
    for (value, name) in at_least_zero {
        if *value < 0 {
            refuse(&format!("{name} must not be negative"))?;
            *value = 0;
        }
    }
    if c.is_pull() && c.max_waiting == 0 {
        c.max_waiting = MAX_WAITING_DEFAULT;
    }
    if c.ack_wait == 0 && matches!(c.ack_policy, AckPolicy::Explicit | AckPolicy::All) {
        c.ack_wait = ACK_WAIT_DEFAULT;
    }
    if let Some(&first) = c.backoff.first() {
        if c.ack_wait != first {
            refuse("first backoff value has to equal batch AckWait")?;
        }
        c.ack_wait = first;
    }
    if c.max_ack_pending == 0 && parent.max_ack_pending != 0 {
        if parent.max_ack_pending > 0 {
            refuse("max_ack_pending must be set if it's configured in stream limits")?;
        }
        c.max_ack_pending = parent.max_ack_pending;
    }
    if c.inactive_threshold == 0 && parent.inactive_threshold > 0 {
        refuse("inactive_threshold must be set if it's configured in stream limits")?;
        c.inactive_threshold = parent.inactive_threshold;
    }
    if c.max_ack_pending == 0 && c.ack_policy != AckPolicy::None {
        let least = [limits.max_ack_pending, limits.account_max_ack_pending].into_iter().filter(|n| *n > 0);
        c.max_ack_pending = least.fold(MAX_ACK_PENDING_DEFAULT, i64::min);
    }
    if c.is_pull() && c.max_batch == 0 && limits.max_request_batch > 0 {
        refuse("max_request_batch must be set if it's JetStream limits are set")?;
        c.max_batch = limits.max_request_batch;
    }
    if c.priority_policy == PriorityPolicy::PinnedClient && c.priority_timeout == 0 {
        c.priority_timeout = PIN_TTL_DEFAULT;
    }
    if c.ack_policy == AckPolicy::FlowControl && !pedantic {
        c.flow_control = true;
        c.idle_heartbeat = FLOW_CONTROL_HEARTBEAT;
    }
    if c.name.is_empty() {
        c.name.clone_from(&c.durable_name);
    }
    Ok(())
}

/// Stamps what is shown of a consumer without a durable name: that it does not stay unused for long. To be called after [`decide`], which compares
/// what was asked for.
///
/// A consumer that is there, `old`, stays what it was made as: a durable one, also if an update names it by `name` only, and one that ends when it is
/// unused, also if an update gives it a durable name.
pub fn stamp_ephemeral(c: &mut ConsumerConfig, old: Option<&ConsumerConfig>) {
    let durable = match old {
        Some(old) => {
            if old.is_durable() {
                c.durable_name.clone_from(&old.durable_name);
            }
            old.is_durable()
        }
        None => c.is_durable(),
    };
    if !durable && c.inactive_threshold <= 0 {
        c.inactive_threshold = INACTIVE_DEFAULT;
    }
}

/// Whether a configuration (with its defaults filled in) may be. `recovering` skips what older servers let pass.
///
/// # Errors
/// The first rule that is broken.
pub fn check(
    c: &ConsumerConfig,
    parent: &Parent<'_>,
    limits: &Limits,
    recovering: bool,
) -> Result<(), ApiError> {
    check_names(c)?;
    check_replicas(c, parent, recovering)?;
    if c.backoff.iter().any(|wait| *wait < 0) {
        return Err(errors::CONSUMER_BACK_OFF_NEGATIVE.error());
    }
    if c.ack_wait < 0 {
        return Err(errors::CONSUMER_ACK_WAIT_NEGATIVE.error());
    }
    if c.ack_policy == AckPolicy::FlowControl {
        check_flow_control_acks(c)?;
    }
    check_backoff_length(c)?;
    if c.description.len() > DESCRIPTION_MAX {
        return Err(errors::CONSUMER_DESCRIPTION_TOO_LONG.with(DESCRIPTION_MAX));
    }
    if c.is_pull() {
        check_pull(c, parent, limits)?
    } else {
        check_push(c, parent)?
    }
    check_limits(c, parent, limits)?;
    if c.direct {
        if c.is_pull() {
            return Err(errors::CONSUMER_DIRECT_REQUIRES_PUSH.error());
        }
        if c.is_durable() {
            return Err(errors::CONSUMER_DIRECT_REQUIRES_EPHEMERAL.error());
        }
    }
    check_filters(c)?;
    check_start(c)?;
    check_sampling(c)?;
    if c.flow_control && c.idle_heartbeat == 0 {
        return Err(errors::CONSUMER_WITH_FLOW_CONTROL_NEEDS_HEARTBEATS.error());
    }
    if c.is_durable() && !c.name.is_empty() && c.name != c.durable_name {
        return Err(errors::CONSUMER_CREATE_DURABLE_AND_NAME_MISMATCH.error());
    }
    if c.metadata.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > METADATA_MAX {
        return Err(errors::CONSUMER_METADATA_LENGTH.with(format_args!("{}KB", METADATA_MAX / 1024)));
    }
    check_priorities(c)
}

fn check_names(c: &ConsumerConfig) -> Result<(), ApiError> {
    if c.name.contains(['/', '\\']) || c.durable_name.contains(['/', '\\']) {
        return Err(errors::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS.error());
    }
    let bad = |what: &str| {
        errors::STREAM_INVALID_CONFIG.with(format_args!("{what} can not contain '.', '*', '>', '\\', '/'"))
    };
    if !c.name.is_empty() && !is_valid_name(&c.name) {
        return Err(bad("consumer name"));
    }
    if c.is_durable() && !is_valid_name(&c.durable_name) {
        return Err(bad("consumer durable name"));
    }
    if c.given_name().len() > NAME_MAX {
        return Err(errors::CONSUMER_NAME_TOO_LONG.with(NAME_MAX));
    }
    Ok(())
}

fn check_replicas(c: &ConsumerConfig, parent: &Parent<'_>, recovering: bool) -> Result<(), ApiError> {
    if c.num_replicas > 0 && c.num_replicas > parent.num_replicas {
        return Err(errors::CONSUMER_REPLICAS_EXCEEDS_STREAM.error());
    }
    if c.num_replicas < 0 {
        return Err(errors::REPLICAS_COUNT_CANNOT_BE_NEGATIVE.error());
    }
    let bound = parent.interest || parent.work_queue;
    if bound && !recovering && c.num_replicas != 0 && c.num_replicas != parent.num_replicas {
        return Err(errors::CONSUMER_REPLICAS_SHOULD_MATCH_STREAM.error());
    }
    Ok(())
}

fn check_flow_control_acks(c: &ConsumerConfig) -> Result<(), ApiError> {
    if c.is_pull() {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_PUSH.error());
    }
    if !c.flow_control {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_FC.error());
    }
    if c.idle_heartbeat != FLOW_CONTROL_HEARTBEAT {
        return Err(errors::STREAM_INVALID_CONFIG.with("flow control ack policy heartbeat needs to be 1s"));
    }
    if c.max_ack_pending <= 0 {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_MAX_ACK_PENDING.error());
    }
    if c.ack_wait != 0 || !c.backoff.is_empty() {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_NO_ACK_WAIT.error());
    }
    if c.max_deliver > 0 {
        return Err(errors::CONSUMER_ACK_FC_REQUIRES_NO_MAX_DELIVER.error());
    }
    Ok(())
}

fn check_backoff_length(c: &ConsumerConfig) -> Result<(), ApiError> {
    let length = i64::try_from(c.backoff.len()).unwrap_or(i64::MAX);
    if length > 0 && c.max_deliver != -1 && length > c.max_deliver {
        return Err(errors::CONSUMER_MAX_DELIVER_BACKOFF.error());
    }
    Ok(())
}

fn check_push(c: &ConsumerConfig, parent: &Parent<'_>) -> Result<(), ApiError> {
    let to = c.deliver_subject.as_bytes();
    if has_wildcard(to) {
        return Err(errors::CONSUMER_DELIVER_TO_WILDCARDS.error());
    }
    if !is_valid(to) {
        return Err(errors::CONSUMER_INVALID_DELIVER_SUBJECT.error());
    }
    if parent.subjects.iter().any(|s| is_subset(to, s.as_bytes())) {
        return Err(errors::CONSUMER_DELIVER_CYCLE.error());
    }
    if c.max_waiting != 0 {
        return Err(errors::CONSUMER_PUSH_MAX_WAITING.error());
    }
    if c.max_ack_pending > 0 && c.ack_policy == AckPolicy::None {
        return Err(errors::CONSUMER_MAX_PENDING_ACK_POLICY_REQUIRED.error());
    }
    if c.idle_heartbeat > 0 && c.idle_heartbeat < 100 * MILLI {
        return Err(errors::CONSUMER_SMALL_HEARTBEAT.error());
    }
    Ok(())
}

fn check_pull(c: &ConsumerConfig, parent: &Parent<'_>, limits: &Limits) -> Result<(), ApiError> {
    if c.ack_policy == AckPolicy::None && parent.work_queue {
        return Err(errors::CONSUMER_PULL_REQUIRES_ACK.error());
    }
    if c.rate_limit_bps > 0 {
        return Err(errors::CONSUMER_PULL_WITH_RATE_LIMIT.error());
    }
    if c.max_waiting < 0 {
        return Err(errors::CONSUMER_MAX_WAITING_NEGATIVE.error());
    }
    if c.idle_heartbeat > 0 {
        return Err(errors::CONSUMER_HBREQUIRES_PUSH.error());
    }
    if c.flow_control {
        return Err(errors::CONSUMER_FCREQUIRES_PUSH.error());
    }
    if c.max_batch < 0 {
        return Err(errors::CONSUMER_MAX_REQUEST_BATCH_NEGATIVE.error());
    }
    if c.max_expires != 0 && c.max_expires < MILLI {
        return Err(errors::CONSUMER_MAX_REQUEST_EXPIRES_TOO_SMALL.error());
    }
    if limits.max_request_batch > 0 && c.max_batch > limits.max_request_batch {
        return Err(errors::CONSUMER_MAX_REQUEST_BATCH_EXCEEDED.with(limits.max_request_batch));
    }
    Ok(())
}

fn check_limits(c: &ConsumerConfig, parent: &Parent<'_>, limits: &Limits) -> Result<(), ApiError> {
    for limit in [limits.max_ack_pending, limits.account_max_ack_pending, parent.max_ack_pending] {
        if limit > 0 && c.max_ack_pending > limit {
            return Err(errors::CONSUMER_MAX_PENDING_ACK_EXCESS.with(limit));
        }
    }
    if parent.inactive_threshold > 0 && c.inactive_threshold > parent.inactive_threshold {
        return Err(
            errors::CONSUMER_INACTIVE_THRESHOLD_EXCESS.with(crate::time::duration(parent.inactive_threshold))
        );
    }
    Ok(())
}

fn check_filters(c: &ConsumerConfig) -> Result<(), ApiError> {
    let bad_subject = || errors::STREAM_INVALID_CONFIG.with("invalid subject");
    if !c.filter_subject.is_empty() && !c.filter_subjects.is_empty() {
        return Err(errors::CONSUMER_DUPLICATE_FILTER_SUBJECTS.error());
    }
    if c.filter_subjects.iter().any(String::is_empty) {
        return Err(errors::CONSUMER_EMPTY_FILTER.error());
    }
    for (i, filter) in c.filters().enumerate() {
        if !is_valid(filter.as_bytes()) {
            return Err(bad_subject());
        }
        let overlaps = |(j, other): (usize, &str)| j != i && is_subset(filter.as_bytes(), other.as_bytes());
        if c.filters().enumerate().any(overlaps) {
            return Err(errors::CONSUMER_OVERLAPPING_SUBJECT_FILTERS.error());
        }
    }
    Ok(())
}

fn check_start(c: &ConsumerConfig) -> Result<(), ApiError> {
    use DeliverPolicy as P;
    let policy = match c.deliver_policy {
        P::All => "all",
        P::Last => "last",
        P::New => "new",
        P::LastPerSubject => "last per subject",
        P::ByStartSequence => "by start sequence",
        P::ByStartTime => "by start time",
    };
    let prefix = format!("consumer delivery policy is deliver {policy}, but optional");
    let set = |what: &str| {
        Err(errors::CONSUMER_INVALID_POLICY.with(format_args!("{prefix} start {what} is also set")))
    };
    let unset =
        |what: &str| Err(errors::CONSUMER_INVALID_POLICY.with(format_args!("{prefix} {what} is not set")));
    match c.deliver_policy {
        P::ByStartSequence if c.opt_start_seq == 0 => unset("start sequence"),
        P::ByStartSequence if c.opt_start_time.is_some() => set("time"),
        P::ByStartTime if c.opt_start_time.is_none() => unset("start time"),
        P::ByStartTime if c.opt_start_seq != 0 => set("start sequence"),
        P::ByStartSequence | P::ByStartTime => Ok(()),
        _ if c.opt_start_seq > 0 => set("sequence"),
        _ if c.opt_start_time.is_some() => set("time"),
        P::LastPerSubject if c.filters().next().is_none() => unset("filter subject"),
        _ => Ok(()),
    }
}

fn check_sampling(c: &ConsumerConfig) -> Result<(), ApiError> {
    if c.sample_freq.is_empty() {
        return Ok(());
    }
    let text = c.sample_freq.strip_suffix('%').unwrap_or(&c.sample_freq);
    match text.parse::<i64>() {
        Ok(0..) => Ok(()),
        // The original server has no error at hand for this one and says so.
        Ok(_) => Err(errors::CONSUMER_INVALID_SAMPLING.with("<nil>")),
        Err(_) => {
            let why = format_args!("strconv.Atoi: parsing {text:?}: invalid syntax");
            Err(errors::CONSUMER_INVALID_SAMPLING.with(why))
        }
    }
}

fn check_priorities(c: &ConsumerConfig) -> Result<(), ApiError> {
    if c.priority_policy == PriorityPolicy::None {
        if !c.priority_groups.is_empty() {
            return Err(errors::CONSUMER_PRIORITY_GROUP_WITH_POLICY_NONE.error());
        }
        if c.priority_timeout > 0 {
            return Err(errors::CONSUMER_PINNED_TTL_WITHOUT_PRIORITY_POLICY_NONE.error());
        }
        return Ok(());
    }
    if !c.is_pull() {
        return Err(errors::CONSUMER_PUSH_WITH_PRIORITY_GROUP.error());
    }
    if c.priority_groups.is_empty() {
        return Err(errors::CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP.error());
    }
    for group in &c.priority_groups {
        if group.is_empty() {
            return Err(errors::CONSUMER_EMPTY_GROUP_NAME.error());
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/_=-".contains(&b);
        if group.len() > GROUP_MAX || !group.bytes().all(allowed) {
            return Err(errors::CONSUMER_INVALID_GROUP_NAME.error());
        }
    }
    Ok(())
}

/// What a create request comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A new consumer.
    Create,
    /// The consumer exists and is as asked for.
    Same,
    /// The consumer exists and changes.
    Update,
}

/// What to do about a create request whose configuration has passed [`check`]: against the consumer of that name, if there is
/// one, and against all others. `push_bound` says whether somebody listens to the existing consumer's deliver subject.
///
/// # Errors
/// The rule that is broken.
pub fn decide<'a>(
    c: &ConsumerConfig,
    action: Action,
    parent: &Parent<'_>,
    existing: Option<&ConsumerConfig>,
    others: impl Iterator<Item = &'a ConsumerConfig> + Clone,
    push_bound: bool,
) -> Result<Verdict, ApiError> {
    let counted = others.filter(|o| !o.direct && !o.sourcing);
    if let Some(old) = existing {
        let same = same_but_server_metadata(old, c);
        if action == Action::Create && !same {
            return Err(errors::CONSUMER_ALREADY_EXISTS.error());
        }
        if parent.work_queue && c.filters().next().is_some() && !is_alone(c, counted) {
            return Err(errors::CONSUMER_WQCONSUMER_NOT_UNIQUE.error());
        }
        check_update(old, c, push_bound)?;
        return Ok(if same { Verdict::Same } else { Verdict::Update });
    }
    if action == Action::Update {
        return Err(errors::CONSUMER_DOES_NOT_EXIST.error());
    }
    let many = counted.clone().count();
    if parent.max_consumers > 0 && i64::try_from(many).unwrap_or(i64::MAX) >= parent.max_consumers {
        return Err(errors::MAXIMUM_CONSUMERS_LIMIT.error());
    }
    if parent.work_queue && !c.direct && !c.sourcing {
        if !matches!(c.ack_policy, AckPolicy::Explicit | AckPolicy::FlowControl) {
            return Err(errors::CONSUMER_WQREQUIRES_EXPLICIT_ACK.error());
        }
        if c.deliver_policy != DeliverPolicy::All {
            return Err(errors::CONSUMER_WQCONSUMER_NOT_DELIVER_ALL.error());
        }
        if many > 0 && c.filters().next().is_none() {
            return Err(errors::CONSUMER_WQMULTIPLE_UNFILTERED.error());
        }
        if !is_alone(c, counted) {
            return Err(errors::CONSUMER_WQCONSUMER_NOT_UNIQUE.error());
        }
    }
    Ok(Verdict::Create)
}

/// Whether no other consumer of a work queue could get a message that `c` gets.
fn is_alone<'a>(c: &ConsumerConfig, mut others: impl Iterator<Item = &'a ConsumerConfig>) -> bool {
    !others.any(|o| {
        o.filters().next().is_none()
            || c.filters().next().is_none()
            || o.filters().any(|theirs| c.filters().any(|ours| collides(ours.as_bytes(), theirs.as_bytes())))
    })
}

/// Equal, but for the notes that the server itself makes in the metadata.
fn same_but_server_metadata(a: &ConsumerConfig, b: &ConsumerConfig) -> bool {
    let own = |c: &ConsumerConfig| {
        let mut c = c.clone();
        c.metadata.retain(|k, _| !k.starts_with("_nats."));
        if c.name.is_empty() {
            c.name.clone_from(&c.durable_name);
        }
        c
    };
    own(a) == own(b)
}

/// Whether the consumers of a stream keep within what its configuration is to allow them from now on.
///
/// # Errors
/// 10069 that names those that do not.
pub fn check_stream_limits<'a>(
    limits: &crate::config::ConsumerLimits,
    consumers: impl Iterator<Item = (&'a str, &'a ConsumerConfig)>,
) -> Result<(), ApiError> {
    let over = |value: i64, limit: i64| limit > 0 && value > limit;
    let names: Vec<&str> = consumers
        .filter(|(_, c)| {
            over(c.max_ack_pending, limits.max_ack_pending)
                || over(c.inactive_threshold, limits.inactive_threshold)
        })
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(errors::STREAM_UPDATE.with(format_args!("change to limits violates consumers: {}", names.join(", "))))
}

/// What an update may change. `push_bound` says whether somebody listens to the old deliver subject.
///
/// # Errors
/// 10012 with the first field that may not change, or 10013 for a deliver subject in use.
pub fn check_update(old: &ConsumerConfig, new: &ConsumerConfig, push_bound: bool) -> Result<(), ApiError> {
    let start = |c: &ConsumerConfig| c.opt_start_time.map(|t| t.ns);
    let fixed = [
        (old.deliver_policy != new.deliver_policy, "deliver policy"),
        (old.mem_storage != new.mem_storage, "storage type"),
        (old.direct != new.direct, "direct"),
        (old.sourcing != new.sourcing, "sourcing"),
        (old.opt_start_seq != new.opt_start_seq, "start sequence"),
        (start(old) != start(new), "start time"),
        (old.ack_policy != new.ack_policy, "ack policy"),
        (old.replay_policy != new.replay_policy, "replay policy"),
        (old.idle_heartbeat != new.idle_heartbeat, "heart beats"),
        (old.flow_control != new.flow_control, "flow control"),
    ];
    let refused = |text: std::fmt::Arguments<'_>| Err(errors::CONSUMER_CREATE.with(text));
    if let Some((_, what)) = fixed.iter().find(|(changed, _)| *changed) {
        return refused(format_args!("{what} can not be updated"));
    }
    if old.deliver_subject != new.deliver_subject {
        if old.is_pull() {
            return refused(format_args!("can not update pull consumer to push based"));
        }
        if new.is_pull() {
            return refused(format_args!("can not update push consumer to pull based"));
        }
        if push_bound {
            return Err(errors::CONSUMER_NAME_EXIST.error());
        }
    }
    if old.max_waiting != new.max_waiting {
        return refused(format_args!("max waiting can not be updated"));
    }
    check_backoff_length(new)
}
