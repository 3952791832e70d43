//! The kinds of connection that `allowed_connection_types` speaks of.

/// How a connection reached the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ConnectionType {
    /// A NATS client over TCP or TLS.
    #[default]
    Standard,
    /// A NATS client over WebSocket.
    Websocket,
    /// A leaf node over TCP or TLS.
    Leafnode,
    /// A leaf node over WebSocket.
    LeafnodeWs,
    /// An MQTT client over TCP or TLS.
    Mqtt,
    /// An MQTT client over WebSocket.
    MqttWs,
    /// A connection from within the process.
    InProcess,
}

impl ConnectionType {
    /// All of them, in the order in which they are printed.
    pub const ALL: [ConnectionType; 7] = [
        ConnectionType::Standard,
        ConnectionType::Websocket,
        ConnectionType::Leafnode,
        ConnectionType::LeafnodeWs,
        ConnectionType::Mqtt,
        ConnectionType::MqttWs,
        ConnectionType::InProcess,
    ];

    /// The name used in configuration and claims.
    pub fn name(self) -> &'static str {
        match self {
            ConnectionType::Standard => "STANDARD",
            ConnectionType::Websocket => "WEBSOCKET",
            ConnectionType::Leafnode => "LEAFNODE",
            ConnectionType::LeafnodeWs => "LEAFNODE_WS",
            ConnectionType::Mqtt => "MQTT",
            ConnectionType::MqttWs => "MQTT_WS",
            ConnectionType::InProcess => "IN_PROCESS",
        }
    }

    /// Reads a name without regard to case.
    pub fn parse(name: &str) -> Option<ConnectionType> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }
}

/// A set of connection types. The empty set allows every type, as an absent list does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTypes(u8);

impl ConnectionTypes {
    /// Every type is allowed.
    pub const ANY: ConnectionTypes = ConnectionTypes(0);

    /// Reads a list of names. The second value holds the upper-cased names that are unknown: an error in a
    /// configuration file, ignored in a JWT as long as one name is known.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> (ConnectionTypes, Vec<String>) {
        let (mut set, mut unknown) = (0, Vec::new());
        for name in names {
            match ConnectionType::parse(name.as_ref()) {
                Some(t) => set |= 1 << t as u8,
                None => unknown.push(name.as_ref().to_uppercase()),
            }
        }
        (ConnectionTypes(set), unknown)
    }

    /// Whether a connection of type `t` may use the credential.
    pub fn allows(self, t: ConnectionType) -> bool {
        self.0 == 0 || self.0 & (1 << t as u8) != 0
    }
}

impl FromIterator<ConnectionType> for ConnectionTypes {
    fn from_iter<I: IntoIterator<Item = ConnectionType>>(types: I) -> Self {
        ConnectionTypes(types.into_iter().fold(0, |set, t| set | 1 << t as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sets_and_the_empty_set() {
        let (set, unknown) = ConnectionTypes::parse(&["standard", "Mqtt_Ws", "foo"]);
        assert_eq!(unknown, ["FOO"]);
        for t in ConnectionType::ALL {
            assert_eq!(ConnectionType::parse(t.name()), Some(t));
            assert_eq!(
                set.allows(t),
                matches!(t, ConnectionType::Standard | ConnectionType::MqttWs),
                "{t:?}"
            );
            assert!(ConnectionTypes::ANY.allows(t));
        }
        assert_eq!(
            [ConnectionType::MqttWs, ConnectionType::Standard].into_iter().collect::<ConnectionTypes>(),
            set
        );
    }
}
