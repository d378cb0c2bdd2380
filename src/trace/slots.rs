//! Steps in memory that the runtime and its children share: taken one by one,
//! written by whoever has taken them, read at the end. No locks: a process that is
//! killed half-way leaves a step without an end, and nobody waits for it.

use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::SysResult;
use crate::sys::shared::shared_words;

/// Steps that there is room for.
pub(super) const MOST: usize = 2048;

/// Words of a step.
const SIZE: usize = 32;

/// Words before the first step: how many were taken, and the processes' ids.
const HEADER: usize = 8;

/// Bytes of a step's text.
const ROOM: usize = (SIZE - 4) * 8;

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    /// tare's own process
    Runtime = 1,
    /// The second fork, which joins namespaces
    Helper = 2,
    /// The container's first process, up to its execve
    Init = 3,
    /// That of `exec`, up to its execve
    Process = 4,
}

impl Role {
    pub(super) const ALL: [Role; 4] = [Role::Runtime, Role::Helper, Role::Init, Role::Process];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Runtime => "tare",
            Role::Helper => "helper",
            Role::Init => "init",
            Role::Process => "process",
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has said that it is over.
    Open = 1,
    Done = 2,
    Failed = 3,
    /// A moment, and not a step.
    Moment = 4,
}

impl State {
    fn of(word: u64) -> Option<Self> {
        [State::Open, State::Done, State::Failed, State::Moment]
            .into_iter()
            .find(|state| *state as u64 == word)
    }
}

/// A step as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) role: Role,
    pub(super) state: State,
    /// Nanoseconds of the monotonic clock.
    pub(super) start: u64,
    /// The same; means nothing while it is open.
    pub(super) end: u64,
    pub(super) name: String,
    /// What it was done to: the kind of thing, and which.
    pub(super) detail: Option<(String, String)>,
}

/// All of the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots(&'static [AtomicU64]);

/// One step's part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(&'static [AtomicU64; SIZE]);

impl Slots {
    pub(super) fn new() -> SysResult<Self> {
        shared_words(HEADER + MOST * SIZE).map(Slots)
    }

    /// Writes a step down that begins at `start`; `None` when there is no room.
    pub(super) fn begin(
        self,
        role: Role,
        start: u64,
        name: &str,
        detail: Option<(&str, &dyn Display)>,
    ) -> Option<Slot> {
        let taken = self.0.first()?.fetch_add(1, Ordering::Relaxed);
        let slot = self.slot(usize::try_from(taken).ok()?)?;
        let [state, begins, _, about, text @ ..] = slot.0;
        let mut all = Text::default();
        let name = all.add(&name);
        let (key, value) = match detail {
            Some((key, value)) => (all.add(&key), all.add(value)),
            None => (0, 0),
        };
        for (word, bytes) in text.iter().zip(all.bytes.chunks_exact(8)) {
            let bytes = bytes.try_into().unwrap_or_default();
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        begins.store(start, Ordering::Relaxed);
        let lengths = u64::from_le_bytes([role as u8, name, key, value, 0, 0, 0, 0]);
        about.store(lengths, Ordering::Relaxed);
        // last: who sees it sees the rest as well
        state.store(State::Open as u64, Ordering::Release);
        Some(slot)
    }

    /// Ends everything that is still open and not `role`'s, or only what is.
    pub(super) fn close(self, which: impl Fn(Role) -> bool, end: u64, state: State) {
        for slot in self.taken() {
            if slot.state() == Some(State::Open) && slot.role().is_some_and(&which) {
                slot.end(end, state);
            }
        }
    }

    /// All steps, in no order.
    pub(super) fn read(self) -> Vec<Recorded> {
        self.taken().filter_map(Slot::read).collect()
    }

    /// How many steps there was no room for.
    pub(super) fn lost(self) -> u64 {
        let taken = self.0.first().map_or(0, |word| word.load(Ordering::Relaxed));
        taken.saturating_sub(MOST as u64)
    }

    /// Says which process has this role.
    pub(super) fn set_pid(self, role: Role, pid: u64) {
        if let Some(word) = self.0.get(role as usize) {
            word.store(pid, Ordering::Relaxed);
        }
    }

    /// The process of a role, 0 if it is not known.
    pub(super) fn pid(self, role: Role) -> u64 {
        self.0.get(role as usize).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// No more than were taken: memory that nobody has written to stays free.
    fn taken(self) -> impl Iterator<Item = Slot> {
        let taken = self.0.first().map_or(0, |word| word.load(Ordering::Relaxed));
        let taken = usize::try_from(taken).unwrap_or(MOST).min(MOST);
        (0..taken).map_while(move |at| self.slot(at))
    }

    fn slot(self, at: usize) -> Option<Slot> {
        let start = HEADER.checked_add(at.checked_mul(SIZE)?)?;
        self.0.get(start..start.checked_add(SIZE)?)?.try_into().ok().map(Slot)
    }
}

impl Slot {
    pub(super) fn end(self, at: u64, state: State) {
        let [word, _, end, ..] = self.0;
        end.store(at, Ordering::Relaxed);
        word.store(state as u64, Ordering::Release);
    }

    fn state(self) -> Option<State> {
        let [state, ..] = self.0;
        State::of(state.load(Ordering::Acquire))
    }

    fn role(self) -> Option<Role> {
        let [_, _, _, about, ..] = self.0;
        let [role, ..] = about.load(Ordering::Relaxed).to_le_bytes();
        Role::ALL.into_iter().find(|r| *r as u8 == role)
    }

    fn read(self) -> Option<Recorded> {
        let (state, role) = (self.state()?, self.role()?);
        let [_, start, end, about, text @ ..] = self.0;
        let [_, name, key, value, ..] = about.load(Ordering::Relaxed).to_le_bytes();
        let mut bytes = text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let mut next = |length: u8| {
            let part: Vec<u8> = bytes.by_ref().take(length.into()).collect();
            String::from_utf8_lossy(&part).into_owned()
        };
        let (name, detail) = (next(name), (next(key), next(value)));
        Some(Recorded {
            role,
            state,
            start: start.load(Ordering::Relaxed),
            end: end.load(Ordering::Relaxed),
            name,
            detail: (key > 0).then_some(detail),
        })
    }
}

/// The texts of a step, one after the other; what is too long loses its end.
struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Text { bytes: [0; ROOM], length: 0 }
    }
}

