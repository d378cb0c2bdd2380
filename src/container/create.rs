//! `create`: each step undoes itself when a later one fails.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::activation::Activation;
use super::agent::Agent;
use super::birth::{Birth, bring_up};
use super::check::check;
use super::created::Created;
use super::id::ContainerId;
use super::notify::{self, Listener, NotifySocket};
use super::place::Place;
use super::rdt;
use super::record::Record;
use super::reserve::{Reserved, remove_scratch};
use super::shared_root::SharedRoot;
use super::store::{Entry, Store};
use super::{start, terminal};
use crate::cgroup::{Cgroup, CgroupRecord};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::idmap::IdMaps;
use crate::sandbox::netdevices::Moved;
use crate::sandbox::{Interrupts, Options, Spawned};
use crate::spec::{Plan, RdtPlan, ResolveArgs};
use crate::sys::caller::caller;
use crate::trace;

/// How long leftovers of a failed create may take to die.
const UNDO_PATIENCE: Duration = Duration::from_secs(10);

/// Who gets the master of the container's pty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Console {
    /// Nobody: a configuration with `process.terminal` is an error.
    None,
    /// Whoever listens on this Unix socket.
    Socket(PathBuf),
    /// The caller, by [`Created::take_console`].
    Own,
}

/// What a container is created from.
#[derive(Debug)]
pub struct CreateArgs<'a> {
    /// Its id.
    pub id: &'a ContainerId,
    /// Directory of its bundle, absolute.
    pub bundle: &'a Path,
    /// Its configuration.
    pub spec: &'a Spec,
    /// Where its state goes.
    pub store: &'a Store,
    /// Who gets the pty.
    pub console: Console,
    /// Choices of the caller.
    pub options: Options,
    /// A file for init's pid.
    pub pid_file: Option<&'a Path>,
    /// Who gets a pidfd of init: a Unix socket.
    pub pidfd_socket: Option<&'a Path>,
    /// A detached mount in place of the rootfs directory.
    pub rootfs: Option<OwnedFd>,
    /// The id, if it is taken already.
    pub reserved: Option<Reserved>,
    /// Sockets that a service manager has opened for the program.
    pub activation: Activation,
    /// The service manager to tell that the program is ready.
    pub notify: Option<NotifySocket>,
    /// True: init waits for a later `start`; false: for [`Created::start`].
    pub starts_later: bool,
    /// The caller stays with the container: signals to this process are the program's.
    pub stays: bool,
    /// Do without a cgroup where none is delegated and nothing needs one.
    pub rootless: bool,
    /// Have systemd make the cgroup, as a scope.
    pub systemd_cgroup: bool,
    /// What the caller has to do that init need not wait for.
    pub meanwhile: Option<Meanwhile<'a>>,
}

/// Work that is done while init is busy; twice, if that has to be made a second time.
#[derive(Clone, Copy)]
pub struct Meanwhile<'a>(pub &'a dyn Fn() -> Result<()>);

