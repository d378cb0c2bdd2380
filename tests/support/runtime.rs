//! The runtime under test: its command line, its output, its end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

/// The binary and a state directory of its own. Clones share the directory.
#[derive(Clone)]
pub struct Tare {
    binary: PathBuf,
    root: Arc<TempDir>,
    options: Vec<OsString>,
    user: Option<Arc<User>>,
}

/// An ordinary user: no name, no capability, directories of its own.
struct User {
    id: u32,
    home: TempDir,
    /// What root does for the user before the command, in the command's process.
    prepare: Option<Prepare>,
}

type Prepare = Box<dyn Fn() -> std::io::Result<()> + Send + Sync>;

/// The id of the ordinary user: high, and nobody's.
pub const USER: u32 = 1_911_911;

impl Tare {
    /// With a fresh state directory.
    pub fn new() -> Self {
        let binary = std::env::var_os("TARE_BIN");
        Tare {
            binary: binary.map_or_else(|| env!("CARGO_BIN_EXE_tare").into(), PathBuf::from),
            root: Arc::new(super::temp_dir()),
            options: Vec::new(),
            user: None,
        }
    }

    /// Run by an ordinary user with an empty home directory.
    pub fn of_user() -> Self {
        // SAFETY: nothing is done before the command.
        unsafe { Tare::of_user_after(None) }
    }

    /// The same, with steps that need root before each command, in its process.
    ///
    /// # Safety
    /// As for [`Invocation::before_exec`].
    pub unsafe fn of_user_after(prepare: Option<Prepare>) -> Self {
        Tare::run_by(USER, prepare)
    }

    /// Run by the user with this id.
    pub fn of(id: u32) -> Self {
        Tare::run_by(id, None)
    }

    fn run_by(id: u32, prepare: Option<Prepare>) -> Self {
        let mut tare = Tare::new();
        let home = super::temp_dir();
        // the build's directory may be closed to others
        let binary = home.path().join("tare");
        if std::fs::hard_link(&tare.binary, &binary).is_err() {
            // by another process: what this one has open for writing, its other
            // children have as well, and such a file can't be executed
            let copied = Command::new("cp").arg(&tare.binary).arg(&binary).status();
            assert!(copied.unwrap().success());
        }
        std::fs::create_dir(home.path().join("run")).unwrap();
        for dir in [tare.root(), home.path(), &home.path().join("run")] {
            chown(dir, Some(id), Some(id)).unwrap();
        }
        tare.binary = binary;
        tare.user = Some(Arc::new(User { id, home, prepare }));
        tare
    }

    /// The same with another binary.
    pub fn at(&self, binary: &Path) -> Self {
        Tare { binary: binary.to_owned(), ..self.clone() }
    }

    /// The user's home directory.
    pub fn home(&self) -> &Path {
        self.user.as_ref().unwrap().home.path()
    }

    /// The same with more options before each command.
    pub fn with(&self, options: &[&str]) -> Self {
        let mut tare = self.clone();
        tare.options.extend(options.iter().map(OsString::from));
        tare
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// True for tare itself, false for a runtime that it is compared with.
    pub fn is_tare(&self) -> bool {
        self.binary.file_name() == Some(OsStr::new("tare"))
    }

    /// A command with this state directory.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Invocation {
        let mut args = vec![OsString::from("--root"), self.root().into()];
        args.extend(self.options.iter().cloned());
        args.extend(words.into_iter().map(|w| w.as_ref().to_owned()));
        self.bare(args)
    }

    /// A command with exactly these words.
    pub fn bare<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Invocation {
        let mut command = with_default_signals(&self.binary);
        command.args(words).stdin(Stdio::null());
        let invocation = Invocation {
            command,
            stdout: Some(tempfile::tempfile().unwrap()),
            stderr: Some(tempfile::tempfile().unwrap()),
        };
        match &self.user {
            Some(user) => invocation.by(user),
            None => invocation,
        }
    }
}

/// A script that runs the tests in its background has them ignore SIGINT: that is no matter
/// of what they run.
fn with_default_signals(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // SAFETY: system calls, and errors that are numbers.
    unsafe { command.pre_exec(|| Ok(tare::sys::signals::reset_signals()?)) };
    command
}

