//! The names in a directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::dir::Type;

use super::{SysResult, check};

/// Bytes that one getdents64 brings at most.
const PIECE: usize = 8192;

/// A name, and its type where the file system tells it.
pub type Named = (CString, Option<Type>);

/// The names in a directory that has just been opened, without `.` and `..`.
///
/// By getdents64(2): readdir asks for the directory's status and for memory of its own.
///
/// # Errors
/// What the call says: ENOENT for a directory that is gone.
pub fn fresh_names(dir: BorrowedFd<'_>) -> SysResult<Vec<Named>> {
    let mut all = Vec::new();
    let mut buf = [0u8; PIECE];
    loop {
        // SAFETY: a buffer, passed with its length.
        let length = check(unsafe {
            libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), buf.len())
        })?;
        let length = usize::try_from(length).unwrap_or(0);
        if length == 0 {
            return Ok(all);
        }
        let mut rest = buf.get(..length).unwrap_or_default();
        while let Some((entry, next)) = first(rest) {
            all.extend(entry);
            rest = next;
        }
    }
}

/// The first of some records (struct linux_dirent64: inode and offset, 8 bytes each,
/// the record's length in 2, the type in 1, the name up to a NUL), and the others.
fn first(records: &[u8]) -> Option<(Option<Named>, &[u8])> {
    let length = records.get(16..18)?.try_into().map(u16::from_ne_bytes).ok()?;
    let (record, rest) = records.split_at_checked(usize::from(length).max(1))?;
    let name = CStr::from_bytes_until_nul(record.get(19..)?).ok()?;
    if name == c"." || name == c".." {
        return Some((None, rest));
    }
    Some((Some((name.to_owned(), file_type(*record.get(18)?))), rest))
}

fn file_type(number: u8) -> Option<Type> {
    Some(match number {
        libc::DT_FIFO => Type::Fifo,
        libc::DT_CHR => Type::CharacterDevice,
        libc::DT_DIR => Type::Directory,
        libc::DT_BLK => Type::BlockDevice,
        libc::DT_REG => Type::File,
        libc::DT_LNK => Type::Symlink,
        libc::DT_SOCK => Type::Socket,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::*;
    use crate::sys::fs::open_dir;
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;

    #[test]
    fn more_names_than_one_call_brings() {
        let dir = tempfile::tempdir().unwrap();
        let wanted: BTreeSet<_> = (0..600).map(|n| format!("{n:0>100}")).collect();
        for name in &wanted {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = fresh_names(open_dir(dir.path()).unwrap().as_fd()).unwrap();
        assert!(found.iter().all(|(_, kind)| kind.is_none_or(|kind| kind == Type::File)));
        let found: BTreeSet<_> =
            found.iter().map(|(name, _)| name.to_str().unwrap().to_owned()).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn types_and_the_longest_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d".repeat(255))).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let mut found = fresh_names(open_dir(dir.path()).unwrap().as_fd()).unwrap();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let directory = (CString::new("d".repeat(255)).unwrap(), Some(Type::Directory));
        assert_eq!(found, [directory, (c"link".to_owned(), Some(Type::Symlink))]);
    }

    #[test]
    fn a_record_that_ends_too_early_is_the_end() {
        assert!(first(&[]).is_none());
        assert!(first(&[0; 18]).is_none());
        assert!(first(&[0; 64]).is_none());
        let mut long = [1; 32];
        long[16..18].copy_from_slice(&64u16.to_ne_bytes());
        assert!(first(&long).is_none());
    }
}
