//! From an image's configuration to a runtime's config, by the image
//! specification's rules for the conversion.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use oci_spec::image::{Config, ImageConfiguration};
use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxCpu, LinuxMemory, LinuxNamespaceType, LinuxPids,
    LinuxResources, Mount, MountBuilder, Process, Root, Spec, User,
};

use super::bind::Bind;
use super::user;
use crate::error::{Error, Result};
use crate::spec::defaults::default_spec;

/// The network of a container from an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A namespace of its own with loopback only.
    #[default]
    None,
    /// The host's, with its resolv.conf and hosts.
    Host,
}

/// What the caller wants other than the image says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeOverrides {
    /// Instead of the image's Cmd; its Entrypoint stays in front.
    pub args: Vec<String>,
    /// `NAME=VALUE`, or `NAME` to take it from our own environment.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Paths of the host, volumes among them, and where they go.
    pub binds: Vec<Bind>,
    /// Network.
    pub network: Network,
    /// Memory limit in bytes.
    pub memory: Option<i64>,
    /// Processors' worth of time.
    pub cpus: Option<f64>,
    /// Most processes; -1 is no limit.
    pub pids: Option<i64>,
    /// Read-only root file system.
    pub read_only: bool,
    /// A terminal.
    pub tty: bool,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PERIOD: u64 = 100_000;

/// The config for an image whose merged file system is at `rootfs`.
///
/// `root.path` is `rootfs`, relative to a bundle; a caller without a bundle
/// puts another one there.
///
/// # Errors
/// Invalid for what can't be converted: an unknown user, no program to run, a
/// bind or variable of the wrong form.
pub fn spec_for(
    image: &ImageConfiguration,
    rootfs: BorrowedFd<'_>,
    overrides: &RuntimeOverrides,
) -> Result<Spec> {
    let empty = Config::default();
    let config = image.config().as_ref().unwrap_or(&empty);
    let mut spec = default_spec();
    spec.set_process(Some(process(config, rootfs, overrides)?));
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(overrides.read_only));
    spec.set_root(Some(root));
    if overrides.hostname.is_some() {
        spec.set_hostname(overrides.hostname.clone());
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(extra_mounts(config, overrides)?);
    spec.set_mounts(Some(mounts));
    if let Some(linux) = spec.linux_mut() {
        if overrides.network == Network::Host
            && let Some(namespaces) = linux.namespaces_mut()
        {
            namespaces.retain(|n| n.typ() != LinuxNamespaceType::Network);
        }
        let mut resources = linux.resources().clone().unwrap_or_default();
        limit(&mut resources, overrides)?;
        linux.set_resources(Some(resources));
    }
    spec.set_annotations(Some(annotations(image, config)));
    Ok(spec)
}

fn process(
    config: &Config,
    rootfs: BorrowedFd<'_>,
    overrides: &RuntimeOverrides,
) -> Result<Process> {
    let text = overrides.user.as_ref().or(config.user().as_ref());
    let user = user::resolve(rootfs, text.map_or("", String::as_str))?;
    let mut process = Process::default();
    process.set_args(Some(args(config, overrides)?));
    process.set_env(Some(env(config, overrides, user.home.as_deref())?));
    process.set_cwd(cwd(config, overrides)?);
    process.set_terminal(Some(overrides.tty));
    process.set_no_new_privileges(None);
    process.set_rlimits(None);
    process.set_capabilities(Some(capabilities()));
    let mut ids = User::default();
    ids.set_uid(user.uid);
    ids.set_gid(user.gid);
    ids.set_additional_gids(Some(user.groups).filter(|g| !g.is_empty()));
    process.set_user(ids);
    Ok(process)
}

fn args(config: &Config, overrides: &RuntimeOverrides) -> Result<Vec<String>> {
    let mut args = config.entrypoint().clone().unwrap_or_default();
    if overrides.args.is_empty() {
        args.extend(config.cmd().clone().unwrap_or_default());
    } else {
        args.extend(overrides.args.clone());
    }
    match args.first() {
        Some(program) if !program.is_empty() => Ok(args),
        _ => Err(Error::invalid("the image names no program to run")
            .hint("give one after the image, behind --")),
    }
}

