//! The container's program: found, and executed.

use std::ffi::{CStr, CString, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use crate::error::{Error, ErrorKind, Result, phrase};
use crate::spec::ProcessPlan;

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest /etc/passwd that is read.
const MAX_PASSWD: u64 = 1 << 20;

/// Finds the program of args\[0\], as the user that will run it.
///
/// # Errors
/// [`ErrorKind::CommandNotFound`] and [`ErrorKind::CommandDenied`], in the
/// words that callers turn into exit codes 127 and 126.
pub(super) fn find(plan: &ProcessPlan) -> Result<CString> {
    let Some(name) = plan.args.first() else {
        return Err(Error::invalid("process.args: is empty"));
    };
    let shown = format!("exec: {:?}", String::from_utf8_lossy(name.as_bytes()));
    if name.as_bytes().contains(&b'/') {
        return match check(name) {
            Ok(()) => Ok(name.clone()),
            Err(e) => Err(refused(e).step(format!("{shown}: stat"))),
        };
    }
    let mut denied = None;
    let path = plan.env_value("PATH").unwrap_or(DEFAULT_PATH);
    for dir in path.split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { b"." } else { dir };
        let Ok(candidate) = CString::new([dir, b"/", name.as_bytes()].concat()) else {
            continue;
        };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = Some(Errno::EACCES),
            Err(_not_here) => {}
        }
    }
    match denied {
        Some(e) => Err(refused(e).step(shown)),
        None => {
            Err(Error::new(ErrorKind::CommandNotFound, format!("{shown}: {}", phrase::NOT_IN_PATH)))
        }
    }
}

fn check(path: &CString) -> nix::Result<()> {
    let found = stat(path.as_c_str())?;
    if found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        return Err(Errno::EISDIR);
    }
    faccessat(AT_FDCWD, path.as_c_str(), AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

/// An errno of stat or execve, in the kinds that callers tell apart.
fn refused(errno: Errno) -> Error {
    let kind = match errno {
        Errno::ENOENT | Errno::ENOTDIR => ErrorKind::CommandNotFound,
        _ => ErrorKind::CommandDenied,
    };
    Error::from(errno).of_kind(kind)
}

/// Executes the program; returns only with an error.
pub(super) fn execute(path: &CStr, args: &[CString], env: &[CString]) -> Error {
    let Err(errno) = nix::unistd::execve(path, args, env);
    let error = refused(errno).step(format!("exec {:?}", String::from_utf8_lossy(path.to_bytes())));
    match errno {
        Errno::ENOENT => error.hint("the interpreter that it names is not in the container"),
        Errno::ENOEXEC => error.hint("built for another machine, or a script without #!"),
        _ => error,
    }
}

/// The environment, with HOME added from the container's passwd if the config
/// gives none: programs count on it.
pub(super) fn environment(plan: &ProcessPlan) -> Vec<CString> {
    let mut env = plan.env.clone();
    if plan.env_value("HOME").is_none() {
        let home = home_of(plan.uid).unwrap_or_else(|| b"/".to_vec());
        if let Ok(entry) = CString::new([b"HOME=".as_slice(), &home].concat()) {
            env.push(entry);
        }
    }
    env
}

fn home_of(uid: u32) -> Option<Vec<u8>> {
    // already inside the root. Only a regular file: a fifo would block for ever
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let fd = nix::fcntl::open(Path::new("/etc/passwd"), flags, Mode::empty()).ok()?;
    let file = std::fs::File::from(fd);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_PASSWD).read_to_end(&mut text).ok()?;
    let uid = uid.to_string();
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.nth(2)? == uid.as_bytes()).then_some(())?;
        let home = fields.nth(2)?;
        (!home.is_empty()).then(|| OsStr::from_bytes(home).as_bytes().to_vec())
    })
}
