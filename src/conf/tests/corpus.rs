//! The files of `testdata`: good ones with the digest that nats-server 2.15.1 printed for them, bad ones with what their
//! error must say. Except for `date_short`, `no_value_eof`, `after_brace`, `float_letter` and `self_include` the texts are
//! nats-server's own.

use crate::{Memory, parse_file};

macro_rules! files {
    ($folder:literal: $($name:literal => $expected:literal,)*) => {
        &[$((concat!($name, ".conf"), $expected, include_bytes!(concat!("../testdata/", $folder, "/", $name, ".conf")))),*]
    };
}

type File = (&'static str, &'static str, &'static [u8]);

const GOOD: &[File] = files! { "good":
    "json" => "sha256:842a8b10574e2fa3995faffad74c90da5739aa7fdd769943e6add197dbe42c65",
    "json_lines" => "sha256:d04a60185dfc1fa3f9695e6ec29c0cdf699aa71f335d90590b2f033c1c7b27bb",
    "separators" => "sha256:3561470d24c77297068dab650b62d7ae97edfc0debdf589a9f982ea11941e61a",
    "comments" => "sha256:87008e8208ad6ee8e20695f4f27a72ab54054566e92298665fa4cc43ea6c8a23",
    "sizes" => "sha256:4efb4c81d5dc71f5da142243b0b9df4adb75ef70aa267a131e96ebea785d06eb",
    "strings" => "sha256:945f9912c94026903124b78a8162c2367c6a8f9480f964f52af9c0b2e5e659ec",
    "html" => "sha256:6624e7e6f4cacb92f5c78c7c16e8a908cfaaa9c871c31cc62d0d5a2fb82348f6",
    "block_string" => "sha256:063e4b49958aab5f3fcc087849fa0124b2625e3173a710b2f76b45f71fc60fc5",
    "addresses" => "sha256:e39fce79a8fae9920110849b5173c33e91eb1a1e83ded164645dd52dc40cdad6",
    "arrays" => "sha256:062a8b71d2269953362e8e8ae5bf7c8b85098ce996213460fa655c6a1bb3be14",
    "variables" => "sha256:8784c4e0d63ea544f75326beeceea33bd9a0b808bdf2e0f8d4ca7c15b3cf3ad2",
    "bcrypt" => "sha256:89be7e2f3ca78f17d9f6225e4eff75689d3eb5d398a6db9a5b8bcebbe04aecb8",
    "nested_variables" => "sha256:ed0f450d486eaf738c002f8a25d8051757d790b4a163416b0fd192926b34054a",
    "floats" => "sha256:fac103ffe15cac439eb2b089041b58c8635d9cc693a7c8c8f663643957388bb3",
    "duplicates" => "sha256:277d2e363b9c5ce3436050974c69720261fabb560d2869aa0c6dd0de99cf83e9",
    "crlf" => "sha256:68a2239e5363c186660289e96466de3390e468eee34dba5ab34790153514b184",
    "braces" => "sha256:8fcd8ae7e9ace4bb2c7519009bba34188c62454b334bc482486dcd560a32b325",
    "value_below" => "sha256:f41ac29105330dd3d6b0989bb13d37c7e78c0f1f5898376412c508887538b5d7",
    "stray_brace" => "sha256:797533ebd0dfba7d34a0f9337ecf147e442871f48ddfd07ed751575a5737267e",
    "include" => "sha256:f915f3afcb976e96d20d910ab29b2d10d3ae4e6c3d94e0b30cb332bcd474b751",
    "unicode" => "sha256:39a4160f01f9725a75f456d839db1f56f45d02a8b57a85c882067aeb70627201",
    "empty_values" => "sha256:3a636e8a4e0d1e452661e7bd6a93596a1dce987e902889715145f591d2447c56",
    "hash_value" => "sha256:1bfb884d698a29d633b616a8ad5c4f39fd25231b8d9a8f06992c617023a4a033",
    "accounts" => "sha256:60015a6814c330c14fd0a67e46ff0cfcd70c8fd7a60ab15002e90e5a47c71a42",
    "size_units" => "sha256:053c017385af2cb0e64880702557994d766a1fb0457bbd98debd31e5bb94d66d",
};

const BAD: &[File] = files! { "bad":
    "date" => "date.conf:1:13: Parse error on line 1: 'All ISO8601 dates must be in full Zulu form.'",
    "date_short" => "'All ISO8601 dates must be in full Zulu form.'",
    "no_value" => "Parse error on line 2: 'Expected value but found new line'",
    "no_value_eof" => "no_value_eof.conf:1:0: config is invalid",
    "open_map" => "Parse error on line 3: 'Unexpected EOF processing map.'",
    "open_array" => "Expected an array value terminator \",\" or an array terminator \"]\"",
    "open_string" => "Unexpected EOF.",
    "open_block" => "Parse error on line 3: 'Unexpected EOF processing block.'",
    "key_separator" => "Parse error on line 1: 'Unexpected key separator '=''",
    "double_comma" => "double_comma.conf:1:6: Parse error on line 1: 'Unexpected array value terminator ','.'",
    "two_values" => "Parse error on line 1: 'Expected a top-level value to end with a new line, comment or EOF, but got 'c' instead.'",
    "after_brace" => "config is invalid (after_brace.conf:1:10)",
    "escape" => "Invalid escape character 'q'. Only the following escape characters are allowed:",
    "hex" => "Expected two hexadecimal digits after '\\x', but got 'zz'",
    "out_of_range" => "integer '9223372036854775808' is out of the range",
    "float_letter" => "Parse error on line 1: ",
    "float_dot" => "Floats must have a digit after the '.'",
    "float_start" => "Parse error on line 1: 'Floats must start with a digit'",
    "minus" => "Parse error on line 1: 'Expected a digit but got 'x'.'",
    "no_variable" => "no_variable.conf:1:6: variable reference for 'nowhere' on line 1 can not be found",
    "variable_later" => "variable reference for 'a' on line 1 can not be found",
    "missing_include" => "error parsing include file 'nope.conf', open nope.conf: no such file or directory",
    "map_two" => "Expected a map value terminator \",\" or a map terminator \"}\", but got 'd' instead.",
    "array_semicolon" => "but got ';' instead.",
    "self_include" => "error parsing include file 'self_include.conf', it includes itself",
};

#[test]
fn good_files_have_the_peers_digest() {
    for (name, digest, bytes) in GOOD {
        let source = Memory::file(name, *bytes)
            .with_file("sub/users.conf", *include_bytes!("../testdata/good/sub/users.conf"))
            .with_file("sub/meta.conf", *include_bytes!("../testdata/good/sub/meta.conf"));
        let document = parse_file(name, &source).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(document.digest, *digest, "{name}: {}", crate::canonical_json(&document.root));
    }
}

#[test]
fn bad_files_say_what_is_wrong() {
    for (name, expected, bytes) in BAD {
        let error = parse_file(name, &Memory::file(name, *bytes)).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.starts_with(&format!("{name}:")), "{error}");
    }
}
