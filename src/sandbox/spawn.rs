//! The runtime's side: makes init with one clone3 where the kernel allows it,
//! and serves it until it is ready.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::hooks::OutputFiles;
use super::idmap::IdMaps;
use super::init::{self, Init, Join};
use super::interrupts::Interrupts;
use super::protocol::{Channel, Message};
use super::spawned::Spawned;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{Plan, namespace_name};
use crate::sys::process::{self, Child, CloneHow, clone_child, pidfd_send_signal};
use crate::sys::{SysResult, uninterrupted};
use crate::trace::{self, Role};

/// Choices of the caller that are not in the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Descriptors from 3 on that a service manager has opened for the program.
    pub listen_fds: u32,
    /// Descriptors after those that the program keeps.
    pub preserve_fds: u32,
    /// Move the root over `/` instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// A tiny init of ours as the container's first process.
    pub init: bool,
}

impl Options {
    /// First descriptor that the program does not keep.
    pub fn first_closed_fd(&self) -> u32 {
        3 + self.listen_fds + self.preserve_fds
    }
}

/// What a container's process is made from.
#[derive(Debug)]
pub struct SpawnArgs<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Choices of the caller.
    pub options: Options,
    /// The container's cgroup, open; `None`: it stays in the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The cgroup that the container is in, as a path.
    pub cgroup_path: Option<&'a Path>,
    /// It is not in that cgroup yet, and will be before [`Spawned::serve`].
    pub awaits_cgroup: bool,
    /// The id maps of its user namespace, if that is new.
    pub id_maps: Option<&'a IdMaps>,
    /// A detached mount in place of the rootfs directory.
    pub rootfs: Option<OwnedFd>,
    /// A listening socket for a later `start`; `None`: [`Spawned::start`].
    pub listener: Option<OwnedFd>,
}

/// Makes the container's init.
///
/// # Errors
/// A namespace path that is missing or of another kind; what clone3 says.
/// Nothing is left behind.
pub fn spawn(args: SpawnArgs<'_>) -> Result<Spawned> {
    let namespaces = &args.plan.namespaces;
    let mut joins = open_joins(args.plan)?;
    let (ours, theirs) = Channel::pair().step(|| "socketpair")?;
    // init makes these two itself
    let new = namespaces.new_flags() - CloneFlags::CLONE_NEWCGROUP - process::CLONE_NEWTIME;
    let in_userns = namespaces.separates(CloneFlags::CLONE_NEWUSER);
    let with_helper = !joins.is_empty() && in_userns;
    let pid_namespace = match joins.iter().position(|j| j.kind == CloneFlags::CLONE_NEWPID) {
        Some(at) if !with_helper => Some(joins.swap_remove(at)),
        _ => None,
    };
    let how = CloneHow { namespaces: new, cgroup: args.cgroup, ..CloneHow::default() };
    let hook_output = match args.plan.hooks.in_container() {
        true => OutputFiles::open(&args.plan.asked.hook_output)?,
        false => OutputFiles::default(),
    };
    let init = Init {
        plan: args.plan,
        options: args.options,
        channel: theirs,
        listener: args.listener,
        rootfs: args.rootfs,
        cgroup: args.cgroup_path,
        awaits_cgroup: args.awaits_cgroup,
        joins,
        hook_output,
    };
    let child = trace::step("clone init", || match with_helper {
        true => spawn_by_helper(how, init),
        false => in_pid_namespace(pid_namespace.as_ref(), || {
            clone_child(how, move || init::main(init)).map_err(|e| explain_clone(e.into()))
        }),
    })?;
    trace::made(Role::Init, child.pid);
    Ok(Spawned::new(ours, child))
}

pub(super) fn explain_clone(e: Error) -> Error {
    let hint = match e.raw_errno() {
        Some(Errno::EPERM) => {
            Some("new namespaces need root; a user namespace, that the system gives it to users")
        }
        Some(Errno::EACCES) => Some(
            "cgroup.procs has to be writable in the cgroup, and in the one above both it and the \
             caller: systemd-run --user --scope starts a command in a place of the user's own",
        ),
        Some(Errno::ENOSPC) => Some("a limit in /proc/sys/user/max_*_namespaces is reached"),
        Some(Errno::EAGAIN) => Some("pids.max of the cgroup or of one above it is reached"),
        Some(Errno::EBUSY) => Some("the cgroup has controllers enabled for its children"),
        Some(Errno::EOPNOTSUPP) => {
            Some("the cgroup is threaded or below such a one (cgroup.type), and takes no process")
        }
        Some(Errno::E2BIG) => Some("CLONE_INTO_CGROUP needs Linux 5.7, and tare 5.14"),
        Some(Errno::EUSERS) => Some("user namespaces are nested too deep"),
        _ => None,
    };
    let e = e.step("clone3");
    match hint {
        Some(hint) => e.hint(hint),
        None => e,
    }
}

