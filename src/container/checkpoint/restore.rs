//! `restore`: from files to processes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::criu::{Criu, Kind, Notice, Options, Setting, Switch, Text};
use super::workshop::Workshop;
use super::{
    CgroupsMode, CriuWords, Places, check, check_caller, labels, mounts, namespaces, stdio,
};
use crate::cgroup::{Cgroup, Hierarchy};
use crate::container::check::check as check_create;
use crate::container::create::{Console, CreateArgs, Undo, is_there, new_record, write_pid_file};
use crate::container::created::finish;
use crate::container::exec::Kept;
use crate::container::place::Place;
use crate::container::record::{InitProcess, Record};
use crate::container::start::hook_state;
use crate::container::store::{Entry, Lock};
use crate::container::{rdt, terminal};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::{Interrupts, hooks};
use crate::spec::{Plan, ResolveArgs};
use crate::sys::process;

/// Name of CRIU's log.
const LOG: &str = "restore.log";

/// What a container is restored with.
#[derive(Debug)]
pub struct RestoreArgs<'a> {
    /// As for `create`.
    pub create: CreateArgs<'a>,
    /// What `checkpoint` takes as well.
    pub words: CriuWords,
    /// A profile of AppArmor or a label of SELinux in place of the saved ones:
    /// `apparmor:NAME`, `selinux:LABEL`.
    pub lsm_profile: Option<&'a str>,
    /// A label of SELinux for mounts in place of the saved ones.
    pub lsm_mount_context: Option<&'a str>,
    /// TCP connections are restored closed.
    pub tcp_close: bool,
}

/// A container that runs again; its lock is held.
#[derive(Debug)]
pub struct Restored {
    entry: Entry,
    /// Given back with this.
    _lock: Lock,
    record: Record,
    pidfd: OwnedFd,
    console: Option<OwnedFd>,
}

/// Restores a container.
///
/// # Errors
/// The id is in use; there are no images; CRIU can't restore something. What was made
/// is undone.
pub fn restore(mut args: RestoreArgs<'_>) -> Result<Restored> {
    check_caller()?;
    let create = &args.create;
    let resolve = ResolveArgs { id: create.id.as_str(), bundle: create.bundle };
    let plan = Plan::resolve(create.spec, resolve)?;
    check_create(create, &plan)?;
    check(&plan)?;
    args.words.empty_kinds()?;
    check_images(&args.words)?;
    if args.words.cgroups == CgroupsMode::Strict {
        return Err(Error::unsupported(
            "the container's own cgroup is there before criu is, and it would refuse that one",
        )
        .hint("soft makes those that are missing")
        .step("--manage-cgroups-mode strict"));
    }
    let version = Criu::check_version()?;
    labels::check(&args, version)?;
    let opened = namespaces::open(&plan)?;
    let stdio = stdio::load(&args.words)?;
    let place = Place::find(&plan, create.rootless, create.systemd_cgroup)?;
    // once its processes go on there is no way back: what comes of it is said before a
    // signal ends this one
    let interrupts = Interrupts::watch()?;
    let (entry, lock) = create.store.reserve(create.id)?;
    let mut undo = Undo::new(&entry);
    let record = new_record(create.spec, &plan, Vec::new());
    let mut task = Task {
        plan: &plan,
        place: &place,
        opened: &opened,
        stdio: &stdio,
        interrupts: &interrupts,
        record,
        cgroup: None,
        console: None,
        groups: Vec::new(),
    };
    let run = task.run(&mut args, &mut undo);
    let Task { record, console, .. } = task;
    let restored = match run {
        Ok(pidfd) => Ok(Restored { entry, _lock: lock, record, pidfd, console }),
        Err(e) => {
            let undone = undo.run().and_then(|()| entry.remove(lock));
            Err(e.undone(undone))
        }
    };
    // the caller's own signals, if it stays, are held by itself
    interrupts.keep();
    restored
}

/// What is no set of images is said before anything is made.
fn check_images(words: &CriuWords) -> Result<()> {
    let path = &words.image_path;
    match path.join("inventory.img").is_file() {
        true => Ok(()),
        false => Err(Error::invalid("there is no checkpoint in it (inventory.img is missing)")
            .step(format!("--image-path {}", path.display()))),
    }
}

