//! Who this node is: the file `node` of the engine's directory.
//!
//! Owns that file, the one of the formation, the one of a rescue and the one of lives. All are small, versioned, checksummed, and replaced as a whole. A wiped disk is another node by
//! construction, since its id is drawn when the file is made.

use std::path::Path;

use env::disk::Disk;
use replica::NodeId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::formation::Saved;

/// The file of the name.
const NODE: &str = "node";
/// The file of the formation, while there is no meta group yet.
const FORMATION: &str = "formation";
/// The file of the name that the meta group has since a rescue.
const RESCUED: &str = "rescued";
/// The file of the floor of the numbers of its replicas.
const LIVES: &str = "lives";
/// The version of all.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Node {
    format: u32,
    id: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Formed {
    format: u32,
    #[serde(flatten)]
    saved: Saved,
}

#[derive(Serialize, Deserialize)]
struct Rescued {
    format: u32,
    genesis: String,
}

#[derive(Serialize, Deserialize)]
struct Lives {
    format: u32,
    floor: u32,
}

/// A line of JSON, and behind it its checksum on a line of its own.
fn sealed<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec(value).map_err(|e| e.to_string())?;
    text.push(b'\n');
    let sum = checksum::crc32c(&text);
    text.extend_from_slice(format!("{sum:08x}\n").as_bytes());
    Ok(text)
}

fn opened<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().position(|b| *b == b'\n')? + 1;
    let (text, sum) = bytes.split_at(end);
    let sum = str::from_utf8(sum).ok()?.strip_suffix('\n')?;
    (sum.len() == 8 && u32::from_str_radix(sum, 16) == Ok(checksum::crc32c(text))).then_some(())?;
    serde_json::from_slice(text).ok()
}

async fn read<T: DeserializeOwned>(disk: &Disk, path: &Path) -> Result<Option<T>, String> {
    if !disk.exists(path).await.map_err(|e| e.to_string())? {
        return Ok(None);
    }
    let bytes = disk.read(path).await.map_err(|e| e.to_string())?;
    opened(&bytes).map(Some).ok_or_else(|| format!("{} is damaged", path.display()))
}

/// The id of the node whose directory it is, drawn and made durable if there is none yet. The store must be open, so that no other process has the
/// directory.
///
/// # Errors
/// What the disk said, or that the file is damaged or of a newer version: a node never takes another name by itself.
pub async fn node(disk: &Disk, dir: &Path, name: &str) -> Result<NodeId, String> {
    let path = dir.join(NODE);
    if let Some(node) = read::<Node>(disk, &path).await? {
        let id = u64::from_str_radix(&node.id, 16).ok().filter(|id| *id != 0 && node.format == FORMAT);
        return id.map(|id| NodeId::new(id, 0)).ok_or_else(|| format!("{} cannot be read", path.display()));
    }
    let mut rng = env::rng("node id");
    let id = std::iter::repeat_with(|| rng.next_u64()).find(|id| *id != 0).expect("random numbers go on");
    let node = Node { format: FORMAT, id: format!("{id:016x}"), name: name.to_owned() };
    disk.write_atomic(&path, sealed(&node)?).await.map_err(|e| e.to_string())?;
    Ok(NodeId::new(id, 0))
}

/// What the formation had durable; nothing if there is no file.
///
/// # Errors
/// What the disk said, or that the file is damaged: a promise that cannot be read may not be broken.
pub async fn formation(disk: &Disk, dir: &Path) -> Result<Saved, String> {
    let path = dir.join(FORMATION);
    match read::<Formed>(disk, &path).await? {
        None => Ok(Saved::default()),
        Some(f) if f.format == FORMAT => Ok(f.saved),
        Some(_) => Err(format!("{} is of a newer version", path.display())),
    }
}

/// Makes it durable.
///
/// # Errors
/// What the disk said.
pub async fn save_formation(disk: &Disk, dir: &Path, saved: &Saved) -> Result<(), String> {
    let formed = Formed { format: FORMAT, saved: saved.clone() };
    disk.write_atomic(dir.join(FORMATION), sealed(&formed)?).await.map_err(|e| e.to_string())
}

/// The name that the meta group has since a rescue, if there was one.
///
/// # Errors
/// What the disk said, or that the file is damaged: by it those that were left behind are kept out.
pub async fn rescued(disk: &Disk, dir: &Path) -> Result<Option<u64>, String> {
    let path = dir.join(RESCUED);
    let Some(r) = read::<Rescued>(disk, &path).await? else { return Ok(None) };
    let genesis = u64::from_str_radix(&r.genesis, 16).ok().filter(|g| *g != 0 && r.format == FORMAT);
    genesis.map(Some).ok_or_else(|| format!("{} cannot be read", path.display()))
}

/// Makes it durable.
///
/// # Errors
/// What the disk said.
pub async fn save_rescued(disk: &Disk, dir: &Path, genesis: u64) -> Result<(), String> {
    let r = Rescued { format: FORMAT, genesis: format!("{genesis:016x}") };
    disk.write_atomic(dir.join(RESCUED), sealed(&r)?).await.map_err(|e| e.to_string())
}

/// Above which number replicas of this node are named, since what its journal knew of them was lost; 0 if that never happened.
///
/// # Errors
/// What the disk said, or that the file is damaged: a number that was given must not be given again.
pub async fn lives(disk: &Disk, dir: &Path) -> Result<u32, String> {
    let path = dir.join(LIVES);
    let Some(l) = read::<Lives>(disk, &path).await? else { return Ok(0) };
    (l.format == FORMAT).then_some(l.floor).ok_or_else(|| format!("{} is of a newer version", path.display()))
}

/// Makes it durable.
///
/// # Errors
/// What the disk said.
pub async fn save_lives(disk: &Disk, dir: &Path, floor: u32) -> Result<(), String> {
    let l = Lives { format: FORMAT, floor };
    disk.write_atomic(dir.join(LIVES), sealed(&l)?).await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_seen() {
        let whole = sealed(&Node { format: 1, id: "00000000000000ff".into(), name: "a\nb".into() })
            .expect("it is JSON");
        assert_eq!(opened::<Node>(&whole).map(|n| n.name).as_deref(), Some("a\nb"));
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(opened::<Node>(&changed).is_none(), "byte {at}");
            assert!(opened::<Node>(&whole[..at]).is_none(), "cut at {at}");
        }
    }
}
