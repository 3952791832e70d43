//! Requests: who may ask what, and how answers are wrapped.
//!
//! A request is taken in the publisher's task and answered in one of its own, of which there is a bounded number (Y-3).

use std::sync::{Arc, Weak, atomic::Ordering::*};

use broker::{Account, Closed, Deliveries, Inbound, Kind, Link, Message, Sub};
use serde_json::{Value, json};

use super::{
    account_connections,
    encode::{self, Coding},
    endpoints::{self, Endpoint},
    fields::Fields,
    internal, parts, publish, relay,
};
use crate::{Server, options::Options};

/// Requests that are answered at a time (Y-3).
const IN_FLIGHT_MAX: usize = 4096;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    /// Who are you?
    Id,
    /// Statistics of the server.
    Statistics,
    /// What monitoring shows of the server.
    Server(Endpoint),
    /// What monitoring shows of one account; the account is the fourth token, or `PING` for all.
    Account(Endpoint),
    /// An account as a whole.
    AccountInfo,
    /// The event about an account's connections.
    AccountConnections,
    /// How many subscriptions get a message.
    CountSubscriptions,
    /// The same for the asker's own account.
    DebugSubscribers,
    /// Who am I?
    UserInfo,
    /// Read the configuration again.
    Reload,
    /// Close a connection.
    Kick,
    /// Tell a client to go elsewhere.
    LameDuck,
}

/// What becomes of a request.
pub(super) enum Answer {
    /// Nothing is said.
    Silence,
    /// This text, as it is.
    Bare(String),
    /// `data`, as JSON text.
    Data(String),
    /// It is done.
    Done,
    /// The request is wrong.
    Bad(String),
    /// It could not be done.
    Failed(String),
    /// There is no data, and this is why.
    NoData(String),
}

impl Answer {
    /// The body of the answer.
    fn body(self, server: &Server) -> Option<Vec<u8>> {
        let wrapped = |rest: &str| {
            let mut out = b"{\"server\":".to_vec();
            out.extend_from_slice(&encode::json(&parts::server(server)));
            out.extend_from_slice(rest.as_bytes());
            out.push(b'}');
            Some(out)
        };
        let error = |data: &str, code: u16, description: &str| {
            let error = encode::json(&json!({ "code": code, "description": description }));
            wrapped(&format!("{data},\"error\":{}", String::from_utf8_lossy(&error)))
        };
        match self {
            Answer::Silence => None,
            Answer::Bare(text) => Some(text.into_bytes()),
            Answer::Data(text) => wrapped(&format!(",\"data\":{text}")),
            Answer::Done => wrapped(""),
            Answer::Bad(why) => error("", 400, &why),
            Answer::Failed(why) => error("", 500, &why),
            Answer::NoData(why) => error(",\"data\":null", 500, &why),
        }
    }
}

/// One request, taken out of the message that brought it.
struct Request {
    ask: Ask,
    subject: Vec<u8>,
    reply: Vec<u8>,
    body: Vec<u8>,
    coding: Coding,
    from: Arc<Link>,
    /// The account that asks, if it is not the system account (Y-2).
    clamp: Option<Arc<str>>,
}

/// The receiver of the requests in one account. The sid of a subscription is the index of what it asks.
struct Desk {
    server: Weak<Server>,
    /// Where answers go.
    account: Weak<Account>,
    asks: Vec<Ask>,
    /// The name of the system account, if that is another one.
    serves_for: Option<Arc<str>>,
    /// Only clients of this server ask here.
    local: bool,
}

