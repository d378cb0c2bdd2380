//! `update`: other limits for a container that is there.

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::pause::{loaded, not_running};
use super::processes::processes;
use super::record::Record;
use super::schemata::SchemataChange;
use super::state::Status;
use super::store::Entry;
use crate::cgroup::devices::{self, LoadedDevices};
use crate::cgroup::limits::{self, LimitsPlan};
use crate::cgroup::{Cgroup, Updated};
use crate::error::{Error, Result};
use crate::sys::caller::caller;

/// What is to change.
#[derive(Debug, Clone, Default)]
pub struct UpdateArgs {
    /// Limits and device rules: what is left out stays as it is.
    pub resources: LinuxResources,
    /// Lines for `schemata` of the container's group of resctrl.
    pub schemata: Vec<String>,
}

/// Changes the limits of a container: all that is asked for, or nothing.
///
/// Device rules are touched only if the resources have some, and others than
/// those in effect: who updates a container often hands back what it was created
/// with, and something else may have been attached to the cgroup meanwhile.
///
/// # Errors
/// The container is not running; a field that makes no sense or is not to be had;
/// a value that the kernel refuses. What was changed before is put back.
pub fn update(entry: &Entry, args: &UpdateArgs) -> Result<()> {
    let _lock = entry.lock()?;
    let mut record = loaded(entry)?;
    if let Status::Creating | Status::Stopped = Status::of(entry, &record)? {
        return Err(not_running());
    }
    let change = limits::change(&record.resources, &args.resources)?;
    let devices = new_devices(&record, &args.resources)?;
    let schemata = match args.schemata.is_empty() {
        true => None,
        false => Some(SchemataChange::of(&record, &args.schemata)?),
    };
    change.plan.warnings.iter().for_each(|text| crate::logging::warn(text));
    let before = std::mem::replace(&mut record.resources, change.resources);
    if change.plan.settings.is_empty() && devices.is_none() && schemata.is_none() {
        return entry.save(&record);
    }
    let cgroup = record.own_cgroup().map_err(|e| first_field(e, &change.plan))?;
    let kills = kills(&cgroup, &change.plan);
    let done = Done::of(&cgroup, &change.plan, devices.as_ref(), &before)?;
    tell_of_kills(&cgroup, kills);
    let saved = match schemata {
        Some(schemata) => change_schemata(entry, &mut record, schemata),
        None => entry.save(&record),
    };
    saved.map_err(|e| done.undo(e))
}

/// How many processes were killed for want of memory before a new limit of it.
fn kills(cgroup: &Cgroup, plan: &LimitsPlan) -> Option<u64> {
    let has_new_limit = plan.settings.iter().any(|setting| setting.file == "memory.max");
    has_new_limit.then(|| cgroup.out_of_memory().map_or(0, |oom| oom.kills))
}

/// The kernel kills whoever does not fit into a new limit, and calls it success.
fn tell_of_kills(cgroup: &Cgroup, before: Option<u64>) {
    let now = before.and_then(|before| cgroup.out_of_memory().filter(|oom| oom.kills > before));
    if let Some(oom) = now {
        crate::logging::warn(&format!("linux.resources.memory.limit: {oom}"));
    }
}

/// The device rules to put into effect, if they are others than those that are.
fn new_devices(record: &Record, asked: &LinuxResources) -> Result<Option<NewDevices>> {
    let Some(rules) = asked.devices().as_ref().filter(|rules| !rules.is_empty()) else {
        return Ok(None);
    };
    let is_same = record.resources.devices().as_ref().is_some_and(|now| now == rules);
    // an ordinary user's containers have none: see `create`
    if is_same || !caller().is_host_root() {
        return Ok(None);
    }
    NewDevices::load(rules).map(Some)
}

/// A program for other rules; none allows everything.
struct NewDevices(Option<LoadedDevices>);

impl NewDevices {
    fn load(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let program = devices::plan(rules)?;
        program.map(|program| program.load()).transpose().map(NewDevices)
    }

    fn take_effect(&self, cgroup: &Cgroup) -> Result<()> {
        cgroup.replace_devices(self.0.as_ref()).map_err(|e| e.step("linux.resources.devices"))
    }
}

/// A limit that is asked for is what the error is about.
fn first_field(e: Error, plan: &LimitsPlan) -> Error {
    match plan.settings.first() {
        Some(setting) => e.step(&setting.field),
        None => e,
    }
}

/// What is in effect and not in the record yet.
struct Done<'a> {
    cgroup: &'a Cgroup,
    limits: Updated<'a>,
    has_new_devices: bool,
    before: &'a LinuxResources,
}

impl<'a> Done<'a> {
    /// Puts limits and devices into effect, or neither.
    fn of(
        cgroup: &'a Cgroup,
        plan: &LimitsPlan,
        devices: Option<&NewDevices>,
        before: &'a LinuxResources,
    ) -> Result<Self> {
        let limits = cgroup.update(&plan.settings)?;
        let mut done = Done { cgroup, limits, has_new_devices: false, before };
        if let Some(devices) = devices {
            if let Err(e) = devices.take_effect(cgroup) {
                return Err(done.undo(e));
            }
            done.has_new_devices = true;
        }
        Ok(done)
    }

    /// Takes it back; the error, with what could not be.
    fn undo(self, e: Error) -> Error {
        let devices = match self.has_new_devices {
            true => NewDevices::load(self.before.devices().as_deref().unwrap_or_default())
                .and_then(|devices| devices.take_effect(self.cgroup)),
            false => Ok(()),
        };
        e.undone(self.limits.put_back().and(devices))
    }
}

/// Changes the group of resctrl, and saves the record.
fn change_schemata(entry: &Entry, record: &mut Record, change: SchemataChange) -> Result<()> {
    let pids: Vec<Pid> = processes(entry)?.into_iter().map(Pid::from_raw).collect();
    let undo = change.apply(record, entry.id(), &pids)?;
    entry.save(record).map_err(|e| e.undone(undo.put_back()))
}
