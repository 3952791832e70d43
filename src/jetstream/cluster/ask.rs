//! Who answers a request: the node that it reached, or another that is asked in its name.
//!
//! Owns the choice and the asking again when leadership is on its way. The answers themselves are the handlers'.
//!
//! - K-3: only a node that leads, and has applied everything from before its term, decides or answers for a stream.
//! - K-4: a request is answered by at most one server: the one that it reached.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use replica::NodeId;
use stream::{ApiError, errors};

use super::{
    calls::{Call, Forward, Reply, Way},
    shell::{Cluster, FILES, NOTES},
};
use crate::{
    JetStream,
    account::{Asked, Assets},
    api::{self, Kind, Parsed, Request, response::StreamInfo},
    backup,
    handlers::{self, Answered, Desk},
    leading::Standing,
    meta::{Assigned, NotAssigned},
    shell::Stream,
};

/// How long a request waits for a leader before it is refused: longer than an election, shorter than clients wait.
pub(crate) const GRACE: Duration = Duration::from_millis(3500);
/// How long all servers of a stream may be away before that is said: one that is restarted is back soon, and some clients wait for two seconds only.
const AWAY: Duration = Duration::from_secs(1);
/// How long another node may take for a request. Some read much from a disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long other nodes are given to see a change before its author is told.
const SEEN: Duration = Duration::from_millis(250);
/// How long a node that is asked waits for word of who answers, before it says that it does not know: it may be about to lead itself, which who asked it
/// cannot see.
const SOON: Duration = Duration::from_millis(500);
/// Pause before a request is tried again although nothing was heard to change.
const AGAIN: Duration = Duration::from_millis(50);
/// Nodes that one message of a client goes through at most.
pub(crate) const HOPS_MAX: u8 = 3;

/// Where something is answered.
pub(crate) enum At {
    /// Here.
    Here,
    /// There.
    Node(NodeId),
    /// Nobody is known to be responsible at the moment.
    Nobody,
}

/// Who is responsible for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Responsible<'a> {
    /// Whoever it reached.
    Anybody,
    /// The meta group's leader.
    Meta,
    /// The stream's leader.
    Stream(&'a str),
}

pub(crate) fn responsible(r: &Request) -> Responsible<'_> {
    match r {
        Request::AccountInfo => Responsible::Anybody,
        Request::StreamCreate { .. }
        | Request::StreamUpdate { .. }
        | Request::StreamNames { .. }
        | Request::StreamList { .. }
        | Request::StreamDelete { .. }
        | Request::StreamRestore { .. }
        | Request::StreamPeer { .. }
        | Request::StreamCancelMove { .. } => Responsible::Meta,
        Request::StreamInfo { stream, .. }
        | Request::StreamPurge { stream, .. }
        | Request::MsgGet { stream, .. }
        | Request::MsgDelete { stream, .. }
        | Request::StreamSnapshot { stream, .. }
        | Request::StreamStepDown { stream, .. }
        | Request::ConsumerNames { stream, .. }
        | Request::ConsumerList { stream, .. }
        | Request::ConsumerInfo { stream, .. }
        | Request::ConsumerDelete { stream, .. }
        | Request::ConsumerPause { stream, .. }
        | Request::ConsumerUnpin { stream, .. }
        | Request::ConsumerReset { stream, .. }
        | Request::ConsumerStepDown { stream, .. }
        | Request::ConsumerPeer { stream, .. } => Responsible::Stream(stream),
        Request::ConsumerCreate(c) => Responsible::Stream(&c.stream),
    }
}

