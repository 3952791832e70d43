//! The parser: one pass over the text, building maps as it goes, since a variable may refer to any key that an
//! enclosing map has defined so far.

use crate::error::Error;
use crate::number::{self, BadNumber};
use crate::source::Source;
use crate::value::{Entry, Map, Node, Pos, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Maps and arrays within each other. The parser recurses, so this guards the stack.
const DEPTH_MAX: usize = 128;
/// Files within each other.
const INCLUDE_DEPTH_MAX: usize = 32;
/// Weight of the whole expanded tree: bytes of text, and [`NODE_WEIGHT`] a node. Variables copy what they refer to, so
/// without a limit a kilobyte of text could become gigabytes.
const WEIGHT_MAX: usize = 128 << 20;
const NODE_WEIGHT: usize = 64;

/// A parsed configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The outermost keys.
    pub root: Map,
    /// `sha256:…` over the values, see [`crate::digest`].
    pub digest: String,
    /// Every file that was read, the outermost first.
    pub files: Vec<String>,
}

/// Parses a file and all that it includes.
///
/// # Errors
/// The first mistake, with its position. A file that cannot be read is reported as the source words it.
pub fn parse_file(path: &str, source: &dyn Source) -> Result<Document, Error> {
    let text = source.read(path).map_err(|e| Error::new(&Pos::start(path), e))?;
    parse_bytes(path, &text, source)
}

/// Parses text that is called `path` in errors; includes are relative to that path.
///
/// # Errors
/// The first mistake, with its position.
pub fn parse_text(path: &str, text: &str, source: &dyn Source) -> Result<Document, Error> {
    parse_bytes(path, text.as_bytes(), source)
}

fn parse_bytes(path: &str, bytes: &[u8], source: &dyn Source) -> Result<Document, Error> {
    let mut parser = Parser {
        source,
        scopes: vec![Scope::default()],
        bases: vec![0],
        including: vec![path.to_string()],
        files: vec![path.to_string()],
        expanding: Vec::new(),
        depth: 0,
        weight: 0,
    };
    parser.file(path, bytes)?;
    let root = parser.scopes.pop().expect("the outermost scope is popped only here").finish();
    Ok(Document { digest: crate::digest(&root), root, files: parser.files })
}

/// A map under construction.
#[derive(Default)]
struct Scope {
    entries: Vec<Option<Entry>>,
    index: BTreeMap<String, usize>,
}

impl Scope {
    fn insert(&mut self, entry: Entry) {
        if let Some(old) = self.index.insert(entry.key.clone(), self.entries.len()) {
            self.entries[old] = None;
        }
        self.entries.push(Some(entry));
    }

    fn finish(self) -> Map {
        Map::from_distinct(self.entries.into_iter().flatten().collect())
    }
}

struct Parser<'a> {
    source: &'a dyn Source,
    /// The maps that are open, the outermost first, across files.
    scopes: Vec<Scope>,
    /// For each open file the index of the scope that it fills.
    bases: Vec<usize>,
    /// The open files' paths.
    including: Vec<String>,
    files: Vec<String>,
    /// The environment variables that are being expanded.
    expanding: Vec<String>,
    depth: usize,
    weight: usize,
}

/// A reading position in one text. `at` always stands on a character boundary.
struct Cursor<'t> {
    text: &'t str,
    file: Arc<str>,
    at: usize,
    line: u32,
    newline_at: usize,
}

fn ends_word(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | b',' | b';' | b']' | b'}')
}

