//! The container's init, from its birth to execve: a list of named steps.
//!
//! It is a copy of the runtime's one thread. It has the plan, descriptors and
//! nothing else, and ends in execve or exit.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::getpid;

use super::hooks::{HookState, OutputFiles, Runner};
use super::interrupts::ENDING;
use super::mounts::Mounting;
use super::path::{Missing, ensure};
use super::privileges::Groups;
use super::protocol::{Channel, Message};
use super::rootfs::Leave;
use super::task::{self, Task};
use super::{Options, clocks, console, devices, labels, mounts, program, reaper, rootfs, sources};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{Plan, SysctlPlan};
use crate::sys::caller::caller;
use crate::sys::signals;
use crate::sys::spent::Spent;
use crate::sys::{net, process, sched};
use crate::trace::{self, Role};

/// A namespace to join, open.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) kind: CloneFlags,
    pub(super) fd: OwnedFd,
}

/// What init has.
pub(super) struct Init<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: Options,
    pub(super) channel: Channel,
    /// Socket on which `start` will call; without one, `Proceed` is the start.
    pub(super) listener: Option<OwnedFd>,
    /// A detached mount that takes the place of the rootfs directory; without a
    /// mount namespace, the root itself.
    pub(super) rootfs: Option<OwnedFd>,
    /// The container's cgroup, as a path of the host.
    pub(super) cgroup: Option<&'a Path>,
    /// It has to ask before it is in there.
    pub(super) awaits_cgroup: bool,
    /// Namespaces to join that were not joined before the clone.
    pub(super) joins: Vec<Join>,
    /// Where its hooks write to.
    pub(super) hook_output: OutputFiles,
}

/// The whole life of init. An error goes to the runtime, then init ends.
pub(super) fn main(mut init: Init<'_>) -> Infallible {
    trace::enter(Role::Init);
    let mut report = None;
    let Err(error) = run(&mut init, &mut report);
    trace::failed(&error);
    let channel = report.as_ref().unwrap_or(&init.channel);
    // nobody may be left to tell
    channel.send(&Message::Failed(error)).unwrap_or_default();
    process::exit_now(1)
}

fn run(init: &mut Init<'_>, report: &mut Option<Channel>) -> Result<Infallible> {
    let (program, env) = set_up(init)?;
    if init.listener.is_some() {
        // how long it waits for `start` is no matter of this command
        trace::leave();
    }
    // who waits has them before anybody may send one
    let ending = if init.listener.is_some() { end_by_signals()? } else { 0 };
    let ignored = trace::step("wait until the runtime is ready", || init.channel.ask_to_proceed())?;
    // to ask which ones are takes as many calls as there are signals
    signals::default_signals(ignored & !ending).step(|| "reset signals")?;
    if let Some(listener) = init.listener.take() {
        *report = Some(wait_for_start(&listener)?);
    }
    if !init.plan.hooks.start_container.is_empty() {
        runner(init, "created", &env).run(&init.plan.hooks.start_container)?;
    }
    task::pass_on_preserved(init.options)?;
    execute(init, report.as_ref().unwrap_or(&init.channel), &program, env)
}

/// Everything but the program's start: the answer is the program, and its environment.
fn set_up(init: &mut Init<'_>) -> Result<(CString, Vec<CString>)> {
    let plan = init.plan;
    let makes_users = plan.namespaces.makes(CloneFlags::CLONE_NEWUSER);
    trace::step("leave the runtime behind", || leave_runtime(init, makes_users))?;
    let inherited = umask(Mode::empty());
    if makes_users {
        trace::step("get id maps", || init.channel.ask(&Message::MapIds))?;
        shift_clocks(plan, true)?;
        set_dumpable(false)?;
    }
    join(&init.joins, |kind| kind != CloneFlags::CLONE_NEWNS)?;
    let groups = Groups::find(plan)?;
    trace::step("isolate", || isolate(init))?;
    let labels = labels::open(&plan.labels)?;
    join(&init.joins, |kind| kind == CloneFlags::CLONE_NEWNS)?;
    let mut spent = Spent::default();
    let root = trace::step("set up the root", || set_up_root(init, &mut spent))?;
    let terminal = match plan.process.terminal {
        true => Some(trace::step("open a terminal", || open_terminal(init, root.as_fd()))?),
        false => None,
    };
    if plan.hooks.in_create() {
        // a hook may want to unmount something
        drop(std::mem::take(&mut spent));
        umask(inherited);
        run_create_hooks(init)?;
        umask(Mode::empty());
    }
    trace::step("enter the root", || seal_root(init, root.as_fd(), &mut spent))?;
    spent.add(root);
    drop(spent);
    let program = trace::step("become the user", || {
        Task::of(plan).become_user(&init.channel, terminal, labels, groups)
    })?;
    Ok((program, program::environment(&plan.process)))
}

