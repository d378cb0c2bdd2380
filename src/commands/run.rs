//! `tare run`: a bundle, or an image.

use super::from_image::{self, Prepared, Rest};
use crate::cli::{GlobalArgs, RunArgs};
use crate::container::{
    self, Activation, Console, ContainerId, Created, Meanwhile, NotifySocket, Signals,
};
use crate::error::{Error, Result};
use crate::sandbox::Interrupts;
use crate::{logging, spec, trace};

pub(super) fn run(global: &GlobalArgs, args: &RunArgs) -> anyhow::Result<i32> {
    let id = ContainerId::parse(&args.create.id)?;
    trace::step("protect the binary", crate::sys::exe::protect)?;
    let prepared = prepare(global, args, &id)?;
    let signals = (!args.detach).then(Signals::block).transpose()?;
    let mut options = super::create::options(&args.create);
    options.init = args.init;
    let process = prepared.spec.process().as_ref();
    let wants_terminal = process.is_some_and(|process| process.terminal().unwrap_or(false));
    let rest = prepared.rest;
    let finish = || rest.as_ref().map_or(Ok(()), Rest::finish);
    let created = container::create(container::CreateArgs {
        id: &id,
        bundle: &prepared.bundle,
        spec: &prepared.spec,
        store: &super::store(global)?,
        console: console(args, wants_terminal)?,
        options,
        pid_file: args.create.pid_file.as_deref(),
        pidfd_socket: args.create.pidfd_socket.as_deref(),
        rootfs: prepared.rootfs,
        reserved: prepared.reserved,
        activation: Activation::from_env()?,
        notify: NotifySocket::from_env()?,
        rootless: super::rootless(global)?,
        systemd_cgroup: super::by_systemd(global),
        meanwhile: rest.is_some().then_some(Meanwhile(&finish)),
        starts_later: false,
        stays: !args.detach,
    });
    // `create` and what stays have watches of their own
    prepared.interrupts.into_iter().for_each(Interrupts::keep);
    let followed = follow(&id, created?, signals.as_ref(), args);
    // this process ends, and its descriptors with it
    std::mem::forget(signals);
    Ok(followed?)
}

fn prepare(global: &GlobalArgs, args: &RunArgs, id: &ContainerId) -> Result<Prepared> {
    if let Some(name) = &args.image.image {
        return trace::step_on("prepare the image", ("image", name), || {
            from_image::prepare(global, args, name, id)
        });
    }
    if let Some(option) = first_for_images(args) {
        return Err(Error::invalid(format!("without --image: {option}: a bundle says it itself")));
    }
    let bundle = super::create::bundle(&args.create)?;
    let spec = spec::load(&bundle)?;
    Ok(Prepared { bundle, spec, rootfs: None, reserved: None, rest: None, interrupts: None })
}

/// What was given that has a meaning for images only.
fn first_for_images(args: &RunArgs) -> Option<&'static str> {
    let words = &args.image;
    let given = [
        ("--volume", !words.volumes.is_empty()),
        ("--env", !words.env.is_empty()),
        ("--workdir", words.workdir.is_some()),
        ("--user", words.user.is_some()),
        ("--hostname", words.hostname.is_some()),
        ("--net", words.net.is_some()),
        ("--memory", words.memory.is_some()),
        ("--cpus", words.cpus.is_some()),
        ("--pids-limit", words.pids_limit.is_some()),
        ("--read-only", words.read_only),
        ("--tty", words.tty),
        ("--ref", words.select.reference.is_some()),
        ("--platform", words.select.platform.is_some()),
        ("arguments after --", !args.args.is_empty()),
    ];
    given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
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
fn follow(
    id: &ContainerId,
    mut created: Created,
    signals: Option<&Signals>,
    args: &RunArgs,
) -> Result<i32> {
    let console = created.take_console();
    if let Err(e) = created.start() {
        return Err(e.undone(created.destroy()));
    }
    let running = created.unlock();
    let Some(signals) = signals else {
        running.await_ready()?;
        return Ok(0);
    };
    let waited = trace::step("wait for the program", || {
        container::wait(running.spawned().pidfd(), signals, console, running.listener())
    });
    // a program that ended well needs no reason
    if let Some(oom) =
        waited.as_ref().is_ok_and(|code| *code != 0).then(|| running.out_of_memory()).flatten()
    {
        logging::warn(&format!("run {id}: {oom}"));
    }
    // whatever the wait failed with: nobody watches the container any more
    let finished =
        trace::step("remove the container", || running.finish(args.keep, waited.is_ok()))
            .map_err(|e| e.hint("what is left of the container goes with tare delete --force"));
    let code = waited?;
    finished?;
    Ok(code)
}
