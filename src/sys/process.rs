//! Processes: clone3, pidfds, namespaces, and the last calls before execve.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::stat;
use nix::unistd::{Pid, getppid};

use super::{SysResult, check};

/// CLONE_NEWTIME (linux/sched.h). Its bit is one of the exit signal's: clone3
/// takes it, and so do unshare and setns.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_FILES: u64 = 0x400;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// struct clone_args (linux/sched.h), as far as Linux 5.7 knows it.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child process that this process has made.
#[derive(Debug)]
pub struct Child {
    /// Its id, as this process' pid namespace sees it.
    pub pid: Pid,
    /// Its pidfd (close-on-exec).
    pub pidfd: OwnedFd,
}

/// Where and how a child is made: by default as fork(2) does.
#[derive(Debug, Clone, Copy)]
pub struct CloneHow<'a> {
    /// Namespaces that the child is born in, new (CLONE_NEW*).
    pub namespaces: CloneFlags,
    /// A cgroup2 directory that the child is born in (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make it a sibling: a child of this process' parent.
    pub sibling: bool,
    /// One table of descriptors for both: what the child opens, this process has.
    pub share_files: bool,
}

impl Default for CloneHow<'_> {
    fn default() -> Self {
        let namespaces = CloneFlags::empty();
        CloneHow { namespaces, cgroup: None, sibling: false, share_files: false }
    }
}

/// Makes a child with one clone3 and runs `child` in it; the parent gets the
/// child's pid and pidfd.
///
/// # Errors
/// EBUSY when this process has a second thread: the child would inherit locks
/// that nobody holds any more. Else what clone3(2) says.
pub fn clone_child<F>(how: CloneHow<'_>, child: F) -> SysResult<Child>
where
    F: FnOnce() -> Infallible,
{
    if thread_count()? != 1 {
        return Err(Errno::EBUSY);
    }
    let mut pidfd: RawFd = -1;
    let namespaces = u64::from(how.namespaces.bits().cast_unsigned());
    let mut args = CloneArgs {
        flags: namespaces | CLONE_PIDFD,
        pidfd: std::ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = how.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    if how.sibling {
        // the exit signal of a sibling is its maker's
        args.flags |= CLONE_PARENT;
        args.exit_signal = 0;
    }
    if how.share_files {
        args.flags |= CLONE_FILES;
    }
    // SAFETY: the struct is valid and its size goes with it; without CLONE_VM
    // the child has its own copy of this memory and stack. There is one thread,
    // so no lock of the allocator or of stdio is held at this point.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<CloneArgs>())
    })?;
    if pid == 0 {
        end_by_panic();
        child();
    }
    // SAFETY: the kernel has just put this descriptor there for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(i32::try_from(pid).map_err(|_range| Errno::EOVERFLOW)?);
    Ok(Child { pid, pidfd })
}

/// Exit code of a copy of this process that panics, as of one that SIGABRT ends.
const PANICKED: i32 = 134;

/// Has a panic end this copy of a process. An abort would be the end of another one: musl
/// sends its signal to the thread that the copy was made by.
fn end_by_panic() {
    std::panic::set_hook(Box::new(|why| {
        // nobody may be there to read it
        writeln!(std::io::stderr(), "tare: {why}").unwrap_or_default();
        exit_now(PANICKED);
    }));
}

/// Number of threads of this process (the link count of /proc/self/task).
fn thread_count() -> SysResult<libc::nlink_t> {
    let links = match stat("/proc/self/task") {
        // a container need not have /proc, and its init has never had a thread
        Err(Errno::ENOENT) => return Ok(1),
        other => other?.st_nlink,
    };
    Ok(links.saturating_sub(2))
}

/// A pidfd of a process (Linux 5.3).
pub fn pidfd_open(pid: Pid) -> SysResult<OwnedFd> {
    // SAFETY: integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the call has just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_range| Errno::EBADF)?) })
}

/// Sends a signal, by number, to the process of a pidfd (Linux 5.1).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> SysResult<()> {
    // SAFETY: integers, and no siginfo.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Sends a signal, by number, to a process: for real-time signals, which
