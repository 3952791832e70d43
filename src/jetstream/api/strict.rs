//! Reads request bodies as nats-server does, down to the texts of its complaints.
//!
//! Owns the JSON scanner, the check of a value against a [`Struct`] of [`super::schema`], and the texts, which clients see in error 10025.
//! What comes out is a plain JSON object in which every field is known, has its own spelling, and is of the type that serde will
//! want: names match in any case, `null` leaves a field as it was, the last of several equal names wins, invalid UTF-8 is replaced,
//! and a body may hold several objects, which are laid over each other. In strict mode unknown fields are errors; in lenient mode
//! they are dropped, but then nothing may follow the first object.

use std::{borrow::Cow, fmt::Write as _};

use serde_json::{Map, Value};

use super::schema::{Kind, Struct};
use super::time;

/// Objects and arrays inside each other, at most.
const DEPTH_MAX: usize = 10_000;

/// Reads a body that may be empty: then all fields have their defaults.
///
/// # Errors
/// The text that stands after `invalid JSON: `.
pub fn read(body: &[u8], of: &'static Struct, strict: bool) -> Result<Map<String, Value>, String> {
    let mut into = Map::new();
    match all(body, of, &mut into) {
        Ok(()) => Ok(into),
        Err(text) if strict => Err(text),
        Err(_) => one(body, of, &mut into).map(|()| into),
    }
}

/// Reads a body that has to be one object, in which unknown fields do not matter.
///
/// # Errors
/// The text that stands after `invalid JSON: `.
pub fn read_lenient(body: &[u8], of: &'static Struct) -> Result<Map<String, Value>, String> {
    let mut into = Map::new();
    one(body, of, &mut into).map(|()| into)
}

/// Whether a body is empty or an object without fields.
pub fn is_empty(body: &[u8]) -> bool {
    if body.is_empty() || body == b"{}" {
        return true;
    }
    let mut scan = Scan { body, at: 0 };
    scan.blanks();
    let from = scan.at;
    if body.get(from) != Some(&b'{') || scan.value().is_err() {
        return false;
    }
    let object = &body[from + 1..scan.at - 1];
    scan.blanks();
    scan.at == body.len() && object.iter().all(|c| is_blank(*c))
}

/// Whether a body is meant to be JSON: requests with optional bodies ignore all others.
pub fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.iter().find(|c| !is_blank(**c)), Some(b'{' | b'['))
}

fn all(body: &[u8], of: &'static Struct, into: &mut Map<String, Value>) -> Result<(), String> {
    let mut scan = Scan { body, at: 0 };
    loop {
        scan.blanks();
        if scan.at == body.len() {
            return Ok(());
        }
        let from = scan.at;
        scan.value().map_err(|bad| match bad {
            Bad::End => "unexpected EOF".to_owned(),
            Bad::Text(text, offset) => format!("{text} at offset {offset}"),
        })?;
        check(&body[from..scan.at], of, true, into)?;
    }
}

fn one(body: &[u8], of: &'static Struct, into: &mut Map<String, Value>) -> Result<(), String> {
    let mut scan = Scan { body, at: 0 };
    scan.blanks();
    let from = scan.at;
    scan.value().map_err(|bad| match bad {
        Bad::End => "unexpected end of JSON input".to_owned(),
        Bad::Text(text, _) => text,
    })?;
    let to = scan.at;
    scan.blanks();
    if scan.at < body.len() {
        return Err(format!("invalid character {} after top-level value", quoted_char(&body[scan.at..]).0));
    }
    check(&body[from..to], of, false, into)
}

fn is_blank(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | b'\r')
}

/// Why a body is no JSON.
enum Bad {
    /// It ends too early.
    End,
    /// The text and the count of bytes up to and with the culprit.
    Text(String, usize),
}

