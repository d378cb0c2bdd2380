//! A container straight from an image: no bundle of the caller's, and no mount
//! on the host.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;

use super::volumes::Wanted;
use crate::cli::{GlobalArgs, ImageRunArgs, NetMode, RunArgs};
use crate::container::{ContainerId, Reserved};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::bundle::{Network, RuntimeOverrides, spec_for};
use crate::image::limits::size;
use crate::image::overlay::{OverlayPlan, mount_detached};
use crate::image::store::{Image, Store};
use crate::image::unpack::copy_root;
use crate::sandbox::Interrupts;
use crate::spec::rootless;
use crate::sys::caller::caller;
use crate::sys::fs::{open_dir, replace_file};

/// What `run` creates a container from.
pub(super) struct Prepared {
    pub(super) bundle: PathBuf,
    pub(super) spec: Spec,
    /// The overlay of the image, in no mount table.
    pub(super) rootfs: Option<OwnedFd>,
    pub(super) reserved: Option<Reserved>,
    /// Signals since the id was taken: each ends the command with its undoing.
    pub(super) interrupts: Option<Interrupts>,
}

/// Imports the image if it is a path, mounts its overlay without a place for
/// it, and converts its configuration.
pub(super) fn prepare(
    global: &GlobalArgs,
    args: &RunArgs,
    name: &str,
    id: &ContainerId,
) -> Result<Prepared> {
    let mut overrides = overrides(&args.image, &args.args, id)?;
    let wanted = Wanted::parse(&args.image.volumes)?;
    super::become_root_of_files()?;
    let store = Store::open(global.store.as_deref())?;
    let image = store.resolve(name, &super::image::selector(&args.image.select)?)?;
    // two state roots may share a store, and each may have this id
    let bundle = store.path().join("containers").join(format!("{id}.{}", std::process::id()));
    let mut scratch = vec![bundle.clone(), store.reference_path(&bundle)?];
    scratch.extend(wanted.notes(&store, &bundle));
    let interrupts = Interrupts::watch()?;
    let reserved = Reserved::new(&super::store(global)?, id, scratch)?;
    // as long as the directory is there, the image's layers stay; before it, so that
    // none is left that nobody knows of
    store.hold_until_reboot(&image, &bundle)?;
    make_directories(&bundle)?;
    let step = || bundle.display().to_string();
    let rootfs = overlay(&store, &image, &bundle)?;
    interrupts.check()?;
    overrides.binds = wanted.mounts(&store, &image, &bundle, rootfs.as_fd())?;
    interrupts.check()?;
    let mut spec = spec_for(&image.config, rootfs.as_fd(), &overrides)?;
    if !caller().is_host_root() {
        let (uid_map, gid_map) = rootless::own_maps()?;
        rootless::drop_owners(&mut spec, &uid_map, &gid_map);
    }
    let json = serde_json::to_vec(&spec)
        .map_err(|e| Error::new(ErrorKind::System, format!("encode config.json: {e}")))?;
    let dir = open_dir(&bundle).step(step)?;
    let mode = Mode::from_bits_truncate(0o600);
    replace_file(&dir, "config.json", &json, mode, false).step(step)?;
    let (rootfs, reserved) = (Some(rootfs), Some(reserved));
    Ok(Prepared { bundle, spec, rootfs, reserved, interrupts: Some(interrupts) })
}

fn make_directories(bundle: &Path) -> Result<()> {
    let mkdir = |path: &Path, mode| {
        let mut builder = DirBuilder::new();
        builder.mode(mode).create(path).step(|| format!("mkdir {}", path.display()))
    };
    if let Some(parent) = bundle.parent() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(parent);
        made.step(|| format!("mkdir {}", parent.display()))?;
    }
    mkdir(bundle, 0o700)?;
    mkdir(&bundle.join("upper"), 0o755)?;
    mkdir(&bundle.join("work"), 0o700)?;
    mkdir(&bundle.join("rootfs"), 0o755)
}

fn overlay(store: &Store, image: &Image, bundle: &Path) -> Result<OwnedFd> {
    let lower = store.layers_or_empty(image);
    let (upper, work) = (bundle.join("upper"), bundle.join("work"));
    copy_root(&lower, &upper)?;
    // what the container writes goes with it
    let (upper, work) = (Some(upper), Some(work));
    mount_detached(&OverlayPlan { lower, upper, work, volatile: true })
}

fn overrides(words: &ImageRunArgs, args: &[String], id: &ContainerId) -> Result<RuntimeOverrides> {
    Ok(RuntimeOverrides {
        args: args.to_vec(),
        env: words.env.clone(),
        workdir: words.workdir.clone(),
        user: words.user.clone(),
        // an id may be longer than a host name
        hostname: words.hostname.clone().or_else(|| Some(id.as_str().chars().take(64).collect())),
        binds: Vec::new(),
        network: match words.net {
            Some(NetMode::Host) => Network::Host,
            Some(NetMode::None) | None => Network::None,
        },
        memory: words.memory.as_deref().map(memory).transpose()?,
        cpus: words.cpus.as_deref().map(cpus).transpose()?,
        pids: words.pids_limit,
        read_only: words.read_only,
        tty: words.tty,
    })
}

fn memory(text: &str) -> Result<i64> {
    let bytes = size(text).step(|| "--memory")?;
    match i64::try_from(bytes) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(Error::invalid(format!("--memory: {text:?} is no limit that can be set"))),
    }
}

fn cpus(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n),
        _ => Err(Error::invalid(format!("--cpus {text:?}: not a number above 0 (such as 1.5)"))),
    }
}
