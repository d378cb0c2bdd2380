//! systemd's manager, as its D-Bus interface has it
//! (org.freedesktop.systemd1(5)): units made, stopped and changed, and the jobs
//! that these are waited for.

use std::time::{Duration, Instant};

use super::address;
use super::bus::{Answer, Connection, Refusal};
use super::encode::{Call, Encoder};
use super::value::Property;
use crate::error::{Error, ErrorKind, Result};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// A unit of this name is there already.
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// No unit has been started under this number, or it is gone.
const NO_SUCH_INVOCATION: &str = "org.freedesktop.systemd1.NoUnitForInvocationID";
/// None is.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// A connection to the manager of the machine or of a user.
#[derive(Debug)]
pub(super) struct Manager {
    bus: Connection,
    address: String,
}

/// Something that systemd has accepted to do, by the object path of its job.
#[derive(Debug)]
pub(super) struct Job(String);

impl Manager {
    /// Connects to the manager of the machine, or to that of this user.
    /// `patience` is how long one answer may take, and one job.
    ///
    /// # Errors
    /// There is no such bus, or it does not let us in.
    pub(super) fn connect(user: bool, patience: Duration) -> Result<Self> {
        let address = if user { address::user()? } else { address::system() };
        Self::at(&address, patience)
    }

    /// The same by the address of its bus.
    pub(super) fn at(address: &str, patience: Duration) -> Result<Self> {
        let bus = Connection::open(address, patience)?;
        Ok(Manager { bus, address: address.to_owned() })
    }

    /// The address of the bus.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A property of the manager that is a string: `Version`, `ControlGroup`.
    ///
    /// # Errors
    /// It does not answer: systemd is not on this bus.
    pub(super) fn property(&mut self, name: &str) -> Result<String> {
        let step = |e: Error| e.step(format!("ask systemd for its {name}"));
        let answer = self.property_of(PATH, MANAGER, name)?.map_err(|e| step(e.error()))?;
        let text = answer.body().variant_string();
        text.map_err(|why| step(Error::new(ErrorKind::System, why)))
    }

    fn property_of(&mut self, path: &str, interface: &str, name: &str) -> Result<Answer> {
        let mut body = Encoder::default();
        body.str(interface);
        body.str(name);
        let body = body.finish();
        let properties = "org.freedesktop.DBus.Properties";
        let call = manager_call("Get", "ss", &body);
        self.bus.call(&Call { path, interface: properties, ..call })
    }

    /// The number of this start of a unit, which no other start of it has.
    ///
    /// # Errors
    /// systemd does not tell.
    pub(super) fn invocation(&mut self, unit: &str) -> Result<Vec<u8>> {
        let step = |e: Error| e.step(format!("ask systemd for the InvocationID of {unit}"));
        let path = unit_path(unit);
        let answer = self.property_of(&path, UNIT, "InvocationID")?;
        let answer = answer.map_err(|refusal| step(refusal.error()))?;
        let bytes = answer.body().variant_bytes();
        bytes.map_err(|why| step(Error::new(ErrorKind::System, why)))
    }

    /// Whether a unit is still there that was started under this number.
    ///
    /// # Errors
    /// systemd's own words.
    pub(super) fn has_invocation(&mut self, number: &[u8]) -> Result<bool> {
        let mut body = Encoder::default();
        body.bytes(number);
        match self.bus.call(&manager_call("GetUnitByInvocationID", "ay", &body.finish()))? {
            Ok(_path) => Ok(true),
            Err(refusal) if refusal.name == NO_SUCH_INVOCATION => Ok(false),
            Err(refusal) => Err(refusal.error()),
        }
    }

    /// Makes a transient unit and starts it; `optional` are properties that an
    /// older systemd need not know.
    ///
    /// A unit of the same name that has failed is in nobody's use, and goes.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] for a unit that is in use. Else what `explain` makes
    /// of systemd's words.
    pub(super) fn start_transient(
        &mut self,
        unit: &str,
        properties: &[Property],
        mut optional: Vec<Property>,
        explain: impl Fn(Refusal) -> Error,
    ) -> Result<Job> {
        self.watch_jobs(unit)?;
        let mut is_reset = false;
        loop {
            let mut body = Encoder::default();
            body.str(unit);
            body.str("replace");
            put_properties(&mut body, properties.iter().chain(&optional));
            // no auxiliary units
            body.array(8, |_| {});
            let body = body.finish();
            let call = manager_call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
            match self.bus.call(&call)? {
                Ok(answer) => return job(&answer),
                Err(refusal) if refusal.name == UNIT_EXISTS => {
                    if is_reset {
                        let text = format!("the unit {unit} is there already, and in use");
                        return Err(Error::new(ErrorKind::Exists, text));
                    }
                    is_reset = true;
                    self.reset_failed(unit)?;
                }
                Err(refusal) if drop_named(&mut optional, &refusal) => {}
                Err(refusal) => return Err(explain(refusal)),
            }
        }
    }

