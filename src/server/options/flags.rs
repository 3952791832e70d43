//! The command line.
//!
//! Flags follow Go's rules, since nats-server's do and its users' scripts rely on them: one dash or two, a value as the
//! next word or after `=`, a boolean's value only after `=`, the last of several wins, `--` ends them. What a command
//! line asks for is data; printing and exiting is for `main`.

use super::parse::Draft;
use super::types::{CertificateFiles, ClusterOptions};
use super::url::{ServerUrl, split_host_port};
use super::{NATS_VERSION, Options, Secret, help, load};
use crate::settings;
use conf::Source;

/// What the command line sets. `None` leaves the file's value or the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// `-c`: the configuration file.
    pub config: Option<String>,
    host: Option<String>,
    port: Option<i32>,
    server_name: Option<String>,
    pid_file: Option<String>,
    http_port: Option<i32>,
    https_port: Option<i32>,
    client_advertise: Option<String>,
    ports_file_dir: Option<String>,
    log_file: Option<String>,
    logtime: Option<bool>,
    logtime_utc: Option<bool>,
    syslog: Option<bool>,
    remote_syslog: Option<String>,
    debug: Option<bool>,
    trace: Option<bool>,
    trace_verbose: Option<bool>,
    log_size_limit: Option<i64>,
    max_traced_msg_len: Option<i64>,
    jetstream: Option<bool>,
    store_dir: Option<String>,
    user: Option<String>,
    pass: Option<Secret>,
    auth: Option<Secret>,
    tls: Option<bool>,
    tls_verify: Option<bool>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    tls_ca_cert: Option<String>,
    routes: Option<Vec<ServerUrl>>,
    cluster: Option<Option<ServerUrl>>,
    cluster_name: Option<String>,
    no_advertise: Option<bool>,
    cluster_advertise: Option<String>,
    connect_retries: Option<i64>,
    profile: Option<i32>,
}

/// What is to be printed, and the exit code that goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// For the process.
    pub code: i32,
}

/// A server to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Its options, file and flags together.
    pub options: Options,
    /// The flags alone: a reload reads the file again and puts them over it, see [`super::load`].
    pub flags: Flags,
    /// Lines for standard error before the server starts.
    pub warnings: Vec<String>,
}

/// A `--signal` word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalWord {
    /// SIGKILL.
    Stop,
    /// SIGINT.
    Quit,
    /// SIGTERM.
    Term,
    /// SIGUSR1: reopen the log file.
    Reopen,
    /// SIGUSR2: lame duck mode.
    LameDuck,
    /// SIGHUP.
    Reload,
}

impl SignalWord {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            SignalWord::Stop => "stop",
            SignalWord::Quit => "quit",
            SignalWord::Term => "term",
            SignalWord::Reopen => "reopen",
            SignalWord::LameDuck => "ldm",
            SignalWord::Reload => "reload",
        }
    }
    /// By its word.
    pub fn from_word(word: &str) -> Option<SignalWord> {
        Some(match word {
            "stop" => SignalWord::Stop,
            "quit" => SignalWord::Quit,
            "term" => SignalWord::Term,
            "reopen" => SignalWord::Reopen,
            "ldm" => SignalWord::LameDuck,
            "reload" => SignalWord::Reload,
            _ => return None,
        })
    }
}

/// Whom a signal is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    /// The only process with the executable's name.
    OnlyProcess,
    /// This process.
    Pid(i32),
    /// The process whose id this file holds. If there is no such file the error is `invalid pid: ` and this text.
    PidFile(String),
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve.
    Run(Box<Start>),
    /// `-t`: the verdict on the configuration.
    Check(Text),
    /// `-v`.
    Version(Text),
    /// `-h`, `--help_tls`, and every mistake in the flags' form.
    Help(Text),
    /// A mistake in what flags or file say.
    Fail(Text),
    /// Signal a running server.
    Signal {
        /// Which signal.
        word: SignalWord,
        /// To whom.
        target: SignalTarget,
    },
}

