//! Where the cgroup2 hierarchy is, and what it can do.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};

use super::path;
use crate::error::{Error, Result, Step};
use crate::sys::caller::caller;
use crate::sys::fs::is_cgroup2;
use crate::sys::mountinfo::{Mount, mounts};

/// Where the hierarchy is on a host that has nothing but cgroup2, and on one
/// that has the controllers in cgroup v1.
const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The cgroup2 hierarchy as this process sees it.
#[derive(Debug)]
pub struct Hierarchy {
    mount_point: PathBuf,
    dir: OwnedFd,
}

impl Hierarchy {
    /// Finds the hierarchy.
    ///
    /// The two usual places are tried by statfs, which costs one system call
    /// where the mount table of a busy host costs a long read; only a host
    /// that keeps cgroup2 elsewhere pays for that. `/sys/fs/cgroup` itself
    /// comes first: whoever mounts cgroup2 over it (a private view of a hybrid
    /// host) means that one.
    ///
    /// # Errors
    /// No cgroup2 mount.
    pub fn discover() -> Result<Self> {
        for place in USUAL {
            if let Some(found) = Self::at(Path::new(place)) {
                return Ok(found);
            }
        }
        let table = mount_table()?;
        // the last one that still answers: earlier ones may be covered
        cgroup2_mounts(&table).filter_map(|mount| Self::at(&mount.point())).last().ok_or_else(
            || {
                Error::unsupported("no cgroup2 file system is mounted").hint(
                    "mount one: mkdir -p /sys/fs/cgroup/unified && \
                     mount -t cgroup2 none /sys/fs/cgroup/unified",
                )
            },
        )
    }

    /// The hierarchy at `mount_point`, if there is one.
    fn at(mount_point: &Path) -> Option<Self> {
        let is_cgroup2 = is_cgroup2(mount_point);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = || openat(AT_FDCWD, mount_point, flags, Mode::empty()).ok();
        let dir = if is_cgroup2 { open()? } else { return None };
        Some(Hierarchy { mount_point: mount_point.to_owned(), dir })
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The directory of its topmost visible cgroup (O_PATH).
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The path below the mount point for a container: see [`path::resolve`].
    ///
    /// # Errors
    /// A cgroupsPath that leads out, or a relative one where the caller's own
    /// cgroup is not to be seen.
    pub fn cgroup_path(&self, cgroups_path: Option<&Path>, id: &str) -> Result<PathBuf> {
        path::resolve(cgroups_path, id, caller().is_host_root(), || {
            let own = self.own_cgroup()?;
            let parent = own.parent().map(Path::to_owned).unwrap_or_default();
            let fits = caller().is_host_root() || self.may_write(&parent) || !self.may_write(&own);
            Ok(if fits { parent } else { own })
        })
    }

    /// True if this caller may make the cgroup at `path`, and be cloned into it:
    /// its nearest ancestor that is there is the caller's, and so is the list of
    /// processes of the one that it has in common with the caller's own (the
    /// kernel's rule for a delegated subtree).
    ///
    /// # Errors
    /// The caller's own cgroup is not below the mount.
    pub fn is_delegated(&self, path: &Path) -> Result<bool> {
        let own = self.own_cgroup()?;
        let there = |p: &&Path| faccessat(&self.dir, at(p), AccessFlags::F_OK, EACCESS).is_ok();
        let Some(nearest) = path.ancestors().find(there) else { return Ok(false) };
        let same = own.components().zip(path.components()).take_while(|(a, b)| a == b);
        let common: PathBuf = same.map(|(part, _)| part).collect();
        Ok(self.may_write(nearest) && self.may_write(&common.join("cgroup.procs")))
    }

    pub(super) fn may_write(&self, path: &Path) -> bool {
        faccessat(&self.dir, at(path), AccessFlags::W_OK, EACCESS).is_ok()
    }

    /// The caller's own cgroup, relative to the mount point.
    ///
    /// # Errors
    /// It is not below the mount.
    pub fn own_cgroup(&self) -> Result<PathBuf> {
        self.cgroup_of("self")
    }

    /// The cgroup of a process, by its pid, relative to the mount point.
    ///
    /// # Errors
    /// It is not below the mount.
    pub fn cgroup_of(&self, process: impl Display) -> Result<PathBuf> {
        let file = format!("/proc/{process}/cgroup");
        let text = read_proc(&file)?;
        let own = own_line(&text)
            .ok_or_else(|| Error::unsupported(format!("{file} has no cgroup2 line")))?;
        let table = mount_table()?;
        let root = cgroup2_mounts(&table)
            .filter(|mount| mount.point() == self.mount_point)
            .last()
            .map_or_else(|| PathBuf::from("/"), |mount| mount.root());
        below_root(own, &root).ok_or_else(|| {
            Error::unsupported(format!(
                "{file}: the cgroup {} is not below the cgroup2 mount at {}",
                own.display(),
                self.mount_point.display()
            ))
            .hint("give an absolute linux.cgroupsPath")
        })
    }

    /// True if limits of this controller (`memory`) are to be had.
    ///
    /// # Errors
    /// cgroup.controllers can't be read.
    pub fn has_controller(&self, controller: &str) -> Result<bool> {
        Ok(super::tree::has(&self.controllers()?, controller))
    }

    /// The controllers of the topmost visible cgroup, separated by spaces.
    pub(super) fn controllers(&self) -> Result<String> {
        super::tree::read(self.dir(), "cgroup.controllers")
            .step(|| format!("read {}/cgroup.controllers", self.mount_point.display()))
    }

    /// The error for a controller that the hierarchy does not have: says where
    /// it is instead.
    pub(super) fn missing_controller(&self, controller: &str) -> Error {
        let error = Error::unsupported(format!(
            "the {controller} controller is not in the cgroup2 hierarchy at {}",
            self.mount_point.display()
        ));
        match mount_table().ok().and_then(|t| v1_mount(&t, controller)) {
            Some(point) => error.hint(format!("it is bound to cgroup v1 at {}", point.display())),
            None => error.hint("it is not delegated to here, or the kernel does not have it"),
        }
    }
}

const EACCESS: AtFlags = AtFlags::AT_EACCESS;

/// The topmost cgroup has no name of its own.
fn at(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// The mount table of this process (see [`crate::sys::mountinfo`]).
///
/// # Errors
/// No /proc.
pub fn mount_table() -> Result<Vec<u8>> {
    read_proc("/proc/self/mountinfo")
}

fn read_proc(path: &str) -> Result<Vec<u8>> {
    let mut text = Vec::with_capacity(8192);
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut text))
        .step(|| format!("read {path}"))?;
    Ok(text)
}

