//! What `create` keeps of a configuration for `exec`: in a file of its own, which
//! the other commands need not read.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::Options;
use crate::spec::{ExecPlan, ListenerPlan, MemoryPolicyPlan, Plan, SeccompPlan};
use crate::sys::caller::{caller, is_capable};
use crate::sys::fs::replace_file;
use crate::sys::seccomp::Insn;

/// Its name in the state directory.
pub(in crate::container) const NAME: &str = "exec.json";

/// What later processes of a container have in common with its first one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::container) struct Kept {
    /// As the configuration has it.
    pub(super) process: Process,
    /// Kinds of namespaces that are not the maker's, as CLONE_NEW*.
    namespaces: i32,
    /// Init is in a chroot of a mount namespace that it shares.
    pub(super) in_chroot: bool,
    /// The keyring is the caller's.
    pub(super) no_new_keyring: bool,
    /// Groups of resctrl.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rdt_groups: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_policy: Option<MemoryPolicyPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    personality: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<Filter>,
}

/// A filter of system calls.
#[derive(Debug, Serialize, Deserialize)]
struct Filter {
    /// Instructions, 16 hexadecimal digits each.
    program: String,
    flags: u32,
    listener: Option<ListenerPlan>,
}

impl Kept {
    /// `rdt_groups` are those of resctrl that the container's processes are in.
    pub(in crate::container) fn new(
        spec: &Spec,
        plan: &Plan,
        options: Options,
        rdt_groups: Vec<PathBuf>,
    ) -> Self {
        let namespaces = &plan.namespaces;
        let joined = namespaces.join.iter().map(|join| join.kind);
        let mut kinds = joined.fold(namespaces.new_flags(), |all, kind| all | kind);
        // the runtime itself has entered one for the container's files
        kinds.set(
            CloneFlags::CLONE_NEWUSER,
            kinds.contains(CloneFlags::CLONE_NEWUSER) || !caller().capable && is_capable(),
        );
        Kept {
            process: spec.process().clone().unwrap_or_default(),
            namespaces: kinds.bits(),
            in_chroot: !namespaces.makes(CloneFlags::CLONE_NEWNS),
            no_new_keyring: options.no_new_keyring,
            rdt_groups,
            memory_policy: plan.scheduling.memory_policy.clone(),
            personality: plan.scheduling.personality,
            seccomp: plan.seccomp.as_ref().map(Filter::of),
        }
    }

    pub(in crate::container) fn save(&self, dir: impl AsFd) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| Error::new(ErrorKind::System, format!("encode {NAME}: {e}")))?;
        let mode = Mode::from_bits_truncate(0o600);
        replace_file(dir, NAME, &bytes, mode, false).step(|| format!("save {NAME}"))
    }

    pub(super) fn load(dir: impl AsFd) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = match openat(dir, NAME, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                return Err(Error::new(
                    ErrorKind::State,
                    "the container was created by a tare without exec",
                ));
            }
            other => other.step(|| NAME)?,
        };
        let mut bytes = Vec::with_capacity(16 << 10);
        File::from(fd).read_to_end(&mut bytes).step(|| NAME)?;
        serde_json::from_slice(&bytes).map_err(|e| damaged(&e.to_string()))
    }

    pub(super) fn namespaces(&self) -> CloneFlags {
        CloneFlags::from_bits_retain(self.namespaces)
    }

    /// Gives a plan what a process object does not have.
    pub(super) fn complete(&self, plan: &mut ExecPlan) -> Result<()> {
        plan.scheduling.memory_policy.clone_from(&self.memory_policy);
        plan.scheduling.personality = self.personality;
        plan.seccomp = self.seccomp.as_ref().map(Filter::plan).transpose()?;
        Ok(())
    }
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::System, format!("{NAME} is damaged: {why}"))
}

impl Filter {
    fn of(plan: &SeccompPlan) -> Self {
        let mut program = String::with_capacity(plan.program.len() * 16);
        for Insn { code, yes, no, k } in &plan.program {
            // a String takes whatever is written
            write!(program, "{code:04x}{yes:02x}{no:02x}{k:08x}").unwrap_or_default();
        }
        Filter { program, flags: plan.flags, listener: plan.listener.clone() }
    }

    fn plan(&self) -> Result<SeccompPlan> {
        let insn = |digits: &[u8]| {
            let bits = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            let [c0, c1, yes, no, k0, k1, k2, k3] = bits.to_be_bytes();
            Some(Insn {
                code: u16::from_be_bytes([c0, c1]),
                yes,
                no,
                k: u32::from_be_bytes([k0, k1, k2, k3]),
            })
        };
        let program: Option<Vec<Insn>> = self.program.as_bytes().chunks(16).map(insn).collect();
        let program = program.ok_or_else(|| damaged("linux.seccomp is no program"))?;
        Ok(SeccompPlan { program, flags: self.flags, listener: self.listener.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_comes_back_as_it_was() {
        let program = vec![
            Insn { code: 0x20, yes: 0, no: 0, k: 4 },
            Insn { code: 0x15, yes: 255, no: 1, k: 0xc000_003e },
        ];
        let plan = SeccompPlan { program, flags: 2, listener: None };
        let filter = Filter::of(&plan);
        assert_eq!(filter.program, "0020000000000004".to_owned() + "0015ff01c000003e");
        let back = filter.plan().unwrap();
        assert_eq!((back.program, back.flags), (plan.program, 2));
        assert!(Filter { program: "xx".into(), flags: 0, listener: None }.plan().is_err());
    }
}