impl<'t> Cursor<'t> {
    fn new(file: &str, text: &'t str) -> Cursor<'t> {
        // Some editors leave a byte order mark; it means nothing.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Cursor { text, file: file.into(), at: 0, line: 1, newline_at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// The next character for an error text.
    fn shown(&self) -> String {
        match self.text[self.at..].chars().next() {
            None => "end of file".to_string(),
            Some('\n') => "'\\n'".to_string(),
            Some(c) => format!("'{c}'"),
        }
    }

    fn pos(&self) -> Pos {
        let column = u32::try_from(self.at - self.newline_at).unwrap_or(u32::MAX);
        Pos { file: self.file.clone(), line: self.line, column }
    }

    /// Moves to `at`, counting the lines on the way.
    fn advance_to(&mut self, at: usize) {
        for (i, b) in self.text.as_bytes()[self.at..at].iter().enumerate() {
            if *b == b'\n' {
                self.line = self.line.saturating_add(1);
                self.newline_at = self.at + i;
            }
        }
        self.at = at;
    }

    fn advance(&mut self, bytes: usize) {
        self.advance_to(self.at + bytes);
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        let rest = &self.text.as_bytes()[self.at..];
        let n = rest.iter().position(|b| !keep(*b)).unwrap_or(rest.len());
        self.advance(n);
    }

    fn skip_spaces(&mut self) {
        self.skip_while(|b| matches!(b, b' ' | b'\t'));
    }

    fn at_comment(&self) -> bool {
        self.peek() == Some(b'#') || (self.peek() == Some(b'/') && self.peek_at(1) == Some(b'/'))
    }

    /// Skips whitespace, newlines and comments; says whether a newline or a comment was among them.
    fn skip_blank(&mut self) -> bool {
        let line = self.line;
        let mut parted = false;
        loop {
            let from = self.at;
            self.skip_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
            parted |= self.text.as_bytes()[from..self.at].contains(&b'\r');
            if !self.at_comment() {
                return parted || self.line != line;
            }
            self.skip_while(|b| b != b'\n');
            parted = true;
        }
    }

    fn error(&self, reason: impl AsRef<str>) -> Error {
        let pos = self.pos();
        let reason = format!("Parse error on line {}: '{}'", pos.line, reason.as_ref());
        Error::new(&pos, reason)
    }

    /// The text up to where a bare word ends; the cursor moves behind it.
    fn word(&mut self) -> &'t str {
        let from = self.at;
        self.skip_while(|b| !ends_word(b));
        &self.text[from..self.at]
    }
}

/// What encloses a value, which decides how it may end.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    File,
    Braces,
}

