//! Other shares of caches and memory bandwidth for a container that runs.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::id::ContainerId;
use super::rdt::{self, Group};
use super::record::Record;
use crate::error::{Error, Result, Step};
use crate::spec::{RdtGroup, RdtPlan};

/// Where the lines go.
#[derive(Debug)]
enum Target {
    /// To the group that the container is in.
    Group(PathBuf),
    /// To a new one, below this mount point.
    New(PathBuf),
}

/// Lines for `schemata`, and where they go.
#[derive(Debug)]
pub(super) struct SchemataChange {
    target: Target,
    lines: Vec<String>,
}

/// What takes a change back.
#[derive(Debug)]
pub(super) enum Undo {
    Lines { group: PathBuf, lines: Vec<String> },
    Made(Vec<PathBuf>),
}

impl SchemataChange {
    /// Finds the container's group; nothing is changed yet.
    ///
    /// # Errors
    /// No resctrl; a container in the default group, whose shares are those of
    /// everybody else.
    pub(super) fn of(record: &Record, lines: &[String]) -> Result<Self> {
        let root = rdt::mount_point()?;
        let target = match &record.rdt_group {
            Some(group) if *group == root => {
                return Err(Error::invalid(
                    "linux.intelRdt: the container is in the default group, which is not its own",
                ));
            }
            Some(group) => Target::Group(group.clone()),
            None => Target::New(root),
        };
        Ok(SchemataChange { target, lines: lines.to_vec() })
    }

    /// Puts the lines into effect. A container that has no group gets one of its
    /// own, with all of its processes in it.
    ///
    /// # Errors
    /// What the kernel says; then nothing has changed.
    pub(super) fn apply(self, record: &mut Record, id: &ContainerId, pids: &[Pid]) -> Result<Undo> {
        match self.target {
            Target::Group(group) => change(group, &self.lines),
            Target::New(root) => {
                let plan = RdtPlan { group: RdtGroup::Own, lines: self.lines, monitoring: false };
                let group = Group::prepare(&root, &plan, id)?;
                let made = group.made().to_vec();
                if let Err(e) = enter(&group, pids) {
                    return Err(e.undone(rdt::remove(&made)));
                }
                record.rdt_group = made.first().cloned();
                record.rdt_groups.extend(made.iter().cloned());
                Ok(Undo::Made(made))
            }
        }
    }
}

impl Undo {
    /// Takes the change back.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn put_back(self) -> Result<()> {
        match self {
            Undo::Lines { group, lines } => {
                let schemata = group.join("schemata");
                lines.iter().try_for_each(|line| rdt::write(&schemata, line))
            }
            // who is in there goes to the group above
            Undo::Made(groups) => rdt::remove(&groups),
        }
    }
}

fn change(group: PathBuf, lines: &[String]) -> Result<Undo> {
    let step = || format!("linux.intelRdt: {}", group.display());
    let schemata = group.join("schemata");
    let before = std::fs::read_to_string(&schemata).step(|| "read schemata").step(step)?;
    let resource = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
    let is_changed = |line: &&str| lines.iter().any(|new| resource(new) == resource(line));
    let before = before.lines().filter(is_changed).map(|line| line.trim().to_owned()).collect();
    let undo = Undo::Lines { group: group.clone(), lines: before };
    for line in lines {
        if let Err(e) = rdt::write(&schemata, line) {
            return Err(e.step(step()).undone(undo.put_back()));
        }
    }
    Ok(undo)
}

/// Each thread has its own group: all of them move.
fn enter(group: &Group, pids: &[Pid]) -> Result<()> {
    for pid in pids {
        // who has ended since has no directory
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let name = thread.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            match group.enter(Pid::from_raw(id)) {
                Err(e) if e.is_errno(Errno::ESRCH) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! A plain file stands in for resctrl's: it keeps the last line alone.

    use super::*;

    #[test]
    fn only_lines_of_the_same_resource_are_put_back() {
        let root = tempfile::tempdir().unwrap();
        let schemata = root.path().join("schemata");
        let mut file = std::fs::File::create(&schemata).unwrap();
        std::io::Write::write_all(&mut file, b"    MB:0= 20\n    L3:0=00f;1=7f0\n").unwrap();
        let undo = change(root.path().to_owned(), &["MB:0=30".to_owned()]).unwrap();
        assert!(std::fs::read_to_string(&schemata).unwrap().starts_with("MB:0=30\n"));
        let Undo::Lines { lines, .. } = &undo else { panic!("{undo:?}") };
        assert_eq!(lines, &["MB:0= 20"]);
        undo.put_back().unwrap();
        assert!(std::fs::read_to_string(&schemata).unwrap().starts_with("MB:0= 20\n"));
    }

    #[test]
    fn the_lines_of_others_are_theirs() {
        let missing = change("/nowhere".into(), &["MB:0=30".to_owned()]).unwrap_err().to_string();
        assert!(missing.starts_with("linux.intelRdt: /nowhere: read schemata: "), "{missing}");
    }
}