fn open_joins(plan: &Plan) -> Result<Vec<Join>> {
    let mut joins = Vec::new();
    for join in &plan.namespaces.join {
        let kind = namespace_name(join.kind);
        let step = || format!("linux.namespaces: {kind}: {}", join.path.display());
        let fd = open(&join.path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
        match process::namespace_kind(fd.as_fd()) {
            Ok(kind) if kind == join.kind => joins.push(Join { kind: join.kind, fd }),
            Ok(kind) => {
                let found = format!("is a {} namespace", namespace_name(kind));
                return Err(Error::invalid(found).step(step()));
            }
            Err(_not_nsfs) => return Err(Error::invalid("is not a namespace").step(step())),
        }
    }
    Ok(joins)
}

/// Makes a child in another pid namespace: joining one means the children, so
/// the runtime joins, clones and goes back.
fn in_pid_namespace<T>(namespace: Option<&Join>, clone: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(namespace) = namespace else {
        return clone();
    };
    let own = open("/proc/self/ns/pid", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .step(|| "open own pid namespace")?;
    setns(&namespace.fd, CloneFlags::CLONE_NEWPID).step(|| "join the pid namespace")?;
    let made = clone();
    setns(&own, CloneFlags::CLONE_NEWPID).step(|| "go back to the own pid namespace")?;
    made
}

/// With a user namespace, joined namespaces need a second fork: those of the
/// host's user namespace have to be joined before the new one exists, and a
/// joined one gives its powers only to who is in it already.
fn spawn_by_helper(how: CloneHow<'_>, mut init: Init<'_>) -> Result<Child> {
    let helper_how = CloneHow { namespaces: CloneFlags::empty(), ..how };
    by_helper(helper_how, None, move || {
        // as in init: it is about to be seen from inside
        let scored = init::set_own_oom_score_adj(init.plan.process.oom_score_adj);
        let closed = nix::sys::prctl::set_dumpable(false).step(|| "close the helper to others");
        scored.and(closed).and_then(|()| join_all(how.namespaces, &mut init.joins))?;
        let how = CloneHow { namespaces: how.namespaces, sibling: true, ..CloneHow::default() };
        clone_child(how, move || init::main(init)).map_err(|e| explain_clone(e.into()))
    })
}

/// How many milliseconds a helper that is not frozen may take, and more.
const HELPERS_PATIENCE: u16 = 300;

/// Has a helper make a child as its own sibling; the helper ends.
///
/// # Errors
/// What `make` says; a signal that `interrupts` watches for. Neither of the two is left
/// then.
pub(super) fn by_helper(
    how: CloneHow<'_>,
    interrupts: Option<&Interrupts>,
    make: impl FnOnce() -> Result<Child>,
) -> Result<Child> {
    let (ours, theirs) = Channel::pair().step(|| "socketpair")?;
    let helper = clone_child(how, move || {
        trace::enter(Role::Helper);
        let moved = make().inspect_err(trace::failed).and_then(|child| {
            theirs.send_with(&Message::Moved(child.pid.as_raw()), Some(child.pidfd.as_fd()))
        });
        trace::leave();
        if let Err(error) = moved {
            theirs.send(&Message::Failed(error)).unwrap_or_default();
        }
        process::exit_now(0)
    })
    .map_err(|e| explain_clone(e.into()))?;
    trace::made(Role::Helper, helper.pid);
    // it ends by itself, at once: everything it does is a few system calls. In a frozen
    // cgroup it does none
    let waited = interrupts.map_or(Ok(()), |i| i.wait_for(helper.pidfd.as_fd()));
    if let Err(interrupted) = waited {
        // killed between its two steps, it would leave a child of which nobody knows
        let mut ended = [PollFd::new(helper.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, HELPERS_PATIENCE).unwrap_or_default();
        end(helper.pidfd.as_fd());
        // the child has this socket as well, and may be frozen
        if let Ok(Some((Message::Moved(_), Some(made)))) = ours.receive_now() {
            end(made.as_fd());
        }
        return Err(interrupted);
    }
    let unborn = never_ran(&helper);
    wait_for_end(helper.pidfd.as_fd()).step(|| "wait for the helper")?;
    match ours.receive()? {
        Some((Message::Moved(pid), Some(pidfd))) => Ok(Child { pid: Pid::from_raw(pid), pidfd }),
        Some((Message::Failed(error), _)) => Err(error),
        _ => {
            let kind = if unborn { ErrorKind::Unborn } else { ErrorKind::System };
            Err(Error::new(kind, "the helper that joins namespaces has died"))
        }
    }
}

/// Joins what has to be joined before the init exists, and leaves the rest in
/// the list. Namespaces of the host first; those that belong to the joined
/// user namespace are refused until that is joined.
fn join_all(new: CloneFlags, joins: &mut Vec<Join>) -> Result<()> {
    let makes_user = new.contains(CloneFlags::CLONE_NEWUSER);
    let is_user = |j: &Join| j.kind == CloneFlags::CLONE_NEWUSER;
    let mut later = Vec::new();
    let mut user = None;
    for join in joins.drain(..) {
        if is_user(&join) {
            user = Some(join);
        } else if join.kind == CloneFlags::CLONE_NEWNS && !makes_user {
            // init reads the host's files until it is set up
            later.push(join);
        } else {
            match trace::across_clocks(|| setns(&join.fd, join.kind)) {
                Err(Errno::EPERM) if !makes_user => later.push(join),
                other => {
                    other.step(|| format!("join the {} namespace", namespace_name(join.kind)))?
                }
            }
        }
    }
    if let Some(user) = user {
        init::join(&[user], |_| true)?;
        // children only are moved into a pid namespace: init would be too late
        let (pid, rest): (Vec<Join>, Vec<Join>) =
            later.into_iter().partition(|j| j.kind == CloneFlags::CLONE_NEWPID);
        init::join(&pid, |_| true)?;
        later = rest;
    }
    *joins = later;
    Ok(())
}

/// Waits for the end of a child, and tells whether it was killed before its first
/// instruction: it has touched no page then (proc_pid_stat(5), field 10). Its status
/// stays to be waited for.
pub(super) fn never_ran(child: &Child) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let ended = uninterrupted(|| waitid(Id::PIDFd(child.pidfd.as_fd()), flags));
    if !matches!(ended, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))) {
        return false;
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap_or_default();
    let faults = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(7));
    faults == Some("0")
}

