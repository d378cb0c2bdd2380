//! Configs for a user namespace: making one of any other, and holding the ids in
//! one against its maps.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Spec,
};

use super::mounts::{MountKind, MountPlan};
use super::namespaces::{IdMapping, NamespacePlan};
use super::process::ProcessPlan;
use crate::error::{Error, Result, Step};

/// Turns a config into one that an ordinary user can run: with a user namespace
/// of its own that has these maps, and without what a user can't have (limits,
/// owners that the maps lack). With `shares_network`, the network is the host's,
/// as is then /sys.
///
/// # Errors
/// None that a map with sizes above 0 gives.
pub fn adapt(
    spec: &mut Spec,
    uid_map: &[IdMapping],
    gid_map: &[IdMapping],
    shares_network: bool,
) -> Result<()> {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &mut mounts {
        if shares_network && mount.destination() == Path::new("/sys") {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
            mount.set_typ(Some("none".to_owned()));
            mount.set_source(Some(PathBuf::from("/sys")));
            mount.set_options(Some(options.to_vec()));
        }
    }
    spec.set_mounts(Some(mounts));
    drop_owners(spec, uid_map, gid_map);
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|n| {
        let kind = n.typ();
        kind != LinuxNamespaceType::User && !(shares_network && kind == LinuxNamespaceType::Network)
    });
    let mut user = LinuxNamespace::default();
    user.set_typ(LinuxNamespaceType::User);
    namespaces.push(user);
    linux.set_namespaces(Some(namespaces));
    linux.set_uid_mappings(Some(mappings(uid_map)?));
    linux.set_gid_mappings(Some(mappings(gid_map)?));
    linux.set_resources(None);
    linux.set_cgroups_path(None);
    Ok(())
}

/// The maps of the user namespace that this process is in: users, groups.
///
/// # Errors
/// They can't be read.
pub fn own_maps() -> Result<(Vec<IdMapping>, Vec<IdMapping>)> {
    maps_of("self")
}

/// The maps of a process' user namespace, as seen from here: by its pid, or `self`.
///
/// # Errors
/// They can't be read.
pub fn maps_of(process: impl Display) -> Result<(Vec<IdMapping>, Vec<IdMapping>)> {
    let read = |name: &str| -> Result<Vec<IdMapping>> {
        let path = format!("/proc/{process}/{name}");
        let text = std::fs::read_to_string(&path).step(|| path)?;
        let line = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
            let (container, host, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
            Some(IdMapping { container, host, size })
        };
        Ok(text.lines().filter_map(line).collect())
    };
    Ok((read("uid_map")?, read("gid_map")?))
}

/// Takes the owners out of mount options that these maps lack.
pub fn drop_owners(spec: &mut Spec, uid_map: &[IdMapping], gid_map: &[IdMapping]) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &mut mounts {
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|option| owner(option, uid_map, gid_map).is_none_or(|(_, known)| known));
        mount.set_options(Some(options).filter(|all| !all.is_empty()));
    }
    spec.set_mounts(Some(mounts));
}

fn mappings(map: &[IdMapping]) -> Result<Vec<LinuxIdMapping>> {
    let build = |m: &IdMapping| {
        LinuxIdMappingBuilder::default()
            .host_id(m.host)
            .container_id(m.container)
            .size(m.size)
            .build()
            .map_err(|e| Error::invalid(format!("id mapping: {e}")))
    };
    map.iter().map(build).collect()
}

/// For a mount option that names an owner: its id, and whether the maps have it.
fn owner(option: &str, uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Option<(u32, bool)> {
    let (map, id) = match option.split_once('=')? {
        ("uid", id) => (uid_map, id),
        ("gid", id) => (gid_map, id),
        _ => return None,
    };
    let id = id.parse().ok()?;
    Some((id, has(map, id)))
}

fn has(map: &[IdMapping], id: u32) -> bool {
    map.iter().any(|m| id >= m.container && id - m.container < m.size)
}

/// Refuses ids that the maps of the container's new user namespace lack: the
/// kernel would say no more than "invalid argument" to them.
pub(super) fn check(
    namespaces: &NamespacePlan,
    process: &ProcessPlan,
    mounts: &[MountPlan],
) -> Result<()> {
    if !namespaces.makes(nix::sched::CloneFlags::CLONE_NEWUSER) {
        return Ok(());
    }
    let (uid_map, gid_map) = (&namespaces.uid_map, &namespaces.gid_map);
    for (field, map) in [("linux.uidMappings", uid_map), ("linux.gidMappings", gid_map)] {
        // mounts, devices and links are made by root of the namespace
        if !has(map, 0) {
            return Err(Error::invalid(format!("{field}: nothing is mapped to id 0")));
        }
    }
    check_ids((uid_map, gid_map), process, mounts)
}

/// The same for maps of any user namespace.
///
/// # Errors
/// The field with the id.
pub fn check_ids(
    (uid_map, gid_map): (&[IdMapping], &[IdMapping]),
    process: &ProcessPlan,
    mounts: &[MountPlan],
) -> Result<()> {
    let lacks = |field: &str, id: u32, maps: &str| {
        Error::invalid(format!("{field}: {id} is not among the container's ids of linux.{maps}"))
    };
    if !has(uid_map, process.uid) {
        return Err(lacks("process.user.uid", process.uid, "uidMappings"));
    }
    if !has(gid_map, process.gid) {
        return Err(lacks("process.user.gid", process.gid, "gidMappings"));
    }
    if let Some(gid) = process.groups.iter().find(|gid| !has(gid_map, **gid)) {
        return Err(lacks("process.user.additionalGids", *gid, "gidMappings"));
    }
    for mount in mounts {
        let MountKind::Filesystem { options, .. } = &mount.kind else { continue };
        for option in options {
            let text = format!("{}={}", option.key, option.value.as_deref().unwrap_or_default());
            if let Some((id, false)) = owner(&text, uid_map, gid_map) {
                let maps = if option.key == "uid" { "uidMappings" } else { "gidMappings" };
                return Err(lacks(&format!("option {text}"), id, maps)
                    .step(mount.label())
                    .hint("leave the option out"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::defaults::{default_spec, rootless_document};

    #[test]
    fn the_document_is_the_default_one_adapted() {
        let own = |host| [IdMapping { container: 0, host, size: 1 }];
        let mut spec = default_spec();
        adapt(&mut spec, &own(1000), &own(1001), true).unwrap();
        let document: Spec = serde_json::from_str(&rootless_document(1000, 1001)).unwrap();
        assert_eq!(document, spec);
        let options = spec.mounts().as_ref().unwrap()[2].options().clone().unwrap();
        assert!(!options.contains(&"gid=5".to_owned()), "{options:?}");
    }

    #[test]
    fn what_the_maps_have_stays() {
        let map = [IdMapping { container: 0, host: 100_000, size: 65536 }];
        let mut spec = default_spec();
        adapt(&mut spec, &map, &map, false).unwrap();
        let mounts = spec.mounts().clone().unwrap();
        assert!(mounts[2].options().as_ref().unwrap().contains(&"gid=5".to_owned()));
        assert!(mounts.iter().any(|m| m.typ().as_deref() == Some("sysfs")));
    }
}
