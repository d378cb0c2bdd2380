//! `create`: each step undoes itself when a later one fails.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid};
use oci_spec::runtime::Spec;

use super::id::ContainerId;
use super::listener::Listener;
use super::record::{InitProcess, Record};
use super::reserve::{Reserved, remove_scratch};
use super::store::{Entry, Lock, Store};
use super::{start, terminal};
use crate::cgroup::{Cgroup, CgroupRecord, Hierarchy, OutOfMemory};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::hooks::{self, HookState};
use crate::sandbox::{Options, SpawnArgs, Spawned, spawn};
use crate::spec::{Plan, ResolveArgs};

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
    /// A detached mount in place of the rootfs directory.
    pub rootfs: Option<OwnedFd>,
    /// The id, if it is taken already.
    pub reserved: Option<Reserved>,
    /// True: init waits for a later `start`; false: for [`Created::start`].
    pub starts_later: bool,
}

/// A container that is created; its lock is held.
#[derive(Debug)]
pub struct Created {
    spawned: Spawned,
    entry: Entry,
    lock: Lock,
    record: Record,
    listener: Option<Listener>,
}

/// Creates a container.
///
/// # Errors
/// Bad input is refused before the host is touched; after that, a failure is
/// undone. What could not be undone is part of the error.
pub fn create(mut args: CreateArgs<'_>) -> Result<Created> {
    let mut plan =
        Plan::resolve(args.spec, ResolveArgs { id: args.id.as_str(), bundle: args.bundle })?;
    check(&args, &plan)?;
    let listener = plan.seccomp.as_ref().and_then(|s| s.listener.as_ref());
    let listener = listener.map(Listener::connect).transpose()?;
    if !plan.namespaces.separates(CloneFlags::CLONE_NEWUSER) {
        // in a user namespace of its own, init has them all
        for cap in plan.process.capabilities.limit_to_own()? {
            crate::logging::warn(&format!(
                "process.capabilities: {cap} left out: tare does not have it itself"
            ));
        }
    }
    plan.limits.warnings.iter().for_each(|text| crate::logging::warn(text));
    let hierarchy = Hierarchy::discover()?;
    let path = hierarchy.cgroup_path(plan.cgroups_path.as_deref(), &plan.id)?;
    let scratch = args.reserved.as_ref().map(|r| r.scratch().to_owned()).unwrap_or_default();
    let (entry, lock) = match args.reserved.take().and_then(Reserved::into_parts) {
        Some(parts) => parts,
        None => args.store.reserve(args.id)?,
    };
    let mut undo = Undo { entry: &entry, cgroup: None, spawned: None, poststop: None };
    let record = new_record(&plan, scratch.clone());
    match steps(&mut args, record, &plan, (&hierarchy, &path), &mut undo) {
        Ok(record) => {
            let Some(spawned) = undo.spawned.take() else {
                return Err(Error::new(ErrorKind::System, "no init was made"));
            };
            // else `start` connects again: who listens may serve one at a time
            let listener = listener.filter(|_| !args.starts_later);
            Ok(Created { spawned, entry, lock, record, listener })
        }
        Err(e) => {
            let e = match &undo.cgroup {
                Some(cgroup) => cgroup.explain(e),
                None => e,
            };
            let left = undo.run().and_then(|()| remove_scratch(&scratch)).err();
            // what could not be undone stays known by its record
            let left = match left {
                None => entry.remove(lock).err(),
                some => some,
            };
            Err(match left {
                None => e,
                Some(left) => e.hint(format!("and its undoing failed: {left}")),
            })
        }
    }
}

/// What `create` has made so far.
struct Undo<'a> {
    entry: &'a Entry,
    cgroup: Option<CgroupRecord>,
    spawned: Option<Spawned>,
    poststop: Option<Record>,
}

impl Undo<'_> {
    fn run(&mut self) -> Result<()> {
        let pid = self.spawned.as_ref().map(Spawned::pid);
        if let Some(spawned) = self.spawned.take() {
            spawned.kill();
        }
        let mut result = Ok(());
        if let Some(record) = self.cgroup.take() {
            let deadline = Instant::now() + UNDO_PATIENCE;
            if let Ok(cgroup) = Cgroup::open(record.clone()) {
                result = cgroup.kill();
            }
            result = result.and(record.remove(deadline));
        }
        if let (Some(record), Some(pid)) = (self.poststop.take(), pid) {
            result = result.and(super::delete::run_poststop(&record, pid.as_raw()));
        }
        result.map_err(|e| e.step(format!("undo the create of {}", self.entry.id())))
    }
}

/// Checks that need the file system or the command line as well.
fn check(args: &CreateArgs<'_>, plan: &Plan) -> Result<()> {
    match (&args.console, plan.process.terminal) {
        (Console::None, true) => {
            return Err(Error::invalid(
                "process.terminal is true: give --console-socket, or run in the foreground",
            ));
        }
        (Console::Socket(_), false) => {
            return Err(Error::invalid(
                "--console-socket is given, but process.terminal is not true",
            ));
        }
        _ => {}
    }
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
    for fd in 3..3 + args.options.preserve_fds {
        if !crate::sys::process::is_open(i32::try_from(fd).unwrap_or(-1)) {
            return Err(Error::invalid(format!(
                "--preserve-fds {}: descriptor {fd} is not open",
                args.options.preserve_fds
            )));
        }
    }
    Ok(())
}

