//! Words that wait: for signals, children, input.

use std::os::raw::c_int;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::winsize;
use crate::sys::{self, all_signals, print_line, signal_name, signal_number};

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    let number = |n: usize| args.get(n).and_then(|v| v.parse::<u32>().ok());
    Some(match word {
        "wait" => wait(number(0).unwrap_or(0)),
        "ready-fifo" => ready_fifo(args.first()?),
        "sleep-forever" => sleep_forever(),
        "leave-first-thread" => leave_first_thread(),
        "kill-self" => kill_self(args.first()?),
        "children" => children(number(0)?, args.get(1) == Some(&"setsid")),
        "abandon" => abandon(number(0)?),
        "spawn-orphans" => spawn_orphans(number(0)?),
        "fork-until-denied" => fork_until_denied(number(0)?),
        "echo-stdin" => echo_stdin(),
        "winsize" => print_winsize(),
        _ => return None,
    })
}

/// Blocks every signal, so that none is lost between READY and the wait.
pub(crate) fn block_all() -> libc::sigset_t {
    let set = all_signals();
    // SAFETY: the set is initialised.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    set
}

pub(crate) fn next_signal(set: &libc::sigset_t) -> c_int {
    let mut signal = 0;
    // SAFETY: the set is initialised, and `signal` is a place to write to.
    unsafe { libc::sigwait(set, &raw mut signal) };
    signal
}

/// READY, then a line for each signal; SIGTERM ends.
fn wait(code: u32) -> c_int {
    let set = block_all();
    print_line("READY");
    loop {
        let signal = next_signal(&set);
        if signal == libc::SIGCHLD {
            reap();
            continue;
        }
        print_line(&format!("GOT {}", signal_name(signal)));
        if signal == libc::SIGTERM {
            return c_int::try_from(code).unwrap_or(0);
        }
    }
}

fn reap() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn ready_fifo(path: &str) -> c_int {
    let set = block_all();
    if let Err(e) = sys::append_line(path, "READY") {
        print_line(&sys::io_name(&e));
        return 1;
    }
    while next_signal(&set) != libc::SIGTERM {}
    0
}

fn sleep_forever() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// Goes on in a second thread, and ends the first one alone.
fn leave_first_thread() -> ! {
    block_all();
    std::thread::spawn(|| exit(wait(0)));
    // SAFETY: a number; nothing of this thread is used by the other one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    sleep_forever()
}

fn kill_self(name: &str) -> c_int {
    let Some(signal) = signal_number(name) else {
        return 64;
    };
    // SAFETY: numbers only. A core file would be left in the test's directory.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::kill(libc::getpid(), signal);
    }
    // the kernel spares the init of a pid namespace
    print_line("survived");
    0
}

/// Forks; true in the child.
pub(crate) fn fork() -> Result<Option<libc::pid_t>, String> {
    // SAFETY: this program has one thread.
    let pid = unsafe { libc::fork() };
    sys::verdict(pid)?;
    Ok((pid != 0).then_some(pid))
}

fn exit(code: c_int) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Children that ignore what can be ignored, so that only SIGKILL ends them.
fn children(count: u32, in_own_session: bool) -> c_int {
    let set = block_all();
    let mut ids = Vec::new();
    for _ in 0..count {
        match fork() {
            Ok(Some(pid)) => ids.push(pid),
            Ok(None) => {
                if in_own_session {
                    // SAFETY: no arguments.
                    unsafe { libc::setsid() };
                }
                sleep_forever()
            }
            Err(name) => {
                print_line(&name);
                return 1;
            }
        }
    }
    print_line(&json!({"children": ids}).to_string());
    print_line("READY");
    while next_signal(&set) != libc::SIGTERM {}
    0
}

fn abandon(count: u32) -> c_int {
    block_all();
    for _ in 0..count {
        if let Ok(None) = fork() {
            // SAFETY: no arguments.
            unsafe { libc::setsid() };
            sleep_forever();
        }
    }
    print_line("LEAVING");
    0
}

/// Makes processes whose parent is gone, lets them exit, and looks whether
/// pid 1 has reaped them: a zombie still has a directory in /proc.
fn spawn_orphans(count: u32) -> c_int {
    let mut orphans = Vec::new();
    for _ in 0..count {
        match orphan() {
            Ok(pid) => orphans.push(pid),
            Err(name) => {
                print_line(&name);
                return 1;
            }
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let is_there = |pid: &libc::pid_t| std::fs::metadata(format!("/proc/{pid}")).is_ok();
    while orphans.iter().any(is_there) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let left = orphans.iter().filter(|pid| is_there(pid)).count();
    print_line(&json!({"orphans": count, "left": left}).to_string());
    0
}

/// A grandchild whose parent has ended; its id comes by a pipe.
fn orphan() -> Result<libc::pid_t, String> {
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors.
    sys::verdict(unsafe { libc::pipe(pipe.as_mut_ptr()) })?;
    let Some(child) = fork()? else {
        match fork() {
            Ok(None) => exit(0),
            Ok(Some(pid)) => sys::write_all(pipe[1], &pid.to_ne_bytes()),
            Err(_) => exit(1),
        }
        exit(0);
    };
    let mut bytes = [0; 4];
    // SAFETY: four bytes of room; both descriptors are ours to close.
    unsafe {
        libc::read(pipe[0], bytes.as_mut_ptr().cast(), 4);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    Ok(libc::pid_t::from_ne_bytes(bytes))
}

fn fork_until_denied(most: u32) -> c_int {
    let mut made = 0;
    let mut why = String::from("never");
    while made < most {
        match fork() {
            Ok(Some(_)) => made += 1,
            Ok(None) => sleep_forever(),
            Err(name) => {
                why = name;
                break;
            }
        }
    }
    print_line(&json!({"made": made, "denied": why}).to_string());
    0
}

fn echo_stdin() -> c_int {
    let mut buffer = [0_u8; 4096];
    loop {
        // SAFETY: the length is the buffer's.
        let n = unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(n) {
            Ok(0) => return 0,
            Ok(n) => sys::write_all(1, &buffer[..n]),
            Err(_) if sys::last_errno() == libc::EINTR => {}
            // a terminal whose other side is gone
            Err(_) => return 1,
        }
    }
}

/// The size now and at each SIGWINCH; SIGTERM ends.
fn print_winsize() -> c_int {
    let set = block_all();
    loop {
        match winsize(0) {
            Some(((rows, columns), (0, 0))) => print_line(&format!("SIZE {rows}x{columns}")),
            Some(((rows, columns), (width, height))) => {
                print_line(&format!("SIZE {rows}x{columns} PIXELS {width}x{height}"));
            }
            None => print_line("no terminal"),
        }
        loop {
            match next_signal(&set) {
                libc::SIGWINCH => break,
                libc::SIGTERM | libc::SIGHUP => return 0,
                _ => {}
            }
        }
    }
}
