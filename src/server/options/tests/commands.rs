//! Command lines.

use crate::options::flags::{all_names, executable_name};
use crate::options::*;
use conf::Memory;

fn run(line: &str, source: &Memory) -> Command {
    let args: Vec<String> =
        std::iter::once("/usr/bin/nats-server").chain(line.split_whitespace()).map(String::from).collect();
    flags::command(&args, source)
}

fn started(line: &str) -> Options {
    match run(line, &Memory::file("g.conf", "port: 4300, server_name: file, debug: false")) {
        Command::Run(start) => start.options,
        other => panic!("{line}: {other:?}"),
    }
}

fn said(line: &str) -> (i32, String, String) {
    let source = Memory::file("g.conf", "port: 4222")
        .with_file("w.conf", "ping_interval: 5")
        .with_file("z.conf", "zzz: 1");
    let command = run(line, &source);
    let text = command.text().unwrap_or_else(|| panic!("{line}: {command:?}"));
    (text.code, text.stdout.clone(), text.stderr.clone())
}

#[test]
fn no_arguments_at_all_start_a_server() {
    assert_eq!(started(""), Options::default());
}

#[test]
fn one_dash_or_two_and_values_after_a_blank_or_an_equals_sign() {
    for line in ["-p 5", "--p 5", "-port=5", "--port 5", "-p=5", "--port=7 -p 5"] {
        assert_eq!(started(line).port, 5, "{line}");
    }
    assert!(started("-js").jetstream.is_some());
    assert!(started("--jetstream=true").jetstream.is_some());
    assert!(started("-js=false").jetstream.is_none());
    assert!(!started("-T=false").log.logtime);
}

#[test]
fn every_line_that_the_suites_start_with() {
    let o = started("-p 4222 -m 8222 -a 127.0.0.1 --user u --pass p -DV");
    assert_eq!((o.port, o.host.as_str()), (4222, "127.0.0.1"));
    assert_eq!(o.http, Some(HttpOptions { host: "127.0.0.1".into(), port: 8222 }));
    assert_eq!(o.authorization.user.as_deref(), Some("u"));
    assert_eq!(o.authorization.password.as_ref().map(Secret::reveal), Some("p"));
    assert!(o.log.debug && o.log.trace && !o.log.trace_verbose);
    let o = started("--auth t -js -sd=/d");
    assert_eq!(o.authorization.token.as_ref().map(Secret::reveal), Some("t"));
    assert_eq!(o.jetstream.unwrap().store_dir.as_deref(), Some("/d"));
    let o = started("--tls --tlscert c --tlskey k --tlsverify --tlscacert ca");
    let tls = o.tls.unwrap();
    assert_eq!(tls.certificates[0], CertificateFiles { cert_file: "c".into(), key_file: "k".into() });
    assert_eq!((tls.verify, tls.ca_file.as_deref()), (true, Some("ca")));
    let o = started(
        "--cluster_listen nats://127.0.0.1:6222 --routes nats://a:1,nats://b:2 --cluster_name CLUSTER",
    );
    let cluster = o.cluster.unwrap();
    assert_eq!((cluster.host.as_str(), cluster.port, cluster.routes.len()), ("127.0.0.1", 6222, 2));
    assert_eq!(cluster.name.as_deref(), Some("CLUSTER"));
    let o =
        started("--addr 0.0.0.0 --port -1 --debug --jetstream --store_dir D --config g.conf --server_name n");
    assert_eq!((o.port, o.server_name.as_deref(), o.log.debug), (-1, Some("n"), true));
    assert_eq!(o.config_file.as_deref(), Some("g.conf"));
    let o = started(
        "-cluster nats-route://u:p@127.0.0.1:-1 -routes nats-route://a:1 -cluster_name \"local\" -l server.log -P pid",
    );
    let cluster = o.cluster.unwrap();
    assert_eq!((cluster.port, cluster.user.as_deref()), (-1, Some("u")));
    assert_eq!(cluster.name.as_deref(), Some("\"local\""));
    assert_eq!((o.log.file.as_deref(), o.pid_file.as_deref()), (Some("server.log"), Some("pid")));
    let o =
        started("-a :: -ms 0 --profile 6060 --no_advertise --connect_retries 5 --cluster_advertise a:1 -n x");
    assert_eq!((o.host.as_str(), o.prof_port, o.https), ("::", Some(6060), None));
    let cluster = o.cluster.unwrap();
    assert_eq!((cluster.no_advertise, cluster.connect_retries), (true, 5));
}

