//! Tests of the language as a whole.

mod corpus;
mod random;

use crate::{Memory, Value, canonical_json, parse_file, parse_text};

fn json(text: &str) -> String {
    match parse_text("f.conf", text, &Memory::default()) {
        Ok(document) => canonical_json(&document.root),
        Err(error) => format!("ERROR {error}"),
    }
}

#[test]
fn shapes() {
    for (text, expected) in [
        ("port 4222; host h, debug yes", r#"{"debug":true,"host":"h","port":4222}"#),
        ("a:b:c", r#"{"a":"b:c"}"#),
        ("a = =b", r#"{"a":"=b"}"#),
        ("a: #x\nb: //y", r##"{"a":"#x","b":"//y"}"##),
        ("a\nport=1", r#"{"a":"port=1"}"#),
        ("a: [1, 2]", r#"{"a":[1,2]}"#),
        ("a: [1]\nb: {c: 5}", r#"{"a":[1],"b":{"c":5}}"#),
        ("a: [[x], [y\nz]]", r#"{"a":[["x"],["y","z"]]}"#),
        ("a: [\n1\n,2\n]", r#"{"a":[1,2]}"#),
        ("a: 10.0.0.0/8", r#"{"a":"10.0.0.0/8"}"#),
        ("a: it's", r#"{"a":"it's"}"#),
        ("a: C\\\\x", r#"{"a":"C\\x"}"#),
        ("a: 2024-01-02T03:04:05Z", r#"{"a":"2024-01-02T03:04:05Z"}"#),
        ("a: 1.0\nb: 1.5\nc: 0.0000001\nd: 0.0", r#"{"a":1,"b":1.5,"c":1e-7,"d":0}"#),
        ("\u{feff}a: 1", r#"{"a":1}"#),
        ("A: 1\na: 2", r#"{"A":1,"a":2}"#),
        ("{}", "{}"),
        ("", "{}"),
        ("include: x", r#"{"include":"x"}"#),
        ("a: (\r\nb\r\n)\r\nc: 1", "{\"a\":\"\\r\\nb\\r\\n\",\"c\":1}"),
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
}

#[test]
fn conf_2_positions_count_as_the_peer_counts() {
    let document = parse_text("f.conf", "a: 1\nbb: { \"c\": [x,\n  \"y\"] }\n", &Memory::default()).unwrap();
    let at = |pos: &crate::Pos| (pos.line, pos.column);
    let a = document.root.get("a").unwrap();
    assert_eq!((at(&a.pos), at(&a.node.pos)), ((1, 0), (1, 3)));
    let bb = document.root.get("bb").unwrap();
    assert_eq!((at(&bb.pos), at(&bb.node.pos)), ((2, 1), (2, 6)));
    let Value::Map(map) = &bb.node.value else { panic!("bb is a map") };
    let c = map.get("c").unwrap();
    assert_eq!((at(&c.pos), at(&c.node.pos)), ((2, 8), (2, 13)));
    let Value::Array(items) = &c.node.value else { panic!("c is an array") };
    assert_eq!((at(&items[0].pos), at(&items[1].pos)), ((2, 13), (3, 4)));
    assert_eq!(document.root.get("a").unwrap().pos.to_string(), "f.conf:1:0");
}

#[test]
fn variables_look_outward_and_then_at_the_environment() {
    let source = Memory::default().with_variable("E", "4222").with_variable("LIST", "[1, {x: y}]");
    let text = "x: 1\nm { y: $x, n { x: 2, z: $x } }\ne: $E\nl: $LIST\nx: 3\nlate: $x";
    let document = parse_text("f.conf", text, &source).unwrap();
    assert_eq!(
        canonical_json(&document.root),
        r#"{"e":4222,"l":[1,{"x":"y"}],"late":3,"m":{"n":{"x":2,"z":2},"y":1},"x":3}"#
    );
    assert!(document.root.get("x").unwrap().used_as_variable);
    assert!(!document.root.get("e").unwrap().used_as_variable);
}

#[test]
fn variables_of_the_environment() {
    let source = Memory::default()
        .with_variable("A", "$B")
        .with_variable("B", "$A")
        .with_variable("SELF", "$SELF")
        .with_variable("EMPTY", "")
        .with_variable("QUOTED", "'a b'")
        .with_variable("TWO", "a b")
        .with_variable("NUMBERISH", "3xyz");
    let value = |name: &str| match parse_text("f.conf", &format!("v: ${name}"), &source) {
        Ok(document) => canonical_json(&document.root),
        Err(error) => error.to_string(),
    };
    assert_eq!(value("EMPTY"), r#"{"v":""}"#);
    assert_eq!(value("QUOTED"), r#"{"v":"a b"}"#);
    assert_eq!(value("NUMBERISH"), r#"{"v":"3xyz"}"#);
    assert!(value("SELF").contains("variable reference cycle for 'SELF'"), "{}", value("SELF"));
    assert!(value("A").contains("variable reference cycle for 'A'"), "{}", value("A"));
    assert!(
        value("TWO").starts_with("f.conf:1:3: variable reference for 'TWO' on line 1 could not be parsed")
    );
}

#[test]
fn conf_2_includes_are_relative_and_keep_their_positions() {
    let source = Memory::file("conf/main.conf", "x: 5\ninclude \"a/a.conf\"\nport: $y")
        .with_file("conf/a/a.conf", "include ./b.conf\ny: $z # from b\nw: $x")
        .with_file("conf/a/b.conf", "{ \"z\": 7 }");
    let document = parse_file("conf/main.conf", &source).unwrap();
    assert_eq!(canonical_json(&document.root), r#"{"port":7,"w":5,"x":5,"y":7,"z":7}"#);
    assert_eq!(document.files, ["conf/main.conf", "conf/a/a.conf", "conf/a/b.conf"]);
    assert_eq!(document.root.get("y").unwrap().pos.to_string(), "conf/a/a.conf:2:1");
}

#[test]
fn an_error_inside_an_include_names_the_included_file() {
    let source = Memory::file("m.conf", "include i.conf").with_file("i.conf", "a: 1\nb: ]");
    let error = parse_file("m.conf", &source).unwrap_err().to_string();
    assert!(error.starts_with("i.conf:2:4: Parse error on line 2"), "{error}");
}

#[test]
fn includes_that_go_in_circles_end() {
    let source = Memory::file("a.conf", "include b.conf").with_file("b.conf", "include a.conf");
    assert!(parse_file("a.conf", &source).unwrap_err().reason.contains("it includes itself"));
    let mut deep = Memory::default();
    for i in 0..100 {
        deep = deep.with_file(&format!("{i}.conf"), format!("include {}.conf", i + 1));
    }
    assert!(parse_file("0.conf", &deep).unwrap_err().reason.contains("too many files"));
}

#[test]
fn conf_1_depth_and_growth_are_bounded() {
    for open in ["a: [", "a {", "[", "a: [{b: "] {
        let text = open.repeat(100_000);
        assert!(parse_text("f", &format!("x: {text}"), &Memory::default()).is_err());
    }
    let mut bomb = String::from("a0: [xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]\n");
    for i in 0..40 {
        bomb.push_str(&format!("a{}: [$a{i}, $a{i}, $a{i}, $a{i}, $a{i}, $a{i}, $a{i}, $a{i}]\n", i + 1));
    }
    let error = parse_text("f", &bomb, &Memory::default()).unwrap_err();
    assert!(error.reason.contains("expands to more than fits"), "{error}");
}