impl std::fmt::Debug for Meanwhile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// Creates a container.
///
/// # Errors
/// Bad input is refused before the host is touched; after that, a failure is
/// undone, and a signal is one. What could not be undone is part of the error.
pub fn create(mut args: CreateArgs<'_>) -> Result<Created> {
    let given = ResolveArgs { id: args.id.as_str(), bundle: args.bundle };
    let mut plan = trace::step("resolve the plan", || Plan::resolve(args.spec, given))?;
    args.options.listen_fds = args.activation.fds;
    args.activation.tell(&mut plan.process);
    if let Some(manager) = &args.notify {
        manager.share(&mut plan, &args.store.path_of(args.id));
    }
    trace::step("check the host", || check(&args, &plan))?;
    let agent = plan.seccomp.as_ref().and_then(|s| s.listener.as_ref());
    let agent = match args.starts_later {
        // a connection is for one state, and that is sent at the start
        true => agent.map(Agent::check).transpose()?.and(None),
        false => agent.map(Agent::connect).transpose()?,
    };
    if !plan.namespaces.separates(CloneFlags::CLONE_NEWUSER) {
        // in a user namespace of its own, init has them all
        for cap in plan.process.capabilities.limit_to_own()? {
            crate::logging::warn(&format!(
                "process.capabilities: {cap} left out: tare does not have it itself"
            ));
        }
    }
    plan.limits.warnings.iter().for_each(|text| crate::logging::warn(text));
    let place = trace::step("find a place for the cgroup", || {
        Place::find(&plan, args.rootless, args.systemd_cgroup)
    })?;
    let id_maps = IdMaps::of(&plan)?;
    let scratch = args.reserved.as_ref().map(|r| r.scratch().to_owned()).unwrap_or_default();
    let interrupts = if args.stays { None } else { Some(Interrupts::watch()?) };
    let (entry, lock) = match args.reserved.take().and_then(Reserved::into_parts) {
        Some(parts) => parts,
        None => trace::step("reserve the id", || args.store.reserve(args.id))?,
    };
    let mut undo = Undo::new(&entry);
    let record = new_record(args.spec, &plan, scratch.clone());
    let facts = (&place, id_maps.as_ref());
    match steps(&mut args, record, &plan, facts, (&mut undo, interrupts.as_ref())) {
        Ok(record) => {
            let Some(spawned) = undo.spawned.take() else {
                return Err(Error::new(ErrorKind::System, "no init was made"));
            };
            let listener = undo.listener.take();
            let pid_file = args.pid_file.map(Path::to_owned);
            Ok(Created { spawned, entry, lock, record, listener, agent, pid_file, interrupts })
        }
        Err(e) => {
            let e = match &undo.cgroup {
                Some(cgroup) if !undo.cgroup_was_there => cgroup.explain(e),
                _ => e,
            };
            // what could not be undone stays known by its record
            let undone = trace::step("undo", || {
                undo.run()?;
                remove_scratch(&scratch)?;
                entry.remove(lock)
            });
            interrupts.into_iter().for_each(Interrupts::keep);
            Err(e.undone(undone))
        }
    }
}

/// What `create` has made so far.
pub(super) struct Undo<'a> {
    pub(super) entry: &'a Entry,
    pub(super) cgroup: Option<CgroupRecord>,
    pub(super) cgroup_was_there: bool,
    /// Keeps others from it until it is in use, or undone.
    held: Option<Rc<Cgroup>>,
    pub(super) spawned: Option<Spawned>,
    /// For the poststop hooks, with the init that they are told of.
    pub(super) poststop: Option<(Record, Pid)>,
    listener: Option<Listener>,
    pub(super) devices: Option<Moved>,
    pub(super) has_device_program: bool,
    pub(super) rdt: Vec<PathBuf>,
    shared_root: Option<SharedRoot>,
}

impl<'a> Undo<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        Undo {
            entry,
            cgroup: None,
            cgroup_was_there: false,
            held: None,
            spawned: None,
            poststop: None,
            listener: None,
            devices: None,
            has_device_program: false,
            rdt: Vec::new(),
            shared_root: None,
        }
    }

    /// Notes the cgroup that was made, or was there and is this container's now.
    pub(super) fn take_in(&mut self, record: &mut Record, cgroup: &Cgroup) {
        record.cgroup = cgroup.record().clone();
        record.cgroup_was_there = cgroup.was_there();
        self.cgroup = Some(record.cgroup.clone());
        self.cgroup_was_there = record.cgroup_was_there;
    }

    pub(super) fn run(&mut self) -> Result<()> {
        let devices = self.devices.take().map_or(Ok(()), Moved::move_back);
        if let Some(spawned) = self.spawned.take() {
            spawned.kill();
        }
        let mut result = devices;
        if let Some(record) = self.cgroup.take() {
            let deadline = Instant::now() + UNDO_PATIENCE;
            // a scope was made by us, whatever directory was left there
            if self.cgroup_was_there && record.scope.is_none() {
                result = result.and(record.empty(deadline));
            } else {
                if let Ok(cgroup) = Cgroup::open(record.clone()) {
                    result = result.and(cgroup.kill());
                }
                result = result.and(record.remove(deadline));
            }
        }
        drop(self.held.take());
        result = result.and(rdt::remove(&self.rdt));
        result = result.and(self.shared_root.take().map_or(Ok(()), |root| root.remove()));
        if let Some((record, pid)) = self.poststop.take() {
            result = result.and(super::delete::run_poststop(&record, pid.as_raw()));
        }
        result.map_err(|e| e.step(format!("undo the create of {}", self.entry.id())))
    }
}

