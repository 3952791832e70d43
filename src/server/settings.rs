//! From options to what the lower floors want to be told: logins for `identity`, rules for `broker`, settings for `links`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broker::{
    AccountLimits,
    rules::{self, Rules},
};
use identity::{AuthConfig, ConnectionTypes, Limits, ListenerConfig, SingleUser, UserConfig};
use subject::{Destination, Mapping, Mappings};

use crate::options::{self, ConnectionType, ExportKind, Options, ResponseType, UserIdentity};

/// The account of everybody who is in no other.
pub const GLOBAL_ACCOUNT: &str = identity::GLOBAL_ACCOUNT;
/// The system account's name where none is configured.
pub const SYSTEM_ACCOUNT: &str = "$SYS";
/// How long an answer of a service may take where nothing is configured.
const RESPONSE_THRESHOLD: Duration = Duration::from_secs(120);

/// The system account's name, if there is one.
pub fn system_account(o: &Options) -> Option<String> {
    if o.no_system_account {
        return None;
    }
    Some(o.system_account.clone().unwrap_or_else(|| SYSTEM_ACCOUNT.to_string()))
}

fn secret(s: &options::Secret) -> identity::Secret {
    identity::Secret::new(s.reveal())
}

fn permission(p: &options::SubjectPermission) -> identity::SubjectPermission {
    identity::SubjectPermission { allow: p.allow.clone().unwrap_or_default(), deny: p.deny.clone() }
}

fn permissions(p: &options::Permissions) -> identity::PermissionsConfig {
    identity::PermissionsConfig {
        publish: p.publish.as_ref().map(permission).unwrap_or_default(),
        subscribe: p.subscribe.as_ref().map(permission).unwrap_or_default(),
        responses: p
            .responses
            .map(|r| identity::ResponsePermission { max_messages: r.max, expires_ns: r.expires_nanos }),
    }
}

fn connection_types(set: &std::collections::BTreeSet<ConnectionType>) -> ConnectionTypes {
    let names: Vec<_> = set
        .iter()
        .map(|t| match t {
            ConnectionType::Standard => "STANDARD",
            ConnectionType::WebSocket => "WEBSOCKET",
            ConnectionType::LeafNode => "LEAFNODE",
            ConnectionType::LeafNodeWs => "LEAFNODE_WS",
            ConnectionType::Mqtt => "MQTT",
            ConnectionType::MqttWs => "MQTT_WS",
            ConnectionType::InProcess => "IN_PROCESS",
        })
        .collect();
    ConnectionTypes::parse(&names).0
}

fn user(u: &options::UserOptions, account: &str) -> UserConfig {
    let (name, password, nkey) = match &u.identity {
        UserIdentity::Password { user, password } => (user.clone(), password.as_ref().map(secret), None),
        UserIdentity::Nkey(key) => (String::new(), None, Some(key.clone())),
    };
    UserConfig {
        name,
        password,
        nkey,
        permissions: u.permissions.as_ref().map(permissions),
        connection_types: connection_types(&u.connection_types),
        account: account.to_string(),
        proxy_required: u.proxy_required,
        limits: Limits::default(),
    }
}

/// Who may log in over the client port.
pub fn logins(o: &Options) -> AuthConfig {
    let mut users: Vec<_> = o.authorization.users.iter().map(|u| user(u, GLOBAL_ACCOUNT)).collect();
    let mut default_permissions = BTreeMap::new();
    if let Some(p) = &o.authorization.default_permissions {
        default_permissions.insert(GLOBAL_ACCOUNT.to_string(), permissions(p));
    }
    for a in &o.accounts {
        users.extend(a.users.iter().map(|u| user(u, &a.name)));
        if let Some(p) = &a.default_permissions {
            default_permissions.insert(a.name.clone(), permissions(p));
        }
    }
    let single = match (&o.authorization.user, &o.authorization.password) {
        (Some(name), Some(password)) => Some(SingleUser { name: name.clone(), password: secret(password) }),
        _ => None,
    };
    let maps = |t: &Option<options::TlsOptions>| t.as_ref().is_some_and(|t| t.verify_and_map);
    let mut tls_mapped = Vec::new();
    if maps(&o.tls) {
        tls_mapped.push(identity::ConnectionType::Standard);
    }
    if o.websocket.as_ref().is_some_and(|w| maps(&w.tls)) {
        tls_mapped.push(identity::ConnectionType::Websocket);
    }
    let stand_in = is_open_beside_operators(o).then(|| {
        // No operator's name, or whoever shows nothing would be one.
        let mut name = GLOBAL_ACCOUNT.to_string();
        while users.iter().any(|u| u.name == name) {
            name.push('_');
        }
        users.push(UserConfig {
            name: name.clone(),
            account: GLOBAL_ACCOUNT.to_string(),
            ..UserConfig::default()
        });
        name
    });
    AuthConfig {
        users,
        default_permissions,
        default_account: GLOBAL_ACCOUNT.to_string(),
        proxy_required: o.authorization.proxy_required,
        trusted_proxies: o.trusted_proxies.iter().cloned().collect(),
        tls_mapped,
        listener: ListenerConfig {
            tls_map: maps(&o.tls),
            made_up: stand_in.is_some(),
            no_auth_user: stand_in.or_else(|| o.no_auth_user.clone()),
            token: o.authorization.token.as_ref().map(secret),
            single,
        },
    }
}

/// Whether the configuration has no accounts but the operators' own: clients are the global account's then.
pub fn has_global_account_only(o: &Options) -> bool {
    let system = system_account(o);
    o.accounts.iter().all(|a| Some(&a.name) == system.as_ref())
}
/// Whether clients need not say who they are although there are users, all of them operators. As nats-server has it: somebody who wants
/// nothing but to look into his server does not lock it thereby. Whatever says how clients come in ends that.
fn is_open_beside_operators(o: &Options) -> bool {
    !o.accounts.is_empty()
        && has_global_account_only(o)
        && o.no_auth_user.is_none()
        && o.authorization == options::Authorization::default()
}

