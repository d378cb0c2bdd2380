//! One short adapter a command: words in, library calls, output out.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands talk to people"
)]

use crate::cli::{Cli, Command};

/// Runs a command; the answer is tare's exit code.
///
/// # Errors
/// Whatever the command failed with: one line, for `main` to print.
pub fn run(cli: Cli) -> anyhow::Result<i32> {
    match cli.command {
        Command::Image(_) | Command::Unpack(_) | Command::Umount(_) => anyhow::bail!("not yet"),
        _ => anyhow::bail!("not yet"),
    }
}
