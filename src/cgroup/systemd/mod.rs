//! The container's cgroup by systemd: a transient scope, for `--systemd-cgroup`.
//!
//! systemd makes scopes for processes that are there already, so the order is
//! another than with a cgroup of tare's own:
//! 1. [`ScopePlan::resolve`]: names, and properties from annotations. Pure;
//! 2. [`Placement::find`]: a connection to systemd, and where the cgroup will be.
//!    Whatever makes a machine unfit for the driver ends here, before anything
//!    was made;
//! 3. init is cloned, and waits;
//! 4. [`Placement::request`], then [`Placement::settle`]: the scope with init in
//!    it, with the limits as its properties. What systemd has no property for, or
//!    keeps in whole percents, is written to the files as with any cgroup: the
//!    scope is delegated (`Delegate=yes`), so they are tare's to write.
//!
//! The device program is not systemd's: it is attached as to any cgroup, beside
//! what systemd attaches for slices above.
//!
//! D-Bus is spoken here, by what little of it that takes: the libraries for it
//! bring an executor and threads, and the runtime must have one thread.

mod address;
mod bus;
mod encode;
mod manager;
mod name;
mod properties;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::bus::Refusal;
use self::manager::{Job, Manager};
use self::name::Names;
use self::properties::Annotated;
use self::value::{Property, Value};
use super::limits::Setting;
use super::{Cgroup, CgroupRecord, Hierarchy, tree};
use crate::error::{Error, ErrorKind, Result, Step};

/// How long systemd may take for one answer, and for one job. It is asked for
/// little, and a bus that hangs must not hang a container.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cgroup below the scope, in which the container is then (as with crun).
const SUBGROUP: &str = "run.oci.systemd.subgroup";

/// What a later command needs to find a container's unit again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Its name: `tare-box1.scope`.
    pub unit: String,
    /// The address of the bus on which its manager is: the environment of a later
    /// command may not tell.
    pub bus: String,
    /// The number of its start (InvocationID), which no later unit of that name has;
    /// empty where systemd has not told it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invocation: Vec<u8>,
}

/// What a scope is made from.
#[derive(Debug, Clone, Copy)]
pub struct ScopeArgs<'a> {
    /// The container's id.
    pub id: &'a str,
    /// linux.cgroupsPath.
    pub cgroups_path: Option<&'a Path>,
    /// The config's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// By the user's own manager, not by the machine's.
    pub user: bool,
}

/// A scope, decided.
#[derive(Debug, Clone)]
pub struct ScopePlan {
    names: Names,
    annotated: Vec<Annotated>,
    subgroup: Option<String>,
    user: bool,
    description: String,
}

impl ScopePlan {
    /// Decides and checks everything that needs no systemd.
    ///
    /// # Errors
    /// A linux.cgroupsPath of another form than `slice:prefix:name`, an annotation
    /// that can't be a property.
    pub fn resolve(args: ScopeArgs<'_>) -> Result<Self> {
        let subgroup = args.annotations.get(SUBGROUP).filter(|name| !name.is_empty());
        if let Some(name) = subgroup
            && (name.contains('/') || [".", ".."].contains(&name.as_str()))
        {
            return Err(Error::invalid(format!(
                "annotations[{SUBGROUP:?}]: {name:?} is not the name of a cgroup"
            )));
        }
        Ok(ScopePlan {
            names: name::parse(args.cgroups_path, args.id, args.user)?,
            annotated: properties::annotated(args.annotations)?,
            subgroup: subgroup.cloned(),
            user: args.user,
            description: format!("container {}", args.id),
        })
    }

