//! Streams and consumers as answers show them.

use std::{collections::BTreeMap, sync::Arc};

use store::{Need, Read, StreamSeq, View};

use crate::{
    api::{
        Time, metadata,
        response::{
            ClusterInfo, ConsumerInfo, Lost, Page, PriorityGroup, SUBJECTS_LIMIT, SequenceInfo, StreamInfo,
            StreamState,
        },
    },
    shell::{Stream, now},
};

/// What a stream info is to show besides the totals.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Sequences that are gone.
    pub deleted: bool,
    /// Counts of subjects that match; empty for none.
    pub subjects: String,
    /// Subjects to leave out at the front.
    pub offset: usize,
}

/// Sequences that an answer lists at most.
const DELETED_MAX: usize = 1 << 20;

type Asked<T> = Result<T, Need>;

fn time_of(v: &View<'_>, seq: StreamSeq) -> Asked<Time> {
    Ok(match v.get(seq)? {
        Read::Valid(m) => Time::from_nanos(m.message().time),
        Read::Absent | Read::Damaged(_) => Time::ZERO,
    })
}

fn gaps(v: &View<'_>, first: StreamSeq, last: StreamSeq) -> Asked<Vec<u64>> {
    let none: [&[u8]; 0] = [];
    let (mut out, mut at) = (Vec::new(), first);
    while at <= last && out.len() < DELETED_MAX {
        let next = v.next(&none, at)?.filter(|n| *n <= last);
        let end = next.unwrap_or(last.next());
        out.extend((at.0..end.0).take(DELETED_MAX));
        let Some(n) = next else { break };
        at = n.next();
    }
    Ok(out)
}

fn subjects(v: &View<'_>, w: &Wanted) -> Asked<(Page, BTreeMap<String, u64>)> {
    let mut all = Vec::new();
    let mut total = 0;
    let (from, to) = (w.offset, w.offset.saturating_add(SUBJECTS_LIMIT));
    v.subject_counts(w.subjects.as_bytes(), |s, n| {
        if (from..to).contains(&total) {
            all.push((String::from_utf8_lossy(s).into_owned(), n));
        }
        total += 1;
        true
    })?;
    let page =
        if total == 0 { Page::default() } else { Page { total, offset: w.offset, limit: SUBJECTS_LIMIT } };
    Ok((page, all.into_iter().collect()))
}

/// Messages that a stream has lost to damage, as far as it has not gone beyond them.
pub fn lost(s: &Stream) -> Option<Lost> {
    let group = s.group();
    let first = group.state().first.0;
    let ranges = group.lost().into_iter().filter(|l| l.sure && l.first_seq.0 > 0 && l.last_seq.0 >= first);
    let mut msgs: Vec<u64> =
        ranges.flat_map(|l| l.first_seq.0.max(first)..=l.last_seq.0).take(DELETED_MAX).collect();
    msgs.sort_unstable();
    // How many bytes they had went with them.
    (!msgs.is_empty()).then_some(Lost { msgs: Some(msgs), bytes: 0 })
}

/// What a stream holds.
///
/// # Errors
/// What the disk said.
pub async fn state(s: &Stream, w: &Wanted) -> Result<(StreamState, Page), String> {
    let consumers = s.seen().consumers;
    let lost = lost(s);
    // What is never given counts as gone; the store does not know of it.
    let floor = s.core.lock().rules.as_ref().map_or(0, |r| r.floor());
    let asked = s.group().ask(|v| {
        let t = v.totals();
        let has = t.msgs > 0;
        let last = t.last.max(StreamSeq(floor));
        let first = if has || last.0 == 0 { t.first } else { last.next() };
        let first_ts = if has { time_of(v, t.first)? } else { Time::ZERO };
        let (page, subjects) = if w.subjects.is_empty() { Default::default() } else { subjects(v, w)? };
        let deleted = if w.deleted && has { gaps(v, t.first, last)? } else { Vec::new() };
        let num_deleted = if has { (last.0 + 1 - t.first.0).saturating_sub(t.msgs) } else { 0 };
        let state = StreamState {
            messages: t.msgs,
            bytes: t.bytes,
            first_seq: if last.0 == 0 && !has { 0 } else { first.0 },
            first_ts,
            last_seq: last.0,
            last_ts: Time::or_never(t.last_time),
            num_subjects: v.num_subjects()? as usize,
            subjects,
            num_deleted: num_deleted as usize,
            deleted,
            lost: lost.clone(),
            consumer_count: consumers,
        };
        Ok((state, page))
    });
    asked.await.map_err(|e| e.to_string())
}

/// A stream.
///
/// # Errors
/// What the disk said.
pub async fn stream(s: &Stream, w: &Wanted, domain: Option<&str>) -> Result<(StreamInfo, Page), String> {
    let (state, page) = state(s, w).await?;
    let info = StreamInfo {
        config: s.config(),
        created: Time::from_nanos(s.created),
        state,
        domain: domain.unwrap_or_default().to_string(),
        cluster: s.node.upgrade().and_then(|n| n.cluster_of(s)),
        mirror: s.mirror_info(),
        sources: s.source_infos(),
        alternates: Vec::new(),
        ts: Time::from_nanos(now().wall),
    };
    Ok((info, page))
}

/// A stream as INFO shows it: with the server that leads it.
pub fn led(mut info: StreamInfo, server: String) -> StreamInfo {
    info.cluster = Some(ClusterInfo { leader: server, ..ClusterInfo::default() });
    info
}

/// A stream with the metadata that answers about one stream carry.
pub fn dressed(mut info: StreamInfo) -> StreamInfo {
    metadata::show_stream(&mut info.config);
    info
}

/// A consumer; `None` if it is gone.
///
/// # Errors
/// What the disk said.
pub async fn consumer(s: &Arc<Stream>, name: &str, dress: bool) -> Result<Option<ConsumerInfo>, String> {
    let Some((info, mut config, created)) = s.consumer_info(name).await? else { return Ok(None) };
    let sequence = |consumer_seq, stream_seq, last: Option<i64>| SequenceInfo {
        consumer_seq,
        stream_seq,
        last_active: last.map(Time::from_nanos),
    };
    if dress {
        metadata::show_consumer(&mut config);
    }
    Ok(Some(ConsumerInfo {
        stream_name: s.name.to_string(),
        name: name.to_string(),
        created: Time::from_nanos(created),
        config: Some(config),
        delivered: sequence(info.delivered_consumer, info.delivered_stream, info.delivered_last),
        ack_floor: sequence(info.ack_floor_consumer, info.ack_floor_stream, info.ack_floor_last),
        num_ack_pending: info.num_ack_pending as usize,
        num_redelivered: info.num_redelivered as usize,
        num_waiting: info.num_waiting as usize,
        num_pending: info.num_pending,
        cluster: s.node.upgrade().and_then(|n| n.cluster_of_consumer(s)),
        push_bound: info.push_bound,
        paused: info.pause_remaining.is_some(),
        pause_remaining: info.pause_remaining.unwrap_or(0),
        ts: Time::from_nanos(now().wall),
        priority_groups: info
            .priority_group
            .into_iter()
            .map(|g| PriorityGroup {
                group: g.group,
                pinned_client_id: g.pinned_client_id,
                pinned_ts: Some(g.pinned_ts.map_or(Time::ZERO, Time::from_nanos)),
            })
            .collect(),
    }))
}
