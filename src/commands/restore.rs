//! `tare restore`.

use crate::cli::{GlobalArgs, RestoreArgs};
use crate::container::{self, Activation, Console, ContainerId, Signals};
use crate::error::{Error, Result};
use crate::sandbox::Options;
use crate::spec;

pub(super) fn run(global: &GlobalArgs, args: &RestoreArgs) -> anyhow::Result<i32> {
    let id = ContainerId::parse(&args.id)?;
    let bundle = super::absolute(&args.bundle)?;
    let spec = spec::load(&bundle)?;
    let terminal = spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false));
    let signals = (!args.detach).then(Signals::block).transpose()?;
    let mut restored = container::restore(container::RestoreArgs {
        create: container::CreateArgs {
            id: &id,
            bundle: &bundle,
            spec: &spec,
            store: &super::store(global)?,
            console: console(args, terminal)?,
            options: Options::default(),
            pid_file: args.pid_file.as_deref(),
            pidfd_socket: None,
            rootfs: None,
            reserved: None,
            activation: Activation::default(),
            notify: None,
            meanwhile: None,
            starts_later: false,
            stays: !args.detach,
            rootless: super::rootless(global)?,
            systemd_cgroup: super::by_systemd(global),
        },
        words: super::checkpoint::words(&args.criu)?,
        lsm_profile: args.lsm_profile.as_deref(),
        lsm_mount_context: args.lsm_mount_context.as_deref(),
        tcp_close: args.tcp_close,
    })?;
    let console = restored.take_console();
    let running = restored.unlock();
    let Some(signals) = signals else { return Ok(0) };
    let waited = container::wait(running.pidfd(), &signals, console, None);
    let finished = running
        .finish(waited.is_ok())
        .map_err(|e| e.hint("what is left of the container goes with tare delete --force"));
    let code = waited?;
    finished?;
    Ok(code)
}

fn console(args: &RestoreArgs, terminal: bool) -> Result<Console> {
    match (&args.console_socket, args.detach) {
        (Some(_), false) => Err(Error::invalid(
            "--console-socket goes with --detach: in the foreground the terminal is yours",
        )),
        (Some(path), true) => Ok(Console::Socket(path.clone())),
        (None, false) if terminal => Ok(Console::Own),
        (None, _) => Ok(Console::None),
    }
}
