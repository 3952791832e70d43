//! The digest of a configuration: the SHA-256 of its values as canonical JSON.
//!
//! Canonical means: keys sorted by their bytes, no blanks, numbers and escapes as Go's encoding/json writes them, and
//! one newline at the end. nats-server prints the same digest for the same configuration, so an operator can compare
//! the two servers' view of one file.

use crate::value::{Map, Node, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// `sha256:` and 64 hexadecimal digits.
pub fn digest(map: &Map) -> String {
    let mut text = canonical_json(map);
    text.push('\n');
    let mut out = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        push(&mut out, format_args!("{byte:02x}"));
    }
    out
}

/// The map as JSON with sorted keys and no blanks.
pub fn canonical_json(map: &Map) -> String {
    let mut out = String::new();
    write_map(&mut out, map);
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

fn write_map(out: &mut String, map: &Map) {
    let mut entries: Vec<_> = map.entries().iter().collect();
    entries.sort_by(|a, b| a.key.as_bytes().cmp(b.key.as_bytes()));
    out.push('{');
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(out, &entry.key);
        out.push(':');
        write_value(out, &entry.node);
    }
    out.push('}');
}

fn write_value(out: &mut String, node: &Node) {
    match &node.value {
        Value::String(s) => write_string(out, s),
        Value::Int(n) => push(out, format_args!("{n}")),
        Value::Float(x) => write_float(out, *x),
        Value::Bool(b) => push(out, format_args!("{b}")),
        Value::DateTime(d) => push(out, format_args!("\"{d}\"")),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Map(map) => write_map(out, map),
    }
}

/// JSON's escapes as Go chooses them: what HTML could misread is escaped too.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                push(out, format_args!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The shortest digits that read back to the same number; an exponent below 1e-6 and from 1e21 on.
fn write_float(out: &mut String, x: f64) {
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{x:e}");
        // Rust writes 1e24, Go 1e+24.
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                push(out, format_args!("{digits}e+{exponent}"))
            }
            _ => out.push_str(&text),
        }
    } else {
        push(out, format_args!("{x}"));
    }
}
