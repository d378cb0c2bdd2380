//! The tracer: follows a command and what it makes from call to call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::fault::Fault;
use crate::stop::{self, Stop};
use crate::{calls, registers};

/// Exit code after the deadline.
const TIMED_OUT: u8 = 124;

/// PTRACE_EVENT_STOP: a seized process is there, or was told to stop.
const EVENT_STOP: i32 = 128;

const CLONE_VM: u64 = 0x100;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_THREAD: u64 = 0x1_0000;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) faults: Vec<Fault>,
    pub(crate) attach: Option<i32>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) deadline: Duration,
}

/// A system call of a process.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) process: String,
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) args: [u64; 6],
    pub(crate) text: String,
    /// `None` while it has not come back
    pub(crate) result: Option<i64>,
    pub(crate) is_faulted: bool,
}

/// A process that is followed.
#[derive(Debug, Default)]
struct Process {
    name: String,
    calls: usize,
    /// False before the command's first execve
    counts: bool,
    /// The call it is in, as an index into all calls
    inside: Option<usize>,
    fault: Option<Errno>,
    /// Flags of the clone that it is in; `None` for one without
    clone_flags: Option<u64>,
}

/// Follows processes until the command ends.
#[derive(Debug)]
pub(crate) struct Tracer {
    options: Options,
    command: Pid,
    processes: BTreeMap<Pid, Process>,
    /// Stopped before their maker has told of them
    early: BTreeSet<Pid>,
    made: BTreeMap<&'static str, usize>,
    calls: Vec<Call>,
    watched: Arc<Mutex<BTreeSet<Pid>>>,
    timed_out: Arc<AtomicBool>,
}

impl Tracer {
    /// Takes hold of a process that has stopped itself right before its execve.
    pub(crate) fn new(options: Options, command: i32) -> Result<Self> {
        let command = Pid::from_raw(command);
        let mut tracer = Tracer {
            command,
            processes: BTreeMap::new(),
            early: BTreeSet::new(),
            made: BTreeMap::new(),
            calls: Vec::new(),
            watched: Arc::default(),
            timed_out: Arc::default(),
            options,
        };
        waitpid(command, Some(WaitPidFlag::WUNTRACED))?;
        tracer.take(command, "runtime", false)?;
        kill(command, Signal::SIGCONT)?;
        if let Some(pid) = tracer.options.attach.map(Pid::from_raw) {
            tracer.take(pid, "init", true)?;
            ptrace::interrupt(pid)?;
        }
        tracer.watch();
        Ok(tracer)
    }

    fn take(&mut self, pid: Pid, name: &str, counts: bool) -> Result<()> {
        use ptrace::Options;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(pid, options)?;
        self.know(pid, Process { name: name.to_owned(), counts, ..Process::default() });
        Ok(())
    }

    fn know(&mut self, pid: Pid, process: Process) {
        self.processes.insert(pid, process);
        self.watched.lock().unwrap_or_else(|e| e.into_inner()).insert(pid);
    }

    fn forget(&mut self, pid: Pid) {
        self.processes.remove(&pid);
        self.watched.lock().unwrap_or_else(|e| e.into_inner()).remove(&pid);
    }

    /// Ends everything past the deadline: a test must not hang with what it tests.
    fn watch(&self) {
        let (watched, timed_out) = (self.watched.clone(), self.timed_out.clone());
        let deadline = self.options.deadline;
        std::thread::spawn(move || {
            std::thread::sleep(deadline);
            timed_out.store(true, Ordering::SeqCst);
            for pid in watched.lock().unwrap_or_else(|e| e.into_inner()).iter() {
                kill(*pid, Signal::SIGKILL).unwrap_or_default();
            }
        });
    }

    /// Until the command ends; its exit code.
    pub(crate) fn run(mut self) -> Result<u8> {
        let code = loop {
            let event = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if let Some(code) = self.ended(&event) {
                break code;
            }
            match self.step(event) {
                // killed in its stop
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(e),
            }
        };
        self.write_report();
        Ok(if self.timed_out.load(Ordering::SeqCst) { TIMED_OUT } else { code })
    }

    fn ended(&mut self, event: &WaitStatus) -> Option<u8> {
        let (pid, code) = match event {
            WaitStatus::Exited(pid, code) => (*pid, *code),
            WaitStatus::Signaled(pid, signal, _) => (*pid, 128 + *signal as i32),
            _ => return None,
        };
        self.forget(pid);
        (pid == self.command).then(|| u8::try_from(code).unwrap_or(TIMED_OUT))
    }