impl Parser<'_> {
    fn weigh(&mut self, cursor: &Cursor<'_>, weight: usize) -> Result<(), Error> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > WEIGHT_MAX {
            return Err(cursor.error("The configuration expands to more than fits"));
        }
        Ok(())
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let text = String::from_utf8_lossy(bytes);
        let mut cursor = Cursor::new(path, &text);
        self.weigh(&cursor, text.len() + NODE_WEIGHT)?;
        cursor.skip_blank();
        if cursor.peek() != Some(b'{') {
            return self.map_body(&mut cursor, Within::File);
        }
        cursor.advance(1);
        self.map_body(&mut cursor, Within::Braces)?;
        // Stray closing braces at the end are overlooked, as nats-server overlooks them.
        loop {
            cursor.skip_blank();
            match cursor.peek() {
                None => return Ok(()),
                Some(b'}') => cursor.advance(1),
                Some(_) => {
                    let pos = cursor.pos();
                    return Err(Error::new(&pos, format!("config is invalid ({pos})")));
                }
            }
        }
    }

    /// The entries of a map, up to its closing brace or the end of the file, into the innermost scope.
    fn map_body(&mut self, cursor: &mut Cursor<'_>, within: Within) -> Result<(), Error> {
        loop {
            cursor.skip_blank();
            match cursor.peek() {
                None if within == Within::File => return Ok(()),
                None => return Err(cursor.error("Unexpected EOF processing map.")),
                Some(b',' | b';') => cursor.advance(1),
                Some(b'}') => {
                    cursor.advance(1);
                    if within == Within::Braces {
                        return Ok(());
                    }
                }
                Some(_) => {
                    self.entry(cursor)?;
                    self.end_of_value(cursor, within)?;
                }
            }
        }
    }

    /// What may follow a value inside a map or a file.
    fn end_of_value(&mut self, cursor: &mut Cursor<'_>, within: Within) -> Result<(), Error> {
        cursor.skip_spaces();
        match cursor.peek() {
            None | Some(b'\n' | b'\r' | b',' | b';' | b'}') => Ok(()),
            Some(_) if cursor.at_comment() => Ok(()),
            Some(_) => Err(cursor.error(match within {
                Within::File => format!(
                    "Expected a top-level value to end with a new line, comment or EOF, but got {} instead.",
                    cursor.shown()
                ),
                Within::Braces => format!(
                    "Expected a map value terminator \",\" or a map terminator \"}}\", but got {} instead.",
                    cursor.shown()
                ),
            })),
        }
    }

    fn entry(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        let (key, pos, quoted) = self.key(cursor)?;
        if !quoted && key.eq_ignore_ascii_case("include") && matches!(cursor.peek(), Some(b' ' | b'\t')) {
            return self.include(cursor);
        }
        // Without a separator the value may stand on a later line; after one it may not.
        cursor.skip_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
        if matches!(cursor.peek(), Some(b':' | b'=')) {
            cursor.advance(1);
            cursor.skip_spaces();
            if matches!(cursor.peek(), Some(b'\n' | b'\r')) {
                cursor.skip_while(|b| b == b'\r');
                cursor.skip_while(|b| b == b'\n');
                return Err(cursor.error("Expected value but found new line"));
            }
        }
        if cursor.peek().is_none() {
            return Err(Error::new(&pos, format!("config is invalid ({pos}): the key {key:?} has no value")));
        }
        let node = self.value(cursor)?;
        self.weigh(cursor, key.len())?;
        self.scope().insert(Entry { key, pos, node, used_as_variable: false });
        Ok(())
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("a scope is open while a map is read")
    }

    fn key(&mut self, cursor: &mut Cursor<'_>) -> Result<(String, Pos, bool), Error> {
        match cursor.peek() {
            Some(q @ (b'"' | b'\'')) => {
                cursor.advance(1);
                let pos = cursor.pos();
                let from = cursor.at;
                cursor.skip_while(|b| b != q);
                if cursor.peek().is_none() {
                    return Err(cursor.error("Unexpected EOF processing map key."));
                }
                let key = cursor.text[from..cursor.at].to_string();
                cursor.advance(1);
                Ok((key, pos, true))
            }
            Some(b @ (b':' | b'=')) => {
                Err(cursor.error(format!("Unexpected key separator '{}'", char::from(b))))
            }
            _ => {
                let pos = cursor.pos();
                let from = cursor.at;
                cursor.skip_while(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r' | b':' | b'='));
                Ok((cursor.text[from..cursor.at].to_string(), pos, false))
            }
        }
    }

    /// `include path`: the file's keys join the map that stands here.
    fn include(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        cursor.skip_spaces();
        let pos = cursor.pos();
        let named = match cursor.peek() {
            Some(q @ (b'"' | b'\'')) => {
                cursor.advance(1);
                let from = cursor.at;
                cursor.skip_while(|b| b != q && b != b'\n');
                if cursor.peek() != Some(q) {
                    return Err(cursor.error("Expected a closing quote after the name of an include file"));
                }
                let named = &cursor.text[from..cursor.at];
                cursor.advance(1);
                named
            }
            _ => {
                let from = cursor.at;
                cursor.skip_while(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r' | b';' | b'}'));
                &cursor.text[from..cursor.at]
            }
        };
        let failed =
            |reason: &str| Error::new(&pos, format!("error parsing include file '{named}', {reason}"));
        if named.is_empty() {
            return Err(failed("the name is empty"));
        }
        let here = self.including.last().expect("a file is open while it is parsed");
        let path = beside(here, named);
        if self.including.contains(&path) {
            return Err(failed("it includes itself"));
        }
        if self.including.len() >= INCLUDE_DEPTH_MAX {
            return Err(failed("too many files include each other"));
        }
        let bytes = self.source.read(&path).map_err(|e| failed(&e))?;
        self.including.push(path.clone());
        if !self.files.contains(&path) {
            self.files.push(path.clone());
        }
        self.bases.push(self.scopes.len() - 1);
        // The included file counts its own depth: its braces close within it.
        let result = self.file(&path, &bytes);
        self.bases.pop();
        self.including.pop();
        result
    }

    fn deeper<T>(
        &mut self,
        cursor: &mut Cursor<'_>,
        parse: impl FnOnce(&mut Self, &mut Cursor<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth >= DEPTH_MAX {
            return Err(cursor.error("Maps and arrays are nested too deeply"));
        }
        self.depth += 1;
        let result = parse(self, cursor);
        self.depth -= 1;
        result
    }

    fn value(&mut self, cursor: &mut Cursor<'_>) -> Result<Node, Error> {
        self.weigh(cursor, NODE_WEIGHT)?;
        let mut pos = cursor.pos();
        let value = match cursor.peek() {
            None => return Err(cursor.error("Unexpected EOF.")),
            Some(b'{') => {
                cursor.advance(1);
                pos = cursor.pos();
                self.scopes.push(Scope::default());
                let read = self.deeper(cursor, |parser, cursor| parser.map_body(cursor, Within::Braces));
                let scope = self.scopes.pop().expect("pushed above");
                read?;
                Value::Map(scope.finish())
            }
            Some(b'[') => {
                cursor.advance(1);
                pos = cursor.pos();
                Value::Array(self.deeper(cursor, Parser::array)?)
            }
            Some(b'(') => {
                cursor.advance(1);
                pos = cursor.pos();
                Value::String(block(cursor)?)
            }
            Some(b'"') => {
                cursor.advance(1);
                pos = cursor.pos();
                Value::String(double_quoted(cursor)?)
            }
            Some(b'\'') => {
                cursor.advance(1);
                pos = cursor.pos();
                let from = cursor.at;
                cursor.skip_while(|b| b != b'\'');
                if cursor.peek().is_none() {
                    return Err(Error::new(
                        &pos,
                        format!("Parse error on line {}: 'Unexpected EOF.'", pos.line),
                    ));
                }
                let text = cursor.text[from..cursor.at].to_string();
                cursor.advance(1);
                Value::String(text)
            }
            Some(b'$') => return self.variable(cursor),
            Some(b'-' | b'.' | b'0'..=b'9') => {
                let word = cursor.word();
                number::classify(word).map_err(|BadNumber(reason)| {
                    Error::new(&pos, format!("Parse error on line {}: '{reason}'", pos.line))
                })?
            }
            Some(b',' | b';' | b']' | b'}') => {
                return Err(cursor.error(format!("Expected value but found {}", cursor.shown())));
            }
            // A `#` or `//` right where a value is due begins the value, not a comment: passwords may look so.
            Some(_) => bare(cursor)?,
        };
        Ok(Node { pos, value })
    }

    fn array(&mut self, cursor: &mut Cursor<'_>) -> Result<Vec<Node>, Error> {
        let mut items = Vec::new();
        loop {
            cursor.skip_blank();
            match cursor.peek() {
                Some(b']') => break,
                Some(b',') => return Err(cursor.error("Unexpected array value terminator ','.")),
                None => return Err(unclosed_array(cursor)),
                Some(_) => items.push(self.value(cursor)?),
            }
            let parted = cursor.skip_blank();
            match cursor.peek() {
                Some(b']') => break,
                Some(b',') => cursor.advance(1),
                Some(_) if parted => {}
                _ => return Err(unclosed_array(cursor)),
            }
        }
        cursor.advance(1);
        Ok(items)
    }

    /// `$name`: what an enclosing map has under that name, or else the environment.
    fn variable(&mut self, cursor: &mut Cursor<'_>) -> Result<Node, Error> {
        let pos = cursor.pos();
        cursor.advance(1);
        let name = cursor.word();
        if is_bcrypt(name) {
            return Ok(Node { pos, value: Value::String(format!("${name}")) });
        }
        let base = *self.bases.last().expect("a file is open while it is parsed");
        let (own, outer) = (base..self.scopes.len(), 0..base);
        // nats-server lets an included file see only its own keys and the environment; the including files' keys come
        // last, so that they give a meaning only to what would else be an error.
        if let Some(node) = self.defined(name, own) {
            return self.copied(cursor, node);
        }
        if let Some(text) = self.source.variable(name) {
            return self.expand(cursor, &pos, name, &text);
        }
        if let Some(node) = self.defined(name, outer) {
            return self.copied(cursor, node);
        }
        let reason = format!("variable reference for '{name}' on line {} can not be found", pos.line);
        Err(Error::new(&pos, reason))
    }

    fn copied(&mut self, cursor: &Cursor<'_>, node: Node) -> Result<Node, Error> {
        self.weigh(cursor, weight_of(&node))?;
        Ok(node)
    }

    fn defined(&mut self, name: &str, scopes: std::ops::Range<usize>) -> Option<Node> {
        // The text of an environment variable sees no keys: it is not part of any file.
        if !self.expanding.is_empty() {
            return None;
        }
        for scope in self.scopes[scopes].iter_mut().rev() {
            let entry = scope.index.get(name).and_then(|at| scope.entries[*at].as_mut());
            if let Some(entry) = entry {
                entry.used_as_variable = true;
                return Some(entry.node.clone());
            }
        }
        None
    }

    /// Reads an environment variable's text as a value.
    fn expand(&mut self, cursor: &Cursor<'_>, pos: &Pos, name: &str, text: &str) -> Result<Node, Error> {
        let failed = |reason: String| {
            let line = pos.line;
            Error::new(
                pos,
                format!("variable reference for '{name}' on line {line} could not be parsed: {reason}"),
            )
        };
        if self.expanding.iter().any(|open| open == name) {
            return Err(failed(format!("variable reference cycle for '{name}'")));
        }
        self.weigh(cursor, text.len() + NODE_WEIGHT)?;
        self.expanding.push(name.to_string());
        let read = self.deeper(&mut Cursor::new("", text), |parser, inner| {
            inner.skip_spaces();
            if inner.peek().is_none() {
                return Ok(Node { pos: inner.pos(), value: Value::String(String::new()) });
            }
            let node = parser.value(inner)?;
            inner.skip_blank();
            match inner.peek() {
                None => Ok(node),
                Some(_) => {
                    parser.end_of_value(inner, Within::File).and(Err(inner.error("More than one value")))
                }
            }
        });
        self.expanding.pop();
        // Errors about the value's meaning should lead to where it is used, so it takes the reference's position.
        read.map(|node| Node { pos: pos.clone(), value: node.value }).map_err(|e| failed(e.reason))
    }
}

fn unclosed_array(cursor: &Cursor<'_>) -> Error {
    cursor.error(format!(
        "Expected an array value terminator \",\" or an array terminator \"]\", but got {} instead.",
        cursor.shown()
    ))
}

/// A bcrypt hash stands bare in configurations although it begins like a variable: `$2a$11$…`.
fn is_bcrypt(name: &str) -> bool {
    let b = name.as_bytes();
    b.len() > 3 && b[0] == b'2' && matches!(b[1], b'a' | b'b' | b'x' | b'y') && b[2] == b'$'
}

fn weight_of(node: &Node) -> usize {
    NODE_WEIGHT
        + match &node.value {
            Value::String(s) => s.len(),
            Value::Array(items) => items.iter().map(weight_of).sum(),
            Value::Map(map) => map.into_iter().map(|e| e.key.len() + weight_of(&e.node)).sum(),
            _ => 0,
        }
}

/// The path of an include: absolute, or relative to the folder of the file that names it.
fn beside(including: &str, named: &str) -> String {
    if named.starts_with('/') {
        return named.to_string();
    }
    let named = named.strip_prefix("./").unwrap_or(named);
    match including.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{named}"),
        None => named.to_string(),
    }
}

