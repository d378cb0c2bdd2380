//! linux: devices, sysctls, masked and read-only paths, propagation.

use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::stat::{SFlag, makedev};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::mounts::Propagation;
use super::namespaces::NamespacePlan;
use super::process::check_id;
use crate::error::{Error, Result};

/// A device node to make.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    /// Where, inside the container; absolute.
    pub path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: SFlag,
    /// Device number.
    pub rdev: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl DevicePlan {
    /// How errors name this device.
    pub fn label(&self) -> String {
        format!("device {}", self.path.display())
    }
}

/// A value to write below /proc/sys.
#[derive(Debug, Clone)]
pub struct SysctlPlan {
    /// The name as given, with dots.
    pub name: String,
    /// The path below /proc/sys.
    pub path: PathBuf,
    /// The value.
    pub value: String,
}

/// Nodes that every container has in /dev (config-linux.md, default devices).
const DEFAULT_DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn devices(linux: Option<&Linux>) -> Result<Vec<DevicePlan>> {
    let given = linux.and_then(|l| l.devices().as_deref()).unwrap_or_default();
    let mut plans: Vec<DevicePlan> = DEFAULT_DEVICES
        .iter()
        .map(|(path, major, minor)| DevicePlan {
            path: PathBuf::from(path),
            kind: SFlag::S_IFCHR,
            rdev: makedev(*major, *minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for (index, device) in given.iter().enumerate() {
        let plan = device_plan(&format!("linux.devices[{index}]"), device)?;
        // one of the default nodes may be given another owner or mode
        plans.retain(|p| p.path != plan.path);
        plans.push(plan);
    }
    Ok(plans)
}

fn device_plan(field: &str, device: &LinuxDevice) -> Result<DevicePlan> {
    let path = inside(&format!("{field}.path"), device.path())?;
    if path == Path::new("/") {
        return Err(Error::invalid(format!("{field}.path: {path:?} is no place for a node")));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(Error::invalid(format!("{field}.type: a names no one kind of node")));
        }
    };
    let number = |name: &str, value: i64, max: u64| match u64::try_from(value) {
        Ok(n) if n <= max => Ok(n),
        _ => Err(Error::invalid(format!("{field}.{name}: {value} is not within 0..{max}"))),
    };
    // a fifo has no number; the kernel's device numbers have 12 and 20 bits
    let rdev = match kind {
        SFlag::S_IFIFO => 0,
        _ => makedev(
            number("major", device.major(), 0xfff)?,
            number("minor", device.minor(), 0xf_ffff)?,
        ),
    };
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    check_id(&format!("{field}.uid"), uid)?;
    check_id(&format!("{field}.gid"), gid)?;
    let mode = device.file_mode().unwrap_or(0o666);
    // callers send the type bits of st_mode along
    let mode = mode & 0o7777;
    Ok(DevicePlan { path, kind, rdev, mode, uid, gid })
}

/// A path inside the container: absolute, without `..`.
pub(super) fn inside(field: &str, path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() {
        return Err(Error::invalid(format!("{field}: {path:?} is not an absolute path")));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Error::invalid(format!("{field}: {path:?} has .. inside")));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid(format!("{field}: has a NUL byte inside")));
    }
    Ok(path.components().collect())
}

/// linux.maskedPaths.
///
/// # Errors
/// The root itself: nothing would be left to run.
pub(super) fn masked_paths(list: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let paths = paths("linux.maskedPaths", list)?;
    match paths.iter().position(|path| path == Path::new("/")) {
        None => Ok(paths),
        Some(at) => Err(Error::invalid("is the root itself, which can't be hidden")
            .step(format!("linux.maskedPaths[{at}]"))),
    }
}

pub(super) fn paths(field: &str, list: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let list = list.unwrap_or_default();
    list.iter()
        .enumerate()
        .map(|(index, path)| inside(&format!("{field}[{index}]"), Path::new(path)))
        .collect()
}

/// Which namespace makes a sysctl the container's own.
fn sysctl_namespace(name: &str) -> Option<CloneFlags> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if name.starts_with("net.") {
        Some(CloneFlags::CLONE_NEWNET)
    } else if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(CloneFlags::CLONE_NEWIPC)
    } else if name == "kernel.domainname" || name == "kernel.hostname" {
        Some(CloneFlags::CLONE_NEWUTS)
    } else if name.starts_with("user.") {
        Some(CloneFlags::CLONE_NEWUSER)
    } else {
        None
    }
}

pub(super) fn sysctls(
    linux: Option<&Linux>,
    ns: &NamespacePlan,
    domainname: Option<&str>,
) -> Result<Vec<SysctlPlan>> {
    let Some(given) = linux.and_then(|l| l.sysctl().as_ref()) else {
        return Ok(Vec::new());
    };
    let mut plans = Vec::with_capacity(given.len());
    for (name, value) in given {
        let plan = sysctl(name, value, ns).and_then(|plan| {
            no_second_name(&plan, domainname)?;
            Ok(plan)
        });
        plans.push(plan.map_err(|e| e.step(format!("linux.sysctl.{name}")))?);
    }
    plans.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(plans)
}

