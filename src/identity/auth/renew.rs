//! What a reload makes of a connection that has logged in before it.
//!
//! Decides from what the configurations say, without credentials: nobody keeps a client's password after its login. Does
//! not disconnect anybody; the shell does what [`Renewal`] says.
//!
//! Invariant:
//! - `I-5: a reload never widens silently`: an identity survives only if the same entry of the new configuration, with
//!   the same secret and in the same account, would let it in again; what it may do from then on is that entry's.

use std::sync::Arc;

use super::{Authenticator, Identity, Reason, Source, check::User};
use crate::{conn_type::ConnectionType, limits::Limits, password::is_bcrypt, secret::Secret};

/// The answer of [`Authenticator::renew`].
#[derive(Clone, Debug)]
pub enum Renewal {
    /// It stays, as this.
    Keep(Identity),
    /// Its user is gone or belongs to another account. nats-server closes such a connection without a word.
    Removed,
    /// Its credentials would be refused now: [`super::AUTHORIZATION_VIOLATION`].
    Reject(Reason),
}

impl Authenticator {
    /// What becomes of `who`, let in by `old` over a connection of the given type. Takes microseconds.
    ///
    /// Permissions that say the same as before are kept as the same object, so that a caller can tell by the pointer that
    /// nothing has changed.
    pub fn renew(&self, old: &Authenticator, who: &Identity, connection: ConnectionType) -> Renewal {
        match self.renewed(old, who, connection) {
            Ok(Some(mut identity)) => {
                if let (Some(was), Some(is)) = (&who.permissions, &identity.permissions)
                    && was.config() == is.config()
                {
                    identity.permissions = Some(was.clone());
                }
                Renewal::Keep(identity)
            }
            Ok(None) => Renewal::Removed,
            Err(reason) => Renewal::Reject(reason),
        }
    }

    /// `None`: the user is gone.
    fn renewed(
        &self,
        old: &Authenticator,
        who: &Identity,
        connection: ConnectionType,
    ) -> Result<Option<Identity>, Reason> {
        let known = |key: &Arc<str>| self.shared.proxies.iter().any(|(text, _)| text == key);
        let proxy = who.proxy.clone().filter(known);
        if who.proxy.is_some() && proxy.is_none() && !self.shared.proxies.is_empty() {
            return Err(Reason::ProxyNotTrusted);
        }
        if self.shared.proxy_required && proxy.is_none() {
            return Err(Reason::ProxyRequired);
        }
        let same_account = |account: &str| *account == *who.account;
        // Somebody of the users' list, or what stands in for one.
        let listed = |user: Option<&Arc<User>>| {
            let Some(user) = user.filter(|u| same_account(&u.account)) else { return Ok(None) };
            user.may_use(connection, &proxy)?;
            Ok(Some(user.identity(who.source, &proxy)))
        };
        let unlisted = || Identity {
            account: self.shared.default_account.clone(),
            permissions: None,
            limits: Limits::UNLIMITED,
            proxy: proxy.clone(),
            ..who.clone()
        };
        match who.source {
            Source::Open if self.is_required() => Err(Reason::NoCredentials),
            Source::Open => Ok(Some(unlisted()).filter(|i| same_account(&i.account))),
            Source::Nkey => listed(self.shared.nkeys.get(&who.name).map(|n| &n.user)),
            Source::NoAuthUser => {
                let by_key = self.shared.nkeys.get(&who.name).map(|n| &n.user);
                let user = by_key.or_else(|| self.shared.users.get(&who.name));
                if self.listener.no_auth_user.as_deref() != Some(&*who.name) {
                    return if user.is_some() { Err(Reason::NoCredentials) } else { Ok(None) };
                }
                if user.is_some_and(|u| is_bcrypt(u.password.expose())) {
                    return Err(Reason::NoAuthUserHashed);
                }
                // Who changes the password means everybody whom it has let in.
                let secret =
                    |a: &Authenticator| a.shared.users.get(&who.name).map(|u| u.password.expose().to_owned());
                if user.is_some_and(|u| same_account(&u.account)) && secret(self) != secret(old) {
                    return Err(Reason::WrongPassword);
                }
                listed(user)
            }
            Source::Certificate | Source::User | Source::SingleUser => {
                if who.source == Source::Certificate && !self.listener.tls_map {
                    return Err(Reason::UnknownCertificate);
                }
                let Some((secret, user)) = self.named(&who.name) else { return Ok(None) };
                let identity = match user {
                    Some(user) => listed(Some(user))?,
                    None => Some(unlisted()).filter(|i| same_account(&i.account)),
                };
                let same_secret =
                    old.named(&who.name).is_some_and(|(was, _)| was.expose() == secret.expose());
                if identity.is_some() && !same_secret {
                    return Err(Reason::WrongPassword);
                }
                Ok(identity)
            }
            Source::Token => {
                let secret = |a: &Authenticator| a.listener.token.as_ref().map(|t| t.expose().to_owned());
                match secret(self) {
                    Some(token) if Some(&token) == secret(old).as_ref() => {
                        Ok(Some(unlisted()).filter(|i| same_account(&i.account)))
                    }
                    Some(_) => Err(Reason::WrongToken),
                    None if self.is_required() => Err(Reason::NoCredentials),
                    // Anybody may come in.
                    None => Ok(Some(unlisted()).filter(|i| same_account(&i.account))),
                }
            }
        }
    }