/// `(` text `)`: everything up to a line that holds nothing but the closing parenthesis, newlines kept.
fn block(cursor: &mut Cursor<'_>) -> Result<String, Error> {
    let from = cursor.at;
    let bytes = cursor.text.as_bytes();
    let mut at = from;
    while let Some(newline) = bytes[at..].iter().position(|b| *b == b'\n') {
        at += newline + 1;
        if bytes.get(at) == Some(&b')') && matches!(bytes.get(at + 1), None | Some(b'\n' | b'\r')) {
            let text = cursor.text[from..at].to_string();
            cursor.advance_to(at + 1);
            return Ok(text);
        }
    }
    cursor.advance_to(bytes.len());
    Err(cursor.error("Unexpected EOF processing block."))
}

fn double_quoted(cursor: &mut Cursor<'_>) -> Result<String, Error> {
    let opened = cursor.pos();
    let mut out = String::new();
    loop {
        let from = cursor.at;
        cursor.skip_while(|b| b != b'"' && b != b'\\');
        out.push_str(&cursor.text[from..cursor.at]);
        match cursor.peek() {
            None => {
                return Err(Error::new(
                    &opened,
                    format!("Parse error on line {}: 'Unexpected EOF.'", opened.line),
                ));
            }
            Some(b'"') => {
                cursor.advance(1);
                return Ok(out);
            }
            Some(_) => out.push(escape(cursor)?),
        }
    }
}

