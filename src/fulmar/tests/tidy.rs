//! Keeps the house in order: what no compiler checks, checked by reading the files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Longest file, in lines.
const LINES_MAX: usize = 1500;
/// The floors of docs/design/0001-the-house.md: a crate may name only crates of lower floors.
const FLOORS: [(&str, i32); 19] = [
    ("checksum", -1),
    ("keyed", -1),
    ("env", 0),
    ("subject", 0),
    ("wire", 0),
    ("conf", 0),
    ("raft", 0),
    ("store", 1),
    ("stream", 1),
    ("identity", 1),
    ("broker", 2),
    ("replica", 2),
    ("jetstream", 3),
    ("links", 3),
    ("server", 4),
    ("fulmar", 5),
    ("sim", 6),
    ("models", 6),
    ("jepsen-style", 6),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("src/fulmar is two floors up")
        .to_path_buf()
}

/// All text files of the project, by path from the root.
fn files() -> BTreeMap<String, String> {
    fn walk(dir: &Path, root: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if matches!(
                &*name,
                "target" | ".git" | "node_modules" | "Cargo.lock" | "package-lock.json" | "bugs"
            ) {
                continue;
            }
            if path.is_dir() {
                walk(&path, root, into);
            } else if let Ok(text) = fs::read_to_string(&path) {
                into.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text);
            }
        }
    }
    let (root, mut all) = (root(), BTreeMap::new());
    walk(&root, &root, &mut all);
    assert!(all.len() > 50, "the walk found only {} files", all.len());
    all
}

fn rust_files() -> BTreeMap<String, String> {
    files().into_iter().filter(|(p, _)| p.ends_with(".rs")).collect()
}

fn complain(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let wrong: Vec<_> = rust_files()
        .iter()
        .filter(|(_, text)| text.lines().count() > LINES_MAX)
        .map(|(p, text)| {
            format!("{p}: {} lines, at most {LINES_MAX}: split it by thought", text.lines().count())
        })
        .collect();
    complain(&wrong);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX:", "#[ignore"];
    let mut wrong = Vec::new();
    for (p, text) in rust_files() {
        if p.ends_with("tests/tidy.rs") {
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            for m in marks.iter().filter(|m| line.contains(**m)) {
                wrong.push(format!("{p}:{}: {m} (finish it, or say in docs what is not there)", i + 1));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn nobody_but_env_names_what_env_owns() {
    // clippy.toml bans what it can see; this catches macros and modules.
    let banned = [
        ("tokio::select!", "env::select!, which is biased"),
        ("tokio::net::", "env::net"),
        ("tokio::fs::", "env::disk"),
        ("tokio::time::", "env::{sleep, timeout}"),
        ("std::thread::", "env::Workers"),
        ("thread_rng", "env::rng"),
        ("madsim::", "env"),
    ];
    let mut wrong = Vec::new();
    for (p, text) in rust_files() {
        if !p.starts_with("src/")
            || p.starts_with("src/env/")
            || p.contains("/tests/")
            || p.contains("/bin/")
            || p.ends_with("tests.rs")
        {
            continue;
        }
        // Unit tests may start threads of their own.
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (i, line) in product.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (b, instead) in banned.iter().filter(|(b, _)| code.contains(b)) {
                wrong.push(format!("{p}:{}: {b} (use {instead})", i + 1));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn arrows_point_down() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut wrong = Vec::new();
    for (p, text) in files().iter().filter(|(p, _)| {
        p.ends_with("Cargo.toml")
            && ["src/", "sim/", "models/", "jepsen-style/"].iter().any(|r| p.starts_with(r))
    }) {
        let name = text.lines().find_map(|l| l.strip_prefix("name = ")).unwrap_or_default().trim_matches('"');
        let Some(floor) = floors.get(name) else {
            wrong.push(format!("{p}: crate {name:?} has no floor: add it to FLOORS and to docs/design/0001"));
            continue;
        };
        let mut section = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dep = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if section.contains("dependencies")
                && !section.contains("dev-")
                && let Some(below) = floors.get(dep)
                && below >= floor
            {
                wrong.push(format!("{p}: {name} (floor {floor}) names {dep} (floor {below})"));
            }
        }
    }
    complain(&wrong);
}

/// Ids such as `B-3` that a module's head declares as `* B-3: …` or `- B-3: …`.
fn declared(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|l| l.trim_start().strip_prefix("//!"))
        .filter_map(|l| l.trim_start().strip_prefix(['*', '-']))
        .filter_map(|l| l.trim_start().split_once(':').map(|(id, _)| id.trim().to_string()))
        .filter(|id| {
            let Some((letters, number)) = id.split_once('-') else { return false };
            !letters.is_empty()
                && letters.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
                && !number.is_empty()
                && number.chars().all(|c| c.is_ascii_digit())
        })
        .collect()
}

#[test]
fn every_invariant_is_met_again() {
    let all = rust_files();
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (p, text) in &all {
        let folder = p.split('/').take(2).collect::<Vec<_>>().join("/");
        for id in declared(text) {
            // A module may repeat what its crate's head declares.
            let first = seen.entry(id.clone()).or_insert_with(|| folder.clone());
            if *first != folder {
                wrong.push(format!("{p}: {id} is declared in {first} too"));
            }
            // In an assertion's text, beside the line that keeps it, or as (part of) a test's name.
            let lower = id.to_ascii_lowercase();
            let names =
                [format!("fn {}_", lower.replace('-', "")), format!("fn {}_", lower.replace('-', "_"))];
            let met: usize = all
                .values()
                .map(|t| {
                    t.matches(&*id).count() + names.iter().map(|n| t.matches(&**n).count()).sum::<usize>()
                })
                .sum();
            if met < 2 {
                wrong.push(format!(
                    "{p}: {id} is declared and then never met: name it where it is kept, and in a test"
                ));
            }
        }
    }
    assert!(seen.len() > 10, "only {} invariants were found", seen.len());
    complain(&wrong);
}

#[test]
fn no_traces_of_a_machine() {
    let mut wrong = Vec::new();
    for (p, text) in files() {
        if p.ends_with("tests/tidy.rs") {
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            if ["/work/", "/tmp/wt", "/tmp/tgt", "/root/"].iter().any(|m| line.contains(m))
                || line.starts_with("<<<<<<< ")
            {
                wrong.push(format!("{p}:{}: {line}", i + 1));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn the_readme_names_checks_that_exist() {
    let all = files();
    let readme = &all["README.md"];
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in readme.lines().filter(|l| l.starts_with("| ") && l.contains('`')) {
        let Some(check) = line.trim_end_matches('|').rsplit('|').next() else { continue };
        for path in check.split('`').skip(1).step_by(2) {
            let path = path.split_whitespace().next().unwrap_or_default();
            let is_path = path.starts_with("src/")
                || path.starts_with("scripts/")
                || path.starts_with("sim/")
                || path.starts_with("docs/");
            if is_path {
                rows += 1;
                let there = all.contains_key(path)
                    || all.keys().any(|p| p.starts_with(&format!("{}/", path.trim_end_matches('/'))));
                if !there {
                    wrong.push(format!("README.md names {path}, which is not there"));
                }
            }
        }
    }
    assert!(rows > 5, "only {rows} rows of the status table name a check by its path");
    complain(&wrong);
}
