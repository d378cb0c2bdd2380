//! Device programs in effect: loaded, attached, replaced.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::DeviceProgram;
use crate::cgroup::Cgroup;
use crate::error::{Error, Result, Step};
use crate::sys::bpf;

/// A program that the kernel has checked and holds.
#[derive(Debug)]
pub struct LoadedDevices(OwnedFd);

impl DeviceProgram {
    /// Has the kernel check the program.
    ///
    /// # Errors
    /// EPERM without CAP_BPF and CAP_NET_ADMIN; what the kernel's verifier says.
    pub fn load(&self) -> Result<LoadedDevices> {
        bpf::load_device_program(self.insns(), None)
            .map(LoadedDevices)
            .map_err(|errno| explain(self, errno))
    }
}

impl Cgroup {
    /// Puts a device program into effect, beside those of the cgroups above.
    ///
    /// # Errors
    /// The kernel refuses it: EPERM without CAP_BPF, CAP_NET_ADMIN and a cgroup
    /// that is ours to change.
    pub fn attach_devices(&self, program: &DeviceProgram) -> Result<()> {
        let LoadedDevices(loaded) = program.load()?;
        bpf::attach_device_program(self.dir(), loaded.as_fd(), None)
            .step(|| "attach the device program")
    }

    /// Puts a device program in the place of tare's own, without a moment
    /// between; `None` allows everything. What others have attached (a service
    /// manager, a driver's helper) stays.
    ///
    /// # Errors
    /// As [`Self::attach_devices`]; reading what is there needs CAP_SYS_ADMIN.
    pub fn replace_devices(&self, program: Option<&LoadedDevices>) -> Result<()> {
        let step = || "replace the device program";
        let mut own = None;
        for there in bpf::device_programs(self.dir()).step(step)? {
            if bpf::is_own_program(there.as_fd()).step(step)? {
                own = Some(there);
            }
        }
        match (own, program) {
            (own, Some(LoadedDevices(new))) => {
                let own = own.as_ref().map(AsFd::as_fd);
                bpf::attach_device_program(self.dir(), new.as_fd(), own).step(step)
            }
            (Some(own), None) => bpf::detach_device_program(self.dir(), own.as_fd()).step(step),
            (None, None) => Ok(()),
        }
    }

    /// Takes every device program off, whosever it was.
    pub(in crate::cgroup) fn forget_devices(&self) -> Result<()> {
        let step = || "take the device programs off";
        for program in bpf::device_programs(self.dir()).step(step)? {
            bpf::detach_device_program(self.dir(), program.as_fd()).step(step)?;
        }
        Ok(())
    }
}

/// The error of a load, with the verifier's reason if it gave one.
fn explain(program: &DeviceProgram, errno: Errno) -> Error {
    let error = Error::errno(errno).step("load the device program");
    let mut log = vec![0; 64 << 10];
    match bpf::load_device_program(program.insns(), Some(&mut log)) {
        Err(_same) if errno != Errno::EPERM => {
            let log = String::from_utf8_lossy(&log);
            let text = log.trim_matches(['\0', '\n']).replace('\n', "; ");
            match errno {
                _ if !text.is_empty() => error.hint(text),
                Errno::ENOSYS | Errno::EINVAL => error.hint(
                    "rules for devices need a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF",
                ),
                _ => error,
            }
        }
        _ => error,
    }
}
