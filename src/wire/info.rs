//! The JSON objects that open a connection: INFO from the server, CONNECT from the client.

use serde::{Deserialize, Serialize};

fn is_false(b: &bool) -> bool {
    !b
}
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What a server says of itself. Field order is that of nats-server's text.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Info {
    /// Public nkey of the server (N…).
    pub server_id: String,
    /// Configured name, or the id.
    pub server_name: String,
    /// The NATS version whose behaviour is implemented.
    pub version: String,
    /// 1 towards clients, 3 towards servers.
    pub proto: u32,
    /// Seven hex digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// The language runtime; kept because clients expect the field.
    pub go: String,
    /// Listening host.
    pub host: String,
    /// Listening port.
    pub port: u16,
    /// Whether headers are supported.
    pub headers: bool,
    /// Whether CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Whether the client must start TLS now.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// Whether a client certificate is asked for.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Whether TLS may be started (mixed mode).
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// Largest message in bytes for this client.
    pub max_payload: i64,
    /// Whether JetStream is on.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// The connection's id.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// The client's address as the server sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// To be signed with the user's nkey.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// Cluster name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Whether that name was generated.
    #[serde(skip_serializing_if = "is_false")]
    pub cluster_dynamic: bool,
    /// JetStream domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Client addresses of the cluster's members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// The same for WebSocket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ws_connect_urls: Vec<String>,
    /// Lame duck: go elsewhere.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// Set on the INFO that follows the first PING.
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// The account that the client is bound to; with `connect_info` only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// Whether that is the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    /// JetStream API level.
    #[serde(skip_serializing_if = "is_zero")]
    pub api_lvl: u64,
    /// The server's public curve key (X…).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey: String,
    /// Fulmar's own version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fulmar: String,
}

impl Info {
    /// Appends `INFO {…}\r\n`.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"INFO ");
        serde_json::to_writer(&mut *out, self).expect("an INFO has no map with keys that are no strings");
        out.extend_from_slice(b" \r\n");
    }
}

fn yes() -> bool {
    true
}

/// What a client says of itself. Absent `verbose`, `pedantic` and `echo` are true. Unknown fields are ignored; wrong types
/// are errors.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// +OK after each operation.
    #[serde(default = "yes")]
    pub verbose: bool,
    /// Literal-subject check on PUB.
    #[serde(default = "yes")]
    pub pedantic: bool,
    /// Informational.
    pub tls_required: bool,
    /// Token.
    pub auth_token: String,
    /// User name.
    pub user: String,
    /// Password.
    pub pass: String,
    /// The client's own name.
    pub name: String,
    /// Library language.
    pub lang: String,
    /// Library version.
    pub version: String,
    /// 0, or 1 for async INFO.
    pub protocol: i64,
    /// False: do not deliver own messages back.
    #[serde(default = "yes")]
    pub echo: bool,
    /// Signature of the nonce.
    pub sig: String,
    /// Public user nkey.
    pub nkey: String,
    /// User JWT.
    pub jwt: String,
    /// Whether the client takes headers.
    pub headers: bool,
    /// Whether it wants a 503 for requests that nobody listens to.
    pub no_responders: bool,
    /// Legacy; any use is refused.
    pub account: String,
    /// Legacy; any use is refused.
    pub new_account: bool,
    /// Signature of a trusted proxy over the nonce.
    pub proxy_sig: String,
}