#[test]
fn opt_2_flags_win_over_the_file_at_every_load() {
    let o = started("-c g.conf");
    assert_eq!((o.port, o.server_name.as_deref()), (4300, Some("file")));
    let o = started("-c g.conf -p 5 -D");
    assert_eq!((o.port, o.server_name.as_deref(), o.log.debug), (5, Some("file"), true));
    let Command::Run(start) = run("-c g.conf -p 5 -D", &Memory::file("g.conf", "port: 1")) else {
        panic!("it runs")
    };
    let reloaded = load(&start.flags, &Memory::file("g.conf", "port: 2, server_name: b")).unwrap().options;
    assert_eq!((reloaded.port, reloaded.log.debug, reloaded.server_name.as_deref()), (5, true, Some("b")));
}

#[test]
fn versions_and_helps() {
    for line in ["-v", "--version", "version", "-p 5 --version"] {
        assert_eq!(said(line), (0, "nats-server: v2.15.1\n".to_string(), String::new()), "{line}");
    }
    let args = ["./fulmar".to_string(), "-v".to_string()];
    let command = flags::command(&args, &Memory::default());
    let shown = &command.text().unwrap().stdout;
    assert!(shown.starts_with("fulmar: v2.15.1 (Fulmar "), "{shown}");
    for line in ["-h", "--help", "help"] {
        let (code, stdout, stderr) = said(line);
        assert!(
            code == 0 && stderr.is_empty() && stdout.starts_with("\nUsage: nats-server [options]"),
            "{line}"
        );
    }
    assert!(said("--help_tls").1.contains("cert_file"));
    assert_eq!(executable_name("a/b/c"), "c");
}

