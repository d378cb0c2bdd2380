//! Namespaces that are not the container's own: CRIU neither saves nor makes them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::criu::Options;
use crate::error::{Result, Step};
use crate::spec::{Plan, namespace_name};

/// Name in /proc/PID/ns and in images, as other runtimes have it there.
fn names(kind: CloneFlags) -> Option<(&'static str, &'static str)> {
    match kind {
        CloneFlags::CLONE_NEWNET => Some(("net", "extRootNetNS")),
        CloneFlags::CLONE_NEWPID => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// For the checkpoint: `net[INODE]:NAME`.
pub(super) fn external(plan: &Plan, init: Pid) -> Result<Vec<String>> {
    let joined = plan.namespaces.join.iter().filter_map(|join| names(join.kind));
    joined
        .map(|(kind, name)| {
            let path = format!("/proc/{init}/ns/{kind}");
            let inode = std::fs::metadata(&path).step(|| path)?.ino();
            Ok(format!("{kind}[{inode}]:{name}"))
        })
        .collect()
}

/// For the restore: namespaces to inherit, under these names.
pub(super) fn open(plan: &Plan) -> Result<Vec<(&'static str, OwnedFd)>> {
    let mut all = Vec::new();
    for join in &plan.namespaces.join {
        if let Some((_, name)) = names(join.kind) {
            let step = || {
                let kind = namespace_name(join.kind);
                format!("linux.namespaces: {kind} {}", join.path.display())
            };
            all.push((name, File::open(&join.path).step(step)?.into()));
        }
    }
    Ok(all)
}

/// For the restore: all that are joined.
pub(super) fn give(plan: &Plan, opened: &[(&'static str, OwnedFd)], options: &mut Options) {
    for (name, fd) in opened {
        options.inherit(name, fd.as_fd());
    }
    for join in plan.namespaces.join.iter().filter(|join| names(join.kind).is_none()) {
        options.join(namespace_name(join.kind), &join.path);
    }
}
