//! CRIU's process: started, asked, heard, waited for.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{
    Pid, dup2_stderr, dup2_stdout, execve, getpid, getppid, pipe2, read, setpgid, write,
};

use super::log;
use super::message::{Feature, Kind, Options, Response, feature_request, reply, request};
use super::wire::Message;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sandbox::Interrupts;
use crate::sys::process::{self, Child, CloneHow, clone_child, pidfd_send_signal};
use crate::sys::signals;
use crate::sys::uninterrupted;

/// Where programs are if the caller has no PATH: CRIU calls some of its own.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The oldest that knows cgroup2's freezer.
const OLDEST: (u64, u64, u64) = (3, 14, 0);

/// Most bytes of a message: those of CRIU have some hundred.
const MAX_MESSAGE: usize = 64 << 10;

/// What CRIU's process finds around it.
#[derive(Debug, Default)]
pub(crate) struct Setting<'a> {
    /// Where it begins.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// It waits for [`Criu::go_on`].
    pub(crate) waits: bool,
    /// The mount namespace that it is in, if not the caller's.
    pub(crate) view: Option<BorrowedFd<'a>>,
    /// Descriptors that it keeps, under their numbers.
    pub(crate) keeps: Vec<BorrowedFd<'a>>,
}

/// A CRIU that serves this process.
#[derive(Debug)]
pub(crate) struct Criu {
    child: Child,
    socket: OwnedFd,
    gate: OwnedFd,
    words: File,
}

/// What CRIU says on its way, with the descriptor that comes along.
pub(crate) struct Notice<'a> {
    pub(crate) script: &'a str,
    pub(crate) pid: i32,
    pub(crate) fd: Option<OwnedFd>,
}

impl Criu {
    /// Starts it.
    ///
    /// # Errors
    /// It is not installed.
    pub(crate) fn start(setting: Setting<'_>) -> Result<Self> {
        let program = find()?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .step(|| "socketpair for criu")?;
        let (closed, gate) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step(|| "pipe for criu")?;
        let words = File::from(memfd_create("criu", MFdFlags::MFD_CLOEXEC)?);
        let how = CloneHow { cgroup: setting.cgroup, ..CloneHow::default() };
        let parent = getpid();
        let child = clone_child(how, || {
            let ends = Ends { socket: theirs.as_fd(), gate: closed.as_fd(), parent };
            let Err(e) = enter(&program, &setting, &ends, &words);
            // read as one of CRIU's own would be
            let text = format!("Error (tare): {e}\n");
            write(&words, text.as_bytes()).unwrap_or_default();
            process::exit_now(127)
        })
        .step(|| "start criu: clone3")?;
        let criu = Criu { child, socket, gate, words };
        if !setting.waits {
            criu.go_on()?;
        }
        Ok(criu)
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Lets one that waits begin.
    pub(crate) fn go_on(&self) -> Result<()> {
        uninterrupted(|| write(&self.gate, b"1")).map(drop).step(|| "let criu begin")
    }

    /// Refuses one that is too old; the version as CRIU's own number has it, 31701 for
    /// 3.17.1.
    pub(crate) fn check_version() -> Result<(u64, u64, u64)> {
        let mut criu = Criu::start(Setting::default())?;
        let answer = criu.ask(&request(Kind::Version, None), None, |_| Ok(()), None)?;
        criu.finish()?;
        let (major, minor, sublevel) = answer.version;
        if answer.version < OLDEST {
            return Err(Error::unsupported(format!(
                "criu {major}.{minor}.{sublevel} is too old: cgroup2 needs 3.14 or newer"
            )));
        }
        Ok(answer.version)
    }

    /// Whether this kernel and this CRIU have a feature.
    pub(crate) fn has(feature: Feature) -> Result<bool> {
        let mut criu = Criu::start(Setting::default())?;
        let answer = criu.ask(&feature_request(feature), None, |_| Ok(()), None)?;
        criu.finish()?;
        Ok(answer.features.contains(&(feature as u64)))
    }

    /// Asks for something and answers its notices; an error of `notice` makes CRIU
    /// give up. `log` is where it writes.
    ///
    /// # Errors
    /// What `notice` said; the first error in CRIU's log; a signal, if `interrupts`
    /// watches for one and the container is not restored yet.
    pub(crate) fn call(
        &mut self,
        kind: Kind,
        options: &Options,
        log: &Path,
        notice: impl FnMut(Notice<'_>) -> Result<()>,
        interrupts: Option<&Interrupts>,
    ) -> Result<Response> {
        self.ask(&request(kind, Some(options)), Some(log), notice, interrupts)
    }

    fn ask(
        &mut self,
        request: &Message,
        log: Option<&Path>,
        mut notice: impl FnMut(Notice<'_>) -> Result<()>,
        interrupts: Option<&Interrupts>,
    ) -> Result<Response> {
        match self.say(request) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(self.explain(None, log)),
            other => other.step(|| "ask criu")?,
        }
        let mut refused = None;
        let mut watched = interrupts;
        loop {
            watched.map_or(Ok(()), |i| i.wait_for(self.socket.as_fd()))?;
            let Some((response, fd)) = self.hear()? else {
                return Err(refused.unwrap_or_else(|| self.explain(None, log)));
            };
            if response.kind != Kind::Notify as u64 {
                return match (refused, response.success) {
                    (Some(e), _) => Err(e),
                    (None, true) => Ok(response),
                    (None, false) => Err(self.explain(Some(&response), log)),
                };
            }
            // all is there, and about to go on: a signal is the container's from here on
            watched = watched.filter(|_| response.script != "post-restore");
            let done = notice(Notice { script: &response.script, pid: response.pid, fd });
            // an answer to one that has gone finds its end above
            self.say(&reply(done.is_ok())).unwrap_or_default();
            refused = refused.or(done.err());
        }
    }

    fn say(&self, message: &Message) -> nix::Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL;
        uninterrupted(|| send(self.socket.as_raw_fd(), message.as_bytes(), flags)).map(drop)
    }

    /// The next message; `None` at the end.
    fn hear(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut room = nix::cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut room), flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                other => break other.step(|| "listen to criu")?,
            }
        };
        let mut fd = None;
        for control in received.cmsgs().step(|| "listen to criu")? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                fd = fds.first().and_then(|fd| process::adopt_fd(*fd));
            }
        }
        let length = received.bytes;
        match buffer.get(..length) {
            None | Some([]) => Ok(None),
            Some(bytes) => Ok(Some((Response::parse(bytes)?, fd))),
        }
    }

    /// Why it has failed: by its log, by its own words, or by its answer.
    fn explain(&mut self, response: Option<&Response>, log: Option<&Path>) -> Error {
        let mut said = String::new();
        let read = self.words.seek(SeekFrom::Start(0));
        read.and_then(|_| self.words.read_to_string(&mut said)).unwrap_or_default();
        let by_log = log.and_then(|path| log::read(path).map(|text| (text, path)));
        if let Some((text, path)) = by_log {
            let at = format!("criu's log is {}", path.display());
            return Error::new(ErrorKind::System, format!("criu: {text}")).hint(at);
        }
        let text = log::first_error(&said)
            .or_else(|| response.map(|r| r.message.clone()).filter(|text| !text.is_empty()))
            .or_else(|| match response.map(|r| r.errno) {
                None | Some(0) => None,
                Some(errno) => Some(crate::error::errno_text(Errno::from_raw(errno.abs()))),
            });
        let text = text.unwrap_or_else(|| "it has ended without a word".to_owned());
        Error::new(ErrorKind::System, format!("criu: {text}"))
            .hint("criu check says whether it can work on this kernel")
    }

    /// Lets it end, and reaps it.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.socket);
        reap(&self.child)
    }

    /// Kills it, and reaps it.
    pub(crate) fn kill(self) -> Result<()> {
        match pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => reap(&self.child),
            Err(e) => Err(Error::from(e).step("kill criu")),
        }
    }
}