/// Two values for one name would leave open which wins. (runc and crun refuse
/// kernel.hostname always.)
fn no_second_name(plan: &SysctlPlan, domainname: Option<&str>) -> Result<()> {
    let field = match plan.path.to_str() {
        Some("kernel/hostname") => "hostname",
        Some("kernel/domainname") if domainname.is_some_and(|d| d != plan.value) => "domainname",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("conflicts with the field {field}: give it there alone")))
}

fn sysctl(name: &str, value: &str, ns: &NamespacePlan) -> Result<SysctlPlan> {
    // sysctl.d(5): with a slash first, dots are part of names
    let slashes = name.find('/').unwrap_or(usize::MAX);
    let dots = name.find('.').unwrap_or(usize::MAX);
    let path = if slashes < dots {
        name.to_owned()
    } else {
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect()
    };
    let dotted = path.replace('/', ".");
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::invalid("is not the name of a sysctl"));
    }
    let Some(kind) = sysctl_namespace(&dotted) else {
        return Err(Error::invalid("is not separate for a container: it would change the host"));
    };
    if !ns.separates(kind) {
        let kind = super::namespaces::kind_name(kind);
        return Err(Error::invalid(format!(
            "would change the host: the container has no {kind} namespace of its own"
        )));
    }
    Ok(SysctlPlan { name: name.to_owned(), path: PathBuf::from(path), value: value.to_owned() })
}

pub(super) fn rootfs_propagation(linux: Option<&Linux>) -> Result<Option<Propagation>> {
    let Some(word) = linux.and_then(|l| l.rootfs_propagation().as_deref()) else {
        return Ok(None);
    };
    if word.is_empty() {
        return Ok(None);
    }
    let kind = match word.strip_prefix('r').unwrap_or(word) {
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "private" => MsFlags::MS_PRIVATE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => {
            return Err(Error::invalid(format!(
                "linux.rootfsPropagation: {word:?} is none of shared, slave, private, unbindable"
            )));
        }
    };
    Ok(Some(Propagation { kind, recursive: word.starts_with('r') }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(flags: CloneFlags) -> NamespacePlan {
        NamespacePlan { new: Some(flags), ..NamespacePlan::default() }
    }

    #[test]
    fn sysctl_names() {
        let ns = namespaces(CloneFlags::CLONE_NEWNET);
        assert_eq!(
            sysctl("net.ipv4.conf.eth0/1.forwarding", "1", &ns).unwrap().path,
            Path::new("net/ipv4/conf/eth0.1/forwarding")
        );
        assert_eq!(
            sysctl("net/ipv4/conf/eth0.1/forwarding", "1", &ns).unwrap().path,
            Path::new("net/ipv4/conf/eth0.1/forwarding")
        );
        assert!(sysctl("net.../../kernel/core_pattern", "1", &ns).is_err());
        assert!(sysctl("kernel.core_pattern", "1", &ns).is_err());
        assert!(sysctl("kernel.shmmax", "1", &ns).is_err());
        assert!(sysctl("net.ipv4.ip_forward", "1", &namespaces(CloneFlags::empty())).is_err());
    }

    #[test]
    fn a_name_has_one_field() {
        let ns = namespaces(CloneFlags::CLONE_NEWUTS);
        let error = |name: &str, domainname| {
            let json = serde_json::json!({"sysctl": {name: "x"}});
            let linux: Linux = serde_json::from_value(json).unwrap();
            sysctls(Some(&linux), &ns, domainname).err().map(|e| e.to_string())
        };
        assert!(error("kernel.hostname", None).unwrap().contains("the field hostname"));
        assert!(error("kernel/domainname", Some("y")).unwrap().contains("field domainname"));
        assert_eq!(error("kernel.domainname", Some("x")), None);
        assert_eq!(error("kernel.domainname", None), None);
    }

    #[test]
    fn a_given_node_replaces_a_default_one() {
        let linux: Linux = serde_json::from_str(
            r#"{"devices":[{"path":"/dev/tty","type":"c","major":5,"minor":0,"fileMode":8576}]}"#,
        )
        .unwrap();
        let plans = devices(Some(&linux)).unwrap();
        assert_eq!(plans.len(), DEFAULT_DEVICES.len());
        assert_eq!(plans.last().map(|p| p.mode), Some(0o600));
    }

    #[test]
    fn wrong_devices() {
        for json in [
            r#"{"devices":[{"path":"dev/x","type":"c","major":1,"minor":1}]}"#,
            r#"{"devices":[{"path":"/dev/../x","type":"c","major":1,"minor":1}]}"#,
            r#"{"devices":[{"path":"/dev/x","type":"c","major":-1,"minor":1}]}"#,
            r#"{"devices":[{"path":"/dev/x","type":"a","major":1,"minor":1}]}"#,
            r#"{"devices":[{"path":"/dev/x","type":"p","gid":2147483648}]}"#,
        ] {
            let linux: Linux = serde_json::from_str(json).unwrap();
            let text = devices(Some(&linux)).unwrap_err().to_string();
            assert!(text.starts_with("linux.devices[0]."), "{text}");
        }
    }
}
