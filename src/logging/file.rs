//! The file of the log: many processes append to it, and it does not grow without
//! end.
//!
//! A file that has grown too long is replaced by one with its last lines. Whoever
//! has the old one open goes on reading that, whole; a line is written under a lock
//! and to the file that has the name then, so that none goes to the old one.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::{Error, Result, Step};

/// A file over so many bytes is cut.
const MOST: u64 = 1 << 20;

/// How many of its last bytes stay: far more than one command writes.
const KEPT: u64 = 256 << 10;

/// How often a file may be replaced between its opening and the look at its name.
const ATTEMPTS: usize = 16;

/// Between two attempts: a file is replaced in less.
const PAUSE: Duration = Duration::from_millis(2);

/// What `--log` names.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// Of a regular file, without links: where to find the one that replaces it.
    path: Option<PathBuf>,
    /// Who has opened it: a container's init may have another file by that name.
    pid: u32,
}

impl LogFile {
    /// Opens or makes it.
    ///
    /// # Errors
    /// It can't be opened for appending; a fifo that nobody reads.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let step = || format!("--log {}", path.display());
        if let Some(file) = own_descriptor(path) {
            return Ok(LogFile { file: file.step(step)?, path: None, pid: std::process::id() });
        }
        let mut last = Error::invalid("it is replaced again and again");
        for _ in 0..ATTEMPTS {
            let file = open_for_appending(path, true).step(step)?;
            if !file.metadata().step(step)?.is_file() {
                return Ok(LogFile { file, path: None, pid: std::process::id() });
            }
            let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
            match real.and_then(|real| Ok((is_named(&file, &real)?, real))) {
                Ok((true, real)) => {
                    return Ok(LogFile { file, path: Some(real), pid: std::process::id() });
                }
                Ok((false, _)) => {}
                Err(e) => last = e.into(),
            }
        }
        Err(last.step(step()))
    }

    /// Appends whole lines. A log that can't be written has nowhere to say so.
    pub(super) fn append(&self, lines: &[u8]) {
        let path = self.path.as_deref().filter(|_| std::process::id() == self.pid);
        let Some((path, mut current)) = path.and_then(|path| Some((path, locked(path)?))) else {
            (&self.file).write_all(lines).unwrap_or_default();
            return;
        };
        current.write_all(lines).unwrap_or_default();
        if current.metadata().is_ok_and(|found| found.len() > MOST) {
            // closed first: a lock can't be made a stricter one at one go
            drop(current);
            // it may be somebody else's to cut, or in a directory closed to us
            cut(path).unwrap_or_default();
        }
    }
}

/// The descriptor that a path names: what is a socket can't be opened by it.
fn own_descriptor(path: &Path) -> Option<std::io::Result<File>> {
    let copy = match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => {
            std::io::stdout().as_fd().try_clone_to_owned()
        }
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => {
            std::io::stderr().as_fd().try_clone_to_owned()
        }
        _ => return None,
    };
    Some(copy.map(File::from))
}

fn open_for_appending(path: &Path, may_make: bool) -> Result<File> {
    let mut options = File::options();
    open_at_once(path, options.append(true).create(may_make), OFlag::O_APPEND)
}

/// Opens a file to be written anew, or what a path of one of our own descriptors
/// stands for.
///
/// # Errors
/// It can't be written; a fifo that nobody reads.
pub(crate) fn open_output(path: &Path) -> Result<File> {
    match own_descriptor(path) {
        Some(file) => Ok(file?),
        None => {
            let mut options = File::options();
            options.write(true).create(true).truncate(true);
            open_at_once(path, &mut options, OFlag::empty())
        }
    }
}

/// Opens a file without waiting for anybody; `stays` are the flags for its writing.
fn open_at_once(path: &Path, options: &mut OpenOptions, stays: OFlag) -> Result<File> {
    // a fifo without a reader would be waited for
    options.mode(0o644).custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| {
        let is_fifo = || std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENXIO) if is_fifo() => {
                Error::from(Errno::ENXIO).hint("nobody reads the fifo")
            }
            _ => Error::from(e),
        }
    })?;
    // whoever reads slowly is waited for
    fcntl(&file, FcntlArg::F_SETFL(stays))?;
    Ok(file)
}

