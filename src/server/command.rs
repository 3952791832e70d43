//! The command line, from words to an exit code.

use env::signal::{self, Signal, Signals};

use crate::{
    Server, StartError, files,
    options::{
        Command,
        flags::{self, SignalTarget, SignalWord},
    },
};

/// Runs what the process's arguments ask for and returns the exit code.
pub fn main() -> i32 {
    // What clients choose stands in tables under a key that they do not know.
    let first = keyed::seed(env::rng("keys of tables").next_u64());
    debug_assert!(first, "something was hashed before");
    env::run(run()).unwrap_or_else(|e| {
        print_error(&format!("the runtime cannot be started: {e}\n"));
        1
    })
}

async fn run() -> i32 {
    let args: Vec<_> = std::iter::once(env::process::exe_name()).chain(env::process::args()).collect();
    let command = files::with_files(|source| flags::command(&args, source)).await;
    if let Some(text) = command.text() {
        print(&text.stdout);
        print_error(&text.stderr);
        return text.code;
    }
    match command {
        Command::Run(start) => {
            for w in &start.warnings {
                print_error(&format!("{w}\n"));
            }
            serve(*start).await
        }
        Command::Signal { word, target } => match send_signal(word, target).await {
            Ok(()) => 0,
            Err(e) => {
                print_error(&format!("{}: {e}\n", executable()));
                1
            }
        },
        // Everything else had a text.
        _ => 0,
    }
}

async fn serve(start: flags::Start) -> i32 {
    let missing = crate::options::unsupported(&start.options);
    if !missing.is_empty() {
        for m in missing {
            print_error(&format!("{}: {m}\n", executable()));
        }
        return 1;
    }
    let server = match Server::new(start.options, start.flags) {
        Ok(s) => s,
        Err(StartError(lines)) => {
            for l in lines {
                print_error(&format!("{}: {l}\n", executable()));
            }
            return 1;
        }
    };
    crate::heard::hear(&server.log);
    match Signals::listen() {
        Ok(signals) => {
            env::spawn(server.clone().follow_signals(signals));
        }
        Err(e) => server.log.warn(format_args!("signals cannot be followed: {e}")),
    }
    let code = server.run().await;
    // The process is about to end, and the system takes back at once what freeing piece by piece would take long for.
    std::mem::forget(server);
    code
}

async fn send_signal(word: SignalWord, target: SignalTarget) -> Result<(), String> {
    let pid = match target {
        SignalTarget::Pid(pid) => pid,
        SignalTarget::PidFile(path) => {
            let bytes =
                env::disk::Disk::os().read(&path).await.map_err(|_| format!("invalid pid: {path}"))?;
            let text = String::from_utf8_lossy(&bytes).trim().to_string();
            text.parse().map_err(|_| format!("invalid pid: {text}"))?
        }
        SignalTarget::OnlyProcess => {
            let name = executable();
            let own = env::process::id();
            let mut found =
                signal::find(&name).map_err(|e| format!("unable to resolve pid, try providing one: {e}"))?;
            found.retain(|p| *p != own);
            match found[..] {
                [one] => one as i32,
                [] => return Err(format!("no {name} processes running")),
                _ => {
                    let list: Vec<_> = found.iter().map(u32::to_string).collect();
                    return Err(format!("multiple {name} processes running:\n{}", list.join("\n")));
                }
            }
        }
    };
    let signal = match word {
        SignalWord::Stop => Signal::Kill,
        SignalWord::Quit => Signal::Interrupt,
        SignalWord::Term => Signal::Terminate,
        SignalWord::Reopen => Signal::User1,
        SignalWord::LameDuck => Signal::User2,
        SignalWord::Reload => Signal::Hangup,
    };
    let pid = u32::try_from(pid).map_err(|_| format!("invalid pid: {pid}"))?;
    signal::send(pid, signal).map_err(|e| format!("signal {:?} {pid}: {}", word.word(), files::plain(&e)))
}

/// The name under which this program was started.
fn executable() -> String {
    flags::executable_name(&env::process::exe_name())
}

#[allow(clippy::print_stdout)]
fn print(text: &str) {
    print!("{text}");
}

#[allow(clippy::print_stderr)]
fn print_error(text: &str) {
    eprint!("{text}");
}
