//! The `fulmar` binary: a server that speaks the NATS protocol.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(u8::try_from(server::main()).unwrap_or(1))
}
