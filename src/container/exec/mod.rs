//! `exec`: one more process in a container.
//!
//! It needs no lock: the end of a container's pid namespace is the end of every
//! process in it, those that are just being made included. A container without
//! one has its processes ended by its cgroup, and there a `delete` waits until
//! the process is in it.

mod kept;
mod words;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::activation::Activation;
use super::agent::Agent;
use super::check::check_fds;
use super::record::{InitProcess, Record};
use super::store::Entry;
use super::{create, rdt, terminal};
use crate::cgroup::{self, Cgroup, CgroupRecord, Hierarchy};
use crate::error::{Error, ErrorKind, Result, Step, phrase};
use crate::sandbox::exec::{ExecArgs as SpawnArgs, Target, joins_users, spawn_exec};
use crate::sandbox::{Interrupts, Options, Spawned, kills_newborns, labels};
use crate::spec::ExecPlan;
use crate::sys::fs::open_plain;
use crate::trace;

pub(super) use kept::{Kept, NAME as KEPT};
pub use words::ExecWords;

/// What a process is made from.
#[derive(Debug)]
pub struct ExecArgs<'a> {
    /// What the caller says of the process.
    pub words: ExecWords,
    /// Nobody waits for it.
    pub detach: bool,
    /// Who gets the pty, if the caller does not.
    pub console_socket: Option<&'a Path>,
    /// Who gets a pidfd of the process.
    pub pidfd_socket: Option<&'a Path>,
    /// A file for its pid.
    pub pid_file: Option<&'a Path>,
    /// Descriptors after those of `activation` that it keeps.
    pub preserve_fds: u32,
    /// Sockets that a service manager has opened for it.
    pub activation: Activation,
    /// A cgroup below the container's; `/` is that one and no other.
    pub cgroup: Option<PathBuf>,
    /// Do not mind that it can run only when the container goes on.
    pub ignore_paused: bool,
}

/// Runs a process in a container.
///
/// # Errors
/// The container has ended, or is paused; bad input, which is refused before
/// there is a process; the step of the process' set-up that failed.
pub fn exec(entry: &Entry, args: &ExecArgs<'_>) -> Result<Spawned> {
    let mut record = entry.load_settled()?.ok_or_else(not_created)?;
    // read again: whoever had the lock may have changed or removed it
    let _lock = match record.own_pid_namespace {
        true => None,
        false => {
            let lock = entry.share()?;
            record = entry.load()?.ok_or_else(not_created)?;
            Some(lock)
        }
    };
    let init = record.init.ok_or_else(not_created)?;
    let pidfd = init.open()?.ok_or_else(stopped)?;
    let kept = match trace::step("read what create has kept", || Kept::load(entry.dir())) {
        // a delete ends init, and takes the files away after that
        Err(e) => return Err(if init.open()?.is_some() { e } else { stopped() }),
        Ok(kept) => kept,
    };
    let target = Target {
        id: &record.id,
        pid: init.pid(),
        pidfd: pidfd.as_fd(),
        namespaces: kept.namespaces(),
        in_chroot: kept.in_chroot,
    };
    let options = options(args, &kept);
    let plan = trace::step("resolve the plan", || plan(args, &kept, &target))?;
    check(args, &plan, options)?;
    let cgroup = trace::step("open the cgroup", || own_cgroup(&record))?;
    let is_paused = cgroup.as_ref().map_or(Ok(false), Cgroup::frozen)?;
    if is_paused && !args.ignore_paused {
        return Err(Error::new(ErrorKind::State, "cannot exec in a paused container")
            .hint("use --ignore-paused to override, or resume it"));
    }
    let listener = plan.seccomp.as_ref().and_then(|s| s.listener.as_ref());
    let agent = listener.map(Agent::connect).transpose()?;
    // who does not stay says how it went before a signal ends him; where nothing runs, there
    // is nobody to hand one on to
    let interrupts = (args.detach || is_paused).then(Interrupts::watch).transpose()?;
    let spawn = SpawnArgs {
        plan: &plan,
        options,
        target,
        cgroup: None,
        waits: waits(args, &kept, &plan),
        interrupts: interrupts.as_ref(),
    };
    let attempt = |moves: bool| {
        let born = spawn_into(args, spawn, (cgroup.as_ref(), init), moves)?;
        serve(args, &plan, (&record, &kept), (agent.as_ref(), interrupts.as_ref()), born)
    };
    let kills = |cgroup: &Cgroup| is_paused || kills_newborns(cgroup.dir());
    let spawned = match attempt(false) {
        // see `birth::bring_up`
        Err(e) if e.kind() == ErrorKind::Unborn && cgroup.as_ref().is_some_and(kills) => {
            attempt(true)
        }
        other => other,
    };
    interrupts.into_iter().for_each(Interrupts::keep);
    spawned.map_err(|e| match init.is_alive() {
        // whatever it was in the middle of
        Ok(false) => stopped(),
        _ => record.explain(e),
    })
}

