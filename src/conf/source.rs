//! Where the text of files and the values of variables come from.

use std::collections::BTreeMap;

/// Brings files and environment variables to the parser, which has no access to either.
pub trait Source {
    /// The bytes of a file. The error's text is shown after the file's name, so it reads like
    /// `open nope.conf: no such file or directory`.
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;

    /// The value of an environment variable, if it is set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// A source that holds everything in memory: for tests, simulations and configurations that were fetched before.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Text by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
}

impl Memory {
    /// A source with one file.
    pub fn file(path: &str, text: impl Into<Vec<u8>>) -> Memory {
        Memory::default().with_file(path, text)
    }

    /// The same with a further file.
    pub fn with_file(mut self, path: &str, text: impl Into<Vec<u8>>) -> Memory {
        self.files.insert(path.to_string(), text.into());
        self
    }

    /// The same with a further environment variable.
    pub fn with_variable(mut self, name: &str, value: &str) -> Memory {
        self.variables.insert(name.to_string(), value.to_string());
        self
    }
}

impl Source for Memory {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.files.get(path).cloned().ok_or_else(|| format!("open {path}: no such file or directory"))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}
