//! What a command spends its time on, step by step: `--trace FILE`.
//!
//! The runtime and what it clones write their steps into memory that they share;
//! the runtime writes all of it to the file at its end, whatever that is. Init
//! opens nothing for it, and hands nothing on.
//!
//! Without `--trace` a step costs a look at one byte: no call, no memory. All that
//! is done with it is in functions that are marked cold, out of the way of what
//! every container goes through.

mod clock;
mod draw;
mod events;
mod read;
mod slots;
mod text;

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::error::{Error, Result, Step};
use clock::Both;
pub use draw::svg;
pub use read::{Recording, parse};
pub(crate) use slots::Role;
use slots::{Slot, Slots, State};
pub use text::text;

/// Whether this process writes its steps down.
static ON: AtomicBool = AtomicBool::new(false);

/// Whose steps those of this process are.
static ROLE: AtomicU8 = AtomicU8::new(Role::Runtime as u8);

/// When the program began: 0 if nobody has asked for a trace.
static BEGAN: AtomicU64 = AtomicU64::new(0);

static TRACE: OnceLock<Trace> = OnceLock::new();

#[derive(Debug)]
struct Trace {
    file: File,
    path: PathBuf,
    slots: Slots,
    /// When tare's process was made, as far as that can be told.
    start: u64,
}

/// Looks whether there will be a trace: then the program begins now.
#[inline]
pub fn notice(words: &[OsString]) {
    // a word of somebody else's program does no harm
    let is_it = |word: &OsString| {
        let word = word.as_bytes();
        word.strip_prefix(b"-").unwrap_or(word).starts_with(b"-trace")
    };
    if words.iter().any(is_it) {
        begin_program();
    }
}

#[cold]
fn begin_program() {
    BEGAN.store(clock::now(), Ordering::Relaxed);
}

/// Opens the trace, before the command does anything.
///
/// # Errors
/// The file can't be written.
pub fn open(path: Option<&Path>) -> Result<()> {
    match path {
        Some(path) => open_file(path),
        None => Ok(()),
    }
}

#[cold]
fn open_file(path: &Path) -> Result<()> {
    let step = || format!("--trace {}", path.display());
    let now = clock::now();
    let began = Some(BEGAN.load(Ordering::Relaxed)).filter(|began| *began > 0).unwrap_or(now);
    // two execves and the C library's start have left no other mark
    let start = now.saturating_sub(clock::spent()).min(began);
    let file = crate::logging::open_output(path).step(step)?;
    let slots = Slots::new().step(step)?;
    slots.set_pid(Role::Runtime, u64::from(std::process::id()));
    let whole = |start, end, name| {
        if let Some(slot) = slots.begin(Role::Runtime, start, name, None) {
            slot.end(end, State::Done);
        }
    };
    whole(start, began, "before main");
    whole(began, now, "read the command line");
    whole(now, clock::now(), "open the trace");
    // a second call has nothing to say: the first one holds
    TRACE.set(Trace { file, path: path.to_owned(), slots, start }).unwrap_or_default();
    ON.store(true, Ordering::Relaxed);
    Ok(())
}

/// Does a step, and writes down when and whether it has worked.
#[inline(always)]
pub(crate) fn step<T>(name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    within(if ON.load(Ordering::Relaxed) { begin(name, None) } else { None }, work)
}

