//! One hook's process: started, heard, waited for, killed.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setpgid};

use super::hooks::OutputFiles;
use super::interrupts::Interrupts;
use super::protocol::{Channel, Message};
use super::spawn::wait_for_end;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::process::{self, Child, CloneHow, clone_child, pidfd_send_signal};
use crate::sys::signals;

/// Most bytes of a hook's output that are kept: the last ones.
const MAX_WORDS: usize = 4 << 10;

/// Most bytes that are read after its end: as much as a pipe holds. Who still
/// writes then is not the hook.
const MAX_REST: usize = 64 << 10;

/// How long a hook is only waited for: most have ended by then, and what they say
/// fits into the pipe.
const SOON: Duration = Duration::from_millis(50);

/// What is executed.
pub(super) struct Words<'a> {
    pub(super) path: &'a Path,
    pub(super) args: &'a [CString],
    pub(super) env: &'a [CString],
}

/// What it finds around it.
pub(super) struct Setting<'a> {
    pub(super) stdin: File,
    pub(super) output: &'a OutputFiles,
    pub(super) directory: Option<&'a Path>,
}

/// A hook that was started.
pub(super) struct HookProcess {
    child: Child,
    /// What it says before execve; `None` once it has executed the program.
    preparing: Option<Channel>,
    /// The reading end of its stdout and stderr; `None` at its end.
    pipe: Option<File>,
    words: Vec<u8>,
}

impl HookProcess {
    /// Makes a process that will have a process group of its own and execute the
    /// program; [`HookProcess::wait`] tells whether it could, since that may take long
    /// (a program on a file system that hangs).
    ///
    /// # Errors
    /// There is no process.
    pub(super) fn start(words: &Words<'_>, setting: Setting<'_>) -> Result<Self> {
        let path = CString::new(words.path.as_os_str().as_bytes())
            .map_err(|_nul| Error::invalid("path: has a NUL byte inside"))?;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).step(|| "pipe for the output")?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step(|| "pipe for the output")?;
        let (ours, theirs) = Channel::pair().step(|| "socketpair")?;
        let child = clone_child(CloneHow::default(), move || {
            let Err(error) = prepare(&setting, writer).and_then(|()| execute(&path, words));
            // nobody may be left to tell
            theirs.send(&Message::Failed(error)).unwrap_or_default();
            process::exit_now(1)
        })
        .step(|| "clone3")?;
        let pipe = Some(File::from(reader));
        Ok(HookProcess { child, preparing: Some(ours), pipe, words: Vec::new() })
    }

    /// Takes what it has said before execve.
    ///
    /// # Errors
    /// It could not execute the program.
    fn hear(&mut self) -> Result<()> {
        // the end of the stream: execve has closed the other side
        match self.preparing.take().map_or(Ok(None), |channel| channel.receive())? {
            None => Ok(()),
            Some((Message::Failed(error), _)) => Err(error),
            Some(_) => Err(Error::invalid("it spoke out of turn")),
        }
    }

    /// Waits for its end, and keeps the last of what it says. `None`: the
    /// deadline has passed.
    ///
    /// # Errors
    /// The program can't be executed; a signal for this process; the end of `init`. It
    /// is to be killed then, and with `None` too.
    pub(super) fn wait(
        &mut self,
        deadline: Option<Instant>,
        interrupts: Option<&Interrupts>,
        init: Option<BorrowedFd<'_>>,
    ) -> Result<Option<WaitStatus>> {
        let mut listens = false;
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let patience = if listens { left } else { Some(left.unwrap_or(SOON).min(SOON)) };
            let timeout = patience.map_or(PollTimeout::NONE, |patience| {
                PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = vec![PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
            fds.extend(init.map(|init| PollFd::new(init, PollFlags::POLLIN)));
            fds.extend(interrupts.map(|i| PollFd::new(i.as_fd(), PollFlags::POLLIN)));
            let preparing = self.preparing.as_ref();
            let hears = preparing.map(|_| fds.len());
            fds.extend(preparing.map(|ours| PollFd::new(ours.as_fd(), PollFlags::POLLIN)));
            let pipe = self.pipe.as_ref().filter(|_| listens);
            fds.extend(pipe.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            let ready = match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => continue,
                other => other.step(|| "poll")?,
            };
            let is_ready =
                |at: usize| fds.get(at).is_some_and(|fd: &PollFd<'_>| fd.any() == Some(true));
            let (has_ended, init_has_ended) = (is_ready(0), init.is_some() && is_ready(1));
            if hears.is_some_and(is_ready) {
                // before its end: that would only tell that there was one
                self.hear()?;
                continue;
            }
            if has_ended {
                self.listen(MAX_REST);
                return wait_for_end(self.child.pidfd.as_fd())
                    .map(Some)
                    .step(|| "wait for its end");
            }
            if let Some(interrupted) = interrupts.map(Interrupts::taken).transpose()?.flatten() {
                return Err(interrupted);
            }
            if init_has_ended {
                let text = "the container's init has ended meanwhile";
                return Err(Error::new(ErrorKind::State, text));
            }
            if ready == 0 && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            listens = true;
            self.listen(MAX_WORDS);
        }
    }

    /// Reads what is there now, up to so many bytes.
    fn listen(&mut self, most: usize) {
        let mut buffer = [0u8; MAX_WORDS];
        let mut heard = 0;
        while let Some(pipe) = &mut self.pipe
            && heard < most
        {
            match pipe.read(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // nobody has it open any more
                Ok(0) | Err(_) => self.pipe = None,
                Ok(n) => {
                    heard += n;
                    self.words.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    let over = self.words.len().saturating_sub(MAX_WORDS);
                    self.words.drain(..over);
                }
            }
        }
    }

    /// The last line of its output that says something.
    pub(super) fn last_words(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.words);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().to_owned())
    }

    /// Kills it with its process group, and reaps it.
    pub(super) fn kill(&self) -> Result<()> {
        // not reaped yet: nobody else can have the number
        match killpg(self.child.pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(Error::from(e).step("kill")),
        }
        // it may have left its group, or have ended
        pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL).unwrap_or_default();
        wait_for_end(self.child.pidfd.as_fd()).map(drop).step(|| "wait for its end")
    }
}

fn prepare(setting: &Setting<'_>, pipe: OwnedFd) -> Result<()> {
    let own = Pid::from_raw(0);
    setpgid(own, own).step(|| "make a process group")?;
    // nobody would end it for a runtime that was killed
    set_pdeathsig(Signal::SIGKILL).step(|| "prctl")?;
    signals::reset_signals().step(|| "reset signals")?;
    dup2_stdin(&setting.stdin).step(|| "stdin")?;
    dup2_stdout(setting.output.stdout.as_ref().unwrap_or(&pipe)).step(|| "stdout")?;
    dup2_stderr(setting.output.stderr.as_ref().unwrap_or(&pipe)).step(|| "stderr")?;
    if let Some(directory) = setting.directory {
        // a bundle may go before its container does
        chdir(directory).or_else(|_gone| chdir("/")).step(|| "chdir")?;
    }
    Ok(())
}

fn execute(path: &CString, words: &Words<'_>) -> Result<Infallible> {
    let Err(errno) = execve(path, words.args, words.env);
    let error = Error::from(errno).step("execute");
    Err(match errno {
        Errno::ENOENT if words.path.symlink_metadata().is_ok() => {
            error.hint("the interpreter that it names is not there")
        }
        Errno::ENOEXEC => error.hint("built for another machine, or a script without #!"),
        _ => error,
    })
}
