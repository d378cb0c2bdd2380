//! `tare run`: a bundle, or an image.

use crate::cli::{GlobalArgs, RunArgs};
use crate::container::{self, Console, ContainerId, Created, Signals};
use crate::error::{Error, Result};
use crate::spec;

pub(super) fn run(global: &GlobalArgs, args: &RunArgs) -> anyhow::Result<i32> {
    super::refuse_systemd(global)?;
    crate::sys::exe::protect()?;
    let id = ContainerId::parse(&args.create.id)?;
    let bundle = super::create::bundle(&args.create)?;
    let spec = spec::load(&bundle)?;
    let signals = (!args.detach).then(Signals::block).transpose()?;
    let mut options = super::create::options(&args.create);
    options.init = args.image.init;
    let wants_terminal =
        spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false));
    let created = container::create(container::CreateArgs {
        id: &id,
        bundle: &bundle,
        spec: &spec,
        store: &super::store(global)?,
        console: console(args, wants_terminal)?,
        options,
        pid_file: args.create.pid_file.as_deref(),
        rootfs: None,
        scratch: None,
        starts_later: false,
    })?;
    Ok(follow(created, signals.as_ref(), args.keep)?)
}

fn console(args: &RunArgs, wants_terminal: bool) -> Result<Console> {
    match (&args.create.console_socket, args.detach) {
        (Some(_), false) => Err(Error::invalid(
            "--console-socket goes with --detach: in the foreground the terminal is yours",
        )),
        (Some(path), true) => Ok(Console::Socket(path.clone())),
        (None, false) if wants_terminal => Ok(Console::Own),
        (None, _) => Ok(Console::None),
    }
}

/// Starts the program; in the foreground, waits for it and removes the
/// container.
fn follow(mut created: Created, signals: Option<&Signals>, keep: bool) -> Result<i32> {
    let console = created.take_console();
    if let Err(e) = created.start() {
        return Err(match created.destroy() {
            Ok(()) => e,
            Err(left) => e.hint(format!("and its undoing failed: {left}")),
        });
    }
    let Some(signals) = signals else { return Ok(0) };
    let running = created.unlock();
    let code = container::wait(running.spawned(), signals, console)?;
    running.finish(keep)?;
    Ok(code)
}
