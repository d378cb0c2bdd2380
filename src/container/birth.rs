//! Init, from its birth to the moment when all but its program's start is done.

use std::os::fd::OwnedFd;

use nix::unistd::Uid;
use oci_spec::runtime::Spec;

use super::create::{Meanwhile, Undo};
use super::exec::Kept;
use super::place::Place;
use super::rdt;
use super::record::{InitProcess, Record};
use super::start::hook_state;
use crate::cgroup::Cgroup;
use crate::error::{ErrorKind, Result, Step};
use crate::sandbox::idmap::IdMaps;
use crate::sandbox::netdevices::{self, Moved};
use crate::sandbox::{Interrupts, Options, SpawnArgs, Spawned, hooks, kills_newborns, spawn};
use crate::spec::Plan;
use crate::sys::caller::caller;
use crate::sys::fs::Replacement;
use crate::trace;

/// What init is made from, and goes into.
#[derive(Debug)]
pub(super) struct Birth<'a> {
    pub(super) spec: &'a Spec,
    pub(super) options: Options,
    /// When it is ready, nobody has anything to do before it runs its program.
    pub(super) goes_on: bool,
    /// A detached mount in place of the rootfs directory.
    pub(super) rootfs: Option<OwnedFd>,
    /// The socket on which it waits for a later `start`.
    pub(super) listener: Option<OwnedFd>,
    pub(super) plan: &'a Plan,
    pub(super) id_maps: Option<&'a IdMaps>,
    pub(super) place: &'a Place,
    /// The container's cgroup, if that is there before init.
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) group: Option<&'a rdt::Group>,
    pub(super) meanwhile: Option<Meanwhile<'a>>,
}

/// Makes init and serves it until it is ready. The answer is the record that has it,
/// written and not in its place yet.
///
/// Who is born into another cgroup than his maker's is killed by the kernel (6.14, and
/// stable releases of that time) if cgroup.kill was used a different number of times
/// on the two: then he is born beside his maker and moved, which takes milliseconds.
///
/// # Errors
/// The step that failed, in init or here; what is to be undone stands in `undo`.
pub(super) fn bring_up(
    birth: &Birth<'_>,
    record: &mut Record,
    (undo, interrupts): (&mut Undo<'_>, Option<&Interrupts>),
) -> Result<Replacement> {
    let fits = |cgroup: &Cgroup| {
        cgroup.out_of_memory().is_none()
            && !cgroup.frozen().unwrap_or(true)
            && kills_newborns(cgroup.dir())
    };
    match birth.attempt(record, (undo, interrupts), false) {
        Err(e) if e.kind() == ErrorKind::Unborn && birth.cgroup.is_some_and(fits) => {
            crate::logging::debug(|| format!("init is moved into its cgroup: {e}"));
            undo.devices.take().map_or(Ok(()), Moved::move_back)?;
            birth.attempt(record, (undo, interrupts), true)
        }
        other => other,
    }
}

impl Birth<'_> {
    fn attempt(
        &self,
        record: &mut Record,
        (undo, interrupts): (&mut Undo<'_>, Option<&Interrupts>),
        moves: bool,
    ) -> Result<Replacement> {
        let (plan, id_maps) = (self.plan, self.id_maps);
        let spawned = undo.spawned.insert(self.spawn(moves)?);
        let pid = spawned.pid();
        undo.poststop = Some((record.clone(), pid));
        // while init is busy
        let groups = self.group.map(rdt::Group::entered).unwrap_or_default();
        trace::step("save what exec needs", || {
            Kept::new(self.spec, plan, self.options, groups).save(undo.entry.dir())
        })?;
        if let (Some(cgroup), true) = (self.cgroup, moves) {
            cgroup.add(pid).map_err(|e| spawned.reason(plan, id_maps, e))?;
        }
        let scope = self.place.enclose(plan, pid, &mut record.cgroup, &mut undo.cgroup);
        let scope = scope.map_err(|e| spawned.reason(plan, id_maps, e))?;
        self.group.map_or(Ok(()), |group| group.enter(pid))?;
        let complete = trace::step("write the record", || {
            let (init, ignored) = InitProcess::with_ignored(pid)?;
            spawned.note_ignored(ignored);
            record.init = Some(init);
            record.prepare(undo.entry.dir())
        })?;
        undo.devices =
            netdevices::move_in(plan, pid).map_err(|e| spawned.reason(plan, id_maps, e))?;
        if let Some(cgroup) = scope.as_ref().or(self.cgroup) {
            give(plan, cgroup)?;
            // an attempt before this one may have done it
            if !undo.has_device_program {
                undo.has_device_program = attach_devices(plan, cgroup)?;
            }
        }
        spawned.set_score(&plan.process)?;
        if self.goes_on {
            spawned.proceed_early()?;
        }
        if let Some(Meanwhile(work)) = self.meanwhile {
            trace::step("finish the bundle", work)?;
        }
        trace::step("serve init", || serve(spawned, plan, (id_maps, record), interrupts))?;
        Ok(complete)
    }

    fn spawn(&self, moves: bool) -> Result<Spawned> {
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        let step = || "copy a descriptor for init";
        spawn(SpawnArgs {
            plan: self.plan,
            options: self.options,
            cgroup: self.cgroup.filter(|_| !moves).map(Cgroup::dir),
            cgroup_path: self.place.seen(self.cgroup),
            awaits_cgroup: moves || self.place.awaits_init(),
            id_maps: self.id_maps,
            rootfs: copy(&self.rootfs).step(step)?,
            listener: copy(&self.listener).step(step)?,
        })
    }
}

/// Gives the cgroup to the user of a container that can write to it.
fn give(plan: &Plan, cgroup: &Cgroup) -> Result<()> {
    // an ordinary user's containers are his own
    let owner = plan.cgroup_owner().filter(|uid| *uid != 0 && caller().is_host_root());
    owner.map_or(Ok(()), |uid| cgroup.give_to(Uid::from_raw(uid)))
}

/// While init is busy with its mounts: no code of the user's or of a hook runs before
/// [`serve`].
fn attach_devices(plan: &Plan, cgroup: &Cgroup) -> Result<bool> {
    // only root may; others get no device but those that are bound, and have the
    // rights on them that they have anyway
    let program = plan.device_program.as_ref().filter(|_| caller().is_host_root());
    let Some(program) = program else { return Ok(false) };
    trace::step("attach the device program", || cgroup.attach_devices(program))?;
    Ok(true)
}

/// Serves init, and runs the hooks that are due meanwhile.
fn serve(
    spawned: &mut Spawned,
    plan: &Plan,
    (id_maps, record): (Option<&IdMaps>, &Record),
    interrupts: Option<&Interrupts>,
) -> Result<()> {
    if !plan.hooks.in_create() {
        return spawned.serve(plan, id_maps, interrupts, |_, _| Ok(()));
    }
    let own;
    let interrupts = match interrupts {
        Some(interrupts) => interrupts,
        None => {
            own = Interrupts::watch()?;
            &own
        }
    };
    spawned.serve(plan, id_maps, Some(interrupts), |pid, init| {
        let state = || hook_state(record, "creating", pid.as_raw());
        hooks::run_outside(&plan.hooks.prestart, state(), interrupts, Some(init))?;
        hooks::run_outside(&plan.hooks.create_runtime, state(), interrupts, Some(init))
    })
}
