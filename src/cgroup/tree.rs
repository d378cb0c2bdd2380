//! Files and directories of cgroups: reading, writing, enabling controllers
//! down a path, removing a subtree.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use nix::NixPath;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::limits::{Absent, Setting};
use super::{Cgroup, CgroupRecord, Hierarchy, events};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::{SysResult, uninterrupted};

/// Writes a file in one write, as cgroup files want it.
pub(super) fn write(dir: BorrowedFd<'_>, file: &str, value: &str) -> SysResult<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = openat(dir, file, flags, Mode::empty())?;
    // an empty write never reaches the kernel's handler
    let value = if value.is_empty() { "\n" } else { value };
    uninterrupted(|| nix::unistd::write(&fd, value.as_bytes())).map(drop)
}

/// Reads a whole file.
pub(super) fn read<P>(dir: BorrowedFd<'_>, file: &P) -> SysResult<String>
where
    P: NixPath + ?Sized,
{
    read_until(dir, file, |length, _| length == 0)
}

/// Reads a file of figures, which the kernel writes at one go: a read that is not
/// filled was the last. Lists of processes are not so.
pub(super) fn read_figures(dir: BorrowedFd<'_>, file: &str) -> SysResult<String> {
    read_until(dir, file, |length, room| length < room)
}

fn read_until<P>(
    dir: BorrowedFd<'_>,
    file: &P,
    is_last: impl Fn(usize, usize) -> bool,
) -> SysResult<String>
where
    P: NixPath + ?Sized,
{
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = openat(dir, file, flags, Mode::empty())?;
    let mut text = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match nix::unistd::read(&fd, &mut buf) {
            Ok(n) => {
                text.extend_from_slice(buf.get(..n).unwrap_or_default());
                if is_last(n, buf.len()) {
                    break;
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    String::from_utf8(text).map_err(|_not_text| Errno::EILSEQ)
}

/// Makes the controllers that the settings need available in the cgroup at
/// `path`: enables them in each cgroup above it that does not hand them down.
pub(super) fn enable_controllers(
    hierarchy: &Hierarchy,
    path: &Path,
    cgroup: &Cgroup,
    settings: &[Setting],
) -> Result<()> {
    let mut needed: Vec<(&str, &Setting)> = settings
        .iter()
        .filter(|setting| setting.absent != Absent::Ignore)
        .filter_map(|setting| Some((setting.controller()?, setting)))
        .collect();
    needed.sort_by_key(|(controller, _)| *controller);
    needed.dedup_by_key(|(controller, _)| *controller);
    if needed.is_empty() {
        return Ok(());
    }
    // on most hosts all of them are there: one read instead of one a level
    let available = read(cgroup.dir(), "cgroup.controllers")
        .step(|| format!("read {}/cgroup.controllers", cgroup.path().display()))?;
    needed.retain(|(controller, _)| !has(&available, controller));
    if needed.is_empty() {
        return Ok(());
    }
    let at_the_top = hierarchy.controllers()?;
    if let Some((controller, setting)) = needed.iter().find(|(c, _)| !has(&at_the_top, c)) {
        return Err(hierarchy.missing_controller(controller).step(&setting.field));
    }
    let parents: Vec<_> = path.ancestors().skip(1).collect();
    for parent in parents.into_iter().rev() {
        hand_down(hierarchy, parent, &needed)?;
    }
    Ok(())
}

/// True if a list of controllers, separated by spaces, has this one.
pub(super) fn has(list: &str, controller: &str) -> bool {
    list.split_ascii_whitespace().any(|name| name == controller)
}

fn hand_down(hierarchy: &Hierarchy, parent: &Path, needed: &[(&str, &Setting)]) -> Result<()> {
    let file = parent.join("cgroup.subtree_control");
    let shown = || hierarchy.mount_point().join(&file).display().to_string();
    let name = file.to_string_lossy();
    let enabled = read(hierarchy.dir(), &file).step(|| format!("read {}", shown()))?;
    let missing: Vec<_> =
        needed.iter().filter(|(controller, _)| !has(&enabled, controller)).collect();
    let Some((_, setting)) = missing.first() else {
        return Ok(());
    };
    // the kernel itself says so only for some controllers: with the others
    // (pids, cpu, cpuset) it would make a threaded cgroup of this one, and ours
    // could not take a process
    if holds_processes(hierarchy, parent) {
        return Err(has_processes(Error::new(
            ErrorKind::System,
            format!("{} has processes of its own", hierarchy.mount_point().join(parent).display()),
        ))
        .step(&setting.field));
    }
    let value = missing
        .iter()
        .map(|(controller, _)| format!("+{controller}"))
        .collect::<Vec<_>>()
        .join(" ");
    write(hierarchy.dir(), &name, &value).map_err(|errno| {
        let error = Error::errno(errno)
            .step(format!("write \"{value}\" to {}", shown()))
            .step(&setting.field);
        match errno {
            Errno::EBUSY => has_processes(error),
            Errno::EOPNOTSUPP => error.hint("that cgroup is threaded"),
            Errno::EACCES | Errno::EPERM => error.hint("that cgroup is not delegated to this user"),
            _ => error,
        }
    })
}

fn has_processes(error: Error) -> Error {
    error.hint(
        "cgroup2 lets a cgroup either hold processes or hand controllers to its children: choose \
         another linux.cgroupsPath, or move them into a child of it",
    )
}

/// True for a cgroup with processes that may not have some and hand controllers
/// down as well: the root may, and has no cgroup.type.
pub(super) fn holds_processes(hierarchy: &Hierarchy, path: &Path) -> bool {
    let read = |file| read(hierarchy.dir(), &path.join(file));
    read("cgroup.type").is_ok() && read("cgroup.procs").is_ok_and(|text| !text.is_empty())
}

/// The processes of a cgroup and, with `recursive`, of those below.
pub(super) fn procs(dir: BorrowedFd<'_>, recursive: bool, pids: &mut Vec<Pid>) -> SysResult<()> {
    own_procs(dir, pids)?;
    if !recursive {
        return Ok(());
    }
    let mut enter = |dir: BorrowedFd<'_>| {
        own_procs(dir, pids)?;
        children(dir)
    };
    walk(dir, children(dir)?, &mut enter, |_, _| Ok(()))
}

fn own_procs(dir: BorrowedFd<'_>, pids: &mut Vec<Pid>) -> SysResult<()> {
    let text = match read(dir, "cgroup.procs") {
        Ok(text) => text,
        // removed meanwhile
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        // a threaded cgroup: its processes are those of the domain above it
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    pids.extend(numbers.map(Pid::from_raw));
    Ok(())
}

/// The names of the cgroups right below one; none below one that is gone.
fn children(dir: BorrowedFd<'_>) -> SysResult<Vec<CString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = match Dir::openat(dir, ".", flags, Mode::empty()) {
        Ok(entries) => entries,
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let names = entries.iter().filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_child =
            entry.file_type() == Some(Type::Directory) && !name.to_bytes().starts_with(b".");
        is_child.then(|| name.to_owned())
    });
    Ok(names.collect())
}

/// Goes through the cgroups below `top`, beginning with the children `first`:
/// `enter` is called in each and names those of its children to go on with;
/// `leave`, when all below it are done, with its parent and its name.
///
/// A container may nest them as deep as it likes, so this keeps names and no more
/// than two directories open; the way back is `..`, since nobody can move a cgroup.
fn walk(
    top: BorrowedFd<'_>,
    first: Vec<CString>,
    enter: &mut impl FnMut(BorrowedFd<'_>) -> SysResult<Vec<CString>>,
    mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> SysResult<()>,
) -> SysResult<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut here = openat(top, ".", flags, Mode::empty())?;
    // on the way down: a cgroup's name, and those of its children that are to come
    let mut names: Vec<CString> = Vec::new();
    let mut left = vec![first];
    while let Some(children) = left.last_mut() {
        if let Some(name) = children.pop() {
            let child = match openat(&here, name.as_c_str(), flags, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            left.push(enter(child.as_fd())?);
            names.push(name);
            here = child;
        } else {
            left.pop();
            if let Some(name) = names.pop() {
                here = openat(&here, "..", flags, Mode::empty())?;
                leave(here.as_fd(), &name)?;
            }
        }
    }
    Ok(())
}

/// Removes a cgroup, those below it, and the parents that were made for it.
pub(super) fn remove(record: &CgroupRecord, deadline: Instant) -> Result<()> {
    let path = record.path.as_path();
    let step = || format!("remove the cgroup {}", path.display());
    // more than once only if cgroups are made or entered meanwhile
    for _ in 0..64 {
        match rmdir(path) {
            Ok(()) | Err(Errno::ENOENT) => {
                remove_parents(record);
                return Ok(());
            }
            // populated, or with cgroups below
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(Error::errno(errno).step(step())),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = match openat(AT_FDCWD, path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(Error::errno(errno).step(step())),
        };
        wait_empty(dir.as_fd(), deadline).map_err(|e| e.step(step()))?;
        remove_children(dir.as_fd()).step(step)?;
    }
    Err(Error::errno(Errno::EBUSY).step(step()))
}

/// Waits until nobody is in a cgroup, and removes those below it.
pub(super) fn empty(cgroup: &Cgroup, deadline: Instant) -> Result<()> {
    let step = || format!("empty the cgroup {}", cgroup.path().display());
    wait_empty(cgroup.dir(), deadline).map_err(|e| e.step(step()))?;
    remove_children(cgroup.dir()).step(step)
}

fn wait_empty(dir: BorrowedFd<'_>, deadline: Instant) -> Result<()> {
    if events::wait(dir, deadline, |events| !events.populated)? {
        return Ok(());
    }
    let mut pids = Vec::new();
    procs(dir, true, &mut pids)?;
    let text = format!("there are {} processes left in it", pids.len());
    Err(Error::new(ErrorKind::State, text))
}

/// Removes the cgroups below, the deepest first. One that somebody moves into
/// meanwhile is left: the caller waits, and begins anew.
pub(super) fn remove_children(dir: BorrowedFd<'_>) -> SysResult<()> {
    walk(dir, remove_empty_children(dir)?, &mut remove_empty_children, |parent, name| {
        remove_child(parent, name).map(drop)
    })
}

/// Removes the cgroups right below one, and names those that have more below them.
fn remove_empty_children(dir: BorrowedFd<'_>) -> SysResult<Vec<CString>> {
    let mut left = Vec::new();
    for name in children(dir)? {
        if !remove_child(dir, &name)? {
            left.push(name);
        }
    }
    Ok(left)
}

/// False for one that is in use, or has others below it.
fn remove_child(parent: BorrowedFd<'_>, name: &CStr) -> SysResult<bool> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EBUSY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes the parents that were made for a cgroup, as far as nobody else has
/// come to use them.
pub(super) fn remove_parents(record: &CgroupRecord) {
    for parent in record.path.ancestors().skip(1).take(record.made_parents) {
        match rmdir(parent) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // in use by another container: not ours any more
            Err(_in_use) => break,
        }
    }
}

fn rmdir(path: &Path) -> SysResult<()> {
    unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir)
}