/// Finds where values end, and whether they are JSON at all.
struct Scan<'a> {
    body: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn blanks(&mut self) {
        while self.body.get(self.at).is_some_and(|c| is_blank(*c)) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, Bad> {
        self.body.get(self.at).copied().ok_or(Bad::End)
    }

    /// The complaint about the character that comes next.
    fn unexpected(&self, place: &str) -> Bad {
        let (text, len) = quoted_char(&self.body[self.at..]);
        Bad::Text(format!("invalid character {text} {place}"), self.at + len)
    }

    /// Passes over one value. What is open is on a list and not on the stack, which hostile bodies could exhaust.
    fn value(&mut self) -> Result<(), Bad> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek()? {
                opening @ (b'{' | b'[') => {
                    if open.len() >= DEPTH_MAX {
                        return Err(Bad::Text("exceeded max depth".to_owned(), self.at + 1));
                    }
                    let closing = if opening == b'{' { b'}' } else { b']' };
                    self.at += 1;
                    self.blanks();
                    open.push(closing);
                    if self.peek()? != closing {
                        if closing == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => return Err(self.unexpected("looking for beginning of value")),
            }
            // Behind a value: what it stands in goes on or closes.
            loop {
                let Some(closing) = open.last().copied() else { return Ok(()) };
                self.blanks();
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.blanks();
                        if closing == b'}' {
                            self.key()?;
                        }
                        break;
                    }
                    c if c == closing => {
                        self.at += 1;
                        open.pop();
                    }
                    _ if closing == b'}' => return Err(self.unexpected("after object key:value pair")),
                    _ => return Err(self.unexpected("after array element")),
                }
            }
        }
    }

    /// Passes over a key, its colon and the blanks around that.
    fn key(&mut self) -> Result<(), Bad> {
        if self.peek()? != b'"' {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        self.string()?;
        self.blanks();
        if self.peek()? != b':' {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), Bad> {
        for expected in word.bytes() {
            if self.peek()? != expected {
                let place = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(self.unexpected(&place));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Bad> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unexpected("in numeric literal"));
        }
        while self.body.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Bad> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.body.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.body.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Bad> {
        self.at += 1;
        loop {
            let left = &self.body[self.at..];
            self.at += left.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(left.len());
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return Err(self.unexpected("in string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Bad> {
        let len = match self.body.get(self.at + 1).ok_or(Bad::End)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => {
                let digits = self.body.get(self.at + 2..self.at + 6).ok_or(Bad::End)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.bad_escape(6));
                }
                6
            }
            _ => return Err(self.bad_escape(2)),
        };
        self.at += len;
        Ok(())
    }

    fn bad_escape(&self, len: usize) -> Bad {
        let text = String::from_utf8_lossy(&self.body[self.at..self.at + len]);
        Bad::Text(format!("invalid escape sequence `{text}` in string"), self.at + len)
    }
}

/// The character that bytes begin with, in quotes and escaped, and how many bytes it has.
fn quoted_char(bytes: &[u8]) -> (String, usize) {
    let Some(chunk) = bytes.utf8_chunks().next() else { return ("''".to_owned(), 0) };
    let Some(c) = chunk.valid().chars().next() else {
        return (format!("'\\x{:02x}'", bytes[0]), 1);
    };
    let mut text = String::from("'");
    match c {
        '\'' => text.push_str("\\'"),
        '"' => text.push('"'),
        c => push_escaped(&mut text, c),
    }
    text.push('\'');
    (text, c.len_utf8())
}

/// A text in double quotes with everything escaped that cannot be seen.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        '\0'..='\u{1f}' | '\u{7f}' => write!(out, "\\x{:02x}", u32::from(c)).expect("a String takes all"),
        ' '..='~' => out.push(c),
        c if is_visible(c) => out.push(c),
        c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes all"),
        c => write!(out, "\\U{:08x}", u32::from(c)).expect("a String takes all"),
    }
}

/// Whether a character beyond ASCII leaves a mark: no control, blank, format or private one.
fn is_visible(c: char) -> bool {
    let hidden = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..
    );
    !(hidden || c.is_control() || c.is_whitespace())
}

/// One step on the way to a value.
enum Step<'a> {
    /// A field, as the body spells it.
    Name(&'a str),
    /// An element of an array.
    Index(usize),
}

/// The way to a value, as a list that hangs on the stack.
struct Way<'a> {
    up: Option<&'a Way<'a>>,
    step: Step<'a>,
}

/// What all values of a body share.
struct Context {
    root: &'static Struct,
    strict: bool,
}

