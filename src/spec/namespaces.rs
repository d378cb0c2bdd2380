//! Namespaces: which are new, which are joined, and the id mappings.

use std::path::PathBuf;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use crate::error::{Error, Result};
use crate::sys::process::CLONE_NEWTIME;

/// A namespace to join.
#[derive(Debug, Clone)]
pub struct JoinPlan {
    /// Its kind, as one CLONE_NEW* flag.
    pub kind: CloneFlags,
    /// A path that names it, as under /proc/PID/ns.
    pub path: PathBuf,
}

/// One line of a uid_map or gid_map (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many ids.
    pub size: u32,
}

impl IdMapping {
    /// The id outside of one inside, if it is in this range.
    pub(super) fn to_host(self, id: u32) -> Option<u32> {
        let at = id.checked_sub(self.container).filter(|at| *at < self.size)?;
        self.host.checked_add(at)
    }

    /// False for an empty range, and for one beyond the last id.
    pub(super) fn is_range(self) -> bool {
        let fits = |first: u32| first.checked_add(self.size).is_some();
        self.size > 0 && fits(self.container) && fits(self.host)
    }
}

/// What becomes of each kind of namespace.
#[derive(Debug, Clone, Default)]
pub struct NamespacePlan {
    /// Kinds to make, as CLONE_NEW* flags.
    pub new: Option<CloneFlags>,
    /// Namespaces to join.
    pub join: Vec<JoinPlan>,
    /// User ids of a new user namespace.
    pub uid_map: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    pub gid_map: Vec<IdMapping>,
}

impl NamespacePlan {
    /// The kinds to make.
    pub fn new_flags(&self) -> CloneFlags {
        self.new.unwrap_or(CloneFlags::empty())
    }

    /// True when a namespace of this kind is made.
    pub fn makes(&self, kind: CloneFlags) -> bool {
        self.new_flags().contains(kind)
    }

    /// The namespace of this kind that is joined.
    pub fn joins(&self, kind: CloneFlags) -> Option<&JoinPlan> {
        self.join.iter().find(|j| j.kind == kind)
    }

    /// True when the container does not live in the caller's namespace of
    /// this kind.
    pub fn separates(&self, kind: CloneFlags) -> bool {
        self.makes(kind) || self.joins(kind).is_some()
    }

    /// True when the container can mount nothing: its mount namespace was there
    /// before its user namespace, which has no power over it
    /// (mount_namespaces(7)). It uses what is mounted there already.
    pub fn mounts_nothing(&self) -> bool {
        self.makes(CloneFlags::CLONE_NEWUSER) && self.joins(CloneFlags::CLONE_NEWNS).is_some()
    }

    pub(super) fn resolve(linux: Option<&Linux>) -> Result<Self> {
        let mut plan = NamespacePlan::default();
        let Some(linux) = linux else { return Ok(plan) };
        let mut new = CloneFlags::empty();
        let mut seen = CloneFlags::empty();
        for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let (name, kind) = kind_of(namespace.typ());
            if seen.contains(kind) {
                return Err(Error::invalid(format!(
                    "linux.namespaces[{at}].type: {name} is there twice"
                )));
            }
            seen |= kind;
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        return Err(Error::invalid(format!(
                            "linux.namespaces[{at}].path: {path:?} is not an absolute path"
                        )));
                    }
                    if path.as_os_str().as_encoded_bytes().contains(&0) {
                        return Err(Error::invalid(format!(
                            "linux.namespaces[{at}].path: has a NUL byte inside"
                        )));
                    }
                    plan.join.push(JoinPlan { kind, path: path.clone() });
                }
                _ => new |= kind,
            }
        }
        plan.new = Some(new);
        plan.uid_map = mappings("linux.uidMappings", linux.uid_mappings().as_deref())?;
        plan.gid_map = mappings("linux.gidMappings", linux.gid_mappings().as_deref())?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        let mapped = !self.uid_map.is_empty() || !self.gid_map.is_empty();
        if self.makes(CloneFlags::CLONE_NEWUSER) {
            if self.uid_map.is_empty() {
                return Err(Error::invalid("linux.uidMappings: a new user namespace needs one"));
            }
            if self.gid_map.is_empty() {
                return Err(Error::invalid("linux.gidMappings: a new user namespace needs one"));
            }
        } else if mapped && !self.separates(CloneFlags::CLONE_NEWUSER) {
            return Err(Error::invalid(
                "linux.uidMappings: there is no user namespace in linux.namespaces to map",
            ));
        }
        let own_users = self.separates(CloneFlags::CLONE_NEWUSER);
        if own_users && !self.separates(CloneFlags::CLONE_NEWNS) {
            return Err(Error::unsupported(
                "linux.namespaces: a user namespace has no power over the caller's mount \
                 namespace: add one of type mount",
            ));
        }
        Ok(())
    }
}