impl Text {
    /// Adds a text; the answer is how much of it there is.
    fn add(&mut self, text: &dyn Display) -> u8 {
        let before = self.length;
        // only a value that can't be shown fails, and has said nothing then
        write!(self, "{text}").unwrap_or_default();
        u8::try_from(self.length - before).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = ROOM - self.length;
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let part = text.as_bytes().get(..end.unwrap_or(0)).unwrap_or_default();
        let free = self.bytes.iter_mut().skip(self.length);
        free.zip(part).for_each(|(slot, byte)| *slot = *byte);
        self.length += part.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_comes_back_as_it_was_written() {
        let slots = Slots::new().unwrap();
        let open = slots.begin(Role::Init, 5, "mount", Some(("destination", &"/dä"))).unwrap();
        slots.begin(Role::Runtime, 6, "serve", None).unwrap().end(9, State::Failed);
        let all = slots.read();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].state, all[0].start), (State::Open, 5));
        assert_eq!(all[0].detail, Some(("destination".to_owned(), "/dä".to_owned())));
        assert_eq!((all[1].role, all[1].state, all[1].end), (Role::Runtime, State::Failed, 9));
        assert_eq!(all[1].detail, None);
        slots.close(|role| role == Role::Runtime, 10, State::Done);
        assert_eq!(slots.read()[0].state, State::Open);
        slots.close(|role| role != Role::Runtime, 11, State::Done);
        open.end(12, State::Done);
        assert_eq!((slots.read()[0].end, slots.lost()), (12, 0));
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let slots = Slots::new().unwrap();
        let made = (0..MOST + 3).filter_map(|_| slots.begin(Role::Init, 1, "x", None)).count();
        assert_eq!((made, slots.lost(), slots.read().len()), (MOST, 3, MOST));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let slots = Slots::new().unwrap();
        slots.begin(Role::Init, 1, "n", Some(("k", &"ä".repeat(999)))).unwrap();
        let (key, value) = slots.read().remove(0).detail.unwrap();
        assert_eq!((key.as_str(), value), ("k", "ä".repeat((ROOM - 2) / 2)));
        slots.begin(Role::Init, 1, &"n".repeat(999), Some(("k", &"v"))).unwrap();
        let last = slots.read().pop().unwrap();
        assert_eq!((last.name.len(), last.detail), (ROOM, None));
    }
}
