//! What a caller may ask of each endpoint. Field names are those of the JSON bodies of `$SYS` requests; HTTP's
//! parameters are turned into the same structs.

use serde::{Deserialize, Deserializer};

use super::query::Query;

/// Entries of a page where the caller gives no limit.
pub const LIMIT_DEFAULT: i64 = 1024;

/// Takes `null` for the default, as Go does.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

macro_rules! options {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $([$json:literal])? $field:ident: $t:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])*
            $(#[serde(rename = $json)])?
            #[serde(deserialize_with = "or_default")]
            pub $field: $t,)*
        }
    };
}

/// Which connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnState {
    /// Those that are there.
    #[default]
    Open,
    /// Those that are gone.
    Closed,
    /// Both.
    All,
    /// A number that is none of theirs: nobody.
    Neither,
}

impl<'de> Deserialize<'de> for ConnState {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<ConnState, D::Error> {
        match i64::deserialize(d)? {
            0 => Ok(ConnState::Open),
            1 => Ok(ConnState::Closed),
            2 => Ok(ConnState::All),
            _ => Ok(ConnState::Neither),
        }
    }
}

options! {
    /// Of `/varz`: nothing.
    VarzOptions {}
}
options! {
    /// Of `/connz`.
    ConnzOptions {
        /// Order; empty for `cid`.
        sort: String,
        /// Users and accounts are shown.
        ["auth"] auth: bool,
        /// Subscriptions are listed.
        subscriptions: bool,
        /// In detail.
        subscriptions_detail: bool,
        /// Entries to leave out at the front.
        offset: i64,
        /// Entries at most; 0 for 1024.
        limit: i64,
        /// Only this one.
        cid: u64,
        /// Only that of this MQTT client id.
        mqtt_client: String,
        /// Which ones.
        state: ConnState,
        /// Only this user's.
        user: String,
        /// Only this account's.
        ["acc"] account: String,
        /// Only those with a subscription that shares subjects with this one; needs `account`.
        filter_subject: String,
    }
}
options! {
    /// Of `/routez`.
    RoutezOptions {
        /// Subscriptions are listed.
        subscriptions: bool,
        /// In detail.
        subscriptions_detail: bool,
    }
}
options! {
    /// Of `/subsz`.
    SubszOptions {
        /// Entries to leave out at the front.
        offset: i64,
        /// Entries at most; 0 for 1024.
        limit: i64,
        /// Subscriptions are listed.
        subscriptions: bool,
        /// Only this account's.
        account: String,
        /// Only those that a message to this subject would reach.
        test: String,
    }
}
options! {
    /// Of `/gatewayz`.
    GatewayzOptions {
        /// Only this gateway.
        name: String,
        /// Accounts are listed.
        accounts: bool,
        /// Only this account.
        account_name: String,
        /// Subscriptions are listed.
        subscriptions: bool,
        /// In detail.
        subscriptions_detail: bool,
    }
}
options! {
    /// Of `/leafz`.
    LeafzOptions {
        /// Subscriptions are listed.
        subscriptions: bool,
        /// Only this account's.
        account: String,
    }
}
options! {
    /// Of `/accountz`.
    AccountzOptions {
        /// The account to describe; empty for a list of names.
        account: String,
    }
}
options! {
    /// Of `/accstatz`.
    AccountStatzOptions {
        /// Only these accounts; empty for all.
        accounts: Vec<String>,
        /// Those without connections too.
        include_unused: bool,
    }
}
options! {
    /// Of `/jsz`.
    JszOptions {
        /// Only this account.
        account: String,
        /// Accounts are listed.
        accounts: bool,
        /// With their streams.
        streams: bool,
        /// With their consumers.
        ["consumer"] consumers: bool,
        /// With internal consumers.
        ["direct_consumer"] direct_consumers: bool,
        /// With configurations.
        config: bool,
        /// Answered by the meta leader only.
        leader_only: bool,
        /// Accounts to leave out at the front.
        offset: i64,
        /// Accounts at most; 0 for 1024.
        limit: i64,
        /// With Raft groups.
        ["raft"] raft_groups: bool,
        /// Only streams that this server leads.
        stream_leader_only: bool,
    }
}
options! {
    /// Of `/healthz`.
    HealthzOptions {
        /// The older name of `js_enabled_only`.
        ["js-enabled"] js_enabled: bool,
        /// Only whether JetStream is on.
        ["js-enabled-only"] js_enabled_only: bool,
        /// Not whether assets are current.
        ["js-server-only"] js_server_only: bool,
        /// Only the meta group.
        ["js-meta-only"] js_meta_only: bool,
        /// Only this account's assets.
        account: String,
        /// Only this stream.
        stream: String,
        /// Only this consumer.
        consumer: String,
        /// Each fault by itself.
        details: bool,
    }
}
options! {
    /// Of `/raftz`.
    RaftzOptions {
        /// Only groups of this account.
        account: String,
        /// Only this group.
        group: String,
    }
}
options! {
    /// Of `/ipqueuesz`.
    IpqueueszOptions {
        /// Empty queues too.
        all: bool,
        /// Only queues with this in their names.
        filter: String,
    }
}
options! {
    /// Of `/debug/vars`: nothing.
    ExpvarzOptions {}
}

