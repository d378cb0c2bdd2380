//! One short adapter a command: words in, library calls, output out.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands talk to people"
)]

mod image;
mod umount;
mod unpack;

use crate::cli::{Cli, Command};

/// Runs a command; the answer is tare's exit code.
///
/// # Errors
/// Whatever the command failed with: one line, for `main` to print.
pub fn run(cli: Cli) -> anyhow::Result<i32> {
    match cli.command {
        Command::Image(command) => image::run(&cli.global, command),
        Command::Unpack(args) => unpack::run(&cli.global, &args),
        Command::Umount(args) => umount::run(&args),
        _ => anyhow::bail!("not yet"),
    }
}