fn steps(
    args: &mut CreateArgs<'_>,
    mut record: Record,
    plan: &Plan,
    (hierarchy, path): (&Hierarchy, &Path),
    undo: &mut Undo<'_>,
) -> Result<Record> {
    record.cgroup.path = hierarchy.mount_point().join(path);
    record.cgroup_was_there = std::fs::symlink_metadata(&record.cgroup.path).is_ok();
    // before anything else exists: whatever is killed from here on, `delete
    // --force` knows what there may be
    undo.entry.save(&record)?;
    let cgroup = Cgroup::create(hierarchy, path, &plan.limits.settings)?;
    record.cgroup = cgroup.record().clone();
    undo.cgroup = Some(record.cgroup.clone());
    if record.cgroup.made_parents > 0 {
        undo.entry.save(&record)?;
    }
    cgroup.apply(&plan.limits.settings)?;
    let listener = args.starts_later.then(|| start::listen(undo.entry)).transpose()?;
    let spawned = undo.spawned.insert(spawn(SpawnArgs {
        plan,
        options: args.options,
        cgroup: cgroup.dir(),
        cgroup_path: cgroup.path(),
        rootfs: args.rootfs.take(),
        listener,
    })?);
    undo.poststop = Some(record.clone());
    if let Some(program) = &plan.device_program {
        // while init is busy with its mounts: no code of the user's or of a
        // hook runs before `serve`
        cgroup.attach_devices(program)?;
    }
    spawned.serve(plan, |pid| run_hooks(plan, pid))?;
    record.init = Some(InitProcess::of(spawned.pid())?);
    if let (Console::Socket(path), Some(master)) = (&args.console, spawned.console()) {
        terminal::send_master(path, master)?;
    }
    undo.entry.save(&record)?;
    if let Some(path) = args.pid_file {
        write_pid_file(path, spawned.pid())?;
    }
    Ok(record)
}

fn new_record(plan: &Plan, scratch: Vec<PathBuf>) -> Record {
    Record {
        id: plan.id.clone(),
        oci_version: plan.oci_version.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: crate::logging::now(),
        annotations: plan.annotations.clone(),
        owner: geteuid().as_raw(),
        init: None,
        cgroup: CgroupRecord { path: PathBuf::new(), made_parents: 0 },
        own_pid_namespace: plan.namespaces.makes(CloneFlags::CLONE_NEWPID),
        seccomp_listener: plan.seccomp.as_ref().and_then(|s| s.listener.clone()),
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        scratch,
        cgroup_was_there: false,
    }
}

fn run_hooks(plan: &Plan, pid: Pid) -> Result<()> {
    let state = HookState {
        oci_version: crate::spec::OCI_VERSION,
        id: &plan.id,
        status: "creating",
        pid: pid.as_raw(),
        bundle: &plan.bundle,
        annotations: &plan.annotations,
    };
    hooks::run("prestart", &plan.hooks.prestart, &state)?;
    hooks::run("createRuntime", &plan.hooks.create_runtime, &state)
}

/// Written under another name and renamed: conmon reads it as soon as it is
/// there.
fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
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
    crate::sys::fs::replace_file(dir.as_fd(), name, text.as_bytes(), mode, false).step(step)
}

impl Created {
    /// Lets init go on, and gives the lock back: it waits for `start`.
    ///
    /// # Errors
    /// Init has died. The container is removed then.
    pub fn release(self) -> Result<()> {
        let Err(e) = self.spawned.release() else { return Ok(()) };
        let e = e.step("the container's init has died");
        Err(match self.destroy() {
            Ok(()) => e,
            Err(left) => e.hint(format!("and its undoing failed: {left}")),
        })
    }

    /// Lets the program run, and runs the poststart hooks.
    ///
    /// # Errors
    /// The program could not be executed, or a hook failed. The container is
    /// dead then, and its state still there: see [`Created::destroy`].
    pub fn start(&self) -> Result<()> {
        let pid = self.spawned.pid().as_raw();
        let pass_on = self.listener.as_ref().map(|l| move |fd| l.pass_on(&self.record, pid, &fd));
        self.spawned.start(pass_on).map_err(|e| self.record.cgroup.explain(e))?;
        start::run_poststart(&self.record, self.spawned.pid().as_raw())
    }

    /// The master of the container's pty, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.spawned.take_console()
    }

    /// Kills what is left of the container and removes every trace of it.
    pub fn destroy(self) -> Result<()> {
        self.spawned.kill();
        super::delete::destroy(self.entry, self.lock, Some(self.record))
    }

    /// Gives the lock back, so that other commands can have the container.
    pub fn unlock(self) -> Running {
        Running { spawned: self.spawned, entry: self.entry, record: self.record }
    }
}

/// A container whose program runs, with its maker waiting for it.
#[derive(Debug)]
pub struct Running {
    spawned: Spawned,
    entry: Entry,
    record: Record,
}

impl Running {
    /// The container's init.
    pub fn spawned(&self) -> &Spawned {
        &self.spawned
    }

    /// What the kernel killed in the container for want of memory.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.record.cgroup.out_of_memory()
    }

    /// After the end of init: ends whoever else is in the container, and
    /// removes it, unless it is to be kept.
    pub fn finish(self, keep: bool) -> Result<()> {
        let lock = match self.entry.lock() {
            // somebody else has deleted it
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if keep {
            return super::delete::end_processes(&self.record);
        }
        super::delete::destroy(self.entry, lock, Some(self.record))
    }
}
