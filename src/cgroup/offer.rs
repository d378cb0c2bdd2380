//! Controllers that no limit asks for.

use std::path::Path;

use super::tree::{has, holds_processes, read_figures, write};
use super::{Cgroup, Hierarchy};

impl Cgroup {
    /// Has the cgroups above hand down all controllers that they have: figures are counted
    /// by controllers, and what divides this cgroup from inside, such as a service manager,
    /// can only hand on what is there. `path` is this one's, relative to the hierarchy's
    /// mount point.
    ///
    /// What can't be had is left: no limit needs it.
    pub fn offer_controllers(&self, hierarchy: &Hierarchy, path: &Path) {
        let list = |dir| read_figures(dir, "cgroup.controllers").unwrap_or_default();
        let (all, there) = (list(hierarchy.dir()), list(self.dir()));
        let missing: Vec<&str> =
            all.split_ascii_whitespace().filter(|controller| !has(&there, controller)).collect();
        // nearly always: after the first container all of them are there
        if missing.is_empty() {
            return;
        }
        let parents: Vec<_> = path.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            hand_on(hierarchy, parent, &missing);
        }
    }
}

fn hand_on(hierarchy: &Hierarchy, parent: &Path, missing: &[&str]) {
    let file = parent.join("cgroup.subtree_control");
    if !hierarchy.may_write(&file) {
        return;
    }
    let read =
        |file: &Path| read_figures(hierarchy.dir(), &file.to_string_lossy()).unwrap_or_default();
    let (offered, enabled) = (read(&parent.join("cgroup.controllers")), read(&file));
    let words: Vec<String> = missing
        .iter()
        .filter(|controller| has(&offered, controller) && !has(&enabled, controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    // with processes in it, some controllers would make a threaded cgroup of it
    if words.is_empty() || holds_processes(hierarchy, parent) {
        return;
    }
    let enable = |words: &str| write(hierarchy.dir(), &file.to_string_lossy(), words);
    // one that can't be enabled is no reason to do without the others
    if enable(&words.join(" ")).is_err() {
        words.iter().for_each(|word| enable(word).unwrap_or_default());
    }
}