impl JetStream {
    /// Who answers for the meta group.
    fn at_meta(&self) -> At {
        match self.meta.leader(self.me) {
            Some(n) if n == self.me => At::Here,
            Some(n) => At::Node(n),
            // A node that is in no group yet knows nobody, but those who are may.
            None => At::Nobody,
        }
    }
    /// Who answers for a stream.
    fn at_stream(&self, account: &str, name: &str) -> At {
        match self.meta.find(account, name) {
            Some(a) => self.at_group(&a),
            // It may be new: the meta group's leader knows.
            None => self.at_meta(),
        }
    }
    /// Who answers for an assigned stream.
    pub(crate) fn at_group(&self, a: &Assigned) -> At {
        let Some(c) = &self.cluster else { return At::Here };
        if let Some(s) = self.stream_of(a) {
            match s.standing() {
                Standing::Leads(_) => return At::Here,
                Standing::Follows(Some(n)) if c.is_up(n) => return At::Node(n),
                Standing::Follows(_) | Standing::Opening => return At::Nobody,
                // Its other members go on without this node.
                Standing::Stopped(_) => {}
            }
        } else if a.a.members.contains(&self.me) && a.a.members.len() == 1 {
            return At::Nobody;
        }
        // Whoever answered once may be out of it since, and believe the same of this node.
        let hint = c.hints.lock().get(&a.a.id).copied().filter(|n| a.a.concerns(*n));
        let others = a.a.members.iter().copied().filter(|n| *n != self.me);
        hint.into_iter().chain(others).find(|n| c.is_up(*n)).map_or(At::Nobody, At::Node)
    }
    /// Whether no server of a stream can be reached.
    fn is_away(&self, a: &Assigned) -> bool {
        self.is_clustered() && !a.a.members.iter().any(|n| self.is_here(*n))
    }
    /// The same, if it stays so for a while.
    pub(crate) async fn is_away_for_long(&self, a: &Assigned) -> bool {
        let begun = env::now();
        while self.is_away(a) {
            if begun.elapsed() >= AWAY {
                return true;
            }
            env::sleep(AGAIN).await;
        }
        false
    }
    fn at(&self, assets: &Assets, r: Responsible<'_>) -> At {
        match r {
            Responsible::Anybody => At::Here,
            Responsible::Meta => self.at_meta(),
            Responsible::Stream(name) => self.at_stream(&assets.account.name, name),
        }
    }

    /// What `look` says; while that is nobody it is waited for, but not for long.
    async fn at_soon(&self, look: impl Fn() -> At) -> At {
        let Some(c) = &self.cluster else { return look() };
        let until = env::now() + SOON;
        loop {
            // Before the look, so that nothing is missed.
            let mut changes = c.changed.subscribe();
            let at = look();
            let left = until.since(env::now());
            if !matches!(at, At::Nobody) || left.is_zero() {
                return at;
            }
            env::timeout(left, changes.changed()).await.ok();
        }
    }

    /// The open stream of an assignment.
    pub(crate) fn stream_of(&self, a: &Assigned) -> Option<Arc<Stream>> {
        self.account(&a.a.account)?.stream(&a.a.name).filter(|s| s.id == a.a.id)
    }
    /// An open stream by its group.
    pub(crate) fn stream_by_id(&self, id: u64) -> Option<Arc<Stream>> {
        self.all_assets().iter().find_map(|a| a.stream_by_id(id))
    }

