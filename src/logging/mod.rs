//! The log: text or JSON lines, appended to a file, and what goes to stderr.
//!
//! containerd's shim takes the last line with level `error` for the reason of a
//! failure, and fails on a line that it can't parse: nothing else may ever be
//! written there.

mod file;
mod line;

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result, one_line};
use file::LogFile;
pub(crate) use file::open_output;
use line::Entry;

/// Steps that are kept for the case that a later one fails: the last ones.
const MOST_STEPS: usize = 64;

/// Where the lines go, and which.
#[derive(Debug)]
struct Log {
    file: Option<LogFile>,
    json: bool,
    debug: bool,
    /// What the command has done so far, unless `debug` has written it already.
    steps: Mutex<VecDeque<(OffsetDateTime, String)>>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log once, at the start of a command.
///
/// # Errors
/// The file can't be opened for appending.
pub fn open(path: Option<&Path>, json: bool, debug: bool) -> Result<()> {
    let file = path.map(LogFile::open).transpose()?;
    // a second call has nothing to say: the first one holds
    LOG.set(Log { file, json, debug, steps: Mutex::default() }).unwrap_or_default();
    Ok(())
}

/// The reason why the command fails: goes to the log, and before it what has been
/// done up to there; `main` prints it.
///
/// With `cause`, which `message` ends with, its parts are fields of their own.
pub fn error(message: &str, cause: Option<&Error>) {
    let Some((log, file)) = LOG.get().and_then(|log| Some((log, log.file.as_ref()?))) else {
        return;
    };
    let steps = std::mem::take(&mut *log.steps.lock().unwrap_or_else(PoisonError::into_inner));
    let mut lines: String = steps
        .iter()
        .map(|(time, step)| Entry::new("debug", step, format(*time)).line(log.json))
        .collect();
    let mut entry = Entry::new("error", &one_line(message), now());
    if let Some(cause) = cause {
        entry.explain(message, cause);
    }
    lines.push_str(&entry.line(log.json));
    // one write: nobody's lines come in between
    file.append(lines.as_bytes());
}

/// Something that a person should know, and that is no failure.
pub fn warn(message: &str) {
    if LOG.get().is_none_or(|log| log.file.is_none()) {
        // what can't be written to stderr has no other place to go
        writeln!(std::io::stderr(), "tare: warning: {message}").unwrap_or_default();
    }
    entry("warning", message);
}

/// A step. With `--debug` it is told at once, else only if the command fails, and
/// only in the log's file.
pub fn debug(message: impl FnOnce() -> String) {
    let Some(log) = LOG.get() else { return };
    if !log.debug {
        if log.file.is_some() {
            let mut steps = log.steps.lock().unwrap_or_else(PoisonError::into_inner);
            if steps.len() == MOST_STEPS {
                steps.pop_front();
            }
            steps.push_back((OffsetDateTime::now_utc(), one_line(&message())));
        }
        return;
    }
    let message = one_line(&message());
    if log.file.is_none() {
        writeln!(std::io::stderr(), "tare: {message}").unwrap_or_default();
    }
    entry("debug", &message);
}

fn entry(level: &'static str, message: &str) {
    let Some(log) = LOG.get() else { return };
    let Some(file) = &log.file else { return };
    file.append(Entry::new(level, message, now()).line(log.json).as_bytes());
}

/// The time now: RFC 3339, UTC, with nanoseconds.
pub fn now() -> String {
    format(OffsetDateTime::now_utc())
}

/// A time as [`now`] has it.
pub fn at(time: std::time::SystemTime) -> String {
    format(OffsetDateTime::from(time))
}

/// A time: RFC 3339.
pub fn format(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_has_a_date_and_a_zone() {
        let now = super::now();
        assert!(now.len() >= 20 && now.ends_with('Z') && now.as_bytes()[10] == b'T', "{now}");
    }
}
