//! Groups of resctrl (the kernel's Documentation/filesystems/resctrl.rst).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::id::ContainerId;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{RdtGroup, RdtPlan};
use crate::sys::mountinfo::mounts;

/// The container's groups: where they are, and which of them were made.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    monitoring: Option<PathBuf>,
    made: Vec<PathBuf>,
}

/// Where resctrl is mounted.
///
/// # Errors
/// Nowhere.
pub(super) fn mount_point() -> Result<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").step(|| "read mountinfo")?;
    find(&table).ok_or_else(|| {
        Error::unsupported("linux.intelRdt: no resctrl file system is mounted")
            .hint("does the processor have it? then: mount -t resctrl resctrl /sys/fs/resctrl")
    })
}

fn find(table: &[u8]) -> Option<PathBuf> {
    mounts(table).find(|mount| mount.fstype() == b"resctrl").map(|mount| mount.point())
}

/// What goes when the container does: its monitoring group, and a group of its
/// own. Known before any of it is made: what is there already is somebody else's.
pub(super) fn lasting(root: &Path, plan: &RdtPlan, id: &ContainerId) -> Vec<PathBuf> {
    let group = group_path(root, plan, id);
    let monitoring = plan.monitoring.then(|| monitoring_path(&group, id));
    let own = (plan.group == RdtGroup::Own).then_some(group);
    let is_there = |path: &PathBuf| std::fs::symlink_metadata(path).is_ok();
    monitoring.into_iter().chain(own).filter(|path| !is_there(path)).collect()
}

pub(super) fn group_path(root: &Path, plan: &RdtPlan, id: &ContainerId) -> PathBuf {
    match &plan.group {
        RdtGroup::Root => root.to_owned(),
        RdtGroup::Own => root.join(id.as_str()),
        RdtGroup::Named(name) => root.join(name),
    }
}

fn monitoring_path(group: &Path, id: &ContainerId) -> PathBuf {
    group.join("mon_groups").join(id.as_str())
}

impl Group {
    /// Makes the groups that are not there, and compares those that are.
    ///
    /// # Errors
    /// A named group without lines that is not there; one whose lines differ;
    /// what the kernel says. What was made is removed.
    pub(super) fn prepare(root: &Path, plan: &RdtPlan, id: &ContainerId) -> Result<Self> {
        let path = group_path(root, plan, id);
        let mut group = Group { path, monitoring: None, made: Vec::new() };
        let result = group.make(plan, id);
        match result.map_err(|e| e.step(format!("linux.intelRdt: {}", group.path.display()))) {
            Ok(()) => Ok(group),
            Err(e) => Err(match remove(&group.made) {
                Ok(()) => e,
                Err(left) => e.hint(format!("and its undoing failed: {left}")),
            }),
        }
    }

    fn make(&mut self, plan: &RdtPlan, id: &ContainerId) -> Result<()> {
        let is_there = std::fs::symlink_metadata(&self.path).is_ok();
        match (&plan.group, is_there) {
            (RdtGroup::Own, true) => {
                return Err(Error::new(ErrorKind::Exists, "the group exists already"));
            }
            (RdtGroup::Named(_), false) if plan.lines.is_empty() => {
                return Err(Error::invalid("there is no such group, and no schemata to make it"));
            }
            (_, true) => compare(&self.path.join("schemata"), &plan.lines)?,
            (_, false) => {
                std::fs::create_dir(&self.path).step(|| "mkdir")?;
                self.made.push(self.path.clone());
                for line in &plan.lines {
                    write(&self.path.join("schemata"), line)?;
                }
            }
        }
        if plan.monitoring {
            let path = monitoring_path(&self.path, id);
            std::fs::create_dir(&path).step(|| "make a monitoring group")?;
            self.made.insert(0, path.clone());
            self.monitoring = Some(path);
        }
        Ok(())
    }

    /// Puts a process, and with it its children to come, into the groups.
    pub(super) fn enter(&self, pid: Pid) -> Result<()> {
        enter(&self.entered(), pid)
    }

    /// The groups that the container's processes are in.
    pub(super) fn entered(&self) -> Vec<PathBuf> {
        [Some(&self.path), self.monitoring.as_ref()].into_iter().flatten().cloned().collect()
    }

    /// What was made, for an undo.
    pub(super) fn made(&self) -> &[PathBuf] {
        &self.made
    }
}

/// Puts a process, and with it its children to come, into groups.
pub(super) fn enter(groups: &[PathBuf], pid: Pid) -> Result<()> {
    groups.iter().try_for_each(|group| {
        write(&group.join("tasks"), &pid.to_string())
            .map_err(|e| e.step(format!("linux.intelRdt: {}", group.display())))
    })
}