fn steps(
    args: &mut CreateArgs<'_>,
    mut record: Record,
    plan: &Plan,
    (place, id_maps): (&Place, Option<&IdMaps>),
    (undo, interrupts): (&mut Undo<'_>, Option<&Interrupts>),
) -> Result<Record> {
    record.cgroup = place.record();
    record.cgroup_was_there = is_there(&place.top())?;
    undo.cgroup_was_there = record.cgroup_was_there;
    record.goes_on = goes_on(args, plan, place, record.cgroup_was_there);
    let resctrl = foresee_rdt(args.id, plan, &mut record)?;
    // before anything else exists: whatever is killed from here on, `delete
    // --force` knows what there may be
    trace::step("save a first record", || undo.entry.save(&record))?;
    if let Some(manager) = args.notify.take() {
        notify::make_directory(undo.entry)?;
        if !args.starts_later {
            undo.listener = Listener::bind(undo.entry, manager)?;
        }
    }
    let was_there = record.cgroup_was_there;
    let cgroup = trace::step("make the cgroup", || place.make(plan, was_there))?.map(Rc::new);
    if let Some(cgroup) = &cgroup {
        undo.take_in(&mut record, cgroup);
        undo.held = Some(Rc::clone(cgroup));
        if record.cgroup.made_parents > 0 || record.cgroup_was_there != was_there {
            undo.entry.save(&record)?;
        }
        trace::step("write the limits", || cgroup.apply(&plan.limits.settings))?;
    }
    let group = resctrl.map(|(rdt, root)| rdt::Group::prepare(&root, rdt, args.id)).transpose()?;
    undo.rdt = group.as_ref().map(|group| group.made().to_vec()).unwrap_or_default();
    let listen = || trace::step("make the start socket", || start::listen(undo.entry));
    let listener = args.starts_later.then(listen).transpose()?;
    share_root(args, plan, &mut record, undo)?;
    let complete = bring_up(
        &Birth {
            spec: args.spec,
            options: args.options,
            goes_on: record.goes_on,
            rootfs: args.rootfs.take(),
            listener,
            plan,
            id_maps,
            place,
            cgroup: cgroup.as_deref(),
            group: group.as_ref(),
            meanwhile: args.meanwhile,
        },
        &mut record,
        (undo, interrupts),
    )?;
    let Some(spawned) = &undo.spawned else {
        return Err(Error::new(ErrorKind::System, "no init was made"));
    };
    send_descriptors(args, plan, spawned)?;
    // the last moment before others find it
    interrupts.map_or(Ok(()), Interrupts::check)?;
    // only now: with an init in its record, a container can be started and entered
    trace::step("name the record", || {
        complete.take_place(undo.entry.dir()).step(|| "save the state")
    })?;
    if let Some(path) = args.pid_file {
        write_pid_file(path, spawned.pid())?;
    }
    Ok(record)
}

/// Whether its program may run as soon as init is ready: nobody waits for anything that
/// is made of an init which does not run it yet, no hook asks about the container, and
/// its cgroup is enough to end it should this process be killed before the record tells
/// of init.
fn goes_on(args: &CreateArgs<'_>, plan: &Plan, place: &Place, was_there: bool) -> bool {
    let sends =
        plan.process.terminal || args.pidfd_socket.is_some() || plan.asked.pidfd_receiver.is_some();
    let sets = plan.scheduling.io_priority.is_some() || plan.scheduling.scheduler.is_some();
    let hooks = plan.hooks.in_create() || !plan.hooks.start_container.is_empty();
    let waits = args.starts_later || !args.stays || args.pid_file.is_some();
    // what systemd makes is found by a record that comes later
    let found = !was_there && !place.awaits_init() && !place.top().as_os_str().is_empty();
    found && !(waits || sends || sets || hooks)
}

/// The mount of resctrl, and in the record what there may be in it.
fn foresee_rdt<'a>(
    id: &ContainerId,
    plan: &'a Plan,
    record: &mut Record,
) -> Result<Option<(&'a RdtPlan, PathBuf)>> {
    let Some(rdt) = &plan.rdt else { return Ok(None) };
    let root = rdt::mount_point()?;
    record.rdt_groups = rdt::lasting(&root, rdt, id);
    record.rdt_group = Some(rdt::group_path(&root, rdt, id));
    Ok(Some((rdt, root)))
}