    /// Answers a call of another node.
    pub(crate) async fn serve_call(self: &Arc<JetStream>, from: NodeId, call: Call) -> Reply {
        match call {
            Call::Ask { account, subject, headers, body } => {
                let account = self.broker.account_or_new(&account);
                let assets = self.assets(&account);
                let asked = Asked {
                    full: subject.into(),
                    reply: Vec::new(),
                    headers: headers.into(),
                    body: body.into(),
                    from: None,
                };
                self.serve_asked(&assets, &asked).await
            }
            Call::Propose(command) => {
                let Some(command) = crate::meta::Command::decode(&command) else {
                    return Reply::Refused("the command is of an unknown format".into());
                };
                let format = match command {
                    crate::meta::Command::Note { .. } => NOTES,
                    crate::meta::Command::NoteFiled { .. } => FILES,
                    _ => 0,
                };
                if format > 0 && !self.all_read(format) {
                    return Reply::Refused("not all servers know of it".into());
                }
                match self.meta.begin(&command).done().await {
                    Ok(n) => Reply::Done(n),
                    Err(NotAssigned::NotLeader(n)) => Reply::Elsewhere(n),
                    Err(NotAssigned::Refused(why)) => Reply::Refused(why),
                    Err(e @ NotAssigned::Busy) => Reply::Refused(e.to_string()),
                    Err(NotAssigned::Open) => Reply::Open,
                }
            }
            Call::Settle { group, config } => {
                let assigned = || self.meta.read(|s| s.get(group).cloned());
                let at = self.at_soon(|| match assigned() {
                    // It is being opened here, or the word of it has not come yet.
                    Some(a) if a.a.members.contains(&self.me) && self.stream_of(&a).is_none() => At::Nobody,
                    Some(a) => self.at_group(&a),
                    None => At::Nobody,
                });
                match (at.await, assigned()) {
                    (At::Here, Some(a)) => self.settle_here(&a, config).await,
                    (At::Node(n), _) => Reply::Elsewhere(Some(n).filter(|n| *n != from)),
                    _ => Reply::Elsewhere(None),
                }
            }
            Call::Sync(index) => {
                env::timeout(SEEN, self.meta.reached(index)).await.ok();
                Reply::Done(index)
            }
            Call::Usage(account) => {
                let mut u = crate::Usage::default();
                if let Some(a) = self.account(&account) {
                    a.add_usage(&mut u);
                    u.consumers = a.streams().iter().filter(|s| s.leads()).map(|s| s.seen().consumers).sum();
                }
                let numbers = [u.memory, u.storage, u.consumers as u64];
                serde_json::to_vec(&numbers).map_or(Reply::Open, |b| Reply::Json(b.into()))
            }
            Call::Infos { account, names } => {
                let mut infos = Vec::new();
                for s in names.iter().filter_map(|n| self.account(&account)?.stream(n)).filter(|s| s.leads())
                {
                    if s.confirm().await.is_err() {
                        continue;
                    }
                    let wanted = handlers::info::Wanted::default();
                    if let Ok((info, _)) =
                        handlers::info::stream(&s, &wanted, self.options.domain.as_deref()).await
                    {
                        infos.push(info);
                    }
                }
                serde_json::to_vec(&infos).map_or(Reply::Open, |b| Reply::Json(b.into()))
            }
            Call::Import { group, items } => self.import_here(group, items).await,
            Call::MetaStepDown(to) => match self.hand_over_meta(to) {
                true => Reply::Done(0),
                false => Reply::Elsewhere(self.meta.leader(self.me).filter(|n| *n != self.me)),
            },
            Call::Left(groups) => {
                serde_json::to_vec(&self.left_here(&groups)).map_or(Reply::Open, |b| Reply::Json(b.into()))
            }
            Call::Record { group, seq } => Reply::Record(self.record_here(from, group, seq).await),
            Call::Adopt(genesis) => match self.adopt(genesis).await {
                Ok(()) => Reply::Done(genesis),
                Err(why) => Reply::Refused(why),
            },
            Call::Force { group, term, nodes } => match self.force_here(group, term, &nodes) {
                Ok(()) => Reply::Done(group),
                Err(why) => Reply::Refused(why),
            },
            Call::Operate { subject, body } => match str::from_utf8(&subject) {
                Ok(s) if self.meta.leads() => {
                    self.operate_here(s, &body).await.map_or(Reply::Silence, Reply::Json)
                }
                _ => Reply::Elsewhere(self.meta.leader(self.me).filter(|n| *n != self.me)),
            },
        }
    }

    /// A request that another node asks in a client's name.
    async fn serve_asked(self: &Arc<JetStream>, assets: &Arc<Assets>, asked: &Asked) -> Reply {
        let desk = Desk { node: self, assets, asked };
        // The one who asks has read it already, under the same rules.
        let Parsed::Ask(request) = desk.parse() else { return Reply::Silence };
        match self.at_soon(|| self.at(assets, responsible(&request))).await {
            At::Here => match desk.run(request).await {
                None => Reply::Silence,
                Some((_, Err(e))) if errors::CLUSTER_NOT_LEADER.is(&e) => Reply::Elsewhere(None),
                Some((kind, answer)) => {
                    let failed = answer.is_err();
                    Reply::Answer { failed, body: answer.unwrap_or_else(|e| api::failure(kind, &e)) }
                }
            },
            At::Node(n) => Reply::Elsewhere(Some(n)),
            At::Nobody => Reply::Elsewhere(None),
        }
    }

    /// Waits until this node, which leads the stream, has a configuration; then its info.
    async fn settle_here(self: &Arc<JetStream>, a: &Assigned, config: Bytes) -> Reply {
        let Some(s) = self.stream_of(a) else { return Reply::Elsewhere(None) };
        match settle_stream(&s, config).await {
            Ok(info) => serde_json::to_vec(&info).map_or(Reply::Open, |b| Reply::Json(b.into())),
            Err(e) if errors::CLUSTER_NOT_LEADER.is(&e) => Reply::Elsewhere(None),
            Err(e) => Reply::Refused(e.to_string()),
        }
    }

