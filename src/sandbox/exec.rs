//! One more process for a container that is there: the namespaces of its init,
//! joined by one setns, and the last steps of an init.

use std::convert::Infallible;
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chroot, fchdir};

use super::privileges::Groups;
use super::protocol::{Channel, Message, Started};
use super::spawn::{by_helper, explain_clone, never_ran, set_oom_score_adj};
use super::task::{self, Task};
use super::{Interrupts, Options, Spawned, console, init, labels, program, scheduling};
use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::spec::{ExecPlan, rootless};
use crate::sys::caller::caller;
use crate::sys::process::{self, CloneHow, clone_child, pidfd_send_signal};
use crate::sys::sched;
use crate::sys::signals;
use crate::trace::{self, Role};

/// The container's init, as `exec` needs it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Init's pid, as this process sees it.
    pub pid: Pid,
    /// Init's pidfd.
    pub pidfd: BorrowedFd<'a>,
    /// The kinds of namespaces that the container does not share with its maker.
    pub namespaces: CloneFlags,
    /// The root of its mount namespace is not the container's: init is in a chroot.
    pub in_chroot: bool,
}

/// What a process is made from.
#[derive(Debug, Clone, Copy)]
pub struct ExecArgs<'a> {
    /// The plan.
    pub plan: &'a ExecPlan,
    /// Choices of the caller; what is about a new root means nothing here.
    pub options: Options,
    /// Whom to join.
    pub target: Target<'a>,
    /// The cgroup that it is born in, open; `None`: the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The runtime has something to do before the program runs.
    pub waits: bool,
    /// Signals that end the command, if it is to hear of them before there is a process.
    pub(crate) interrupts: Option<&'a Interrupts>,
}

/// What the process has, from its birth on.
struct Process<'a> {
    plan: &'a ExecPlan,
    options: Options,
    target: Target<'a>,
    channel: Channel,
    /// Namespaces of init that it is not in yet.
    joins: CloneFlags,
    /// One of them, or of those that it is in, is a user namespace.
    joins_users: bool,
    /// The root of init, where it is a chroot.
    root: Option<OwnedFd>,
    groups: Groups,
    waits: bool,
}

/// True if init is in a user namespace that this process is not in. Its maker may
/// have been in there himself.
///
/// # Errors
/// Init has ended.
pub fn joins_users(target: &Target<'_>) -> Result<bool> {
    if !target.namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        return Ok(false);
    }
    let inode = |process: &dyn Display| {
        std::fs::metadata(format!("/proc/{process}/ns/user"))
            .map(|found| std::os::unix::fs::MetadataExt::ino(&found))
            .map_err(|e| explain_join(e.into()).step("look at the user namespace"))
    };
    Ok(inode(&target.pid)? != inode(&"self")?)
}

/// Makes the process. It is in the set-up of its own when this returns; see
/// [`Spawned::serve_exec`].
///
/// # Errors
/// Init has ended; what clone3 says (EBUSY for a cgroup that hands controllers
/// down); a signal, while nobody can be born. No process is left then.
pub fn spawn_exec(args: ExecArgs<'_>) -> Result<Spawned> {
    let ExecArgs { plan, options, target, waits, .. } = args;
    let mut joins = target.namespaces;
    let joins_users = joins_users(&target)?;
    joins.set(CloneFlags::CLONE_NEWUSER, joins_users);
    let (ours, theirs) = Channel::pair().step(|| "socketpair")?;
    let mut process = Process {
        plan,
        options,
        target,
        channel: theirs,
        joins,
        joins_users,
        root: open_root(&target)?,
        groups: groups(&target, plan, joins_users)?,
        waits,
    };
    // who can't raise it again has his own score changed as well
    init::set_own_oom_score_adj(plan.process.oom_score_adj)?;
    if let Some(processors) = &plan.first_processors {
        sched::use_processors(processors).step(|| "process.execCPUAffinity.initial")?;
    }
    // the child is in the container's pid namespace from its first moment on,
    // where others could look into this copy of the runtime (CVE-2016-9962)
    nix::sys::prctl::set_dumpable(false).step(|| "close the process to others")?;
    let how = CloneHow { cgroup: args.cgroup, ..CloneHow::default() };
    let child = trace::step("clone the process", || {
        if caller().capable {
            let pids = joins & CloneFlags::CLONE_NEWPID;
            if !pids.is_empty() {
                // children only are moved into a pid namespace; this process makes no
                // other one
                join(target.pidfd, pids)?;
                process.joins -= pids;
            }
            return clone_child(how, move || main(process)).map_err(|e| explain_birth(e.into()));
        }
        // the powers over the namespaces come with the user namespace, and with
        // it go those over what is outside
        by_helper(how, args.interrupts, move || {
            join(target.pidfd, std::mem::replace(&mut process.joins, CloneFlags::empty()))?;
            let how = CloneHow { sibling: true, ..CloneHow::default() };
            clone_child(how, move || main(process)).map_err(|e| explain_birth(e.into()))
        })
    })?;
    trace::made(Role::Process, child.pid);
    Ok(Spawned::new(ours, child))
}