/// Checks one value, known to be JSON, and lays it over `into`.
fn check(
    json: &[u8],
    of: &'static Struct,
    strict: bool,
    into: &mut Map<String, Value>,
) -> Result<(), String> {
    let context = Context { root: of, strict };
    if json == b"null" {
        return Ok(());
    }
    if json[0] != b'{' {
        return Err(context.mismatch(json, None, of.go));
    }
    context.object(json, of, None, into)
}

/// The parts of an object or array that is known to be JSON.
struct Parts<'a> {
    scan: Scan<'a>,
}

impl<'a> Parts<'a> {
    fn new(json: &'a [u8]) -> Parts<'a> {
        Parts { scan: Scan { body: json, at: 1 } }
    }

    fn skip(&mut self) {
        while self.scan.body.get(self.scan.at).is_some_and(|c| is_blank(*c) || matches!(c, b',' | b':')) {
            self.scan.at += 1;
        }
    }

    /// The next key or value; none at the end.
    fn next(&mut self) -> Option<&'a [u8]> {
        self.skip();
        let from = self.scan.at;
        if matches!(self.scan.body.get(from), Some(b'}' | b']') | None) {
            return None;
        }
        self.scan.value().ok()?;
        Some(&self.scan.body[from..self.scan.at])
    }
}

impl Context {
    /// `json: cannot unmarshal <what> into <where> of type <type>`.
    fn mismatch(&self, json: &[u8], way: Option<&Way<'_>>, of: &str) -> String {
        let what = match json[0] {
            b'{' => "object".to_owned(),
            b'[' => "array".to_owned(),
            b'"' => "string".to_owned(),
            b't' | b'f' => "bool".to_owned(),
            // Only where a number was wanted and this one does not do is it named.
            _ if is_number_type(of) => format!("number {}", String::from_utf8_lossy(json)),
            _ => "number".to_owned(),
        };
        let place = match way {
            None => "Go value".to_owned(),
            Some(way) => {
                let path = self.path(way);
                if matches!(way.step, Step::Index(_)) { path } else { format!("Go struct field {path}") }
            }
        };
        format!("json: cannot unmarshal {what} into {place} of type {of}")
    }

    fn path(&self, way: &Way<'_>) -> String {
        let mut steps = Vec::new();
        let mut next = Some(way);
        while let Some(way) = next {
            steps.push(match way.step {
                Step::Name(name) => name.to_owned(),
                Step::Index(i) => i.to_string(),
            });
            next = way.up;
        }
        steps.push(self.root.name.to_owned());
        steps.reverse();
        steps.join(".")
    }

