//! `checkpoint` and `restore`: a container's processes as files, by CRIU.
//!
//! What of a container lies outside of its processes is named to CRIU at the
//! checkpoint and given to it at the restore: bind mounts ([`mounts`]), namespaces that
//! are joined ([`namespaces`]), open files of the caller's ([`stdio`]).

mod criu;
mod dump;
mod labels;
mod mounts;
mod namespaces;
mod restore;
mod stdio;
mod view;
mod workshop;

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use self::criu::{Figure, Options, Switch, Text};
use self::view::View;
use self::workshop::Workshop;
use crate::error::{Error, Result, Step};
use crate::spec::{CRIU_CONFIG, Plan, namespace_name};
use crate::sys::caller::caller;

pub use dump::{CheckpointArgs, checkpoint};
pub use restore::{RestoreArgs, Restored, restore};

/// What becomes of the cgroups that the container's processes have made and set up
/// inside of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Nothing is kept of them.
    Ignore,
    /// Those that are not there are made again, with their settings.
    #[default]
    Soft,
    /// The settings of all are restored.
    Full,
    /// They must not be there.
    Strict,
}

impl CgroupsMode {
    /// Its number in `criu_cg_mode`.
    fn number(self) -> u64 {
        match self {
            CgroupsMode::Ignore => 0,
            CgroupsMode::Soft => 3,
            CgroupsMode::Full => 4,
            CgroupsMode::Strict => 5,
        }
    }
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug, Clone, Default)]
pub struct CriuWords {
    /// The directory of the images, absolute.
    pub image_path: PathBuf,
    /// Where CRIU writes its log and works; `None`: with the images.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are kept.
    pub tcp_established: bool,
    /// Unix sockets may be connected to a process outside.
    pub ext_unix_sk: bool,
    /// The terminal is the caller's.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Memory comes when it is asked for.
    pub lazy_pages: bool,
    /// What is in the parent images already is taken out of these.
    pub auto_dedup: bool,
    /// Kinds of namespaces that are restored empty.
    pub empty_ns: Vec<String>,
    /// What becomes of cgroups.
    pub cgroups: CgroupsMode,
    /// Deleted files that are open may get another name next to their old one.
    pub link_remap: bool,
}

/// The directories, open, and where the log is.
struct Places {
    images: OwnedFd,
    work: OwnedFd,
    log: PathBuf,
    log_name: &'static str,
}

impl Places {
    fn open(words: &CriuWords, log_name: &'static str, view: &View) -> Result<Self> {
        let open = |option: &str, path: &Path| {
            view.open(path).step(|| format!("{option} {}", path.display()))
        };
        let images = open("--image-path", &words.image_path)?;
        let work_path = words.work_path.as_ref().unwrap_or(&words.image_path);
        // containerd counts on it
        match std::fs::DirBuilder::new().mode(0o700).create(work_path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::from(e).step(format!("--work-path {}", work_path.display())));
            }
            _ => {}
        }
        let work = open("--work-path", work_path)?;
        // an older log would be read for this one's
        let log = work_path.join(log_name);
        match std::fs::remove_file(&log) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(e).step(format!("remove {}", log.display())));
            }
            _ => {}
        }
        Ok(Places { images, work, log, log_name })
    }
}

impl CriuWords {
    /// The kinds of `--empty-ns`, as CLONE_NEW*.
    fn empty_kinds(&self) -> Result<CloneFlags> {
        let mut kinds = CloneFlags::empty();
        for name in &self.empty_ns {
            if name != "network" {
                return Err(Error::invalid(format!(
                    "--empty-ns {name}: CRIU can do that with the network only"
                )));
            }
            kinds |= CloneFlags::CLONE_NEWNET;
        }
        Ok(kinds)
    }

    fn options(&self, places: &Places, workshop: &Workshop, plan: &Plan) -> Result<Options> {
        use std::os::fd::AsFd;
        let mut options = Options::new(places.images.as_fd(), places.work.as_fd(), places.log_name);
        for (switch, on) in [
            (Switch::TcpEstablished, self.tcp_established),
            (Switch::ExtUnixSk, self.ext_unix_sk),
            (Switch::ShellJob, self.shell_job),
            (Switch::FileLocks, self.file_locks),
            (Switch::LazyPages, self.lazy_pages),
            (Switch::AutoDedup, self.auto_dedup),
            (Switch::LinkRemap, self.link_remap),
            (Switch::NotifyScripts, true),
            (Switch::OrphanPtsMaster, true),
            (Switch::ManageCgroups, true),
        ] {
            options.switch(switch, on);
        }
        options.figure(Figure::ManageCgroupsMode, self.cgroups.number());
        options.text(Text::CgroupYard, workshop.cgroups());
        let empty = self.empty_kinds()?;
        if !empty.is_empty() {
            options.figure(Figure::EmptyNs, u64::from(empty.bits().cast_unsigned()));
        }
        if let Some(path) = config_file(plan) {
            options.text(Text::ConfigFile, path);
        }
        Ok(options)
    }
}

/// CRIU's own options for this container, or for all (as with other runtimes).
fn config_file(plan: &Plan) -> Option<PathBuf> {
    let asked = plan.annotations.get(CRIU_CONFIG).map(PathBuf::from);
    asked.or_else(|| {
        let usual = ["/etc/criu/tare.conf", "/etc/criu/runc.conf"].map(PathBuf::from);
        usual.into_iter().find(|path| path.is_file())
    })
}

/// Refuses a caller whom CRIU can't serve.
fn check_caller() -> Result<()> {
    match caller().is_host_root() {
        true => Ok(()),
        false => Err(Error::unsupported("criu needs the machine's root")),
    }
}

/// Refuses what CRIU can't save and bring back, or what it would bring back as
/// something else.
fn check(plan: &Plan) -> Result<()> {
    if !plan.namespaces.makes(CloneFlags::CLONE_NEWNS) {
        return Err(Error::unsupported(
            "linux.namespaces: without a mount namespace of its own a container can't be restored",
        ));
    }
    let can = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if let Some(join) = plan.namespaces.join.iter().find(|join| !can.contains(join.kind)) {
        return Err(Error::unsupported(format!(
            "linux.namespaces: criu can't restore into a {} namespace that is there",
            namespace_name(join.kind)
        )));
    }
    if plan.seccomp.as_ref().is_some_and(|seccomp| seccomp.listener.is_some()) {
        return Err(Error::unsupported(
            "linux.seccomp.listenerPath: criu can't save a filter whose calls somebody answers",
        ));
    }
    Ok(())
}
