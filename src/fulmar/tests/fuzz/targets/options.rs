//! A configuration's meaning: every text gives options or lines that say what is wrong, the same each time, and what is
//! wrong has a place inside of the text.

use conf::{Memory, Source};
use server::options::{Flags, load_text};

use crate::engine::{about, seen};

/// Runs one input.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let source: &dyn Source = &Memory::default();
    let loaded = load_text("f.conf", &text, &Flags::default(), source);
    assert_eq!(loaded, load_text("f.conf", &text, &Flags::default(), source), "twice the same");
    match loaded {
        Ok(loaded) => {
            seen("options", about(loaded.warnings.len()));
            seen("accounts", about(loaded.options.accounts.len()));
            assert!(loaded.options.config_digest.is_some_and(|d| d.starts_with("sha256:")));
        }
        Err(lines) => {
            assert!(!lines.is_empty(), "refused without a word");
            for line in &lines {
                assert!(!line.is_empty());
                if let Some(place) = line.strip_prefix("f.conf:") {
                    let at: Option<usize> = place.split(':').next().and_then(|n| n.parse().ok());
                    let num_lines = text.split('\n').count();
                    assert!(at.is_none_or(|n| (1..=num_lines).contains(&n)), "{line} in {num_lines} lines");
                }
                let plain = |w: &&str| w.len() > 1 && w.bytes().all(|b| b.is_ascii_lowercase());
                let words = line.split(' ').filter(plain).take(6);
                seen("refused", words.flat_map(str::bytes).fold(7, |h, b| (h * 31 + u64::from(b)) % 1009));
            }
            seen("complaints", about(lines.len()));
        }
    }
}
