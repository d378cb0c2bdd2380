//! Running hooks: the state on stdin, a time limit, what they say on failure.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::WaitStatus;
use serde::Serialize;

use super::hook_process::{HookProcess, Setting, Words};
use super::interrupts::Interrupts;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spec::{HookOutput, HookPlan};
use crate::sys::process::close_range_on_exec;
use crate::trace;

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

/// Files that take the place of the pipe for a hook's words, open.
#[derive(Debug, Default)]
pub(crate) struct OutputFiles {
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl OutputFiles {
    /// # Errors
    /// A file that can't be opened for appending.
    pub(crate) fn open(plan: &HookOutput) -> Result<Self> {
        let open = |name: &str, path: Option<&Path>| -> Result<Option<OwnedFd>> {
            let Some(path) = path else { return Ok(None) };
            // a fifo that nobody reads would keep us waiting for ever
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
            let mut options = File::options();
            options.append(true).create(true).mode(0o600).custom_flags(flags);
            let step = || format!("annotations.run.oci.hooks.{name}: {}", path.display());
            let file = options.open(path).step(step)?;
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).step(step)?;
            Ok(Some(file.into()))
        };
        Ok(OutputFiles {
            stdout: open("stdout", plan.stdout.as_deref())?,
            stderr: open("stderr", plan.stderr.as_deref())?,
        })
    }

    /// Both descriptors.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.stdout.iter().chain(&self.stderr)
    }
}

/// Who runs hooks, and how.
pub(crate) struct Runner<'a> {
    /// What they get to know.
    pub(crate) state: HookState<'a>,
    /// The environment of those that have none of their own.
    pub(crate) env: Vec<CString>,
    /// Where they run; `None`: where the runner is.
    pub(crate) directory: Option<&'a Path>,
    /// Where their words go, but for the pipe.
    pub(crate) output: &'a OutputFiles,
    /// Signals that end a hook and the command with it.
    pub(crate) interrupts: Option<&'a Interrupts>,
    /// The process whose end makes hooks pointless.
    pub(crate) init: Option<BorrowedFd<'a>>,
}

/// Runs hooks in the runtime's namespaces, in the bundle's directory and with the
/// runtime's own environment (as with other runtimes, which leave it to them). With
/// `init`, its end makes them pointless.
///
/// # Errors
/// As for [`Runner::run`].
pub(crate) fn run_outside(
    hooks: &[HookPlan],
    state: HookState<'_>,
    interrupts: &Interrupts,
    init: Option<BorrowedFd<'_>>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let output = OutputFiles::open(&HookOutput::of(state.annotations)?)?;
    let directory = Some(state.bundle);
    let env = own_environment();
    let interrupts = Some(interrupts);
    Runner { state, env, directory, output: &output, interrupts, init }.run(hooks)
}

/// The runtime's environment, but for what its service manager told it alone.
fn own_environment() -> Vec<CString> {
    const FOR_US: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"];
    std::env::vars_os()
        .filter(|(name, _)| !FOR_US.iter().any(|ours| name == ours))
        .filter_map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            CString::new(entry.into_vec()).ok()
        })
        .collect()
}

impl Runner<'_> {
    /// Runs hooks one after the other; the first failure ends it.
    ///
    /// # Errors
    /// A hook that can't be started, ends with a code other than 0 or a signal,
    /// or takes longer than its timeout; a signal for this process; the end of
    /// init. A hook that still runs then is killed, with its process group.
    pub(crate) fn run(&self, hooks: &[HookPlan]) -> Result<()> {
        if hooks.is_empty() {
            return Ok(());
        }
        // what the caller left open is for the program at most
        keep_descriptors()?;
        let json = serde_json::to_vec(&self.state)
            .map_err(|e| Error::new(ErrorKind::System, format!("hooks: encode state: {e}")))?;
        for hook in hooks {
            trace::step_on("run a hook", ("hook", &hook.field), || {
                self.run_one(hook, &json).map_err(|e| {
                    let e = e.step(format!("{} ({})", hook.field, hook.path.display()));
                    e.of_kind(ErrorKind::Hook)
                })
            })?;
        }
        Ok(())
    }

    fn run_one(&self, hook: &HookPlan, json: &[u8]) -> Result<()> {
        let words = Words {
            path: &hook.path,
            args: &strings(&hook.args)?,
            env: &match &hook.env {
                Some(env) => strings(env)?,
                None => self.env.clone(),
            },
        };
        let setting = Setting {
            // in memory, not a pipe: nobody waits for who does not read
            stdin: state_file(json).step(|| "file for the state")?,
            output: self.output,
            directory: self.directory,
        };
        let mut process = HookProcess::start(&words, setting)?;
        // what is out of reach is no limit
        let deadline =
            hook.timeout.and_then(|n| Instant::now().checked_add(Duration::from_secs(n)));
        match process.wait(deadline, self.interrupts, self.init) {
            Ok(Some(WaitStatus::Exited(_, 0))) => Ok(()),
            Ok(Some(status)) => {
                let e = Error::new(ErrorKind::Hook, describe(status));
                Err(match process.last_words() {
                    Some(said) => e.hint(format!("it said: {said}")),
                    None => e,
                })
            }
            // it must not go on behind the back of a command that has failed
            Ok(None) => {
                process.kill()?;
                let seconds = hook.timeout.unwrap_or_default();
                let text = format!("did not end within its timeout of {seconds} s");
                Err(Error::new(ErrorKind::Hook, text))
            }
            Err(e) => Err(match process.kill() {
                Ok(()) => e,
                Err(left) => e.hint(format!("and it was not killed: {left}")),
            }),
        }
    }
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

fn strings(words: &[String]) -> Result<Vec<CString>> {
    let string = |word: &String| {
        CString::new(word.as_str()).map_err(|_nul| Error::invalid("has a NUL byte inside"))
    };
    words.iter().map(string).collect()
}

/// The state, to be read from its beginning.
fn state_file(state: &[u8]) -> Result<File> {
    let mut file = File::from(memfd_create("state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(state)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("ended with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        _ => "ended oddly".to_owned(),
    }
}
