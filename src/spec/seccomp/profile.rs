//! The profile, checked: names of calls are still names, all else is numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::arch;
use super::assembler::Compare;
use crate::error::{Error, Result};

/// SECCOMP_RET_USER_NOTIF
const NOTIFY: u32 = 0x7fc0_0000;
/// SECCOMP_RET_LOG and SECCOMP_RET_ALLOW: the call takes place.
pub(super) const LETS_PASS: [u32; 2] = [0x7ffc_0000, 0x7fff_0000];

/// The largest errno that the kernel gives to a program.
const MAX_ERRNO: u32 = 4095;

/// A test of one argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u32,
    pub(super) test: Compare,
    /// What the test has to say.
    pub(super) holds: bool,
    pub(super) value: u64,
    /// What is not in here is not looked at.
    pub(super) mask: u64,
}

/// What is done with a call whose arguments pass all the tests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

impl Rule {
    /// The same rule for a call that is made by way of another one (socketcall,
    /// ipc), whose first argument says which is meant. The arguments proper then
    /// lie in memory, where no filter can look: a rule that asks for them holds
    /// for all such calls if it is stricter than the default, else for none.
    pub(super) fn through(&self, which: u64, default: u32) -> Option<Rule> {
        // the kernel's order: as signed numbers, KILL_PROCESS is the lowest
        let is_stricter = self.action.cast_signed() < default.cast_signed();
        (self.conditions.is_empty() || is_stricter).then(|| Rule {
            conditions: vec![Condition {
                argument: 0,
                test: Compare::Equal,
                holds: true,
                value: which,
                mask: u64::MAX,
            }],
            action: self.action,
        })
    }
}

/// A profile without a "maybe" in it.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    pub(super) default: u32,
    /// The native one is the first.
    pub(super) architectures: Vec<Arch>,
    /// Calls that are newer than all that the profile names get ENOSYS, so that
    /// programs fall back to older ones: whoever wrote it could not know them.
    pub(super) hides_newer_calls: bool,
    /// By name of the call: the first and the last of its links.
    names: HashMap<&'a str, (usize, usize), BuildHasherDefault<NameHasher>>,
    links: Vec<Link>,
    rules: Vec<Rule>,
}

/// Rules that name a call, and where more of them are.
#[derive(Debug)]
struct Link {
    rules: Range<usize>,
    next: Option<usize>,
}

/// A profile has hundreds of names, and is looked into a thousand times: a hash
/// that nobody can foresee would be a tenth of all that a container takes before
/// its clone. Who writes the profile is trusted with more than our time.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl NameHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for NameHasher {
    // by parts whose length is known: to copy a few bytes is a call of its own else
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((part, more)) = rest.split_first_chunk() {
            self.mix(u64::from_le_bytes(*part));
            rest = more;
        }
        if let Some((part, more)) = rest.split_first_chunk() {
            self.mix(u32::from_le_bytes(*part).into());
            rest = more;
        }
        rest.iter().for_each(|byte| self.mix((*byte).into()));
    }

    fn write_u8(&mut self, _end_of_a_str: u8) {}

    fn finish(&self) -> u64 {
        // a table takes the high bits for one thing and the low ones for another
        self.0 ^ self.0 >> 32
    }
}

impl<'a> Profile<'a> {
    /// # Errors
    /// The first field that is wrong, by name.
    pub(super) fn check(given: &'a LinuxSeccomp) -> Result<Self> {
        const FIELD: &str = "linux.seccomp";
        let action = given.default_action();
        let default = answer(&format!("{FIELD}.default"), action, given.default_errno_ret())?;
        if action == Action::ScmpActNotify {
            return Err(Error::invalid(format!(
                "{FIELD}.defaultAction: {action} would stop the calls of tare itself"
            )));
        }
        let refuses = matches!(
            action,
            Action::ScmpActErrno
                | Action::ScmpActKill
                | Action::ScmpActKillThread
                | Action::ScmpActKillProcess
                | Action::ScmpActTrap
        );
        let mut profile = Profile {
            default,
            architectures: architectures(given.architectures().as_deref()),
            hides_newer_calls: refuses,
            names: HashMap::default(),
            links: Vec::new(),
            rules: Vec::new(),
        };
        let syscalls = given.syscalls().as_deref().unwrap_or_default();
        let names = syscalls.iter().map(|rule| rule.names().len()).sum();
        profile.names.reserve(names);
        profile.links.reserve(names);
        for (index, rule) in syscalls.iter().enumerate() {
            profile.add(&format!("{FIELD}.syscalls[{index}]"), rule)?;
        }
        Ok(profile)
    }