/// The image's, then the caller's, then what is still missing.
fn env(config: &Config, overrides: &RuntimeOverrides, home: Option<&str>) -> Result<Vec<String>> {
    let mut env = config.env().clone().unwrap_or_default();
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for wanted in &overrides.env {
        let entry = match wanted.split_once('=') {
            Some(("", _)) => return Err(Error::invalid(format!("variable {wanted:?}: no name"))),
            Some(_) => Some(wanted.clone()),
            // as elsewhere: a variable that isn't set here isn't set there
            None => std::env::var(wanted).ok().map(|value| format!("{wanted}={value}")),
        };
        env.retain(|other| entry.is_none() || name(other) != name(wanted));
        env.extend(entry);
    }
    let mut add = |entry: String| {
        if !env.iter().any(|other| name(other) == name(&entry)) {
            env.push(entry);
        }
    };
    add(PATH.to_owned());
    add(format!("HOME={}", home.unwrap_or("/")));
    if overrides.tty {
        add("TERM=xterm".to_owned());
    }
    Ok(env)
}

fn cwd(config: &Config, overrides: &RuntimeOverrides) -> Result<PathBuf> {
    if let Some(dir) = &overrides.workdir {
        if dir.is_absolute() {
            return Ok(dir.clone());
        }
        return Err(Error::invalid(format!(
            "working directory {}: not an absolute path",
            dir.display()
        )));
    }
    let dir = config.working_dir().as_deref().unwrap_or_default();
    Ok(Path::new("/").join(dir))
}

/// The set that Docker made the usual one for containers from images.
fn capabilities() -> LinuxCapabilities {
    let set = || {
        let usual = [
            Capability::AuditWrite,
            Capability::Chown,
            Capability::DacOverride,
            Capability::Fowner,
            Capability::Fsetid,
            Capability::Kill,
            Capability::Mknod,
            Capability::NetBindService,
            Capability::NetRaw,
            Capability::Setfcap,
            Capability::Setgid,
            Capability::Setpcap,
            Capability::Setuid,
            Capability::SysChroot,
        ];
        Some(usual.into_iter().collect())
    };
    let mut all = LinuxCapabilities::default();
    all.set_bounding(set());
    all.set_effective(set());
    all.set_permitted(set());
    all.set_inheritable(None);
    all.set_ambient(None);
    all
}

fn extra_mounts(config: &Config, overrides: &RuntimeOverrides) -> Result<Vec<Mount>> {
    let binds = overrides.binds.iter().map(bind);
    let binds = binds.collect::<Result<Vec<_>>>()?;
    let taken = |path: &Path| binds.iter().any(|m| m.destination() == path);
    let mut mounts = Vec::new();
    if overrides.network == Network::Host {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            let path = Path::new(file);
            if !taken(path) && path.try_exists().unwrap_or(false) {
                mounts.push(mount(path, "bind", path, &["rbind", "rprivate", "ro"])?);
            }
        }
    }
    let mut volumes = config.volumes().clone().unwrap_or_default();
    volumes.sort();
    for volume in &volumes {
        let path = Path::new("/").join(volume);
        if !taken(&path) {
            let options = ["rw", "nosuid", "nodev", "tmpcopyup"];
            mounts.push(mount(&path, "tmpfs", Path::new("tmpfs"), &options)?);
        }
    }
    mounts.extend(binds);
    Ok(mounts)
}

fn bind(bind: &Bind) -> Result<Mount> {
    let mut options: Vec<&str> = bind.options.iter().map(String::as_str).collect();
    if !options.iter().any(|o| matches!(*o, "bind" | "rbind")) {
        options.insert(0, "rbind");
    }
    let propagation = ["shared", "slave", "private", "unbindable"];
    if !options.iter().any(|o| propagation.contains(&o.trim_start_matches('r'))) {
        options.push("rprivate");
    }
    mount(&bind.destination, "bind", &bind.source, &options)
}

fn mount(destination: &Path, typ: &str, source: &Path, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .destination(destination)
        .typ(typ)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|e| Error::invalid(format!("mount {}: {e}", destination.display())))
}

