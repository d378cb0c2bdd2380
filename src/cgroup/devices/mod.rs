//! linux.resources.devices as one eBPF program of the cgroup.
//!
//! A process asks for one or more of read, write and mknod on one device. For
//! each of these, the last rule that speaks of the device and of that access
//! decides; where none does, it is refused. The program goes through the rules
//! from the last to the first, takes off what is allowed from what is wanted,
//! and ends as soon as nothing is left or something is refused.

mod assembler;
mod attach;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use assembler::{Assembler, Cond, Register, Target};
pub use attach::LoadedDevices;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};
use crate::sys::bpf::Insn;

const FIELD: &str = "linux.resources.devices";

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// What the kernel tells block and character devices apart by
/// (BPF_DEVCG_DEV_BLOCK and _CHAR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block = 1,
    Char = 2,
}

/// Which devices: `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Devices {
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
}

/// A rule in the kernel's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    devices: Devices,
    access: u8,
}

/// A program for the device controller, not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProgram {
    insns: Vec<Insn>,
}

impl DeviceProgram {
    /// Its instructions.
    pub fn insns(&self) -> &[Insn] {
        &self.insns
    }
}

/// The program for a config's rules followed by the [`default_rules`]; `None`
/// if everything is allowed.
///
/// # Errors
/// A rule that makes no sense, or more rules than a program can hold.
pub fn plan(rules: &[LinuxDeviceCgroup]) -> Result<Option<DeviceProgram>> {
    let mut parsed = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| Rule::parse(at, rule))
        .collect::<Result<Vec<_>>>()?;
    parsed.extend(default_rules());
    compile(&parsed)
}

/// What every container may use, whatever the config says: mknod of anything
/// (a node that may not be opened does no harm, and images contain them), and
/// the devices that the runtime puts into every /dev. Others have the same list, whose last
/// one people missed when it was not there.
pub fn default_rules() -> impl Iterator<Item = Rule> {
    const DEVICES: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
        (Kind::Char, None, None, MKNOD),
        (Kind::Block, None, None, MKNOD),
        (Kind::Char, Some(1), Some(3), ALL), // null
        (Kind::Char, Some(1), Some(5), ALL), // zero
        (Kind::Char, Some(1), Some(7), ALL), // full
        (Kind::Char, Some(1), Some(8), ALL), // random
        (Kind::Char, Some(1), Some(9), ALL), // urandom
        (Kind::Char, Some(5), Some(0), ALL), // tty
        (Kind::Char, Some(5), Some(2), ALL), // ptmx
        (Kind::Char, Some(136), None, ALL),  // pts/*, the console among them
        // net/tun, which a program has to make, and which is of its network namespace
        (Kind::Char, Some(10), Some(200), ALL),
    ];
    DEVICES.into_iter().map(|(kind, major, minor, access)| Rule {
        allow: true,
        devices: Devices { kind: Some(kind), major, minor },
        access,
    })
}

impl Rule {
    fn parse(at: usize, rule: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(Kind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
            Some(LinuxDeviceType::P) => {
                return Err(Error::invalid(format!("{FIELD}[{at}].type: a fifo is not a device")));
            }
        };
        Ok(Rule {
            allow: rule.allow(),
            devices: Devices {
                kind,
                major: number(at, "major", rule.major())?,
                minor: number(at, "minor", rule.minor())?,
            },
            access: access(at, rule.access().as_deref())?,
        })
    }

    /// True when this rule, evaluated first, leaves nothing for `other` to decide.
    fn shadows(&self, other: &Rule) -> bool {
        fn covers<T: PartialEq>(this: Option<T>, other: Option<T>) -> bool {
            this.is_none() || this == other
        }
        covers(self.devices.kind, other.devices.kind)
            && covers(self.devices.major, other.devices.major)
            && covers(self.devices.minor, other.devices.minor)
            && self.access & other.access == other.access
    }

    fn of_the_other_kind(&self) -> Rule {
        let mut other = *self;
        other.devices.kind = match self.devices.kind {
            None => None,
            Some(Kind::Block) => Some(Kind::Char),
            Some(Kind::Char) => Some(Kind::Block),
        };
        other
    }

    fn is_about_everything(&self) -> bool {
        let Devices { kind, major, minor } = self.devices;
        kind.is_none() && major.is_none() && minor.is_none() && self.access == ALL
    }
}

fn number(at: usize, name: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_range| {
            Error::invalid(format!(
                "{FIELD}[{at}].{name}: {value} is not a device number, nor -1 for any"
            ))
        }),
    }
}

