//! Mounts whose files come from outside of the container: CRIU is told of them at the
//! checkpoint, and where to get them at the restore.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::{Result, Step};
use crate::sandbox::path::{Missing, ensure};
use crate::spec::{BindPlan, MountKind, MountPlan, Plan};
use crate::sys::fs::{open_dir, open_in_root, top_of_cgroup2};
use crate::sys::mountinfo;

/// Device nodes that every container has; in a user namespace they are the host's own,
/// mounted.
const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// The host's null device, which covers files that are masked.
const NULL: &str = "/dev/null";

/// The mounts of a container that runs.
pub(super) struct Table {
    pid: Pid,
    points: BTreeSet<PathBuf>,
    ids: BTreeSet<u64>,
}

impl Table {
    pub(super) fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/mountinfo");
        let bytes = std::fs::read(&path).step(|| path)?;
        let points = mountinfo::mounts(&bytes).map(|mount| mount.point()).collect();
        let ids = mountinfo::mounts(&bytes).filter_map(|mount| mount.id()).collect();
        Ok(Table { pid, points, ids })
    }

    /// Whether a mount is one of the container's.
    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// Where the mounts from outside are.
    pub(super) fn external(&self, plan: &Plan) -> Result<BTreeSet<PathBuf>> {
        let root = format!("/proc/{}/root", self.pid);
        let root = open_dir(Path::new(&root)).step(|| root)?;
        let resolve = |path: &Path| {
            let fd = open_in_root(root.as_fd(), path, OFlag::O_PATH, Mode::empty()).ok()?;
            // as a path of the container's mount namespace
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
        };
        let planned: Vec<PathBuf> =
            plan.mounts.iter().filter_map(|mount| resolve(&mount.destination)).collect();
        let mut external = BTreeSet::new();
        for mount in &plan.mounts {
            let Some(place) = resolve(&mount.destination) else { continue };
            match &mount.kind {
                MountKind::Bind(bind) if bind.recursive => {
                    external.extend(self.below(&place, &planned).cloned());
                }
                // that of the container's own cgroup is a bind mount, too
                MountKind::Bind(_) | MountKind::Cgroup => {}
                MountKind::Filesystem { .. } | MountKind::Remount(_) => continue,
            }
            external.extend(self.points.get(&place).cloned());
        }
        let single = plan.masked_paths.iter().cloned().chain(devices(plan));
        for path in single.filter_map(|path| resolve(&path)) {
            let is_file = std::fs::metadata(in_root(&root, &path)).is_ok_and(|m| !m.is_dir());
            if is_file && self.points.contains(&path) {
                external.insert(path);
            }
        }
        Ok(external)
    }

    /// Mounts that a recursive bind mount has brought along.
    fn below<'a>(
        &'a self,
        place: &'a Path,
        planned: &'a [PathBuf],
    ) -> impl Iterator<Item = &'a PathBuf> {
        self.points.iter().filter(move |point| {
            let own =
                planned.iter().any(|p| p.starts_with(place) && point.starts_with(p) && p != place);
            *point != place && point.starts_with(place) && !own
        })
    }
}

fn in_root(root: &impl AsRawFd, path: &Path) -> PathBuf {
    let relative = path.strip_prefix("/").unwrap_or(path);
    Path::new("/proc/self/fd").join(root.as_raw_fd().to_string()).join(relative)
}

/// Device nodes that are mounts.
fn devices(plan: &Plan) -> Vec<PathBuf> {
    if !plan.namespaces.separates(CloneFlags::CLONE_NEWUSER) {
        return Vec::new();
    }
    let own = plan.devices.iter().map(|device| device.path.clone());
    DEVICES.iter().map(PathBuf::from).chain(own).collect()
}

/// Where CRIU gets the mounts from outside: the place of each, as at the checkpoint,
/// and its source; `cgroup` is the container's own. Places are made in the root where they are missing.
pub(super) fn sources(plan: &Plan, cgroup: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let root = open_dir(&plan.rootfs.path).step(|| plan.rootfs.path.display().to_string())?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
    let host = std::fs::read("/proc/self/mountinfo").step(|| "/proc/self/mountinfo")?;
    let mut all = Vec::new();
    for (at, mount) in plan.mounts.iter().enumerate() {
        let place = make_place(&real, plan.mounts.get(..at).unwrap_or_default(), mount)
            .map_err(|e| e.step(mount.label()))?;
        match &mount.kind {
            MountKind::Bind(bind) => {
                if bind.recursive {
                    all.extend(brought_along(&host, bind, &place));
                }
                all.push((place, bind.source.clone()));
            }
            MountKind::Cgroup => {
                // as at the create
                let is_apart = plan.namespaces.separates(CloneFlags::CLONE_NEWCGROUP);
                let seen = if is_apart { cgroup } else { top_of_cgroup2(cgroup) };
                all.push((place, seen.to_owned()));
            }
            MountKind::Filesystem { .. } | MountKind::Remount(_) => {}
        }
    }
    all.extend(plan.masked_paths.iter().map(|path| (path.clone(), NULL.into())));
    all.extend(devices(plan).into_iter().map(|path| (path.clone(), path)));
    Ok(all)
}

/// Mounts of the host below the source of a bind mount.
fn brought_along(host: &[u8], bind: &BindPlan, place: &Path) -> Vec<(PathBuf, PathBuf)> {
    let points = mountinfo::mounts(host).map(|mount| mount.point());
    let pair = |point: PathBuf| {
        let below = point.strip_prefix(&bind.source).ok()?;
        (below != Path::new("")).then(|| (place.join(below), point.clone()))
    };
    points.filter_map(pair).collect()
}

/// Makes the place of a mount, unless it lies in a file system whose content CRIU
/// brings; the answer is its path in the container, links resolved as far as the root
/// file system has them.
fn make_place(rootfs: &Path, earlier: &[MountPlan], mount: &MountPlan) -> Result<PathBuf> {
    let wanted = &mount.destination;
    let missing = match &mount.kind {
        MountKind::Bind(bind) if !bind.source.is_dir() => Missing::File,
        _ => Missing::Directory,
    };
    let above = earlier.iter().rev().find(|other| {
        other.destination != Path::new("/") && wanted.starts_with(&other.destination)
    });
    let (base, within) = match above.map(|above| (&above.kind, &above.destination)) {
        None => (rootfs, Path::new("/")),
        Some((MountKind::Bind(bind), destination)) => {
            (bind.source.as_path(), destination.as_path())
        }
        Some(_) => return Ok(wanted.clone()),
    };
    let below = Path::new("/").join(wanted.strip_prefix(within).unwrap_or(wanted));
    if below == Path::new("/") {
        return Ok(wanted.clone());
    }
    let base = open_dir(base).step(|| base.display().to_string())?;
    let made = ensure(base.as_fd(), &below, missing)?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", made.as_raw_fd()))?;
    let base = std::fs::read_link(format!("/proc/self/fd/{}", base.as_raw_fd()))?;
    Ok(path.strip_prefix(&base).map_or(wanted.clone(), |below| within.join(below)))
}