fn limit(resources: &mut LinuxResources, overrides: &RuntimeOverrides) -> Result<()> {
    if let Some(bytes) = overrides.memory {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(bytes));
        resources.set_memory(Some(memory));
    }
    if let Some(cpus) = overrides.cpus {
        if !(0.01..=100_000.0).contains(&cpus) {
            return Err(Error::invalid(format!("cpus {cpus}: not between 0.01 and 100000")));
        }
        #[allow(clippy::cast_possible_truncation, reason = "the range is checked above")]
        let quota = (cpus * 100_000.0).round() as i64;
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(Some(quota));
        cpu.set_period(Some(PERIOD));
        resources.set_cpu(Some(cpu));
    }
    if let Some(most) = overrides.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(most);
        resources.set_pids(Some(pids));
    }
    Ok(())
}

/// What the image says of itself; its labels win.
fn annotations(image: &ImageConfiguration, config: &Config) -> HashMap<String, String> {
    let mut ports = config.exposed_ports().clone().unwrap_or_default();
    ports.sort();
    let features = image.os_features().clone().unwrap_or_default();
    let list = |items: Vec<String>| Some(items.join(",")).filter(|text| !text.is_empty());
    let known = [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("variant", image.variant().clone()),
        ("os.version", image.os_version().clone()),
        ("os.features", list(features)),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("stopSignal", config.stop_signal().clone()),
        ("exposedPorts", list(ports)),
    ];
    let mut all: HashMap<String, String> = known
        .into_iter()
        .filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?)))
        .collect();
    all.extend(config.labels().clone().unwrap_or_default());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},
            "config":{config}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn spec(config: &str, overrides: &RuntimeOverrides) -> Result<Spec> {
        let root = tempfile::tempdir().unwrap();
        let dir = crate::sys::fs::open_dir(root.path()).unwrap();
        spec_for(&image(config), std::os::fd::AsFd::as_fd(&dir), overrides)
    }

    #[test]
    fn entrypoint_stays_and_cmd_goes() {
        let config =
            r#"{"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/w","Env":["A=b","HOME=/h"]}"#;
        let plain = spec(config, &RuntimeOverrides::default()).unwrap();
        let process = plain.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["/e", "c"]);
        assert_eq!(process.env().as_ref().unwrap(), &["A=b", "HOME=/h", PATH]);
        assert_eq!(process.cwd(), Path::new("/w"));
        let overrides = RuntimeOverrides {
            args: vec!["x".into()],
            env: vec!["A=2".into()],
            ..RuntimeOverrides::default()
        };
        let changed = spec(config, &overrides).unwrap();
        let process = changed.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["/e", "x"]);
        assert!(process.env().as_ref().unwrap().contains(&"A=2".to_owned()));
    }

    #[test]
    fn what_cannot_be_converted_is_refused() {
        let wrong = |overrides| spec(r#"{"Cmd":["c"]}"#, &overrides).unwrap_err().to_string();
        let none = RuntimeOverrides::default();
        assert!(spec("{}", &none).unwrap_err().to_string().contains("no program"));
        let user = RuntimeOverrides { user: Some("who".into()), ..none.clone() };
        assert!(wrong(user).contains("no such user"));
        let cpus = RuntimeOverrides { cpus: Some(-1.0), ..none };
        assert!(wrong(cpus).contains("cpus"));
    }

    #[test]
    fn labels_win_over_what_is_derived() {
        let config = r#"{"Cmd":["c"],"Labels":{"org.opencontainers.image.os":"mine"},
            "Volumes":{"/v":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGINT"}"#;
        let spec = spec(config, &RuntimeOverrides::default()).unwrap();
        let notes = spec.annotations().as_ref().unwrap();
        assert_eq!(notes["org.opencontainers.image.os"], "mine");
        assert_eq!(notes["org.opencontainers.image.exposedPorts"], "80/tcp");
        assert_eq!(notes["org.opencontainers.image.stopSignal"], "SIGINT");
        let last = spec.mounts().as_ref().unwrap().last().unwrap();
        assert_eq!(last.destination(), Path::new("/v"));
    }
}