/// Without a mount namespace, the root is mounted in the caller's own.
fn share_root(
    args: &mut CreateArgs<'_>,
    plan: &Plan,
    record: &mut Record,
    undo: &mut Undo<'_>,
) -> Result<()> {
    if plan.namespaces.separates(CloneFlags::CLONE_NEWNS) {
        return Ok(());
    }
    let (root, detached) = SharedRoot::prepare(&plan.rootfs.path, args.rootfs.take())?;
    record.shared_root = Some(root.clone());
    undo.shared_root = Some(root);
    undo.entry.save(record)?;
    args.rootfs = Some(detached.attach()?);
    Ok(())
}

/// Gives others what they wait for.
fn send_descriptors(args: &CreateArgs<'_>, plan: &Plan, spawned: &Spawned) -> Result<()> {
    match (&args.console, spawned.console()) {
        (Console::Socket(path), Some(master)) => terminal::send_master(path, master)?,
        (Console::Own, Some(master)) => terminal::end_lines_plainly(master)?,
        _ => {}
    }
    if let Some(path) = args.pidfd_socket {
        terminal::send_pidfd(path, "standard", spawned.pidfd())?;
    }
    if let Some(path) = &plan.asked.pidfd_receiver {
        terminal::send_pidfd_as_asked(path, spawned.pidfd())?;
    }
    Ok(())
}

/// Whether a cgroup is there. Who can't tell must not go on: what is taken for
/// the container's own is killed and removed with it.
pub(super) fn is_there(cgroup: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(cgroup) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::from(e).step(format!("cgroup {}", cgroup.display()))),
    }
}

pub(super) fn new_record(spec: &Spec, plan: &Plan, scratch: Vec<PathBuf>) -> Record {
    Record {
        id: plan.id.clone(),
        oci_version: plan.oci_version.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: crate::logging::now(),
        annotations: plan.annotations.clone(),
        owner: caller().uid,
        init: None,
        cgroup: CgroupRecord::default(),
        own_pid_namespace: plan.namespaces.makes(CloneFlags::CLONE_NEWPID),
        seccomp_listener: plan.seccomp.as_ref().and_then(|s| s.listener.clone()),
        has_start_hooks: !plan.hooks.start_container.is_empty(),
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        scratch,
        cgroup_was_there: false,
        goes_on: false,
        resources: spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default(),
        rdt_group: None,
        rdt_groups: Vec::new(),
        shared_root: None,
    }
}

/// Written under another name and renamed: conmon reads it as soon as it is
/// there.
pub(super) fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    let step = || format!("--pid-file {}", path.display());
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::invalid("is not the name of a file").step(step()))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir: File =
        File::options().read(true).custom_flags(libc::O_DIRECTORY).open(parent).step(step)?;
    let mode = Mode::from_bits_truncate(0o644);
    let text = pid.to_string();
    trace::step_on("write the pid file", ("path", &path.display()), || {
        crate::sys::fs::replace_file(dir.as_fd(), name, text.as_bytes(), mode, false).step(step)
    })
}

/// Takes back what [`write_pid_file`] has written, for a process that did not come to
/// its program.
pub(crate) fn remove_pid_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        // somebody else has
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.step(|| format!("--pid-file {}", path.display())),
    }
}