fn not_created() -> Error {
    Error::new(ErrorKind::State, phrase::NOT_RUNNING)
        .step("cannot exec in a container that is being created or deleted")
}

fn stopped() -> Error {
    Error::new(ErrorKind::State, phrase::NOT_RUNNING).step("cannot exec in a stopped container")
}

fn options(args: &ExecArgs<'_>, kept: &Kept) -> Options {
    Options {
        listen_fds: args.activation.fds,
        preserve_fds: args.preserve_fds,
        no_new_keyring: kept.no_new_keyring,
        ..Options::default()
    }
}

fn plan(args: &ExecArgs<'_>, kept: &Kept, target: &Target<'_>) -> Result<ExecPlan> {
    let process = args.words.process(kept)?;
    let mut plan = ExecPlan::resolve(&process)?;
    kept.complete(&mut plan)?;
    args.activation.tell(&mut plan.process);
    if joins_users(target)? {
        // in its user namespace it has them all
        return Ok(plan);
    }
    for cap in plan.process.capabilities.limit_to_own()? {
        let text = format!("process.capabilities: {cap} left out: tare does not have it itself");
        // `create` has told of the container's own
        match args.words.caps.is_empty() && args.words.process.is_none() {
            true => crate::logging::debug(|| text),
            false => crate::logging::warn(&text),
        }
    }
    Ok(plan)
}

/// Checks of the command line, and against the kernel.
fn check(args: &ExecArgs<'_>, plan: &ExecPlan, options: Options) -> Result<()> {
    let terminal = plan.process.terminal;
    match (terminal, args.detach, args.console_socket.is_some()) {
        (true, true, false) => Err(Error::invalid(
            "a terminal goes with --console-socket, or without --detach: nobody would have it",
        )),
        (false, _, true) => {
            Err(Error::invalid("--console-socket is given, but neither --tty nor process.terminal"))
        }
        (true, false, true) => Err(Error::invalid(
            "--console-socket goes with --detach: in the foreground the terminal is yours",
        )),
        _ => Ok(()),
    }?;
    labels::check(&plan.labels)?;
    check_fds(options)
}

/// True if there is something that has to be done before the program runs.
fn waits(args: &ExecArgs<'_>, kept: &Kept, plan: &ExecPlan) -> bool {
    args.pid_file.is_some()
        || plan.process.terminal
        || args.pidfd_socket.is_some()
        || !kept.rdt_groups.is_empty()
        || plan.scheduling.scheduler.is_some()
        || plan.scheduling.io_priority.is_some()
}

fn own_cgroup(record: &Record) -> Result<Option<Cgroup>> {
    if record.cgroup.path.as_os_str().is_empty() {
        return Ok(None);
    }
    match Cgroup::open(record.cgroup.clone()) {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(stopped()),
        other => other.map(Some),
    }
}

/// A process, and the cgroup that it has to be moved into before its program runs.
type Born<'a> = (Spawned, Option<Awaited<'a>>);

enum Awaited<'a> {
    /// That of a scope, by systemd.
    Scope(&'a Cgroup),
    /// This one.
    Cgroup(OwnedFd),
}

