//! Descriptors that nobody needs any more, closed together.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How many are kept open at most: the limit of open files may be low.
const MOST: usize = 32;

/// Descriptors to be closed: those whose numbers follow one another by one call
/// (close_range(2), Linux 5.9), at the latest with this value.
///
/// For who opens one after the other and has no use for the one before: if none is
/// closed meanwhile, their numbers do follow one another.
#[derive(Debug, Default)]
pub struct Spent(Vec<OwnedFd>);

impl Spent {
    /// One more.
    pub fn add(&mut self, fd: impl Into<OwnedFd>) {
        self.0.push(fd.into());
        if self.0.len() >= MOST {
            self.close();
        }
    }

    fn close(&mut self) {
        self.0.sort_unstable_by_key(AsRawFd::as_raw_fd);
        let mut rest = std::mem::take(&mut self.0).into_iter().peekable();
        while let Some(first) = rest.next() {
            let from = first.as_raw_fd();
            let mut run = vec![first];
            while let Some(next) = rest.next_if(|next| next.as_raw_fd() == from + length(&run)) {
                run.push(next);
            }
            close_run(run);
        }
    }
}

fn length(run: &[OwnedFd]) -> RawFd {
    RawFd::try_from(run.len()).unwrap_or(RawFd::MAX)
}

/// Closes descriptors whose numbers follow one another.
fn close_run(run: Vec<OwnedFd>) {
    let Some(first) = run.first().map(AsRawFd::as_raw_fd) else { return };
    // SAFETY: all of the range are owned here; they are forgotten if they are closed.
    let closed =
        unsafe { libc::syscall(libc::SYS_close_range, first, first + length(&run) - 1, 0) };
    if closed == 0 {
        run.into_iter().for_each(std::mem::forget);
    }
    // else one by one
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::pipe;

    use super::*;

    /// The other end of a pipe tells.
    fn is_closed(reader: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::new(reader, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        fds.iter().all(|fd| fd.revents() == Some(PollFlags::POLLHUP))
    }

    #[test]
    fn all_are_closed_and_no_other() {
        let mut spent = Spent::default();
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for n in 0..2 * MOST {
            let (reader, writer) = pipe().unwrap();
            if n % 5 == 3 {
                kept.push((reader, writer));
            } else {
                gone.push(reader);
                spent.add(writer);
            }
        }
        assert!(!is_closed(gone.last().unwrap().as_fd()));
        drop(spent);
        assert!(gone.iter().all(|reader| is_closed(reader.as_fd())));
        assert!(kept.iter().all(|(reader, _)| !is_closed(reader.as_fd())));
    }
}
