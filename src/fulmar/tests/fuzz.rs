//! Fuzzing on the stable toolchain: a mutator over the inputs in `tests/corpus`, and properties that every input must
//! keep. `cargo test -p fulmar --test fuzz -- --nocapture` prints what was done; docs/design/0014-fuzzing.md explains it.
//!
//! Owns the list of targets and how much of each an ordinary run does. Knows no format: the targets do.

// These are tests, and files, threads and the clock are what a fuzzer is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]
#![allow(clippy::print_stdout, reason = "what was done is printed")]

#[path = "fuzz/engine.rs"]
mod engine;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use engine::{Target, fuzz};

#[test]
fn client_protocol() {
    fuzz(&Target {
        name: "client",
        run: targets::client::target,
        words: &[
            b"PUB ",
            b"HPUB ",
            b"SUB ",
            b"UNSUB ",
            b"PING\r\n",
            b"PONG\r\n",
            b"CONNECT {}\r\n",
            b"INFO {}\r\n",
            b"+OK\r\n",
            b"-ERR 'x'\r\n",
            b"\r\n",
            b"\n",
            b"\t",
            b" ",
            b"NATS/1.0\r\n\r\n",
            b"pub ",
            b"hpub\t",
        ],
        // The tags that a run must have met: a change that makes the fuzzer blind fails here.
        must: &[
            "pub",
            "hpub",
            "sub",
            "sub queue",
            "unsub",
            "unsub max",
            "ping",
            "connect",
            "error unknown",
            "error arguments",
            "error line",
            "error payload",
            "error headers",
            "partial line",
            "partial payload",
            "exact line",
        ],
        executions: 12_000,
        bytes_max: 2048,
    });
}

#[test]
fn route_protocol() {
    fuzz(&Target {
        name: "route",
        run: targets::route::target,
        words: &[
            b"RMSG ",
            b"HMSG ",
            b"RS+ ",
            b"RS- ",
            b"A foo ",
            b"+ re ",
            b"| q ",
            b"12 14",
            b"INFO {\"server_id\":\"N\",\"route_pool_size\":3}",
            b"CONNECT {}",
            b"PING\r\n",
            b"$JS.ACK.x@y",
            b"\r\n",
            b"\n",
            b"\t",
            b" ",
            b"NATS/1.0\r\n\r\n",
        ],
        must: &[
            "rmsg",
            "rmsg queues",
            "hmsg",
            "hmsg queues",
            "sub",
            "sub queue",
            "unsub",
            "info",
            "connect",
            "error unknown",
            "error arguments",
            "error line",
            "error payload",
            "partial line",
            "partial payload",
        ],
        executions: 12_000,
        bytes_max: 2048,
    });
}

#[test]
fn peer_links() {
    fuzz(&Target {
        name: "peer",
        run: targets::peer::target,
        words: &[
            b"PEER {",
            b"\"version\":1",
            b"\"node\":\"00000000000000ff\"",
            b"}\r\n",
            b"\x00\x02\x00\x00\x01\x00\x00\x00",
            b"\x04\x02\x01\x00\x08\x00\x00\x00",
            b"\x02\x02\x00\x00\x00\x00\x00\x00",
        ],
        must: &[
            "hello",
            "hello bad",
            "piece",
            "last",
            "partial",
            "error header",
            "error length",
            "error checksum",
            "error order",
            "error long",
        ],
        executions: 12_000,
        bytes_max: 2048,
    });
}

#[test]
fn headers() {
    fuzz(&Target {
        name: "headers",
        run: targets::headers::target,
        words: &[
            b"NATS/1.0",
            b"\r\n",
            b"\r\n\r\n",
            b": ",
            b":",
            b"Nats-Msg-Id",
            b" 503 No Responders",
            b"\n",
            b"\r",
            b" ",
        ],
        must: &["well formed", "found", "not found", "added", "removed", "emptied", "malformed"],
        executions: 20_000,
        bytes_max: 1024,
    });
}