    /// Waits until the leader of a stream, wherever it is, has a configuration; then its info.
    ///
    /// # Errors
    /// What the leader says, or that there is none in time.
    pub(crate) async fn settle(
        self: &Arc<JetStream>,
        id: u64,
        config: Bytes,
    ) -> Result<StreamInfo, ApiError> {
        let Some(c) = &self.cluster else { return Err(errors::CLUSTER_NOT_AVAIL.error()) };
        let until = env::now() + GRACE;
        let (mut hint, mut away) = (None, None);
        loop {
            let mut changes = c.changed.subscribe();
            let Some(a) = self.meta.read(|s| s.get(id).cloned()) else {
                return Err(errors::STREAM_NOT_FOUND.error());
            };
            let at = match hint.take() {
                Some(n) => At::Node(n),
                None => self.at_group(&a),
            };
            let reply = match at {
                At::Here => self.settle_here(&a, config.clone()).await,
                At::Node(n) => {
                    let call = Call::Settle { group: id, config: config.clone() };
                    c.calls.call(&*c.wires, n, &call, GRACE).await.unwrap_or(Reply::Elsewhere(None))
                }
                At::Nobody => Reply::Elsewhere(None),
            };
            match reply {
                Reply::Json(b) => {
                    return serde_json::from_slice(&b).map_err(|e| errors::STREAM_STORE_FAILED.with(e));
                }
                Reply::Refused(why) => return Err(errors::STREAM_STORE_FAILED.with(why)),
                Reply::Elsewhere(n) => hint = n.filter(|n| c.is_up(*n)),
                _ => {}
            }
            away = away.or(Some(env::now())).filter(|_| self.is_away(&a));
            if away.is_some_and(|since| since.elapsed() >= AWAY) {
                return Err(self.offline(&a, false));
            }
            if env::now() >= until {
                return Err(errors::CLUSTER_NOT_AVAIL.error());
            }
            if hint.is_none() {
                env::timeout(AGAIN, changes.changed()).await.ok();
            }
        }
    }

    /// Returns when the other nodes that can be reached have applied what is applied here, or have had the time for it: a request that follows may
    /// reach any of them.
    pub(crate) async fn spread(&self) {
        let Some(c) = &self.cluster else { return };
        let index = self.meta.applied();
        let calls = c.up().into_iter().filter(|n| c.is_kin(*n)).map(|n| async move {
            c.calls.call(&*c.wires, n, &Call::Sync(index), SEEN).await;
        });
        futures_util::future::join_all(calls).await;
    }

    /// Asks every other node that can be reached.
    pub(crate) async fn ask_all(&self, call: &Call, patience: Duration) -> Vec<(NodeId, Reply)> {
        let Some(c) = &self.cluster else { return Vec::new() };
        let calls = c
            .up()
            .into_iter()
            .filter(|n| c.is_kin(*n))
            .map(|n| async move { c.calls.call(&*c.wires, n, call, patience).await.map(|r| (n, r)) });
        futures_util::future::join_all(calls).await.into_iter().flatten().collect()
    }
}

/// Waits until a stream that is led here has a configuration; then its info.
///
/// # Errors
/// It is not led here, or what the disk said.
pub(crate) async fn settle_stream(s: &Arc<Stream>, config: Bytes) -> Result<StreamInfo, ApiError> {
    s.want(config);
    s.configured().await?;
    s.confirm().await?;
    let wanted = handlers::info::Wanted::default();
    let (info, _) =
        handlers::info::stream(s, &wanted, None).await.map_err(|e| errors::STREAM_STORE_FAILED.with(e))?;
    Ok(info)
}

