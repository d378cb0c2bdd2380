//! Memory that a process shares with the children that it makes.

use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

use super::SysResult;

/// Words that this process and every later child of it see alike, up to their
/// execve; all zero. They take memory as they are written to, in pages.
///
/// # Errors
/// What mmap(2) says.
pub fn shared_words(count: usize) -> SysResult<&'static [AtomicU64]> {
    let length = count.checked_mul(size_of::<AtomicU64>()).ok_or(Errno::EOVERFLOW)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping of no file, where the kernel likes.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: as long as asked for, at a page's start, and never unmapped; any bits
    // are a word, and whoever else has them uses atomic operations as well.
    Ok(unsafe { std::slice::from_raw_parts(memory.cast_const().cast::<AtomicU64>(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{exit_now, fork_child};
    use std::sync::atomic::Ordering;

    #[test]
    fn a_child_writes_what_its_parent_reads() {
        let words = shared_words(1000).unwrap();
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        let child = fork_child(|| {
            words.iter().for_each(|word| word.store(7, Ordering::Relaxed));
            exit_now(0)
        });
        nix::sys::wait::waitpid(child.unwrap(), None).unwrap();
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 7));
        assert_eq!(shared_words(usize::MAX).unwrap_err(), Errno::EOVERFLOW);
    }
}
