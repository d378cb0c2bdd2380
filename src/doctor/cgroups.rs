//! The cgroup2 hierarchy, and one cgroup in it that is made, used as `create`
//! uses it, and removed again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use super::Host;
use super::kernel::explained;
use super::report::Finding;
use super::trial::{self, DEADLINE};
use crate::cgroup::Cgroup;
use crate::cgroup::devices::{compile, default_rules};
use crate::cgroup::hierarchy::cgroup2_mounts;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::mountinfo::mounts;
use crate::sys::process::{CloneHow, clone_child, exit_now};

/// How to give every controller to cgroup2.
pub(super) const PURE: &str = "boot with systemd.unified_cgroup_hierarchy=1 where systemd is pid 1, \
     else with cgroup_no_v1=all";

/// What came of each step; a step after one that failed has its error.
pub(super) struct Trial {
    made: Result<()>,
    born: Result<()>,
    killed: Result<()>,
    devices: Result<()>,
    /// What its directory has: `memory.swap.max` is the only trace of swap
    /// accounting.
    files: Vec<String>,
}

/// Makes the trial cgroup where a container's would be.
pub(super) fn attempt(host: &Host) -> Trial {
    let cgroup = match create(host) {
        Ok(cgroup) => cgroup,
        Err(e) => {
            let untried = || Err(trial::untried("no cgroup could be made"));
            let (born, killed, devices) = (untried(), untried(), untried());
            return Trial { made: Err(e), born, killed, devices, files: Vec::new() };
        }
    };
    let files = std::fs::read_dir(cgroup.path()).map(|entries| {
        entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect::<Vec<_>>()
    });
    let files = files.unwrap_or_default();
    let devices = attach_rules(&cgroup);
    let has_kill = files.iter().any(|file| file == "cgroup.kill");
    let (born, killed) = live_and_die(host, &cgroup, has_kill);
    // it is empty again: left only if somebody else has moved in
    let removed = cgroup.remove(Instant::now() + DEADLINE);
    Trial { made: removed, born, killed, devices, files }
}

fn create(host: &Host) -> Result<Cgroup> {
    let Ok(hierarchy) = &host.hierarchy else {
        return Err(trial::untried("no cgroup2 is mounted"));
    };
    let id = format!("doctor.{}", std::process::id());
    Cgroup::create(hierarchy, &hierarchy.cgroup_path(None, &id)?, &[])
}

/// The rules of the default config: nothing but the default devices.
fn attach_rules(cgroup: &Cgroup) -> Result<()> {
    match compile(&default_rules().collect::<Vec<_>>())? {
        Some(program) => cgroup.attach_devices(&program),
        None => Ok(()),
    }
}

/// A process born in the cgroup with all of a container's namespaces, and its
/// end by cgroup.kill.
fn live_and_die(host: &Host, cgroup: &Cgroup, has_kill: bool) -> (Result<()>, Result<()>) {
    let mut namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if !host.is_root() {
        namespaces |= CloneFlags::CLONE_NEWUSER;
    }
    let how =
        CloneHow { namespaces, cgroup: Some(cgroup.dir()), sibling: false, share_files: false };
    let child = clone_child(how, || {
        // if this process is killed meanwhile
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap_or_default();
        let longer = DEADLINE + Duration::from_secs(1);
        poll(&mut [], PollTimeout::try_from(longer).unwrap_or(PollTimeout::MAX))
            .unwrap_or_default();
        exit_now(0)
    });
    let child = match child.step(|| "clone3 with CLONE_INTO_CGROUP") {
        Ok(child) => child,
        Err(e) => return (Err(e), Err(trial::untried("no process could be made in it"))),
    };
    let born = match cgroup.procs(false) {
        Ok(pids) if pids.contains(&child.pid) => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::System, "the process was born in another cgroup")),
        Err(e) => Err(e),
    };
    let killed = if has_kill {
        cgroup.kill().and_then(|()| match trial::is_ready(child.pidfd.as_fd(), DEADLINE) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::System, "the process did not end")),
        })
    } else {
        Err(Error::from(Errno::ENOENT))
    };
    trial::end(&child);
    (born, killed)
}

pub(super) fn mounted(host: &Host) -> Finding {
    match &host.hierarchy {
        Ok(hierarchy) => Finding::ok(format!("at {}", hierarchy.mount_point().display())),
        Err(_none) => Finding::missing("every container has a cgroup, and none is mounted").hint(
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    }
}

/// Which versions are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Nothing but cgroup2.
    Unified,
    /// cgroup2, and controllers of version 1.
    Hybrid,
    /// Version 1 alone.
    Old,
    /// Neither.
    None,
}

fn layout_of(table: &[u8], own_cgroups: &[u8]) -> Layout {
    let v2 = cgroup2_mounts(table).next().is_some();
    // hierarchies that are mounted elsewhere hold their controllers as well;
    // `name=systemd` has none
    let bound = v1_controllers(own_cgroups).any(|name| !name.starts_with(b"name="));
    let v1 =
        bound || mounts(table).any(|m| m.fstype() == b"cgroup" && !m.has_fs_option("name=systemd"));
    match (v2, v1) {
        (true, false) => Layout::Unified,
        (true, true) => Layout::Hybrid,
        (false, true) => Layout::Old,
        (false, false) => Layout::None,
    }
}

