//! Zstandard, with an eye on the memory that it takes: a stream says how far back its
//! references reach, and all of that has to be kept.

use std::io::{self, BufRead};
use std::sync::{Condvar, Mutex, PoisonError};

use super::entry::bad;

/// Bytes of all windows that are open side by side; one that is larger is open alone.
const TOGETHER: u64 = 32 << 20;

/// The largest window that is taken: that of `zstd --long`, and of `--ultra -22`.
const MOST_LOG: u32 = 27;

/// What any stream may take, whatever its first frame says.
const LEAST_LOG: u32 = 22;

/// What is left of [`TOGETHER`].
static FREE: (Mutex<u64>, Condvar) = (Mutex::new(TOGETHER), Condvar::new());

/// A decoder, with room for its window as long as it lives.
pub(crate) struct Unzstd<R: BufRead> {
    decoder: zstd::Decoder<'static, R>,
    most_log: u32,
    _room: Room,
}

impl<R: BufRead> Unzstd<R> {
    /// Waits until there is room for the window of the first frame, which those of later
    /// ones may not exceed; where no frame comes first, for the largest one.
    ///
    /// # Errors
    /// InvalidData for a window that is too large.
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let window = window(source.fill_buf()?).unwrap_or(1 << MOST_LOG);
        if window > 1 << MOST_LOG {
            return Err(too_large(MOST_LOG));
        }
        let most_log = window.next_power_of_two().ilog2().max(LEAST_LOG);
        let room = Room::wait(1 << most_log);
        let mut decoder = zstd::Decoder::with_buffer(source)?;
        decoder.window_log_max(most_log)?;
        Ok(Unzstd { decoder, most_log, _room: room })
    }

    /// What it reads from.
    pub(crate) fn source(&self) -> &R {
        self.decoder.get_ref()
    }
}

impl<R: BufRead> io::Read for Unzstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(into).map_err(|e| match e.to_string().contains("too much memory") {
            // a later frame's
            true => too_large(self.most_log),
            false => e,
        })
    }
}

fn too_large(log: u32) -> io::Error {
    let begins = if log < MOST_LOG { ", which is what it begins with" } else { "" };
    bad(format!(
        "its zstd window is larger than {} MiB{begins} (compress it again, with zstd \
         --long={MOST_LOG} or less)",
        (1u64 << log) >> 20
    ))
}

/// A part of the memory for windows.
struct Room(u64);

impl Room {
    fn wait(window: u64) -> Self {
        let (free, freed) = &FREE;
        let wanted = window.min(TOGETHER);
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = freed.wait_while(free, |free| *free < wanted);
        *free.unwrap_or_else(PoisonError::into_inner) -= wanted;
        Room(wanted)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let (free, freed) = &FREE;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        freed.notify_all();
    }
}

/// The window that a frame's header names, in bytes (RFC 8878, 3.1.1.1); `None` for what
/// begins with no such header.
fn window(frame: &[u8]) -> Option<u64> {
    let (magic, header) = frame.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) != zstd::zstd_safe::MAGICNUMBER {
        return None;
    }
    let (descriptor, rest) = header.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // in one segment: the window is the content, whose size comes after a dictionary's id
    let id = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let size = [1, 2, 4, 8].get(usize::from(descriptor >> 6))?;
    let bytes = rest.get(*id..id + size)?;
    let number = bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    Some(if *size == 2 { number + 256 } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn packed(log: Option<u32>, data: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        match log {
            Some(log) => encoder.window_log(log).unwrap(),
            None => encoder.set_pledged_src_size(Some(data.len() as u64)).unwrap(),
        }
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn windows_as_headers_have_them() {
        for log in [10, 20, 25, 27] {
            assert_eq!(window(&packed(Some(log), b"x")), Some(1 << log));
        }
        // in one segment
        for size in [0, 1, 255, 256, 300, 70_000] {
            let found = window(&packed(None, &vec![0; size])).unwrap();
            assert!(found == size as u64 || found == 1024, "{size}: {found}");
        }
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x0f]), Some((1 << 11) + 7 * 256));
        assert_eq!(window(b""), None);
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd]), None);
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 1, 2]), None);
        assert_eq!(window(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_window_that_is_too_large_is_named_wherever_it_comes() {
        let huge = packed(Some(28), b"x");
        let error = |bytes: &[u8]| {
            let mut all = Vec::new();
            let read = Unzstd::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut all));
            read.unwrap_err().to_string()
        };
        assert!(error(&huge).contains("larger than 128 MiB (compress it again"));
        let later = [packed(Some(20), b"x"), huge].concat();
        let found = error(&later);
        assert!(found.contains("larger than 4 MiB, which is what it begins with"), "{found}");
        // what is skipped says nothing of what comes
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &packed(Some(28), b"x")].concat();
        assert!(error(&skipped).contains("larger than 128 MiB (compress it again"));
    }

    #[test]
    fn room_is_taken_for_what_may_come() {
        let room = |bytes: &[u8]| Unzstd::new(bytes).map(|decoder| decoder._room.0).unwrap();
        assert_eq!(room(&packed(Some(10), b"x")), 1 << LEAST_LOG);
        assert_eq!(room(&packed(Some(24), b"x")), 1 << 24);
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &packed(Some(10), b"x")].concat();
        assert_eq!(room(&skipped), TOGETHER);
    }

    #[test]
    fn what_does_not_fit_beside_others_waits_and_gets_its_turn() {
        std::thread::scope(|scope| {
            for log in [27, 25, 24, 27, 20, 25] {
                scope.spawn(move || {
                    let bytes = packed(Some(log), b"some words");
                    let mut all = Vec::new();
                    Unzstd::new(bytes.as_slice()).unwrap().read_to_end(&mut all).unwrap();
                    assert_eq!(all, b"some words");
                });
            }
        });
    }
}
