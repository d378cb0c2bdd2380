//! `kill`: signals to a container.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::pause::not_running;
use super::processes::of_namespace;
use super::record::Record;
use super::store::Entry;
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::process;
use crate::trace;

/// A signal by its number, or its name with or without SIG; 0 only looks whether there is
/// somebody to send one to (kill(2)).
///
/// # Errors
/// Neither of them.
pub fn parse_signal(text: &str) -> Result<i32> {
    let unknown =
        || Error::invalid(format!("unknown signal {text:?} (a name like TERM, or 0..64)"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time_signal(name) {
        return Ok(number);
    }
    format!("SIG{name}").parse::<Signal>().map(|s| s as i32).map_err(|_unknown| unknown())
}

/// RTMIN, RTMIN+n, RTMAX, RTMAX-n.
fn real_time_signal(name: &str) -> Option<i32> {
    // as glibc's SIGRTMIN: programs and the callers' tables know this one
    let (min, max) = (34, 64);
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        min + offset(rest, '+')?
    } else {
        max - offset(name.strip_prefix("RTMAX")?, '-')?
    };
    (min..=max).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse().ok() }
}

/// Sends a signal to init; with `all`, to every process that the container has, be it
/// none: callers end what may be left of one that has stopped.
///
/// # Errors
/// [`crate::error::phrase::NOT_RUNNING`] when there is no init to send it to.
pub fn kill(entry: &Entry, signal: i32, all: bool) -> Result<()> {
    let record = entry.load_settled()?.ok_or_else(not_running)?;
    if !all && (record.own_pid_namespace || signal != libc::SIGKILL) {
        return kill_init(&record, signal);
    }
    match kill_all(&record, signal) {
        Ok(false) if !all => Err(not_running()),
        // it has ended meanwhile
        Err(_) if all && record.has_ended()? => Ok(()),
        other => other.map(drop),
    }
}

fn kill_init(record: &Record, signal: i32) -> Result<()> {
    let init = record.init.ok_or_else(not_running)?;
    let pidfd = init.open()?.ok_or_else(not_running)?;
    crate::logging::debug(|| format!("signal {signal} for process {}", init.pid));
    trace::step_on("send a signal", ("signal", &signal), || {
        match process::pidfd_send_signal(pidfd.as_fd(), signal) {
            Err(Errno::ESRCH) => Err(not_running()),
            other => other.step(|| format!("send signal {signal} to process {}", init.pid)),
        }
    })
}

/// False: there is nobody.
fn kill_all(record: &Record, signal: i32) -> Result<bool> {
    if record.cgroup.path.as_os_str().is_empty() {
        return kill_pid_namespace(record, signal);
    }
    if record.has_ended()? {
        return Ok(false);
    }
    let cgroup = match Cgroup::open(record.cgroup.clone()) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    if !cgroup.is_populated()? {
        return Ok(false);
    }
    match signal {
        libc::SIGKILL => trace::step("kill the cgroup", || cgroup.kill()),
        signal => trace::step("send signals", || cgroup.signal(signal)),
    }?;
    Ok(true)
}

/// Without a cgroup of its own, the container has a pid namespace of its own.
fn kill_pid_namespace(record: &Record, signal: i32) -> Result<bool> {
    if record.has_ended()? {
        return Ok(false);
    }
    if signal == libc::SIGKILL {
        // the end of init is the end of all
        return kill_init(record, signal).map(|()| true);
    }
    for (pid, pidfd) in of_namespace(record)? {
        match process::pidfd_send_signal(pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => {
                return Err(Error::from(e).step(format!("send signal {signal} to process {pid}")));
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+1", 35),
            ("64", 64),
            ("0", 0),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "65", "-1", "SIG", "BANANA", "RTMIN+99", "SIGSIGTERM"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
