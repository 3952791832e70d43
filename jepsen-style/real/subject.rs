//! What is held against what: a server's binary and how it is configured.
//!
//! All get the same configuration but for `sync_interval`, which is the question of the comparison.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Which server, in which mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ours, as it comes.
    Fulmar,
    /// nats-server as it comes: it syncs every two minutes.
    Nats,
    /// nats-server with `sync_interval: always`.
    NatsSync,
}

impl Kind {
    /// All, in the order of the scoreboard.
    pub const ALL: [Kind; 3] = [Kind::Fulmar, Kind::Nats, Kind::NatsSync];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fulmar => "fulmar",
            Kind::Nats => "nats-server",
            Kind::NatsSync => "nats-server sync",
        }
    }

    /// By its name, or the name with a dash for the blank.
    pub fn parse(s: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.name().replace(' ', "-") == s.replace(' ', "-"))
    }
}

/// A server that can be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Which.
    pub kind: Kind,
    /// Its binary.
    pub bin: PathBuf,
    /// An older version's, for rolling upgrades.
    pub old: Option<PathBuf>,
}

/// What a node's configuration says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig<'a> {
    /// `server_name`.
    pub name: &'a str,
    /// Port for clients, on loopback.
    pub port: u16,
    /// `store_dir`.
    pub store: &'a Path,
    /// Bytes that JetStream may use on disk.
    pub max_file: u64,
    /// Port for the other nodes, and where each of them is dialled; none for a server alone.
    pub cluster: Option<(u16, Vec<u16>)>,
}

impl Subject {
    /// The configuration file's text.
    ///
    /// Routes lead through the proxies of the links. What a node tells others about where it listens leads nowhere, so
    /// that no neighbour goes around them.
    pub fn config(&self, c: &NodeConfig<'_>) -> String {
        let sync = if self.kind == Kind::NatsSync { "  sync_interval: always\n" } else { "" };
        let mut out = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 1MB\njetstream {{\n  store_dir: \"{}\"\n  max_mem: 256MB\n  max_file: {}\n{sync}}}\n",
            c.name,
            c.port,
            c.store.display(),
            c.max_file
        );
        if let Some((port, routes)) = &c.cluster {
            let routes: Vec<String> = routes.iter().map(|p| format!("\"nats://127.0.0.1:{p}\"")).collect();
            out += &format!(
                "cluster {{\n  name: storm\n  listen: \"127.0.0.1:{port}\"\n  advertise: \"127.0.0.1:1\"\n  no_advertise: true\n  routes: [{}]\n}}\n",
                routes.join(", ")
            );
        }
        out
    }

    /// The command that starts it, or the older version where there is one.
    pub fn command(&self, config: &Path, old: bool) -> Command {
        let mut c = Command::new(self.old.as_ref().filter(|_| old).unwrap_or(&self.bin));
        c.arg("-c").arg(config);
        c
    }

    /// What it says of itself.
    pub fn version(&self) -> String {
        let said = Command::new(&self.bin).arg("--version").output();
        let text = said.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sync_mode_differs() {
        let text = |kind| {
            let s = Subject { kind, bin: "x".into(), old: None };
            s.config(&NodeConfig {
                name: "n1",
                port: 4222,
                store: Path::new("/d"),
                max_file: 9,
                cluster: Some((6222, vec![7001, 7002])),
            })
        };
        assert_eq!(text(Kind::Fulmar), text(Kind::Nats));
        assert_eq!(text(Kind::NatsSync).replace("  sync_interval: always\n", ""), text(Kind::Nats));
        for k in Kind::ALL {
            assert_eq!(Kind::parse(&k.name().replace(' ', "-")), Some(k));
        }
        assert_eq!(Kind::parse("other"), None);
    }
}