/// The last steps: `channel` is who is told.
fn execute(
    init: &Init<'_>,
    channel: &Channel,
    program: &CStr,
    mut env: Vec<CString>,
) -> Result<Infallible> {
    let plan = init.plan;
    // the end of the stream means success only after this
    channel.send(&Message::Executing)?;
    if !init.options.init {
        // before the filter, which may not let us ask
        env.extend(task::listen_pid(init.options));
    } else {
        // the command line that made the container is none of its business, from
        // the program's first moment on; without /proc nobody in there can read it
        process::set_title(b"tare-init").unwrap_or_default();
    }
    // the filter may not let us look at the clock
    trace::last("execve");
    Task::of(plan).load_filter(channel)?;
    let mut execute = || {
        if init.options.init {
            // of whoever executes the program: the tiny init makes a child for that
            env.extend(task::listen_pid(init.options));
        }
        program::execute(program, &plan.process.args, &env)
    };
    if init.options.init {
        return reaper::supervise(channel, plan.process.terminal, execute);
    }
    Err(execute())
}

/// What a copy of the runtime has and the container's first process must not have.
fn leave_runtime(init: &Init<'_>, makes_users: bool) -> Result<()> {
    set_own_oom_score_adj(init.plan.process.oom_score_adj)?;
    // a process of a joined namespace must not look into this copy of the
    // runtime, whose root is still the host's; execve sets it back. An ordinary
    // user's runtime can't write the maps of what is closed; until they are
    // written, the new user namespace alone keeps others out
    set_dumpable(makes_users && !caller().is_host_root())?;
    close_what_is_not_ours(init)?;
    signals::unblock_signals().step(|| "unblock signals")?;
    // the runtime may be pinned: that is none of the container's
    sched::use_all_processors().step(|| "use all processors")
}

/// The terminal's own end; the other one goes to the runtime.
fn open_terminal(init: &Init<'_>, root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let pty = console::open(root)?;
    init.channel.send_with(&Message::Console, Some(pty.master.as_fd()))?;
    Ok(pty.terminal)
}

/// A time namespace of its own. In a new user namespace the file with the offsets
/// belongs to somebody outside unless the process is dumpable; nobody else is in
/// there yet, and nothing has been joined.
fn shift_clocks(plan: &Plan, in_new_user_namespace: bool) -> Result<()> {
    if !plan.namespaces.makes(process::CLONE_NEWTIME) {
        return Ok(());
    }
    if in_new_user_namespace && !plan.time_offsets.is_empty() {
        set_dumpable(true)?;
    }
    trace::step("make a time namespace", || clocks::enter_new(&plan.time_offsets))
}

pub(super) fn set_dumpable(yes: bool) -> Result<()> {
    nix::sys::prctl::set_dumpable(yes).step(|| "close init to other processes")
}

/// Without power over the machine, the process sets its own score, while /proc
/// still lets it. What is so already needs no permission.
pub(super) fn set_own_oom_score_adj(value: Option<i32>) -> Result<()> {
    let Some(value) = value.filter(|_| !caller().is_host_root()) else { return Ok(()) };
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    match own.trim().parse() == Ok(value) {
        true => Ok(()),
        false => super::spawn::set_oom_score_adj("self", value),
    }
}

/// Closes the runtime's descriptors. The lock of the container is among them:
/// a copy of it in an init that waits for `start` would outlive a runtime that
/// was killed, and nobody could delete the container.
fn close_what_is_not_ours(init: &Init<'_>) -> Result<()> {
    let mut keep: Vec<RawFd> = init.joins.iter().map(|join| join.fd.as_raw_fd()).collect();
    keep.push(init.channel.as_fd().as_raw_fd());
    keep.extend(init.listener.iter().chain(&init.rootfs).map(AsRawFd::as_raw_fd));
    keep.extend(init.hook_output.iter().map(AsRawFd::as_raw_fd));
    task::close_all_but(init.options, &keep)
}

