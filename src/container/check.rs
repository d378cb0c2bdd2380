//! What `create` checks beside the configuration itself: the file system, the
//! command line, and who calls.

use nix::sched::CloneFlags;

use super::create::{Console, CreateArgs};
use crate::error::{Error, Result};
use crate::sandbox::Options;
use crate::spec::{Plan, rootless};
use crate::sys::caller::{caller, is_capable};

/// Refuses what can't become a container, before anything is touched.
///
/// # Errors
/// What is wrong, by its field or option.
pub(super) fn check(args: &CreateArgs<'_>, plan: &Plan) -> Result<()> {
    match (&args.console, plan.process.terminal) {
        (Console::None, true) => {
            return Err(Error::invalid(
                "process.terminal: is true: give --console-socket, or run in the foreground",
            ));
        }
        (Console::Socket(_), false) => {
            return Err(Error::invalid(
                "--console-socket is given, but process.terminal is not true",
            ));
        }
        _ => {}
    }
    check_forks(args.options, plan)?;
    crate::sandbox::labels::check(&plan.labels)?;
    check_namespaces(plan)?;
    if args.rootfs.is_none() {
        let path = &plan.rootfs.path;
        let found = std::fs::metadata(path).map_err(|e| {
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            let e = if missing { Error::invalid("does not exist") } else { Error::from(e) };
            e.step(format!("root.path: {}", path.display()))
        })?;
        if !found.is_dir() {
            return Err(Error::invalid(format!(
                "root.path: {} is not a directory",
                path.display()
            )));
        }
    }
    check_fds(args.options)
}

/// Refuses descriptors to pass on that are not there.
pub(super) fn check_fds(options: Options) -> Result<()> {
    for fd in 3..options.first_closed_fd() {
        if !crate::sys::process::is_inherited(i32::try_from(fd).unwrap_or(-1)) {
            let who = match fd < 3 + options.listen_fds {
                true => format!("LISTEN_FDS={}", options.listen_fds),
                false => format!("--preserve-fds {}", options.preserve_fds),
            };
            return Err(Error::invalid(format!("{who}: descriptor {fd} is not open")));
        }
    }
    Ok(())
}

/// A scheduling policy that a child does not inherit, or that forbids children.
fn check_forks(options: Options, plan: &Plan) -> Result<()> {
    let Some(reason) = plan.scheduling.forbids_fork() else { return Ok(()) };
    if options.init {
        return Err(Error::invalid(format!(
            "--init: would run the program as a child: {reason} (process.scheduler)"
        )));
    }
    if plan.scheduling.is_alone() && !plan.hooks.start_container.is_empty() {
        return Err(Error::invalid(format!("hooks.startContainer: {reason} (process.scheduler)")));
    }
    Ok(())
}

/// Whoever has no power over the machine gets it in a user namespace alone.
fn check_namespaces(plan: &Plan) -> Result<()> {
    if plan.namespaces.separates(CloneFlags::CLONE_NEWUSER) || caller().is_host_root() {
        return Ok(());
    }
    if is_capable() {
        let (uid_map, gid_map) = rootless::own_maps()?;
        return rootless::check_ids((&uid_map, &gid_map), &plan.process, &plan.mounts)
            .map_err(|e| e.hint("of the user namespace that tare runs in: more of them come from /etc/subuid and /etc/subgid"));
    }
    Err(Error::invalid("linux.namespaces: a container of an ordinary user needs a user namespace")
        .hint("tare spec --rootless writes a config with one"))
}
