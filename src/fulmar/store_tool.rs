//! `fulmar store inspect|verify PATH`: what lies in a data directory, and whether it is whole. Changes nothing.
//!
//! Owns the words and the exit codes: 0 all is well, 1 something is damaged or lost, 2 it could not be looked at.

use std::{io::Write, path::PathBuf};

use env::disk::Disk;
use store::{Options, Store, inspect};

const USAGE: &str = "\
Usage: fulmar store inspect PATH   what lies in a data directory; a server may be using it
       fulmar store verify PATH    reads everything in it and compares every checksum; no server may be using it

PATH is a server's store_dir, or the folder `jetstream` in it. Nothing is changed.
Exit status: 0 all is well, 1 something is damaged or lost, 2 it could not be looked at.
";

/// Between two words about the progress.
const STEP_BYTES: u64 = 256 << 20;

/// Runs the command with what follows `store`; the exit code.
pub fn main(args: &[String]) -> u8 {
    let known = |w: &str| matches!(w, "inspect" | "verify");
    match args {
        [w] if matches!(w.as_str(), "-h" | "--help" | "help") => {
            out(USAGE);
            0
        }
        [what, path] if known(what) => {
            let (verifies, path) = (what == "verify", PathBuf::from(path));
            env::run(async move { if verifies { verify(path).await } else { look(path).await } })
                .unwrap_or_else(|e| {
                    err(&format!("fulmar: the runtime cannot be started: {e}\n"));
                    2
                })
        }
        _ => {
            err(USAGE);
            2
        }
    }
}

/// The folder with the shards: the path, or `jetstream` below it.
async fn folder(path: PathBuf) -> Result<PathBuf, String> {
    for dir in [path.join("jetstream"), path.clone()] {
        match Disk::os().read_dir(&dir).await {
            Ok(all) if all.iter().any(|e| e.is_dir && e.name.starts_with("shard-")) => return Ok(dir),
            Ok(_) => {}
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(format!("{}: {e}", dir.display())),
        }
    }
    Err(format!("{} holds no data of a Fulmar server", path.display()))
}

async fn look(path: PathBuf) -> u8 {
    let found = match folder(path).await {
        Ok(dir) => inspect(Disk::os(), dir, &Options::default()).await.map_err(|e| e.to_string()),
        Err(e) => Err(e),
    };
    match found {
        Ok(found) => {
            out(&found.to_string());
            u8::from(!found.is_well())
        }
        Err(e) => {
            err(&format!("fulmar: {e}\n"));
            2
        }
    }
}

async fn verify(path: PathBuf) -> u8 {
    let opened = match folder(path).await {
        Ok(dir) => Store::open_to_read(Disk::os(), dir, Options::default()).await.map_err(|e| e.to_string()),
        Err(e) => Err(e),
    };
    let store = match opened {
        Ok(store) => store,
        Err(e) => {
            err(&format!("fulmar: {e}\n"));
            return 2;
        }
    };
    let (total, mut told) = (store.segment_bytes(), 0);
    let read = store.verify_with(|r| {
        if r.bytes >= told + STEP_BYTES {
            told = r.bytes;
            err(&format!("{} of {} MiB read\n", r.bytes >> 20, total >> 20));
        }
    });
    let report = match read.await {
        Ok(report) => report,
        Err(e) => {
            err(&format!("fulmar: {e}\n"));
            return 2;
        }
    };
    let damage = store.damage();
    for d in &damage {
        out(&format!("{d}\n"));
    }
    let (torn, groups) = (store.torn_tail(), store.groups().len());
    if torn {
        out("the journal ends with a write that was cut off, as a power failure leaves it\n");
    }
    let word = if damage.is_empty() { "whole" } else { "damaged" };
    out(&format!("{groups} groups, {} pieces, {} bytes read: {word}\n", report.pieces, report.bytes));
    u8::from(!damage.is_empty())
}

fn out(text: &str) {
    // Whoever reads may have gone.
    std::io::stdout().write_all(text.as_bytes()).ok();
}
fn err(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).ok();
}