pub(super) fn join(joins: &[Join], which: impl Fn(CloneFlags) -> bool) -> Result<()> {
    for join in joins.iter().filter(|join| which(join.kind)) {
        let kind = crate::spec::namespace_name(join.kind);
        trace::step_on("join a namespace", ("kind", &kind), || {
            trace::across_clocks(|| {
                setns(&join.fd, join.kind).step(|| format!("join the {kind} namespace"))
            })
        })?;
    }
    Ok(())
}

/// What has nothing to do with files: session, network, names, parameters.
fn isolate(init: &Init<'_>) -> Result<()> {
    let plan = init.plan;
    if init.awaits_cgroup {
        trace::step("wait for the cgroup", || init.channel.ask(&Message::AwaitCgroup))?;
    }
    if plan.namespaces.makes(CloneFlags::CLONE_NEWCGROUP) {
        // not at the clone: the new namespace's root is the cgroup that the
        // process is in when it is made
        trace::step("make a cgroup namespace", || {
            unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "make a cgroup namespace")
        })?;
    }
    if !plan.namespaces.makes(CloneFlags::CLONE_NEWUSER) {
        shift_clocks(plan, false)?;
    }
    trace::step("make a session", || task::make_session(&plan.id, init.options))?;
    if plan.namespaces.makes(CloneFlags::CLONE_NEWNET) {
        trace::step("bring loopback up", || {
            net::bring_loopback_up().step(|| "bring the loopback interface up")
        })?;
    }
    if let Some(name) = &plan.hostname {
        nix::unistd::sethostname(name).step(|| format!("set hostname {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        crate::sys::net::set_domain_name(name).step(|| format!("set domainname {name}"))?;
    }
    for sysctl in &plan.sysctls {
        trace::step_on("write a sysctl", ("name", &sysctl.name), || write_sysctl(sysctl))?;
    }
    Ok(())
}

fn write_sysctl(sysctl: &SysctlPlan) -> Result<()> {
    // the host's /proc, before any mount of the image: nothing in there
    // can lead the write elsewhere. The kernel looks at the writer's
    // namespaces.
    let path = Path::new("/proc/sys").join(&sysctl.path);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, sysctl.value.as_bytes()))
        .step(|| format!("linux.sysctl.{}: write {:?}", sysctl.name, sysctl.value))
}

fn set_up_root(init: &mut Init<'_>, spent: &mut Spent) -> Result<OwnedFd> {
    let plan = init.plan;
    if plan.namespaces.makes(CloneFlags::CLONE_NEWNS) {
        trace::step("cut the mounts off", || rootfs::cut_off(&plan.rootfs))?;
    }
    let in_userns = plan.namespaces.separates(CloneFlags::CLONE_NEWUSER);
    let early = match in_userns {
        true => trace::step("open the sources of mounts", || {
            sources::open_all(plan, init.cgroup, &init.channel)
        })?,
        false => Vec::new(),
    };
    let powerless = plan.namespaces.mounts_nothing();
    let root = match init.rootfs.take() {
        // mounted already
        Some(root) if !plan.namespaces.separates(CloneFlags::CLONE_NEWNS) => root,
        given => {
            trace::step("attach the root", || open_root(init, given, (powerless, &mut *spent)))?
        }
    };
    if in_userns {
        become_root_inside()?;
    }
    let mut early = early.into_iter();
    let mut mounting = Mounting::new(spent);
    for (index, mount) in plan.mounts.iter().enumerate() {
        // the kernel lists mounts by when they were made, and who reads the list
        // expects the order of the config: not earlier than need be
        trace::step_on("mount", ("destination", &mount.destination.display()), || {
            let source = match in_userns {
                true => early.next().flatten(),
                false => sources::open(plan, index, init.cgroup, &init.channel)?,
            };
            mounts::perform(root.as_fd(), mount, source.as_ref(), &mut mounting)
                .map_err(|e| e.step(mount.label()))
                .map_err(|e| match e.kind() {
                    ErrorKind::Invalid => e.step(format!("mounts[{index}]")),
                    _ => e,
                })
        })?;
    }
    if powerless {
        devices::find(root.as_fd(), &plan.devices)?;
    } else if !mounts::dev_is_bound(&plan.mounts) {
        let dev = trace::step("make devices", || {
            devices::make(root.as_fd(), &plan.devices, in_userns, |index| {
                let fd = init.channel.ask_for(&Message::MakeDevice(index), None)?;
                fd.ok_or_else(|| Error::from(Errno::EBADF))
            })
        })?;
        trace::step("make the links of /dev", || devices::links(root.as_fd(), dev))?;
    }
    if plan.process.cwd != Path::new("/") {
        ensure(root.as_fd(), &plan.process.cwd, Missing::Directory).step(|| "process.cwd")?;
    }
    Ok(root)
}

