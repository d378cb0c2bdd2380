//! `tare exec`.

use crate::cli::{ExecArgs, GlobalArgs};
use crate::container::{self, Activation, ContainerId, ExecWords, Signals};
use crate::trace;

pub(super) fn run(global: &GlobalArgs, args: &ExecArgs) -> anyhow::Result<i32> {
    let id = ContainerId::parse(&args.id)?;
    trace::step("protect the binary", crate::sys::exe::protect)?;
    let entry = super::store(global)?.find(&id)?;
    let signals = (!args.detach).then(Signals::block).transpose()?;
    let mut spawned = container::exec(
        &entry,
        &container::ExecArgs {
            words: words(args),
            detach: args.detach,
            console_socket: args.console_socket.as_deref(),
            pidfd_socket: args.pidfd_socket.as_deref(),
            pid_file: args.pid_file.as_deref(),
            preserve_fds: args.preserve_fds,
            activation: Activation::from_env()?,
            cgroup: args.cgroup.clone(),
            ignore_paused: args.ignore_paused,
        },
    )?;
    let Some(signals) = signals else { return Ok(0) };
    let console = spawned.take_console();
    let waited = trace::step("wait for the program", || {
        container::wait(spawned.pidfd(), &signals, console, None)
    });
    if waited.is_err() {
        // nobody watches it any more
        spawned.kill();
    }
    Ok(waited?)
}

fn words(args: &ExecArgs) -> ExecWords {
    ExecWords {
        process: args.process.clone(),
        args: args.command.clone(),
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        user: args.user.clone(),
        additional_gids: args.additional_gids.clone(),
        caps: args.cap.clone(),
        tty: args.tty,
        no_new_privs: args.no_new_privs,
        apparmor: args.apparmor.clone(),
        process_label: args.process_label.clone(),
    }
}
