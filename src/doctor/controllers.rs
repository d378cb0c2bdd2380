//! Controllers: which limits can be set, and where the others are.

use std::path::PathBuf;

use super::Host;
use super::cgroups::{PURE, trial_has, v1_controllers};
use super::report::Finding;
use crate::cgroup::hierarchy::{v1_mount, v1_name};

/// Where a controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In cgroup2, where containers go.
    Here,
    /// In a version 1 hierarchy, mounted there if at all.
    Old(Option<PathBuf>),
    /// In the kernel, and switched off by a parameter.
    Off,
    /// In the kernel, and not handed down to where containers go.
    Kept,
    /// Not in the kernel.
    Absent,
    /// Not bound to version 1, and there is no cgroup2.
    Nowhere,
}

/// The texts that tell.
struct Texts {
    /// cgroup.controllers of the cgroup that containers' cgroups are made in.
    available: String,
    /// /proc/self/cgroup
    own: Vec<u8>,
    /// /proc/cgroups
    known: String,
    /// /proc/self/mountinfo
    mounts: Vec<u8>,
    /// Containers' cgroups are made below another one that is not to be seen,
    /// or not the user's.
    below: bool,
    /// There is no cgroup2.
    none: bool,
}

impl Texts {
    fn of(host: &Host) -> Texts {
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let parent = host.hierarchy.as_ref().ok().and_then(|hierarchy| {
            let path = hierarchy.cgroup_path(None, "doctor").ok()?;
            Some(hierarchy.mount_point().join(path.parent()?))
        });
        let parent = parent.unwrap_or_default();
        Texts {
            available: text(parent.join("cgroup.controllers")),
            own: std::fs::read("/proc/self/cgroup").unwrap_or_default(),
            known: text("/proc/cgroups".into()),
            mounts: host.mounts.clone(),
            // every cgroup but the root has a type
            none: host.hierarchy.is_err(),
            below: std::fs::symlink_metadata(parent.join("cgroup.type")).is_ok(),
        }
    }

    fn place(&self, controller: &str) -> Place {
        if self.available.split_ascii_whitespace().any(|name| name == controller) {
            return Place::Here;
        }
        let old = v1_name(controller);
        if v1_controllers(&self.own).any(|name| name == old.as_bytes()) {
            return Place::Old(v1_mount(&self.mounts, controller));
        }
        if self.none {
            return Place::Nowhere;
        }
        // name, hierarchy, number of cgroups, enabled
        let known = self.known.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            (fields.next()? == old).then(|| fields.nth(2) == Some("0"))
        });
        match known {
            Some(true) => Place::Off,
            Some(false) => Place::Kept,
            // a kernel may have these two for cgroup2 alone, and does not list them then
            None if self.below && matches!(controller, "memory" | "cpuset") => Place::Kept,
            None if self.below && self.known.is_empty() => Place::Kept,
            None => Place::Absent,
        }
    }
}

pub(super) fn memory(host: &Host) -> Finding {
    limit(host, "memory", "linux.resources.memory, --memory")
}

pub(super) fn cpu(host: &Host) -> Finding {
    limit(host, "cpu", "linux.resources.cpu (shares, quota), --cpus")
}

pub(super) fn cpuset(host: &Host) -> Finding {
    limit(host, "cpuset", "linux.resources.cpu (cpus, mems)")
}

pub(super) fn pids(host: &Host) -> Finding {
    limit(host, "pids", "linux.resources.pids, --pids-limit")
}

pub(super) fn io(host: &Host) -> Finding {
    limit(host, "io", "linux.resources.blockIO")
}

pub(super) fn hugetlb(host: &Host) -> Finding {
    limit(host, "hugetlb", "linux.resources.hugepageLimits")
}

pub(super) fn rdma(host: &Host) -> Finding {
    rare(limit(host, "rdma", "linux.resources.rdma"), "of use with RDMA hardware alone")
}

pub(super) fn misc(host: &Host) -> Finding {
    rare(
        limit(host, "misc", "misc.max in linux.resources.unified"),
        "counts keys of encrypted guests",
    )
}

fn limit(host: &Host, controller: &str, fields: &str) -> Finding {
    finding(&Texts::of(host).place(controller), controller, fields)
}

const NOT_IN_KERNEL: &str = "not in this kernel";

