//! Directories of the state directory that are there as long as CRIU works.

use std::fs::{DirBuilder, remove_dir};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::view::View;
use crate::cgroup::Hierarchy;
use crate::error::{Error, Result, Step};

/// `criu`, `criu/root`: the root file system as CRIU sees it, `criu/cgroups/unified`:
/// the hierarchy of cgroups. CRIU would mount another cgroup2 else, and with it take
/// `nsdelegate` and other options from the machine's own (cgroup2 has one set of them).
#[derive(Debug)]
pub(super) struct Workshop {
    top: PathBuf,
}

impl Workshop {
    /// Makes them.
    pub(super) fn new(state: &Path) -> Result<Self> {
        let workshop = Workshop { top: state.join("criu") };
        let made = workshop.make();
        made.map(|()| workshop)
    }

    fn make(&self) -> Result<()> {
        // one that was killed has left its own
        self.remove()?;
        for dir in self.dirs() {
            let made = DirBuilder::new().mode(0o700).create(&dir);
            made.step(|| format!("mkdir {}", dir.display()))?;
        }
        Ok(())
    }

    /// From the outermost on.
    fn dirs(&self) -> [PathBuf; 4] {
        [self.top.clone(), self.root(), self.cgroups(), self.cgroups().join("unified")]
    }

    /// Where CRIU finds the root file system.
    pub(super) fn root(&self) -> PathBuf {
        self.top.join("root")
    }

    /// Where CRIU finds the hierarchies of cgroups.
    pub(super) fn cgroups(&self) -> PathBuf {
        self.top.join("cgroups")
    }

    /// CRIU's view of the host, in which the directories are what they are for.
    pub(super) fn view(&self, rootfs: &Path) -> Result<View> {
        let hierarchy = Hierarchy::discover()?;
        let unified = self.cgroups().join("unified");
        let mounts = [(rootfs, self.root()), (hierarchy.mount_point(), unified)];
        let mounts = mounts.each_ref().map(|(source, target)| (*source, target.as_path()));
        View::new(&self.top, &mounts)
    }

    /// By rmdir, which takes nothing that is mounted there.
    pub(super) fn remove(&self) -> Result<()> {
        for dir in self.dirs().iter().rev() {
            match remove_dir(dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::from(e).step(format!("rmdir {}", dir.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
