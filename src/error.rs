//! The one error type of the library, and the phrases that callers match on.
//!
//! An error is one line: the steps that led to it, from the outermost to the
//! cause, joined by `: `. Every layer adds its own step and nothing else.

use std::fmt::Display;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller of the library may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input (config, flag, image) is wrong; nothing was touched.
    Invalid,
    /// A field or flag that this version can't honour.
    Unsupported,
    /// The container, image or file is not there.
    NotFound,
    /// The container or image is there already.
    Exists,
    /// The container's state does not allow the operation.
    State,
    /// The program to run is not in the container (exit code 127 for callers).
    CommandNotFound,
    /// The program to run may not be run (exit code 126 for callers).
    CommandDenied,
    /// A hook failed: the container goes (runtime.md, Lifecycle).
    Hook,
    /// A signal has ended the command.
    Interrupted,
    /// A process was killed before it ran: by the kernel, which takes its maker's
    /// cgroup for one that is being killed.
    Unborn,
    /// A system call failed.
    System,
}

/// An error: its kind, its line, and the errno where there was one.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    errno: Option<i32>,
    /// Bytes of the message after its steps: the cause and the hints.
    tail: usize,
    /// Bytes of the hints at its end.
    hints: usize,
}

/// What to do where the kernel does not know a call.
const TOO_OLD: &str = "tare needs Linux 5.14, and no seccomp filter that hides its calls";

/// Phrases that containerd, conmon, podman, CRI-O and people's scripts look for in our
/// errors: they are runc's.
///
/// A test freezes them: changing one breaks a caller.
pub mod phrase {
    /// `kill` or `exec` on a container whose init has ended.
    pub const NOT_RUNNING: &str = "container not running";
    /// A command on a container that nobody has made.
    pub const NO_CONTAINER: &str = "container does not exist";
    /// `create`, `run` and `restore` of one that is there.
    pub const EXISTS: &str = "container with given ID already exists";
    /// An id that can't be one.
    pub const INVALID_ID: &str = "invalid container ID format";
    /// `resume` of one that is not paused.
    pub const NOT_PAUSED: &str = "container not paused";
    /// A path, an image or a volume that is not there.
    pub const DOES_NOT_EXIST: &str = "does not exist";
    /// args\[0\] without a slash that is in no directory of PATH.
    pub const NOT_IN_PATH: &str = "executable file not found in $PATH";
}

impl Error {
    /// An error of `kind` with its line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Error { kind, tail: message.len(), hints: 0, message, errno: None }
    }

    /// Wrong input.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// Something that this version can't honour.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// A system call that failed, in the words of its errno.
    pub fn errno(errno: Errno) -> Self {
        let error =
            Error { errno: Some(errno as i32), ..Error::new(ErrorKind::System, errno_text(errno)) };
        match errno {
            Errno::ENOSYS => error.hint(TOO_OLD),
            _ => error,
        }
    }

    /// The same error, seen from one step further out: `step: …`.
    #[must_use]
    pub fn step(mut self, step: impl Display) -> Self {
        self.message = format!("{step}: {}", self.message);
        self
    }

    /// The same error with a word on what to do about it: `… (hint)`.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        let before = self.message.len();
        self.message = format!("{} ({hint})", self.message);
        let added = self.message.len().saturating_sub(before);
        self.tail += added;
        self.hints += added;
        self
    }

    /// The same error after its undoing, with what of that has failed.
    #[must_use]
    pub fn undone<E: Display>(self, undoing: std::result::Result<(), E>) -> Self {
        match undoing {
            Ok(()) => self,
            Err(left) => self.hint(format!("and its undoing failed: {left}")),
        }
    }

    /// The same error with the middle of a line over `most` bytes left out: both
    /// its steps and its cause stay.
    #[must_use]
    pub fn shortened(mut self, most: usize) -> Self {
        let whole = self.message.len();
        if whole > most {
            let head: String = self.message.chars().take(most / 8).collect();
            let tail: Vec<char> = self.message.chars().rev().take(most / 8).collect();
            let tail: String = tail.into_iter().rev().collect();
            self.message = format!("{head} […] {tail}");
            // where its parts begin can't be told any more: all is the cause
            (self.tail, self.hints) = (self.message.len(), 0);
        }
        self
    }

    /// The same error as another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The errno of the system call that failed, if one did.
    pub fn raw_errno(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw)
    }

    /// The steps in a line that ends with this error, outermost first, joined by
    /// `: `; empty if there were none.
    pub fn steps_in<'a>(&self, line: &'a str) -> &'a str {
        let end = line.len().saturating_sub(self.tail);
        let steps = line.get(..end).unwrap_or_default();
        steps.strip_suffix(": ").unwrap_or(steps)
    }

    /// The path that the innermost step with an absolute one names.
    pub fn path(&self) -> Option<&str> {
        self.steps_in(&self.message).rsplit(": ").find_map(path_of)
    }

    /// What to do about it; several hints are joined by `; `.
    pub fn hints(&self) -> Option<String> {
        let start = self.message.len().checked_sub(self.hints)?;
        let hints = self.message.get(start..)?.strip_prefix(" (")?;
        hints.strip_suffix(')').map(|hints| hints.replace(") (", "; "))
    }

    /// True when the cause is exactly this errno.
    pub fn is_errno(&self, errno: Errno) -> bool {
        self.errno == Some(errno as i32)
    }
}