fn kind_of(kind: LinuxNamespaceType) -> (&'static str, CloneFlags) {
    match kind {
        LinuxNamespaceType::Mount => ("mount", CloneFlags::CLONE_NEWNS),
        LinuxNamespaceType::Cgroup => ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        LinuxNamespaceType::Uts => ("uts", CloneFlags::CLONE_NEWUTS),
        LinuxNamespaceType::Ipc => ("ipc", CloneFlags::CLONE_NEWIPC),
        LinuxNamespaceType::User => ("user", CloneFlags::CLONE_NEWUSER),
        LinuxNamespaceType::Pid => ("pid", CloneFlags::CLONE_NEWPID),
        LinuxNamespaceType::Network => ("network", CloneFlags::CLONE_NEWNET),
        LinuxNamespaceType::Time => ("time", CLONE_NEWTIME),
    }
}

/// The spec's word for one CLONE_NEW* flag.
pub(crate) fn kind_name(kind: CloneFlags) -> &'static str {
    match kind {
        CloneFlags::CLONE_NEWNS => "mount",
        CloneFlags::CLONE_NEWCGROUP => "cgroup",
        CloneFlags::CLONE_NEWUTS => "uts",
        CloneFlags::CLONE_NEWIPC => "ipc",
        CloneFlags::CLONE_NEWUSER => "user",
        CloneFlags::CLONE_NEWPID => "pid",
        CloneFlags::CLONE_NEWNET => "network",
        CLONE_NEWTIME => "time",
        _ => "unknown",
    }
}

/// The kernel takes no id twice, neither inside nor outside.
fn overlap(a: &IdMapping, b: &IdMapping) -> bool {
    let meet = |a: u32, a_size: u32, b: u32, b_size: u32| a < b + b_size && b < a + a_size;
    meet(a.container, a.size, b.container, b.size) || meet(a.host, a.size, b.host, b.size)
}

pub(super) fn mappings(field: &str, list: Option<&[LinuxIdMapping]>) -> Result<Vec<IdMapping>> {
    let mut all = Vec::new();
    for (at, m) in list.unwrap_or_default().iter().enumerate() {
        let mapping = IdMapping { container: m.container_id(), host: m.host_id(), size: m.size() };
        if !mapping.is_range() {
            return Err(Error::invalid(format!(
                "{field}[{at}]: {} → {} of size {} is not a range of ids",
                mapping.container, mapping.host, mapping.size
            )));
        }
        if let Some(other) = all.iter().position(|other| overlap(other, &mapping)) {
            return Err(Error::invalid(format!("{field}[{at}]: overlaps with [{other}]")));
        }
        all.push(mapping);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<NamespacePlan> {
        let linux: Linux = serde_json::from_str(json).unwrap();
        NamespacePlan::resolve(Some(&linux))
    }

    #[test]
    fn new_and_joined() {
        let plan = resolve(
            r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/run/netns/x"}]}"#,
        )
        .unwrap();
        assert!(plan.makes(CloneFlags::CLONE_NEWNS));
        assert!(!plan.makes(CloneFlags::CLONE_NEWNET));
        assert!(plan.joins(CloneFlags::CLONE_NEWNET).is_some());
    }

    #[test]
    fn wrong_input() {
        for (json, part) in [
            (r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#, "mount is there twice"),
            (
                r#"{"namespaces":[{"type":"mount"},{"type":"pid","path":"x"}]}"#,
                "is not an absolute path",
            ),
            (r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#, "uidMappings"),
            (r#"{"namespaces":[{"type":"user","path":"/x"}]}"#, "add one of type mount"),
            (
                r#"{"namespaces":[{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "no user namespace",
            ),
        ] {
            let text = resolve(json).unwrap_err().to_string();
            assert!(text.contains(part), "{json}: {text}");
        }
    }
}