    fn add(&mut self, field: &str, given: &'a LinuxSyscall) -> Result<()> {
        if given.names().is_empty() {
            return Err(Error::invalid(format!("{field}.names: is empty")));
        }
        let action = answer(&format!("{field}."), given.action(), given.errno_ret())?;
        let conditions = conditions(field, given.args().as_deref().unwrap_or_default())?;
        let first = self.rules.len();
        // as in other runtimes: what the default does anyway is no rule, and
        // stands in no other one's way
        if action != self.default {
            self.rules.extend(conditions.into_iter().map(|conditions| Rule { conditions, action }));
        }
        for (at, name) in given.names().iter().enumerate() {
            if name.is_empty() {
                return Err(Error::invalid(format!("{field}.names[{at}]: is an empty string")));
            }
            let new = self.links.len();
            self.links.push(Link { rules: first..self.rules.len(), next: None });
            match self.names.entry(name) {
                Entry::Vacant(place) => {
                    place.insert((new, new));
                }
                Entry::Occupied(mut place) => {
                    let last = std::mem::replace(&mut place.get_mut().1, new);
                    if let Some(link) = self.links.get_mut(last) {
                        link.next = Some(new);
                    }
                }
            }
        }
        Ok(())
    }

    /// True: somebody outside answers some calls.
    pub(super) fn notifies(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == NOTIFY)
    }

    /// The rules of a call, in order; `None`: the profile does not name it.
    pub(super) fn rules_of(&self, name: &str) -> Option<impl Iterator<Item = &Rule> + Clone> {
        let (first, _) = self.names.get(name)?;
        let link = |at: usize| self.links.get(at);
        let links = std::iter::successors(link(*first), move |before| before.next.and_then(link));
        Some(links.flat_map(|one| self.rules.get(one.rules.clone()).into_iter().flatten()))
    }
}

/// The word of an action in the kernel's language.
fn answer(field: &str, action: Action, errno: Option<u32>) -> Result<u32> {
    let most = match action {
        Action::ScmpActErrno => MAX_ERRNO,
        Action::ScmpActTrace => u32::from(u16::MAX),
        _ if errno.is_some() => {
            // the specification wants it refused
            let name = errno_field(field);
            return Err(Error::invalid(format!("{name}: {action} takes no number")));
        }
        _ => 0,
    };
    match errno {
        Some(number) if number > most => {
            let name = errno_field(field);
            Err(Error::invalid(format!("{name}: {number} is over {most}")))
        }
        _ => Ok(action.as_u32(errno)),
    }
}

/// `linux.seccomp.default` and `linux.seccomp.syscalls[0].`, completed.
fn errno_field(start: &str) -> String {
    let name = if start.ends_with('.') { "errnoRet" } else { "ErrnoRet" };
    format!("{start}{name}")
}

/// The alternatives of a rule, each with conditions that all have to hold.
fn conditions(field: &str, given: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>> {
    let mut all: Vec<Condition> = Vec::with_capacity(given.len());
    let mut repeats = false;
    for (at, arg) in given.iter().enumerate() {
        let argument = match u32::try_from(arg.index()) {
            Ok(index @ 0..=5) => index,
            _ => {
                return Err(Error::invalid(format!(
                    "{field}.args[{at}].index: {} is not an argument (0 to 5)",
                    arg.index()
                )));
            }
        };
        repeats |= all.iter().any(|other| other.argument == argument);
        let (test, holds) = match arg.op() {
            Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => (Compare::Equal, true),
            Operator::ScmpCmpNe => (Compare::Equal, false),
            Operator::ScmpCmpGt => (Compare::Above, true),
            Operator::ScmpCmpLe => (Compare::Above, false),
            Operator::ScmpCmpGe => (Compare::From, true),
            Operator::ScmpCmpLt => (Compare::From, false),
        };
        let (value, mask) = match arg.op() {
            Operator::ScmpCmpMaskedEq => (arg.value_two().unwrap_or_default(), arg.value()),
            _ => (arg.value(), u64::MAX),
        };
        all.push(Condition { argument, test, holds, value, mask });
    }
    // as in other runtimes: an argument twice in one rule means either
    Ok(if repeats { all.into_iter().map(|one| vec![one]).collect() } else { vec![all] })
}

/// The native one first, each once.
fn architectures(given: Option<&[Arch]>) -> Vec<Arch> {
    let mut all = vec![arch::native()];
    for one in given.unwrap_or_default() {
        if *one != Arch::ScmpArchNative && !all.contains(one) {
            all.push(*one);
        }
    }
    all
}