/// The root, as a mount of its own where init may mount.
fn open_root(
    init: &Init<'_>,
    given: Option<OwnedFd>,
    (powerless, spent): (bool, &mut Spent),
) -> Result<OwnedFd> {
    let plan = init.plan;
    let place = sources::open_root(&plan.rootfs.path, &init.channel)?;
    let step = || format!("rootfs {}", plan.rootfs.path.display());
    if plan.namespaces.makes(CloneFlags::CLONE_NEWNS) {
        rootfs::keep_apart(&plan.rootfs, place.as_fd()).step(step)?;
    }
    if powerless {
        return Ok(place);
    }
    let root = rootfs::attach(place.as_fd(), given).step(step)?;
    spent.add(place);
    Ok(root)
}

/// Until here init had its maker's ids, which may look into directories that
/// are closed for the container's root; files made from here on need an owner
/// that the user namespace knows.
pub(super) fn become_root_inside() -> Result<()> {
    process::set_identity(0, 0, None).step(|| "become root in the user namespace")
}

fn run_create_hooks(init: &Init<'_>) -> Result<()> {
    let all = &init.plan.hooks;
    if !all.prestart.is_empty() || !all.create_runtime.is_empty() {
        trace::step("wait for the runtime's hooks", || init.channel.ask(&Message::RunHooks))?;
    }
    // nothing of the runtime's environment for who looks in from a joined
    // namespace
    let mut runner = runner(init, "creating", &[]);
    runner.directory = Some(&init.plan.bundle);
    runner.run(&all.create_container)
}

fn runner<'a>(init: &'a Init<'_>, status: &'a str, env: &[CString]) -> Runner<'a> {
    Runner {
        state: state(init.plan, status),
        env: env.to_vec(),
        directory: None,
        output: &init.hook_output,
        // the runtime ends init, and the kernel its hook
        interrupts: None,
        init: None,
    }
}

fn state<'a>(plan: &'a Plan, status: &'a str) -> HookState<'a> {
    HookState {
        oci_version: crate::spec::OCI_VERSION,
        id: &plan.id,
        status,
        // as seen from where these hooks run
        pid: getpid().as_raw(),
        bundle: &plan.bundle,
        annotations: &plan.annotations,
    }
}

fn seal_root(init: &Init<'_>, root: BorrowedFd<'_>, spent: &mut Spent) -> Result<()> {
    let plan = init.plan;
    mounts::seal_dev(root, &plan.mounts)?;
    trace::step("make paths read-only", || {
        rootfs::make_readonly(root, &plan.readonly_paths, spent)
    })?;
    trace::step("mask paths", || rootfs::mask(root, &plan.masked_paths, spent))?;
    if plan.rootfs.readonly {
        rootfs::seal(root)?;
    }
    let leave = if !plan.namespaces.makes(CloneFlags::CLONE_NEWNS) {
        Leave::Chroot
    } else if init.options.no_pivot {
        Leave::Move
    } else {
        Leave::Pivot
    };
    trace::step("change the root", || rootfs::enter(root, &plan.rootfs, leave))
}

/// Lets this process end by what ends others: of signals with their default action the
/// kernel spares a pid 1, and until `start` that is no program that wants to be spared.
/// The answer is which: bit 0 is signal 1.
fn end_by_signals() -> Result<u64> {
    if getpid().as_raw() != 1 {
        return Ok(0);
    }
    ENDING.into_iter().try_for_each(signals::exit_at).step(|| "watch for signals")?;
    Ok(ENDING.into_iter().fold(0, |set, signal| set | 1 << (signal as i32 - 1)))
}

fn wait_for_start(listener: &OwnedFd) -> Result<Channel> {
    loop {
        match process::accept(listener.as_fd()) {
            Ok(socket) => return Ok(Channel::from_socket(socket)),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::from(e).step("wait for start")),
        }
    }
}
