//! process: what runs, as whom, with which privileges and limits.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::PathBuf;

use nix::errno::Errno;
use oci_spec::runtime::{Capability, LinuxCapabilities, PosixRlimitType, Process};

use crate::error::{Error, Result};
use crate::sys::process::is_in_bounding_set;

/// Largest id that the kernel tells apart from "none" in every interface.
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// The five capability sets of a process (capabilities(7)).
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    /// Upper bound for what execve can give.
    pub bounding: caps::CapsHashSet,
    /// In force.
    pub effective: caps::CapsHashSet,
    /// May be taken into force.
    pub permitted: caps::CapsHashSet,
    /// Kept over execve of a program whose file allows it.
    pub inheritable: caps::CapsHashSet,
    /// Kept over execve of any program.
    pub ambient: caps::CapsHashSet,
}

impl Capabilities {
    /// Takes out what this process does not have itself and so can't pass on;
    /// the answer is what that was. The specification wants a warning and no
    /// failure (config.md, process.capabilities).
    ///
    /// # Errors
    /// The kernel does not tell what this process has.
    pub fn limit_to_own(&mut self) -> Result<Vec<caps::Capability>> {
        let own = caps::read(None, caps::CapSet::Permitted)
            .map_err(|e| Error::new(crate::ErrorKind::System, format!("capget: {e}")))?;
        let mut missing: Vec<caps::Capability> = Vec::new();
        for cap in &self.bounding {
            match is_in_bounding_set(cap.index()) {
                Ok(true) => {}
                // one that this kernel does not know
                Ok(false) | Err(Errno::EINVAL) => missing.push(*cap),
                Err(e) => return Err(Error::from(e).step("read the bounding set: prctl")),
            }
        }
        self.bounding.retain(|cap| !missing.contains(cap));
        let sets =
            [&mut self.effective, &mut self.permitted, &mut self.inheritable, &mut self.ambient];
        for set in sets {
            missing.extend(set.iter().filter(|cap| !own.contains(cap)));
            set.retain(|cap| own.contains(cap));
        }
        missing.sort_unstable_by_key(caps::Capability::index);
        missing.dedup();
        Ok(missing)
    }
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy)]
pub struct RlimitPlan {
    /// Which.
    pub resource: nix::sys::resource::Resource,
    /// Limit in force.
    pub soft: u64,
    /// How far the process itself may raise it.
    pub hard: u64,
}

/// A process to run in a container, with nothing left open.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// Program and arguments; never empty.
    pub args: Vec<CString>,
    /// NAME=VALUE, each name once.
    pub env: Vec<CString>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// User id, inside the user namespace.
    pub uid: u32,
    /// Group id, inside the user namespace.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<RlimitPlan>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// A pty for stdin, stdout and stderr.
    pub terminal: bool,
    /// Rows and columns of the pty.
    pub console_size: Option<(u16, u16)>,
}

impl ProcessPlan {
    /// Resolves and checks `process`.
    ///
    /// # Errors
    /// The first field that is wrong, by name.
    pub fn resolve(process: &Process) -> Result<Self> {
        let user = process.user();
        let umask = user.umask().unwrap_or(0o022);
        if umask > 0o777 {
            return Err(Error::invalid(format!(
                "process.user.umask: {umask} is over 511 (octal 777)"
            )));
        }
        let groups = user.additional_gids().clone().unwrap_or_default();
        check_id("process.user.uid", user.uid())?;
        check_id("process.user.gid", user.gid())?;
        for (at, group) in groups.iter().enumerate() {
            check_id(&format!("process.user.additionalGids[{at}]"), *group)?;
        }
        if !process.cwd().is_absolute() {
            let cwd = process.cwd();
            return Err(Error::invalid(format!("process.cwd: {cwd:?} is not an absolute path")));
        }
        if process.cwd().as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Error::invalid("process.cwd: has a NUL byte inside"));
        }
        let terminal = process.terminal().unwrap_or(false);
        Ok(ProcessPlan {
            args: args(process)?,
            env: env(process)?,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups,
            umask,
            capabilities: capabilities(process.capabilities().as_ref())?,
            rlimits: rlimits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: oom_score_adj(process)?,
            terminal,
            // without a terminal it means nothing, whatever it is
            console_size: if terminal { console_size(process)? } else { None },
        })
    }

    /// The value of a variable of the environment.
    pub fn env_value(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| {
            let rest = entry.as_bytes().strip_prefix(name.as_bytes())?;
            rest.strip_prefix(b"=")
        })
    }
}