impl Command {
    /// What to print, for all that is not [`Command::Run`] or [`Command::Signal`].
    pub fn text(&self) -> Option<&Text> {
        match self {
            Command::Check(t) | Command::Version(t) | Command::Help(t) | Command::Fail(t) => Some(t),
            Command::Run(_) | Command::Signal { .. } => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flag {
    Addr,
    Auth,
    Check,
    ClientAdvertise,
    Cluster,
    ClusterAdvertise,
    ClusterName,
    Config,
    ConnectRetries,
    Debug,
    DebugTrace,
    DebugTraceVerbose,
    Help,
    HelpTls,
    HttpPort,
    HttpsPort,
    JetStream,
    Log,
    LogSizeLimit,
    LogTime,
    LogTimeUtc,
    MaxTracedMsgLen,
    NoAdvertise,
    Pass,
    Pid,
    Port,
    PortsFileDir,
    Profile,
    RemoteSyslog,
    Routes,
    ServerName,
    Signal,
    StoreDir,
    Syslog,
    Tls,
    TlsCaCert,
    TlsCert,
    TlsKey,
    TlsVerify,
    Trace,
    TraceVerbose,
    User,
    Version,
}

/// Every name of every flag.
const NAMES: &[(&str, Flag)] = &[
    ("DV", Flag::DebugTrace),
    ("DVV", Flag::DebugTraceVerbose),
    ("D", Flag::Debug),
    ("P", Flag::Pid),
    ("T", Flag::LogTime),
    ("V", Flag::Trace),
    ("VV", Flag::TraceVerbose),
    ("a", Flag::Addr),
    ("addr", Flag::Addr),
    ("auth", Flag::Auth),
    ("c", Flag::Config),
    ("client_advertise", Flag::ClientAdvertise),
    ("cluster", Flag::Cluster),
    ("cluster_advertise", Flag::ClusterAdvertise),
    ("cluster_listen", Flag::Cluster),
    ("cluster_name", Flag::ClusterName),
    ("config", Flag::Config),
    ("connect_retries", Flag::ConnectRetries),
    ("debug", Flag::Debug),
    ("h", Flag::Help),
    ("help", Flag::Help),
    ("help_tls", Flag::HelpTls),
    ("http_port", Flag::HttpPort),
    ("https_port", Flag::HttpsPort),
    ("jetstream", Flag::JetStream),
    ("js", Flag::JetStream),
    ("l", Flag::Log),
    ("log", Flag::Log),
    ("log_size_limit", Flag::LogSizeLimit),
    ("logtime", Flag::LogTime),
    ("logtime_utc", Flag::LogTimeUtc),
    ("m", Flag::HttpPort),
    ("max_traced_msg_len", Flag::MaxTracedMsgLen),
    ("ms", Flag::HttpsPort),
    ("n", Flag::ServerName),
    ("name", Flag::ServerName),
    ("net", Flag::Addr),
    ("no_advertise", Flag::NoAdvertise),
    ("p", Flag::Port),
    ("pass", Flag::Pass),
    ("pid", Flag::Pid),
    ("port", Flag::Port),
    ("ports_file_dir", Flag::PortsFileDir),
    ("profile", Flag::Profile),
    ("r", Flag::RemoteSyslog),
    ("remote_syslog", Flag::RemoteSyslog),
    ("routes", Flag::Routes),
    ("s", Flag::Syslog),
    ("sd", Flag::StoreDir),
    ("server_name", Flag::ServerName),
    ("signal", Flag::Signal),
    ("sl", Flag::Signal),
    ("store_dir", Flag::StoreDir),
    ("syslog", Flag::Syslog),
    ("t", Flag::Check),
    ("tls", Flag::Tls),
    ("tlscacert", Flag::TlsCaCert),
    ("tlscert", Flag::TlsCert),
    ("tlskey", Flag::TlsKey),
    ("tlsverify", Flag::TlsVerify),
    ("trace", Flag::Trace),
    ("user", Flag::User),
    ("v", Flag::Version),
    ("version", Flag::Version),
];

impl Flag {
    fn is_boolean(self) -> bool {
        matches!(
            self,
            Flag::Check
                | Flag::Debug
                | Flag::DebugTrace
                | Flag::DebugTraceVerbose
                | Flag::Help
                | Flag::HelpTls
                | Flag::JetStream
                | Flag::LogTime
                | Flag::LogTimeUtc
                | Flag::NoAdvertise
                | Flag::Syslog
                | Flag::Tls
                | Flag::TlsVerify
                | Flag::Trace
                | Flag::TraceVerbose
                | Flag::Version
        )
    }
}

/// What the words say, before the file is looked at.
#[derive(Default)]
struct Words {
    flags: Flags,
    check: bool,
    help: bool,
    help_tls: bool,
    version: bool,
    signal: Option<String>,
    stray: Vec<String>,
}

/// A mistake in the words' form, answered with the usage, or in what they mean.
enum BadWord {
    Usage(String),
    Meaning(String),
}

/// Decides what a command line asks for. `args` begin with the executable.
pub fn command(args: &[String], source: &dyn Source) -> Command {
    let executable = executable_name(args.first().map_or("", String::as_str));
    let fail = |text: String| {
        Command::Fail(Text { stderr: format!("{executable}: {text}\n"), code: 1, ..Text::default() })
    };
    let words = match read_words(args.get(1..).unwrap_or_default()) {
        Ok(words) => words,
        // nats-server ends with code 0 after a mistaken flag; scripts that test for success must see the same.
        Err(BadWord::Usage(text)) => {
            return Command::Help(Text {
                stdout: help::usage(&executable),
                stderr: format!("{text}\n"),
                code: 0,
            });
        }
        Err(BadWord::Meaning(text)) => return fail(text),
    };
    if words.version {
        return Command::Version(Text { stdout: version_line(&executable), ..Text::default() });
    }
    if words.help {
        return Command::Help(Text { stdout: help::usage(&executable), ..Text::default() });
    }
    if words.help_tls {
        return Command::Help(Text { stdout: help::tls(), ..Text::default() });
    }
    match words.stray.first().map(String::as_str) {
        None => {}
        Some("version") => {
            return Command::Version(Text { stdout: version_line(&executable), ..Text::default() });
        }
        Some("help") => return Command::Help(Text { stdout: help::usage(&executable), ..Text::default() }),
        Some(word) => return fail(format!("unrecognized command: {word:?}")),
    }
    if let Some(signal) = &words.signal {
        return match parse_signal(signal) {
            Ok((word, target)) => Command::Signal { word, target },
            Err(text) => fail(text),
        };
    }
    if words.check && words.flags.config.is_none() {
        return fail("must specify [-c, --config] option to check configuration file syntax".to_string());
    }
    match load(&words.flags, source) {
        Err(errors) => fail(errors.join("\n")),
        Ok(loaded) if words.check => check(&executable, &loaded.options, &loaded.warnings, source),
        Ok(loaded) => Command::Run(Box::new(Start {
            options: loaded.options,
            flags: words.flags,
            warnings: loaded.warnings,
        })),
    }
}

/// The verdict of `-t`: warnings count as errors, and files that TLS needs must be there.
fn check(executable: &str, options: &Options, warnings: &[String], source: &dyn Source) -> Command {
    let mut lines = warnings.to_vec();
    for file in tls_files(options) {
        if let Err(text) = source.read(file) {
            lines.push(format!("error parsing X509 certificate/key pair: {text}"));
        }
    }
    let needs_certificate = [options.tls.as_ref(), options.cluster.as_ref().and_then(|c| c.tls.as_ref())];
    if needs_certificate.into_iter().flatten().any(|t| t.certificates.is_empty()) {
        lines.push("TLS needs a certificate: set cert_file and key_file, or certs".to_string());
    }
    // What a start would find: nobody who has asked wants to learn it then.
    match settings::account_rules(options) {
        Ok(rules) => lines.extend(broker::rules::check(&rules)),
        Err(wrong) => lines.extend(wrong),
    }
    if !lines.is_empty() {
        let stderr = format!("{executable}: {}\n", lines.join("\n"));
        return Command::Check(Text { stderr, code: 1, ..Text::default() });
    }
    let file = options.config_file.as_deref().unwrap_or_default();
    let digest = options.config_digest.as_deref().unwrap_or_default();
    let stderr = format!("{executable}: configuration file {file} is valid ({digest})\n");
    Command::Check(Text { stderr, code: 0, ..Text::default() })
}

/// Every file that a `tls` block names.
fn tls_files(o: &Options) -> Vec<&str> {
    let blocks = [
        o.tls.as_ref(),
        o.websocket.as_ref().and_then(|w| w.tls.as_ref()),
        o.cluster.as_ref().and_then(|c| c.tls.as_ref()),
    ];
    let mut out = Vec::new();
    for tls in blocks.into_iter().flatten() {
        for pair in &tls.certificates {
            out.extend([pair.cert_file.as_str(), pair.key_file.as_str()]);
        }
        out.extend(tls.ca_file.as_deref());
    }
    out
}

/// The last part of the executable's path, as it appears in texts and in the ports file's name.
pub fn executable_name(argv0: &str) -> String {
    let base = argv0.rsplit('/').next().unwrap_or(argv0);
    if base.is_empty() { "nats-server".to_string() } else { base.to_string() }
}

/// `nats-server: v2.15.1`. Under any other name the own version is added.
fn version_line(executable: &str) -> String {
    if executable == "nats-server" {
        return format!("{executable}: v{NATS_VERSION}\n");
    }
    format!("{executable}: v{NATS_VERSION} (Fulmar {})\n", env!("CARGO_PKG_VERSION"))
}

fn parse_signal(text: &str) -> Result<(SignalWord, SignalTarget), String> {
    let (word, target) = match text.split_once('=') {
        Some((word, target)) => (word, Some(target)),
        None => (text, None),
    };
    let word = SignalWord::from_word(word).ok_or_else(|| format!("unknown signal {word:?}"))?;
    let target = match target {
        None | Some("") => SignalTarget::OnlyProcess,
        Some(text) => match text.parse::<i32>() {
            // Zero and below would address whole groups of processes.
            Ok(pid) if pid > 0 => SignalTarget::Pid(pid),
            Ok(_) => return Err(format!("invalid pid: {text}")),
            Err(_) => SignalTarget::PidFile(text.to_string()),
        },
    };
    Ok((word, target))
}

fn read_words(args: &[String]) -> Result<Words, BadWord> {
    let mut words = Words::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg.len() < 2 || !arg.starts_with('-') {
            words.stray.push(arg.clone());
            words.stray.extend(rest.cloned());
            break;
        }
        if arg == "--" {
            words.stray.extend(rest.cloned());
            break;
        }
        let text = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).expect("it begins with a dash");
        if text.is_empty() || text.starts_with('-') || text.starts_with('=') {
            return Err(BadWord::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let Some((_, flag)) = NAMES.iter().find(|(n, _)| *n == name) else {
            return Err(BadWord::Usage(format!("flag provided but not defined: -{name}")));
        };
        if flag.is_boolean() {
            let value = match inline {
                None => true,
                Some(text) => go_bool(text).ok_or_else(|| {
                    BadWord::Usage(format!("invalid boolean value {text:?} for -{name}: parse error"))
                })?,
            };
            set_boolean(&mut words, *flag, value);
            continue;
        }
        let value = match inline {
            Some(value) => value,
            None => rest
                .next()
                .ok_or_else(|| BadWord::Usage(format!("flag needs an argument: -{name}")))?
                .as_str(),
        };
        set_value(&mut words, *flag, name, value)?;
    }
    Ok(words)
}

fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn set_boolean(words: &mut Words, flag: Flag, value: bool) {
    let f = &mut words.flags;
    match flag {
        Flag::Check => words.check = value,
        Flag::Help => words.help = value,
        Flag::HelpTls => words.help_tls = value,
        Flag::Version => words.version = value,
        Flag::Debug => f.debug = Some(value),
        Flag::Trace => f.trace = Some(value),
        Flag::TraceVerbose => (f.trace, f.trace_verbose) = (Some(value), Some(value)),
        Flag::DebugTrace => (f.debug, f.trace) = (Some(value), Some(value)),
        Flag::DebugTraceVerbose => {
            (f.debug, f.trace, f.trace_verbose) = (Some(value), Some(value), Some(value));
        }
        Flag::JetStream => f.jetstream = Some(value),
        Flag::LogTime => f.logtime = Some(value),
        Flag::LogTimeUtc => f.logtime_utc = Some(value),
        Flag::NoAdvertise => f.no_advertise = Some(value),
        Flag::Syslog => f.syslog = Some(value),
        Flag::Tls => f.tls = Some(value),
        Flag::TlsVerify => f.tls_verify = Some(value),
        other => debug_assert!(false, "{other:?} is not boolean"),
    }
}

fn set_value(words: &mut Words, flag: Flag, name: &str, value: &str) -> Result<(), BadWord> {
    let number = || -> Result<i64, BadWord> {
        // Go takes other bases too (0x10); nobody writes ports so.
        value
            .parse()
            .map_err(|_| BadWord::Usage(format!("invalid value {value:?} for flag -{name}: parse error")))
    };
    let port = || -> Result<i32, BadWord> {
        let n = number()?;
        i32::try_from(n).ok().filter(|n| (-1..=65535).contains(n)).ok_or_else(|| {
            BadWord::Meaning(format!("invalid port {n} for flag -{name}: it must be between -1 and 65535"))
        })
    };
    let text = || Some(value.to_string());
    let f = &mut words.flags;
    match flag {
        Flag::Addr => f.host = text(),
        Flag::Auth => f.auth = Some(Secret::new(value)),
        Flag::ClientAdvertise => f.client_advertise = text(),
        Flag::Cluster => f.cluster = Some(cluster_url(value).map_err(BadWord::Meaning)?),
        Flag::ClusterAdvertise => f.cluster_advertise = text(),
        Flag::ClusterName => f.cluster_name = text(),
        Flag::Config => f.config = text().filter(|t| !t.is_empty()),
        Flag::ConnectRetries => f.connect_retries = Some(number()?),
        Flag::HttpPort => f.http_port = Some(port()?),
        Flag::HttpsPort => f.https_port = Some(port()?),
        Flag::Log => f.log_file = text(),
        Flag::LogSizeLimit => f.log_size_limit = Some(number()?),
        Flag::MaxTracedMsgLen => f.max_traced_msg_len = Some(number()?),
        Flag::Pass => f.pass = Some(Secret::new(value)),
        Flag::Pid => f.pid_file = text(),
        Flag::Port => f.port = Some(port()?),
        Flag::PortsFileDir => f.ports_file_dir = text(),
        Flag::Profile => f.profile = Some(port()?),
        Flag::RemoteSyslog => f.remote_syslog = text(),
        Flag::Routes => f.routes = Some(route_urls(value).map_err(BadWord::Meaning)?),
        Flag::ServerName => f.server_name = text(),
        Flag::Signal => words.signal = text(),
        Flag::StoreDir => f.store_dir = text(),
        Flag::TlsCaCert => f.tls_ca_cert = text(),
        Flag::TlsCert => f.tls_cert = text(),
        Flag::TlsKey => f.tls_key = text(),
        Flag::User => f.user = text(),
        other => debug_assert!(false, "{other:?} takes no value"),
    }
    Ok(())
}

/// The cluster's own URL; an empty one turns the cluster off. A bare `host:port` is accepted too.
fn cluster_url(text: &str) -> Result<Option<ServerUrl>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = if text.contains("://") {
        ServerUrl::parse(text)?
    } else {
        let (host, port) =
            split_host_port(text).map_err(|e| format!("could not parse cluster url {text:?}: {e}"))?;
        ServerUrl { scheme: "nats".to_string(), user: None, password: None, host, port }
    };
    if url.port.is_none() {
        return Err(format!("cluster url {:?}: missing port in address", url.without_credentials()));
    }
    Ok(Some(url))
}

fn route_urls(text: &str) -> Result<Vec<ServerUrl>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let shown = part.rsplit_once('@').map_or(part, |(_, tail)| tail);
            ServerUrl::parse(part).map_err(|e| format!("error parsing route url [{shown:?}]: {e}"))
        })
        .collect()
}

