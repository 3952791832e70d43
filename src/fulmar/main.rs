//! The `fulmar` binary: a server that speaks the NATS protocol, and tools for its data.

mod store_tool;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = env::process::args().into_iter().take(6).collect();
    if args.first().is_some_and(|a| a == "store") {
        return ExitCode::from(store_tool::main(&args[1..]));
    }
    ExitCode::from(u8::try_from(server::main()).unwrap_or(1))
}
