//! A time namespace of init's own.

use std::io::Write;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{setns, unshare};
use nix::sys::stat::Mode;

use crate::error::{Error, Result, Step};
use crate::sys::process::CLONE_NEWTIME;
use crate::trace;

/// Makes a time namespace, shifts its clocks, and enters it.
///
/// Not at the clone: who is in a time namespace can't shift its clocks any
/// more. unshare makes one for the children alone; setns enters it without a
/// second fork.
pub(super) fn enter_new(offsets: &str) -> Result<()> {
    unshare(CLONE_NEWTIME).map_err(|e| {
        let error = Error::from(e).step("make a time namespace");
        match e {
            Errno::EINVAL => error.hint("the kernel has no time namespaces"),
            Errno::ENOSPC => error.hint("the limit in /proc/sys/user/max_time_namespaces"),
            _ => error,
        }
    })?;
    if !offsets.is_empty() {
        std::fs::File::options()
            .write(true)
            .open("/proc/self/timens_offsets")
            // one write: the kernel takes all lines or none
            .and_then(|mut file| file.write_all(offsets.as_bytes()))
            .map_err(|e| {
                let e = Error::from(e).step("linux.timeOffsets: write timens_offsets");
                match e.is_errno(Errno::ERANGE) {
                    true => e.hint("a clock would run before its start, or for centuries"),
                    false => e,
                }
            })?;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let namespace = open("/proc/self/ns/time_for_children", flags, Mode::empty())
        .step(|| "open the time namespace")?;
    trace::across_clocks(|| setns(&namespace, CLONE_NEWTIME).step(|| "enter the time namespace"))
}
