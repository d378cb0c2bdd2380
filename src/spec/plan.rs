//! The plan: a container's configuration with nothing left open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Spec};

use super::annotations::AnnotationPlan;
use super::clocks::time_offsets;
use super::hooks::{Hooks, hooks};
use super::labels::LabelPlan;
use super::linux::{self, DevicePlan, SysctlPlan};
use super::mounts::{MountKind, MountPlan, Propagation};
use super::namespaces::NamespacePlan;
use super::net::{NetDevicePlan, net_devices};
use super::process::ProcessPlan;
use super::rdt::RdtPlan;
use super::scheduling::SchedulingPlan;
use super::seccomp::SeccompPlan;
use super::{refuse, rootless, seccomp};
use crate::cgroup;
use crate::cgroup::devices::DeviceProgram;
use crate::cgroup::limits::LimitsPlan;
use crate::error::{Error, Result};
use crate::sys::mount::attr;
use crate::trace;

/// What a plan is made from, beside the configuration itself.
#[derive(Debug, Clone, Copy)]
pub struct ResolveArgs<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle's directory, absolute.
    pub bundle: &'a Path,
}

/// The root file system.
#[derive(Debug, Clone)]
pub struct RootfsPlan {
    /// Where it is on the host; absolute.
    pub path: PathBuf,
    /// Read-only for the container.
    pub readonly: bool,
    /// Propagation of the container's root; `None` leaves the default (slave).
    pub propagation: Option<Propagation>,
}

/// Everything that `create` needs to know, decided.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// Version that the configuration was written for.
    pub oci_version: String,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// What they ask of tare.
    pub asked: AnnotationPlan,
    /// Root file system.
    pub rootfs: RootfsPlan,
    /// Namespaces.
    pub namespaces: NamespacePlan,
    /// Lines for timens_offsets of a new time namespace.
    pub time_offsets: String,
    /// Network devices of the host that move in, in order of their names.
    pub net_devices: Vec<NetDevicePlan>,
    /// Mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes.
    pub devices: Vec<DevicePlan>,
    /// UTS host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Kernel parameters.
    pub sysctls: Vec<SysctlPlan>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// The program.
    pub process: ProcessPlan,
    /// How the kernel schedules it.
    pub scheduling: SchedulingPlan,
    /// What AppArmor and SELinux make of it.
    pub labels: LabelPlan,
    /// Where the config wants the cgroup.
    pub cgroups_path: Option<PathBuf>,
    /// Limits, as writes to files of the cgroup.
    pub limits: LimitsPlan,
    /// Shares of caches and memory bandwidth.
    pub rdt: Option<RdtPlan>,
    /// Device rules, compiled; `None` allows all.
    pub device_program: Option<DeviceProgram>,
    /// The filter of system calls; `None` allows all.
    pub seccomp: Option<SeccompPlan>,
    /// Hooks.
    pub hooks: Hooks,
}

