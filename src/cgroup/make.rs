//! Making a cgroup, or taking over one that is there, for one container alone.

use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::geteuid;

use super::events::Events;
use super::limits::Setting;
use super::{Cgroup, CgroupRecord, Hierarchy, Identity, identity, tree};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::SysResult;
use crate::sys::lock::{hold, let_go};

/// What was at a cgroup's path before it was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: what is there now, somebody else is about to use.
    Nothing,
    /// A cgroup, or who knows.
    Any,
}

impl Found {
    /// By whether it was there.
    pub fn by(was_there: bool) -> Self {
        if was_there { Found::Any } else { Found::Nothing }
    }
}

impl Cgroup {
    /// Makes the cgroup at `path` (relative to the hierarchy's mount point, as
    /// [`Hierarchy::cgroup_path`] gives it), with the controllers that these
    /// settings need; [`Self::apply`] writes them. An error leaves nothing behind.
    ///
    /// A cgroup that is there already and has no process in it is taken over
    /// with its settings, since somebody may have prepared it, but without the
    /// device programs that a container left on it. One in which tare has killed
    /// everything was a container's, and is made anew.
    ///
    /// # Errors
    /// A cgroup there that is in use or belongs to somebody else; a controller
    /// that is not to be had.
    pub fn create(hierarchy: &Hierarchy, path: &Path, settings: &[Setting]) -> Result<Self> {
        let cgroup = Self::create_held(hierarchy, path, settings, Found::Any)?;
        let_go(&cgroup.dir).step(|| format!("cgroup {}", cgroup.path().display()))?;
        Ok(cgroup)
    }

    /// The same, for a process to come: no other call of this has the cgroup as long as
    /// the value lives, and none after it if a process is in it by then.
    ///
    /// # Errors
    /// As there; another call has it; one that was not `found` before is there now.
    pub fn create_held(
        hierarchy: &Hierarchy,
        path: &Path,
        settings: &[Setting],
        found: Found,
    ) -> Result<Self> {
        let absolute = hierarchy.mount_point().join(path);
        let mut record = CgroupRecord { path: absolute, ..CgroupRecord::default() };
        let made = match make(hierarchy, path, &mut record.made_parents) {
            Ok(made) => made,
            Err(e) => {
                tree::remove_parents(&record);
                return Err(e.step(format!("cgroup {}", record.path.display())));
            }
        };
        if !made && found == Found::Nothing {
            tree::remove_parents(&record);
            return Err(in_use(OTHERS).step(format!("cgroup {}", record.path.display())));
        }
        // from here on it is this call's, or not to be touched
        let held = Self::open_held(hierarchy, path, record.clone());
        match held.and_then(|held| held.furnish(hierarchy, path, settings, made)) {
            Err(e) if made && e.kind() != ErrorKind::Exists => {
                Err(match tree::remove(&record, Instant::now()) {
                    Ok(()) => e,
                    Err(left) => e.hint(left),
                })
            }
            ready => ready,
        }
    }

    /// Makes ready what nobody else is about to use.
    fn furnish(
        mut self,
        hierarchy: &Hierarchy,
        path: &Path,
        settings: &[Setting],
        made: bool,
    ) -> Result<Self> {
        // another call may have had it, and have put a process in it, between its being
        // made and held
        let events = self.refuse_populated()?;
        if !made {
            self.take_over(events)?;
            self.replace_killed(hierarchy, path)?;
        }
        self.identify(!made)?;
        self.was_there = !made;
        if path.components().nth(1).is_some() {
            self.refuse_frozen(events)?;
        }
        tree::enable_controllers(hierarchy, path, &self, settings)?;
        Ok(self)
    }

    /// Opens it, and keeps others from it who come by here.
    fn open_held(hierarchy: &Hierarchy, path: &Path, record: CgroupRecord) -> Result<Self> {
        let step = format!("cgroup {}", record.path.display());
        let cgroup = Self::open_as(hierarchy.dir(), path, record, OFlag::O_RDONLY)?;
        match hold(&cgroup.dir).step(|| &step)? {
            true => Ok(cgroup),
            false => Err(in_use(OTHERS).step(step)),
        }
    }