/// A mount namespace that was joined at the create has its own root, which is not
/// the container's.
fn open_root(target: &Target<'_>) -> Result<Option<OwnedFd>> {
    if !target.in_chroot {
        return Ok(None);
    }
    let path = format!("/proc/{}/root", target.pid);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(path.as_str(), flags, Mode::empty()).map_err(|e| explain_join(e.into()));
    root.step(|| "open the container's root").map(Some)
}

/// Checks ids and groups against the maps of init's user namespace.
fn groups(target: &Target<'_>, plan: &ExecPlan, joins_users: bool) -> Result<Groups> {
    if !joins_users && caller().is_host_root() {
        return Ok(Groups::Free);
    }
    let (uid_map, gid_map) = rootless::maps_of(target.pid)?;
    rootless::check_ids((&uid_map, &gid_map), &plan.process, &[])?;
    Groups::in_namespace_of(target.pid, &plan.process)
}

fn join(init: BorrowedFd<'_>, namespaces: CloneFlags) -> Result<()> {
    trace::step("join namespaces", || {
        trace::across_clocks(|| {
            setns(init, namespaces)
                .map_err(|e| explain_join(e.into()))
                .step(|| "join the container's namespaces")
        })
    })
}

/// An error that may be that of an init which has ended.
fn explain_join(e: Error) -> Error {
    match e.raw_errno() {
        Some(Errno::ESRCH | Errno::ENOENT) => Error::new(ErrorKind::State, phrase::NOT_RUNNING),
        Some(Errno::EPERM | Errno::EACCES) if !caller().is_host_root() => {
            e.hint("a container belongs to the user who made it, and before its start to root")
        }
        _ => e,
    }
}

fn explain_birth(e: Error) -> Error {
    match e.raw_errno() {
        // a pid namespace whose init has ended; a cgroup that was removed
        Some(Errno::ENOMEM | Errno::ENODEV | Errno::ENOENT) => {
            Error::new(ErrorKind::State, phrase::NOT_RUNNING).step("clone3")
        }
        _ => explain_clone(e),
    }
}

/// The process' own side. An error goes to the runtime, then it ends.
fn main(mut process: Process<'_>) -> Infallible {
    trace::enter(Role::Process);
    let Err(error) = run(&mut process);
    trace::failed(&error);
    // nobody may be left to tell
    process.channel.send(&Message::Failed(error)).unwrap_or_default();
    process::exit_now(1)
}

fn run(process: &mut Process<'_>) -> Result<Infallible> {
    let (plan, options) = (process.plan, process.options);
    let task = Task::of_exec(plan);
    trace::step("leave the runtime behind", || leave_runtime(process))?;
    if let Some(value) = plan.process.oom_score_adj.filter(|_| caller().is_host_root()) {
        set_oom_score_adj("self", value)?;
    }
    task::make_session(process.target.id, options)?;
    // while /proc is the host's
    let labels = labels::open(&plan.labels)?;
    enter(process)?;
    let terminal =
        if plan.process.terminal { Some(open_terminal(&process.channel)?) } else { None };
    let program = trace::step("become the user", || {
        task.become_user(&process.channel, terminal, labels, process.groups)
    })?;
    let mut env = program::environment(&plan.process);
    if process.waits {
        trace::step("wait until the runtime is ready", || process.channel.ask(&Message::Ready))?;
    }
    task::pass_on_preserved(options)?;
    // the end of the stream means success only after this
    process.channel.send(&Message::Executing)?;
    env.extend(task::listen_pid(options));
    // the filter may not let us look at the clock
    trace::last("execve");
    task.load_filter(&process.channel)?;
    Err(program::execute(&program, &plan.process.args, &env))
}

