//! Zstandard, with an eye on the memory that it takes: a frame says how far back its
//! references reach, and all of that has to be kept.
//!
//! A stream may have many frames (zstd:chunked has one for each header and each part of a
//! file), and a small one says nothing of those after it: each header is looked at before
//! its frame is decoded.

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, PoisonError};

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{MAGIC_SKIPPABLE_MASK, MAGIC_SKIPPABLE_START, MAGICNUMBER};

use super::entry::bad;

/// Bytes of all windows that are open side by side; one that is larger is open alone.
const TOGETHER: u64 = 32 << 20;

/// The largest window that is taken: that of `zstd --long`, and of `--ultra -22`.
const MOST: u64 = 1 << 27;

/// Most bytes of a frame's header (RFC 8878, 3.1.1), with its magic number.
const HEADER: usize = 18;

/// What is left of [`TOGETHER`].
static FREE: (Mutex<u64>, Condvar) = (Mutex::new(TOGETHER), Condvar::new());

/// What is read from a stream of frames.
pub(crate) struct Unzstd<R: BufRead> {
    source: Ahead<R>,
    /// With room for the largest window so far.
    decoder: Option<(Decoder<'static>, Room)>,
    in_frame: bool,
}

impl<R: BufRead> Unzstd<R> {
    pub(crate) fn new(source: R) -> Self {
        let source = Ahead { head: Vec::new(), taken: 0, source };
        Unzstd { source, decoder: None, in_frame: false }
    }

    /// What it reads from.
    pub(crate) fn source(&self) -> &R {
        &self.source.source
    }

    /// Goes to the next frame, and waits until there is room for its window; false at the
    /// end of the stream. While it waits, it holds none.
    fn begin_frame(&mut self) -> io::Result<bool> {
        loop {
            let header = self.source.look(HEADER)?;
            if header.is_empty() {
                return Ok(false);
            }
            if let Some(length) = skippable(header) {
                self.source.skip(length)?;
                continue;
            }
            // what is no header is for the decoder to refuse
            let window = window(header).unwrap_or_default();
            if window > MOST {
                return Err(bad(format!(
                    "its zstd window is larger than {} MiB (compress it again, with zstd \
                     --long={} or less)",
                    MOST >> 20,
                    MOST.ilog2()
                )));
            }
            let enough = |(_, room): &(_, Room)| room.0 >= window.min(TOGETHER);
            match self.decoder.take_if(|decoder| enough(decoder)) {
                Some((mut decoder, room)) => {
                    decoder.reinit()?;
                    self.decoder = Some((decoder, room));
                }
                None => {
                    self.decoder = None;
                    let room = Room::wait(window);
                    self.decoder = Some((Decoder::new()?, room));
                }
            }
            self.in_frame = true;
            return Ok(true);
        }
    }
}

impl<R: BufRead> Read for Unzstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !into.is_empty() {
            if !self.in_frame && !self.begin_frame()? {
                break;
            }
            let Some((decoder, _)) = &mut self.decoder else { break };
            let bytes = self.source.fill_buf()?;
            let mut input = InBuffer::around(bytes);
            let mut output = OutBuffer::around(&mut *into);
            let left = decoder.run(&mut input, &mut output)?;
            let (taken, written) = (input.pos(), output.pos());
            let stuck = bytes.is_empty() && written == 0 && left > 0;
            self.source.consume(taken);
            if stuck {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete zstd frame"));
            }
            self.in_frame = left > 0;
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }
}

/// A source of which some bytes were looked at in advance.
struct Ahead<R> {
    head: Vec<u8>,
    taken: usize,
    source: R,
}

