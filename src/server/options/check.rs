//! The rules between options.

use super::Options;
use super::auth::UserIdentity;
use super::parse::Reader;
use conf::{Map, Pos};
use std::collections::BTreeSet;

/// Rules that have a place in the file: what is said twice, and names of accounts that do not exist.
pub(super) fn places(reader: &mut Reader, root: &Map, o: &Options) {
    let at = |names: &[&str]| -> Pos {
        let found = root.into_iter().find(|e| names.iter().any(|n| e.key.eq_ignore_ascii_case(n)));
        found.map_or_else(|| Pos::start(""), |e| e.pos.clone())
    };
    let a = &o.authorization;
    let mut seen = BTreeSet::new();
    let mut users: Vec<_> = a.users.iter().map(|u| (u, "authorization")).collect();
    users.extend(o.accounts.iter().flat_map(|acc| &acc.users).map(|u| (u, "accounts")));
    for (user, block) in &users {
        if !seen.insert(user.identity.name()) {
            let what = match user.identity {
                UserIdentity::Password { .. } => "user",
                UserIdentity::Nkey(_) => "nkey",
            };
            reader.error(&at(&[block]), format!("Duplicate {what} {:?} detected", user.identity.name()));
        }
    }
    // The same in the authorization block alone was seen when it was read.
    if a.users.is_empty() && !users.is_empty() {
        if a.user.is_some() || a.password.is_some() {
            reader.error(&at(&["authorization"]), "Can not have a single user/pass and a users array");
        }
        if a.token.is_some() {
            reader.error(&at(&["authorization"]), "Can not have a token and a users array");
        }
    }
    let exists = |name: &str| o.accounts.iter().any(|a| a.name == name) || name == system_account(o);
    for account in &o.accounts {
        for import in &account.imports {
            if !exists(&import.account) {
                let kind = format!("{:?}", import.kind).to_lowercase();
                let text = format!("{:?} account not defined for {kind} import", import.account);
                reader.error(&at(&["accounts"]), text);
            }
        }
        for export in &account.exports {
            for name in export.accounts.iter().flatten() {
                if !exists(name) {
                    let kind = format!("{:?}", export.kind).to_lowercase();
                    reader
                        .error(&at(&["accounts"]), format!("{name:?} account not defined for {kind} export"));
                }
            }
        }
    }
    for name in o.default_js_domain.keys() {
        if !exists(name) && name != "$G" {
            let text =
                format!("in non operator mode, `default_js_domain` references non existing account {name:?}");
            reader.error(&at(&["default_js_domain"]), text);
        }
    }
}

/// The system account's name.
fn system_account(o: &Options) -> &str {
    o.system_account.as_deref().unwrap_or("$SYS")
}

