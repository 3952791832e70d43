//! Random texts: none may panic, and trees survive being written and read.

use crate::{DateTime, Memory, Node, Pos, Value, canonical_json, parse_text};
use proptest::prelude::*;

/// A value in a spelling chosen by `style`.
#[derive(Clone, Debug)]
enum Tree {
    Text(String),
    Int(i64),
    Bool(bool),
    Date(u16, u8),
    Array(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        "\\PC{0,12}".prop_map(Tree::Text),
        any::<i64>().prop_map(Tree::Int),
        any::<bool>().prop_map(Tree::Bool),
        (0u16..9999, 1u8..28).prop_map(|(y, d)| Tree::Date(y, d)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::Array),
            prop::collection::vec(("[a-z][a-zA-Z_]{0,8}", inner), 0..6).prop_map(|mut pairs| {
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs.dedup_by(|a, b| a.0 == b.0);
                pairs.retain(|(k, _)| !k.eq_ignore_ascii_case("include"));
                Tree::Map(pairs)
            }),
        ]
    })
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Writes a tree; the bits of `style` choose among the language's spellings.
fn write(tree: &Tree, style: u32, out: &mut String) {
    match tree {
        Tree::Text(s) => out.push_str(&quote(s)),
        Tree::Int(n) => out.push_str(&n.to_string()),
        Tree::Bool(b) => out.push_str(match (b, style & 1) {
            (true, 0) => "true",
            (true, _) => "YES",
            (false, 0) => "false",
            (false, _) => "Off",
        }),
        Tree::Date(y, d) => out.push_str(&format!("{y:04}-03-{d:02}T10:20:30Z")),
        Tree::Array(items) => {
            out.push('[');
            for item in items {
                write(item, style.rotate_right(1), out);
                out.push_str(if style & 2 == 0 { ", " } else { "\n  # next\n" });
            }
            out.push(']');
        }
        Tree::Map(pairs) => {
            out.push_str("{\n");
            write_pairs(pairs, style, out);
            out.push('}');
        }
    }
}

fn write_pairs(pairs: &[(String, Tree)], style: u32, out: &mut String) {
    for (key, value) in pairs {
        match style & 4 {
            0 => out.push_str(key),
            _ => out.push_str(&quote(key)),
        }
        out.push_str(match style & 24 {
            0 => ": ",
            8 => " = ",
            _ => " ",
        });
        write(value, style.rotate_right(3), out);
        out.push_str(match style & 96 {
            0 => "\n",
            32 => ";",
            64 => ",\n",
            _ => " // end\n",
        });
    }
}

/// What the tree must read as, without positions.
fn same(tree: &Tree, node: &Node) -> bool {
    match (tree, &node.value) {
        (Tree::Text(a), Value::String(b)) => a == b,
        (Tree::Int(a), Value::Int(b)) => a == b,
        (Tree::Bool(a), Value::Bool(b)) => a == b,
        (Tree::Date(y, d), Value::DateTime(DateTime { year, day, .. })) => y == year && d == day,
        (Tree::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Tree::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|e| same(v, &e.node)))
        }
        _ => false,
    }
}

fn fragments() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ":",
        "=",
        ",",
        ";",
        "\n",
        "\r\n",
        " ",
        "\"",
        "'",
        "#",
        "//",
        "\\",
        "\\x4",
        "$",
        "$a",
        "$2a$",
        "a",
        "b",
        "include ",
        "include f",
        "1",
        "-",
        ".",
        "1.5",
        "1k",
        "2020-",
        "true",
        "\u{e9}",
        "\0",
        "\n)\n",
        "(\n",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn conf_1_any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let source = Memory::file("f", bytes);
        if let Err(error) = crate::parse_file("f", &source) {
            prop_assert!(!error.reason.is_empty());
        }
    }

    #[test]
    fn any_fragments_are_parsed_or_refused(text in fragments()) {
        let source = Memory::file("f", "a: 1").with_variable("a", "[$b]").with_variable("b", "{c: $a}");
        let lines = text.matches('\n').count() + 1;
        if let Err(error) = parse_text("g", &text, &source) {
            // The place lies within the text that it names.
            let Pos { file, line, .. } = &error.pos;
            prop_assert!(&**file != "g" || *line as usize <= lines, "{error}");
        }
    }

    #[test]
    fn what_is_written_reads_back(tree in trees(), style: u32) {
        let Tree::Map(pairs) = Tree::Map(vec![("root".to_string(), tree)]) else { unreachable!() };
        let mut text = String::new();
        write_pairs(&pairs, style, &mut text);
        let document = parse_text("f", &text, &Memory::default())
            .map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert!(same(&pairs[0].1, &document.root.get("root").unwrap().node), "{text}");
    }

    #[test]
    fn conf_3_the_digest_ignores_the_spelling(tree in trees(), one: u32, other: u32) {
        let pairs = vec![("root".to_string(), tree)];
        let digest = |style| {
            let mut text = String::new();
            write_pairs(&pairs, style, &mut text);
            parse_text("f", &text, &Memory::default()).map(|d| (d.digest, canonical_json(&d.root)))
        };
        prop_assert_eq!(digest(one), digest(other));
    }
}