impl Plan {
    /// Decides and checks everything. Nothing on the host is touched.
    ///
    /// # Errors
    /// The first field that is wrong or not supported, by name.
    pub fn resolve(spec: &Spec, args: ResolveArgs<'_>) -> Result<Self> {
        refuse::unsupported(spec)?;
        let linux = spec.linux().as_ref();
        let annotations = spec.annotations().iter().flatten().map(pair).collect();
        let asked = AnnotationPlan::resolve(&annotations)?;
        let namespaces = NamespacePlan::resolve(linux)?;
        refuse::mounts(spec, &namespaces)?;
        let Some(process) = spec.process() else {
            return Err(Error::invalid("process: is missing"));
        };
        let hostname = uts_name("hostname", spec.hostname().as_deref(), &namespaces)?;
        let domainname = uts_name("domainname", spec.domainname().as_deref(), &namespaces)?;
        let sysctls = linux::sysctls(linux, &namespaces, domainname.as_deref())?;
        let mut mounts = Vec::new();
        for (index, mount) in spec.mounts().as_deref().unwrap_or_default().iter().enumerate() {
            mounts.push(MountPlan::resolve(index, mount, args.bundle, &namespaces)?);
        }
        let labels = LabelPlan::resolve(process, linux)?;
        labels.label_mounts(&mut mounts, asked.mount_context);
        let resolved = ProcessPlan::resolve(process)?;
        rootless::check(&namespaces, &resolved, &mounts)?;
        let empty = LinuxResources::default();
        let resources = linux.and_then(|l| l.resources().as_ref());
        let rules = resources.and_then(|r| r.devices().as_deref());
        let masked = linux.and_then(|l| l.masked_paths().as_deref());
        let readonly = linux.and_then(|l| l.readonly_paths().as_deref());
        let mut readonly_paths = linux::paths("linux.readonlyPaths", readonly)?;
        let mut rootfs = rootfs(spec, args.bundle)?;
        // the root itself is sealed when all else is in it
        rootfs.readonly |= readonly_paths.iter().any(|path| path == Path::new("/"));
        readonly_paths.retain(|path| path != Path::new("/"));
        Ok(Plan {
            id: args.id.to_owned(),
            bundle: args.bundle.to_owned(),
            oci_version: spec.version().clone(),
            annotations,
            rootfs,
            mounts,
            devices: linux::devices(linux)?,
            net_devices: net_devices(linux, &namespaces)?,
            time_offsets: time_offsets(linux, &namespaces)?,
            hostname,
            domainname,
            sysctls,
            masked_paths: linux::masked_paths(masked)?,
            readonly_paths,
            process: resolved,
            scheduling: SchedulingPlan::resolve(process, linux)?,
            labels,
            cgroups_path: linux.and_then(|l| l.cgroups_path().clone()),
            limits: cgroup::limits::plan(resources.unwrap_or(&empty))?,
            rdt: RdtPlan::resolve(linux)?,
            device_program: trace::step("compile the device rules", || {
                cgroup::devices::plan(rules.unwrap_or_default())
            })?,
            seccomp: filter(linux.and_then(|l| l.seccomp().as_ref()), &asked)?,
            hooks: hooks(spec)?,
            namespaces,
            asked,
        })
    }

    /// The user, as the host knows him, to whom the container's cgroup has to belong: the
    /// container's program can divide it, since it sees it as the root of a mount that it
    /// may write to (config-linux.md, "Cgroup ownership").
    pub fn cgroup_owner(&self) -> Option<u32> {
        let is_writable = |mount: &MountPlan| {
            mount.kind == MountKind::Cgroup
                && mount.destination == Path::new("/sys/fs/cgroup")
                && (mount.attrs.set | mount.recursive_attrs.set) & attr::RDONLY == 0
        };
        let divides = self.namespaces.makes(CloneFlags::CLONE_NEWCGROUP)
            && self.mounts.iter().any(is_writable);
        let uid = self.process.uid;
        match self.namespaces.separates(CloneFlags::CLONE_NEWUSER) {
            _ if !divides => None,
            false => Some(uid),
            true => self.namespaces.uid_map.iter().find_map(|map| map.to_host(uid)),
        }
    }
}

fn pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// The filter, with what annotations add to the profile.
fn filter(given: Option<&LinuxSeccomp>, asked: &AnnotationPlan) -> Result<Option<SeccompPlan>> {
    let Some(given) = given else { return Ok(None) };
    if asked.fail_unknown_call {
        seccomp::refuse_unknown(given)?;
    }
    let compile = |given| trace::step("compile the filter", || SeccompPlan::resolve(given));
    match &asked.seccomp_receiver {
        Some(receiver) if given.listener_path().is_none() => {
            let mut given = given.clone();
            given.set_listener_path(Some(receiver.clone()));
            compile(&given)
        }
        _ => compile(given),
    }
    .map(Some)
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<RootfsPlan> {
    let Some(root) = spec.root() else {
        return Err(Error::invalid("root: is missing"));
    };
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root.path: is empty"));
    }
    if root.path().as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid("root.path: has a NUL byte inside"));
    }
    Ok(RootfsPlan {
        path: bundle.join(root.path()),
        readonly: root.readonly().unwrap_or(false),
        propagation: linux::rootfs_propagation(spec.linux().as_ref())?,
    })
}

fn uts_name(field: &str, name: Option<&str>, ns: &NamespacePlan) -> Result<Option<String>> {
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    if !ns.separates(CloneFlags::CLONE_NEWUTS) {
        return Err(Error::invalid(format!(
            "{field}: would change the host's: the container has no uts namespace of its own"
        )));
    }
    // __NEW_UTS_LEN
    if name.len() > 64 || name.contains('\0') {
        return Err(Error::invalid(format!("{field}: {name:?} is not a name of up to 64 bytes")));
    }
    Ok(Some(name.to_owned()))
}