/// Rules over the finished options, flags included. The first that is broken.
///
/// # Errors
/// The rule, as nats-server words it.
pub fn validate(o: &Options) -> Result<(), String> {
    let span =
        |d: std::time::Duration| conf::duration::format(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    if o.max_payload > o.max_pending {
        let (payload, pending) = (o.max_payload, o.max_pending);
        return Err(format!("max_payload ({payload}) cannot be higher than max_pending ({pending})"));
    }
    if o.lame_duck_grace_period >= o.lame_duck_duration {
        return Err(format!(
            "lame duck grace period ({}) should be strictly lower than lame duck duration ({})",
            span(o.lame_duck_grace_period),
            span(o.lame_duck_duration)
        ));
    }
    if o.server_name.as_ref().is_some_and(|n| n.contains(' ')) {
        return Err("server name cannot contain spaces".to_string());
    }
    if let (Some(http), Some(https)) = (&o.http, &o.https) {
        return Err(format!("can't specify both HTTP ({}) and HTTPs ({}) ports", http.port, https.port));
    }
    if o.https.is_some() && o.tls.as_ref().is_none_or(|t| t.certificates.is_empty()) {
        return Err("TLS cert and key required for HTTPS".to_string());
    }
    for tls in [Some(&o.tls), o.websocket.as_ref().map(|w| &w.tls), o.cluster.as_ref().map(|c| &c.tls)] {
        if let Some(Some(tls)) = tls
            && tls.certificates.is_empty()
            && tls.ca_file.is_none()
            && tls.verify
        {
            return Err("TLS verification of clients needs a certificate of the server".to_string());
        }
    }
    let advertised = [
        ("client_advertise", &o.client_advertise),
        ("cluster advertise", o.cluster.as_ref().map_or(&None, |c| &c.advertise)),
        ("websocket advertise", o.websocket.as_ref().map_or(&None, |w| &w.advertise)),
    ];
    for (what, text) in advertised {
        if let Some(Err(e)) = text.as_ref().map(|text| super::url::split_host_port(text)) {
            return Err(format!("{what} {:?}: {e}", text.as_deref().unwrap_or_default()));
        }
    }
    let has_users = !o.authorization.users.is_empty() || o.accounts.iter().any(|a| !a.users.is_empty());
    no_auth_user(o, o.no_auth_user.as_deref(), has_users)?;
    if let Some(name) = &o.system_account
        && name != "$SYS"
        && !o.accounts.iter().any(|a| a.name == *name)
    {
        return Err("error resolving system account: account missing".to_string());
    }
    let is_system = |name: &str| !o.no_system_account && name == system_account(o);
    if o.jetstream.is_some() && o.accounts.iter().any(|a| a.jetstream.is_some() && is_system(&a.name)) {
        return Err("Not allowed to enable JetStream on the system account".to_string());
    }
    websocket(o, has_users)?;
    cluster(o)?;
    if let Some(domain) = o.jetstream.as_ref().and_then(|js| js.domain.as_ref()) {
        if domain.contains(['.', '*', '>']) {
            return Err("invalid domain name: may not contain ., * or >".to_string());
        }
        if domain.contains(char::is_whitespace) {
            return Err("invalid domain name: may not contain spaces".to_string());
        }
    }
    if let Some(hint) = o.jetstream.as_ref().and_then(|js| js.extension_hint.as_ref())
        && !["will_extend", "no_extend"].contains(&hint.as_str())
    {
        return Err(format!(
            "expected 'no_extend' or 'will_extend' for jetstream extension_hint, got '{hint}'"
        ));
    }
    Ok(())
}

fn no_auth_user(o: &Options, name: Option<&str>, has_users: bool) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    if !has_users {
        return Err(format!("no_auth_user: {name:?} present, but users/nkeys are not defined"));
    }
    let mut users = o.authorization.users.iter().chain(o.accounts.iter().flat_map(|a| &a.users));
    if users.any(|u| u.identity.name() == name) {
        return Ok(());
    }
    Err(format!(
        "no_auth_user: {name:?} not present as user or nkey in authorization block or account configuration"
    ))
}

fn websocket(o: &Options, has_users: bool) -> Result<(), String> {
    let Some(ws) = &o.websocket else { return Ok(()) };
    if !ws.no_tls && ws.tls.as_ref().is_none_or(|t| t.certificates.is_empty()) {
        return Err("websocket requires TLS configuration".to_string());
    }
    for origin in &ws.allowed_origins {
        let authority =
            origin.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
        if authority.is_none_or(|a| super::url::split_host_port(a.trim_end_matches('/')).is_err()) {
            return Err(format!(
                "unable to parse allowed origin: {origin:?} is no URL of a scheme and a host"
            ));
        }
    }
    no_auth_user(o, ws.no_auth_user.as_deref(), has_users)?;
    if has_users && ws.authorization.user.is_some() {
        return Err(
            "websocket authentication username not compatible with presence of users/nkeys".to_string()
        );
    }
    if has_users && ws.authorization.token.is_some() {
        return Err("websocket authentication token not compatible with presence of users/nkeys".to_string());
    }
    if let Some(cookie) = &ws.jwt_cookie {
        return Err(format!(
            "trusted operators or trusted keys configuration is required for JWT authentication via cookie {cookie:?}"
        ));
    }
    for name in ws.headers.keys() {
        if name.to_ascii_lowercase().starts_with("sec-websocket-") {
            let text = format!("websocket: invalid header {name:?}, \"Sec-WebSocket-\" prefix not allowed");
            return Err(text);
        }
    }
    Ok(())
}

fn cluster(o: &Options) -> Result<(), String> {
    let Some(c) = &o.cluster else { return Ok(()) };
    if o.jetstream.is_some() && c.port != 0 {
        for (name, what) in [(&o.server_name, "server_name"), (&c.name, "cluster.name")] {
            if name.as_ref().is_none_or(|n| n.is_empty()) {
                return Err(format!("jetstream cluster requires `{what}` to be set"));
            }
        }
    }
    if c.pool_size < 0 && !c.accounts.is_empty() {
        return Err("pool_size cannot be negative if pinned accounts are specified".to_string());
    }
    let mut seen = BTreeSet::new();
    for name in &c.accounts {
        if !seen.insert(name) {
            return Err(format!("found duplicate account name {name:?} in pinned accounts list"));
        }
    }
    if c.name.as_ref().is_some_and(|n| n.contains(' ')) {
        return Err("cluster name cannot contain spaces".to_string());
    }
    Ok(())
}
