//! The manager's side of the conversation, by a bus of the tests' own: what it
//! is asked, and what becomes of each answer that systemd may give.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::Duration;

use super::encode::{Encoder, said};
use super::manager::Manager;
use super::value::{Property, Value};
use super::wire::{self, Kind, Message};
use crate::cgroup::limits::{plan, tests::resources};
use crate::error::{Error, ErrorKind};

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NONE: &str = "org.freedesktop.systemd1.NoSuchUnit";
const READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

/// How one call is answered.
#[derive(Debug, Clone, Copy)]
enum Reply {
    /// With this string or object path.
    Str(&'static str),
    /// With a variant of this string.
    Variant(&'static str),
    /// With an error: its name, its words.
    Error(&'static str, &'static str),
    /// With a job, which ends at once as this; the signal may come first.
    Job { result: &'static str, signal_first: bool },
    /// Not at all.
    Never,
}

const DONE: Reply = Reply::Job { result: "done", signal_first: false };
const OK: Reply = Reply::Str("");

/// A bus that lets everybody in and answers the calls in their order.
struct Bus {
    address: String,
    served: JoinHandle<Vec<String>>,
    _dir: tempfile::TempDir,
}

impl Bus {
    fn new(replies: &'static [(&'static str, Reply)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let address = format!("unix:path={}", path.display());
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            serve(stream, replies)
        });
        Bus { address, served, _dir: dir }
    }

    fn manager(&self) -> Manager {
        Manager::at(&self.address, Duration::from_secs(20)).unwrap()
    }

    /// What it was asked, without the greeting; the connection has to be closed.
    fn asked(self) -> Vec<String> {
        self.served.join().unwrap()
    }
}

fn serve(mut stream: UnixStream, replies: &[(&str, Reply)]) -> Vec<String> {
    let mut greeting = [0; 29];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
    stream.write_all(b"DATA\r\nOK 00ff\r\n").unwrap();
    let mut replies = replies.iter();
    let mut asked = Vec::new();
    loop {
        let mut bytes = vec![0; wire::FIXED];
        if stream.read_exact(&mut bytes).is_err() {
            assert!(replies.next().is_none(), "not asked for: {asked:?}");
            return asked;
        }
        bytes.resize(wire::length(&bytes).unwrap(), 0);
        stream.read_exact(&mut bytes[wire::FIXED..]).unwrap();
        let call = Message::decode(&bytes).unwrap();
        let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        let (member, reply) = match call.member.as_str() {
            "Hello" | "AddMatch" => (call.member.as_str(), &OK),
            _ => replies.next().map(|(member, reply)| (*member, reply)).unwrap(),
        };
        assert_eq!(member, call.member);
        if !["Hello", "AddMatch"].contains(&member) {
            asked.push(format!("{member} {}", String::from_utf8_lossy(&bytes)));
        }
        answer(&mut stream, serial, *reply);
    }
}

fn answer(stream: &mut UnixStream, serial: u32, reply: Reply) {
    let text = |text: &str| {
        let mut body = Encoder::default();
        body.str(text);
        body.finish()
    };
    let mut all = Vec::new();
    match reply {
        Reply::Never => {}
        Reply::Str(path) => all.push(said(Kind::Return, "", serial, "o", &text(path))),
        Reply::Variant(value) => {
            let mut body = Encoder::default();
            body.variant(&Value::str(value));
            all.push(said(Kind::Return, "", serial, "v", &body.finish()));
        }
        Reply::Error(name, words) => {
            all.push(said(Kind::Error, name, serial, "s", &text(words)));
        }
        Reply::Job { result, signal_first } => {
            all.push(said(Kind::Return, "", serial, "o", &text("/job/7")));
            // somebody else's job, another signal, and at last the one
            all.push(said(Kind::Signal, "JobRemoved", 0, "uoss", &removed("/job/70", "failed")));
            all.push(said(Kind::Signal, "UnitNew", 0, "s", &text("x")));
            all.push(said(Kind::Signal, "JobRemoved", 0, "uoss", &removed("/job/7", result)));
            if signal_first {
                all.rotate_left(1);
            }
        }
    }
    stream.write_all(&all.concat()).unwrap();
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    let mut body = Encoder::default();
    body.u32(7);
    for text in [job, "a.scope", result] {
        body.str(text);
    }
    body.finish()
}

