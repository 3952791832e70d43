//! Files that the configuration names, brought to parsers that touch none, and the small files that a server leaves for
//! others: its process id and its ports.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use conf::Source;
use env::disk::Disk;

/// What was read so far, and what was asked for and is not there yet.
#[derive(Default)]
struct Cache {
    files: BTreeMap<String, Result<Vec<u8>, String>>,
    wanted: RefCell<Vec<String>>,
}

impl Source for Cache {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        match self.files.get(path) {
            Some(f) => f.clone(),
            None => {
                self.wanted.borrow_mut().push(path.to_string());
                Err(format!("open {path}: not read yet"))
            }
        }
    }
    fn variable(&self, name: &str) -> Option<String> {
        env::process::var(name)
    }
}

/// Runs `f` over the disk's files: again and again, until it asks for no file that was not read before.
pub async fn with_files<T>(f: impl Fn(&dyn Source) -> T) -> T {
    let mut cache = Cache::default();
    loop {
        let out = f(&cache);
        let wanted = cache.wanted.take();
        if wanted.is_empty() {
            return out;
        }
        for path in wanted {
            let text = Disk::os().read(&path).await.map_err(|e| format!("open {path}: {}", plain(&e)));
            cache.files.insert(path, text);
        }
    }
}

/// An error in the words that nats-server would use: those of the operating system, beginning small.
pub fn plain(e: &std::io::Error) -> String {
    let Some(code) = env::disk::raw_os_error(e) else { return e.to_string() };
    let text = std::io::Error::from_raw_os_error(code).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// Writes the process id, digits only.
pub async fn write_pid(path: &str) -> std::io::Result<()> {
    write(Path::new(path), env::process::id().to_string().into_bytes()).await
}

/// Writes the ports file `<dir>/<executable>_<pid>.ports` and returns its path.
pub async fn write_ports(dir: &str, ports: &Ports) -> std::io::Result<String> {
    let name = format!("{}_{}.ports", env::process::exe_name(), env::process::id());
    let path = Path::new(dir).join(name);
    let json = serde_json::to_vec(ports).expect("lists of strings are JSON");
    write(&path, json).await?;
    Ok(path.to_string_lossy().into_owned())
}

async fn write(path: &Path, bytes: Vec<u8>) -> std::io::Result<()> {
    Disk::os().write_atomic(path, bytes).await
}

/// Removes a file; it need not be there.
pub async fn remove(path: &str) {
    Disk::os().remove_file(path).await.ok();
}

/// URLs by listener.
#[derive(Clone, Default, Debug, serde::Serialize)]
pub struct Ports {
    /// Client port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nats: Vec<String>,
    /// Monitoring.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitoring: Vec<String>,
    /// Routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<String>,
    /// WebSocket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub websocket: Vec<String>,
}