/// One restore.
struct Task<'a> {
    plan: &'a Plan,
    place: &'a Place,
    opened: &'a [(&'static str, OwnedFd)],
    stdio: &'a [(String, OwnedFd)],
    interrupts: &'a Interrupts,
    record: Record,
    cgroup: Option<Cgroup>,
    console: Option<OwnedFd>,
    groups: Vec<PathBuf>,
}

impl Task<'_> {
    fn run(&mut self, args: &mut RestoreArgs<'_>, undo: &mut Undo<'_>) -> Result<OwnedFd> {
        self.prepare(args, undo)?;
        let workshop = Workshop::new(undo.entry.path())?;
        let restored = self.restore(args, undo, &workshop);
        let removed = workshop.remove();
        let pid = restored?;
        removed?;
        self.tell(args, pid)
    }

    /// Everything up to the first process.
    fn prepare(&mut self, args: &RestoreArgs<'_>, undo: &mut Undo<'_>) -> Result<()> {
        self.record.cgroup = self.place.record();
        self.record.cgroup_was_there = is_there(&self.place.top())?;
        undo.cgroup_was_there = self.record.cgroup_was_there;
        let resctrl = self.plan.rdt.as_ref().map(|rdt| Ok::<_, Error>((rdt, rdt::mount_point()?)));
        let resctrl = resctrl.transpose()?;
        if let Some((rdt, root)) = &resctrl {
            self.record.rdt_groups = rdt::lasting(root, rdt, args.create.id);
            self.record.rdt_group = Some(rdt::group_path(root, rdt, args.create.id));
        }
        undo.entry.save(&self.record)?;
        self.cgroup = self.place.make(self.plan, self.record.cgroup_was_there)?;
        if let Some(cgroup) = &self.cgroup {
            undo.take_in(&mut self.record, cgroup);
            undo.entry.save(&self.record)?;
        }
        if let Some((rdt, root)) = &resctrl {
            let group = rdt::Group::prepare(root, rdt, args.create.id)?;
            undo.rdt = group.made().to_vec();
            self.groups = group.entered();
        }
        Ok(())
    }

    /// From the start of CRIU to its end; the answer is init's pid.
    fn restore(
        &mut self,
        args: &mut RestoreArgs<'_>,
        undo: &mut Undo<'_>,
        workshop: &Workshop,
    ) -> Result<Pid> {
        let view = workshop.view(&self.plan.rootfs.path)?;
        let places = Places::open(&args.words, LOG, &view)?;
        let options = self.options(args, &places, workshop)?;
        let given = self.stdio.iter().map(|(_, fd)| fd);
        let keeps = self.opened.iter().map(|(_, fd)| fd).chain(given).map(OwnedFd::as_fd);
        // its children begin where it is
        let mut criu = Criu::start(Setting {
            cgroup: self.cgroup.as_ref().map(Cgroup::dir),
            waits: true,
            view: Some(view.as_fd()),
            keeps: keeps.collect(),
        })?;
        let asked = self.place_criu(criu.pid(), undo).and_then(|()| {
            criu.go_on()?;
            let interrupts = self.interrupts;
            let notice = |notice: Notice<'_>| hear(self, args, undo, notice);
            criu.call(Kind::Restore, &options, &places.log, notice, Some(interrupts))
        });
        match asked {
            Ok(answer) => criu.finish().map(|()| Pid::from_raw(answer.pid)),
            Err(e) => Err(e.undone(criu.kill())),
        }
    }

    fn place_criu(&mut self, pid: Pid, undo: &mut Undo<'_>) -> Result<()> {
        let made = &mut self.record.cgroup;
        if let Some(cgroup) = self.place.enclose(self.plan, pid, made, &mut undo.cgroup)? {
            self.cgroup = Some(cgroup);
        }
        rdt::enter(&self.groups, pid)
    }

    fn options(
        &self,
        args: &RestoreArgs<'_>,
        places: &Places,
        workshop: &Workshop,
    ) -> Result<Options> {
        let mut options = args.words.options(places, workshop, self.plan)?;
        // a device node may have another number on another machine
        options.switch(Switch::EvasiveDevices, true);
        // init is this process' child, not criu's
        options.switch(Switch::RstSibling, true);
        options.switch(Switch::TcpClose, args.tcp_close);
        options.text(Text::Root, workshop.root());
        for (place, source) in mounts::sources(self.plan, &self.record.cgroup.path)? {
            options.external_mount(&place, &source);
        }
        namespaces::give(self.plan, self.opened, &mut options);
        for (name, fd) in self.stdio {
            options.inherit(name, fd.as_fd());
        }
        if let Some(profile) = args.lsm_profile {
            options.text(Text::LsmProfile, profile);
        }
        if let Some(context) = args.lsm_mount_context {
            options.text(Text::LsmMountContext, context);
        }
        let path = &self.record.cgroup.path;
        if args.words.cgroups != CgroupsMode::Ignore && !path.as_os_str().is_empty() {
            // the one of the checkpoint may have had another name
            let hierarchy = Hierarchy::discover()?;
            let below = path.strip_prefix(hierarchy.mount_point()).unwrap_or(path);
            options.cgroup_root(&Path::new("/").join(below));
        }
        Ok(options)
    }

    /// The container is there, and none of its processes has gone on yet.
    fn restored(&mut self, args: &RestoreArgs<'_>, entry: &Entry, pid: i32) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            if self.record.cgroup.scope.is_none() {
                // criu's own processes are beyond them
                cgroup.apply(&self.plan.limits.settings)?;
            }
            if let Some(program) = &self.plan.device_program {
                cgroup.attach_devices(program)?;
            }
        }
        self.record.init = Some(InitProcess::of(Pid::from_raw(pid))?);
        let groups = std::mem::take(&mut self.groups);
        Kept::new(args.create.spec, self.plan, args.create.options, groups).save(entry.dir())?;
        entry.save(&self.record)
    }

    /// Gives others what they wait for.
    fn tell(&mut self, args: &RestoreArgs<'_>, pid: Pid) -> Result<OwnedFd> {
        if self.record.init.is_none_or(|init| init.pid() != pid) {
            return Err(Error::new(ErrorKind::System, "criu did not say what it restored"));
        }
        // it may have ended by now, with its exit code to be waited for: as long as nobody
        // has, the id of this process' child is its own
        let pidfd = process::pidfd_open(pid).step(|| format!("open process {pid}"))?;
        if let (Console::Socket(path), Some(master)) = (&args.create.console, &self.console) {
            terminal::send_master(path, master.as_fd())?;
        }
        if let Some(path) = args.create.pid_file {
            write_pid_file(path, pid)?;
        }
        Ok(pidfd)
    }
}