    /// The secret of whoever has that name, and the entry of the users' list unless it is the single user.
    fn named(&self, name: &str) -> Option<(&Secret, Option<&Arc<User>>)> {
        if let Some(user) = self.shared.users.get(name) {
            return Some((&user.password, Some(user)));
        }
        let single = self.listener.single.as_ref().filter(|s| s.name == name)?;
        Some((&single.password, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Attempt, AuthConfig, Check, ConnectionTypes, Decision, ListenerConfig, PermissionsConfig, SingleUser,
        SubjectPermission, UserConfig,
    };

    fn user(name: &str, password: &str) -> UserConfig {
        UserConfig { name: name.into(), password: Some(Secret::new(password)), ..UserConfig::default() }
    }
    fn server(users: &[UserConfig]) -> Authenticator {
        with(users, ListenerConfig::default())
    }
    fn with(users: &[UserConfig], listener: ListenerConfig) -> Authenticator {
        Authenticator::new(AuthConfig { users: users.to_vec(), listener, ..AuthConfig::default() }, [1; 32])
            .unwrap()
    }
    fn enter(a: &Authenticator, attempt: Attempt<'_>) -> Identity {
        match a.check(&attempt) {
            Check::Done(Decision::Accept(i)) => i,
            other => panic!("{other:?}"),
        }
    }
    fn login(a: &Authenticator, name: &str) -> Identity {
        enter(a, Attempt { user: name, pass: "x", ..Attempt::default() })
    }
    fn renew(new: &Authenticator, old: &Authenticator, who: &Identity) -> String {
        match new.renew(old, who, ConnectionType::Standard) {
            Renewal::Keep(i) => {
                assert_eq!((&i.name, &i.account, i.source), (&who.name, &who.account, who.source));
                "keep".into()
            }
            Renewal::Removed => "removed".into(),
            Renewal::Reject(r) => format!("{r:?}"),
        }
    }

    #[test]
    fn i5_users_survive_by_name_secret_and_account() {
        let old = server(&[user("a", "x")]);
        let who = login(&old, "a");
        assert_eq!(renew(&old, &old, &who), "keep");
        let elsewhere = UserConfig { account: "B".into(), ..user("a", "x") };
        let ws = UserConfig { connection_types: ConnectionTypes::parse(&["WEBSOCKET"]).0, ..user("a", "x") };
        let guarded = UserConfig { proxy_required: true, ..user("a", "x") };
        for (users, end) in [
            (vec![user("a", "x"), user("b", "x")], "keep"),
            (vec![user("a", "y")], "WrongPassword"),
            (vec![user("b", "x")], "removed"),
            (vec![], "removed"),
            (vec![elsewhere], "removed"),
            (vec![ws], "ConnectionType"),
            (vec![guarded], "ProxyRequired"),
        ] {
            assert_eq!(renew(&server(&users), &old, &who), end, "{users:?}");
        }
        let single = |pass: &str| {
            let single = Some(SingleUser { name: "a".into(), password: Secret::new(pass) });
            with(&[], ListenerConfig { single, ..ListenerConfig::default() })
        };
        assert_eq!(renew(&single("x"), &old, &who), "keep");
        assert_eq!(renew(&single("y"), &old, &who), "WrongPassword");
        let was_single = login(&single("x"), "a");
        assert_eq!(renew(&old, &single("x"), &was_single), "keep");
        assert_eq!(renew(&single("z"), &single("x"), &was_single), "WrongPassword");
    }

    #[test]
    fn i5_those_without_a_name_survive_what_would_let_them_in_again() {
        let token =
            |t: &str| with(&[], ListenerConfig { token: Some(Secret::new(t)), ..ListenerConfig::default() });
        let by_token = enter(&token("t"), Attempt { token: "t", ..Attempt::default() });
        assert_eq!(renew(&token("t"), &token("t"), &by_token), "keep");
        assert_eq!(renew(&token("u"), &token("t"), &by_token), "WrongToken");
        let open = server(&[]);
        assert_eq!(renew(&open, &token("t"), &by_token), "keep");
        assert_eq!(renew(&open, &open, &by_token), "keep");
        assert_eq!(renew(&token("t"), &open, &by_token), "WrongToken");
        assert_eq!(renew(&server(&[user("a", "x")]), &token("t"), &by_token), "NoCredentials");
        let anybody = enter(&open, Attempt::default());
        assert_eq!(renew(&server(&[]), &open, &anybody), "keep");
        assert_eq!(renew(&token("t"), &open, &anybody), "NoCredentials");
        let stand_in = |users: &[UserConfig], name: &str| {
            with(users, ListenerConfig { no_auth_user: Some(name.into()), ..ListenerConfig::default() })
        };
        let both = [user("a", "x"), user("b", "x")];
        let old = stand_in(&both, "a");
        let nobody = enter(&old, Attempt::default());
        assert_eq!(renew(&stand_in(&[user("a", "x")], "a"), &old, &nobody), "keep");
        assert_eq!(renew(&stand_in(&[user("a", "y")], "a"), &old, &nobody), "WrongPassword");
        assert_eq!(renew(&server(&both[1..]), &old, &nobody), "removed");
        assert_eq!(renew(&stand_in(&both, "b"), &old, &nobody), "NoCredentials");
        assert_eq!(renew(&server(&both), &old, &nobody), "NoCredentials");
        assert_eq!(renew(&server(&[]), &old, &nobody), "removed");
    }

    #[test]
    fn equal_permissions_stay_the_same_object_and_others_do_not() {
        let limited = |subject: &str| {
            let publish = SubjectPermission { allow: vec![subject.into()], deny: vec![] };
            let permissions = Some(PermissionsConfig { publish, ..PermissionsConfig::default() });
            server(&[UserConfig { permissions, ..user("a", "x") }])
        };
        let old = limited("a.>");
        let who = login(&old, "a");
        let after = |new: &Authenticator| match new.renew(&old, &who, ConnectionType::Standard) {
            Renewal::Keep(i) => i.permissions,
            other => panic!("{other:?}"),
        };
        assert!(Arc::ptr_eq(&after(&limited("a.>")).unwrap(), who.permissions.as_ref().unwrap()));
        let other = after(&limited("b.>")).unwrap();
        assert!(other.can_publish(b"b.1") && !other.can_publish(b"a.1"));
        assert!(after(&server(&[user("a", "x")])).is_none());
    }
}