impl Desk<'_> {
    /// Answers a request, here or by asking who is responsible.
    pub(crate) async fn answer_anywhere(&self, request: Request, kind: Kind) -> Option<Answered> {
        let Some(c) = &self.node.cluster else {
            let (kind, answer) = self.run(request).await?;
            let counts = answer.as_ref().is_err_and(|e| !handlers::streams::is_not_there(kind, e));
            return Some(Answered { counts, ..Answered::of((kind, answer)) });
        };
        let until = env::now() + GRACE;
        let (mut hint, mut away) = (None, None);
        loop {
            let mut changes = c.changed.subscribe();
            let at = match hint.take() {
                Some(n) => At::Node(n),
                None => self.node.at(self.assets, responsible(&request)),
            };
            match at {
                At::Here => match self.run(request.clone()).await {
                    Some((_, Err(e))) if errors::CLUSTER_NOT_LEADER.is(&e) => {}
                    answer => return answer.map(Answered::of),
                },
                At::Node(n) => match self.ask(c, n).await {
                    Some(Reply::Answer { failed, body }) => {
                        self.remember(c, &request, n);
                        if kind == Kind::StreamRestore && !failed {
                            // The client may send at once what another server takes.
                            self.assets.await_interest(backup::upload_subject(&body).as_bytes()).await;
                        }
                        return Some(Answered { kind, failed, counts: failed, head: Vec::new(), body });
                    }
                    Some(Reply::Silence) => return None,
                    Some(Reply::Elsewhere(next)) => {
                        self.unlearn(c, &request, n);
                        hint = next.filter(|n| *n != self.node.me && c.is_up(*n));
                    }
                    _ => self.unlearn(c, &request, n),
                },
                At::Nobody => {}
            }
            let asked = self.stream_asked(&request);
            let is_away = asked.as_ref().is_some_and(|a| self.node.is_away(a));
            away = away.or(Some(env::now())).filter(|_| is_away);
            if env::now() >= until || away.is_some_and(|since| since.elapsed() >= AWAY) {
                if is_away
                    && let Some(a) = &asked
                    && let Some(answer) = self.node.answer_of_away(&request, a).await
                {
                    return Some(Answered::of(answer));
                }
                let e = match asked.filter(|_| is_away) {
                    None => errors::CLUSTER_NOT_AVAIL.error(),
                    Some(a) => self.node.offline(&a, kind == Kind::ConsumerInfo),
                };
                return Some(Answered::of((kind, Err(e))));
            }
            if hint.is_none() {
                env::timeout(AGAIN, changes.changed()).await.ok();
            }
        }
    }

    /// The assigned stream that a request is for.
    fn stream_asked(&self, r: &Request) -> Option<Arc<Assigned>> {
        let Responsible::Stream(name) = responsible(r) else { return None };
        self.node.meta.find(&self.assets.account.name, name)
    }

    async fn ask(&self, c: &Cluster, to: NodeId) -> Option<Reply> {
        let call = Call::Ask {
            account: self.assets.account.name.clone(),
            subject: Bytes::copy_from_slice(&self.asked.full),
            headers: Bytes::copy_from_slice(&self.asked.headers),
            body: Bytes::copy_from_slice(&self.asked.body),
        };
        c.calls.call(&*c.wires, to, &call, PATIENCE).await
    }

    /// Who did not answer is not asked first the next time.
    fn unlearn(&self, c: &Cluster, r: &Request, asked: NodeId) {
        if let Some(a) = self.stream_asked(r) {
            let mut hints = c.hints.lock();
            if hints.get(&a.a.id) == Some(&asked) {
                hints.remove(&a.a.id);
            }
        }
    }

    /// Who answered for a stream is asked first the next time.
    fn remember(&self, c: &Cluster, r: &Request, answered: NodeId) {
        if let Some(a) = self.stream_asked(r) {
            c.hints.lock().insert(a.a.id, answered);
        }
    }
}

impl Assets {
    /// Gives a message of a client to the node that leads the stream. False if none is known.
    pub(crate) fn pass_on(&self, node: &JetStream, name: &str, f: &Forward<'_>) -> bool {
        let Some(c) = &node.cluster else { return false };
        if f.hops >= HOPS_MAX {
            return false;
        }
        let Some(a) = node.meta.find(&self.account.name, name) else { return false };
        if f.way == Way::Direct && !a.config.as_ref().is_some_and(|c| c.allow_direct || c.mirror_direct) {
            return false;
        }
        let At::Node(to) = node.at_group(&a) else { return false };
        let f = Forward { hops: f.hops + 1, account: self.account.name.as_bytes(), ..f.clone() };
        c.wires.send(to, super::Kind::Forward, f.encode())
    }
}
