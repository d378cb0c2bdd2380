//! The command line, parsed with no more of it described than is asked for.

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Subcommand};

use super::{Cli, Command, GlobalArgs, plain};

/// Parses a command line, whose first word is the program's.
///
/// What every command takes is copied by clap into each command there is, which
/// for twenty of them is most of the work; here, only commands whose name is among
/// the words are there. Whatever is wrong then is said by the whole description.
///
/// # Errors
/// Wrong words, or words that ask for help.
pub fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    if let Some(cli) = plain::read(words) {
        return Ok(cli);
    }
    let some = named(words).and_then(|some| some.try_get_matches_from(words).ok());
    match some.and_then(|matches| Cli::from_arg_matches(&matches).ok()) {
        Some(cli) => Ok(cli),
        None => Cli::from_arg_matches(&Cli::command().try_get_matches_from(words)?),
    }
}

fn named(words: &[OsString]) -> Option<clap::Command> {
    let all = Command::augment_subcommands(clap::Command::new("tare"));
    let is_named = |c: &&clap::Command| words.iter().skip(1).any(|word| word == c.get_name());
    let named: Vec<clap::Command> = all.get_subcommands().filter(is_named).cloned().collect();
    let some = clap::Command::new("tare").args_override_self(true);
    let some = some.disable_version_flag(true).disable_help_subcommand(true);
    (!named.is_empty()).then(|| GlobalArgs::augment_args(some).subcommands(named))
}