/// Removes groups; who is in them goes to the group above.
pub(super) fn remove(groups: &[PathBuf]) -> Result<()> {
    for path in groups {
        match std::fs::remove_dir(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.step(|| format!("remove the group {}", path.display()))?,
        }
    }
    Ok(())
}

/// One write: the kernel takes a line whole or not at all.
pub(super) fn write(path: &Path, line: &str) -> Result<()> {
    let step = || format!("write {line:?} to {}", path.file_name().unwrap_or_default().display());
    let mut file = File::options().write(true).open(path).step(step)?;
    file.write_all(format!("{line}\n").as_bytes()).step(step)
}

fn compare(schemata: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let present = std::fs::read_to_string(schemata).step(|| "read schemata")?;
    match lines.iter().find(|line| !has(&present, line)) {
        None => Ok(()),
        Some(line) => Err(Error::invalid(format!("the group is there, without {line:?}"))),
    }
}

/// Whether a group's schemata gives each domain of a line what the line says.
/// The kernel pads names and numbers.
fn has(present: &str, line: &str) -> bool {
    let Some((resource, wanted)) = domains(line) else { return false };
    let found = present.lines().filter_map(domains).find(|(name, _)| *name == resource);
    found.is_some_and(|(_, found)| wanted.iter().all(|domain| found.contains(domain)))
}

/// A resource, and the share of each of its domains: `L3:0=00f;1=f0`.
fn domains(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (resource, rest) = line.split_once(':')?;
    let number = |text| str::trim_start_matches(str::trim(text), '0');
    let pairs = rest.split(';').map(|part| part.split_once('='));
    let pairs = pairs.map(|pair| pair.map(|(id, value)| (number(id), number(value))));
    Some((resource.trim(), pairs.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    //! Plain files stand in for resctrl: a group that is there, and the undo of
    //! one that can't be made. What only the kernel does (files that come with
    //! a directory, and go with it) is not tested anywhere.

    use super::*;

    fn id() -> ContainerId {
        ContainerId::parse("box").unwrap()
    }

    fn plan(group: RdtGroup, lines: &[&str]) -> RdtPlan {
        let lines = lines.iter().map(|l| (*l).to_owned()).collect();
        RdtPlan { group, lines, monitoring: false }
    }

    #[test]
    fn it_is_found_by_its_type() {
        let table = b"22 1 0:21 / /sys rw - sysfs sysfs rw\n\
                     30 22 0:27 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw,cdp\n";
        assert_eq!(find(table), Some("/sys/fs/resctrl".into()));
        assert_eq!(find(b"22 1 0:21 / /resctrl rw - tmpfs resctrl rw"), None);
    }

    #[test]
    fn shares_are_compared_as_numbers() {
        let present = "    MB:0= 20;1=100\n    L3:0=00f;1=7f0\n";
        for line in ["L3:0=f", "L3:1=7f0;0=0f", "MB:0=20;1=100"] {
            assert!(has(present, line), "{line}");
        }
        for line in ["L3:0=ff", "L3:2=f", "L2:0=f", "MB:0=200", "L3", "L3:0"] {
            assert!(!has(present, line), "{line}");
        }
    }

    #[test]
    fn a_group_that_is_there_is_used_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let gold = root.path().join("gold");
        std::fs::create_dir(&gold).unwrap();
        let mut schemata = File::create(gold.join("schemata")).unwrap();
        schemata.write_all(b"    L3:0=00f\n").unwrap();
        File::create(gold.join("tasks")).unwrap();
        let named = || RdtGroup::Named("gold".into());
        let group = Group::prepare(root.path(), &plan(named(), &["L3:0=f"]), &id()).unwrap();
        group.enter(Pid::from_raw(42)).unwrap();
        assert_eq!(std::fs::read_to_string(gold.join("tasks")).unwrap(), "42\n");
        assert!(group.made().is_empty());
        assert!(lasting(root.path(), &plan(named(), &[]), &id()).is_empty());
        let other = Group::prepare(root.path(), &plan(named(), &["L3:0=ff"]), &id());
        assert!(other.unwrap_err().to_string().contains("without \"L3:0=ff\""));
    }

    #[test]
    fn what_can_not_be_made_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let missing = plan(RdtGroup::Named("none".into()), &[]);
        let text = Group::prepare(root.path(), &missing, &id()).unwrap_err().to_string();
        assert!(text.contains("no such group"), "{text}");
        // no schemata comes with this directory
        let own = plan(RdtGroup::Own, &["L3:0=f"]);
        Group::prepare(root.path(), &own, &id()).unwrap_err();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(lasting(root.path(), &own, &id()), [root.path().join("box")]);
        // a namesake of somebody else's does not go with a create that is killed
        std::fs::create_dir(root.path().join("box")).unwrap();
        assert!(lasting(root.path(), &own, &id()).is_empty());
    }
}