    /// What the unit has whatever its limits are.
    fn properties(&self, pid: Pid) -> Vec<Property> {
        let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
        let ours = [
            ("Description", Value::str(&self.description)),
            ("Slice", Value::str(&self.names.slice)),
            ("Delegate", Value::Bool(true)),
            // else a shutdown would stop it before the engine that it belongs to
            ("DefaultDependencies", Value::Bool(false)),
            ("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid)])),
        ];
        let asked: Vec<Property> = self.annotated.iter().map(|a| a.property.clone()).collect();
        let ours = ours.map(|(name, value)| Property::new(name, value));
        ours.into_iter().filter(|own| !has(&asked, own)).chain(asked.clone()).collect()
    }

    /// What it has unless systemd does not know it.
    fn optional(&self, settings: &[Setting]) -> Vec<Property> {
        // so that `systemctl status` shows figures
        let accounting = ["CPUAccounting", "IOAccounting", "MemoryAccounting", "TasksAccounting"]
            .map(|name| Property::new(name, Value::Bool(true)));
        let all = accounting.into_iter().chain(properties::of_limits(settings));
        all.filter(|own| !self.annotated.iter().any(|a| a.property.name == own.name)).collect()
    }

    /// systemd's refusal, by the name of the annotation that it is about.
    fn explain(&self, refusal: Refusal) -> Error {
        let about = self.annotated.iter().find(|a| refusal.speaks_of(&a.property.name));
        if let Some(annotated) = about {
            return refusal.error().step(format!("annotations[{:?}]", annotated.key));
        }
        let error = refusal.error().step(format!("start the unit {}", self.names.unit));
        let keys: Vec<&str> = self.annotated.iter().map(|a| a.key.as_str()).collect();
        match keys.is_empty() {
            true => error,
            // of a wrong type it does not say which property has it
            false => error.hint(format!("the annotations have a part in it: {}", keys.join(", "))),
        }
    }
}

fn has(all: &[Property], property: &Property) -> bool {
    all.iter().any(|other| other.name == property.name)
}

/// Where a scope will be, and the manager that will make it.
#[derive(Debug)]
pub struct Placement {
    plan: ScopePlan,
    manager: Manager,
    hierarchy: Hierarchy,
    /// The scope's cgroup, relative to the mount point.
    path: PathBuf,
}

/// A scope that systemd has accepted to make.
#[derive(Debug)]
pub struct Requested(Job);

impl Placement {
    /// Connects to systemd, and asks it where its cgroups are.
    ///
    /// # Errors
    /// No systemd, or none that lets us in; no cgroup2.
    pub fn find(plan: ScopePlan) -> Result<Self> {
        let mut manager = Manager::connect(plan.user, PATIENCE).map_err(unfit)?;
        let own = manager.property("ControlGroup").map_err(unfit)?;
        let path = Path::new(own.trim_start_matches('/'));
        let path = path.join(&plan.names.parents).join(&plan.names.unit);
        Ok(Placement { plan, manager, hierarchy: Hierarchy::discover()?, path })
    }

    /// The scope's own directory.
    pub fn scope_path(&self) -> PathBuf {
        self.hierarchy.mount_point().join(&self.path)
    }

    /// What to keep for later commands: the container's cgroup, which may be one
    /// below the scope's.
    pub fn record(&self) -> CgroupRecord {
        let mut path = self.scope_path();
        path.extend(&self.plan.subgroup);
        let unit = self.plan.names.unit.clone();
        let bus = self.manager.address().to_owned();
        let scope = Scope { unit, bus, invocation: Vec::new() };
        CgroupRecord { path, scope: Some(scope), ..CgroupRecord::default() }
    }

    /// Has systemd make the scope, with this process in it.
    ///
    /// # Errors
    /// There is a unit of that name in use ([`ErrorKind::Exists`]); systemd's own
    /// words. There is no unit of this container then.
    pub fn request(&mut self, settings: &[Setting], pid: Pid) -> Result<Requested> {
        let Placement { plan, manager, .. } = self;
        let optional = plan.optional(settings);
        let explain = |refusal| plan.explain(refusal);
        let unit = &plan.names.unit;
        manager.start_transient(unit, &plan.properties(pid), optional, explain).map(Requested)
    }