/// The controllers that the text of /proc/PID/cgroup has in version 1
/// hierarchies, and `name=…` for one without any.
pub(super) fn v1_controllers(own_cgroups: &[u8]) -> impl Iterator<Item = &[u8]> {
    own_cgroups.split(|b| *b == b'\n').flat_map(|line| {
        let names = line.splitn(3, |b| *b == b':').nth(1).unwrap_or_default();
        names.split(|b| *b == b',').filter(|name| !name.is_empty())
    })
}

pub(super) fn layout(host: &Host) -> Finding {
    let own = std::fs::read("/proc/self/cgroup").unwrap_or_default();
    match layout_of(&host.mounts, &own) {
        Layout::Unified => Finding::ok("cgroup2 alone"),
        Layout::Hybrid => Finding::fallback(
            "version 1 is there beside cgroup2: limits of the controllers it holds can't be set",
        )
        .hint(PURE),
        Layout::Old => Finding::missing("version 1 alone, which tare does not use").hint(PURE),
        Layout::None => Finding::missing("no cgroups are mounted"),
    }
}

pub(super) fn made(host: &Host) -> Finding {
    match &host.trial_cgroup().made {
        Ok(()) => Finding::ok(""),
        Err(_) if goes_without(host) => {
            Finding::info("none is delegated to this user: containers run without, and unlimited")
        }
        Err(e) => Finding::because("every container has one", e),
    }
}

/// True for an ordinary user without a cgroup: that is no reason not to run.
fn goes_without(host: &Host) -> bool {
    !host.is_root() && host.hierarchy.is_ok() && host.trial_cgroup().made.is_err()
}

pub(super) fn born(host: &Host) -> Finding {
    match &host.trial_cgroup().born {
        Ok(()) => Finding::ok(""),
        Err(e) if goes_without(host) => Finding::info(e.to_string()),
        Err(e) => explained(Finding::because("for a container's init", e), e, "5.7"),
    }
}

pub(super) fn killed(host: &Host) -> Finding {
    match &host.trial_cgroup().killed {
        Ok(()) => Finding::ok(""),
        Err(e) if goes_without(host) => Finding::info(e.to_string()),
        Err(e) => {
            let finding = Finding::because("for kill --all and delete", e);
            match e.is_errno(Errno::ENOENT) && host.trial_cgroup().made.is_ok() {
                true => finding.hint("boot Linux 5.14 or later"),
                false => finding,
            }
        }
    }
}

pub(super) fn device_rules(host: &Host) -> Finding {
    match &host.trial_cgroup().devices {
        Ok(()) => Finding::ok(""),
        Err(_) if !host.is_root() => {
            Finding::info("left out without root: a user's rights on devices hold")
        }
        Err(e) => {
            let what = "configs with device rules are refused, the default one among them";
            let finding = Finding::because(what, e);
            match e.raw_errno() {
                Some(Errno::EPERM) => finding.hint(
                    "needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, on the host; inside a \
                     container, let its seccomp profile allow bpf",
                ),
                Some(Errno::ENOSYS | Errno::EINVAL) => {
                    finding.hint("boot a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")
                }
                _ => finding,
            }
        }
    }
}

pub(super) fn nsdelegate(host: &Host) -> Finding {
    let has = cgroup2_mounts(&host.mounts).any(|mount| mount.has_fs_option("nsdelegate"));
    let Ok(hierarchy) = &host.hierarchy else {
        return Finding::because("", &trial::untried("no cgroup2 is mounted"));
    };
    if has {
        return Finding::ok("");
    }
    Finding::missing("a container whose /sys/fs/cgroup is writable can change its own limits")
        .hint(format!("mount -o remount,nsdelegate {}", hierarchy.mount_point().display()))
}

/// True if the trial cgroup has a file; `None` if there was no trial cgroup.
pub(super) fn trial_has(host: &Host, file: &str) -> Option<bool> {
    let trial = host.trial_cgroup();
    trial.made.is_ok().then(|| trial.files.iter().any(|name| name == file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw shared:8 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const PURE_V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const V1_ONLY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    // cgroup2 and systemd's own hierarchy: what a hybrid host looks like
    // with cgroup_no_v1=all
    const NAMED: &str = "\
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn layouts_are_told_apart() {
        for (table, own, expected) in [
            (HYBRID, "4:memory:/x\n1:name=systemd:/\n0::/\n", Layout::Hybrid),
            (PURE_V2, "0::/init.scope\n", Layout::Unified),
            // in a mount namespace that does not show version 1
            (PURE_V2, "4:cpu,cpuacct:/\n0::/\n", Layout::Hybrid),
            (NAMED, "1:name=systemd:/\n0::/\n", Layout::Unified),
            (V1_ONLY, "4:memory:/\n", Layout::Old),
            ("22 1 0:21 / /proc rw - proc proc rw\n", "", Layout::None),
        ] {
            assert_eq!(layout_of(table.as_bytes(), own.as_bytes()), expected, "{table}{own}");
        }
    }

    #[test]
    fn v1_controllers_are_read_from_the_own_cgroups() {
        let text = b"9:name=systemd:/\n4:cpu,cpuacct:/a:b\n0::/\n";
        let found: Vec<&[u8]> = v1_controllers(text).collect();
        assert_eq!(found, [&b"name=systemd"[..], b"cpu", b"cpuacct"]);
    }
}