/// The file that has this name now, with a lock that keeps it from being replaced.
/// Whoever may read the log can hold a lock on it, and is not waited for.
fn locked(path: &Path) -> Option<File> {
    for _ in 0..ATTEMPTS {
        let file = open_for_appending(path, false).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(_)) => return None,
            Ok(()) if is_named(&file, path).ok()? => return Some(file),
            Ok(()) => {}
        }
    }
    None
}

fn is_named(file: &File, path: &Path) -> std::io::Result<bool> {
    let same = |a: &Metadata, b: &Metadata| a.dev() == b.dev() && a.ino() == b.ino();
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        found => Ok(same(&file.metadata()?, &found?)),
    }
}

/// Replaces the file by one with its last lines, if it is still too long.
fn cut(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).open(path)?;
    if file.try_lock().is_err() {
        // by whoever writes the next line, then
        return Ok(());
    }
    let found = file.metadata()?;
    // under other names it would stay as it is
    if !is_named(&file, path)? || found.len() <= MOST || found.nlink() != 1 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-i64::try_from(KEPT).unwrap_or_default()))?;
    let mut last = Vec::new();
    file.read_to_end(&mut last)?;
    let Some(start) = last.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
    let lines = last.get(start + 1..).unwrap_or_default();
    let Some(name) = path.file_name() else { return Ok(()) };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let replaced =
        write_new(&temporary, lines, &found).and_then(|()| std::fs::rename(&temporary, path));
    if replaced.is_err() {
        // the first error is the one that counts
        std::fs::remove_file(&temporary).unwrap_or_default();
    }
    replaced
}

/// Writes a file with the owner and the mode of another one.
fn write_new(path: &Path, lines: &[u8], like: &Metadata) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    file.write_all(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_long_file_keeps_its_last_lines_and_its_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogFile::open(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let mut reader = File::open(&path).unwrap();
        let line = |n: usize| format!("{n:06} {}\n", "x".repeat(1000));
        let most = usize::try_from(MOST).unwrap() / 1008;
        (0..=most + 1).for_each(|n| log.append(line(n).as_bytes()));
        let found = std::fs::metadata(&path).unwrap();
        assert!(found.len() <= KEPT + 2048, "{}", found.len());
        assert_eq!(found.mode() & 0o7777, 0o640);
        let kept = lines_of(&path);
        assert_eq!(*kept.last().unwrap(), line(most + 1).trim_end());
        assert!(kept.iter().all(|line| line.len() == 1007), "{:?}", kept.first());
        let mut old = String::new();
        reader.read_to_string(&mut old).unwrap();
        assert!(old.starts_with("000000 ") && old.ends_with('\n'));
        // who had it open before writes to the new one
        log.append(b"last\n");
        assert_eq!(lines_of(&path).last().unwrap(), "last");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_line_of_many_writers_is_lost_while_the_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let filler = format!("{}\n", "f".repeat(100_000));
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (path, filler) = (&path, &filler);
                scope.spawn(move || {
                    let log = LogFile::open(path).unwrap();
                    for n in 0..20 {
                        log.append(filler.as_bytes());
                        let mark = format!("{writer} {n}");
                        log.append(format!("{mark}\n").as_bytes());
                    }
                    // far less than what is kept has been written by others since
                    log.append(format!("{writer} done\n").as_bytes());
                });
            }
        });
        let lines = lines_of(&path);
        let whole = |line: &&String| line.len() == 100_000 || line.len() < 10;
        assert!(lines.iter().all(|line| whole(&line)));
        assert!(lines.iter().any(|line| line.ends_with("done")));
        assert!(std::fs::metadata(&path).unwrap().len() <= MOST + 200_000);
    }

    #[test]
    fn a_file_that_is_gone_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        log.append(b"x\n");
        assert!(!path.try_exists().unwrap());
    }
}
