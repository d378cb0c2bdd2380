//! One short adapter a command: words in, library calls, output out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "commands talk to people")]

mod checkpoint;
mod create;
mod delete;
mod doctor;
mod duration;
mod events;
mod exec;
mod features;
mod from_image;
mod image;
mod kill;
mod list;
mod pause;
mod ps;
mod pull;
mod restore;
mod run;
mod shape;
mod spec;
mod start;
mod state;
mod stats;
mod table;
mod trace;
mod umount;
mod unpack;
mod update;
mod volume;
mod volumes;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{CgroupManager, Cli, Command, GlobalArgs, LogFormat, LogLevel};
use crate::container::{ContainerId, Entry, Store};
use crate::error::{Error, Result, Step};
use crate::sys::caller::caller;

/// Runs a command; the answer is tare's exit code.
///
/// # Errors
/// Whatever the command failed with: one line, for `main` to print.
pub fn run(cli: Cli) -> anyhow::Result<i32> {
    let global = &cli.global;
    if global.version {
        print_version()?;
        return Ok(0);
    }
    let Some(command) = cli.command else {
        anyhow::bail!("no command: see tare --help");
    };
    // a caller that ignores it would take the exit codes of our children away
    crate::sys::signals::default_signal(libc::SIGCHLD).step(|| "reset SIGCHLD")?;
    let json = global.log_format == LogFormat::Json;
    let debug = global.debug || global.log_level == Some(LogLevel::Debug);
    crate::logging::open(global.log.as_deref(), json, debug)?;
    // not its words: the values of variables may be among them
    let version = env!("CARGO_PKG_VERSION");
    crate::logging::debug(|| format!("tare {version}, process {}", std::process::id()));
    let result = dispatch(global, command);
    if let Err(e) = &result {
        crate::logging::error(&format!("{e:#}"), e.downcast_ref::<Error>());
    }
    result
}

/// Puts words that are not understood into the log that they name: an engine shows
/// nothing else. `message` is clap's, of several lines.
pub fn log_words(words: &[OsString], message: &str) {
    // what comes after the command may be a program's, and some user's
    let all = Cli::command();
    let ends =
        |word: &&OsString| *word == "--" || all.get_subcommands().any(|c| *word == c.get_name());
    let before: Vec<&OsString> = words.iter().skip(1).take_while(|word| !ends(word)).collect();
    let value = |name: &str| {
        let mut rest = before.iter().copied().skip_while(|word| {
            *word != name && word.to_str().is_none_or(|w| !w.starts_with(&format!("{name}=")))
        });
        let word = rest.next()?;
        match word.to_str().and_then(|word| word.split_once('=')) {
            Some((_, value)) => Some(OsString::from(value)),
            None => rest.next().cloned(),
        }
    };
    let Some(path) = value("--log") else { return };
    let json = value("--log-format").is_some_and(|format| format == "json");
    // it is told on stderr already, and the words are the first thing to put right
    if crate::logging::open(Some(Path::new(&path)), json, false).is_ok() {
        let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty());
        let line = lines.collect::<Vec<_>>().join(" ");
        crate::logging::error(line.strip_prefix("error: ").unwrap_or(&line), None);
    }
}

/// The exit code of a command that fails: callers of `exec` take 1 for the code of
/// its process.
pub fn failure_code(cli: &Cli) -> u8 {
    if matches!(cli.command, Some(Command::Exec(_))) { 255 } else { 1 }
}

/// Prints what callers parse: the name, the word `version` and the version, then
/// the specification's.
///
/// # Errors
/// stdout is closed or full.
pub fn print_version() -> std::io::Result<()> {
    let text = concat!("tare version ", env!("CARGO_PKG_VERSION"), "\ncommit: ");
    let commit = option_env!("TARE_COMMIT").unwrap_or("unknown");
    let spec = crate::spec::OCI_VERSION;
    std::io::stdout().write_all(format!("{text}{commit}\nspec: {spec}\n").as_bytes())
}