/// A word without quotes: a boolean or text. Escapes count in it as in double quotes.
fn bare(cursor: &mut Cursor<'_>) -> Result<Value, Error> {
    let mut out = String::new();
    loop {
        let from = cursor.at;
        cursor.skip_while(|b| b != b'\\' && !ends_word(b));
        out.push_str(&cursor.text[from..cursor.at]);
        match cursor.peek() {
            Some(b'\\') => out.push(escape(cursor)?),
            _ => break,
        }
    }
    Ok(match out.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Value::Bool(true),
        "false" | "no" | "off" => Value::Bool(false),
        _ => Value::String(out),
    })
}

/// A backslash and what belongs to it. `\xHH` is one byte in nats-server and one character here, the same up to 7F.
fn escape(cursor: &mut Cursor<'_>) -> Result<char, Error> {
    let c = match cursor.peek_at(1) {
        Some(b't') => '\t',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'x') => {
            let digits = cursor.text.get(cursor.at + 2..cursor.at + 4).unwrap_or("");
            let byte = if digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                u8::from_str_radix(digits, 16).ok()
            } else {
                None
            };
            let Some(byte) = byte else {
                return Err(cursor.error(format!(
                    "Expected two hexadecimal digits after '\\x', but got '{}'",
                    cursor.text[cursor.at + 2..].chars().take(2).collect::<String>()
                )));
            };
            cursor.advance(4);
            return Ok(char::from(byte));
        }
        _ => {
            let got = cursor.text[cursor.at + 1..].chars().next().map_or_else(String::new, String::from);
            return Err(cursor.error(format!(
                "Invalid escape character '{got}'. Only the following escape characters are allowed: \
                 \\xXX, \\t, \\n, \\r, \\\", \\\\."
            )));
        }
    };
    cursor.advance(2);
    Ok(c)
}