/// A command that is being put together.
///
/// Output goes to files: a pipe would end only when the container has ended,
/// since `create` gives its stdio on.
pub struct Invocation {
    command: Command,
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Invocation {
    fn by(mut self, user: &Arc<User>) -> Self {
        let home = user.home.path();
        self.command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .current_dir(home);
        let user = user.clone();
        let action = move || {
            user.prepare.as_ref().map_or(Ok(()), |prepare| prepare())?;
            let id = user.id;
            // the bare calls: the C library's would have every thread of this
            // process follow, and there is none but this one after a fork.
            // SAFETY: numbers, and an empty list.
            let results = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
                    libc::syscall(libc::SYS_setresgid, id, id, id),
                    libc::syscall(libc::SYS_setresuid, id, id, id),
                ]
            };
            match results.iter().all(|result| *result == 0) {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: system calls, no allocation; the caller's promise for his own.
        unsafe { self.before_exec(action) }
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub fn stdin(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.command.stdin(fd.into());
        self
    }

    /// Output to this descriptor, not into `Output`.
    pub fn stdout(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.command.stdout(fd.into());
        self.stdout = None;
        self
    }

    pub fn stderr(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.command.stderr(fd.into());
        self.stderr = None;
        self
    }

    /// The same by way of another program: `WRAPPER WORDS -- COMMAND`. Before
    /// anything else is said of its descriptors.
    pub fn through(mut self, wrapper: &Path, words: &[&str]) -> Self {
        let mut command = with_default_signals(wrapper);
        command.args(words).arg("--").arg(self.command.get_program());
        command.args(self.command.get_args()).stdin(Stdio::null());
        self.command = command;
        self
    }

    /// Runs this in the child before the program.
    ///
    /// # Safety
    /// As for `pre_exec`: only what is allowed after a fork of a program with
    /// threads.
    pub unsafe fn before_exec(
        mut self,
        action: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.command.pre_exec(action) };
        self
    }

    /// Run by a shell that has done this before: for what only the process itself
    /// knows, such as its pid.
    pub fn through_shell(mut self, script: &str) -> Self {
        let mut shell = with_default_signals("/bin/sh");
        shell.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]);
        shell.arg(self.command.get_program()).args(self.command.get_args()).stdin(Stdio::null());
        for (key, value) in self.command.get_envs() {
            shell.env(key, value.unwrap());
        }
        self.command = shell;
        self
    }

    /// A descriptor of the host's root directory that is not close-on-exec:
    /// what a careless caller leaves open.
    pub fn with_open_root(self, number: i32) -> Self {
        let root = File::open("/").unwrap();
        // SAFETY: one system call.
        unsafe { self.before_exec(move || dup_to(root.as_raw_fd(), number)) }
    }

    /// Starts it.
    pub fn spawn(mut self) -> Running {
        if let Some(file) = &self.stdout {
            self.command.stdout(file.try_clone().unwrap());
        }
        if let Some(file) = &self.stderr {
            self.command.stderr(file.try_clone().unwrap());
        }
        let child = self.command.spawn().unwrap();
        let pidfd = pidfd_open(child.id());
        Running {
            // the debug form shows the words, for messages
            line: format!("{:?}", self.command),
            child,
            pidfd,
            stdout: self.stdout,
            stderr: self.stderr,
            waited: false,
        }
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}

/// A command that runs. Dropped before its end, it is killed.
pub struct Running {
    line: String,
    child: Child,
    pidfd: OwnedFd,
    stdout: Option<File>,
    stderr: Option<File>,
    waited: bool,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the end; past the deadline the test fails.
    pub fn wait(mut self) -> Output {
        if !self.ends_within(super::timeout()) {
            let output = self.output_so_far(-1);
            panic!("still runs after {:?}: {}\n{output:?}", super::timeout(), self.line);
        }
        let status = self.child.wait().unwrap();
        self.waited = true;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        self.output_so_far(code)
    }

    /// For a test that has waited for it in its own way.
    pub fn reaped(mut self, code: i32) -> Output {
        self.waited = true;
        self.output_so_far(code)
    }

    /// Whether it ends in this time.
    pub fn ends_within(&self, time: Duration) -> bool {
        is_readable(&self.pidfd, time)
    }

    fn output_so_far(&mut self, code: i32) -> Output {
        let text = |file: &mut Option<File>| {
            let mut bytes = Vec::new();
            if let Some(file) = file {
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Output {
            line: self.line.clone(),
            code,
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// dup2(2): the copy stays open over exec.
pub fn dup_to(from: RawFd, to: RawFd) -> std::io::Result<()> {
    // SAFETY: numbers only.
    match unsafe { libc::dup2(from, to) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether there is something to read within this time; of a pidfd: whether
/// the process ends.
pub fn is_readable(fd: &impl AsFd, time: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(time).unwrap()).unwrap() > 0
}

/// A descriptor of a process, whoever its parent is.
pub fn pidfd_open(pid: u32) -> OwnedFd {
    // SAFETY: numbers only; a descriptor that comes back is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
    }
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Output {
    /// The command line
    pub line: String,
    /// Exit code, or 128 + signal
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// It has to have succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends_with_code(0)
    }

    #[track_caller]
    pub fn ends_with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// It has to have failed with code 1 and one line that holds all of `texts`.
    #[track_caller]
    pub fn fails_with(self, texts: &[&str]) -> Self {
        self.fails_with_code(1, texts)
    }

    /// The same with another code.
    #[track_caller]
    pub fn fails_with_code(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {self:#?}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        }
        self
    }

    /// Its output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {self:#?}"))
    }
}