    fn step(&mut self, event: WaitStatus) -> Result<()> {
        let (pid, signal) = match event {
            WaitStatus::PtraceSyscall(pid) => {
                match stop::place(pid)? {
                    Stop::Entry => self.enter(pid)?,
                    Stop::Exit => self.leave(pid)?,
                    Stop::Elsewhere => {}
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if !self.processes.contains_key(&pid) {
                    self.early.insert(pid);
                    return Ok(());
                }
                match event {
                    libc::PTRACE_EVENT_EXEC if self.has_become_another(pid) => {
                        self.forget(pid);
                        return ptrace::detach(pid, None);
                    }
                    libc::PTRACE_EVENT_CLONE
                    | libc::PTRACE_EVENT_FORK
                    | libc::PTRACE_EVENT_VFORK => self.adopt(pid)?,
                    EVENT_STOP => {}
                    _ => {}
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => return Ok(()),
        };
        self.go_on(pid, signal)
    }

    /// After the last fault nobody is followed any more: that is faster.
    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) -> Result<()> {
        let faults = &self.options.faults;
        let is_over = !faults.is_empty()
            && faults.iter().all(Fault::is_done)
            && self.processes.values().all(|process| process.fault.is_none());
        if is_over {
            // still watched: it may hang without us
            self.processes.remove(&pid);
            return ptrace::detach(pid, signal);
        }
        ptrace::syscall(pid, signal)
    }

    fn enter(&mut self, pid: Pid) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        let (number, args) = registers::call(pid)?;
        process.clone_flags = match number {
            libc::SYS_clone3 => read_u64(pid, args[0]),
            libc::SYS_clone => Some(args[0] & !CLONE_PIDFD),
            _ => None,
        };
        if !process.counts {
            return Ok(());
        }
        // how often the allocator asks depends on where the kernel has put things,
        // and how often threads wait on who comes first: no number for those
        let is_numbered = !calls::is_by_chance(number);
        process.calls += usize::from(is_numbered);
        let text = calls::text_argument(number).map(|index| read_text(pid, args[index]));
        let mut call = Call {
            process: process.name.clone(),
            number: if is_numbered { process.calls } else { 0 },
            name: calls::name(number),
            args,
            text: text.unwrap_or_default(),
            result: None,
            is_faulted: false,
        };
        process.fault = self.options.faults.iter_mut().find_map(|fault| fault.answer(&call));
        call.is_faulted = process.fault.is_some();
        process.inside = Some(self.calls.len());
        self.calls.push(call);
        if process.fault.is_some() && number != libc::SYS_close {
            registers::skip(pid)?;
        }
        Ok(())
    }

    fn leave(&mut self, pid: Pid) -> Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        if let Some(errno) = process.fault.take() {
            registers::fail(pid, errno)?;
        }
        if let Some(call) = process.inside.take().and_then(|at| self.calls.get_mut(at)) {
            call.result = Some(registers::result(pid)?);
        }
        Ok(())
    }

    /// A successful execve: the runtime may execute itself, anyone else becomes
    /// a program that is none of ours.
    fn has_become_another(&mut self, pid: Pid) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return true };
        if pid == self.command {
            process.counts = true;
            return false;
        }
        if let Some(call) = process.inside.and_then(|at| self.calls.get_mut(at)) {
            call.result = Some(0);
        }
        true
    }

    /// The news of a clone, from who made it.
    fn adopt(&mut self, maker: Pid) -> Result<()> {
        let Ok(child) = i32::try_from(ptrace::getevent(maker)?).map(Pid::from_raw) else {
            return Ok(());
        };
        let Some(process) = self.processes.get(&maker) else { return Ok(()) };
        let flags = process.clone_flags.unwrap_or_default();
        let kind = match process.name.as_str() {
            _ if flags & CLONE_THREAD != 0 => "thread",
            _ if flags & CLONE_PIDFD == 0 || flags & CLONE_VM != 0 => "program",
            "runtime" => "child",
            // what init makes beside itself is a hook
            _ if flags & CLONE_PARENT == 0 => "program",
            _ => "grandchild",
        };
        let number = self.made.entry(kind).or_default();
        *number += 1;
        let name = match (kind, *number) {
            ("child" | "grandchild", 1) => kind.to_owned(),
            (kind, n) => format!("{kind}{n}"),
        };
        let counts = process.counts;
        self.know(child, Process { name, counts, ..Process::default() });
        match self.early.remove(&child) {
            true => self.go_on(child, None),
            false => Ok(()),
        }
    }

    fn write_report(&self) {
        let Some(path) = &self.options.report else { return };
        let mut text = String::new();
        for call in &self.calls {
            let args: Vec<String> = call.args.iter().map(|arg| format!("{arg:x}")).collect();
            let result = call.result.map_or_else(|| "-".to_owned(), |result| result.to_string());
            let (process, number, name) = (&call.process, call.number, &call.name);
            let (string, mark) = (call.text.escape_debug(), if call.is_faulted { "!" } else { "" });
            let args = args.join(",");
            // writing into a string can't fail
            writeln!(text, "{process}\t{number}\t{name}\t{args}\t{string}\t{result}\t{mark}")
                .unwrap_or_default();
        }
        let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(e) = written {
            eprintln!("tare-faults: {}: {e}", path.display());
        }
    }
}

fn read_u64(pid: Pid, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// A string of a process, cut at 255 bytes.
fn read_text(pid: Pid, address: u64) -> String {
    let mut bytes = [0; 255];
    let read = File::open(format!("/proc/{pid}/mem"))
        .and_then(|memory| memory.read_at(&mut bytes, address))
        .unwrap_or_default();
    let bytes = bytes.get(..read).unwrap_or_default();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