fn reap(child: &Child) -> Result<()> {
    uninterrupted(|| waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED))
        .map(drop)
        .step(|| "wait for criu")
}

/// The program in PATH.
fn find() -> Result<PathBuf> {
    let path = path();
    let candidates = std::env::split_paths(&path).map(|dir| dir.join("criu"));
    let mut there = candidates.filter(|candidate| {
        crate::sys::fs::faccessat2(candidate, libc::X_OK, 0).is_ok() && candidate.is_file()
    });
    there.next().ok_or_else(|| {
        let message = "there is no criu in PATH, which saves and restores processes";
        Error::unsupported(message).hint("install the package criu: see https://criu.org")
    })
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| USUAL_PATH.into())
}

/// What joins the child with its maker.
struct Ends<'a> {
    socket: BorrowedFd<'a>,
    gate: BorrowedFd<'a>,
    parent: Pid,
}

/// In the child: to CRIU's program.
fn enter(
    program: &Path,
    setting: &Setting<'_>,
    ends: &Ends<'_>,
    words: &File,
) -> Result<Infallible> {
    let socket = ends.socket;
    let needed = [socket, ends.gate, words.as_fd()].into_iter().chain(setting.view);
    let needed: Vec<RawFd> =
        needed.chain(setting.keeps.iter().copied()).map(|fd| fd.as_raw_fd()).collect();
    // the other end of the gate is among the rest: with it, nobody's end would be heard
    process::close_all_but(3, &needed).step(|| "close descriptors")?;
    // one that restores would go on behind everybody's back without this command; one
    // that saves has the container's processes in its hands, and has to let them go
    if setting.waits {
        set_pdeathsig(Signal::SIGKILL).step(|| "prctl")?;
        // no signal comes of a parent that ended before
        if getppid() != ends.parent {
            process::exit_now(1);
        }
    } else {
        // ^C is for this command alone, which lets CRIU finish
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).step(|| "make a process group")?;
    }
    signals::reset_signals().step(|| "reset signals")?;
    if uninterrupted(|| read(ends.gate, &mut [0; 1])).step(|| "wait")? == 0 {
        process::exit_now(1);
    }
    dup2_stdout(words).step(|| "stdout")?;
    dup2_stderr(words).step(|| "stderr")?;
    if let Some(view) = setting.view {
        setns(view, CloneFlags::CLONE_NEWNS).step(|| "enter the mount namespace for criu")?;
    }
    for fd in setting.keeps.iter().chain([&socket]) {
        process::pass_on(fd.as_raw_fd()).step(|| "pass a descriptor on")?;
    }
    let program = CString::new(program.as_os_str().as_bytes()).map_err(|_nul| Errno::EINVAL)?;
    let number = CString::new(socket.as_raw_fd().to_string()).unwrap_or_default();
    let args = [c"criu".to_owned(), c"swrk".to_owned(), number];
    let Err(errno) = execve(&program, &args, &environment());
    Err(Error::from(errno).step("execute criu"))
}

/// The caller's, with a PATH.
fn environment() -> Vec<CString> {
    let others = std::env::vars_os().filter(|(key, _)| key != "PATH" && key != "NOTIFY_SOCKET");
    others
        .chain([("PATH".into(), path())])
        .filter_map(|(key, value)| {
            let text = [key.into_vec(), value.into_vec()].join(&b'=');
            CString::new(text).ok()
        })
        .collect()
}