fn dispatch(global: &GlobalArgs, command: Command) -> anyhow::Result<i32> {
    check(global)?;
    crate::trace::open(global.trace.as_deref())?;
    let done = |result: anyhow::Result<()>| result.map(|()| 0);
    let (step, result) = match command {
        Command::Create(args) => (format!("create {}", args.id), done(create::run(global, &args))),
        Command::Start(args) => (format!("start {}", args.id), done(start::run(global, &args))),
        Command::Run(args) => (format!("run {}", args.create.id), run::run(global, &args)),
        Command::Exec(args) => (format!("exec {}", args.id), exec::run(global, &args)),
        Command::State(args) => (format!("state {}", args.id), done(state::run(global, &args))),
        Command::Kill(args) => (format!("kill {}", args.id), done(kill::run(global, &args))),
        Command::Delete(args) => (format!("delete {}", args.id), done(delete::run(global, &args))),
        Command::Pause(args) => (format!("pause {}", args.id), done(pause::run(global, &args))),
        Command::Resume(args) => {
            (format!("resume {}", args.id), done(pause::run_resume(global, &args)))
        }
        Command::Ps(args) => (format!("ps {}", args.words.join(" ")), done(ps::run(global, &args))),
        Command::Update(args) => (format!("update {}", args.id), done(update::run(global, &args))),
        Command::Checkpoint(args) => {
            (format!("checkpoint {}", args.id), done(checkpoint::run(global, &args)))
        }
        Command::Restore(args) => (format!("restore {}", args.id), restore::run(global, &args)),
        Command::List(args) => ("list".to_owned(), done(list::run(global, &args))),
        Command::Events(args) => (format!("events {}", args.id), done(events::run(global, &args))),
        Command::Stats(args) => ("stats".to_owned(), done(stats::run(global, &args))),
        Command::Features => ("features".to_owned(), done(features::run())),
        Command::Spec(args) => ("spec".to_owned(), done(spec::run(&args))),
        Command::Image(command) => ("image".to_owned(), image::run(global, command.into_inner())),
        Command::Volume(command) => ("volume".to_owned(), done(volume::run(global, &command))),
        Command::Unpack(args) => (format!("unpack {}", args.image), unpack::run(global, &args)),
        Command::Umount(args) => (format!("umount {}", args.bundle.display()), umount::run(&args)),
        Command::Trace(args) => (format!("trace {}", args.file.display()), done(trace::run(&args))),
        Command::Doctor(args) => ("doctor".to_owned(), doctor::run(global, &args)),
    };
    crate::trace::finish(&step, result.as_ref().err().map(|e| e as &dyn Display));
    result.context(step)
}

fn check(global: &GlobalArgs) -> Result<()> {
    if global.cgroup_manager == Some(CgroupManager::Disabled) {
        return Err(Error::unsupported(
            "--cgroup-manager=disabled: a container has a cgroup wherever there can be one",
        ));
    }
    rootless(global).map(drop)
}

/// Whether systemd is to make cgroups.
fn by_systemd(global: &GlobalArgs) -> bool {
    global.systemd_cgroup || global.cgroup_manager == Some(CgroupManager::Systemd)
}

/// Whether to do without what only the machine's root is sure to have.
fn rootless(global: &GlobalArgs) -> Result<bool> {
    let given = global.rootless.as_str();
    if given == "auto" {
        return Ok(!caller().is_host_root());
    }
    crate::cli::truth(given)
        .ok_or_else(|| Error::invalid(format!("--rootless={given}: give true, false or auto")))
}

/// The step that an answer is on its way out.
const PRINTING: &str = "write to stdout";

/// For commands that work on the files of images: they have many owners and any
/// mode, which needs root, if only in a user namespace.
fn become_root_of_files() -> Result<()> {
    match caller().capable {
        true => Ok(()),
        false => crate::sandbox::userns::enter(),
    }
}

fn store(global: &GlobalArgs) -> Result<Store> {
    let root = match &global.root {
        Some(root) => absolute(root)?,
        None => Store::default_root()?,
    };
    Ok(Store::new(root))
}

fn find(global: &GlobalArgs, id: &str) -> Result<Entry> {
    store(global)?.find(&ContainerId::parse(id)?)
}

/// A path as it is from anywhere: links stay as they are.
fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}