    /// Waits until the scope is there, and writes the limits.
    ///
    /// # Errors
    /// The process is elsewhere than it should be: somebody else may be in the
    /// scope, who is not to be touched ([`ErrorKind::State`]). systemd's job failed;
    /// a limit that the kernel refuses: the scope is there, or may be.
    pub fn settle(&mut self, job: &Requested, settings: &[Setting], pid: Pid) -> Result<Cgroup> {
        let unit = &self.plan.names.unit;
        self.manager.await_job(&job.0).step(|| format!("start the unit {unit}"))?;
        let found = self.hierarchy.cgroup_of(pid)?;
        if found != self.path {
            return Err(Error::new(
                ErrorKind::State,
                format!(
                    "the unit {unit} is left: init is in the cgroup /{} and not in /{}",
                    found.display(),
                    self.path.display()
                ),
            )
            .hint("are systemd's process ids and cgroups other ones than these here?"));
        }
        let mut record = self.record();
        if let Some(scope) = &mut record.scope {
            scope.invocation = self.manager.invocation(unit)?;
        }
        let mut path = self.path.clone();
        if let Some(name) = &self.plan.subgroup {
            self.make_subgroup(&record, pid)
                .step(|| format!("annotations[{SUBGROUP:?}]: {name}"))?;
            path.push(name);
        }
        let mut cgroup = Cgroup::open(record)?;
        cgroup.identify(false)?;
        tree::enable_controllers(&self.hierarchy, &path, &cgroup, settings)?;
        cgroup.apply(settings)?;
        Ok(cgroup)
    }

    /// A cgroup below the scope, with the process in it and every controller that
    /// the scope has.
    fn make_subgroup(&self, record: &CgroupRecord, pid: Pid) -> Result<()> {
        match mkdirat(AT_FDCWD, &record.path, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(Error::errno(errno).step("mkdir")),
        }
        Cgroup::open(record.clone())?.add(pid)?;
        let scope = CgroupRecord { path: self.scope_path(), ..CgroupRecord::default() };
        let scope = Cgroup::open(scope)?;
        let controllers = tree::read(scope.dir(), "cgroup.controllers")?;
        let words: Vec<String> =
            controllers.split_ascii_whitespace().map(|name| format!("+{name}")).collect();
        if words.is_empty() {
            return Ok(());
        }
        let words = words.join(" ");
        tree::write(scope.dir(), "cgroup.subtree_control", &words)
            .step(|| format!("write \"{words}\" to cgroup.subtree_control"))
    }
}

impl Scope {
    /// Stops the unit, whose processes have ended, and sees to it that none is
    /// left. A unit that is gone is no error, be there a later one of its name or
    /// not, and neither is a manager that is: a user's manager takes its units with
    /// it.
    ///
    /// # Errors
    /// systemd does not, or not in time.
    pub fn stop(&self) -> Result<()> {
        let mut manager = match Manager::at(&self.bus, PATIENCE) {
            Ok(manager) => manager,
            Err(e) => {
                crate::logging::warn(&format!("the unit {} may be left: {e}", self.unit));
                return Ok(());
            }
        };
        let step = || format!("stop the unit {}", self.unit);
        if !self.invocation.is_empty() && !manager.has_invocation(&self.invocation).step(step)? {
            return Ok(());
        }
        manager.stop(&self.unit).step(step)
    }

    /// Has systemd move a process of this user into the scope's cgroup at `path`: for
    /// a caller from outside of what is delegated to him.
    ///
    /// # Errors
    /// No systemd; its own words.
    pub fn attach(&self, path: &Path, pid: Pid) -> Result<()> {
        let step = || format!("have systemd move the process into the unit {}", self.unit);
        let below = path.file_name().filter(|name| *name != self.unit.as_str());
        let sub = below.map(|name| format!("/{}", name.display())).unwrap_or_default();
        let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
        let mut manager = Manager::at(&self.bus, PATIENCE).step(step)?;
        manager.attach(&self.unit, &sub, pid).step(step)
    }

    /// Tells systemd of limits that have changed, so that it keeps to them; the
    /// files are the caller's to write, and after this.
    ///
    /// # Errors
    /// No systemd; its own words.
    pub fn set_properties(&self, settings: &[Setting]) -> Result<()> {
        let all = properties::of_limits(settings);
        if all.is_empty() {
            return Ok(());
        }
        Manager::at(&self.bus, PATIENCE)?.set_properties(&self.unit, all)
    }
}

/// systemd's version, asked over the bus by which containers of this caller would
/// be made; `patience` is how long one answer may take.
///
/// # Errors
/// The driver can't work here, and why.
pub fn version(user: bool, patience: Duration) -> Result<String> {
    Manager::connect(user, patience)?.property("Version")
}

fn unfit(e: Error) -> Error {
    e.of_kind(ErrorKind::Unsupported)
        .step("--systemd-cgroup")
        .hint("it needs a running systemd and D-Bus; without it tare makes cgroups itself")
}