/// The cgroup2 mounts of a mount table.
pub fn cgroup2_mounts(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    mounts(table).filter(|mount| mount.fstype() == b"cgroup2")
}

/// The name that a controller of cgroup2 has in cgroup v1.
pub fn v1_name(controller: &str) -> &str {
    match controller {
        "io" => "blkio",
        other => other,
    }
}

/// Where a controller is bound to cgroup v1, by a mount table.
pub fn v1_mount(table: &[u8], controller: &str) -> Option<PathBuf> {
    let name = v1_name(controller);
    mounts(table)
        .find(|mount| mount.fstype() == b"cgroup" && mount.has_fs_option(name))
        .map(|mount| mount.point())
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n')
}

/// The cgroup2 path in the text of /proc/self/cgroup.
fn own_line(text: &[u8]) -> Option<&Path> {
    let path = lines(text).find_map(|line| line.strip_prefix(b"0::"))?;
    // a cgroup that was removed under its last zombie
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Some(Path::new(std::ffi::OsStr::from_bytes(path)))
}

/// `own` relative to the root of the mount. Both are as seen from the caller's
/// cgroup namespace; what is outside of it begins with `/..`.
fn below_root(own: &Path, root: &Path) -> Option<PathBuf> {
    let below = own.strip_prefix(root).ok()?;
    let leads_out = below.components().any(|c| matches!(c, std::path::Component::ParentDir));
    (!leads_out).then(|| below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /pod /sys/fs/cgroup/memory rw,relatime shared:8 master:2 - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 /a\\040b /mnt/two\\134words rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn cgroup2_lines_are_found_with_root_and_point() {
        let found: Vec<_> = cgroup2_mounts(HYBRID).map(|m| (m.root(), m.point())).collect();
        assert_eq!(found, [(PathBuf::from("/a b"), PathBuf::from("/mnt/two\\words"))]);
    }

    #[test]
    fn v1_controllers_are_found_where_they_are_bound() {
        for (controller, point) in [
            ("cpu", Some("/sys/fs/cgroup/cpu,cpuacct")),
            ("memory", Some("/sys/fs/cgroup/memory")),
            ("io", Some("/sys/fs/cgroup/blkio")),
            ("pids", None),
            ("rw", Some("/sys/fs/cgroup/cpu,cpuacct")),
        ] {
            let found = v1_mount(HYBRID, controller);
            assert_eq!(found, point.map(PathBuf::from), "{controller}");
        }
    }

    #[test]
    fn own_cgroup_is_read_relative_to_the_mount() {
        for (own, root, expected) in [
            ("/", "/", Some("")),
            ("/user.slice/x", "/", Some("user.slice/x")),
            ("/docker/abc/x", "/docker/abc", Some("x")),
            ("/elsewhere", "/docker/abc", None),
            ("/../sibling", "/", None),
            ("/..", "/..", Some("")),
        ] {
            let found = below_root(Path::new(own), Path::new(root));
            assert_eq!(found, expected.map(PathBuf::from), "{own} in {root}");
        }
        assert_eq!(own_line(b"3:cpu:/x\n0::/a/b\n"), Some(Path::new("/a/b")));
        assert_eq!(own_line(b"0::/a (deleted)\n"), Some(Path::new("/a")));
        assert_eq!(own_line(b"1:name=systemd:/\n"), None);
    }

    #[test]
    fn this_host_has_a_hierarchy() {
        let hierarchy = Hierarchy::discover().unwrap();
        assert!(hierarchy.own_cgroup().is_ok());
        assert!(hierarchy.controllers().is_ok());
    }

    #[test]
    fn a_missing_controller_is_named_with_the_place() {
        let hierarchy = Hierarchy::discover().unwrap();
        let text = hierarchy.missing_controller("nonesuch").to_string();
        assert!(text.starts_with("the nonesuch controller is not in the cgroup2 hierarchy at /"));
        assert!(text.ends_with("(it is not delegated to here, or the kernel does not have it)"));
    }
}
