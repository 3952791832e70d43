//! `authorization` blocks, users and permissions.

use super::reader::set;
use super::{Reader, block};
use crate::options::auth::{
    Authorization, ConnectionType, Permissions, ResponsePermission, SubjectPermission, UserIdentity,
    UserOptions,
};
use crate::options::names;
use crate::options::secret::Secret;
use crate::options::types::ListenerAuthorization;
use conf::{Entry, Node, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// An authorization block with its time to authenticate.
#[derive(Default)]
pub(crate) struct AuthorizationBlock {
    pub authorization: Authorization,
    pub timeout: Option<Duration>,
    pub users_given: bool,
}

/// The block at the top, and that of a cluster, which may say less (its caller sees to that).
pub(crate) fn authorization(reader: &mut Reader, entry: &Entry) -> Option<AuthorizationBlock> {
    let map = reader.map(entry)?;
    let mut out = AuthorizationBlock::default();
    let a = &mut out.authorization;
    a.is_given = true;
    block!(reader, "authorization", map, |e| {
        "user" | "username" => set!(a.user, reader.text(e)),
        "pass" | "password" => set!(a.password, secret(reader, e)),
        "token" => set!(a.token, secret(reader, e)),
        "timeout" => set!(out.timeout, reader.timeout(e, "authorization", true).map(Some)),
        "users" => {
            out.users_given = true;
            a.users = users(reader, e);
        },
        "default_permission" | "default_permissions" | "permissions" => {
            set!(a.default_permissions, permissions(reader, e).map(Some));
        },
        "proxy_required" => set!(a.proxy_required, reader.boolean(e)),
    });
    // As nats-server words them; the place is the block, since two keys are at fault.
    if (a.user.is_some() || a.password.is_some()) && a.token.is_some() {
        reader.error(&entry.pos, "Cannot have a user/pass and token");
    }
    if out.users_given {
        if a.user.is_some() || a.password.is_some() {
            reader.error(&entry.pos, "Can not have a single user/pass and a users array");
        }
        if a.token.is_some() {
            reader.error(&entry.pos, "Can not have a token and a users array");
        }
    }
    Some(out)
}

/// The smaller block of a WebSocket listener.
pub(crate) fn listener_authorization(reader: &mut Reader, entry: &Entry) -> Option<ListenerAuthorization> {
    let map = reader.map(entry)?;
    let mut out = ListenerAuthorization::default();
    block!(reader, "listener authorization", map, |e| {
        "user" | "username" => set!(out.user, reader.text(e)),
        "pass" | "password" => set!(out.password, secret(reader, e)),
        "token" => set!(out.token, secret(reader, e)),
        "timeout" => set!(out.timeout, reader.timeout(e, "authorization", true).map(Some)),
    });
    Some(out)
}

pub(crate) fn secret(reader: &mut Reader, e: &Entry) -> Option<Option<Secret>> {
    reader.string(e).map(|s| (!s.is_empty()).then(|| Secret::new(s)))
}

pub(crate) fn users(reader: &mut Reader, entry: &Entry) -> Vec<UserOptions> {
    let Value::Array(items) = &entry.node.value else {
        let text = format!("Expected users field to be an array, got {}", entry.node.value.kind());
        reader.error(&entry.pos, text);
        return Vec::new();
    };
    items.iter().filter_map(|item| user(reader, item)).collect()
}

fn user(reader: &mut Reader, item: &Node) -> Option<UserOptions> {
    let Value::Map(map) = &item.value else {
        reader.error(&item.pos, format!("Expected user entry to be a map/struct, got {}", item.value.kind()));
        return None;
    };
    let errors_before = reader.errors.len();
    let (mut name, mut password, mut nkey): (Option<String>, Option<Secret>, Option<String>) =
        (None, None, None);
    let mut proxy_required = false;
    let mut user_permissions = None;
    let mut connection_types = BTreeSet::new();
    block!(reader, "user", map, |e| {
        "nkey" => set!(nkey, reader.text(e)),
        "user" | "username" => set!(name, reader.text(e)),
        "pass" | "password" => set!(password, secret(reader, e)),
        "permission" | "permissions" | "authorization" => {
            set!(user_permissions, permissions(reader, e).map(Some));
        },
        "allowed_connection_types" | "connection_types" | "clients" => {
            connection_types = read_connection_types(reader, e);
        },
        "proxy_required" => set!(proxy_required, reader.boolean(e)),
    });
    if reader.errors.len() != errors_before {
        return None;
    }
    let identity = match (nkey, name) {
        (Some(key), None) if password.is_none() => {
            if !names::is_public_nkey(&key, 'U') {
                reader.error(&item.pos, "Not a valid public nkey for a user");
                return None;
            }
            UserIdentity::Nkey(key)
        }
        (Some(_), _) => {
            reader.error(&item.pos, "Nkey users do not take usernames or passwords");
            return None;
        }
        (None, Some(user)) => UserIdentity::Password { user, password },
        (None, None) => {
            reader.error(&item.pos, "User entry requires a user");
            return None;
        }
    };
    Some(UserOptions { identity, permissions: user_permissions, connection_types, proxy_required })
}

fn read_connection_types(reader: &mut Reader, entry: &Entry) -> BTreeSet<ConnectionType> {
    let mut known = BTreeSet::new();
    let mut unknown = Vec::new();
    for (_, name) in reader.strings(entry).unwrap_or_default() {
        match ConnectionType::from_name(name) {
            Some(kind) => {
                known.insert(kind);
            }
            None => unknown.push(name.to_ascii_uppercase()),
        }
    }
    if !unknown.is_empty() {
        // A newer server's types are tolerated beside known ones, so that one file can serve both.
        if known.is_empty() {
            reader.error(&entry.pos, format!("invalid connection types {unknown:?}"));
        } else {
            let key = entry.key.to_ascii_lowercase();
            reader.warn(&entry.pos, &key, format!("unknown connection types {unknown:?}"));
        }
    }
    known
}

/// A permissions block, with what `allow_responses` implies already applied.
pub(crate) fn permissions(reader: &mut Reader, entry: &Entry) -> Option<Permissions> {
    let Value::Map(map) = &entry.node.value else {
        let text = format!("Expected permissions to be a map/struct, got {}", entry.node.value.kind());
        reader.error(&entry.pos, text);
        return None;
    };
    let mut out = Permissions::default();
    block!(reader, "permissions", map, |e| {
        "pub" | "publish" | "import" => set!(out.publish, subjects(reader, e, false).map(Some)),
        "sub" | "subscribe" | "export" => set!(out.subscribe, subjects(reader, e, true).map(Some)),
        "publish_allow_responses" | "allow_responses" => set!(out.responses, responses(reader, e)),
    });
    if out.responses.is_some() {
        // Who may only answer may publish nothing else, unless an allow list says so.
        let publish = out.publish.get_or_insert_with(SubjectPermission::default);
        if publish.allow.is_none() {
            publish.allow = Some(Vec::new());
        }
    }
    Some(out)
}

/// A subject, a list of them, or a map of lists.
pub(crate) fn subjects(reader: &mut Reader, entry: &Entry, queues: bool) -> Option<SubjectPermission> {
    let mut out = SubjectPermission::default();
    match &entry.node.value {
        Value::Map(map) => {
            for e in map {
                match e.key.to_ascii_lowercase().as_str() {
                    "allow" => out.allow = subject_list(reader, e, queues)?.filter_empty(),
                    "deny" => out.deny = subject_list(reader, e, queues)?.0,
                    _ if e.used_as_variable => {}
                    _ => {
                        let text = format!(
                            "Unknown field name {:?} parsing subject permissions, only 'allow' or 'deny' are permitted",
                            e.key
                        );
                        reader.error(&e.pos, text);
                    }
                }
            }
        }
        Value::String(_) | Value::Array(_) => out.allow = subject_list(reader, entry, queues)?.filter_empty(),
        other => {
            let text = format!(
                "Expected subject permissions to be a subject, or array of subjects, got {}",
                other.kind()
            );
            reader.error(&entry.pos, text);
            return None;
        }
    }
    Some(out)
}

/// Subjects as they were listed.
struct SubjectList(Vec<String>);

impl SubjectList {
    /// An empty allow list counts as none, as in nats-server: it allows everything.
    fn filter_empty(self) -> Option<Vec<String>> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

fn subject_list(reader: &mut Reader, entry: &Entry, queues: bool) -> Option<SubjectList> {
    if !matches!(entry.node.value, Value::String(_) | Value::Array(_)) {
        let kind = entry.node.value.kind();
        let text = format!("Expected subject permissions to be a subject, or array of subjects, got {kind}");
        reader.error(&entry.pos, text);
        return None;
    }
    let mut out = Vec::new();
    for (pos, subject) in reader.strings(entry)? {
        let valid = if queues { names::is_subject_and_queue(subject) } else { names::is_subject(subject) };
        if !valid {
            reader.error(pos, format!("subject {subject:?} is not a valid subject"));
            return None;
        }
        out.push(subject.to_string());
    }
    Some(SubjectList(out))
}

fn responses(reader: &mut Reader, entry: &Entry) -> Option<Option<ResponsePermission>> {
    let mut out = ResponsePermission::default();
    let map = match &entry.node.value {
        Value::Bool(on) => return Some(on.then_some(out)),
        Value::Map(map) => map,
        _ => {
            reader.error(&entry.pos, "error parsing response permissions, expected a boolean or a map");
            return None;
        }
    };
    block!(reader, "allow_responses", map, |e| {
        "max" | "max_msgs" | "max_messages" | "max_responses" => {
            // Zero means the default, like an absent key.
            if let Some(n) = reader.int(e) && n != 0 {
                out.max = n;
            }
        },
        "expires" | "expiration" | "ttl" => match &e.node.value {
            Value::String(text) => match conf::duration::parse(text) {
                Ok(0) => {}
                Ok(nanos) => out.expires_nanos = nanos,
                Err(e2) => reader.error(&e.pos, format!("error parsing expires: {e2}")),
            },
            _ => reader.error(&e.pos, "error parsing expires, not a duration string"),
        },
    });
    Some(Some(out))
}
