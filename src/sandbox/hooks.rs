//! Running hooks: the state on stdin, a time limit, what they say on failure.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::HookPlan;
use crate::sys::process::{close_range_on_exec, pidfd_open};

/// The state of a container, as hooks and `state` get it (runtime.md, State).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookState<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: &'a str,
    pub(crate) pid: i32,
    pub(crate) bundle: &'a Path,
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

/// Runs hooks one after the other; the first failure ends it.
///
/// # Errors
/// A hook that can't be started, ends with a code other than 0 or a signal,
/// or takes longer than its timeout (it is killed).
pub(crate) fn run(kind: &str, hooks: &[HookPlan], state: &HookState<'_>) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    // what the caller left open is for the program at most
    close_range_on_exec(3).step(|| "keep descriptors from hooks")?;
    let json = serde_json::to_vec(state)
        .map_err(|e| Error::new(ErrorKind::System, format!("{kind} hook: encode state: {e}")))?;
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, &json).step(|| format!("{kind} hook {index} ({})", hook.path.display()))?;
    }
    Ok(())
}

fn run_one(hook: &HookPlan, state: &[u8]) -> Result<()> {
    // files in memory instead of pipes: nobody can block on them
    let mut input = memory_file("state")?;
    input.write_all(state)?;
    input.seek(SeekFrom::Start(0))?;
    let mut output = memory_file("output")?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(input).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child = command.spawn().step(|| "start")?;
    let status = match hook.timeout {
        None => child.wait()?,
        Some(seconds) => {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(-1));
            let pidfd = pidfd_open(pid).step(|| "watch")?;
            if !ends_within(pidfd.as_fd(), seconds)? {
                child.kill().step(|| "kill after its timeout")?;
                child.wait()?;
                return Err(Error::new(
                    ErrorKind::System,
                    format!("did not end within its timeout of {seconds} s"),
                ));
            }
            child.wait()?
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    output.seek(SeekFrom::Start(0))?;
    output.take(4096).read_to_string(&mut said).unwrap_or_default();
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let error = Error::new(ErrorKind::System, describe(status));
    Err(if said.is_empty() { error } else { error.hint(format!("it said: {}", said.trim())) })
}

fn memory_file(name: &str) -> Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

fn ends_within(pidfd: std::os::fd::BorrowedFd<'_>, seconds: u64) -> Result<bool> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended oddly".to_owned(),
    }
}
