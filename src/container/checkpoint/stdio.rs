//! stdin, stdout and stderr: what they are connected to lies outside of the container.
//! At the restore the caller's take their place.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Pid, Whence, lseek};

use super::CriuWords;
use super::mounts::Table;
use crate::error::{Error, ErrorKind, Result, Step};

/// In the images' directory, as with other runtimes: an array with a name for each of
/// the first three descriptors.
const FILE: &str = "descriptors.json";

/// Where nobody is at the other end.
const NULL: &str = "/dev/null";

/// Behind the name of a file of the host in [`FILE`]: it was /dev/null.
const IS_NULL: &str = " /dev/null";

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
            external.push(criu_name(&name).to_owned());
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
        Some(id) => {
            let null = if file.rdev() == libc::makedev(1, 3) { IS_NULL } else { "" };
            (format!("file[{id:x}:{:x}]{null}", file.ino()), Place::Host)
        }
        None => (name, Place::Container),
    })
}

/// A descriptor's name as CRIU has it.
fn criu_name(name: &str) -> &str {
    name.strip_suffix(IS_NULL).unwrap_or(name)
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
    for ((name, fd), which) in names.iter().zip(own).zip(["stdin", "stdout", "stderr"]) {
        let kind = ["pipe:", "file[", "tty["].iter().find(|kind| name.starts_with(**kind));
        let external = criu_name(name);
        if kind.is_none() || given.iter().any(|(other, _)| other == external) {
            continue;
        }
        let copy = match kind == Some(&"file[") && !has_position(fd) {
            true => null_instead(name).step(|| which)?,
            // criu's own stdout and stderr go elsewhere
            false => fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))
                .map(crate::sys::process::adopt_fd)
                .step(|| "copy a descriptor")?,
        };
        given.extend(copy.map(|copy| (external.to_owned(), copy)));
    }
    Ok(given)
}

/// Whether CRIU can put the descriptor in a file's place: it sets its position.
fn has_position(fd: BorrowedFd<'_>) -> bool {
    lseek(fd, 0, Whence::SeekCur).is_ok()
}

/// For a file that was saved, where the caller has none: nothing is lost if it was
/// /dev/null.
fn null_instead(name: &str) -> Result<Option<OwnedFd>> {
    if !name.ends_with(IS_NULL) {
        return Err(Error::unsupported("it was a file: no pipe can take its place")
            .hint("give one: what is there is kept up to the position that was saved"));
    }
    crate::logging::debug(|| format!("{NULL} stays: no pipe can take its place"));
    let file = File::options().read(true).write(true).open(NULL).step(|| NULL)?;
    Ok(Some(file.into()))
}
