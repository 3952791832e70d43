//! Runs the scripts in testdata: prose, commands, and the whole trace that they must produce. `REWRITE=1` writes the traces anew.
//!
//! A line that begins with `>` is a command; lines that begin with `#` are prose; all else is expected output.
#![allow(
    clippy::disallowed_methods,
    reason = "reads its own test data and one variable; not part of the server"
)]

use super::bench_world::*;
use crate::*;

fn ids(list: &str) -> Vec<NodeId> {
    let one = |s: &str| match s.split_once('.') {
        Some((id, inc)) => NodeId::new(id.parse().expect("an id"), inc.parse().expect("an incarnation")),
        None => n(s.parse().expect("an id")),
    };
    list.split(',').filter(|s| !s.is_empty()).map(one).collect()
}

/// `1->2` (either side may be `*`), a kind or nothing.
fn matcher(args: &[&str]) -> impl Fn(&Message) -> bool + use<> {
    let mut ends = (None, None);
    let mut want = None;
    for arg in args {
        if let Some((a, b)) = arg.split_once("->") {
            ends = (a.parse::<u64>().ok(), b.parse::<u64>().ok());
        } else {
            want = Some((*arg).to_owned());
        }
    }
    move |m| {
        ends.0.is_none_or(|a| m.from.id == a)
            && ends.1.is_none_or(|b| m.to.id == b)
            && want.as_ref().is_none_or(|w| kind(&m.body) == w)
    }
}

fn run(table: &mut Option<Table>, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (command, args) = (words[0], &words[1..]);
    if command == "group" {
        let number = |i: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(0);
        *table = Some(Table::new(number(0), number(1)));
        return String::new();
    }
    let t = table.as_mut().expect("a script begins with group");
    let id = || args[0].parse::<u64>().expect("a node");
    let index = |i: usize| LogIndex(args[i].parse().expect("an index"));
    match command {
        "elect" => {
            t.elect(id());
            t.log.clear();
        }
        "campaign" => t.step(id(), Event::Campaign),
        "propose" => t.propose(id(), &args[1..]),
        "deliver" => {
            t.deliver(&matcher(args), false);
        }
        "repeat" => {
            t.deliver(&matcher(args), true);
        }
        "drop" => {
            let matches = matcher(args);
            t.messages.retain(|m| !matches(m));
        }
        "sync" => t.sync(id()),
        "persist" => {
            if !t.persist(id()) {
                t.log += "no write is pending
";
            }
        }
        "written" => {
            if !t.written(id()) {
                t.log += "no write is done
";
            }
        }
        "apply" => while t.apply(id()) {},
        "settle" => {
            let cut: Vec<u64> =
                args.iter().map(|a| a.trim_start_matches("without=").parse().expect("a node")).collect();
            t.settle(&cut);
        }
        "quietly" => {
            let cut: Vec<u64> =
                args.iter().map(|a| a.trim_start_matches("without=").parse().expect("a node")).collect();
            t.settle(&cut);
            t.log.clear();
        }
        "crash" => {
            let keep = args.get(1).map_or(0, |k| k.trim_start_matches("keep=").parse().expect("a number"));
            t.crash(id(), keep);
        }
        "start" => t.start(id()),
        "doubt" => t.at(id()).disk.hard.doubt = true,
        "trust" => t.step(id(), Event::Trusted),
        "wipe" => {
            t.crash(id(), 0);
            let r = t.at(id());
            r.id.incarnation += 1;
            r.disk = crate::l0::disk::Disk::new(SnapshotMeta::nothing(GROUP));
            t.start(id());
        }
        "wait" => t.now += args[0].parse::<u64>().expect("milliseconds") * MS,
        "tick" => t.step(id(), Event::Tick),
        "read" => t.step(id(), Event::Read(args[1].parse().expect("a number"))),
        "transfer" => t.step(id(), Event::Transfer(ids(args[1])[0])),
        "change" => {
            let find = |key: &str| args.iter().find_map(|a| a.strip_prefix(key)).map_or(Vec::new(), ids);
            t.step(id(), Event::Change(Change { voters: find("voters="), learners: find("learners=") }));
        }
        "compact" => t.compact(id()),
        "install" => {
            if !t.install(id()) {
                t.log += "no state is wanted
";
            }
        }
        "install-fails" => match t.at(id()).installs.pop() {
            Some(install) => t.step(id(), Event::InstallFailed { index: install.meta.index }),
            None => t.log += "no state is wanted\n",
        },
        "load" => {
            if !t.load(id()) {
                t.log += "no load is wanted
";
            }
        }
        "damage" => {
            let (first, node) = (index(1), id());
            t.at(node).disk.damaged.insert(first.0);
            if t.at(node).core.is_some() {
                t.step(node, Event::Damaged { first, last: first });
            }
        }
        "support" => {
            t.support(args[0].parse().expect("an epoch"), args[1].parse::<u64>().expect("milliseconds") * MS)
        }
        "withdraw" => {
            let other = ids(args[1])[0];
            let r = t.at(id());
            let row = r.live.get(other).copied().expect("a row");
            r.live.set(PeerLive { given: 0, reachable: false, ..row });
            t.step(id(), Event::Withdrawn(other));
        }
        "lost" => t.step(id(), Event::SupportLost(ids(args[1])[0])),
        "status" => {
            let which: Vec<u64> =
                if args.is_empty() { (1..=t.replicas.len() as u64).collect() } else { vec![id()] };
            which.into_iter().for_each(|w| t.status(w));
        }
        "deadline" => {
            let core = t.core(id());
            let text = if core.deadline() == u64::MAX { "has no deadline\n" } else { "has a deadline\n" };
            let line = format!("{} {text}", core.me());
            t.log += &line;
        }
        other => panic!("no such command: {other}"),
    }
    std::mem::take(&mut t.log)
}

fn play(text: &str) -> String {
    let mut table = None;
    let mut out = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            out += line;
            out.push('\n');
            out += &run(&mut table, command);
        } else if line.starts_with('#') || line.is_empty() {
            out += line;
            out.push('\n');
        }
    }
    out
}

#[test]
fn scripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let rewrite = std::env::var("REWRITE").is_ok_and(|v| v == "1");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .expect("testdata is there")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 16, "a script for each bug to guard against");
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a script can be read");
        println!("{}", path.display());
        let got = play(&text);
        if rewrite {
            std::fs::write(&path, &got).expect("a script can be written");
        } else if got != text {
            let at = got.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(0);
            let near = |s: &str| s.lines().skip(at).take(4).collect::<Vec<_>>().join("\n    ");
            wrong.push(format!(
                "{} line {}:\n  got\n    {}\n  expected\n    {}",
                path.display(),
                at + 1,
                near(&got),
                near(&text)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n(REWRITE=1 rewrites)", wrong.join("\n"));
}