/// The path in the words of a step, such as `mount /data (bind from /srv/x)`. One
/// with a blank inside may be cut there.
fn path_of(step: &str) -> Option<&str> {
    let start = match step.starts_with('/') {
        true => 0,
        false => step.find(" /")? + 1,
    };
    let path = step.get(start..)?;
    let end = [" (", " to ", " from ", " on ", " into ", " over "].map(|word| path.find(word));
    let end = end.into_iter().flatten().min().unwrap_or(path.len());
    path.get(..end).map(|path| path.trim_end_matches(','))
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::errno(errno)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.raw_os_error() {
            Some(raw) => Error::errno(Errno::from_raw(raw)),
            None => Error::new(ErrorKind::System, lower_first(&e.to_string())),
        }
    }
}

/// Adds a step to the error of a result.
pub trait Step<T> {
    /// On an error, puts `step(): ` in front; the closure runs only then.
    fn step<D: Display>(self, step: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Step<T> for std::result::Result<T, E> {
    fn step<D: Display>(self, step: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().step(step()))
    }
}

/// A message as one line: what a name in it could do to a terminal or a log is
/// escaped.
pub fn one_line(message: &str) -> String {
    let plain = |c: char| !c.is_control();
    message.chars().fold(String::with_capacity(message.len()), |mut line, c| {
        if plain(c) {
            line.push(c)
        } else {
            line.extend(c.escape_default())
        }
        line
    })
}

/// The C library's words for an errno, as the end of a line: lower case.
pub fn errno_text(errno: Errno) -> String {
    match errno {
        // the C library's words have a socket in mind
        Errno::EOPNOTSUPP => "operation not supported".to_owned(),
        // mathematics
        Errno::ERANGE => "out of range".to_owned(),
        _ => lower_first(errno.desc()),
    }
}

pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // "RPC version …" and the like stay as they are
        Some(c) if !chars.clone().next().is_some_and(char::is_uppercase) => {
            c.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_joined_outermost_first() {
        let e: Result<()> = Err(Errno::ENOENT).step(|| "mount /data").step(|| "create box1");
        let e = e.unwrap_err();
        assert_eq!(e.to_string(), "create box1: mount /data: no such file or directory");
        assert!(e.is_errno(Errno::ENOENT));
        assert_eq!(e.kind(), ErrorKind::System);
    }

    #[test]
    fn the_parts_of_an_error_are_told_apart() {
        let e = Error::from(Errno::ENOENT).hint("is it there?").step("open_tree");
        let e = e.step("mount /data (bind from /srv/x)").hint("else leave it out").step("init");
        let line = format!("create box1: {e}");
        let steps = "create box1: init: mount /data (bind from /srv/x): open_tree";
        assert_eq!(e.steps_in(&line), steps);
        assert_eq!(e.path(), Some("/data"));
        assert_eq!(e.hints().as_deref(), Some("is it there?; else leave it out"));
        let e = Error::invalid("it is empty");
        assert_eq!((e.steps_in("it is empty"), e.path(), e.hints()), ("", None, None));
        let e = Error::invalid("no").step("/run/a b/c").step("x /y");
        assert_eq!(e.path(), Some("/run/a b/c"));
        let e = Error::invalid("a".repeat(99)).hint("b").step("/c").shortened(40);
        assert_eq!((e.steps_in(&e.to_string()), e.hints()), ("", None));
    }

    #[test]
    fn control_characters_do_not_get_out() {
        assert_eq!(one_line("a\nb\u{1b}[1m ä"), "a\\nb\\u{1b}[1m ä");
    }

    #[test]
    fn callers_phrases_are_frozen() {
        assert_eq!(phrase::NOT_RUNNING, "container not running");
        assert_eq!(phrase::NO_CONTAINER, "container does not exist");
        assert_eq!(phrase::EXISTS, "container with given ID already exists");
        assert_eq!(phrase::INVALID_ID, "invalid container ID format");
        assert_eq!(phrase::NOT_PAUSED, "container not paused");
        assert_eq!(phrase::DOES_NOT_EXIST, "does not exist");
        assert_eq!(phrase::NOT_IN_PATH, "executable file not found in $PATH");
    }
}
