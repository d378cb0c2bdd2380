//! Commands whose system calls fail, and the walk over all calls of one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::exceptions;
use crate::support::{Invocation, Output, faults, temp_dir, timeout};

/// A system call, as tests/faults writes it down.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// runtime, child, grandchild, init, program1…
    pub process: String,
    /// From 1; 0 for the allocator's
    pub number: usize,
    pub name: String,
    pub args: Vec<u64>,
    /// Its path or other string
    pub text: String,
    /// Negative: an errno. `None` when it did not come back.
    pub result: Option<i64>,
    pub is_faulted: bool,
}

impl Call {
    fn parse(line: &str) -> Call {
        let fields: Vec<&str> = line.split('\t').collect();
        let args = fields[3].split(',').map(|arg| u64::from_str_radix(arg, 16).unwrap());
        Call {
            process: fields[0].to_owned(),
            number: fields[1].parse().unwrap(),
            name: fields[2].to_owned(),
            args: args.collect(),
            text: fields[4].to_owned(),
            result: fields[5].parse().ok(),
            is_faulted: fields[6] == "!",
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} call {}: {}({:x?} {:?})",
            self.process, self.number, self.name, self.args, self.text
        )
    }
}

/// A command that was followed.
#[derive(Debug)]
pub struct Followed {
    pub output: Output,
    pub calls: Vec<Call>,
}

impl Followed {
    /// The call that was made to fail, if it came to that.
    pub fn failed(&self) -> Option<&Call> {
        self.calls.iter().find(|call| call.is_faulted)
    }

    /// True when a call has failed for which the errno makes sense. It need not
    /// be the very one that was meant: what the kernel restarts by itself is
    /// counted twice, and directories have no order.
    pub fn reached(&self, step: &Step) -> bool {
        let is_slow = |call: &Call| SLOW.contains(&call.name.as_str());
        self.failed().is_some_and(|call| step.errno != "EINTR" || is_slow(call))
    }

    /// True when a call has failed by chance that the walks leave out.
    pub fn failed_where_nothing_can(&self) -> bool {
        let Some(at) = self.calls.iter().position(|call| call.is_faulted) else { return false };
        let call = &self.calls[at];
        exceptions::is_left_out(call) || exceptions::closes_a_directory(&self.calls[..at], call)
    }

    /// True when the call failed before `main` had begun: then there is the C
    /// library or Rust's start-up code to end the process, in their own way.
    pub fn failed_before_main(&self) -> bool {
        let runtime: Vec<&Call> = self.calls.iter().filter(|c| c.process == "runtime").collect();
        let Some(at) = runtime.iter().position(|c| c.is_faulted) else { return false };
        let is_exec = |c: &&&Call| c.name.starts_with("execve") && !c.is_faulted;
        let since_exec = runtime[..at].iter().rev().take_while(|c| !is_exec(c));
        // the first thing that every command does is to set SIGCHLD
        let sets_sigchld = |c: &&Call| c.name == "rt_sigaction" && c.args[0] == 17;
        !since_exec.into_iter().any(sets_sigchld) && !sets_sigchld(&runtime[at])
    }
}

/// A command and how it is followed.
pub struct Faulty<'a> {
    /// As for `--fail`
    pub faults: &'a [String],
    /// An init that takes part
    pub attach: Option<u32>,
}

impl Faulty<'_> {
    /// Runs the command; `rest` says more of it, such as where its output goes.
    pub fn run(
        &self,
        command: Invocation,
        rest: impl FnOnce(Invocation) -> Invocation,
    ) -> Followed {
        let dir = temp_dir();
        let report = dir.path().join("calls");
        let attach = self.attach.map(|pid| pid.to_string());
        let deadline = timeout().as_secs().to_string();
        let mut words = vec!["--report", report.to_str().unwrap(), "--deadline", &deadline];
        words.extend(self.faults.iter().flat_map(|fault| ["--fail", fault.as_str()]));
        words.extend(attach.iter().flat_map(|pid| ["--attach", pid.as_str()]));
        let output = rest(command.through(faults(), &words)).run();
        let text = std::fs::read_to_string(report).unwrap_or_else(|e| panic!("{e}: {output:#?}"));
        Followed { output, calls: text.lines().map(Call::parse).collect() }
    }
}

/// One step of a walk: a call that is to fail, and how.
#[derive(Debug, Clone)]
pub struct Step {
    pub call: Call,
    pub errno: &'static str,
}

impl Step {
    /// For `--fail`.
    pub fn fault(&self) -> String {
        format!("{}:*={}@{}", self.call.process, self.errno, self.call.number)
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {}", self.call, self.errno)
    }
}

