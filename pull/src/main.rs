//! Downloads an image from a registry into an OCI layout, by the distribution
//! specification. `tare image pull` runs it and imports what it leaves.
//!
//! A program of its own, since HTTP and TLS would be most of tare's binary, and
//! no container needs them. Nothing that a registry says is trusted: every
//! document and layer is held against its digest and size while it comes.

mod args;
mod auth;
mod blob;
mod credentials;
mod http;
mod image;
mod layout;
mod net;
mod progress;
mod proxy;
mod registry;
mod retry;

use std::process::ExitCode;

use clap::Parser;
use tare::error::one_line;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            e.print().unwrap_or_default();
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    let step = format!("pull {}", args.name);
    match image::pull(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tare: {}", one_line(&e.step(step).to_string()));
            ExitCode::FAILURE
        }
    }
}
