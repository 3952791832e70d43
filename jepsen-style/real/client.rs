//! A client of a server: async-nats for the connection, the API's JSON by hand, so that every answer is seen as it came.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Request, client::RequestErrorKind, jetstream};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Wrong;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long nodes that refuse are tried again: one that greeted a moment ago can be on its way up still, or be passed over by a handshake that a busy machine
/// kept waiting.
const REFUSED_MAX: Duration = Duration::from_secs(5);
/// Pause before they are.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Connects, trying the nodes from the `n`-th on, and comes back to them for ever.
///
/// # Errors
/// No node could be reached for some seconds.
pub async fn connect(ports: &[u16], n: usize) -> Result<Client, Wrong> {
    let deadline = Instant::now() + REFUSED_MAX;
    loop {
        let done = connect_once(ports, n).await;
        if done.is_ok() || Instant::now() >= deadline {
            return done;
        }
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
}

async fn connect_once(ports: &[u16], n: usize) -> Result<Client, Wrong> {
    let urls: Vec<String> =
        (0..ports.len()).map(|i| format!("127.0.0.1:{}", ports[(n + i) % ports.len()])).collect();
    let options = ConnectOptions::new()
        .retain_servers_order()
        .ignore_discovered_servers()
        .connection_timeout(PATIENCE)
        .request_timeout(Some(PATIENCE))
        // A node that stands still is left after two of these.
        .ping_interval(PATIENCE)
        .reconnect_delay_callback(|_| Duration::from_millis(50));
    options.connect(urls).await.map_err(|e| e.to_string())
}

/// JetStream over a connection, for publishing with acknowledgements.
pub fn jetstream(client: &Client) -> jetstream::Context {
    jetstream::ContextBuilder::new()
        .timeout(PATIENCE)
        .ack_timeout(PATIENCE)
        .max_ack_inflight(100_000)
        .build(client.clone())
}

/// What came of a call.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// The server's JSON, without an error in it.
    Good(Value),
    /// The server said no.
    Refused {
        /// `err_code`.
        code: u64,
        /// The words.
        text: String,
    },
    /// Nobody listens to the subject: the call reached no server that knows it.
    Nobody,
    /// No answer, or one that is no JSON.
    Unknown(Wrong),
}

impl Answer {
    /// The JSON.
    ///
    /// # Errors
    /// What was answered instead.
    pub fn good(self) -> Result<Value, Wrong> {
        match self {
            Answer::Good(v) => Ok(v),
            Answer::Refused { code, text } => Err(format!("{text} ({code})")),
            Answer::Nobody => Err("no responders".into()),
            Answer::Unknown(e) => Err(e),
        }
    }
}

/// Calls `$JS.API.<what>`.
pub async fn api(client: &Client, what: &str, body: &Value) -> Answer {
    api_within(client, what, body, PATIENCE).await
}

/// The same, for what may take longer.
pub async fn api_within(client: &Client, what: &str, body: &Value, patience: Duration) -> Answer {
    let payload = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::new().payload(payload.into()).timeout(Some(patience));
    match client.send_request(format!("$JS.API.{what}"), request).await {
        Ok(m) => answer(&m.payload),
        Err(e) if e.kind() == RequestErrorKind::NoResponders => Answer::Nobody,
        Err(e) => Answer::Unknown(e.to_string()),
    }
}

fn answer(bytes: &[u8]) -> Answer {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(v) if v.get("error").is_some() => Answer::Refused {
            code: v["error"]["err_code"].as_u64().unwrap_or(0),
            text: v["error"]["description"].as_str().unwrap_or("?").to_owned(),
        },
        Ok(v) => Answer::Good(v),
        Err(e) => Answer::Unknown(e.to_string()),
    }
}

/// Calls again until it succeeds; an asset that is there already as it was asked for is a success.
///
/// # Errors
/// The last answer, once the deadline has passed.
pub async fn insist(client: &Client, what: &str, body: &Value, deadline: Instant) -> Result<Value, Wrong> {
    loop {
        let said = api(client, what, body).await.good();
        if said.is_ok() || Instant::now() >= deadline {
            return said.map_err(|e| format!("{what}: {e}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A message from a consumer.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The message.
    pub body: bytes::Bytes,
    /// Where it is confirmed.
    pub reply: String,
    /// Stream sequence.
    pub seq: u64,
    /// The server's count of deliveries.
    pub times: u64,
    /// How many more match.
    pub pending: u64,
}

/// Reads `$JS.ACK.…` in both its forms.
fn parse_reply(reply: &str) -> Option<(u64, u64, u64)> {
    let t: Vec<&str> = reply.split('.').collect();
    let at = match t.len() {
        9 => 4,
        n if n >= 11 => 6,
        _ => return None,
    };
    let n = |i: usize| t.get(at + i).and_then(|s| s.parse().ok());
    Some((n(0)?, n(1)?, n(4)?))
}

/// One pull: up to `batch` messages, each given to `each` as it comes, until the batch is full, the request has expired
/// (by the server's word or by ours) or the server says that it ends. Returns how many came.
pub async fn pull(
    client: &Client,
    consumer: (&str, &str),
    batch: u64,
    expires: Duration,
    mut each: impl FnMut(Pulled),
) -> Result<u64, Wrong> {
    let inbox = client.new_inbox();
    let mut sub = client.subscribe(inbox.clone()).await.map_err(|e| e.to_string())?;
    let ask = json!({"batch": batch, "expires": expires.as_nanos() as u64}).to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", consumer.0, consumer.1);
    client.publish_with_reply(subject, inbox, ask.into()).await.map_err(|e| e.to_string())?;
    let deadline = Instant::now() + expires + Duration::from_millis(500);
    let mut came = 0;
    while came < batch {
        let Ok(Some(m)) = timeout_at(deadline, sub.next()).await else { break };
        if let Some(status) = m.status {
            if status.as_u16() == 100 {
                continue;
            }
            break;
        }
        let Some(reply) = m.reply.as_ref().map(|r| r.to_string()) else { continue };
        let Some((times, seq, pending)) = parse_reply(&reply) else { continue };
        came += 1;
        each(Pulled { body: m.payload, reply, seq, times, pending });
    }
    Ok(came)
}

/// Confirms a message and waits for the server's word.
///
/// # Errors
/// No word came: nobody knows.
pub async fn confirm(client: &Client, reply: String) -> Result<(), Wrong> {
    let request = Request::new().payload("+ACK".into()).timeout(Some(PATIENCE));
    client.send_request(reply, request).await.map(drop).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_in_both_forms() {
        assert_eq!(parse_reply("$JS.ACK.S.C.2.17.5.1700000000.9"), Some((2, 17, 9)));
        assert_eq!(parse_reply("$JS.ACK._.hash.S.C.2.17.5.1700000000.9"), Some((2, 17, 9)));
        assert_eq!(parse_reply("$JS.ACK._.hash.S.C.2.17.5.1700000000.9.tok"), Some((2, 17, 9)));
        assert_eq!((parse_reply("_INBOX.a.b"), parse_reply("$JS.ACK.S.C.x.17.5.1.9")), (None, None));
    }

    #[test]
    fn answers_are_told_apart() {
        assert!(matches!(answer(b"{\"a\":1}"), Answer::Good(_)));
        let no =
            answer(b"{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}");
        assert_eq!(no, Answer::Refused { code: 10059, text: "stream not found".into() });
        assert!(matches!(answer(b"x"), Answer::Unknown(_)));
    }
}
