//! Running hooks: the state on stdin, a time limit, what they say on failure.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use nix::errno::Errno;
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
    keep_descriptors()?;
    let json = serde_json::to_vec(state)
        .map_err(|e| Error::new(ErrorKind::System, format!("{kind} hook: encode state: {e}")))?;
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, &json).step(|| format!("{kind} hook {index} ({})", hook.path.display()))?;
    }
    Ok(())
}

/// Marks all descriptors but the first three close-on-exec.
pub(super) fn keep_descriptors() -> Result<()> {
    close_range_on_exec(3).map_err(|errno| {
        let e = Error::from(errno).step("keep descriptors from hooks: close_range");
        match errno {
            Errno::EINVAL => e.hint("CLOSE_RANGE_CLOEXEC needs Linux 5.11, and tare 5.14"),
            _ => e,
        }
    })
}

fn run_one(hook: &HookPlan, state: &[u8]) -> Result<()> {
    // files in memory instead of pipes: nobody can block on them
    let input = state_file(state).step(|| "file for the state")?;
    let mut output = memory_file("output").step(|| "file for the output")?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    let copy = || output.try_clone().step(|| "file for the output");
    command.stdin(input).stdout(copy()?).stderr(copy()?);
    let mut child = command.spawn().step(|| "start")?;
    let status = match wait_for(&mut child, hook.timeout) {
        Ok(status) => status,
        Err(e) => {
            // it must not go on behind the back of a command that has failed
            let killed = child.kill().and_then(|()| child.wait());
            return Err(match killed {
                Ok(_) => e,
                Err(left) => e.hint(format!("and it was not killed: {}", Error::from(left))),
            });
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    output.seek(SeekFrom::Start(0)).step(|| "read its output")?;
    output.take(4096).read_to_string(&mut said).unwrap_or_default();
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let error = Error::new(ErrorKind::System, describe(status));
    Err(if said.is_empty() { error } else { error.hint(format!("it said: {}", said.trim())) })
}

/// The state, to be read from its beginning.
fn state_file(state: &[u8]) -> Result<File> {
    let mut file = memory_file("state")?;
    file.write_all(state)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn wait_for(child: &mut Child, timeout: Option<u64>) -> Result<ExitStatus> {
    if let Some(seconds) = timeout {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(-1));
        let pidfd = pidfd_open(pid).step(|| "watch")?;
        if !ends_within(pidfd.as_fd(), seconds).step(|| "watch")? {
            let text = format!("did not end within its timeout of {seconds} s");
            return Err(Error::new(ErrorKind::System, text));
        }
    }
    child.wait().step(|| "wait for its end")
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
            Ok(0) | Err(Errno::EINTR) => {}
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