/// An id that every interface of the kernel takes.
pub(super) fn check_id(field: &str, id: u32) -> Result<()> {
    if id > MAX_ID {
        return Err(Error::invalid(format!("{field}: {id} is over {MAX_ID}")));
    }
    Ok(())
}

fn args(process: &Process) -> Result<Vec<CString>> {
    let args = process.args().as_deref().unwrap_or_default();
    match args.first() {
        None => return Err(Error::invalid("process.args: is empty")),
        Some(program) if program.is_empty() => {
            return Err(Error::invalid("process.args[0]: is an empty string"));
        }
        Some(_) => {}
    }
    args.iter().enumerate().map(|(i, a)| text(&format!("process.args[{i}]"), a)).collect()
}

/// The environment, each name once with its last value: a program would see the first
/// of two, and whoever writes configurations means the last. An empty HOME is none.
fn env(process: &Process) -> Result<Vec<CString>> {
    let env = process.env().as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(env.len());
    for (i, entry) in env.iter().enumerate().rev() {
        let name = match entry.split_once('=') {
            None | Some(("", _)) => {
                return Err(Error::invalid(format!(
                    "process.env[{i}]: {entry:?} is not NAME=VALUE"
                )));
            }
            Some((name, _)) => name,
        };
        let value = text(&format!("process.env[{i}]"), entry)?;
        if seen.insert(name) && entry != "HOME=" {
            entries.push(value);
        }
    }
    entries.reverse();
    Ok(entries)
}

fn text(field: &str, value: &str) -> Result<CString> {
    CString::new(value).map_err(|_nul| Error::invalid(format!("{field}: has a NUL byte inside")))
}

fn capabilities(given: Option<&LinuxCapabilities>) -> Result<Capabilities> {
    // no object, no capabilities: as runc does it
    let Some(given) = given else {
        return Ok(Capabilities::default());
    };
    let mut sets = Capabilities {
        bounding: capability_set(given.bounding().as_ref())?,
        effective: capability_set(given.effective().as_ref())?,
        permitted: capability_set(given.permitted().as_ref())?,
        inheritable: capability_set(given.inheritable().as_ref())?,
        ambient: capability_set(given.ambient().as_ref())?,
    };
    let permitted = sets.permitted.clone();
    leave_out("effective", &mut sets.effective, "permitted", |cap| permitted.contains(cap));
    // execve would take what is outside the bounding set away again
    let bounding = sets.bounding.clone();
    leave_out("inheritable", &mut sets.inheritable, "bounding", |cap| bounding.contains(cap));
    let inheritable = sets.inheritable.clone();
    leave_out("ambient", &mut sets.ambient, "permitted and inheritable", |cap| {
        permitted.contains(cap) && inheritable.contains(cap)
    });
    Ok(sets)
}

/// Takes out what the kernel would refuse: worth a warning and no failure
/// (config.md, process.capabilities).
fn leave_out(
    name: &str,
    set: &mut caps::CapsHashSet,
    outer: &str,
    fits: impl Fn(&caps::Capability) -> bool,
) {
    let mut lost: Vec<caps::Capability> = set.iter().filter(|cap| !fits(cap)).copied().collect();
    if lost.is_empty() {
        return;
    }
    set.retain(|cap| fits(cap));
    lost.sort_unstable_by_key(caps::Capability::index);
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    let lost = lost.join(", ");
    crate::logging::warn(&format!(
        "process.capabilities.{name}: {lost} left out: not among {outer} ones"
    ));
}

fn capability_set(
    given: Option<&std::collections::HashSet<Capability>>,
) -> Result<caps::CapsHashSet> {
    let mut set = caps::CapsHashSet::new();
    for capability in given.into_iter().flatten() {
        let name = format!("CAP_{capability}");
        let known: caps::Capability = name.parse().map_err(|_unknown| {
            Error::unsupported(format!("process.capabilities: {name} is not known to tare"))
        })?;
        set.insert(known);
    }
    Ok(set)
}