#[test]
fn connect_and_info() {
    fuzz(&Target {
        name: "connect",
        run: targets::connect::target,
        words: &[
            b"\"verbose\":",
            b"\"Verbose\":",
            b"\"user\":",
            b"\"pass\":",
            b"\"protocol\":",
            b"\"echo\":",
            b"true",
            b"false",
            b"null",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b"\"",
            b"\\u0041",
            b"\\ud83d\\ude00",
            b"1e9",
            b"-1",
            b"\xc3\xbf",
        ],
        must: &["refused", "accepted", "default kept", "default changed", "null", "another case", "text"],
        executions: 10_000,
        bytes_max: 1024,
    });
}

#[test]
fn configuration() {
    fuzz(&Target {
        name: "conf",
        run: targets::conf::target,
        words: &[
            b"{",
            b"}",
            b"[",
            b"]",
            b"(\n",
            b"\n)\n",
            b": ",
            b" = ",
            b",",
            b";",
            b"\n",
            b"\r\n",
            b"#",
            b"//",
            b"\"",
            b"'",
            b"\\x41",
            b"\\n",
            b"\\",
            b"$word",
            b"$name",
            b"$list",
            b"$loop",
            b"include keys.conf\n",
            b"include 'self.conf'\n",
            b"include loop.conf\n",
            b"$2a$11$",
            b"1.5",
            b"64MB",
            b"-",
            b"2026-11-21T10:20:30Z",
            b"true",
            b"off",
            b"\xef\xbb\xbf",
            b"\xc3\xa9",
            b"\0",
            b"authorization ",
            b"port",
        ],
        must: &[
            "refused",
            "accepted",
            "string",
            "int",
            "float",
            "bool",
            "date",
            "array",
            "map",
            "error in an include",
            "json again",
            "inside a variable",
            "two spellings",
            "included",
        ],
        executions: 6_000,
        bytes_max: 1536,
    });
}

#[test]
fn numbers_of_options() {
    fuzz(&Target {
        name: "numbers",
        run: targets::numbers::target,
        words: &[
            b"ns",
            b"us",
            b"\xc2\xb5s",
            b"ms",
            b"s",
            b"m",
            b"h",
            b"1.5",
            b".5",
            b"-",
            b"+",
            b"9223372036854775807",
            b"KiB",
            b"GB",
            b"t",
            b"EiB",
            b"0",
            b" ",
        ],
        must: &[
            "duration",
            "no duration",
            "negative duration",
            "size",
            "no number",
            "bad suffix",
            "out of range",
        ],
        executions: 150_000,
        bytes_max: 64,
    });
}

#[test]
fn subjects() {
    fuzz(&Target {
        name: "subjects",
        run: targets::subjects::target,
        words: &[
            b".",
            b"*",
            b">",
            b".*",
            b".>",
            b"..",
            b"\n",
            b"a",
            b"b",
            b"foo",
            b" ",
            b"\t",
            b"*x",
            b">>",
            b"12345678",
        ],
        must: &[
            "invalid",
            "matches",
            "no match",
            "subset",
            "no subset",
            "collides",
            "apart",
            "brute force",
            "trie hit",
            "trie miss",
        ],
        executions: 4_000,
        bytes_max: 192,
    });
}

#[test]
fn transforms() {
    fuzz(&Target {
        name: "transforms",
        run: targets::transforms::target,
        words: &[
            b"$1",
            b"$2",
            b"$0",
            b"$-1",
            b"{{wildcard(1)}}",
            b"{{partition(10,1)}}",
            b"{{partition(3)}}",
            b"{{random(5)}}",
            b"{{split(1,-)}}",
            b"{{splitFromLeft(1,2)}}",
            b"{{SplitFromRight(1,2)}}",
            b"{{sliceFromLeft(1,3)}}",
            b"{{slicefromright(1,2)}}",
            b"{{left(1,3)}}",
            b"{{right(1,0)}}",
            b"{{",
            b"}}",
            b"(",
            b")",
            b",",
            b".",
            b"*",
            b">",
            b"\n",
            b"a",
            b"--",
        ],
        must: &[
            "refused",
            "strict",
            "applied",
            "not applied",
            "inverse",
            "no inverse",
            "naive",
            "pieces",
            "partition",
            "mapping",
            "mapping refused",
            "kept",
            "dropped",
        ],
        executions: 12_000,
        bytes_max: 256,
    });
}