fn start(manager: &mut Manager, optional: Vec<Property>) -> crate::Result<()> {
    let fixed = [Property::new("Delegate", Value::Bool(true))];
    let job = manager
        .start_transient("a.scope", &fixed, optional, |refusal| refusal.error().step("refused"))?;
    manager.await_job(&job)
}

fn optional() -> Vec<Property> {
    ["MemoryMax", "AllowedCPUs"].map(|name| Property::new(name, Value::U64(5))).to_vec()
}

#[test]
fn a_unit_is_started_and_its_job_waited_for() {
    for signal_first in [false, true] {
        let bus = Bus::new(match signal_first {
            false => &[("StartTransientUnit", DONE)],
            true => &[("StartTransientUnit", Reply::Job { result: "done", signal_first: true })],
        });
        let mut manager = bus.manager();
        start(&mut manager, optional()).unwrap();
        drop(manager);
        let asked = bus.asked().concat();
        for word in ["a.scope", "replace", "Delegate", "MemoryMax", "AllowedCPUs"] {
            assert!(asked.contains(word), "{word} in {asked}");
        }
    }
}

#[test]
fn a_job_that_does_not_get_done_is_an_error() {
    const FAILED: Reply = Reply::Job { result: "failed", signal_first: false };
    let bus = Bus::new(&[("StartTransientUnit", FAILED)]);
    let error = start(&mut bus.manager(), Vec::new()).unwrap_err().to_string();
    assert_eq!(error, "systemd's job ended as \"failed\" (systemd's journal tells why)");
}