/// What differs for clients over WebSocket, if anything.
pub fn websocket_logins(o: &Options, clients: &ListenerConfig) -> Option<ListenerConfig> {
    let w = o.websocket.as_ref()?;
    let a = &w.authorization;
    let own = a.user.is_some() || a.token.is_some();
    Some(ListenerConfig {
        tls_map: w.tls.as_ref().is_some_and(|t| t.verify_and_map),
        no_auth_user: w.no_auth_user.clone().or_else(|| clients.no_auth_user.clone()),
        made_up: w.no_auth_user.is_none() && clients.made_up,
        token: if own { a.token.as_ref().map(secret) } else { clients.token.clone() },
        single: if own {
            match (&a.user, &a.password) {
                (Some(name), Some(p)) => Some(SingleUser { name: name.clone(), password: secret(p) }),
                _ => None,
            }
        } else {
            clients.single.clone()
        },
    })
}

fn mappings(list: &[options::Mapping], of: &str) -> Result<Mappings, String> {
    let mut all = Mappings::new();
    for m in list {
        let destinations: Vec<_> = m
            .destinations
            .iter()
            .map(|d| Destination {
                subject: d.subject.clone().into_bytes(),
                weight: d.weight,
                cluster: d.cluster.clone().map(String::into_bytes),
            })
            .collect();
        let mapping = Mapping::new(m.source.as_bytes(), &destinations)
            .map_err(|e| format!("Error adding mapping for {:?} to account {of:?} : {e}", m.source))?;
        all.add(mapping);
    }
    Ok(all)
}

fn export(e: &options::Export) -> rules::Export {
    rules::Export {
        service: e.kind == ExportKind::Service,
        subject: e.subject.clone().into_bytes(),
        accounts: e.accounts.as_ref().map(|l| l.iter().map(|a| a.as_str().into()).collect()),
        account_token: e.account_token_position as usize,
        responses: match e.response {
            ResponseType::Singleton => rules::Responses::One,
            ResponseType::Stream => rules::Responses::Many,
            ResponseType::Chunked => rules::Responses::Chunked,
        },
        threshold: e.response_threshold.filter(|t| !t.is_zero()).unwrap_or(RESPONSE_THRESHOLD),
        latency: e
            .latency
            .as_ref()
            .map(|l| rules::LatencyRule { sampling: l.sampling, subject: l.subject.clone().into_bytes() }),
        allow_trace: e.allow_trace,
    }
}

fn import(i: &options::Import) -> rules::Import {
    let to = match (&i.to, &i.prefix) {
        (Some(to), _) => Some(to.clone()),
        (None, Some(prefix)) => Some(format!("{}.{}", prefix.trim_end_matches('.'), i.subject)),
        (None, None) => None,
    };
    rules::Import {
        service: i.kind == ExportKind::Service,
        account: i.account.as_str().into(),
        subject: i.subject.clone().into_bytes(),
        to: to.map(String::into_bytes),
        share: i.share,
        allow_trace: i.allow_trace,
    }
}

/// What accounts give, take and rename.
pub fn account_rules(o: &Options) -> Result<BTreeMap<Arc<str>, Rules>, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut take = |of: &str, list: &[options::Mapping]| {
        mappings(list, of).unwrap_or_else(|e| {
            wrong.push(e);
            Mappings::new()
        })
    };
    let global = Rules { mappings: take(GLOBAL_ACCOUNT, &o.mappings), ..Rules::default() };
    all.insert(Arc::from(GLOBAL_ACCOUNT), global);
    if let Some(name) = system_account(o) {
        all.insert(name.into(), Rules::default());
    }
    for a in &o.accounts {
        let size = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok());
        let rules = Rules {
            exports: a.exports.iter().map(export).collect(),
            imports: a.imports.iter().map(import).collect(),
            mappings: take(&a.name, &a.mappings),
            limits: AccountLimits {
                connections_max: size(a.limits.max_connections),
                subscriptions_max: size(a.limits.max_subscriptions),
                payload_bytes_max: size(a.limits.max_payload),
                leafnodes_max: size(a.limits.max_leafnodes),
            },
            trace: a
                .trace
                .as_ref()
                .map(|t| rules::TraceRule { subject: t.subject.clone().into_bytes(), sampling: t.sampling }),
        };
        all.insert(a.name.as_str().into(), rules);
    }
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

/// What connections are told, but for the INFO's addresses.
pub fn link_settings(
    o: &Options,
    info: wire::info::Info,
    authenticator: Arc<identity::Authenticator>,
) -> links::Settings {
    links::Settings {
        info,
        announced: 0,
        authenticator,
        default_account: GLOBAL_ACCOUNT.to_string(),
        system_account: system_account(o),
        control_line_bytes_max: o.max_control_line,
        payload_bytes_max: o.max_payload,
        pending_bytes_max: o.max_pending,
        connections_max: o.max_connections,
        subscriptions_max: o.max_subscriptions,
        subscription_tokens_max: o.max_subscription_tokens,
        ping_interval: o.ping_interval,
        pings_out_max: o.ping_max,
        write_deadline: o.write_deadline,
        auth_timeout: o.auth_timeout,
        no_stall: o.no_fast_producer_stall,
        headers: !o.no_header_support,
        closed_clients_max: o.max_closed_clients,
        tls: None,
        proxy_protocol: o.proxy_protocol.then_some(links::proxy::TIMEOUT),
        websocket: None,
    }
}
