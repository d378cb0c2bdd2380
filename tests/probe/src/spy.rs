//! Looking at other processes, as somebody who wants to get out would.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::raw::c_int;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::sys::{self, print_line, verdict};

/// How long to rest between two looks: there is no event for a new process.
const REST: Duration = Duration::from_millis(1);

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    match (word, args) {
        ("spy", [marker]) => Some(spy(marker)),
        ("grab-exe", [pause]) => Some(grab_exe(pause)),
        _ => None,
    }
}

/// What can be had of a process: `ok`, `OUT` where it leads to the host's file
/// `marker`, or the errno's name.
pub(crate) fn look_at(process: &str, marker: &str) -> Value {
    let at = |name: &str| format!("/proc/{process}/{name}");
    let name = |result: std::io::Result<()>| match result {
        Ok(()) => "ok".to_owned(),
        Err(e) => sys::io_name(&e),
    };
    let leads = |link: &str| match fs::metadata(at(link)) {
        Ok(_) if is_there(&format!("{}/{marker}", at(link))) => "OUT".to_owned(),
        other => name(other.map(drop)),
    };
    json!({
        "root": leads("root"),
        "cwd": leads("cwd"),
        "fds": descriptors(&at("fd"), marker),
        "exe": name(File::open(at("exe")).map(drop)),
        "exe_for_writing": name(OpenOptions::new().write(true).open(at("exe")).map(drop)),
        "environ": name(fs::read(at("environ")).map(drop)),
        "memory": name(OpenOptions::new().read(true).write(true).open(at("mem")).map(drop)),
        "maps": name(fs::read(at("maps")).map(drop)),
        "ptrace": ptrace(process),
    })
}

/// The numbers alone are no secret: what counts is where they lead.
fn descriptors(dir: &str, marker: &str) -> String {
    let up = "../".repeat(32);
    let list = match fs::read_dir(dir) {
        Err(e) => return sys::io_name(&e),
        Ok(list) => list,
    };
    let mut said = "none".to_owned();
    for path in list.flatten().map(|fd| fd.path()) {
        if is_there(&format!("{}/{up}{marker}", path.display())) {
            return "OUT".to_owned();
        }
        said = match fs::read_link(&path) {
            Ok(_) => return "ok".to_owned(),
            // closed meanwhile
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => said,
            Err(e) => sys::io_name(&e),
        };
    }
    said
}

fn ptrace(process: &str) -> String {
    let Ok(pid) = process.parse::<libc::pid_t>() else { return "not tried".to_owned() };
    // SAFETY: numbers only: the process is seized, not stopped, and let go.
    let seized = verdict(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } as c_int);
    match seized {
        Ok(()) => "ok".to_owned(),
        Err(name) => name,
    }
}

/// READY, then a line for each process that comes or changes its name, with what
/// can be had of it; SIGUSR1 asks for all of them again.
fn spy(marker: &str) -> c_int {
    let mut known = Map::new();
    let own = std::process::id().to_string();
    let set = sys::all_signals();
    // SAFETY: the set is initialised.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    print_line("READY");
    loop {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let Ok(comm) = fs::read_to_string(entry.path().join("comm")) else { continue };
            let comm = json!(comm.trim());
            if known.get(&pid) == Some(&comm) {
                continue;
            }
            let mut seen = look_at(&pid, marker);
            seen["pid"] = json!(pid);
            seen["comm"] = comm.clone();
            known.insert(pid, comm);
            print_line(&seen.to_string());
        }
        let rest = libc::timespec { tv_sec: 0, tv_nsec: i64::from(REST.subsec_nanos()) };
        // SAFETY: both live through the call, and no siginfo is asked for.
        let signal =
            unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const rest) };
        match signal {
            libc::SIGUSR1 => known.clear(),
            libc::SIGTERM => return 0,
            _ => {}
        }
    }
}

/// The attack on a runtime's binary: takes hold of the file that another process
/// executes, waits for `pause` to be there, and opens it for writing. Prints READY,
/// `held`, and what came of it.
fn grab_exe(pause: &str) -> c_int {
    let own = fs::metadata("/proc/self/exe").map(|m| (m.dev(), m.ino())).ok();
    print_line("READY");
    let held = 'search: loop {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(file) = File::open(entry.path().join("exe")) else { continue };
            if file.metadata().map(|m| (m.dev(), m.ino())).ok() != own {
                break 'search file;
            }
        }
        std::thread::sleep(REST);
    };
    print_line("held");
    while !is_there(pause) {
        std::thread::sleep(REST);
    }
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let said = loop {
        match OpenOptions::new().write(true).open(&path) {
            Ok(_) => break "OVERWRITTEN".to_owned(),
            // it still runs: the one obstacle that goes away
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => std::thread::sleep(REST),
            Err(e) => break sys::io_name(&e),
        }
    };
    print_line(&said);
    0
}

/// What can't be looked at counts as not there: a spy does not get it either.
fn is_there(path: &str) -> bool {
    fs::metadata(path).is_ok()
}
