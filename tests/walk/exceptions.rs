//! Calls whose failure says nothing, each with its reason.

use crate::faulty::Call;

/// Directories that are closed after they were read: std ends a program that
/// can't close one, which no file system does.
pub fn closes_a_directory(before: &[Call], call: &Call) -> bool {
    let of_it = |c: &&Call| c.process == call.process && c.args[0] == call.args[0];
    let mut earlier = before.iter().rev().filter(of_it).filter(|c| c.number > 0);
    call.name == "close"
        && earlier
            .find(|c| ["getdents64", "close"].contains(&c.name.as_str()))
            .is_some_and(|c| c.name == "getdents64")
}

/// Whether a call is left out of the walks.
pub fn is_left_out(call: &Call) -> bool {
    if call.number == 0 {
        // the allocator's: without memory a Rust program ends with a signal,
        // which crash.rs covers; and futex, whose wake-ups can't fail
        return true;
    }
    let (name, args) = (call.name.as_str(), &call.args);
    match name {
        // a debug build looks whether a descriptor is open before it closes it
        "fcntl" => args[1] == 1,
        // there is nothing that a program could do instead
        "exit_group" | "exit" | "rt_sigreturn" => true,
        // the seeds of std's hash maps: std ends a program that gets none
        "getrandom" => true,
        // these have no way to fail; Rust and the C library do not look
        "getpid" | "gettid" | "getppid" | "geteuid" | "getuid" | "getegid" | "umask" => true,
        // one's own capabilities are always told; without an answer, tare takes its
        // caller for an ordinary user, whose containers differ
        "capget" => call.process == "runtime",
        // what is said is said to nobody then
        "write" => args[0] == 2,
        _ => false,
    }
}
