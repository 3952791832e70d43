//! Whether a store directory may be used: before anything is written to it.
//!
//! Owns the refusal of what is no directory and of a neighbour's data. Creates and changes nothing.

use env::disk::Disk;

/// Where JetStream's data lies below the configured directory, here and in nats-server.
const SUBFOLDER: &str = "jetstream";

/// Looks at a configured `store_dir`. A directory that does not exist yet is fine.
///
/// # Errors
/// A sentence for the log.
pub async fn check(store_dir: &str) -> Result<(), String> {
    let disk = Disk::os();
    let data = format!("{}/{SUBFOLDER}", store_dir.trim_end_matches('/'));
    for path in [store_dir, &data] {
        match disk.metadata(path).await {
            Ok(m) if !m.is_dir => {
                return Err("Can't start JetStream: storage directory is not a directory".into());
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // A file somewhere on the way down.
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
                return Err("Can't start JetStream: storage directory is not a directory".into());
            }
            Err(e) => return Err(format!("Can't start JetStream: {e}")),
        }
    }
    match foreign(&disk, &data).await {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(format!(
            "Can't start JetStream: {store_dir} holds the data of a nats-server ({found}); it is left untouched. Choose \
             another store_dir, and move the streams over with `nats stream backup` and `nats stream restore`"
        )),
        Err(e) => Err(format!("Can't start JetStream: {e}")),
    }
}

/// The first path that only a nats-server writes: an account's folder with a folder `streams` of streams that have
/// a `meta.inf`, or with the groups of its Raft (`_js_`).
async fn foreign(disk: &Disk, data: &str) -> std::io::Result<Option<String>> {
    for account in directories(disk, data).await? {
        let account = format!("{data}/{account}");
        for kind in directories(disk, &account).await? {
            let meta = if kind == "streams" || kind == "_js_" { "meta.inf" } else { continue };
            for item in directories(disk, &format!("{account}/{kind}")).await? {
                let path = format!("{account}/{kind}/{item}/{meta}");
                if disk.exists(&path).await? {
                    return Ok(Some(path));
                }
                // Raft groups keep theirs one floor down, beside the group's terms and peers.
                let path = format!("{account}/{kind}/{item}/peers.idx");
                if kind == "_js_" && disk.exists(&path).await? {
                    return Ok(Some(path));
                }
            }
        }
    }
    Ok(None)
}

async fn directories(disk: &Disk, path: &str) -> std::io::Result<Vec<String>> {
    let all = disk.read_dir(path).await?;
    Ok(all.into_iter().filter(|e| e.is_dir).map(|e| e.name).collect())
}