/// What came of one step.
pub enum Verdict {
    /// An error that was told and undone
    Told,
    /// The command worked as ever
    Unharmed,
    /// The command did not come by there
    NotReached,
}

/// How much of a walk is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// Every call
    Whole,
    /// With `TARE_TEST_WALK=all` every call, else so many, spread
    Sample(usize),
}

/// Calls that a signal may interrupt (signal(7)).
const SLOW: [&str; 19] = [
    "read",
    "readv",
    "pread64",
    "write",
    "writev",
    "sendmsg",
    "recvmsg",
    "sendto",
    "recvfrom",
    "accept4",
    "connect",
    "poll",
    "ppoll",
    "flock",
    "wait4",
    "waitid",
    "fsync",
    "fdatasync",
    "getrandom",
];

/// How many steps are done at once: they wait for the kernel most of the time.
const AT_ONCE: usize = 4;

/// How often a call is looked for.
const PATIENCE: usize = 4;

/// All calls with EPERM, and with another errno that fits the call.
pub fn steps_of(calls: &[Call]) -> Vec<Step> {
    let mut last = "";
    let mut steps = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        if exceptions::is_left_out(call) || exceptions::closes_a_directory(&calls[..at], call) {
            continue;
        }
        let errnos = match call.name.as_str() {
            // one a signal, one a capability: of the same line of the source
            name @ ("rt_sigaction" | "prctl") if name == last => vec!["EPERM"],
            // the kernel closes in any case, and has nothing to forbid
            "close" => vec!["EIO"],
            name => vec!["EPERM", second_errno(name)],
        };
        last = &call.name;
        steps.extend(errnos.into_iter().map(|errno| Step { call: call.clone(), errno }));
    }
    steps
}

/// Slow calls, each interrupted once.
pub fn interrupts_of(calls: &[Call]) -> Vec<Step> {
    let calls = calls.iter().filter(|c| SLOW.contains(&c.name.as_str()));
    let calls = calls.filter(|call| !exceptions::is_left_out(call));
    calls.map(|call| Step { call: call.clone(), errno: "EINTR" }).collect()
}

fn second_errno(name: &str) -> &'static str {
    match name {
        "clone3" | "clone" | "vfork" => "EAGAIN",
        "read" | "write" | "fsync" | "getdents64" | "statx" | "newfstatat" | "fstatfs" => "EIO",
        "openat" | "socket" | "socketpair" | "fsopen" | "pipe2" => "EMFILE",
        "mkdirat" | "mkdir" | "symlinkat" | "linkat" | "renameat" => "ENOSPC",
        "keyctl" => "EDQUOT",
        _ => "ENOMEM",
    }
}

/// Takes each step; what went wrong is said of all together at the end.
pub fn walk(what: &str, steps: &[Step], extent: Extent, take: impl Fn(&Step) -> Verdict + Sync) {
    let all = std::env::var("TARE_TEST_WALK").is_ok_and(|value| value == "all");
    let stride = match extent {
        Extent::Sample(most) if !all => steps.len().div_ceil(most).max(1),
        _ => 1,
    };
    let chosen: Vec<&Step> = steps.iter().step_by(stride).collect();
    assert!(!chosen.is_empty(), "{what}: no calls");
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (told, unharmed, missed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(step) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let counter = match catch_unwind(AssertUnwindSafe(|| patiently(&take, step))) {
                        Ok(Verdict::Told) => &told,
                        Ok(Verdict::Unharmed) => &unharmed,
                        Ok(Verdict::NotReached) => &missed,
                        Err(panic) => {
                            wrong.lock().unwrap().push(format!("{step}: {}", words_of(&*panic)));
                            continue;
                        }
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (told, unharmed, missed) = (told.into_inner(), unharmed.into_inner(), missed.into_inner());
    let rest = if stride > 1 { " (a sample: TARE_TEST_WALK=all does all)" } else { "" };
    println!(
        "{what}: {} of {} failures tried{rest}: {told} told, {unharmed} without harm, {missed} not reached",
        chosen.len(),
        steps.len()
    );
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{what}: {} wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(missed * 10 <= chosen.len(), "{what}: {missed} calls were not reached");
}

/// One process may have to wait for another once more than it did when the calls
/// were counted, and all that follow have other numbers then: not so the next time.
fn patiently(take: &impl Fn(&Step) -> Verdict, step: &Step) -> Verdict {
    let mut tries = std::iter::repeat_with(|| take(step)).take(PATIENCE);
    tries.find(|verdict| !matches!(verdict, Verdict::NotReached)).unwrap_or(Verdict::NotReached)
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}