/// Makes the process in the container's cgroup or, where that hands controllers
/// down and so takes no process, in the one that init has found for itself. Where
/// the kernel takes none from this caller, systemd may for a scope of his: then it
/// is made beside the caller, and waits; so it does with `moves`.
fn spawn_into<'a>(
    args: &ExecArgs<'_>,
    spawn: SpawnArgs<'_>,
    (cgroup, init): (Option<&'a Cgroup>, InitProcess),
    moves: bool,
) -> Result<Born<'a>> {
    let Some(cgroup) = cgroup else {
        if args.cgroup.is_some() {
            return Err(Error::invalid("--cgroup: the container has no cgroup of its own"));
        }
        return Ok((spawn_exec(spawn)?, None));
    };
    let at = |dir: BorrowedFd<'_>| {
        if moves {
            let dir = dir.try_clone_to_owned().step(|| "copy the cgroup's descriptor")?;
            let spawned = spawn_exec(SpawnArgs { waits: true, ..spawn })?;
            return Ok((spawned, Some(Awaited::Cgroup(dir))));
        }
        spawn_exec(SpawnArgs { cgroup: Some(dir), ..spawn }).map(|spawned| (spawned, None))
    };
    if let Some(path) = &args.cgroup {
        let sub = open_sub(cgroup, path).step(|| format!("--cgroup {}", path.display()))?;
        return at(sub.as_ref().map_or(cgroup.dir(), AsFd::as_fd));
    }
    // clone3 would say so
    if moves && cgroup.hands_down()? {
        return at(cgroup_of(init)?.dir());
    }
    match at(cgroup.dir()) {
        Err(e) if e.is_errno(Errno::EBUSY) => at(cgroup_of(init)?.dir()),
        Err(e) if e.is_errno(Errno::EACCES) && cgroup.record().scope.is_some() => {
            Ok((spawn_exec(SpawnArgs { waits: true, ..spawn })?, Some(Awaited::Scope(cgroup))))
        }
        other => other,
    }
}

/// A cgroup below the container's; `None` for that one itself.
fn open_sub(cgroup: &Cgroup, path: &Path) -> Result<Option<OwnedFd>> {
    let text = path.to_string_lossy();
    if !text.starts_with('/') && text.contains(':') {
        return Err(Error::invalid("controllers have one tree in cgroup v2: give the path alone"));
    }
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open_plain(cgroup.dir(), path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => Err(Error::invalid("does not exist in the container's cgroup")),
        Err(Errno::EXDEV) => Err(Error::invalid("leads out of the container's cgroup")),
        other => Ok(Some(other?)),
    }
}

fn cgroup_of(init: InitProcess) -> Result<Cgroup> {
    let hierarchy = Hierarchy::discover()?;
    let path = hierarchy.mount_point().join(hierarchy.cgroup_of(init.pid)?);
    Cgroup::open(CgroupRecord { path, ..CgroupRecord::default() })
}

/// What the runtime has to do for the process, up to its execve.
fn serve(
    args: &ExecArgs<'_>,
    plan: &ExecPlan,
    (record, kept): (&Record, &Kept),
    (agent, interrupts): (Option<&Agent>, Option<&Interrupts>),
    (mut spawned, awaited): Born<'_>,
) -> Result<Spawned> {
    let pid = spawned.pid().as_raw();
    let pass_on = agent.map(|agent| move |fd| agent.pass_on(record, "running", pid, &fd));
    let named = Cell::new(None);
    let finish = |spawned: &Spawned, console: Option<BorrowedFd<'_>>| {
        match &awaited {
            Some(Awaited::Cgroup(dir)) => cgroup::enter(dir.as_fd(), spawned.pid())?,
            Some(Awaited::Scope(cgroup)) => {
                let scope = cgroup.record().scope.as_ref();
                scope.map_or(Ok(()), |scope| scope.attach(cgroup.path(), spawned.pid()))?;
            }
            None => {}
        }
        rdt::enter(&kept.rdt_groups, spawned.pid())?;
        match (args.console_socket, console) {
            (Some(path), Some(master)) => terminal::send_master(path, master)?,
            (None, Some(master)) => terminal::end_lines_plainly(master)?,
            _ => {}
        }
        if let Some(path) = args.pidfd_socket {
            terminal::send_pidfd(path, "setns", spawned.pidfd())?;
        }
        if let Some(path) = args.pid_file {
            create::write_pid_file(path, spawned.pid())?;
            named.set(Some(path));
        }
        Ok(())
    };
    let served =
        trace::step("wait for execve", || spawned.serve_exec(plan, finish, pass_on, interrupts));
    match served {
        Ok(()) => Ok(spawned),
        // nobody is to take the number for a process of his
        Err(e) => Err(e.undone(named.get().map_or(Ok(()), create::remove_pid_file))),
    }
}
