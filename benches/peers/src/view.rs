//! What the runtimes see of the machine, and what is left of them there.

use std::fs::{read_dir, read_to_string, remove_dir};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const PLACE: &str = "/sys/fs/cgroup";

/// A mount namespace of our own with cgroup2 where all runtimes look for it.
/// Nothing of it is seen outside, and it ends with the last process in it.
#[derive(Debug)]
pub(crate) struct View {
    /// Where cgroup2 is mounted.
    pub(crate) cgroup2: PathBuf,
    pub(crate) controllers: String,
    /// Version 1 controllers were in its place.
    pub(crate) hybrid: bool,
}

/// The balloon device reports free pages, and the hypervisor takes them: bit 5 of its
/// features (virtio specification, 5.5.3).
pub(crate) fn memory_goes_back() -> bool {
    let balloons = read_dir("/sys/bus/virtio/drivers/virtio_balloon").into_iter().flatten();
    let features = |dir: std::fs::DirEntry| read_to_string(dir.path().join("features")).ok();
    balloons.flatten().filter_map(features).any(|bits| bits.as_bytes().get(5) == Some(&b'1'))
}

impl View {
    /// To be called while there is one thread.
    pub(crate) fn enter() -> Result<Self> {
        let table = read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
        let Some(found) = cgroup2_in(&table) else {
            bail!("there is no cgroup2 mount: mount -t cgroup2 none {PLACE}");
        };
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of our own needs root")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
            .context("make mounts private")?;
        let hybrid = found != Path::new(PLACE);
        if hybrid {
            mount(Some(&found), PLACE, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("bind {} over {PLACE}", found.display()))?;
        }
        let cgroup2 = PathBuf::from(PLACE);
        let controllers = read_to_string(cgroup2.join("cgroup.controllers"))
            .context("read cgroup.controllers")?;
        Ok(View { cgroup2, controllers: controllers.trim().to_owned(), hybrid })
    }

    pub(crate) fn has_limits(&self) -> bool {
        ["memory", "cpu", "pids"].iter().all(|name| self.has(name))
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.split(' ').any(|one| one == controller)
    }

    /// A disk that the io controller can throttle: its device number.
    pub(crate) fn disk(&self) -> Option<(u64, u64)> {
        if !self.has("io") {
            return None;
        }
        let mut names: Vec<_> = read_dir("/sys/block").ok()?.flatten().collect();
        names.sort_by_key(std::fs::DirEntry::file_name);
        names.into_iter().find_map(|entry| {
            // a loop device, a RAM disk, a CD-ROM: nothing behind them
            let size = read_to_string(entry.path().join("size")).ok()?;
            let is_disk = entry.path().join("device").exists() && size.trim() != "0";
            let number = read_to_string(entry.path().join("dev")).ok().filter(|_| is_disk)?;
            let (major, minor) = number.trim().split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
    }
}

/// The mount point of the last cgroup2 of a mountinfo.
fn cgroup2_in(table: &str) -> Option<PathBuf> {
    table
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .next_back()
        .map(PathBuf::from)
}

/// Kills and removes every cgroup whose name bears the tag; the answer is how
/// many there were.
pub(crate) fn remove_cgroups(parent: &Path, tag: &str) -> usize {
    let Ok(entries) = read_dir(parent) else { return 0 };
    let mut count = 0;
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(tag) {
            count += 1;
            remove_tree(&path);
        } else {
            count += remove_cgroups(&path, tag);
        }
    }
    count
}

fn remove_tree(path: &Path) {
    // nobody may be in it
    std::fs::write(path.join("cgroup.kill"), "1").unwrap_or_default();
    for _ in 0..100 {
        for entry in read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
        if remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("bench: cgroup {} can't be removed: something is still in it", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                     32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(table), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_in("1 1 0:1 / / rw - ext4 cgroup2 rw\n"), None);
    }
}
