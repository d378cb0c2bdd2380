//! Taking an id before there is anything to create: what is made for the
//! container from then on is known to its record, whoever is killed when.

use std::path::PathBuf;

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::id::ContainerId;
use super::record::Record;
use super::store::{Entry, Lock, Store};
use crate::cgroup::CgroupRecord;
use crate::error::{Result, Step};
use crate::sandbox::userns;
use crate::sys::caller::{caller, is_capable};
use crate::sys::remove::remove_tree;
use crate::trace;

/// An id that is taken; dropping it gives it back and removes its scratch.
#[derive(Debug)]
pub struct Reserved {
    parts: Option<(Entry, Lock)>,
    scratch: Vec<PathBuf>,
}

impl Reserved {
    /// Takes an id. `scratch` names directories and files that will be made for
    /// the container and go with it.
    ///
    /// # Errors
    /// The id is in use; the state directory can't be written.
    pub fn new(store: &Store, id: &ContainerId, scratch: Vec<PathBuf>) -> Result<Self> {
        let reserved = Reserved { parts: Some(store.reserve(id)?), scratch: scratch.clone() };
        if let Some((entry, _)) = &reserved.parts {
            entry.save(&Record {
                id: id.as_str().to_owned(),
                oci_version: crate::spec::OCI_VERSION.to_owned(),
                bundle: PathBuf::new(),
                rootfs: PathBuf::new(),
                created: crate::logging::now(),
                annotations: std::collections::BTreeMap::new(),
                owner: caller().uid,
                init: None,
                cgroup: CgroupRecord::default(),
                own_pid_namespace: false,
                seccomp_listener: None,
                has_start_hooks: false,
                poststart: Vec::new(),
                poststop: Vec::new(),
                scratch,
                cgroup_was_there: false,
                goes_on: false,
                resources: LinuxResources::default(),
                rdt_group: None,
                rdt_groups: Vec::new(),
                shared_root: None,
            })?;
        }
        Ok(reserved)
    }

    /// What goes with the container.
    pub fn scratch(&self) -> &[PathBuf] {
        &self.scratch
    }

    /// For `create`, which undoes for itself.
    pub(super) fn into_parts(mut self) -> Option<(Entry, Lock)> {
        self.scratch.clear();
        self.parts.take()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some((entry, lock)) = self.parts.take() else { return };
        if let Err(e) = remove_scratch(&self.scratch).and_then(|()| entry.remove(lock)) {
            crate::logging::warn(&format!("{e} (tare delete --force removes it)"));
        }
    }
}

/// Removes directories and files that go with a container.
///
/// Files of an image may have owners and modes that keep their user from
/// removing them, but not root of his user namespace.
pub(super) fn remove_scratch(paths: &[PathBuf]) -> Result<()> {
    match remove_all(paths) {
        Err(e) if !is_capable() && (e.is_errno(Errno::EACCES) || e.is_errno(Errno::EPERM)) => {
            userns::in_child(|| remove_all(paths))
        }
        other => other,
    }
}

fn remove_all(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        // a program may have nested directories in it as deep as it liked
        trace::step_on("remove a tree", ("path", &path.display()), || {
            remove_tree(path).step(|| format!("remove {}", path.display()))
        })?;
    }
    Ok(())
}
