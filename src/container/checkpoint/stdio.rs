//! stdin, stdout and stderr: what they are connected to lies outside of the container.
//! At the restore the caller's take their place.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;

use super::CriuWords;
use super::mounts::Table;
use crate::error::{Error, ErrorKind, Result, Step};

/// In the images' directory, as with other runtimes: an array with a name for each of
/// the first three descriptors.
const FILE: &str = "descriptors.json";

/// Writes down what the descriptors are, and names those that CRIU has to be told of:
/// files that are on none of the container's mounts.
pub(super) fn save(init: Pid, table: &Table, words: &CriuWords) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut external = Vec::new();
    for fd in 0..3 {
        let step = || format!("descriptor {fd} of process {init}");
        let (name, place) = name_of(init, fd, table).step(step)?;
        if place == Place::HostTerminal && !words.shell_job {
            return Err(Error::unsupported("it is a terminal of the host")
                .hint("--shell-job has that of restore take its place")
                .step(step()));
        }
        if place != Place::Container {
            external.push(name.clone());
        }
        names.push(name);
    }
    external.sort();
    external.dedup();
    let path = words.image_path.join(FILE);
    let text = serde_json::to_vec(&names)
        .map_err(|e| Error::new(ErrorKind::System, format!("encode {FILE}: {e}")))?;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let written = options.open(&path).and_then(|mut file| file.write_all(&text));
    written.step(|| path.display().to_string())?;
    Ok(external)
}

/// Where the file of a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On one of the container's mounts, or nowhere, as a pipe.
    Container,
    Host,
    HostTerminal,
}

/// What /proc says it is; from outside a file by its mount and inode, a terminal by its
/// devices, as CRIU has them.
fn name_of(init: Pid, fd: u32, table: &Table) -> std::io::Result<(String, Place)> {
    let path = format!("/proc/{init}/fd/{fd}");
    let link = match std::fs::read_link(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok((String::new(), Place::Container));
        }
        other => other?,
    };
    let name = String::from_utf8_lossy(link.as_os_str().as_bytes()).into_owned();
    if !link.is_absolute() {
        return Ok((name, Place::Container));
    }
    let info = std::fs::read_to_string(format!("/proc/{init}/fdinfo/{fd}"))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    let file = std::fs::metadata(&path)?;
    let is_terminal = file.file_type().is_char_device() && link.starts_with("/dev/pts");
    Ok(match mount.filter(|id| !table.has(*id)) {
        // by its own number, and that of the file system that it is on
        Some(_) if is_terminal => {
            (format!("tty[{:x}:{:x}]", file.rdev(), file.dev()), Place::HostTerminal)
        }
        Some(id) => (format!("file[{id:x}:{:x}]", file.ino()), Place::Host),
        None => (name, Place::Container),
    })
}

/// The caller's descriptors, under the names that they had at the checkpoint. Images
/// without the file are from somebody who had nothing to say.
pub(super) fn load(words: &CriuWords) -> Result<Vec<(String, OwnedFd)>> {
    let path = words.image_path.join(FILE);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.step(|| path.display().to_string())?,
    };
    let names: Vec<String> = serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(format!("is damaged: {e}")).step(path.display()))?;
    if !words.shell_job && names.iter().any(|name| name.starts_with("tty[")) {
        return Err(Error::unsupported("a terminal of the host was saved")
            .hint("--shell-job has the caller's take its place")
            .step(path.display()));
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let own: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let mut given: Vec<(String, OwnedFd)> = Vec::new();
    for (name, fd) in names.into_iter().zip(own) {
        let is_external = ["pipe:", "file[", "tty["].iter().any(|kind| name.starts_with(kind));
        if is_external && given.iter().all(|(other, _)| *other != name) {
            // criu's own stdout and stderr go elsewhere
            let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3)).step(|| "copy a descriptor")?;
            given.extend(crate::sys::process::adopt_fd(copy).map(|copy| (name, copy)));
        }
    }
    Ok(given)
}
