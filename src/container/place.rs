//! Where a container's cgroup goes, and whether it gets one at all.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::cgroup::limits::Absent;
use crate::cgroup::systemd::{Placement, ScopeArgs, ScopePlan};
use crate::cgroup::{Cgroup, CgroupRecord, Found, Hierarchy};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::Plan;
use crate::sys::caller::caller;
use crate::trace;

/// The cgroup of a container that is to be.
#[derive(Debug)]
pub(super) enum Place {
    /// One of its own, at this path below the hierarchy.
    Own { hierarchy: Hierarchy, path: PathBuf },
    /// The one that systemd makes for its init; and its record.
    Scope(Box<RefCell<Placement>>, CgroupRecord),
    /// None: it stays in the caller's, whose directory this is, if it is to be
    /// seen.
    Callers(Option<PathBuf>),
}

impl Place {
    /// Decides. Without power over the machine, a container without limits does
    /// without a cgroup where none is delegated, as with other runtimes; not so if
    /// systemd is to make it.
    ///
    /// # Errors
    /// Limits, or processes that only a cgroup can hold together, where none is
    /// delegated. No systemd that could make one.
    pub(super) fn find(plan: &Plan, rootless: bool, systemd: bool) -> Result<Self> {
        if systemd {
            let placement = Placement::find(ScopePlan::resolve(ScopeArgs {
                id: &plan.id,
                cgroups_path: plan.cgroups_path.as_deref(),
                annotations: &plan.annotations,
                user: !caller().is_host_root(),
            })?)?;
            let record = placement.record();
            return Ok(Place::Scope(Box::new(RefCell::new(placement)), record));
        }
        let own = || -> Result<(Hierarchy, PathBuf)> {
            let hierarchy = Hierarchy::discover()?;
            let path = hierarchy.cgroup_path(plan.cgroups_path.as_deref(), &plan.id)?;
            Ok((hierarchy, path))
        };
        if !rootless {
            return own().map(|(hierarchy, path)| Place::Own { hierarchy, path });
        }
        let why = match own() {
            Ok((hierarchy, path)) => match hierarchy.is_delegated(&path) {
                Ok(true) => return Ok(Place::Own { hierarchy, path }),
                Ok(false) => Error::unsupported(format!(
                    "no cgroup is delegated to this user at {}",
                    hierarchy.mount_point().join(path).display()
                )),
                Err(e) => e,
            },
            // a path that is wrong is wrong for everybody
            Err(e) if e.kind() == ErrorKind::Invalid => return Err(e),
            Err(e) => e,
        };
        let delegation = "systemd-run --user --scope -p Delegate=yes COMMAND starts a command with \
                          one: see docs/rootless.md";
        // one that means no limit holds without a cgroup as well
        let mut limits = plan.limits.settings.iter().filter(|s| s.absent != Absent::Ignore);
        if let Some(setting) = limits.next() {
            return Err(why.step(&setting.field).hint(delegation));
        }
        if !plan.namespaces.makes(CloneFlags::CLONE_NEWPID) {
            let field = "linux.namespaces: without a pid namespace of its own the container needs \
                         a cgroup";
            return Err(why.step(field).hint(delegation));
        }
        crate::logging::debug(|| format!("no cgroup: {why}"));
        let callers = Hierarchy::discover()
            .and_then(|hierarchy| Ok(hierarchy.mount_point().join(hierarchy.own_cgroup()?)));
        Ok(Place::Callers(callers.ok()))
    }

    /// What there will be of the container's own cgroup; the path is empty if it
    /// has none.
    pub(super) fn record(&self) -> CgroupRecord {
        match self {
            Place::Own { hierarchy, path } => {
                let path = hierarchy.mount_point().join(path);
                CgroupRecord { path, ..CgroupRecord::default() }
            }
            Place::Scope(_, record) => record.clone(),
            Place::Callers(_) => CgroupRecord::default(),
        }
    }

    /// The topmost directory that has to be the container's alone; empty for none.
    pub(super) fn top(&self) -> PathBuf {
        match self {
            Place::Scope(placement, _) => placement.borrow().scope_path(),
            other => other.record().path,
        }
    }

    /// Makes the container's own cgroup, if it gets one before there is a process
    /// for it; `was_there` tells whether something has been seen in its place.
    pub(super) fn make(&self, plan: &Plan, was_there: bool) -> Result<Option<Cgroup>> {
        match self {
            Place::Own { hierarchy, path } => {
                let (settings, found) = (&plan.limits.settings, Found::by(was_there));
                let cgroup = Cgroup::create_held(hierarchy, path, settings, found)?;
                cgroup.offer_controllers(hierarchy, path);
                Ok(Some(cgroup))
            }
            Place::Scope(..) | Place::Callers(_) => Ok(None),
        }
    }

    /// True if init has to wait until it is in its cgroup.
    pub(super) fn awaits_init(&self) -> bool {
        matches!(self, Place::Scope(..))
    }

    /// The same for one that begins with a process; which one it is goes into
    /// `made`, and once there is something to undo, it stands in `undo`.
    pub(super) fn enclose(
        &self,
        plan: &Plan,
        init: Pid,
        made: &mut CgroupRecord,
        undo: &mut Option<CgroupRecord>,
    ) -> Result<Option<Cgroup>> {
        let Place::Scope(placement, record) = self else { return Ok(None) };
        let mut placement = placement.borrow_mut();
        let settings = &plan.limits.settings;
        let job = trace::step("ask systemd for a scope", || placement.request(settings, init))?;
        *undo = Some(record.clone());
        let settled = trace::step("wait for the scope", || placement.settle(&job, settings, init));
        if settled.as_ref().is_err_and(|e| e.kind() == ErrorKind::State) {
            // whoever is in there is none of ours
            *undo = None;
        }
        let cgroup = settled?;
        made.clone_from(cgroup.record());
        Ok(Some(cgroup))
    }

    /// The directory that shows itself as the container's cgroup.
    pub(super) fn seen<'a>(&'a self, own: Option<&'a Cgroup>) -> Option<&'a Path> {
        match self {
            Place::Own { .. } => own.map(Cgroup::path),
            Place::Scope(_, record) => Some(&record.path),
            Place::Callers(path) => path.as_deref(),
        }
    }
}
