//! The plan: a container's configuration with nothing left open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Hook, LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use super::clocks::time_offsets;
use super::labels::LabelPlan;
use super::linux::{self, DevicePlan, SysctlPlan};
use super::mounts::{MountPlan, Propagation};
use super::namespaces::NamespacePlan;
use super::net::{NetDevicePlan, net_devices};
use super::process::ProcessPlan;
use super::rdt::RdtPlan;
use super::scheduling::SchedulingPlan;
use super::seccomp::SeccompPlan;
use super::{refuse, rootless};
use crate::cgroup;
use crate::cgroup::devices::DeviceProgram;
use crate::cgroup::limits::LimitsPlan;
use crate::error::{Error, Result};

/// What a plan is made from, beside the configuration itself.
#[derive(Debug, Clone, Copy)]
pub struct ResolveArgs<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle's directory, absolute.
    pub bundle: &'a Path,
}

/// One hook (config.md, POSIX-platform hooks).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookPlan {
    /// Program, absolute.
    pub path: PathBuf,
    /// argv, argv\[0\] first; the path when the config has none.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds after which it is killed.
    pub timeout: Option<u64>,
}

/// The six lists of hooks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// After the namespaces exist, by the runtime (deprecated, still in use).
    pub prestart: Vec<HookPlan>,
    /// The same moment, by the runtime.
    pub create_runtime: Vec<HookPlan>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<HookPlan>,
    /// In the container, before its program.
    pub start_container: Vec<HookPlan>,
    /// After the program was started, by the runtime.
    pub poststart: Vec<HookPlan>,
    /// After the container was deleted, by the runtime.
    pub poststop: Vec<HookPlan>,
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
        labels.label_mounts(&mut mounts);
        let resolved = ProcessPlan::resolve(process)?;
        rootless::check(&namespaces, &resolved, &mounts)?;
        let empty = LinuxResources::default();
        let resources = linux.and_then(|l| l.resources().as_ref());
        let rules = resources.and_then(|r| r.devices().as_deref());
        let seccomp = linux.and_then(|l| l.seccomp().as_ref());
        let masked = linux.and_then(|l| l.masked_paths().as_deref());
        let readonly = linux.and_then(|l| l.readonly_paths().as_deref());
        Ok(Plan {
            id: args.id.to_owned(),
            bundle: args.bundle.to_owned(),
            oci_version: spec.version().clone(),
            annotations: spec.annotations().iter().flatten().map(pair).collect(),
            rootfs: rootfs(spec, args.bundle)?,
            mounts,
            devices: linux::devices(linux)?,
            net_devices: net_devices(linux, &namespaces)?,
            time_offsets: time_offsets(linux, &namespaces)?,
            hostname,
            domainname,
            sysctls,
            masked_paths: linux::paths("linux.maskedPaths", masked)?,
            readonly_paths: linux::paths("linux.readonlyPaths", readonly)?,
            process: resolved,
            scheduling: SchedulingPlan::resolve(process, linux)?,
            labels,
            cgroups_path: linux.and_then(|l| l.cgroups_path().clone()),
            limits: cgroup::limits::plan(resources.unwrap_or(&empty))?,
            rdt: RdtPlan::resolve(linux)?,
            device_program: cgroup::devices::plan(rules.unwrap_or_default())?,
            seccomp: seccomp.map(SeccompPlan::resolve).transpose()?,
            hooks: hooks(spec)?,
            namespaces,
        })
    }
}

fn pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<RootfsPlan> {
    let Some(root) = spec.root() else {
        return Err(Error::invalid("root: is missing"));
    };
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root.path: is empty"));
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

#[allow(deprecated, reason = "prestart hooks are deprecated and still in use")]
fn hooks(spec: &Spec) -> Result<Hooks> {
    let Some(all) = spec.hooks() else {
        return Ok(Hooks::default());
    };
    Ok(Hooks {
        prestart: hook_list("prestart", all.prestart().as_deref())?,
        create_runtime: hook_list("createRuntime", all.create_runtime().as_deref())?,
        create_container: hook_list("createContainer", all.create_container().as_deref())?,
        start_container: hook_list("startContainer", all.start_container().as_deref())?,
        poststart: hook_list("poststart", all.poststart().as_deref())?,
        poststop: hook_list("poststop", all.poststop().as_deref())?,
    })
}

fn hook_list(kind: &str, list: Option<&[Hook]>) -> Result<Vec<HookPlan>> {
    let mut plans = Vec::new();
    for (index, hook) in list.unwrap_or_default().iter().enumerate() {
        let field = format!("hooks.{kind}[{index}]");
        let path = hook.path().clone();
        if !path.is_absolute() {
            return Err(Error::invalid(format!("{field}.path: {path:?} is not an absolute path")));
        }
        let timeout = match hook.timeout() {
            None => None,
            Some(seconds) => match u64::try_from(seconds) {
                Ok(n) if n > 0 => Some(n),
                _ => {
                    return Err(Error::invalid(format!(
                        "{field}.timeout: {seconds} is not a number of seconds above 0"
                    )));
                }
            },
        };
        let env = hook.env().clone().unwrap_or_default();
        if let Some(entry) = env.iter().find(|entry| !entry.contains('=')) {
            return Err(Error::invalid(format!("{field}.env: {entry:?} is not NAME=VALUE")));
        }
        let mut args = hook.args().clone().unwrap_or_default();
        if args.is_empty() {
            args.push(path.to_string_lossy().into_owned());
        }
        plans.push(HookPlan { path, args, env, timeout });
    }
    Ok(plans)
}