    /// Changes properties of a unit that runs, until it ends.
    ///
    /// # Errors
    /// systemd's own words.
    pub(super) fn set_properties(&mut self, unit: &str, mut all: Vec<Property>) -> Result<()> {
        while !all.is_empty() {
            let mut body = Encoder::default();
            body.str(unit);
            // for as long as the unit is there, and not for its next namesake
            body.bool(true);
            put_properties(&mut body, all.iter());
            let body = body.finish();
            match self.bus.call(&manager_call("SetUnitProperties", "sba(sv)", &body))? {
                Ok(_done) => return Ok(()),
                Err(refusal) if drop_named(&mut all, &refusal) => {}
                Err(refusal) => return Err(refusal.error().step(format!("the unit {unit}"))),
            }
        }
        Ok(())
    }

    /// Stops a unit, and sees to it that none is left; none there is no error.
    ///
    /// # Errors
    /// systemd's own words; the end of the patience with it.
    pub(super) fn stop(&mut self, unit: &str) -> Result<()> {
        self.watch_jobs(unit)?;
        let mut body = Encoder::default();
        body.str(unit);
        body.str("replace");
        match self.bus.call(&manager_call("StopUnit", "ss", &body.finish()))? {
            Ok(answer) => {
                let job = job(&answer)?;
                self.await_job(&job)?;
            }
            Err(refusal) if refusal.name == NO_SUCH_UNIT => return Ok(()),
            Err(refusal) => return Err(refusal.error()),
        }
        self.reset_failed(unit)
    }

    /// Moves a process of this user into the cgroup of a unit that is delegated to
    /// him, or into `sub` below it (`/inner`).
    ///
    /// # Errors
    /// systemd's own words.
    pub(super) fn attach(&mut self, unit: &str, sub: &str, pid: u32) -> Result<()> {
        let mut body = Encoder::default();
        body.str(unit);
        body.str(sub);
        body.array(4, |out| out.u32(pid));
        let call = self.bus.call(&manager_call("AttachProcessesToUnit", "ssau", &body.finish()))?;
        call.map(drop).map_err(Refusal::error)
    }

    /// Waits for the end of a job.
    ///
    /// # Errors
    /// It came to another end than to be done; no end within the patience.
    pub(super) fn await_job(&mut self, job: &Job) -> Result<()> {
        let deadline = Instant::now() + self.bus.patience();
        let malformed = |why| Error::new(ErrorKind::System, why).step("a signal of systemd");
        loop {
            let signal = self.bus.await_signal(deadline)?;
            if signal.member != "JobRemoved" {
                continue;
            }
            let mut body = signal.body();
            body.u32().map_err(malformed)?;
            let path = body.string().map_err(malformed)?;
            body.string().map_err(malformed)?;
            let result = body.string().map_err(malformed)?;
            if path != job.0 {
                continue;
            }
            return match result.as_str() {
                "done" => Ok(()),
                other => Err(Error::new(
                    ErrorKind::System,
                    format!("systemd's job ended as \"{other}\""),
                )
                .hint("systemd's journal tells why")),
            };
        }
    }

    fn watch_jobs(&mut self, unit: &str) -> Result<()> {
        self.bus.watch(&format!(
            "type='signal',sender='{SYSTEMD}',path='{PATH}',interface='{MANAGER}',\
             member='JobRemoved',arg2='{unit}'"
        ))
    }

    /// Forgets that a unit has failed, which is all that keeps it.
    fn reset_failed(&mut self, unit: &str) -> Result<()> {
        let mut body = Encoder::default();
        body.str(unit);
        match self.bus.call(&manager_call("ResetFailedUnit", "s", &body.finish()))? {
            Err(refusal) if refusal.name != NO_SUCH_UNIT => Err(refusal.error()),
            _ => Ok(()),
        }
    }
}

/// The object of a unit: what is no letter or digit of its name stands as `_2e`.
fn unit_path(unit: &str) -> String {
    let mut path = format!("{PATH}/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        match byte.is_ascii_alphabetic() || at > 0 && byte.is_ascii_digit() {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

fn manager_call<'a>(member: &'a str, signature: &'a str, body: &'a [u8]) -> Call<'a> {
    Call { destination: SYSTEMD, path: PATH, interface: MANAGER, member, signature, body }
}

fn put_properties<'a>(out: &mut Encoder, all: impl Iterator<Item = &'a Property>) {
    out.array(8, |out| {
        for property in all {
            out.structure(|out| {
                out.str(&property.name);
                out.variant(&property.value);
            });
        }
    });
}

fn job(answer: &super::wire::Message) -> Result<Job> {
    let path = answer.body().string();
    path.map(Job).map_err(|why| Error::new(ErrorKind::System, why))
}

/// Drops the property that systemd has refused by its name: an older one does
/// not know all, and the files of the cgroup are written anyway.
fn drop_named(optional: &mut Vec<Property>, refusal: &Refusal) -> bool {
    let Some(at) = optional.iter().position(|property| refusal.speaks_of(&property.name)) else {
        return false;
    };
    let property = optional.remove(at);
    crate::logging::debug(|| format!("systemd: without {}: {}", property.name, refusal.text));
    true
}

#[cfg(test)]
mod tests {
    use super::unit_path;

    #[test]
    fn units_have_their_objects() {
        for (unit, name) in [
            ("tare-box1.scope", "tare_2dbox1_2escope"),
            ("1.scope", "_31_2escope"),
            ("a\\x2db_é.scope", "a_5cx2db_5f_c3_a9_2escope"),
        ] {
            let path = unit_path(unit);
            assert_eq!(path, format!("/org/freedesktop/systemd1/unit/{name}"));
        }
    }
}
