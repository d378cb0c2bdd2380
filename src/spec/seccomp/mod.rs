//! linux.seccomp: a profile of system calls → a filter in classic BPF.
//!
//! What the specification leaves open is done as libseccomp does it, with which
//! every profile in use was tried: the native architecture is always a part; calls
//! of others that the profile does not name end the thread; names that nobody
//! knows are left out; a rule without conditions beats those with some.

mod arch;
mod assembler;
mod filter;
mod profile;

use std::path::PathBuf;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag as Flag};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys::seccomp::{self, Insn};
use filter::{Decision, Tests};
use profile::Profile;

/// Most instructions that the kernel takes (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// Most bytes of the path of a Unix socket (sun_path without its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// A filter, ready to be loaded.
#[derive(Debug, Clone)]
pub struct SeccompPlan {
    /// The program.
    pub program: Vec<Insn>,
    /// Flags of seccomp(2).
    pub flags: u32,
    /// Who answers calls with SCMP_ACT_NOTIFY; `None`: there are none.
    pub listener: Option<ListenerPlan>,
}

/// Somebody who answers calls in the container's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerPlan {
    /// A Unix socket on which the descriptor is waited for.
    pub path: PathBuf,
    /// Handed over with it.
    pub metadata: Option<String>,
}

impl SeccompPlan {
    /// Checks and compiles a profile.
    ///
    /// # Errors
    /// The first field that is wrong, by name.
    pub fn resolve(given: &LinuxSeccomp) -> Result<Self> {
        let profile = Profile::check(given)?;
        let program = filter::compile(&profile);
        if program.len() > MAX_INSTRUCTIONS {
            return Err(Error::invalid(format!(
                "linux.seccomp: needs {} instructions, and the kernel takes {MAX_INSTRUCTIONS}",
                program.len()
            )));
        }
        let listener = listener(given, &profile)?;
        let mut flags = 0;
        for flag in given.flags().iter().flatten() {
            flags |= match flag {
                Flag::SeccompFilterFlagLog => seccomp::FLAG_LOG,
                Flag::SeccompFilterFlagSpecAllow => seccomp::FLAG_SPEC_ALLOW,
                // the kernel refuses both of them with and without a listener:
                // init has one thread, and nobody waits without a listener
                Flag::SeccompFilterFlagTsync if listener.is_none() => seccomp::FLAG_TSYNC,
                Flag::SeccompFilterFlagWaitKillableRecv if listener.is_some() => {
                    seccomp::FLAG_WAIT_KILLABLE_RECV
                }
                Flag::SeccompFilterFlagTsync | Flag::SeccompFilterFlagWaitKillableRecv => 0,
            };
        }
        if listener.is_some() {
            flags |= seccomp::FLAG_NEW_LISTENER;
        }
        Ok(SeccompPlan { program, flags, listener })
    }
}

/// Refuses a profile with a name that is no system call, on no architecture.
pub(super) fn refuse_unknown(given: &LinuxSeccomp) -> Result<()> {
    let known = arch::all_names();
    for (at, rule) in given.syscalls().iter().flatten().enumerate() {
        if let Some(n) = rule.names().iter().position(|name| !known.contains(name.as_str())) {
            let name = rule.names().get(n).map(String::as_str).unwrap_or_default();
            return Err(Error::invalid(format!(
                "linux.seccomp.syscalls[{at}].names[{n}]: {name:?} is not a system call that tare \
                 knows"
            ))
            .hint("run.oci.seccomp_fail_unknown_syscall is among the annotations"));
        }
    }
    Ok(())
}

fn listener(given: &LinuxSeccomp, profile: &Profile<'_>) -> Result<Option<ListenerPlan>> {
    if given.listener_path().is_none() && given.listener_metadata().is_some() {
        return Err(Error::invalid(
            "linux.seccomp.listenerMetadata: is for who listens on listenerPath, which is missing",
        ));
    }
    if !profile.notifies() {
        return Ok(None);
    }
    let Some(path) = given.listener_path().clone() else {
        return Err(Error::invalid(
            "linux.seccomp.listenerPath: is missing, and an action is SCMP_ACT_NOTIFY",
        ));
    };
    if !path.is_absolute() || path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Error::invalid(format!(
            "linux.seccomp.listenerPath: {path:?} is not an absolute path of up to \
             {MAX_SOCKET_PATH} bytes"
        )));
    }
    // the listener leaves the container by sendmsg, after the filter is loaded
    let sendmsg = profile.rules_of("sendmsg").into_iter().flatten();
    let words = arch::words(arch::native());
    match filter::decide(profile.default, sendmsg, words, &mut Tests::default()) {
        Decision::Answer(value) if profile::LETS_PASS.contains(&value) => {}
        _ => {
            return Err(Error::invalid(
                "linux.seccomp.syscalls: sendmsg has to be allowed where an action is \
                 SCMP_ACT_NOTIFY: tare hands the listener over by it",
            ));
        }
    }
    Ok(Some(ListenerPlan { path, metadata: given.listener_metadata().clone() }))
}
