//! What this host can and can't do for containers.
//!
//! A check is a function from `Host` to a `Finding`; the tables below list
//! them all. Whatever can be tried is tried, since a version number says nothing
//! of what a distribution's kernel, a seccomp profile or another container around
//! us allows: in a child process or in namespaces that go with it (`trial`), and
//! in one cgroup and directories next to the containers' that are removed again.
//!
//! No other command comes through here.

mod asked;
mod cgroups;
mod controllers;
mod filesystems;
mod kernel;
mod later;
mod namespaces;
mod privileges;
mod programs;
mod report;
mod text;
mod trial;
mod users;

use std::cell::OnceCell;
use std::path::PathBuf;

use nix::unistd::geteuid;

use crate::cgroup::Hierarchy;
use crate::cgroup::hierarchy::mount_table;
use crate::error::Result;
use report::Finding;
pub use report::{Check, Group, Report, Status, Summary};
pub use text::Style;

/// Where this user's containers and images go.
#[derive(Debug)]
pub struct Places {
    /// The state root (`--root`), absolute.
    pub state_root: Result<PathBuf>,
    /// The image store (`--store`), absolute.
    pub store: Result<PathBuf>,
}

/// What several checks look at, read once.
struct Host {
    root: bool,
    places: Places,
    mounts: Vec<u8>,
    hierarchy: Result<Hierarchy>,
    trial_cgroup: OnceCell<cgroups::Trial>,
}

impl Host {
    /// True for uid 0, which may be root of a user namespace only.
    fn is_root(&self) -> bool {
        self.root
    }

    /// What came of making a cgroup, and a process in it, as `create` does.
    fn trial_cgroup(&self) -> &cgroups::Trial {
        self.trial_cgroup.get_or_init(|| cgroups::attempt(self))
    }
}

/// One row of the tables: id, title, whether it is required, the check.
struct Row(&'static str, &'static str, bool, fn(&Host) -> Finding);

/// Without it no container with the default config is created.
const REQUIRED: bool = true;
/// Something else is lost without it.
const OPTIONAL: bool = false;

const KERNEL: &[Row] = &[
    Row("release", "release", REQUIRED, kernel::release),
    Row("clone3", "clone3", REQUIRED, kernel::clone3),
    Row("pidfd", "pidfds", REQUIRED, kernel::pidfd),
    Row("mount-fds", "mount API", REQUIRED, kernel::mount_descriptors),
    Row("mount-setattr", "mount_setattr", REQUIRED, kernel::mount_setattr),
    Row("openat2", "openat2", REQUIRED, kernel::openat2),
    Row("close-range", "close_range", REQUIRED, kernel::close_range),
    Row("faccessat2", "faccessat2", OPTIONAL, kernel::faccessat2),
    Row("process-name", "execveat names", OPTIONAL, kernel::process_name),
];

const NAMESPACES: &[Row] = &[
    Row("mount-namespace", "mount", REQUIRED, namespaces::mount),
    Row("pid-namespace", "pid", REQUIRED, namespaces::pid),
    Row("network-namespace", "network", REQUIRED, namespaces::network),
    Row("ipc-namespace", "ipc", REQUIRED, namespaces::ipc),
    Row("uts-namespace", "uts", REQUIRED, namespaces::uts),
    Row("cgroup-namespace", "cgroup", REQUIRED, namespaces::cgroup),
    Row("user-namespace", "user", OPTIONAL, namespaces::user),
];

const CGROUPS: &[Row] = &[
    Row("cgroup2", "cgroup2", REQUIRED, cgroups::mounted),
    Row("layout", "layout", OPTIONAL, cgroups::layout),
    Row("new-cgroup", "a new cgroup", REQUIRED, cgroups::made),
    Row("clone-into-cgroup", "birth in cgroup", REQUIRED, cgroups::born),
    Row("cgroup-kill", "cgroup.kill", REQUIRED, cgroups::killed),
    Row("device-rules", "device rules", REQUIRED, cgroups::device_rules),
    Row("nsdelegate", "nsdelegate", OPTIONAL, cgroups::nsdelegate),
];

/// Their titles are the controllers' names.
const LIMITS: &[Row] = &[
    Row("memory", "memory", OPTIONAL, controllers::memory),
    Row("cpu", "cpu", OPTIONAL, controllers::cpu),
    Row("cpuset", "cpuset", OPTIONAL, controllers::cpuset),
    Row("pids", "pids", OPTIONAL, controllers::pids),
    Row("io", "io", OPTIONAL, controllers::io),
    Row("hugetlb", "hugetlb", OPTIONAL, controllers::hugetlb),
    Row("rdma", "rdma", OPTIONAL, controllers::rdma),
    Row("misc", "misc", OPTIONAL, controllers::misc),
    Row("swap", "swap", OPTIONAL, controllers::swap),
];

const FILES: &[Row] = &[
    Row("mounts", "container mounts", REQUIRED, filesystems::container_mounts),
    Row("devices", "device nodes", REQUIRED, filesystems::device_nodes),
    Row("pivot-root", "pivot_root", OPTIONAL, filesystems::pivot),
    Row("state-root", "state directory", REQUIRED, filesystems::state_root),
    Row("store", "image store", OPTIONAL, filesystems::store),
    Row("overlay", "overlayfs", OPTIONAL, filesystems::overlay),
    Row("lowerdir-plus", "lowerdir+", OPTIONAL, filesystems::lowerdir_plus),
];

