//! Where a container's cgroup goes, and whether it gets one at all.

use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use crate::cgroup::limits::Absent;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::Plan;

/// The cgroup of a container that is to be.
#[derive(Debug)]
pub(super) enum Place {
    /// One of its own, at this path below the hierarchy.
    Own { hierarchy: Hierarchy, path: PathBuf },
    /// None: it stays in the caller's, whose directory this is, if it is to be
    /// seen.
    Callers(Option<PathBuf>),
}

impl Place {
    /// Decides. Without power over the machine, a container without limits does
    /// without a cgroup where none is delegated, as with other runtimes.
    ///
    /// # Errors
    /// Limits, or processes that only a cgroup can hold together, where none is
    /// delegated.
    pub(super) fn find(plan: &Plan, rootless: bool) -> Result<Self> {
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

    /// The path of the container's own cgroup; empty if it has none.
    pub(super) fn own_path(&self) -> PathBuf {
        match self {
            Place::Own { hierarchy, path } => hierarchy.mount_point().join(path),
            Place::Callers(_) => PathBuf::new(),
        }
    }

    /// Makes the container's own cgroup, if it gets one.
    pub(super) fn make(&self, plan: &Plan) -> Result<Option<Cgroup>> {
        match self {
            Place::Own { hierarchy, path } => {
                Cgroup::create(hierarchy, path, &plan.limits.settings).map(Some)
            }
            Place::Callers(_) => Ok(None),
        }
    }

    /// The directory that shows itself as the container's cgroup.
    pub(super) fn seen<'a>(&'a self, own: Option<&'a Cgroup>) -> Option<&'a Path> {
        match self {
            Place::Own { .. } => own.map(Cgroup::path),
            Place::Callers(path) => path.as_deref(),
        }
    }
}