/// A capability by the name that a configuration gives it.
pub(super) fn capability(name: &str) -> Option<caps::Capability> {
    // by the parser of the configuration, so that both agree on what is known
    let known: Capability = serde_json::from_value(serde_json::Value::from(name)).ok()?;
    format!("CAP_{known}").parse().ok()
}

fn rlimits(process: &Process) -> Result<Vec<RlimitPlan>> {
    let mut plans: Vec<RlimitPlan> = Vec::new();
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        let resource = resource_of(limit.typ())?;
        if plans.iter().any(|p| p.resource == resource) {
            return Err(Error::invalid(format!(
                "process.rlimits[{at}].type: {resource:?} is there twice"
            )));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(format!(
                "process.rlimits[{at}].soft: {} is over hard, {}, for {resource:?}",
                limit.soft(),
                limit.hard()
            )));
        }
        plans.push(RlimitPlan { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(plans)
}

fn resource_of(kind: PosixRlimitType) -> Result<nix::sys::resource::Resource> {
    use nix::sys::resource::Resource as R;
    Ok(match kind {
        PosixRlimitType::RlimitCpu => R::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => R::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => R::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => R::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => R::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => R::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => R::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => R::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => R::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => R::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => R::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => R::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => R::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => R::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => R::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => R::RLIMIT_RTTIME,
    })
}

fn oom_score_adj(process: &Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(value) if !(-1000..=1000).contains(&value) => {
            Err(Error::invalid(format!("process.oomScoreAdj: {value} is not within -1000..1000")))
        }
        value => Ok(value),
    }
}

fn console_size(process: &Process) -> Result<Option<(u16, u16)>> {
    let Some(size) = process.console_size() else {
        return Ok(None);
    };
    let number = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_range| {
            Error::invalid(format!("process.consoleSize.{name}: {value} is over 65535"))
        })
    };
    let rows = number("height", size.height())?;
    let columns = number("width", size.width())?;
    // 0 × 0 is what callers send when they do not know
    Ok((rows != 0 || columns != 0).then_some((rows, columns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<ProcessPlan> {
        ProcessPlan::resolve(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn defaults() {
        let plan = resolve(r#"{"user":{},"args":["sh"],"cwd":"/","env":["A=1","A=2"]}"#).unwrap();
        assert_eq!((plan.uid, plan.gid, plan.umask), (0, 0, 0o022));
        assert_eq!(plan.env_value("A"), Some(&b"2"[..]));
        assert!(plan.capabilities.bounding.is_empty());
    }

    #[test]
    fn capabilities_that_the_kernel_would_refuse_are_left_out() {
        let plan = resolve(
            r#"{"user":{},"args":["a"],"cwd":"/","capabilities":{
                "bounding":["CAP_KILL"],"permitted":["CAP_KILL","CAP_CHOWN"],
                "effective":["CAP_KILL","CAP_MKNOD"],"inheritable":["CAP_KILL","CAP_CHOWN"],
                "ambient":["CAP_KILL","CAP_CHOWN"]}}"#,
        );
        let sets = plan.unwrap().capabilities;
        let kill = caps::CapsHashSet::from([caps::Capability::CAP_KILL]);
        for set in [sets.effective, sets.inheritable, sets.ambient] {
            assert_eq!(set, kill);
        }
    }

    #[test]
    fn wrong_input_names_the_field() {
        for (json, start) in [
            (r#"{"user":{},"args":[],"cwd":"/"}"#, "process.args: is empty"),
            (r#"{"user":{},"args":[""],"cwd":"/"}"#, "process.args[0]"),
            (r#"{"user":{},"args":["a"],"cwd":"b"}"#, "process.cwd"),
            (r#"{"user":{"uid":2147483648},"args":["a"],"cwd":"/"}"#, "process.user.uid"),
            (r#"{"user":{},"args":["a"],"cwd":"/","env":["A"]}"#, "process.env[0]"),
            (r#"{"user":{},"args":["a"],"cwd":"/","oomScoreAdj":1001}"#, "process.oomScoreAdj"),
            (
                r#"{"user":{},"args":["a"],"cwd":"/","rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1}]}"#,
                "process.rlimits",
            ),
        ] {
            let text = resolve(json).unwrap_err().to_string();
            assert!(text.starts_with(start), "{json}: {text}");
        }
    }
}