    /// Puts a new one in the place of one that takes no clones any more.
    fn replace_killed(&mut self, hierarchy: &Hierarchy, path: &Path) -> Result<()> {
        let step =
            || format!("cgroup {}: make it anew", hierarchy.mount_point().join(path).display());
        if !identity::was_killed(self.dir()).step(step)? {
            return Ok(());
        }
        let old = CgroupRecord { path: self.record.path.clone(), ..CgroupRecord::default() };
        tree::remove(&old, Instant::now())?;
        mkdirat(hierarchy.dir(), path, Mode::from_bits_truncate(0o755)).step(step)?;
        *self = Self::open_held(hierarchy, path, self.record.clone())?;
        self.refuse_populated().map(drop)
    }

    /// Notes which cgroup this is; one that `was_there` gets a new user.
    pub(super) fn identify(&mut self, was_there: bool) -> Result<()> {
        let identity = match was_there {
            false => Identity::of(self.dir()),
            true => Identity::claimed(self.dir()),
        };
        self.record.identity =
            Some(identity.step(|| format!("cgroup {}: mark it as taken", self.path().display()))?);
        Ok(())
    }

    /// Makes a cgroup that hands controllers down one that takes processes again:
    /// its last user may have been a container with cgroups of its own.
    fn take_in(&self) -> SysResult<()> {
        let handed = tree::read(self.dir(), "cgroup.subtree_control")?;
        if handed.trim().is_empty() {
            return Ok(());
        }
        tree::remove_children(self.dir())?;
        let back: Vec<_> = handed.split_whitespace().map(|name| format!("-{name}")).collect();
        tree::write(self.dir(), "cgroup.subtree_control", &back.join(" "))
    }

    /// Makes sure that a cgroup which was there is nobody's, and that nothing of
    /// its last user holds for the next.
    fn take_over(&self, events: Events) -> Result<()> {
        let step = || format!("cgroup {}", self.path().display());
        let owner = fstat(&self.dir).step(step)?.st_uid;
        if owner != geteuid().as_raw() {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("it is there already and belongs to uid {owner}"),
            )
            .step(step()));
        }
        if events.frozen {
            tree::write(self.dir(), "cgroup.freeze", "0").step(step)?;
        }
        self.take_in().step(step)?;
        match self.forget_devices() {
            // who may not look has no program of their own there
            Err(e) if !e.is_errno(Errno::EPERM) => return Err(e.step(step())),
            _ => {}
        }
        Ok(())
    }
}

/// Why a cgroup that is not populated is not to be had.
const OTHERS: &str = "another container is being created in it";

pub(super) fn in_use(why: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("the container's cgroup is not empty: {why}"))
}

/// Makes the directory; false if it was there.
fn make(hierarchy: &Hierarchy, path: &Path, made_parents: &mut usize) -> Result<bool> {
    let mode = Mode::from_bits_truncate(0o755);
    // another container's delete may remove a parent between two calls
    for _ in 0..16 {
        match mkdirat(hierarchy.dir(), path, mode) {
            Ok(()) => return Ok(true),
            Err(Errno::EEXIST) => return Ok(false),
            Err(Errno::ENOENT) => make_parents(hierarchy, path, mode, made_parents)?,
            Err(errno) => return Err(explain_mkdir(errno)),
        }
    }
    Err(Error::errno(Errno::EAGAIN))
}

/// Makes the parents that are missing, from the top, and counts them.
fn make_parents(hierarchy: &Hierarchy, path: &Path, mode: Mode, made: &mut usize) -> Result<()> {
    let parents: Vec<_> = path.ancestors().skip(1).collect();
    for parent in parents.into_iter().rev().filter(|p| *p != Path::new("")) {
        match mkdirat(hierarchy.dir(), parent, mode) {
            Ok(()) => *made += 1,
            Err(Errno::EEXIST) => {}
            // removed again under us: the caller begins anew
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => {
                // they are the parents of this one, not of the cgroup
                tree::remove_parents(&CgroupRecord {
                    path: hierarchy.mount_point().join(parent),
                    made_parents: std::mem::take(made),
                    ..CgroupRecord::default()
                });
                return Err(explain_mkdir(errno));
            }
        }
    }
    Ok(())
}

fn explain_mkdir(errno: Errno) -> Error {
    let error = Error::errno(errno).step("mkdir");
    match errno {
        Errno::EACCES | Errno::EPERM => error
            .hint("the parent is not delegated to this user: choose a linux.cgroupsPath that is"),
        Errno::EAGAIN => error.hint("cgroup.max.descendants or cgroup.max.depth of a parent"),
        Errno::EROFS => error.hint("cgroup2 is mounted read-only here"),
        _ => error,
    }
}
