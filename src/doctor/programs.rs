//! Programs and services of the host.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Host;
use super::later::is_dir;
use super::report::Finding;
use super::trial;
use crate::error::{Result, Step};
use crate::sys::caller::caller;

/// The first executable file of this name in PATH, or where an administrator's
/// programs are.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(OsString::from(":/usr/sbin:/usr/bin:/sbin:/bin"));
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(
        |file| {
            std::fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        },
    )
}

pub(super) fn criu(_: &Host) -> Finding {
    let Some(path) = find("criu") else {
        return Finding::info("not installed");
    };
    match ask(&path, "--version") {
        Ok(text) => Finding::info(match version(&text) {
            Some(version) => format!("{version} at {}", path.display()),
            None => format!("{}, which does not tell its version", path.display()),
        }),
        Err(e) => Finding::info(format!("{}: {e}", path.display())),
    }
}

/// The version in criu's answer (`Version: 3.17.1`).
fn version(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("Version:")).map(str::trim)
}

/// What a program says, at most until the deadline; it does not outlive that.
fn ask(program: &Path, word: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg(word).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // a group of its own: what it starts goes with it
    command.process_group(0);
    let mut child = command.spawn().step(|| "run it")?;
    let answer = match child.stdout.take() {
        Some(stdout) => trial::read_all(OwnedFd::from(stdout), trial::DEADLINE),
        None => Ok(Vec::new()),
    };
    // it has said what it had to say, or nothing for too long
    if let Ok(group) = i32::try_from(child.id()) {
        killpg(Pid::from_raw(group), Signal::SIGKILL).unwrap_or_default();
    }
    child.wait().step(|| "wait for it")?;
    Ok(String::from_utf8_lossy(&answer?).into_owned())
}

pub(super) fn systemd(_: &Host) -> Finding {
    // as sd_booted(3) tells
    if !is_dir(Path::new("/run/systemd/system")) {
        return Finding::info("not pid 1 here; refused: --systemd-cgroup");
    }
    let user = !caller().is_host_root();
    match crate::cgroup::systemd::version(user, trial::DEADLINE) {
        Ok(version) if user => Finding::ok(format!("{version}, and this user's manager answers")),
        Ok(version) => Finding::ok(version),
        Err(e) => Finding::missing(format!("refused: --systemd-cgroup: {e}")).hint(match user {
            true => "log in by a session of systemd's (loginctl, machinectl shell), with dbus",
            false => "start dbus",
        }),
    }
}

/// How a program comes by the privileges that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raised {
    /// The setuid bit, owned by root.
    Setuid,
    /// File capabilities.
    Capabilities,
    /// Not at all.
    No,
}

/// See [`Raised`].
///
/// # Errors
/// The file can't be looked at.
pub(super) fn raised(path: &Path) -> Result<Raised> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).step(|| path.display().to_string())?;
    if found.permissions().mode() & 0o4000 != 0 && found.uid() == 0 {
        return Ok(Raised::Setuid);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Raised::No);
    };
    let dir = crate::sys::fs::open_dir(parent)?;
    let attributes = crate::sys::fs::xattrs_at(dir.as_fd(), Path::new(name))?;
    let has = attributes.iter().any(|(name, _)| name.as_bytes() == b"security.capability");
    Ok(if has { Raised::Capabilities } else { Raised::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_one_line_of_several() {
        assert_eq!(version("Version: 3.17.1\nGitID: v3.17.1\n"), Some("3.17.1"));
        assert_eq!(version("criu 4\n"), None);
    }

    #[test]
    fn programs_are_found_and_asked() {
        let shell = find("sh").unwrap();
        assert!(shell.is_absolute());
        assert_eq!(find("no-such-program-anywhere"), None);
        assert_eq!(raised(&shell).unwrap(), Raised::No);
    }
}