/// How many milliseconds a child that does nothing may take to end.
const NEWBORN_PATIENCE: u16 = 1000;

/// Tries whether a child of this process that is born into a cgroup is killed before
/// its first instruction: else whoever was killed so early was killed by somebody. Where
/// none can be born, or one does not come to its end because the cgroup is frozen, nobody
/// knows: true.
pub(crate) fn kills_newborns(cgroup: BorrowedFd<'_>) -> bool {
    let how = CloneHow { cgroup: Some(cgroup), ..CloneHow::default() };
    let Ok(child) = clone_child(how, || process::exit_now(0)) else { return true };
    let pidfd = child.pidfd.as_fd();
    let mut ended = [PollFd::new(pidfd, PollFlags::POLLIN)];
    if !matches!(uninterrupted(|| poll(&mut ended, NEWBORN_PATIENCE)), Ok(1)) {
        // who has ended already can't be killed, and ends the wait
        pidfd_send_signal(pidfd, libc::SIGKILL).unwrap_or_default();
    }
    !matches!(wait_for_end(pidfd), Ok(WaitStatus::Exited(..)))
}

/// Kills a child and reaps it.
pub(super) fn end(child: BorrowedFd<'_>) {
    // it may have ended by itself
    pidfd_send_signal(child, libc::SIGKILL).unwrap_or_default();
    // ECHILD: it has been reaped before
    wait_for_end(child).unwrap_or(WaitStatus::StillAlive);
}

pub(super) fn wait_for_end(pidfd: BorrowedFd<'_>) -> SysResult<WaitStatus> {
    uninterrupted(|| waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED))
}

/// Sets how much the kernel would like to kill a process: its pid, or `self`.
pub(super) fn set_oom_score_adj(process: impl Display, value: i32) -> Result<()> {
    let path = format!("/proc/{process}/oom_score_adj");
    let written = File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.to_string().as_bytes()));
    written.map_err(|e| {
        let e = Error::from(e).step("process.oomScoreAdj");
        let lowers = e.is_errno(Errno::EACCES);
        if lowers { e.hint("lowering it needs CAP_SYS_RESOURCE") } else { e }
    })
}
