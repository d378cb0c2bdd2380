//! The formats of cgroup2's files (cgroup-v2.rst, "Format"). What a newer kernel
//! adds to them is passed over.

use std::collections::BTreeMap;

use super::{DeviceIo, Pressure, Stall, Transfers};

/// A flat-keyed file: `KEY NUMBER` a line.
#[derive(Debug, Default)]
pub(super) struct Flat(pub(super) BTreeMap<String, u64>);

impl Flat {
    pub(super) fn of(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        });
        Flat(pairs.collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }
}

/// `KEY=VALUE`, separated by spaces.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_ascii_whitespace().filter_map(|word| word.split_once('='))
}

/// io.stat: `MAJOR:MINOR rbytes=… wbytes=…` a line. A device without figures has
/// a line of its numbers alone.
pub(super) fn io(text: &str) -> Vec<DeviceIo> {
    text.lines().filter_map(device).collect()
}

fn device(line: &str) -> Option<DeviceIo> {
    let (numbers, rest) = line.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let mut io =
        DeviceIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..DeviceIo::default() };
    let mut counted = false;
    for (key, value) in pairs(rest) {
        let of = |t: &mut Transfers, bytes: bool| {
            let figure = if bytes { &mut t.bytes } else { &mut t.count };
            *figure = value.parse().unwrap_or_default();
        };
        match key {
            "rbytes" => of(&mut io.read, true),
            "wbytes" => of(&mut io.write, true),
            "dbytes" => of(&mut io.discard, true),
            "rios" => of(&mut io.read, false),
            "wios" => of(&mut io.write, false),
            "dios" => of(&mut io.discard, false),
            _ => continue,
        }
        counted = true;
    }
    counted.then_some(io)
}

/// A file of pressure: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the
/// same for `full`.
pub(super) fn pressure(text: &str) -> Pressure {
    let line = |kind: &str| text.lines().find_map(|line| stall(line.strip_prefix(kind)?));
    Pressure { some: line("some "), full: line("full ") }
}

fn stall(text: &str) -> Option<Stall> {
    let get = |name| pairs(text).find_map(|(key, value)| (key == name).then_some(value));
    let percent = |name| get(name)?.parse().ok();
    Some(Stall {
        avg10: percent("avg10")?,
        avg60: percent("avg60")?,
        avg300: percent("avg300")?,
        total: get("total")?.parse().ok()?,
    })
}

/// A list of numbers and ranges: `0-2,7`.
pub(super) fn list(text: &str) -> Vec<u16> {
    let ranges = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges() {
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(list("\n"), [] as [u16; 0]);
    }

    #[test]
    fn a_device_has_figures_or_no_entry() {
        let text = "8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=3 cost.usage=5\n7:1\n";
        let expected = DeviceIo {
            major: 8,
            minor: 0,
            read: Transfers { bytes: 4096, count: 2 },
            write: Transfers { bytes: 512, count: 1 },
            discard: Transfers { bytes: 0, count: 3 },
        };
        assert_eq!(io(text), [expected]);
        assert_eq!(io("253:0 \n254:0 cost.usage=1\n"), []);
    }

    #[test]
    fn pressure_may_lack_a_line() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n";
        let found = pressure(text);
        assert_eq!(found.some, Some(Stall { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 1234 }));
        assert_eq!(found.full, None);
    }

    #[test]
    fn what_is_no_number_is_no_figure() {
        let flat = Flat::of("a 1\nb max\nc\n");
        assert_eq!((flat.get("a"), flat.get("b"), flat.get("c")), (Some(1), None, None));
    }
}
