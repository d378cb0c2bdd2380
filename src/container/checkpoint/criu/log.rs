//! What CRIU writes of its troubles.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::lower_first;

/// Most bytes of a log that are looked at: a dump of many processes writes megabytes,
/// and what went wrong is near the end.
const MAX_LOG: u64 = 1 << 20;

/// The first error of a log, without where in CRIU's sources it comes from; the one
/// that others follow from.
pub(super) fn first_error(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once("Error (")?;
        let (_, message) = rest.split_once("): ")?;
        let message = message.trim();
        (!message.is_empty()).then(|| lower_first(message))
    })
}

/// The first error of a log in a file.
pub(super) fn read(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut bytes).ok()?;
    first_error(&String::from_utf8_lossy(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_found() {
        let text = "(00.000001) Version: 3.17.1 (gitid 0)\n\
                    (00.049) Warn  (criu/x.c:1): nothing\n\
                    (00.053)      1: Error (criu/mount.c:1062): Mnt is odd: 5:/x\n\
                    (00.054) Error (criu/cr-dump.c:1781): Dumping FAILED.\n";
        assert_eq!(first_error(text).unwrap(), "mnt is odd: 5:/x");
        assert_eq!(first_error("(00.1) all is well\n"), None);
    }
}