/// What CRIU says on its way.
fn hear(
    task: &mut Task<'_>,
    args: &RestoreArgs<'_>,
    undo: &mut Undo<'_>,
    notice: Notice<'_>,
) -> Result<()> {
    let interrupts = task.interrupts;
    match notice.script {
        // networks are set up by hooks, if at all
        "setup-namespaces" => {
            let state = || hook_state(&task.record, "creating", notice.pid);
            undo.poststop = Some((task.record.clone(), Pid::from_raw(notice.pid)));
            hooks::run_outside(&task.plan.hooks.prestart, state(), interrupts, None)?;
            hooks::run_outside(&task.plan.hooks.create_runtime, state(), interrupts, None)
        }
        "post-restore" => task.restored(args, undo.entry, notice.pid),
        "orphan-pts-master" => {
            task.console = notice.fd;
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Restored {
    /// Init, which is this process' child.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The master of the container's pty, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Gives the lock back, so that other commands can have the container.
    #[must_use]
    pub fn unlock(self) -> RunningAgain {
        let Restored { entry, record, pidfd, .. } = self;
        RunningAgain { entry, record, pidfd }
    }
}

/// A restored container, with its maker waiting for it.
#[derive(Debug)]
pub struct RunningAgain {
    entry: Entry,
    record: Record,
    pidfd: OwnedFd,
}

impl RunningAgain {
    /// Init.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// After the wait: ends whoever is in the container, init too if it has not `ended`,
    /// and removes it.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn finish(self, ended: bool) -> Result<()> {
        finish(&self.entry, self.record, (false, ended))
    }
}
