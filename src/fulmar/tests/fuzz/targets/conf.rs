//! The configuration language: every text is parsed or refused, an error and every value stand at a place inside of their
//! text, and a document written in another form has the same digest.

use std::{cell::RefCell, collections::BTreeSet, fmt::Write};

use conf::{Document, Map, Memory, Node, Pos, Source, Value, canonical_json, parse_file, parse_text};

use crate::engine::{about, seen};

/// Longest document, as JSON, that is written and read again, in bytes.
const AGAIN_BYTES_MAX: usize = 32 << 10;

/// The environment.
const VARIABLES: [(&str, &str); 5] = [
    ("word", "fulmar"),
    ("list", "[1, $word, {a: $name}]"),
    ("name", "\"a name\""),
    ("loop", "[$loop]"),
    ("HOME", ""),
];

/// Files and variables, and which files were asked for.
struct Files {
    memory: Memory,
    read: RefCell<BTreeSet<String>>,
}

impl Source for Files {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.read.borrow_mut().insert(path.to_string());
        self.memory.read(path)
    }
    fn variable(&self, name: &str) -> Option<String> {
        self.memory.variable(name)
    }
}

/// Runs one input.
pub fn target(data: &[u8]) {
    let memory = Memory::file("f.conf", data)
        .with_file("keys.conf", "port: 4222\nlist: [1, 2]\n")
        .with_file("loop.conf", "include f.conf\n")
        .with_file("broken.conf", "a: 1\nb: [\n");
    let memory = VARIABLES.iter().fold(memory, |m, (name, value)| m.with_variable(name, value));
    let files = Files { memory, read: RefCell::default() };
    let parsed = parse_file("f.conf", &files);
    let again = parse_text("f.conf", &String::from_utf8_lossy(data), &files);
    assert_eq!(parsed, again, "the file and its text are the same");
    let document = match parsed {
        Err(e) => {
            assert!(!e.reason.is_empty() && !e.reason.contains('\0') || data.contains(&0));
            inside(&e.pos, &files);
            if &*e.pos.file != "f.conf" {
                seen("error in an include", 0);
            }
            // The kind of complaint, by the first words of its sentence. Few kinds, whatever it quotes.
            let sentence = e.reason.split_once(": '").map_or(&*e.reason, |(_, s)| s);
            let words = sentence.split(' ').take(3).flat_map(str::bytes).filter(u8::is_ascii_alphabetic);
            return seen("refused", words.fold(7, |h: u64, b| (h * 31 + u64::from(b)) % 1_000_003) % 64);
        }
        Ok(document) => document,
    };
    seen("accepted", about(document.root.len()));
    for file in &document.files {
        assert!(files.read.borrow().contains(file), "{file} was not read");
    }
    if document.files.len() > 1 {
        seen("included", document.files.len() as u64);
    }
    walk(&document.root, &files, 0);
    let json = canonical_json(&document.root);
    if json.len() <= AGAIN_BYTES_MAX {
        write_and_read(&document, &json);
    }
}

