//! A string that is wiped when dropped and never printed.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A password or token. `Debug` shows `[REDACTED]`, equality takes constant time, and the bytes are wiped on drop.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. Named so that every place that looks inside can be found.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the secret is the empty string, which is what an absent password means.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares with `other` in a time that depends on neither the place of the first difference nor, beyond hashing,
    /// on the lengths: digests are compared, not the texts.
    pub fn matches(&self, other: &str) -> bool {
        let ours = Sha256::digest(self.0.as_bytes());
        let theirs = Sha256::digest(other.as_bytes());
        ours.as_slice().ct_eq(theirs.as_slice()).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_and_hides() {
        let s = Secret::new("hunter2");
        assert!(s.matches("hunter2"));
        for wrong in ["", "hunter", "hunter22", "Hunter2", "hunter3"] {
            assert!(!s.matches(wrong), "{wrong}");
        }
        assert_eq!(format!("{s:?}"), "[REDACTED]");
        assert!(Secret::default().is_empty() && Secret::default().matches(""));
        assert_eq!(s, Secret::from("hunter2".to_owned()));
        assert_ne!(s, Secret::from("x"));
    }
}