/// nix's enum does not have.
pub fn kill(pid: Pid, signal: i32) -> SysResult<()> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe { libc::kill(pid.as_raw(), signal) })).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (Linux 5.11).
pub fn close_range_on_exec(first: u32) -> SysResult<()> {
    // SAFETY: descriptors are marked, not closed: nothing that owns one is
    // invalidated.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    })
    .map(drop)
}

/// Gives a new terminal to this session leader (TIOCSCTTY).
pub fn set_controlling_terminal(tty: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: the descriptor is open; 0 means: do not steal it.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(libc::c_long::from(ret)).map(drop)
}

/// Opens the terminal end that belongs to a pty's master, whatever /dev/pts
/// says (TIOCGPTPEER, Linux 4.13).
pub fn open_pty_peer(master: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the descriptor is open, the argument is an integer.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check(libc::c_long::from(fd))?;
    // SAFETY: the call has just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Unlocks the terminal end of a pty (TIOCSPTLCK).
pub fn unlock_pty(master: BorrowedFd<'_>) -> SysResult<()> {
    let unlock: libc::c_int = 0;
    // SAFETY: the kernel reads one int that lives through the call.
    let ret =
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&unlock)) };
    check(libc::c_long::from(ret)).map(drop)
}

/// Sets the size of a terminal in characters.
pub fn set_window_size(tty: BorrowedFd<'_>, rows: u16, columns: u16) -> SysResult<()> {
    set_size(tty, libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Size of a terminal: rows and columns.
pub fn window_size(tty: BorrowedFd<'_>) -> SysResult<(u16, u16)> {
    size(tty).map(|size| (size.ws_row, size.ws_col))
}

/// Gives a terminal the size of another one, in characters and in pixels.
pub fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> SysResult<()> {
    set_size(to, size(from)?)
}

fn set_size(tty: BorrowedFd<'_>, size: libc::winsize) -> SysResult<()> {
    // SAFETY: the kernel reads one struct that lives through the call.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)) };
    check(libc::c_long::from(ret)).map(drop)
}

fn size(tty: BorrowedFd<'_>) -> SysResult<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills in one struct that lives through the call.
    let ret =
        unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, std::ptr::from_mut(&mut size)) };
    check(libc::c_long::from(ret))?;
    Ok(size)
}

/// setresuid, setresgid and setgroups of this only thread, by the bare system
/// calls: glibc's versions signal other threads, which we do not have.
pub fn set_identity(uid: u32, gid: u32, groups: Option<&[u32]>) -> SysResult<()> {
    if let Some(groups) = groups {
        // SAFETY: a length and as many ids behind the pointer.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// A new anonymous session keyring that this process alone has
/// (keyctl KEYCTL_JOIN_SESSION_KEYRING).
pub fn join_session_keyring(name: &str) -> SysResult<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
    // SAFETY: a string that ends in NUL and lives through the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(drop)
}

/// Takes ownership of a descriptor that the caller's caller passed to this
/// process (systemd, runc's --preserve-fds): `None` when it is not open.
pub fn adopt_fd(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD looks at the number only.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and the caller says that it is ours to own.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a resource limit of another process (prlimit(2)).
///
/// # Errors
/// EPERM for raising a hard limit without CAP_SYS_RESOURCE.
pub fn set_rlimit(pid: Pid, resource: i32, soft: u64, hard: u64) -> SysResult<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one struct that lives through the call, and is
    // asked to write nothing back.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw(),
            resource,
            std::ptr::from_ref(&limit),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// Ends this process at once: no handlers, no buffers. Under a seccomp filter that does
/// not let it exit, a signal ends it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: integers only. The C library's _exit would try again for ever.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    trap()
}

/// Executes what is no instruction.
fn trap() -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it raises SIGILL, and nothing comes after it.
    unsafe {
        core::arch::asm!("ud2", options(noreturn, nostack))
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("udf #0", options(noreturn, nostack))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::process::abort()
}

/// Accepts a connection; the descriptor is close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    let null = std::ptr::null_mut::<libc::sockaddr>();
    let length = std::ptr::null_mut::<libc::socklen_t>();
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), null, length, libc::SOCK_CLOEXEC) };
    check(libc::c_long::from(fd))?;
    // SAFETY: the call has just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which kind of namespace a descriptor stands for, as one CLONE_NEW* flag