/// The same for a step on something: what kind of thing that is, and which.
#[inline(always)]
pub(crate) fn step_on<T>(
    name: &'static str,
    detail: (&'static str, &dyn Display),
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    within(if ON.load(Ordering::Relaxed) { begin(name, Some(detail)) } else { None }, work)
}

#[inline(always)]
fn within<T>(slot: Option<Slot>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = work();
    if let Some(slot) = slot {
        end(slot, done.is_err());
    }
    done
}

#[cold]
fn begin(name: &str, detail: Option<(&str, &dyn Display)>) -> Option<Slot> {
    let slots = TRACE.get()?.slots;
    slots.begin(role(), clock::now(), name, detail)
}

#[cold]
fn end(slot: Slot, has_failed: bool) {
    // whoever has left before the end of this step has said when
    if ON.load(Ordering::Relaxed) {
        slot.end(clock::now(), outcome(has_failed));
    }
}

fn outcome(has_failed: bool) -> State {
    if has_failed { State::Failed } else { State::Done }
}

fn role() -> Role {
    let role = ROLE.load(Ordering::Relaxed);
    Role::ALL.into_iter().find(|r| *r as u8 == role).unwrap_or(Role::Runtime)
}

/// Called first by a new process: its steps are this role's from here on.
#[inline(always)]
pub(crate) fn enter(role: Role) {
    if ON.load(Ordering::Relaxed) {
        begin_life(role);
    }
}

#[cold]
fn begin_life(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
    begin(role.name(), None);
}

/// The runtime has made the process of this role.
#[inline(always)]
pub(crate) fn made(role: Role, pid: nix::unistd::Pid) {
    if ON.load(Ordering::Relaxed) {
        know_pid(role, pid);
    }
}

#[cold]
fn know_pid(role: Role, pid: nix::unistd::Pid) {
    if let Some(trace) = TRACE.get() {
        trace.slots.set_pid(role, u64::try_from(pid.as_raw()).unwrap_or_default());
    }
}

/// Does what may shift the clocks of this process.
#[inline(always)]
pub(crate) fn across_clocks<T>(work: impl FnOnce() -> T) -> T {
    let before = if ON.load(Ordering::Relaxed) { both() } else { None };
    let done = work();
    if let Some(before) = before {
        shifted(before);
    }
    done
}

#[cold]
fn both() -> Option<Both> {
    Some(Both::read())
}

#[cold]
fn shifted(before: Both) {
    before.since();
}

/// The last step of a process that writes nothing after its beginning: a filter may
/// let it make no call any more. The runtime sees the end; see [`ended`].
#[inline(always)]
pub(crate) fn last(name: &'static str) {
    if ON.load(Ordering::Relaxed) {
        begin_last(name);
    }
}

#[cold]
fn begin_last(name: &'static str) {
    begin(name, None);
    ON.store(false, Ordering::Relaxed);
}

/// Nothing of this process belongs to the trace any more.
#[inline(always)]
pub(crate) fn leave() {
    if ON.load(Ordering::Relaxed) {
        end_life(State::Done);
        ON.store(false, Ordering::Relaxed);
    }
}

/// This process ends with an error.
#[inline(always)]
pub(crate) fn failed(error: &Error) {
    if ON.load(Ordering::Relaxed) {
        say(error);
        end_life(State::Failed);
    }
}

#[cold]
fn say(error: &Error) {
    let detail: (&str, &dyn Display) = ("error", error);
    if let Some(slot) = begin("failed", Some(detail)) {
        slot.end(clock::now(), State::Moment);
    }
}

#[cold]
fn end_life(state: State) {
    if let Some(trace) = TRACE.get() {
        let own = role();
        trace.slots.close(|role| role == own, clock::now(), state);
    }
}

/// The runtime has seen the end of what it had made, or of its time before the
/// program.
#[inline(always)]
pub(crate) fn ended(has_failed: bool) {
    if ON.load(Ordering::Relaxed) {
        end_others(outcome(has_failed));
    }
}

#[cold]
fn end_others(state: State) {
    if let Some(trace) = TRACE.get() {
        trace.slots.close(|role| role != Role::Runtime, clock::now(), state);
    }
}

/// Writes the trace of a command, which is called `what` and may have failed.
#[inline(always)]
pub fn finish(what: &str, error: Option<&dyn Display>) {
    if ON.load(Ordering::Relaxed) {
        write(what, error);
    }
}

#[cold]
fn write(what: &str, error: Option<&dyn Display>) {
    let Some(trace) = TRACE.get() else { return };
    ON.store(false, Ordering::Relaxed);
    let whole = events::Whole {
        what,
        start: trace.start,
        end: clock::now(),
        error: error.map(|error| crate::error::one_line(&format!("{error:#}"))),
    };
    let bytes = events::of(trace.slots, &whole);
    let lost = trace.slots.lost();
    if let Err(e) =
        (&trace.file).write_all(&bytes).step(|| format!("--trace {}", trace.path.display()))
    {
        crate::logging::warn(&e.to_string());
    }
    if lost > 0 {
        let path = trace.path.display();
        crate::logging::warn(&format!("--trace {path}: {lost} steps had no room and are left out"));
    }
}