const PRIVILEGES: &[Row] = &[
    Row("user", "user", REQUIRED, privileges::user),
    Row("capabilities", "own capabilities", REQUIRED, privileges::own_capabilities),
    Row("bounding-set", "capabilities", OPTIONAL, privileges::capabilities_to_give),
    Row("rlimits", "higher rlimits", OPTIONAL, privileges::rlimits),
    Row("oom-score", "oom_score_adj", OPTIONAL, privileges::oom_score),
    Row("keyring", "session keyrings", REQUIRED, privileges::keyring),
];

/// What only some configs or options ask for, and what is refused by name where
/// it is not.
const ASKED: &[Row] = &[
    Row("seccomp", "seccomp", OPTIONAL, asked::seccomp),
    Row("time-namespace", "time namespaces", OPTIONAL, asked::time_namespace),
    Row("apparmor", "AppArmor", OPTIONAL, asked::apparmor),
    Row("selinux", "SELinux", OPTIONAL, asked::selinux),
    Row("resctrl", "resctrl", OPTIONAL, asked::resctrl),
    Row("systemd", "systemd", OPTIONAL, programs::systemd),
];

/// What tare makes no use of: whoever teaches it one of these moves the row.
const LATER: &[Row] = &[
    Row("idmapped-store", "idmapped store", OPTIONAL, later::idmapped_store),
    Row("idmapped-tmpfs", "idmapped tmpfs", OPTIONAL, later::idmapped_tmpfs),
    Row("overlay-options", "overlay options", OPTIONAL, later::overlay_options),
    Row("pressure", "pressure (PSI)", OPTIONAL, later::pressure),
    Row("criu", "criu", OPTIONAL, programs::criu),
];

/// What an ordinary user needs (docs/rootless.md).
const ROOTLESS: &[Row] = &[
    Row("user-namespaces", "user namespaces", OPTIONAL, users::user_namespaces),
    Row("id-ranges", "subuid, subgid", OPTIONAL, users::id_ranges),
    Row("id-helpers", "id map helpers", OPTIONAL, users::id_helpers),
    Row("user-overlay", "user overlays", OPTIONAL, users::overlay),
    Row("delegation", "own cgroup", OPTIONAL, users::delegation),
];

/// Id of the group that stands for limits.
const LIMITS_ID: &str = "limits";

const GROUPS: &[(&str, &str, &[Row])] = &[
    ("kernel", "Kernel", KERNEL),
    ("namespaces", "Namespaces", NAMESPACES),
    ("cgroups", "Cgroups", CGROUPS),
    (LIMITS_ID, "Limits", LIMITS),
    ("files", "Files and mounts", FILES),
    ("privileges", "Privileges", PRIVILEGES),
    ("asked", "Where a config asks for it", ASKED),
    ("later", "Not used by tare yet", LATER),
    ("rootless", "For containers without root", ROOTLESS),
];

/// Tries everything. This process must have one thread.
pub fn examine(places: Places) -> Report {
    let host = Host {
        root: geteuid().is_root(),
        places,
        mounts: mount_table().unwrap_or_default(),
        hierarchy: Hierarchy::discover(),
        trial_cgroup: OnceCell::new(),
    };
    let run = |Row(id, title, required, check): &Row| {
        let Finding { status, detail, hint, untried } = check(&host);
        Check { id, title, status, detail, hint, required: *required, untried }
    };
    let groups = GROUPS.iter().map(|(id, title, rows)| Group {
        id,
        title,
        checks: rows.iter().map(run).collect(),
    });
    Report::new(groups.collect(), LIMITS_ID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_id_is_there_twice() {
        let all = || GROUPS.iter().flat_map(|group| group.2);
        let ids: BTreeSet<&str> = all().map(|row| row.0).collect();
        assert_eq!(ids.len(), all().count(), "{ids:?}");
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(ids.iter().all(|id| id.bytes().all(letter)), "{ids:?}");
    }

    #[test]
    fn every_kernel_feature_of_the_docs_has_its_check() {
        let docs = include_str!("../../docs/kernel-features.md");
        let ids: BTreeSet<&str> = GROUPS.iter().flat_map(|g| g.2.iter().map(|row| row.0)).collect();
        let rows = docs.lines().filter(|line| line.starts_with("| ")).skip(1);
        let mut count = 0;
        // some can't be tried without doing what they are for
        for row in rows.filter(|row| !row.ends_with("| – |")) {
            let id = row.rsplit('`').nth(1).unwrap_or_default();
            assert!(ids.contains(id), "{row}");
            count += 1;
        }
        assert!(count > 10, "{count} rows");
    }

    #[test]
    fn titles_leave_room_for_the_rest_of_the_line() {
        for row in GROUPS.iter().flat_map(|group| group.2) {
            assert!(row.1.chars().count() <= 16, "{}", row.1);
        }
    }
}