impl<R: BufRead> Ahead<R> {
    /// The next bytes, as many as there are up to `most`.
    fn look(&mut self, most: usize) -> io::Result<&[u8]> {
        self.head.drain(..self.taken);
        self.taken = 0;
        while self.head.len() < most {
            let bytes = match self.source.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let count = bytes.len().min(most - self.head.len());
            if count == 0 {
                break;
            }
            self.head.extend(bytes.iter().take(count));
            self.source.consume(count);
        }
        Ok(&self.head)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut *self).take(length), &mut io::sink())?;
        if skipped < length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete zstd frame"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Ahead<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Ahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.head.get(self.taken..) {
            Some(rest) if !rest.is_empty() => Ok(rest),
            _ => self.source.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        let ahead = count.min(self.head.len() - self.taken);
        self.taken += ahead;
        self.source.consume(count - ahead);
    }
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

/// How long a frame is that is to be skipped, with its header (RFC 8878, 3.1.2).
fn skippable(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) & MAGIC_SKIPPABLE_MASK != MAGIC_SKIPPABLE_START {
        return None;
    }
    Some(u64::from(u32::from_le_bytes(*rest.first_chunk()?)) + 8)
}

/// The window that a frame's header names, in bytes (RFC 8878, 3.1.1.1); `None` for what
/// begins with no such header.
fn window(frame: &[u8]) -> Option<u64> {
    let (magic, header) = frame.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) != MAGICNUMBER {
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
    use std::io::Write;

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

    const SKIPPED: [u8; 11] = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        // as few bytes at a time as there may be
        let source = io::BufReader::with_capacity(1, bytes);
        Unzstd::new(source).read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn frames_of_any_size_follow_each_other() {
        let words = b"some words ".repeat(1000);
        let small = packed(Some(10), b"small");
        let frames: [&[u8]; 7] = [
            &small,
            &SKIPPED,
            &packed(Some(25), &words),
            &small,
            &packed(Some(27), &words),
            &packed(None, b""),
            &SKIPPED,
        ];
        let wanted = [b"small", words.as_slice(), b"small", &words].concat();
        assert!(unpacked(&frames.concat()).unwrap() == wanted);
        assert_eq!(unpacked(b"").unwrap(), b"");
        assert_eq!(unpacked(&SKIPPED).unwrap(), b"");
    }

    #[test]
    fn a_window_that_is_too_large_is_named_wherever_it_comes() {
        let huge = packed(Some(28), b"x");
        let small = packed(Some(20), b"x");
        for before in [&b""[..], &small, &SKIPPED] {
            let error = unpacked(&[before, &huge].concat()).unwrap_err().to_string();
            assert!(error.contains("larger than 128 MiB (compress it again"), "{error}");
        }
    }

    #[test]
    fn what_is_broken_is_refused() {
        let frame = packed(Some(20), &b"some words ".repeat(1000));
        for (bytes, why) in [
            (frame.split_last().unwrap().1.to_vec(), "incomplete"),
            ([&frame, &frame[..7]].concat(), "incomplete"),
            ([&frame, &SKIPPED[..10]].concat(), "incomplete"),
            ([&frame, &SKIPPED[..6]].concat(), "incomplete"),
            ([&frame, b"and more".as_slice()].concat(), "Unknown frame descriptor"),
        ] {
            let error = unpacked(&bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn room_is_taken_for_the_largest_window_so_far() {
        let frames = [20, 24, 10, 27].map(|log| packed(Some(log), b"x")).concat();
        let mut decoder = Unzstd::new(frames.as_slice());
        let room = [20, 24, 24, 25].map(|log| (b'x', 1u64 << log));
        let found = room.map(|_| {
            let mut byte = [0];
            decoder.read_exact(&mut byte).unwrap();
            (byte[0], decoder.decoder.as_ref().unwrap().1.0)
        });
        assert_eq!(found, room);
    }

    #[test]
    fn what_does_not_fit_beside_others_waits_and_gets_its_turn() {
        std::thread::scope(|scope| {
            for log in [27, 25, 24, 27, 20, 25] {
                scope.spawn(move || {
                    let bytes = packed(Some(log), b"some words");
                    let mut all = Vec::new();
                    Unzstd::new(bytes.as_slice()).read_to_end(&mut all).unwrap();
                    assert_eq!(all, b"some words");
                });
            }
        });
    }
}
