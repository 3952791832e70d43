//! Ours, killed three times under load, loses nothing that it acknowledged, shows nothing twice and serves again.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods)]

use std::{path::PathBuf, process::Command};

use jepsen_style::{
    report::State,
    scenario::{self, Options},
    subject::{Kind, Subject},
};

/// The server's binary: `FULMAR_BIN`, or the one of this workspace, built now.
fn fulmar() -> PathBuf {
    if let Some(bin) = std::env::var_os("FULMAR_BIN").filter(|b| !b.is_empty()) {
        return bin.into();
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "fulmar", "--message-format", "json"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = String::from_utf8_lossy(&built.stdout).into_owned();
    let artifacts = said.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut bins = artifacts.filter_map(|a| Some(PathBuf::from(a.get("executable")?.as_str()?)));
    bins.next_back().expect("cargo names what it built")
}

#[test]
fn p1_what_ours_acknowledged_survives_kill() {
    let subject = Subject { kind: Kind::Fulmar, bin: fulmar(), old: None };
    let mut s = scenario::all().into_iter().find(|s| s.name == "kill").expect("it is in the list");
    s.rate = 500;
    let dir = std::env::temp_dir().join(format!("jepsen-kill-{}", std::process::id()));
    let o = Options { seed: 1, scale: 1.0, dir: dir.clone(), clients: 2 };
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let row = rt.block_on(scenario::run(&s, &subject, &o));
    assert_eq!(row.state, State::Done, "{}: see {}", row.note, dir.display());
    assert!(row.holds(), "{row:?}: see {}", dir.display());
    // It was at work between the deaths, and not only before the first.
    assert!(row.acknowledged > 1_000, "{row:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}