impl Inbound for Desk {
    fn is_local(&self) -> bool {
        self.local
    }
    fn serves(&self) -> bool {
        true
    }
    fn listens(&self, _: &[u8]) -> bool {
        false
    }
    fn deliver(&self, d: &mut Deliveries, sub: &Sub, from: &Arc<Link>, m: &Message<'_>) -> bool {
        let (Some(server), Some(account)) = (self.server.upgrade(), self.account.upgrade()) else {
            return false;
        };
        let index = str::from_utf8(sub.sid()).ok().and_then(|s| s.parse::<usize>().ok());
        let Some(&ask) = index.and_then(|i| self.asks.get(i)) else { return false };
        if server.events.relay.asks_by(from) {
            return false;
        }
        let may = match &self.serves_for {
            Some(system) => d.may_serve(system, m.subject, exported(ask, &account.name).as_bytes()),
            None => !d.is_trace_only(),
        };
        if !may {
            return false;
        }
        let acts = matches!(ask, Ask::Reload | Ask::Kick | Ask::LameDuck);
        if m.reply.is_empty() && !acts {
            if ask == Ask::Statistics {
                server.events.statsz_wanted.store(true, Relaxed);
            }
            return true;
        }
        let Some(place) = Place::take(&server) else {
            server.events.dropped.add(1);
            return true;
        };
        let request = Request {
            ask,
            subject: m.subject.to_vec(),
            reply: m.reply.to_vec(),
            body: m.payload().to_vec(),
            coding: Coding::wanted(m.header()),
            from: from.clone(),
            clamp: self.serves_for.is_some().then(|| account.name.clone()),
        };
        env::spawn(async move {
            let coding = if ask.is_packed() { request.coding } else { Coding::Unasked };
            let reply = request.reply.clone();
            if request.clamp.is_some() && matches!(ask, Ask::Account(_)) {
                let subject = exported(ask, &account.name);
                relay::give_on(&server, &account, &subject, &reply, &request.body, request.coding);
            }
            let answer = answer(&server, request).await;
            if !reply.is_empty()
                && let Some(body) = answer.body(&server)
            {
                let (head, body) = coding.message(body);
                publish(&server, &account, &reply, &head, &body);
            }
            drop(place);
        });
        true
    }
}

/// A place among the requests that are being answered (Y-3); free again when it is dropped.
struct Place(Arc<Server>);

impl Place {
    fn take(server: &Arc<Server>) -> Option<Place> {
        let before = server.events.in_flight.fetch_add(1, AcqRel);
        let place = Place(server.clone());
        (before < IN_FLIGHT_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.events.in_flight.fetch_sub(1, AcqRel);
    }
}

impl Ask {
    /// Whether answers may be compressed.
    fn is_packed(self) -> bool {
        matches!(self, Ask::Server(_) | Ask::Account(_) | Ask::AccountInfo)
    }
    /// What errors in the body of the request call it.
    fn options_name(self) -> &'static str {
        match self {
            Ask::Statistics => "StatszEventOptions",
            Ask::Server(e) | Ask::Account(e) => e.options_name(),
            _ => "EventFilterOptions",
        }
    }
}

/// What a service of the system account is called there, for one that asks from `account`.
fn exported(ask: Ask, account: &str) -> String {
    match ask {
        Ask::UserInfo => format!("$SYS.REQ.USER.{account}.INFO"),
        Ask::Account(e) => format!("$SYS.REQ.ACCOUNT.{account}.{}", e.name()),
        _ => String::new(),
    }
}

/// Takes the requests that every account may send: about itself, and who the asker is.
pub(super) fn serve_account(server: &Arc<Server>, account: &Arc<Account>, system: &Account) {
    let list = [
        ("$SYS.REQ.ACCOUNT.PING.CONNZ".to_string(), Ask::Account(Endpoint::Connections)),
        ("$SYS.REQ.SERVER.PING.CONNZ".to_string(), Ask::Account(Endpoint::Connections)),
        ("$SYS.REQ.ACCOUNT.PING.STATZ".to_string(), Ask::Account(Endpoint::AccountStatistics)),
        ("$SYS.REQ.USER.INFO".to_string(), Ask::UserInfo),
    ];
    serve(server, account, &list, Some(system.name.clone()), true);
}

/// Takes the requests that the system account may send.
pub(super) fn serve_system(server: &Arc<Server>, system: &Arc<Account>) {
    let id = server.id();
    let mut list = vec![
        ("$SYS.REQ.SERVER.PING".to_string(), Ask::Statistics),
        ("$SYS.REQ.ACCOUNT.NSUBS".to_string(), Ask::CountSubscriptions),
        ("$SYS.REQ.ACCOUNT.*.INFO".to_string(), Ask::AccountInfo),
        ("$SYS.REQ.ACCOUNT.*.CONNS".to_string(), Ask::AccountConnections),
        (format!("$SYS.REQ.SERVER.{id}.RELOAD"), Ask::Reload),
        (format!("$SYS.REQ.SERVER.{id}.KICK"), Ask::Kick),
        (format!("$SYS.REQ.SERVER.{id}.LDM"), Ask::LameDuck),
    ];
    let mut of_server = |name: &str, ask| {
        list.push((format!("$SYS.REQ.SERVER.PING.{name}"), ask));
        list.push((format!("$SYS.REQ.SERVER.{id}.{name}"), ask));
    };
    of_server("IDZ", Ask::Id);
    of_server("STATSZ", Ask::Statistics);
    for e in Endpoint::OF_SERVER {
        of_server(e.name(), Ask::Server(e));
    }
    for e in Endpoint::OF_ACCOUNT {
        list.push((format!("$SYS.REQ.ACCOUNT.*.{}", e.name()), Ask::Account(e)));
    }
    serve(server, system, &list, None, false);
    // Who asks these is known to his own server alone.
    let of_client = [
        ("$SYS.REQ.USER.INFO".to_string(), Ask::UserInfo),
        ("$SYS.DEBUG.SUBSCRIBERS".to_string(), Ask::DebugSubscribers),
    ];
    serve(server, system, &of_client, None, true);
}