#[test]
fn the_help_names_every_flag() {
    let help = said("-h").1;
    // These are older spellings that nats-server's help leaves out too, and aliases of one letter.
    let unnamed = ["debug", "trace", "T", "h"];
    for name in all_names().filter(|n| !unnamed.contains(n)) {
        let written = if name.len() <= 3 { format!("-{name}") } else { format!("--{name}") };
        let found = help.match_indices(&written).any(|(at, _)| {
            !help[at + written.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        });
        assert!(found, "{written}");
    }
}

#[test]
fn mistaken_flags_are_answered_with_the_usage() {
    for (line, text) in [
        ("-nope", "flag provided but not defined: -nope\n"),
        ("--nope=5", "flag provided but not defined: -nope\n"),
        ("-p", "flag needs an argument: -p\n"),
        ("-p abc", "invalid value \"abc\" for flag -p: parse error\n"),
        ("-p=", "invalid value \"\" for flag -p: parse error\n"),
        ("-D=x", "invalid boolean value \"x\" for -D: parse error\n"),
        ("--log_size_limit abc", "invalid value \"abc\" for flag -log_size_limit: parse error\n"),
        ("-=x", "bad flag syntax: -=x\n"),
        ("---p 5", "bad flag syntax: ---p\n"),
        ("--signal", "flag needs an argument: -signal\n"),
    ] {
        let (code, stdout, stderr) = said(line);
        assert_eq!((code, stderr.as_str()), (0, text), "{line}");
        assert!(stdout.contains("Usage: nats-server [options]"), "{line}");
    }
}

#[test]
fn mistaken_meanings_end_with_one() {
    for (line, text) in [
        ("foo", "nats-server: unrecognized command: \"foo\"\n"),
        ("-- foo", "nats-server: unrecognized command: \"foo\"\n"),
        ("-", "nats-server: unrecognized command: \"-\"\n"),
        ("-DV x", "nats-server: unrecognized command: \"x\"\n"),
        ("--no_advertise foo", "nats-server: unrecognized command: \"foo\"\n"),
        ("-t", "nats-server: must specify [-c, --config] option to check configuration file syntax\n"),
        ("-t -c nope.conf", "nats-server: open nope.conf: no such file or directory\n"),
        ("-c nope.conf", "nats-server: open nope.conf: no such file or directory\n"),
        ("-c z.conf", "nats-server: z.conf:1:0: unknown field \"zzz\"\n"),
        ("-t -c z.conf", "nats-server: z.conf:1:0: unknown field \"zzz\"\n"),
        (
            "--routes nats://a:1",
            "nats-server: solicited routes require cluster capabilities, e.g. --cluster\n",
        ),
        ("--tls", "nats-server: TLS Server certificate must be present and valid\n"),
        ("--tls --tlscert c", "nats-server: TLS Server private key must be present and valid\n"),
        ("--signal foo=1", "nats-server: unknown signal \"foo\"\n"),
        ("--signal ldm=-5", "nats-server: invalid pid: -5\n"),
    ] {
        assert_eq!(said(line), (1, String::new(), text.to_string()), "{line}");
    }
    assert!(said("-p 70000").2.contains("invalid port 70000"));
    assert_eq!(said("--cluster nats://127.0.0.1").0, 1);
}

#[test]
fn a_check_tells_the_digest_or_what_is_wrong() {
    assert_eq!(
        said("-t -c g.conf"),
        (
            0,
            String::new(),
            "nats-server: configuration file g.conf is valid \
             (sha256:797533ebd0dfba7d34a0f9337ecf147e442871f48ddfd07ed751575a5737267e)\n"
                .to_string()
        )
    );
    let (code, _, stderr) = said("-t -c w.conf");
    assert!(code == 1 && stderr.contains("should be converted to a duration"), "{stderr}");
    let command = run("-t -c c", &Memory::file("c", "tls {cert_file: a, key_file: b}"));
    let text = command.text().unwrap();
    assert!(text.code == 1 && text.stderr.contains("open a: no such file or directory"), "{text:?}");
    // At a start the same warning does not stop the server.
    let Command::Run(start) = run("-c w", &Memory::file("w", "ping_interval: 5")) else { panic!("it runs") };
    assert_eq!(start.warnings.len(), 1);
}

#[test]
fn signals() {
    for (line, word, target) in [
        ("--signal ldm=123", SignalWord::LameDuck, SignalTarget::Pid(123)),
        ("-sl reload", SignalWord::Reload, SignalTarget::OnlyProcess),
        ("-sl=stop=/run/x.pid", SignalWord::Stop, SignalTarget::PidFile("/run/x.pid".into())),
        ("--signal quit=7", SignalWord::Quit, SignalTarget::Pid(7)),
        ("--signal term=7", SignalWord::Term, SignalTarget::Pid(7)),
        ("--signal reopen=7", SignalWord::Reopen, SignalTarget::Pid(7)),
    ] {
        assert_eq!(run(line, &Memory::default()), Command::Signal { word, target }, "{line}");
    }
}

#[test]
fn what_is_legal_but_missing_is_told() {
    assert!(unsupported(&Options::default()).is_empty());
    let o = started("--cluster nats://127.0.0.1:1 --profile 5 -s");
    assert!(unsupported(&o).len() >= 2, "{:?}", unsupported(&o));
}

#[test]
fn an_empty_file_is_warned_of_and_wrong_under_t() {
    for text in ["", "# nothing\n"] {
        let source = Memory::file("e.conf", text);
        let Command::Run(start) = run("-c e.conf", &source) else { panic!("{text:?}") };
        assert_eq!(start.warnings, ["e.conf: config has no values or is empty"]);
        assert_eq!(start.options.port, DEFAULT_PORT);
        let command = run("-t -c e.conf", &source);
        let said = command.text().unwrap();
        assert_eq!(
            (said.code, &*said.stderr),
            (1, "nats-server: e.conf: config has no values or is empty\n")
        );
    }
}

#[test]
fn t_finds_what_a_start_would_find() {
    let accounts = |a: &str, b: &str| format!("accounts {{ A {{ {a} }}, B {{ {b} }} }}");
    for (text, says) in [
        ("tls {}".to_string(), "TLS needs a certificate"),
        ("mappings {a: \"b.*\"}".into(), "Error adding mapping"),
        ("mappings {a: \"b..c\"}".into(), "Error adding mapping"),
        ("mappings {\"a.*\": \"b.{{wildcard(2)}}\"}".into(), "Error adding mapping"),
        ("mappings {\"a.*\": \"b.{{foo(1)}}\"}".into(), "Error adding mapping"),
        (accounts("", "imports: [{stream: {account: A, subject: x}}]"), "stream import not authorized"),
        (
            accounts(
                "exports: [{service: \"x.*\"}]",
                "imports: [{service: {account: A, subject: \"x.*\"}, to: y}]",
            ),
            "Error adding service import",
        ),
        (
            accounts(
                "exports: [{service: x}], imports: [{service: {account: B, subject: x}}]",
                "exports: [{service: x}], imports: [{service: {account: A, subject: x}}]",
            ),
            "import forms a cycle",
        ),
        (
            accounts(
                "exports: [{stream: x}]",
                "imports: [{stream: {account: A, subject: x}}, {stream: {account: A, subject: x}}]",
            ),
            "stream import already exists",
        ),
    ] {
        let command = run("-t -c m.conf", &Memory::file("m.conf", text.as_str()));
        let said = command.text().unwrap();
        assert!(said.code == 1 && said.stderr.contains(says), "{text}: {said:?}");
    }
    let fine = accounts("exports: [{stream: x}]", "imports: [{stream: {account: A, subject: x}}]");
    assert_eq!(run("-t -c m.conf", &Memory::file("m.conf", fine.as_str())).text().unwrap().code, 0);
}
