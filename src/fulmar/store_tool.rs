//! `fulmar store inspect|verify PATH`: what lies in a data directory, and whether it is whole. Changes nothing.
//!
//! Owns the words and the exit codes: 0 all is well, 1 something is damaged or lost, 2 it could not be looked at.

use std::{io::Write, path::PathBuf};

use env::disk::Disk;
use store::{Options, Reading, Store, inspect};

const USAGE: &str = "\
Usage: fulmar store inspect PATH [-c CONFIG]   what lies in a data directory; a server may be using it
       fulmar store verify PATH [-c CONFIG]    reads everything in it and compares every checksum; no server may be using it

PATH is a server's store_dir, or the folder `jetstream` in it. Nothing is changed.
CONFIG is the server's configuration: its `jetstream` block names the keys, if the data is encrypted at rest.
Exit status: 0 all is well, 1 something is damaged or lost, 2 it could not be looked at.
";

/// Between two words about the progress.
const STEP_BYTES: u64 = 256 << 20;
/// The same of a journal, which is read at the start, more than once where it looks damaged.
const JOURNAL_STEP_BYTES: u64 = 32 << 20;

/// Runs the command with what follows `store`; the exit code.
pub fn main(args: &[String]) -> u8 {
    let known = |w: &str| matches!(w, "inspect" | "verify");
    match args {
        [w] if matches!(w.as_str(), "-h" | "--help" | "help") => {
            out(USAGE);
            0
        }
        [what, path] if known(what) => run(what == "verify", path, None),
        [what, path, c, config] | [what, c, config, path]
            if known(what) && matches!(c.as_str(), "-c" | "--config") =>
        {
            run(what == "verify", path, Some(config))
        }
        _ => {
            err(USAGE);
            2
        }
    }
}

fn run(verifies: bool, path: &str, config: Option<&str>) -> u8 {
    let done = env::run(async move {
        let keys = match config {
            Some(config) => server::store_keys(config).await?,
            None => store::Keys::default(),
        };
        let opts = Options { keys, ..Options::default() };
        let dir = folder(PathBuf::from(path)).await?;
        if verifies { verify(dir, opts).await } else { look(dir, opts).await }
    });
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(e)) => {
            err(&format!("fulmar: {e}\n"));
            2
        }
        Err(e) => {
            err(&format!("fulmar: the runtime cannot be started: {e}\n"));
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

async fn look(dir: PathBuf, opts: Options) -> Result<u8, String> {
    let found = inspect(Disk::os(), dir, &opts).await.map_err(|e| e.to_string())?;
    out(&found.to_string());
    Ok(u8::from(!found.is_well()))
}

async fn verify(dir: PathBuf, opts: Options) -> Result<u8, String> {
    let mut told = 0;
    let journal = |p: &Reading| {
        if p.read >= told + JOURNAL_STEP_BYTES {
            told = p.read;
            err(&format!("journal: {} of {} MiB read\n", p.read >> 20, p.total >> 20));
        }
    };
    let store = Store::open_to_read_with(Disk::os(), dir, opts, journal).await.map_err(|e| e.to_string())?;
    let (total, mut told) = (store.segment_bytes(), 0);
    let read = store.verify_with(|r| {
        if r.bytes >= told + STEP_BYTES {
            told = r.bytes;
            err(&format!("{} of {} MiB read\n", r.bytes >> 20, total >> 20));
        }
    });
    let report = read.await.map_err(|e| e.to_string())?;
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
    if store.foreign_bytes() > 0 {
        out(&format!("{} bytes are not sealed with the key of today\n", store.foreign_bytes()));
    }
    Ok(u8::from(!damage.is_empty()))
}

fn out(text: &str) {
    // Whoever reads may have gone.
    std::io::stdout().write_all(text.as_bytes()).ok();
}
fn err(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).ok();
}
