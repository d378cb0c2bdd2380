//! A container straight from an image: no bundle of the caller's, and no mount
//! on the host.

use std::fs::DirBuilder;
use std::io;
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
use crate::image::overlay::{OverlayPlan, mount_detached, unmark};
use crate::image::store::{Image, Store};
use crate::image::unpack::copy_root;
use crate::sandbox::Interrupts;
use crate::spec::rootless;
use crate::sys::caller::caller;
use crate::sys::fs::{open_dir, replace_file};

/// The directories of a container's overlay. It is mounted, where only the container sees
/// that, over the first.
const UPPER: &str = "upper";
const WORK: &str = "work";

/// What `run` creates a container from.
pub(super) struct Prepared {
    pub(super) bundle: PathBuf,
    pub(super) spec: Spec,
    /// The overlay of the image, in no mount table.
    pub(super) rootfs: Option<OwnedFd>,
    pub(super) reserved: Option<Reserved>,
    /// Of an image's container: what is to be done while its init is busy.
    pub(super) rest: Option<Rest>,
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
    let rootfs = overlay(&store, &image, &bundle)?;
    interrupts.check()?;
    overrides.binds = wanted.mounts(&store, &image, &bundle, rootfs.as_fd())?;
    interrupts.check()?;
    let mut spec = spec_for(&image.config, rootfs.as_fd(), &overrides)?;
    if let Some(root) = spec.root_mut() {
        // over what the container changes: a directory less to make
        root.set_path(UPPER.into());
    }
    if !caller().is_host_root() {
        let (uid_map, gid_map) = rootless::own_maps()?;
        rootless::drop_owners(&mut spec, &uid_map, &gid_map);
    }
    let config = serde_json::to_vec(&spec)
        .map_err(|e| Error::new(ErrorKind::System, format!("encode config.json: {e}")))?;
    let rest = Some(Rest { bundle: bundle.clone(), config });
    let (rootfs, reserved) = (Some(rootfs), Some(reserved));
    Ok(Prepared { bundle, spec, rootfs, reserved, rest, interrupts: Some(interrupts) })
}

/// What the start of the program need not wait for.
#[derive(Debug)]
pub(super) struct Rest {
    bundle: PathBuf,
    config: Vec<u8>,
}

impl Rest {
    /// Writes config.json for whoever looks, and removes the mark of the overlay: the
    /// removal of the container is shorter by it.
    ///
    /// # Errors
    /// A directory that can't be written to.
    pub(super) fn finish(&self) -> Result<()> {
        let step = || self.bundle.display().to_string();
        let dir = open_dir(&self.bundle).step(step)?;
        let mode = Mode::from_bits_truncate(0o600);
        replace_file(&dir, "config.json", &self.config, mode, false).step(step)?;
        unmark(dir.as_fd(), Path::new(WORK)).step(step)
    }
}

fn make_directories(bundle: &Path) -> Result<()> {
    let make = |path: &Path, mode| DirBuilder::new().mode(mode).create(path);
    let mkdir = |path: &Path, mode| make(path, mode).step(|| format!("mkdir {}", path.display()));
    match (make(bundle, 0o700), bundle.parent()) {
        // the store's first container
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            match make(parent, 0o700) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(e).step(|| format!("mkdir {}", parent.display()));
                }
                _ => mkdir(bundle, 0o700)?,
            }
        }
        (made, _) => made.step(|| format!("mkdir {}", bundle.display()))?,
    }
    mkdir(&bundle.join(UPPER), 0o755)?;
    mkdir(&bundle.join(WORK), 0o700)
}

fn overlay(store: &Store, image: &Image, bundle: &Path) -> Result<OwnedFd> {
    let lower = store.layers_or_empty(image);
    let (upper, work) = (bundle.join(UPPER), bundle.join(WORK));
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