fn finding(place: &Place, controller: &str, fields: &str) -> Finding {
    let missing = |why: String| Finding::missing(format!("{why}; refused: {fields}"));
    match place {
        Place::Here => Finding::ok(""),
        Place::Old(Some(point)) => {
            missing(format!("bound to cgroup v1 at {}", point.display())).hint(PURE)
        }
        Place::Old(None) => missing("bound to cgroup v1, not mounted here".to_owned()).hint(PURE),
        Place::Off => missing("switched off".to_owned()).hint(match controller {
            "memory" => {
                "boot with cgroup_enable=memory, and without cgroup_disable=memory".to_owned()
            }
            other => format!("boot without cgroup_disable={other}"),
        }),
        Place::Kept => missing("not handed down to here".to_owned()).hint(
            "enable it in cgroup.subtree_control of the cgroups above; with systemd: Delegate=yes \
             in the unit",
        ),
        Place::Absent => missing(NOT_IN_KERNEL.to_owned()),
        Place::Nowhere => missing("no cgroup2 is mounted".to_owned()),
    }
}

/// A controller that few kernels have and few hosts could use.
fn rare(found: Finding, what: &str) -> Finding {
    match found.detail.starts_with(NOT_IN_KERNEL) {
        true => Finding::info(format!("{NOT_IN_KERNEL}; {what}")),
        false => found,
    }
}

pub(super) fn swap(host: &Host) -> Finding {
    if Texts::of(host).place("memory") != Place::Here {
        return Finding::info("its limits come with the memory controller");
    }
    match trial_has(host, "memory.max") {
        Some(true) => match trial_has(host, "memory.swap.max") {
            Some(true) => Finding::ok(""),
            _ => Finding::missing("no memory.swap.max; refused: linux.resources.memory.swap")
                .hint("boot with swapaccount=1, a kernel with CONFIG_SWAP"),
        },
        // the controller is switched on for the children by the first container
        // that needs it; here nothing is switched
        _ => Finding::info("not tried: no cgroup here has the memory controller switched on yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(available: &str, own: &str, known: &str) -> Texts {
        Texts {
            available: available.to_owned(),
            own: own.as_bytes().to_vec(),
            known: known.to_owned(),
            mounts: b"38 31 0:35 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n".to_vec(),
            below: false,
            none: false,
        }
    }

    const KNOWN: &str = "\
#subsys_name\thierarchy\tnum_cgroups\tenabled
cpuset\t3\t1\t1
blkio\t7\t1\t1
memory\t0\t1\t0
hugetlb\t0\t1\t1
";

    #[test]
    fn each_place_is_recognised() {
        let hybrid = texts("hugetlb\n", "7:blkio:/\n3:cpuset:/x\n0::/\n", KNOWN);
        assert_eq!(hybrid.place("hugetlb"), Place::Here);
        assert_eq!(hybrid.place("io"), Place::Old(Some("/sys/fs/cgroup/blkio".into())));
        assert_eq!(hybrid.place("cpuset"), Place::Old(None));
        assert_eq!(hybrid.place("memory"), Place::Off);
        assert_eq!(hybrid.place("rdma"), Place::Absent);
        // a name is not found inside another one
        assert_eq!(texts("cpuset io", "0::/\n", "").place("cpu"), Place::Absent);
        let delegated = Texts { below: true, ..texts("memory pids\n", "0::/u\n", "") };
        assert_eq!(delegated.place("pids"), Place::Here);
        assert_eq!(delegated.place("cpu"), Place::Kept);
        let delegated = Texts { below: true, ..texts("pids\n", "0::/u\n", "pids\t0\t1\t1\n") };
        assert_eq!(delegated.place("memory"), Place::Kept);
        assert_eq!(delegated.place("rdma"), Place::Absent);
        assert_eq!(texts("", "0::/\n", KNOWN).place("hugetlb"), Place::Kept);
        let none = Texts { none: true, ..texts("", "7:blkio:/\n", KNOWN) };
        assert_eq!(none.place("hugetlb"), Place::Nowhere);
        assert!(matches!(none.place("io"), Place::Old(_)));
    }

    #[test]
    fn what_is_lost_is_named_with_a_way_out() {
        let found = finding(&Place::Old(Some("/x/memory".into())), "memory", "the fields");
        assert_eq!(found.detail, "bound to cgroup v1 at /x/memory; refused: the fields");
        assert_eq!(found.hint.as_deref(), Some(PURE));
        let found = finding(&Place::Off, "memory", "the fields");
        assert!(found.hint.unwrap().contains("cgroup_enable=memory"));
        let found = rare(finding(&Place::Absent, "rdma", "the fields"), "for few");
        assert_eq!(found, Finding::info("not in this kernel; for few"));
    }
}