/// (NS_GET_NSTYPE, Linux 4.11).
///
/// # Errors
/// ENOTTY when it is not a namespace.
pub fn namespace_kind(namespace: BorrowedFd<'_>) -> SysResult<CloneFlags> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    check(libc::c_long::from(kind))?;
    Ok(CloneFlags::from_bits_retain(kind))
}

/// True when this descriptor is open and was given to this process: what it
/// has opened itself is close-on-exec.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: F_GETFD looks at the number only.
    let flags = if fd < 0 { -1 } else { unsafe { libc::fcntl(fd, libc::F_GETFD) } };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Standard input, which is open for as long as the process lives.
pub fn stdin_fd() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes descriptor 0.
    unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) }
}

/// Takes a capability out of the bounding set, by number, whether it is in it
/// or not.
///
/// # Errors
/// EINVAL for one that the kernel does not know, EPERM without CAP_SETPCAP.
pub fn drop_bounding_capability(capability: u8) -> SysResult<()> {
    // SAFETY: integers only.
    let ret =
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    check(libc::c_long::from(ret)).map(drop)
}

/// True when a capability, by number, is in the bounding set.
///
/// # Errors
/// EINVAL for one that the kernel does not know.
pub fn is_in_bounding_set(capability: u8) -> SysResult<bool> {
    // SAFETY: integers only.
    let ret =
        unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0, 0, 0) };
    check(libc::c_long::from(ret)).map(|is_in| is_in == 1)
}

/// The three sets of capabilities of this thread that capset(2) sets, as bits.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> SysResult<()> {
    /// struct __user_cap_header_struct
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two words a set, the low one first
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |set: u64, at: u32| u32::try_from(set >> (32 * at) & 0xffff_ffff).unwrap_or(0);
    let [low, high] =
        [0, 1].map(|at| [half(effective, at), half(permitted, at), half(inheritable, at)]);
    let data = [low, high];
    // SAFETY: the kernel reads a header and, for this version, two structs of
    // three words, which live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) })
        .map(drop)
}

/// Makes a child as fork(2) does, by the call that every profile of system calls
/// allows, and runs `child` in it.
///
/// For a process that has never had a second thread.
pub fn fork_child(child: impl FnOnce() -> Infallible) -> SysResult<Pid> {
    // SAFETY: without CLONE_VM the child has its own copy of this memory and
    // stack. There is one thread, so no lock is held at this point.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })?;
    if pid == 0 {
        child();
    }
    Ok(Pid::from_raw(i32::try_from(pid).map_err(|_range| Errno::EOVERFLOW)?))
}

/// Has the program that this command runs end with the thread that starts it.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // no signal comes of a parent that ended before
        if getppid().as_raw().cast_unsigned() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: two system calls, and errors that are numbers: nothing is
    // allocated, and no lock is taken.
    unsafe { command.pre_exec(prepare) };
}

/// Closes every descriptor from `first` on but those in `keep`, whoever thinks
/// to own them: for a fresh copy of a process that uses and drops none of the
/// others (Linux 5.9).
pub fn close_all_but(first: RawFd, keep: &[RawFd]) -> SysResult<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut next = first;
    for fd in keep {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> SysResult<()> {
    // SAFETY: the caller uses none of them any more, and ends in execve or
    // exit_now, which drop nothing.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Lets a descriptor live on over execve.
pub fn pass_on(fd: RawFd) -> SysResult<()> {
    // SAFETY: flags of a number; what is not open is an error.
    check(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })).map(drop)
}

/// Puts `title` where /proc/PID/cmdline reads this process' arguments.
///
/// For a process that lives on in a container, where everybody can read the
/// command line that made it. It must not look at its arguments afterwards.
///
/// # Errors
/// No /proc, or none that tells where the arguments are.
pub fn set_title(title: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // fields 48 and 49 of proc_pid_stat(5); the first after the name is the third
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_ascii_whitespace().skip(45).map(|field| field.parse::<u64>());
    let (Some(Ok(start)), Some(Ok(end))) = (fields.next(), fields.next()) else {
        return Err(Errno::ENOTSUP.into());
    };
    let mut text = vec![0u8; usize::try_from(end.saturating_sub(start)).unwrap_or_default()];
    for (slot, byte) in text.iter_mut().zip(title) {
        *slot = *byte;
    }
    let memory = std::fs::File::options().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&text, start)
}