impl Flags {
    /// Reads flags alone, without the executable's name: for tests and embedding.
    ///
    /// # Errors
    /// The first mistake's text.
    pub fn parse(args: &[&str]) -> Result<Flags, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        match read_words(&args) {
            Ok(words) if words.stray.is_empty() => Ok(words.flags),
            Ok(words) => Err(format!("unrecognized command: {:?}", words.stray[0])),
            Err(BadWord::Usage(text) | BadWord::Meaning(text)) => Err(text),
        }
    }

    /// Puts the flags over what the file said.
    pub(super) fn apply(&self, draft: &mut Draft) -> Result<(), String> {
        fn over<T: Clone>(place: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                *place = value.clone();
            }
        }
        fn over_text(place: &mut Option<String>, flag: &Option<String>) {
            if let Some(value) = flag.as_ref().filter(|v| !v.is_empty()) {
                *place = Some(value.clone());
            }
        }
        let o = &mut draft.options;
        over(&mut o.host, &self.host);
        // As in nats-server, port 0 leaves what the file says.
        over(&mut o.port, &self.port.filter(|p| *p != 0));
        over_text(&mut o.server_name, &self.server_name);
        over_text(&mut o.client_advertise, &self.client_advertise);
        over_text(&mut o.pid_file, &self.pid_file);
        over_text(&mut o.ports_file_dir, &self.ports_file_dir);
        over(&mut draft.http_port, &self.http_port.filter(|p| *p != 0));
        over(&mut draft.https_port, &self.https_port.filter(|p| *p != 0));
        over_text(&mut o.log.file, &self.log_file);
        over(&mut o.log.logtime, &self.logtime);
        over(&mut o.log.logtime_utc, &self.logtime_utc);
        over(&mut o.log.syslog, &self.syslog);
        over_text(&mut o.log.remote_syslog, &self.remote_syslog);
        over(&mut o.log.debug, &self.debug);
        over(&mut o.log.trace, &self.trace);
        over(&mut o.log.trace_verbose, &self.trace_verbose);
        over(&mut o.log.file_size_limit, &self.log_size_limit);
        if let Some(n) = self.max_traced_msg_len {
            o.log.max_traced_msg_len = usize::try_from(n).ok().filter(|n| *n > 0);
        }
        if let Some(port) = self.profile {
            o.prof_port = (port != 0).then_some(port);
        }
        over_text(&mut o.authorization.user, &self.user);
        if let Some(pass) = &self.pass {
            o.authorization.password = Some(pass.clone());
        }
        if let Some(token) = &self.auth {
            o.authorization.token = Some(token.clone());
        }
        over(&mut draft.jetstream_on, &self.jetstream);
        if let Some(dir) = &self.store_dir {
            draft.store_dir = Some(dir.clone());
        }
        self.apply_tls(o)?;
        self.apply_cluster(o)
    }

    fn apply_tls(&self, o: &mut Options) -> Result<(), String> {
        if self.tls == Some(false) {
            o.tls = None;
            return Ok(());
        }
        let files = [&self.tls_cert, &self.tls_key, &self.tls_ca_cert];
        if self.tls.is_none() && self.tls_verify != Some(true) && files.iter().all(|f| f.is_none()) {
            return Ok(());
        }
        let tls = o.tls.get_or_insert_default();
        let given = tls.certificates.first();
        let cert_file = self.tls_cert.clone().or_else(|| given.map(|g| g.cert_file.clone()));
        let key_file = self.tls_key.clone().or_else(|| given.map(|g| g.key_file.clone()));
        let cert_file = cert_file.ok_or("TLS Server certificate must be present and valid")?;
        let key_file = key_file.ok_or("TLS Server private key must be present and valid")?;
        if self.tls_cert.is_some() || self.tls_key.is_some() || tls.certificates.is_empty() {
            tls.certificates = vec![CertificateFiles { cert_file, key_file }];
        }
        if let Some(ca) = &self.tls_ca_cert {
            tls.ca_file = Some(ca.clone());
        }
        if let Some(verify) = self.tls_verify {
            tls.verify = verify;
        }
        Ok(())
    }

    fn apply_cluster(&self, o: &mut Options) -> Result<(), String> {
        match &self.cluster {
            None => {}
            Some(None) => o.cluster = None,
            Some(Some(url)) => {
                let c = o.cluster.get_or_insert_with(ClusterOptions::default);
                c.host.clone_from(&url.host);
                c.port = url.port.filter(|p| *p != 0).unwrap_or(-1);
                if url.user.is_some() {
                    c.user.clone_from(&url.user);
                    c.password.clone_from(&url.password);
                }
            }
        }
        let touched = self.cluster_name.is_some()
            || self.no_advertise.is_some()
            || self.cluster_advertise.is_some()
            || self.connect_retries.is_some();
        if touched && self.cluster != Some(None) {
            let c = o.cluster.get_or_insert_with(ClusterOptions::default);
            if let Some(name) = self.cluster_name.as_ref().filter(|n| !n.is_empty()) {
                c.name = Some(name.clone());
            }
            if let Some(no) = self.no_advertise {
                c.no_advertise = no;
            }
            if let Some(advertise) = self.cluster_advertise.as_ref().filter(|a| !a.is_empty()) {
                c.advertise = Some(advertise.clone());
            }
            if let Some(n) = self.connect_retries {
                c.connect_retries = n;
            }
        }
        let Some(routes) = self.routes.as_ref().filter(|r| !r.is_empty()) else { return Ok(()) };
        match o.cluster.as_mut().filter(|c| c.port != 0) {
            Some(c) => c.routes.clone_from(routes),
            None => {
                return Err("solicited routes require cluster capabilities, e.g. --cluster".to_string());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn all_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}
