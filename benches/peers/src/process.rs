//! Commands with a deadline, and how long they took.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Longer than anything here takes: one of the peers may hang for ever.
const DEADLINE: Duration = Duration::from_secs(20);
/// What has just ended still has work done for it: spaced starts wait for that.
pub(crate) const GAP: Duration = Duration::from_millis(15);

/// Kills what takes too long, and remembers that somebody wants to stop.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// What is waited for, and until when.
    current: Arc<Mutex<BTreeMap<Pid, Instant>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Takes SIGINT and SIGTERM for the whole process: to be called before any
    /// other thread is there. Programs that are started get them as usual.
    pub(crate) fn start() -> Result<Self> {
        let watch = Watch { current: Arc::default(), stop: Arc::default() };
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().context("block signals")?;
        let stop = Arc::clone(&watch.stop);
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                stop.store(true, Ordering::SeqCst);
            }
        });
        let this = watch.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(250));
                this.kill_the_late();
            }
        });
        Ok(watch)
    }

    fn kill_the_late(&self) {
        let now = Instant::now();
        for (&pid, _) in self.current().iter().filter(|(_, until)| now > **until) {
            // who is gone already needs no killing
            killpg(pid, Signal::SIGKILL).or_else(|_| kill(pid, Signal::SIGKILL)).unwrap_or(());
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends the work between two figures.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.stopped(), "interrupted");
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, BTreeMap<Pid, Instant>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a process, without taking its status away.
    fn await_end(&self, pid: Pid, deadline: Duration) -> Result<()> {
        self.current().insert(pid, Instant::now() + deadline);
        let result = loop {
            match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        self.current().remove(&pid);
        result.with_context(|| format!("wait for process {pid}")).map(drop)
    }

    /// Waits for a container's init, which came to us when the runtime that
    /// made it ended.
    pub(crate) fn reap(&self, pid: Pid) -> Result<WaitStatus> {
        self.await_end(pid, DEADLINE)?;
        waitpid(pid, None).context("waitpid")
    }
}

/// Runs commands and says what they took.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) watch: Watch,
    /// What the last command printed.
    output: PathBuf,
}

impl Runner {
    pub(crate) fn new(watch: Watch, work: &Path) -> Self {
        Runner { watch, output: work.join("output") }
    }

    /// One for commands that run at the same time as others.
    pub(crate) fn beside(&self, number: usize) -> Self {
        let output = self.output.with_extension(number.to_string());
        Runner { watch: self.watch.clone(), output }
    }

    /// Starts at least [`GAP`] after whatever ended last.
    pub(crate) fn spaced(&self, command: &mut Command) -> Result<f64> {
        std::thread::sleep(GAP);
        self.at_once(command)
    }

    /// Milliseconds from start to end. Anything but exit code 0 is an error.
    pub(crate) fn at_once(&self, command: &mut Command) -> Result<f64> {
        self.within(command, DEADLINE)
    }

    /// The same with another deadline.
    pub(crate) fn within(&self, command: &mut Command, deadline: Duration) -> Result<f64> {
        self.watch.check()?;
        self.anyway(command, deadline)
    }

    /// For cleaning up: also when somebody wants to stop.
    pub(crate) fn clean(&self, command: &mut Command) -> Result<()> {
        self.anyway(command, DEADLINE).map(drop)
    }

    fn anyway(&self, command: &mut Command, deadline: Duration) -> Result<f64> {
        // a file and no pipe: a container that waits would hold the pipe open
        let output = File::create(&self.output).context("make the output file")?;
        let errors = output.try_clone()?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let begin = Instant::now();
        let mut child = spawn(command)?;
        self.watch.await_end(Pid::from_raw(child.id().cast_signed()), deadline)?;
        let took = begin.elapsed();
        let status = child.wait()?;
        if took > deadline {
            bail!("{}: killed after {} s", name_of(command), deadline.as_secs());
        }
        if !status.success() {
            let printed = self.printed();
            let line = printed.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("");
            bail!("{}: {status}: {}", name_of(command), shortened(line.trim()));
        }
        Ok(took.as_secs_f64() * 1e3)
    }

    /// What the last command printed.
    pub(crate) fn printed(&self) -> String {
        let bytes = std::fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reaps what came to us and is not waited for: helpers of runtimes.
    pub(crate) fn reap_strays(&self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                return;
            }
        }
    }
}

/// Starts a command; the error names it.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| format!("start {}", name_of(command)))
}

/// Program and first plain word: `crun run`.
fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = [
        "run", "create", "start", "state", "list", "stats", "kill", "delete", "exec", "image",
        "unpack",
    ];
    let word = command.get_args().find(|arg| words.iter().any(|word| arg == word));
    let word = word.map(|word| format!(" {}", word.to_string_lossy())).unwrap_or_default();
    format!("{}{word}", program.to_string_lossy())
}

fn shortened(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_named_by_what_it_does() {
        let mut command = Command::new("/usr/sbin/runc");
        command.args(["--root", "/x", "delete", "run"]);
        assert_eq!(name_of(&command), "runc delete");
        assert_eq!(name_of(&Command::new("/bin/true")), "true");
    }

    #[test]
    fn commands_at_the_same_time_have_a_deadline_each() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch { current: Arc::default(), stop: Arc::default() };
        let first = Runner::new(watch, dir.path());
        let second = first.beside(1);
        let sleep = |runner: &Runner, seconds: u64| {
            let mut command = Command::new("sleep");
            runner.within(command.arg("60"), Duration::from_secs(seconds)).unwrap_err().to_string()
        };
        let errors = std::thread::scope(|scope| {
            let both = [scope.spawn(|| sleep(&first, 0)), scope.spawn(|| sleep(&second, 0))];
            while !both.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                first.watch.kill_the_late();
                std::thread::yield_now();
            }
            both.map(|thread| thread.join().unwrap())
        });
        assert_eq!(errors, ["sleep: killed after 0 s"; 2]);
        assert!(first.watch.current().is_empty() && first.output != second.output);
    }
}