/// CONF-2: a place lies inside of the text that it names.
fn inside(pos: &Pos, files: &Files) {
    if pos.file.is_empty() {
        // What stands inside of a variable's value has its place in that value's text, which is one line.
        assert!(
            pos.line == 1
                && (pos.column as usize) <= VARIABLES.iter().map(|(_, v)| v.len()).max().unwrap_or(0)
        );
        return seen("inside a variable", 0);
    }
    let text =
        files.memory.read(&pos.file).unwrap_or_else(|_| panic!("{pos} is in a file that is not there"));
    let text = String::from_utf8_lossy(&text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let line = text
        .split('\n')
        .nth(pos.line as usize - 1)
        .unwrap_or_else(|| panic!("{pos} is behind the last line"));
    let last = line.len() + usize::from(pos.line > 1);
    assert!(pos.column as usize <= last, "{pos} is behind the end of its line");
    assert!(pos.line == 1 || pos.column >= 1);
}

fn walk(map: &Map, files: &Files, depth: u64) {
    for (i, e) in map.entries().iter().enumerate() {
        inside(&e.pos, files);
        assert!(map.entries()[..i].iter().all(|other| other.key != e.key), "a key stands once");
        node(&e.node, files, depth);
    }
}

fn node(node: &Node, files: &Files, depth: u64) {
    inside(&node.pos, files);
    let tag = match &node.value {
        Value::String(_) => "string",
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::Bool(_) => "bool",
        Value::DateTime(_) => "date",
        Value::Array(_) => "array",
        Value::Map(_) => "map",
    };
    seen(tag, depth.min(8));
    match &node.value {
        Value::Array(items) => items.iter().for_each(|n| self::node(n, files, depth + 1)),
        Value::Map(map) => walk(map, files, depth + 1),
        _ => {}
    }
}

/// CONF-3: the digest stays under every way of writing.
fn write_and_read(document: &Document, json: &str) {
    let nothing = Memory::default();
    let read = |text: &str| match parse_text("g.conf", text, &nothing) {
        Ok(again) => (canonical_json(&again.root), again.digest),
        Err(e) => panic!("{e} in what was written:\n{text}"),
    };
    for style in [
        Style { separator: " = ", end: "\n", line: "\n# more\n" },
        Style { separator: ":", end: ",", line: " " },
    ] {
        let mut text = String::new();
        style.map(&document.root, &mut text);
        assert_eq!(read(&text), (json.to_string(), document.digest.clone()), "written as\n{text}");
        seen("two spellings", about(text.len()));
    }
    // JSON is a document too, as long as it needs no escapes that only JSON has.
    if !json.contains('\\') && !exponents(&document.root) {
        assert_eq!(read(json), (json.to_string(), document.digest.clone()));
        seen("json again", about(json.len()));
    }
}

/// Whether JSON writes some number with an exponent, which the language does not read.
fn exponents(map: &Map) -> bool {
    fn value(v: &Value) -> bool {
        match v {
            // A float without a fraction is written as an integer, which may be too large to be one.
            Value::Float(x) => x.fract() == 0.0 || !(1e-6..1e15).contains(&x.abs()),
            Value::Array(items) => items.iter().any(|n| value(&n.value)),
            Value::Map(map) => exponents(map),
            _ => false,
        }
    }
    map.entries().iter().any(|e| value(&e.node.value))
}

/// A way of writing.
struct Style {
    separator: &'static str,
    end: &'static str,
    line: &'static str,
}

impl Style {
    fn map(&self, map: &Map, out: &mut String) {
        for e in map.entries() {
            // Keys know no escapes: one that holds both quotes was written without any.
            let quote = match (e.key.contains('"'), e.key.contains('\'')) {
                (false, _) => "\"",
                (true, false) => "'",
                (true, true) => "",
            };
            out.push_str(&[quote, &e.key, quote, self.separator].concat());
            self.value(&e.node.value, out);
            out.push_str(self.end);
        }
    }

    fn value(&self, value: &Value, out: &mut String) {
        let pushed = match value {
            Value::String(s) => {
                out.push('"');
                for c in s.chars() {
                    match c {
                        '"' | '\\' => out.extend(['\\', c]),
                        '\n' => out.push_str("\\n"),
                        '\0'..='\u{1f}' => {
                            write!(out, "\\x{:02X}", u32::from(c)).expect("a String takes all")
                        }
                        c => out.push(c),
                    }
                }
                out.push('"');
                Ok(())
            }
            Value::Int(n) => write!(out, "{n}"),
            Value::Float(x) => {
                let text = x.to_string();
                let point = if text.contains('.') { "" } else { ".0" };
                write!(out, "{text}{point}")
            }
            Value::Bool(b) => write!(out, "{b}"),
            Value::DateTime(d) => write!(out, "{d}"),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(self.line);
                    self.value(&item.value, out);
                }
                out.push(']');
                Ok(())
            }
            Value::Map(map) => {
                out.push('{');
                out.push_str(self.line);
                self.map(map, out);
                out.push('}');
                Ok(())
            }
        };
        pushed.expect("a String takes all");
    }
}