    fn object(
        &self,
        json: &[u8],
        of: &'static Struct,
        up: Option<&Way<'_>>,
        into: &mut Map<String, Value>,
    ) -> Result<(), String> {
        let mut parts = Parts::new(json);
        while let Some(key) = parts.next() {
            let name = text_of(key);
            let value = parts.next().expect("a key is followed by its value in what is known to be JSON");
            let exact = of.fields.iter().find(|(n, _)| *n == name);
            let field = exact.or_else(|| of.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name)));
            match field {
                Some((known, kind)) => {
                    self.field(value, kind, &Way { up, step: Step::Name(&name) }, known, into)?;
                }
                None if self.strict => return Err(format!("json: unknown field {}", quoted(&name))),
                None => {}
            }
        }
        Ok(())
    }

    fn field(
        &self,
        json: &[u8],
        kind: &'static Kind,
        way: &Way<'_>,
        known: &str,
        into: &mut Map<String, Value>,
    ) -> Result<(), String> {
        // Words are read by code of their own in nats-server, which takes no `null`.
        if json == b"null" && !matches!(kind, Kind::Word(..)) {
            if kind.is_nullable() {
                into.remove(known);
            }
            return Ok(());
        }
        if let (Kind::Object(of), b'{') = (kind, json[0]) {
            let slot = into.entry(known).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = slot else {
                unreachable!("an object's field only ever holds an object")
            };
            return self.object(json, of, Some(way), inner);
        }
        if let (Kind::Map(of), b'{') = (kind, json[0]) {
            let slot = into.entry(known).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = slot else { unreachable!("a map's field only ever holds an object") };
            let mut parts = Parts::new(json);
            while let Some(key) = parts.next() {
                let name = text_of(key);
                let value = parts.next().expect("a key is followed by its value in what is known to be JSON");
                let way = Way { up: Some(way), step: Step::Name(&name) };
                let value = if value == b"null" { of.zero() } else { self.value(value, of, &way)? };
                inner.insert(name.to_string(), value);
            }
            return Ok(());
        }
        let value = self.value(json, kind, way)?;
        into.insert(known.to_owned(), value);
        Ok(())
    }

    fn value(&self, json: &[u8], kind: &'static Kind, way: &Way<'_>) -> Result<Value, String> {
        let mismatch = || self.mismatch(json, Some(way), &kind.go_name());
        match (kind, json[0]) {
            (Kind::Text, b'"') => Ok(Value::String(text_of(json).into_owned())),
            (Kind::Bool, b't') => Ok(Value::Bool(true)),
            (Kind::Bool, b'f') => Ok(Value::Bool(false)),
            (Kind::Int(_, least, most), b'-' | b'0'..=b'9') => {
                let n = std::str::from_utf8(json).ok().and_then(|n| n.parse::<i64>().ok());
                let n = n.filter(|n| (*least..=*most).contains(n)).ok_or_else(mismatch)?;
                Ok(Value::from(n))
            }
            (Kind::Uint, b'0'..=b'9') => {
                let n = std::str::from_utf8(json).ok().and_then(|n| n.parse::<u64>().ok());
                Ok(Value::from(n.ok_or_else(mismatch)?))
            }
            (Kind::Time | Kind::TimePointer, b'"') => {
                let text = text_of(json);
                time::explain(&text).map(|()| Value::String(text.into_owned()))
            }
            (Kind::Word(style, words), _) => style.read(json, words, || self.mismatch(json, None, "string")),
            (Kind::List(of), b'[') => {
                let mut list = Vec::new();
                let mut parts = Parts::new(json);
                while let Some(json) = parts.next() {
                    let way = Way { up: Some(way), step: Step::Index(list.len()) };
                    list.push(if json == b"null" { of.zero() } else { self.value(json, of, &way)? });
                }
                Ok(Value::Array(list))
            }
            (Kind::Object(of), b'{') => {
                let mut inner = Map::new();
                self.object(json, of, Some(way), &mut inner)?;
                Ok(Value::Object(inner))
            }
            _ => Err(mismatch()),
        }
    }
}

fn is_number_type(name: &str) -> bool {
    matches!(name, "int" | "int32" | "int64" | "uint64" | "time.Duration")
}

/// The text of a JSON string, with U+FFFD in place of what is no text.
pub(super) fn text_of(json: &[u8]) -> Cow<'_, str> {
    let inner = &json[1..json.len() - 1];
    if memchr::memchr(b'\\', inner).is_none() {
        return String::from_utf8_lossy(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut at = 0;
    let unit = |at: usize| -> Option<u32> {
        if inner.get(at..at + 2) != Some(b"\\u") {
            return None;
        }
        let digits = std::str::from_utf8(inner.get(at + 2..at + 6)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    while let Some(&c) = inner.get(at) {
        if c != b'\\' {
            out.push(c);
            at += 1;
            continue;
        }
        let mut push = |c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        match (inner.get(at + 1), unit(at)) {
            (_, Some(high)) => {
                at += 6;
                match (char::from_u32(high), unit(at)) {
                    (Some(c), _) => push(c),
                    (None, Some(low)) if high < 0xdc00 && (0xdc00..0xe000).contains(&low) => {
                        at += 6;
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    _ => push(char::REPLACEMENT_CHARACTER),
                }
                continue;
            }
            (Some(b'b'), _) => push('\u{8}'),
            (Some(b'f'), _) => push('\u{c}'),
            (Some(b'n'), _) => push('\n'),
            (Some(b'r'), _) => push('\r'),
            (Some(b't'), _) => push('\t'),
            (Some(other), _) => out.push(*other),
            (None, _) => {}
        }
        at += 2;
    }
    match String::from_utf8(out) {
        Ok(text) => text.into(),
        Err(bad) => String::from_utf8_lossy(bad.as_bytes()).into_owned().into(),
    }
}
