//! `checkpoint`: from processes to files.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::criu::{Criu, Feature, Figure, Kind, Options, Setting, Switch, Text};
use super::workshop::Workshop;
use super::{CriuWords, Places, check, check_caller, mounts, namespaces, stdio};
use crate::container::delete::destroy;
use crate::container::pause::{loaded, not_running};
use crate::container::record::{InitProcess, Record};
use crate::container::state::Status;
use crate::container::store::Entry;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::Interrupts;
use crate::spec::{self, Plan, ResolveArgs};

/// Name of CRIU's log.
const LOG: &str = "dump.log";

/// What a checkpoint is made with.
#[derive(Debug, Default)]
pub struct CheckpointArgs {
    /// What `restore` takes as well.
    pub words: CriuWords,
    /// Images of an earlier pre-dump, relative to these.
    pub parent_path: Option<PathBuf>,
    /// The container goes on.
    pub leave_running: bool,
    /// Only memory is saved, and the container goes on.
    pub pre_dump: bool,
    /// TCP connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Who takes the pages of memory: ADDRESS:PORT.
    pub page_server: Option<String>,
    /// A pipe, told when pages can be asked for.
    pub status_fd: Option<OwnedFd>,
}

/// Saves a container's processes. Unless it is to go on, it is deleted then.
///
/// # Errors
/// It is not running; there is no CRIU; CRIU can't save something: the container goes
/// on as it was.
pub fn checkpoint(entry: Entry, args: &CheckpointArgs) -> Result<()> {
    check_caller()?;
    let lock = entry.lock()?;
    let record = loaded(&entry)?;
    let init = match (Status::of(&entry, &record)?, record.init) {
        (Status::Running | Status::Paused, Some(init)) => init,
        (Status::Created, _) => {
            let text = "it is created: its program has not been started yet";
            return Err(Error::new(ErrorKind::State, text));
        }
        _ => return Err(not_running()),
    };
    let plan = plan_of(&record)?;
    check(&plan)?;
    args.page_server.as_deref().map(server).transpose()?;
    check_laziness(args)?;
    args.words.empty_kinds()?;
    if let Some(parent) = args.parent_path.as_ref().filter(|parent| parent.is_absolute()) {
        return Err(Error::invalid("has to be relative to --image-path")
            .step(format!("--parent-path {}", parent.display())));
    }
    Criu::check_version()?;
    check_features(args)?;
    // half a dump leaves processes that stand still, and of a whole one the caller has to
    // know: a signal has to wait
    let interrupts = Interrupts::watch()?;
    let saved = save(&record, &plan, init, args, entry.path());
    let done = match saved {
        Ok(()) if args.leave_running || args.pre_dump => Ok(()),
        Ok(()) => destroy(&entry, lock, Some(record))
            .map_err(|e| e.step("delete the container, which is saved")),
        Err(e) => Err(e),
    };
    interrupts.keep();
    done
}

/// The dump, in its directory.
fn save(
    record: &Record,
    plan: &Plan,
    init: InitProcess,
    args: &CheckpointArgs,
    state: &Path,
) -> Result<()> {
    let made = make_directory(&args.words.image_path)?;
    let dumped = check_parent(args).and_then(|()| {
        let workshop = Workshop::new(state)?;
        let dumped = dump(record, plan, init, args, &workshop);
        dumped.and(workshop.remove())
    });
    if dumped.is_err() && made {
        // kept if there is a log in it
        std::fs::remove_dir(&args.words.image_path).unwrap_or_default();
    }
    dumped
}

/// The configuration is read again: `create` need not keep it for the few that are
/// saved.
fn plan_of(record: &Record) -> Result<Plan> {
    if !record.scratch.is_empty() {
        return Err(Error::unsupported(
            "it was made by run --image, and nothing of it stays that \
                                       a restore could begin with",
        )
        .hint("tare unpack makes a bundle of an image"));
    }
    let spec = spec::load(&record.bundle)?;
    Plan::resolve(&spec, ResolveArgs { id: &record.id, bundle: &record.bundle })
}

/// CRIU takes the parent's path from the images' directory on.
fn check_parent(args: &CheckpointArgs) -> Result<()> {
    match &args.parent_path {
        Some(parent) if !args.words.image_path.join(parent).is_dir() => {
            Err(Error::invalid("there is no such directory, seen from --image-path")
                .step(format!("--parent-path {}", parent.display())))
        }
        _ => Ok(()),
    }
}