fn serve(
    server: &Arc<Server>,
    account: &Arc<Account>,
    list: &[(String, Ask)],
    serves_for: Option<Arc<str>>,
    local: bool,
) {
    let desk = Desk {
        server: Arc::downgrade(server),
        account: Arc::downgrade(account),
        asks: list.iter().map(|(_, ask)| *ask).collect(),
        serves_for,
        local,
    };
    let link = internal(&server.broker, Some(Box::new(desk)));
    for (i, (subject, _)) in list.iter().enumerate() {
        link.subscribe(account, i.to_string().as_bytes(), subject.as_bytes(), b"", false)
            .expect("a new link is open and without limits");
    }
}

/// Whether this server is among those that a request is for.
fn is_meant(server: &Server, o: &Options, f: &Fields) -> Result<bool, String> {
    let exact = f.flag("exact_match")?;
    let fits =
        |is: &str, wanted: &str| wanted.is_empty() || if exact { is == wanted } else { is.contains(wanted) };
    let tags = f.texts("tags")?;
    let domain = f.text("domain")?;
    Ok(fits(&server.name, &f.text("server_name")?)
        && fits(&server.cluster.name(), &f.text("cluster")?)
        && fits(&o.host, &f.text("host")?)
        && (domain.is_empty() || domain == parts::domain(o))
        && tags.iter().all(|t| o.server_tags.iter().any(|own| own.eq_ignore_ascii_case(t))))
}

async fn answer(server: &Arc<Server>, r: Request) -> Answer {
    match r.ask {
        Ask::Id => {
            let o = server.options();
            let id = json!({ "name": server.name, "host": o.host, "id": server.id() });
            Answer::Bare(id.to_string())
        }
        Ask::UserInfo => user_info(server, &r),
        Ask::CountSubscriptions => count_subscriptions(server, &r),
        Ask::DebugSubscribers => debug_subscribers(&r),
        Ask::Kick => match cid(&r.body) {
            None => Answer::Silence,
            Some(cid) => match server.links.clients.get(cid) {
                Some(c) => {
                    c.link.close(Closed::Kicked);
                    Answer::Done
                }
                None => Answer::Failed("no such client or leafnode id".to_string()),
            },
        },
        Ask::LameDuck => match cid(&r.body) {
            None => Answer::Silence,
            Some(cid) => match server.links.clients.get(cid) {
                Some(c) => {
                    tell_lame_duck(server, &c);
                    Answer::Done
                }
                None => Answer::Failed("no such client id".to_string()),
            },
        },
        Ask::Reload => {
            let fields = Fields::parse(r.ask.options_name(), &r.body);
            match fields.and_then(|f| is_meant(server, &server.options(), &f)) {
                Err(e) => Answer::Bad(e),
                Ok(false) => Answer::Silence,
                Ok(true) => match server.reload().await {
                    Ok(()) => Answer::Done,
                    Err(e) => Answer::Failed(e),
                },
            }
        }
        Ask::AccountConnections => {
            let account = server.broker.account(&String::from_utf8_lossy(&account_token(&r)));
            let readable = Fields::parse(r.ask.options_name(), &r.body).is_ok();
            match account.filter(|a| readable && a.connections() > 0) {
                Some(a) => text(&account_connections(server, &a)),
                None => Answer::Silence,
            }
        }
        Ask::Statistics | Ask::Server(_) | Ask::Account(_) | Ask::AccountInfo => filtered(server, &r).await,
    }
}