impl Connect {
    /// Parses the JSON text of a CONNECT. As in Go's decoder, names match in any case and a null leaves the default.
    pub fn parse(json: &[u8]) -> Result<Connect, serde_json::Error> {
        Connect::parse_over(json, None)
    }
    /// Parses a further CONNECT: what it leaves out stays as `before` has it.
    pub fn parse_over(json: &[u8], before: Option<&Connect>) -> Result<Connect, serde_json::Error> {
        use serde_json::{Map, Value};
        let mut fields: Map<String, Value> = match before.map(serde_json::to_value).transpose()? {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        // Nothing is said by null.
        let given: Option<Map<String, Value>> = serde_json::from_str(&tolerated(json))?;
        fields.extend(
            given
                .into_iter()
                .flatten()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k.to_ascii_lowercase(), v)),
        );
        serde_json::from_value(Value::Object(fields))
    }
    /// Whether any credential field is set.
    pub fn has_credentials(&self) -> bool {
        !(self.auth_token.is_empty()
            && self.user.is_empty()
            && self.pass.is_empty()
            && self.nkey.is_empty()
            && self.sig.is_empty()
            && self.jwt.is_empty())
    }
}

/// The text as Go's decoder takes it: what is no Unicode (bytes, halves of surrogate pairs) becomes U+FFFD.
fn tolerated(json: &[u8]) -> std::borrow::Cow<'_, str> {
    let text = String::from_utf8_lossy(json);
    if !text.contains("\\u") {
        return text;
    }
    // The four digits of an escape at `at`, if it is one.
    let unit = |s: &[u8], at: usize| {
        let digits = s.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?, 16).ok()
    };
    let mut bytes = text.into_owned().into_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match (unit(&bytes, at), unit(&bytes, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                bytes[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            // An escaped backslash is no beginning of another escape.
            _ => at += 2,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("user", &self.user)
            .field("name", &self.name)
            .field("lang", &self.lang)
            .field("version", &self.version)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_booleans_are_true() {
        let c = Connect::parse(b"{}").unwrap();
        assert!(c.verbose && c.pedantic && c.echo);
        assert!(!c.headers && !c.no_responders && c.protocol == 0);
        let c = Connect::parse(br#"{"verbose":false,"pedantic":false,"echo":false,"protocol":1,"zzz":[]}"#)
            .unwrap();
        assert!(!c.verbose && !c.pedantic && !c.echo && c.protocol == 1);
        let c = Connect::parse(br#"{"Verbose":false,"user":null}"#).unwrap();
        assert!(!c.verbose && c.user.is_empty());
        let c = Connect::parse_over(br#"{"echo":true}"#, Some(&c)).unwrap();
        assert!(!c.verbose && c.echo);
        assert!(Connect::parse(br#"{"verbose":"x"}"#).is_err());
        assert!(Connect::parse(b"").is_err());
    }

    #[test]
    fn what_is_no_unicode_is_taken_as_go_takes_it() {
        for (json, name) in [
            (&b"{\"name\":\"caf\xe9\"}"[..], "caf\u{fffd}"),
            (&b"{\"name\":\"\xff\"}"[..], "\u{fffd}"),
            (&br#"{"name":"\ud800"}"#[..], "\u{fffd}"),
            (&br#"{"name":"\ud800\ud83d\ude00x\udc00"}"#[..], "\u{fffd}\u{1f600}x\u{fffd}"),
            (&br#"{"name":"\\ud800"}"#[..], "\\ud800"),
            (&br#"{"name":"\\\ud800"}"#[..], "\\\u{fffd}"),
            (&br#"{"name":"\u00e9"}"#[..], "\u{e9}"),
            (&b"null"[..], ""),
        ] {
            assert_eq!(Connect::parse(json).unwrap().name, name, "{}", json.escape_ascii());
        }
        for json in ["[]", "5", "\"x\"", "{bad", "{} x", r#"{"protocol":1.0}"#, r#"{"name":"\ud80"}"#] {
            assert!(Connect::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn info_leaves_out_what_is_empty() {
        let mut out = Vec::new();
        Info { server_id: "N".into(), max_payload: 1, ..Info::default() }.push(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "INFO {\"server_id\":\"N\",\"server_name\":\"\",\"version\":\"\",\"proto\":0,\"go\":\"\",\"host\":\"\",\"port\":0,\"headers\":false,\"max_payload\":1} \r\n"
        );
    }
}
