//! The log: text or JSON lines, appended to a file, and what goes to stderr.
//!
//! containerd's shim takes the last line with level `error` for the reason of a
//! failure, and fails on a line that it can't parse: nothing else may ever be
//! written there.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Result, Step};

/// Where the lines go, and which.
#[derive(Debug)]
struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log once, at the start of a command.
///
/// # Errors
/// The file can't be opened for appending.
pub fn open(path: Option<&Path>, json: bool, debug: bool) -> Result<()> {
    let open = |path: &Path| {
        File::options()
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)
            .step(|| format!("--log {}", path.display()))
    };
    let file = path.map(open).transpose()?;
    // a second call has nothing to say: the first one holds
    LOG.set(Log { file, json, debug }).unwrap_or_default();
    Ok(())
}

/// A time as [`now`] has it.
pub fn at(time: std::time::SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// The reason why the command fails: goes to the log; `main` prints it.
pub fn error(message: &str) {
    entry("error", message);
}

/// Something that a person should know, and that is no failure.
pub fn warn(message: &str) {
    if LOG.get().is_none_or(|log| log.file.is_none()) {
        // what can't be written to stderr has no other place to go
        writeln!(std::io::stderr(), "tare: warning: {message}").unwrap_or_default();
    }
    entry("warning", message);
}

/// A step, with `--debug`.
pub fn debug(message: impl FnOnce() -> String) {
    let Some(log) = LOG.get().filter(|log| log.debug) else { return };
    let message = message();
    if log.file.is_none() {
        writeln!(std::io::stderr(), "tare: {message}").unwrap_or_default();
    }
    entry("debug", &message);
}

fn entry(level: &str, message: &str) {
    let Some(log) = LOG.get() else { return };
    let Some(mut file) = log.file.as_ref() else { return };
    let time = now();
    let line = if log.json {
        json!({ "level": level, "msg": message, "time": time }).to_string()
    } else {
        format!("time={time} level={level} msg={message:?}")
    };
    // one write a line: lines of several processes do not mix (O_APPEND)
    file.write_all(format!("{line}\n").as_bytes()).unwrap_or_default();
}

/// The time now: RFC 3339, UTC, with nanoseconds.
pub fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_has_a_date_and_a_zone() {
        let now = super::now();
        assert!(now.len() >= 20 && now.ends_with('Z') && now.as_bytes()[10] == b'T', "{now}");
    }
}