#[test]
fn permissions() {
    fuzz(&Target {
        name: "permissions",
        run: targets::permissions::target,
        words: &[
            b"+p ", b"-p ", b"+s ", b"-s ", b"?p ", b"?s ", b"r 1\n", b"\n", b".", b"*", b">", b".*", b".>",
            b" q", b" q.*", b" >", b"a", b"b", b"foo",
        ],
        must: &[
            "refused",
            "may publish",
            "may not publish",
            "deny",
            "allow",
            "filtered",
            "withheld",
            "let through",
            "responses",
        ],
        executions: 12_000,
        bytes_max: 384,
    });
}

#[test]
fn websocket_frames() {
    fuzz(&Target {
        name: "websocket",
        run: targets::websocket::target,
        words: &[
            b"\x82\x80\0\0\0\0",
            b"\x02\x81\0\0\0\0x",
            b"\x80\x81\0\0\0\0x",
            b"\x89\x80\0\0\0\0",
            b"\x88\x80\0\0\0\0",
            b"\xc2",
            b"\x82\xfe\0\x80",
            b"\x82\xff\0\0\0\0\0\0\0\x10",
            b"\x03\xe8",
            b"\0\0\xff\xff",
            b"\x82\x04PING",
        ],
        must: &[
            "bytes",
            "pong",
            "close",
            "violation",
            "fragments",
            "compressed",
            "length 16",
            "length 64",
            "unmasked",
            "too big",
            "corrupt",
            "encoded",
            "deflated",
        ],
        executions: 8_000,
        bytes_max: 1024,
    });
}

#[test]
fn proxy_header() {
    fuzz(&Target {
        name: "proxy",
        run: targets::proxy::target,
        words: &[
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN",
            b"1.2.3.4",
            b"::1",
            b"::ffff:1.2.3.4",
            b"65535",
            b"65536",
            b"\r\n",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"\x21\x11\0\x0c",
            b"\x21\x21\0\x24",
            b"\x20\0\0\0",
            b" ",
        ],
        must: &["partial", "absent", "refused", "client v4", "client v6", "no client", "long", "again"],
        executions: 40_000,
        bytes_max: 512,
    });
}

#[test]
fn options() {
    fuzz(&Target {
        name: "options",
        run: targets::options::target,
        words: &[
            b"port: ",
            b"listen: ",
            b"authorization { ",
            b"users = [ {user: a, password: b} ]\n",
            b"accounts { A { ",
            b"exports ",
            b"imports ",
            b"{stream: \"a.>\"}",
            b"{service: {account: A, subject: s}}",
            b"mappings ",
            b"permissions ",
            b"publish ",
            b"allow: ",
            b"cluster { ",
            b"leafnodes { ",
            b"gateway { ",
            b"websocket { ",
            b"jetstream { ",
            b"tls { ",
            b"-1",
            b"\"1s\"",
            b"true",
            b"}",
            b"]",
            b"\n",
            b"max_payload ",
            b"system_account: ",
            b"no_auth_user: ",
            b"nkey: ",
        ],
        must: &["options", "accounts", "refused", "complaints"],
        executions: 3_000,
        bytes_max: 1536,
    });
}

#[test]
fn whole_connections() {
    fuzz(&Target {
        name: "connection",
        run: targets::connection::target,
        words: &[
            b"PUB a 1\r\nx\r\n",
            b"PUB a r 0\r\n\r\n",
            b"HPUB a 12 13\r\nNATS/1.0\r\n\r\nx\r\n",
            b"SUB a 1\r\n",
            b"SUB a q 2\r\n",
            b"SUB > 3\r\n",
            b"UNSUB 1\r\n",
            b"UNSUB 3 1\r\n",
            b"PING\r\n",
            b"PONG\r\n",
            b"CONNECT {}\r\n",
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n",
            b"CONNECT {\"echo\":false}\r\n",
            b"*",
            b".",
            b"\r\n",
        ],
        must: &["message", "pong", "ok", "error"],
        executions: 3_000,
        bytes_max: 1024,
    });
}
