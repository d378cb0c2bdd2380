//! Requests to CRIU and its answers: the fields of its `rpc.proto` that tare uses,
//! by their numbers there.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::wire::{Message, Value, fields};
use crate::error::{Error, ErrorKind, Result};

/// What is asked for (`criu_req_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// Switches of `criu_opts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    LeaveRunning = 3,
    ExtUnixSk = 4,
    TcpEstablished = 5,
    EvasiveDevices = 6,
    ShellJob = 7,
    FileLocks = 8,
    NotifyScripts = 12,
    TrackMem = 15,
    AutoDedup = 16,
    LinkRemap = 18,
    ManageCgroups = 24,
    RstSibling = 26,
    TcpSkipInFlight = 46,
    LazyPages = 48,
    OrphanPtsMaster = 50,
    TcpClose = 52,
}

/// Numbers of `criu_opts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Pid = 2,
    LogLevel = 9,
    ManageCgroupsMode = 34,
    EmptyNs = 38,
    StatusFd = 49,
}

/// Texts of `criu_opts`; `External` may be there more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    LogFile = 10,
    Root = 13,
    ParentImg = 14,
    External = 37,
    FreezeCgroup = 44,
    ConfigFile = 51,
    LsmProfile = 53,
    CgroupYard = 60,
    LsmMountContext = 63,
}

/// `criu_opts`, field by field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options(Message);

impl Options {
    /// Where images and log go: descriptors of this process.
    pub(crate) fn new(images: BorrowedFd<'_>, work: BorrowedFd<'_>, log: &str) -> Self {
        let mut options = Options::default();
        options.0.number(1, number_of(images.as_raw_fd()));
        options.0.number(17, number_of(work.as_raw_fd()));
        options.text(Text::LogFile, log);
        // all but what helps CRIU's own developers
        options.figure(Figure::LogLevel, 4);
        options
    }

    pub(crate) fn switch(&mut self, field: Switch, on: bool) {
        if on {
            self.0.number(field as u32, 1);
        }
    }

    pub(crate) fn figure(&mut self, field: Figure, value: u64) {
        self.0.number(field as u32, value);
    }

    pub(crate) fn text(&mut self, field: Text, value: impl AsRef<Path>) {
        self.0.bytes(field as u32, bytes(value.as_ref()));
    }

    /// A mount that comes from outside: at the checkpoint its place and its name,
    /// at the restore its name and its source.
    pub(crate) fn external_mount(&mut self, key: &Path, value: &Path) {
        self.pair(23, bytes(key), Value::Bytes(bytes(value)));
    }

    /// The new place of all cgroups, below the hierarchy's root.
    pub(crate) fn cgroup_root(&mut self, path: &Path) {
        let mut root = Message::default();
        root.bytes(2, bytes(path));
        self.0.message(25, &root);
    }

    /// A descriptor of CRIU's own that takes the place of what has this name.
    pub(crate) fn inherit(&mut self, name: &str, fd: BorrowedFd<'_>) {
        self.pair(27, name.as_bytes(), Value::Number(number_of(fd.as_raw_fd())));
    }

    /// A namespace that is joined, not made.
    pub(crate) fn join(&mut self, kind: &str, path: &Path) {
        self.pair(39, kind.as_bytes(), Value::Bytes(bytes(path)));
    }

    /// Who takes the pages of memory.
    pub(crate) fn page_server(&mut self, address: &str, port: u16) {
        self.pair(11, address.as_bytes(), Value::Number(u64::from(port)));
    }

    /// A message of two fields, 1 and 2.
    fn pair(&mut self, field: u32, first: &[u8], second: Value<'_>) {
        let mut pair = Message::default();
        pair.bytes(1, first);
        match second {
            Value::Number(number) => pair.number(2, number),
            Value::Bytes(bytes) => pair.bytes(2, bytes),
        }
        self.0.message(field, &pair);
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// An int32 on the wire: a negative one has all its upper bits set.
fn number_of(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

/// Something that can be had only of some kernels (`criu_features`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    MemTrack = 1,
    LazyPages = 2,
}

/// A request without anything to it, or with these options.
pub(super) fn request(kind: Kind, options: Option<&Options>) -> Message {
    let mut request = Message::default();
    request.number(1, kind as u64);
    if let Some(options) = options {
        request.message(2, &options.0);
    }
    request
}

pub(super) fn feature_request(feature: Feature) -> Message {
    let mut features = Message::default();
    features.number(feature as u32, 1);
    let mut request = request(Kind::FeatureCheck, None);
    request.message(5, &features);
    request
}

/// The answer to a notice.
pub(super) fn reply(success: bool) -> Message {
    let mut request = request(Kind::Notify, None);
    request.number(3, u64::from(success));
    request
}

/// What CRIU says (`criu_resp`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(super) kind: u64,
    pub(super) success: bool,
    pub(super) errno: i32,
    pub(super) message: String,
    /// Of a notice: which.
    pub(crate) script: String,
    /// Of a notice, and of a restore: init.
    pub(crate) pid: i32,
    pub(super) features: Vec<u64>,
    /// Major, minor, sublevel.
    pub(super) version: (u64, u64, u64),
}

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::new(ErrorKind::System, "criu's answer is damaged");
        let mut response = Response::default();
        for (field, value) in fields(bytes).ok_or_else(damaged)? {
            match (field, value) {
                (1, Value::Number(kind)) => response.kind = kind,
                (2, Value::Number(success)) => response.success = success != 0,
                (7, Value::Number(errno)) => response.errno = int32(errno),
                (9, Value::Bytes(text)) => response.message = lossy(text),
                (4 | 5 | 8 | 10, Value::Bytes(inner)) => {
                    response.inner(field, &fields(inner).ok_or_else(damaged)?);
                }
                _ => {}
            }
        }
        Ok(response)
    }

    fn inner(&mut self, message: u64, inner: &[(u64, Value<'_>)]) {
        for (field, value) in inner {
            match (message, field, value) {
                (4, 1, Value::Number(pid)) | (5, 2, Value::Number(pid)) => self.pid = int32(*pid),
                (5, 1, Value::Bytes(script)) => self.script = lossy(script),
                (8, feature, Value::Number(1)) => self.features.push(*feature),
                (10, 1, Value::Number(major)) => self.version.0 = *major,
                (10, 2, Value::Number(minor)) => self.version.1 = *minor,
                (10, 4, Value::Number(sublevel)) => self.version.2 = *sublevel,
                _ => {}
            }
        }
    }
}

fn int32(value: u64) -> i32 {
    i32::try_from(value.cast_signed()).unwrap_or_default()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read() {
        let mut notice = Message::default();
        notice.bytes(1, b"post-restore");
        notice.number(2, 4711);
        let mut message = Message::default();
        message.number(1, Kind::Notify as u64);
        message.number(2, 1);
        message.message(5, &notice);
        let response = Response::parse(message.as_bytes()).unwrap();
        assert_eq!((response.script.as_str(), response.pid), ("post-restore", 4711));
        assert!(response.success);
        assert!(Response::parse(b"\x08").is_err());
    }

    #[test]
    fn a_negative_number_has_ten_bytes() {
        let mut message = Message::default();
        message.number(7, number_of(-2));
        assert_eq!(message.as_bytes().len(), 11);
        assert_eq!(Response::parse(message.as_bytes()).unwrap().errno, -2);
    }
}