#[test]
fn a_failed_namesake_is_reset_and_one_in_use_is_left_alone() {
    let words = "Unit a.scope was already loaded or has a fragment file.";
    let bus = Bus::new(&[
        ("StartTransientUnit", Reply::Error(EXISTS, "x")),
        ("ResetFailedUnit", OK),
        ("StartTransientUnit", DONE),
    ]);
    start(&mut bus.manager(), Vec::new()).unwrap();
    let bus = Bus::new(&[
        ("StartTransientUnit", Reply::Error(EXISTS, "x")),
        ("ResetFailedUnit", Reply::Error(NONE, "Unit a.scope not loaded.")),
        ("StartTransientUnit", Reply::Error(EXISTS, "x")),
    ]);
    let error = start(&mut bus.manager(), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{words}");
    assert_eq!(error.to_string(), "the unit a.scope is there already, and in use");
}

#[test]
fn an_older_systemd_is_spared_the_limits_that_it_does_not_know() {
    let bus = Bus::new(&[
        (
            "StartTransientUnit",
            Reply::Error(READ_ONLY, "Cannot set property AllowedCPUs, or unknown property."),
        ),
        ("StartTransientUnit", DONE),
    ]);
    let mut manager = bus.manager();
    start(&mut manager, optional()).unwrap();
    drop(manager);
    let asked = bus.asked();
    assert!(asked[0].contains("AllowedCPUs") && !asked[1].contains("AllowedCPUs"), "{asked:?}");
    assert!(asked[1].contains("MemoryMax"), "{asked:?}");
    // and nothing else: what was asked for by name is refused by name
    let bus = Bus::new(&[(
        "StartTransientUnit",
        Reply::Error(READ_ONLY, "Cannot set property Frobnicate, or unknown property."),
    )]);
    let error = start(&mut bus.manager(), optional()).unwrap_err().to_string();
    assert_eq!(error, "refused: cannot set property Frobnicate, or unknown property");
}

#[test]
fn a_unit_is_stopped_and_forgotten() {
    let bus = Bus::new(&[("StopUnit", DONE), ("ResetFailedUnit", Reply::Error(NONE, ""))]);
    bus.manager().stop("a.scope").unwrap();
    // one that has gone by itself
    let bus = Bus::new(&[("StopUnit", Reply::Error(NONE, "Unit a.scope not loaded."))]);
    bus.manager().stop("a.scope").unwrap();
    let bus = Bus::new(&[(
        "StopUnit",
        Reply::Error("org.freedesktop.DBus.Error.AccessDenied", "Permission denied"),
    )]);
    let error = bus.manager().stop("a.scope").unwrap_err().to_string();
    assert_eq!(error, "permission denied");
}

#[test]
fn properties_are_asked_for_and_changed() {
    let bus = Bus::new(&[
        ("Get", Reply::Variant("252.39")),
        ("Get", Reply::Error("org.freedesktop.DBus.Error.ServiceUnknown", "No such name.")),
        ("SetUnitProperties", OK),
    ]);
    let mut manager = bus.manager();
    assert_eq!(manager.property("Version").unwrap(), "252.39");
    let error = manager.property("ControlGroup").unwrap_err().to_string();
    assert_eq!(error, "ask systemd for its ControlGroup: no such name");
    let limits = plan(&resources(r#"{"pids": {"limit": 5}}"#)).unwrap();
    manager.set_properties("a.scope", super::properties::of_limits(&limits.settings)).unwrap();
    drop(manager);
    let asked = bus.asked();
    assert!(asked[2].contains("TasksMax"), "{asked:?}");
}

#[test]
fn a_bus_that_hangs_is_an_error() {
    let short = Duration::from_secs(1);
    let bus = Bus::new(&[("Get", Reply::Never)]);
    let mut manager = Manager::at(&bus.address, short).unwrap();
    let error = manager.property("Version").unwrap_err().to_string();
    assert!(error.contains("no answer within 1 s"), "{error}");
    // a job without an end
    let bus = Bus::new(&[("StartTransientUnit", Reply::Str("/job/7"))]);
    let mut manager = Manager::at(&bus.address, short).unwrap();
    let error = start(&mut manager, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("no answer within 1 s"), "{error}");
    // one that does not even greet
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = Manager::at(&format!("unix:path={}", path.display()), short).unwrap_err();
    assert!(error.to_string().contains("no answer within 1 s"), "{error}");
}

#[test]
fn a_bus_that_is_none_is_an_error() {
    let open = |path: &std::path::Path| -> Error {
        let address = format!("unix:path={}", path.display());
        Manager::at(&address, Duration::from_secs(20)).unwrap_err()
    };
    let dir = tempfile::tempdir().unwrap();
    let absent = open(&dir.path().join("none")).to_string();
    assert!(absent.contains("connect to the bus at unix:path="), "{absent}");
    assert!(absent.ends_with("no such file or directory"), "{absent}");
    for (greeting, expected) in [
        (&b"REJECTED EXTERNAL\r\n"[..], "it does not let us in: REJECTED EXTERNAL"),
        (b"HTTP/1.1 400 Bad Request\r\n", "it does not let us in: HTTP/1.1 400 Bad Request"),
        (b"", "it has hung up"),
        (&[b'x'; 5000], "what it says is no greeting of D-Bus"),
        (b"OK 00ff\r\nwhat is this, no message of D-Bus", "what came is no message of D-Bus"),
    ] {
        let path = dir.path().join(format!("bus-{}", greeting.len()));
        let listener = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // until the other side has had enough
            stream.read_to_end(&mut Vec::new()).unwrap_or_default();
        });
        let error = open(&path).to_string();
        assert!(error.ends_with(expected), "{error}");
        served.join().unwrap();
    }
}