fn leave_runtime(process: &Process<'_>) -> Result<()> {
    let mut keep = vec![process.channel.as_fd().as_raw_fd(), process.target.pidfd.as_raw_fd()];
    keep.extend(process.root.as_ref().map(AsRawFd::as_raw_fd));
    task::close_all_but(process.options, &keep)?;
    signals::reset_signals().step(|| "reset signals")?;
    use_processors(process.plan)
}

/// Without a word of the config, whatever the runtime is pinned to is none of the
/// container's. With `initial` alone the kernel has decided (config.md,
/// execCPUAffinity).
fn use_processors(plan: &ExecPlan) -> Result<()> {
    match (&plan.first_processors, &plan.last_processors) {
        (_, Some(last)) => sched::use_processors(last).step(|| "process.execCPUAffinity.final"),
        (Some(_), None) => Ok(()),
        (None, None) => sched::use_all_processors().step(|| "use all processors"),
    }
}

/// Into the namespaces that are left, the root and, in a user namespace, the
/// identity that owns things there.
fn enter(process: &mut Process<'_>) -> Result<()> {
    if !process.joins.is_empty() {
        join(process.target.pidfd, process.joins)?;
    }
    if let Some(root) = process.root.take() {
        fchdir(&root).and_then(|()| chroot(".")).step(|| "enter the container's root")?;
    }
    if process.joins_users {
        init::become_root_inside()?;
    }
    Ok(())
}

fn open_terminal(channel: &Channel) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open("/", flags, Mode::empty()).step(|| "open the container's root")?;
    let pty = console::open_pty(root.as_fd())?;
    channel.send_with(&Message::Console, Some(pty.master.as_fd()))?;
    Ok(pty.terminal)
}

impl Spawned {
    /// Serves a process of `exec` until its program runs. `finish` is called with
    /// the master of its pty when everything else is done, if the process was made
    /// to wait for it. A listener of its filter goes to `pass_on`.
    ///
    /// # Errors
    /// The step that failed, there or here; a signal that `interrupts` watches for. The
    /// process is dead then.
    pub(crate) fn serve_exec(
        &mut self,
        plan: &ExecPlan,
        finish: impl FnOnce(&Spawned, Option<BorrowedFd<'_>>) -> Result<()>,
        pass_on: Option<impl FnOnce(OwnedFd) -> Result<()>>,
        interrupts: Option<&Interrupts>,
    ) -> Result<()> {
        let mut finish = Some(finish);
        let mut console = None;
        let died = "the process was killed before its program ran";
        let serve = |message, fd| match message {
            Message::Console => {
                console = fd;
                Ok(())
            }
            Message::RaiseLimits => {
                self.raise_limits(&plan.process)?;
                self.channel.send(&Message::Go)
            }
            Message::Ready => {
                scheduling::set_outside(&plan.scheduling, self.pid())?;
                let master = console.as_ref().map(AsFd::as_fd);
                finish.take().map_or(Ok(()), |finish| finish(self, master))?;
                self.channel.send(&Message::Go)
            }
            _ => Err(Error::new(ErrorKind::System, "the process spoke out of turn")),
        };
        let served = self.channel.serve_until_execve(pass_on, interrupts, (false, died), serve);
        match served {
            Ok(Started::Executed) => {
                self.console = console;
                Ok(())
            }
            Ok(Started::Failed(error)) => {
                // who has ended already can't be killed
                pidfd_send_signal(self.pidfd(), libc::SIGKILL).unwrap_or_default();
                let unborn = never_ran(&self.child);
                self.kill();
                Err(if unborn { error.of_kind(ErrorKind::Unborn) } else { error })
            }
            Err(error) => {
                self.kill();
                Err(error)
            }
        }
    }
}