/// Whoever asks for memory has to know where, and only such a one waits for a word.
fn check_laziness(args: &CheckpointArgs) -> Result<()> {
    match (args.words.lazy_pages, &args.page_server, &args.status_fd) {
        (true, None, _) => Err(Error::invalid(
            "--lazy-pages goes with --page-server, which says where memory is asked for",
        )),
        (false, _, Some(_)) => Err(Error::invalid(
            "--status-fd goes with --lazy-pages: else there is nothing to be ready for",
        )),
        (true, _, _) if args.pre_dump => {
            Err(Error::invalid("--lazy-pages: a pre-dump leaves nothing to be asked for"))
        }
        _ => Ok(()),
    }
}

fn check_features(args: &CheckpointArgs) -> Result<()> {
    if (args.pre_dump || args.parent_path.is_some()) && !Criu::has(Feature::MemTrack)? {
        return Err(Error::unsupported(
            "--pre-dump: this kernel can't say what memory has changed (CONFIG_MEM_SOFT_DIRTY)",
        ));
    }
    if args.words.lazy_pages && !Criu::has(Feature::LazyPages)? {
        return Err(Error::unsupported(
            "--lazy-pages: this kernel or this criu can't do that (CONFIG_USERFAULTFD)",
        ));
    }
    Ok(())
}

/// True if it was not there.
fn make_directory(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    // the images are root's alone; but root of a container's user namespace has to look
    // for some that are not there
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map(|()| true).step(|| format!("--image-path {}", path.display()))
}

fn server(text: &str) -> Result<(&str, u16)> {
    let wrong = || Error::invalid(format!("--page-server {text:?}: give ADDRESS:PORT"));
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_number| wrong())?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() { Err(wrong()) } else { Ok((address, port)) }
}

fn dump(
    record: &Record,
    plan: &Plan,
    init: InitProcess,
    args: &CheckpointArgs,
    workshop: &Workshop,
) -> Result<()> {
    let view = workshop.view(&plan.rootfs.path)?;
    let places = Places::open(&args.words, LOG, &view)?;
    let mut options = args.words.options(&places, workshop, plan)?;
    choices(&mut options, args)?;
    options.figure(Figure::Pid, u64::from(init.pid.cast_unsigned()));
    options.text(Text::Root, &plan.rootfs.path);
    if !record.cgroup.path.as_os_str().is_empty() {
        options.text(Text::FreezeCgroup, &record.cgroup.path);
    }
    let table = mounts::Table::of(init.pid())?;
    if !args.pre_dump {
        for place in table.external(plan)? {
            options.external_mount(&place, &place);
        }
        for external in stdio::save(init.pid(), &table, &args.words)? {
            options.text(Text::External, external);
        }
    }
    for external in namespaces::external(plan, init.pid())? {
        options.text(Text::External, external);
    }
    let mut criu = Criu::start(Setting { view: Some(view.as_fd()), ..Setting::default() })?;
    let kind = if args.pre_dump { Kind::PreDump } else { Kind::Dump };
    let dumped = criu.call(kind, &options, &places.log, |_notice| Ok(()), None);
    match dumped {
        Ok(_) => criu.finish(),
        Err(e) => Err(e.undone(criu.finish())),
    }
}

fn choices(options: &mut Options, args: &CheckpointArgs) -> Result<()> {
    options.switch(Switch::LeaveRunning, args.leave_running);
    options.switch(Switch::TcpSkipInFlight, args.tcp_skip_in_flight);
    options.switch(Switch::TrackMem, args.pre_dump || args.parent_path.is_some());
    if let Some(parent) = &args.parent_path {
        options.text(Text::ParentImg, parent);
    }
    if let Some(text) = &args.page_server {
        let (address, port) = server(text)?;
        options.page_server(address, port);
    }
    if let Some(fd) = &args.status_fd {
        options.figure(Figure::StatusFd, u64::from(fd.as_raw_fd().cast_unsigned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        assert_eq!(server("10.0.0.1:27").unwrap(), ("10.0.0.1", 27));
        assert_eq!(server("[::1]:27").unwrap(), ("::1", 27));
        for wrong in ["10.0.0.1", ":27", "a:b", "a:70000"] {
            assert!(server(wrong).unwrap_err().to_string().contains("ADDRESS:PORT"), "{wrong}");
        }
    }
}