impl ConnzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<ConnzOptions, String> {
        let auth = q.switch("auth")?;
        let (subscriptions, subscriptions_detail) = q.subscriptions()?;
        let offset = q.int("offset")?;
        let limit = q.int("limit")?;
        let cid = q.unsigned("cid")?;
        let state = match q.text("state").to_ascii_lowercase().as_str() {
            "" | "open" => ConnState::Open,
            "closed" => ConnState::Closed,
            "any" | "all" => ConnState::All,
            _ => return Err(format!("Error decoding state for {}", q.text("state"))),
        };
        Ok(ConnzOptions {
            sort: q.text("sort"),
            auth,
            subscriptions,
            subscriptions_detail,
            offset,
            limit,
            cid,
            mqtt_client: q.text("mqtt_client"),
            state,
            user: q.text("user"),
            account: q.text("acc"),
            filter_subject: String::new(),
        })
    }
}
impl RoutezOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<RoutezOptions, String> {
        let (subscriptions, subscriptions_detail) = q.subscriptions()?;
        Ok(RoutezOptions { subscriptions, subscriptions_detail })
    }
}
impl SubszOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<SubszOptions, String> {
        Ok(SubszOptions {
            subscriptions: q.switch("subs")?,
            offset: q.int("offset")?,
            limit: q.int("limit")?,
            account: q.text("acc"),
            test: q.text("test"),
        })
    }
}
impl GatewayzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<GatewayzOptions, String> {
        let (subscriptions, subscriptions_detail) = q.subscriptions()?;
        let account_name = q.text("acc_name");
        Ok(GatewayzOptions {
            name: q.text("gw_name"),
            accounts: q.switch("accs")? || !account_name.is_empty(),
            account_name,
            subscriptions,
            subscriptions_detail,
        })
    }
}
impl LeafzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<LeafzOptions, String> {
        Ok(LeafzOptions { subscriptions: q.switch("subs")?, account: q.text("acc") })
    }
}
impl AccountzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<AccountzOptions, String> {
        Ok(AccountzOptions { account: q.text("acc") })
    }
}
impl AccountStatzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<AccountStatzOptions, String> {
        Ok(AccountStatzOptions { accounts: Vec::new(), include_unused: q.switch("unused")? })
    }
}
impl JszOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<JszOptions, String> {
        Ok(JszOptions {
            accounts: q.switch("accounts")?,
            streams: q.switch("streams")?,
            consumers: q.switch("consumers")?,
            direct_consumers: q.switch("direct-consumers")?,
            config: q.switch("config")?,
            offset: q.int("offset")?,
            limit: q.int("limit")?,
            leader_only: q.switch("leader-only")?,
            raft_groups: q.switch("raft")?,
            stream_leader_only: q.switch("stream-leader-only")?,
            account: q.text("acc"),
        })
    }
}
impl HealthzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<HealthzOptions, String> {
        Ok(HealthzOptions {
            js_enabled: q.switch("js-enabled")?,
            js_enabled_only: q.switch("js-enabled-only")?,
            js_server_only: q.switch("js-server-only")?,
            js_meta_only: q.switch("js-meta-only")?,
            account: q.text("account"),
            stream: q.text("stream"),
            consumer: q.text("consumer"),
            details: q.switch("details")?,
        })
    }
}
impl RaftzOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<RaftzOptions, String> {
        Ok(RaftzOptions { account: q.text("acc"), group: q.text("group") })
    }
}
impl IpqueueszOptions {
    /// From a URL.
    pub fn from_query(q: &Query) -> Result<IpqueueszOptions, String> {
        Ok(IpqueueszOptions { all: q.switch("all")?, filter: q.text("queues") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_requests_are_taken() {
        let o: ConnzOptions =
            serde_json::from_str(r#"{"sort":"subs","auth":true,"subscriptions":true,"state":2,"acc":"A","cid":7,"user":null,"more":1}"#)
                .unwrap();
        let want = ConnzOptions {
            sort: "subs".into(),
            auth: true,
            subscriptions: true,
            state: ConnState::All,
            account: "A".into(),
            cid: 7,
            ..ConnzOptions::default()
        };
        assert_eq!(o, want);
        let o: HealthzOptions = serde_json::from_str(r#"{"js-enabled-only":true}"#).unwrap();
        assert!(o.js_enabled_only && !o.js_enabled);
        let o: JszOptions = serde_json::from_str(r#"{"consumer":true,"raft":true}"#).unwrap();
        assert!(o.consumers && o.raft_groups);
    }

    #[test]
    fn states_by_name() {
        let state = |s: &str| ConnzOptions::from_query(&Query::parse(s)).map(|o| o.state);
        assert_eq!(state(""), Ok(ConnState::Open));
        assert_eq!(state("state=CLOSED"), Ok(ConnState::Closed));
        assert_eq!(state("state=any"), Ok(ConnState::All));
        assert_eq!(state("state=foo"), Err("Error decoding state for foo".into()));
    }
}