fn access(at: usize, text: Option<&str>) -> Result<u8> {
    let mut bits = 0;
    for letter in text.unwrap_or_default().chars() {
        bits |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => {
                return Err(Error::invalid(format!(
                    "{FIELD}[{at}].access: \"{}\" has letters other than r, w and m",
                    text.unwrap_or_default()
                )));
            }
        };
    }
    // nothing said is everything meant, as with the other fields of a rule
    Ok(if bits == 0 { ALL } else { bits })
}

/// Compiles rules, the last of which wins; `None` if they allow everything.
///
/// # Errors
/// More rules than a program can hold.
pub fn compile(rules: &[Rule]) -> Result<Option<DeviceProgram>> {
    let mut effective: Vec<Rule> = Vec::with_capacity(rules.len());
    let mut default = false;
    for rule in rules.iter().rev() {
        if rule.is_about_everything() {
            default = rule.allow;
            break;
        }
        // later rules win, and have said it all
        if !effective.iter().any(|earlier| earlier.shadows(rule)) {
            effective.push(*rule);
        }
    }
    // those just before the default that say the same as it
    while effective.last().is_some_and(|rule| rule.allow == default) {
        effective.pop();
    }
    if default && effective.is_empty() {
        return Ok(None);
    }
    let mut out = Assembler::new();
    if !effective.is_empty() {
        out.load_context();
    }
    for run in effective.chunk_by(|a, b| a.allow == b.allow) {
        emit_run(&mut out, run);
    }
    let insns = out
        .finish(default)
        .ok_or_else(|| Error::invalid(format!("{FIELD}: {} rules are too many", rules.len())))?;
    Ok(Some(DeviceProgram { insns }))
}

/// The accesses by minor number, by major number.
type Majors = BTreeMap<Option<u32>, BTreeMap<Option<u32>, u8>>;

/// Rules of one verdict that follow each other: their order does not matter,
/// so each kind and each major number is compared once.
fn emit_run(out: &mut Assembler, run: &[Rule]) {
    let Some(verdict) = run.first().map(|rule| rule.allow) else {
        return;
    };
    let mut table: BTreeMap<Option<Kind>, Majors> = BTreeMap::new();
    for rule in run {
        let devices = rule.devices;
        // there are two kinds: the same of both is the same of any
        let both = devices.major.is_none()
            && devices.minor.is_none()
            && run.contains(&rule.of_the_other_kind());
        *table
            .entry(devices.kind.filter(|_| !both))
            .or_default()
            .entry(devices.major)
            .or_default()
            .entry(devices.minor)
            .or_default() |= rule.access;
    }
    for (kind, majors) in table {
        let next_kind = kind.and_then(|kind| out.skip_unless(Register::Kind, kind as u32));
        for (major, minors) in majors {
            let next_major = major.and_then(|major| out.skip_unless(Register::Major, major));
            emit_minors(out, verdict, &minors);
            out.place(next_major);
        }
        out.place(next_kind);
    }
}

fn emit_minors(out: &mut Assembler, verdict: bool, minors: &BTreeMap<Option<u32>, u8>) {
    let bit = |minor: Option<u32>, access: u8| match minor {
        Some(minor @ 0..32) if access == ALL => 1 << minor,
        _ => 0,
    };
    let mut bits = minors.iter().fold(0u32, |bits, (m, a)| bits | bit(*m, *a));
    if bits.count_ones() < 3 {
        bits = 0;
    }
    for (minor, access) in minors {
        if bits & bit(*minor, *access) == 0 {
            emit_rule(out, verdict, *minor, *access);
        }
    }
    if bits != 0 {
        let target = if verdict { Target::Allow } else { Target::Deny };
        out.jump_if_minor_among(bits, target);
    }
}

fn emit_rule(out: &mut Assembler, verdict: bool, minor: Option<u32>, access: u8) {
    let target = if verdict { Target::Allow } else { Target::Deny };
    if access == ALL {
        match minor {
            Some(minor) => out.jump_if(Cond::Equal, Register::Minor, minor, target),
            None => out.jump(target),
        }
        return;
    }
    let next = minor.and_then(|minor| out.skip_unless(Register::Minor, minor));
    let access = u32::from(access);
    if verdict {
        out.clear_wanted(access);
        out.jump_if(Cond::Equal, Register::Wanted, 0, target);
    } else {
        out.jump_if(Cond::AnyBit, Register::Wanted, access, target);
    }
    out.place(next);
}