/// Requests that any server may be meant by.
async fn filtered(server: &Arc<Server>, r: &Request) -> Answer {
    let fields = match Fields::parse(r.ask.options_name(), &r.body) {
        Ok(f) => f,
        Err(e) => return Answer::Bad(e),
    };
    match is_meant(server, &server.options(), &fields) {
        Ok(true) => {}
        Ok(false) => return Answer::Silence,
        Err(e) => return Answer::Bad(e),
    }
    let of = match &r.clamp {
        Some(name) => name.to_string(),
        None => String::from_utf8_lossy(&account_token(r)).into_owned(),
    };
    match r.ask {
        Ask::Statistics => {
            text(&json!({ "server": parts::server(server), "statsz": parts::statistics(server) }))
        }
        Ask::Server(e) => endpoints::of_server(server, e, &fields).await,
        // Only the system account may ask for all.
        Ask::Account(e) if of == "PING" && r.clamp.is_none() && e != Endpoint::JetStream => {
            endpoints::of_server(server, e, &fields).await
        }
        Ask::Account(e) => endpoints::of_account(server, e, &fields, &of).await,
        _ => endpoints::account_info(server, &of),
    }
}

fn text(v: &Value) -> Answer {
    Answer::Bare(String::from_utf8_lossy(&encode::json(v)).into_owned())
}

/// The fourth token of the subject.
fn account_token(r: &Request) -> Vec<u8> {
    subject::tokens(&r.subject).nth(3).unwrap_or_default().to_vec()
}

/// The connection that a body names; none if the body is not JSON at all.
fn cid(body: &[u8]) -> Option<u64> {
    if body.is_empty() {
        return None;
    }
    Fields::parse("KickClientReq", body).and_then(|f| f.unsigned("cid")).ok()
}

fn user_info(server: &Server, r: &Request) -> Answer {
    let account = r.from.account();
    let account = account.as_ref().map(|a| &*a.name).unwrap_or_default();
    let identity = server.links.clients.get(r.from.id).and_then(|c| c.facts.lock().identity.clone());
    let data = match identity {
        Some(i) => i.user_info(account, env::wall().0),
        None => json!({ "user": "", "account": account, "account_name": account }),
    };
    Answer::Data(String::from_utf8_lossy(&encode::json(&data)).into_owned())
}

/// How many subscriptions of clients get a message to a literal subject.
fn count_subscriptions(server: &Server, r: &Request) -> Answer {
    let read = || {
        let f = Fields::parse("accNumSubsReq", &r.body)?;
        Ok::<_, String>((f.text("acc")?, f.text("subject")?))
    };
    let Some((account, subject)) = read().ok().filter(|(_, s)| !s.is_empty()) else { return Answer::Silence };
    let Some(account) = server.broker.account(&account) else { return Answer::Silence };
    Answer::Bare(count(&account, subject.as_bytes(), b"").to_string())
}

/// `subject [queue]`, in the asker's account.
fn debug_subscribers(r: &Request) -> Answer {
    let Some(account) = r.from.account() else { return Answer::Silence };
    let mut words = r.body.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let Some(subject) = words.next() else { return Answer::Bare("0".to_string()) };
    Answer::Bare(count(&account, subject, words.next().unwrap_or_default()).to_string())
}

/// Subscriptions of connections that `subject` reaches, or lie within it if it has wildcards.
fn count(account: &Account, subject: &[u8], queue: &[u8]) -> usize {
    let literal = subject::is_literal(subject);
    let hit = |s: &Sub| match literal {
        true => subject::matches(subject, s.subject()),
        false => subject::is_subset(s.subject(), subject),
    };
    account
        .list_subscriptions()
        .iter()
        .filter(|s| {
            !matches!(s.link.kind, Kind::Internal | Kind::Route)
                && (queue.is_empty() || s.queue() == queue)
                && hit(s)
        })
        .count()
}

/// Sends one client the INFO that tells it to go elsewhere.
fn tell_lame_duck(server: &Server, c: &links::Client) {
    let settings = server.links.settings();
    let facts = c.facts.lock();
    let mut info = match &settings.websocket {
        Some(w) if facts.kind == "websocket" => w.info.clone(),
        _ => settings.info.clone(),
    };
    if facts.protocol < 1 {
        return;
    }
    info.client_id = c.link.id;
    info.client_ip = c.peer.ip().to_canonical().to_string();
    info.nonce.clone_from(&facts.nonce);
    drop(facts);
    info.ldm = true;
    c.link.push(|out| info.push(out));
    c.link.flush();
}
