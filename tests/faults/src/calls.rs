//! Names of system calls, and where a string is among their arguments.

/// Calls of the allocator and of locks between threads: how many there are is a
/// matter of chance.
pub(crate) fn is_by_chance(number: i64) -> bool {
    let calls = [
        libc::SYS_futex,
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_madvise,
    ];
    calls.contains(&number)
}

macro_rules! names {
    (
        $($name:ident $constant:ident $(@ $text:literal)?),* $(,)?;
        $($old:ident $old_constant:ident $(@ $old_text:literal)?),* $(,)?
    ) => {
        /// Name of a system call; its number for one that is not listed.
        pub(crate) fn name(number: i64) -> String {
            match number {
                $(libc::$constant => stringify!($name).to_owned(),)*
                $(
                    #[cfg(target_arch = "x86_64")]
                    libc::$old_constant => stringify!($old).to_owned(),
                )*
                other => other.to_string(),
            }
        }

        /// Index of the argument that is a string, of the calls that have one.
        pub(crate) fn text_argument(number: i64) -> Option<usize> {
            match number {
                $($(libc::$constant => Some($text),)?)*
                $($(
                    #[cfg(target_arch = "x86_64")]
                    libc::$old_constant => Some($old_text),
                )?)*
                _ => None,
            }
        }
    };
}

names! {
    read SYS_read, write SYS_write, close SYS_close, lseek SYS_lseek, mmap SYS_mmap,
    mprotect SYS_mprotect, munmap SYS_munmap, rt_sigaction SYS_rt_sigaction,
    rt_sigprocmask SYS_rt_sigprocmask, rt_sigreturn SYS_rt_sigreturn, ioctl SYS_ioctl,
    pread64 SYS_pread64, pwrite64 SYS_pwrite64, readv SYS_readv, writev SYS_writev,
    sched_yield SYS_sched_yield, mremap SYS_mremap, madvise SYS_madvise, dup3 SYS_dup3,
    nanosleep SYS_nanosleep, clock_nanosleep SYS_clock_nanosleep, getpid SYS_getpid,
    gettid SYS_gettid, getppid SYS_getppid, sendfile SYS_sendfile, socket SYS_socket,
    connect SYS_connect, accept4 SYS_accept4, sendto SYS_sendto, recvfrom SYS_recvfrom,
    sendmsg SYS_sendmsg, recvmsg SYS_recvmsg, shutdown SYS_shutdown, listen SYS_listen,
    socketpair SYS_socketpair, getsockopt SYS_getsockopt, setsockopt SYS_setsockopt,
    clone SYS_clone, clone3 SYS_clone3, execve SYS_execve @ 0, execveat SYS_execveat @ 1,
    exit SYS_exit, exit_group SYS_exit_group, wait4 SYS_wait4, waitid SYS_waitid,
    kill SYS_kill, tgkill SYS_tgkill, uname SYS_uname, fcntl SYS_fcntl, flock SYS_flock,
    fsync SYS_fsync, fdatasync SYS_fdatasync, sync SYS_sync, syncfs SYS_syncfs,
    sync_file_range SYS_sync_file_range, ftruncate SYS_ftruncate, fallocate SYS_fallocate,
    fadvise64 SYS_fadvise64, getdents64 SYS_getdents64, getcwd SYS_getcwd, fchdir SYS_fchdir,
    chroot SYS_chroot @ 0, renameat2 SYS_renameat2 @ 1, mkdirat SYS_mkdirat @ 1,
    linkat SYS_linkat @ 3, fchownat SYS_fchownat @ 1, utimensat SYS_utimensat @ 1,
    umask SYS_umask, openat SYS_openat @ 1, openat2 SYS_openat2 @ 1,
    newfstatat SYS_newfstatat @ 1, statx SYS_statx @ 1, statfs SYS_statfs @ 0,
    fstatfs SYS_fstatfs, faccessat SYS_faccessat @ 1, faccessat2 SYS_faccessat2 @ 1,
    getrandom SYS_getrandom, getrlimit SYS_getrlimit, setrlimit SYS_setrlimit,
    prlimit64 SYS_prlimit64, getuid SYS_getuid, geteuid SYS_geteuid, getgid SYS_getgid,
    getegid SYS_getegid, setuid SYS_setuid, setgid SYS_setgid, setresuid SYS_setresuid,
    setresgid SYS_setresgid, setgroups SYS_setgroups, setsid SYS_setsid, setpgid SYS_setpgid,
    capget SYS_capget, capset SYS_capset, prctl SYS_prctl, personality SYS_personality,
    seccomp SYS_seccomp, sigaltstack SYS_sigaltstack, set_tid_address SYS_set_tid_address,
    set_robust_list SYS_set_robust_list, rseq SYS_rseq, futex SYS_futex,
    sched_getaffinity SYS_sched_getaffinity, sched_setaffinity SYS_sched_setaffinity,
    sched_setattr SYS_sched_setattr, ioprio_set SYS_ioprio_set,
    set_mempolicy SYS_set_mempolicy, clock_gettime SYS_clock_gettime,
    epoll_create1 SYS_epoll_create1, epoll_ctl SYS_epoll_ctl, eventfd2 SYS_eventfd2,
    signalfd4 SYS_signalfd4, rt_sigtimedwait SYS_rt_sigtimedwait,
    inotify_init1 SYS_inotify_init1, inotify_add_watch SYS_inotify_add_watch,
    mount SYS_mount @ 1, umount2 SYS_umount2 @ 0, pivot_root SYS_pivot_root @ 0,
    unshare SYS_unshare, setns SYS_setns, sethostname SYS_sethostname,
    setdomainname SYS_setdomainname, keyctl SYS_keyctl @ 1, bpf SYS_bpf,
    copy_file_range SYS_copy_file_range, splice SYS_splice, tee SYS_tee,
    close_range SYS_close_range, pidfd_open SYS_pidfd_open,
    pidfd_send_signal SYS_pidfd_send_signal, pidfd_getfd SYS_pidfd_getfd,
    fsconfig SYS_fsconfig @ 2, fsmount SYS_fsmount, fspick SYS_fspick @ 1,
    open_tree SYS_open_tree @ 1, move_mount SYS_move_mount @ 1,
    mount_setattr SYS_mount_setattr @ 1, setxattr SYS_setxattr @ 0,
    lsetxattr SYS_lsetxattr @ 0, fsetxattr SYS_fsetxattr @ 1, getxattr SYS_getxattr @ 0,
    lgetxattr SYS_lgetxattr @ 0, fgetxattr SYS_fgetxattr @ 1, llistxattr SYS_llistxattr @ 0,
    flistxattr SYS_flistxattr, sysinfo SYS_sysinfo, memfd_create SYS_memfd_create @ 0,
    getsockname SYS_getsockname, getpeername SYS_getpeername, fstat SYS_fstat, brk SYS_brk,
    pipe2 SYS_pipe2, dup SYS_dup, accept SYS_accept, bind SYS_bind, chdir SYS_chdir @ 0,
    renameat SYS_renameat @ 1, unlinkat SYS_unlinkat @ 1, symlinkat SYS_symlinkat @ 2,
    readlinkat SYS_readlinkat @ 1, mknodat SYS_mknodat @ 1, fchmod SYS_fchmod,
    fchmodat SYS_fchmodat @ 1, fchown SYS_fchown, ppoll SYS_ppoll,
    fsopen SYS_fsopen @ 0;
    // architectures that are younger than these never had them; the last one, libc does not
    // name for all of them
    open SYS_open @ 0, stat SYS_stat @ 0, lstat SYS_lstat @ 0, poll SYS_poll,
    access SYS_access @ 0, pipe SYS_pipe, dup2 SYS_dup2, fork SYS_fork, vfork SYS_vfork,
    rename SYS_rename @ 0, mkdir SYS_mkdir @ 0, rmdir SYS_rmdir @ 0, unlink SYS_unlink @ 0,
    link SYS_link @ 0, symlink SYS_symlink @ 1, readlink SYS_readlink @ 0, mknod SYS_mknod @ 0,
    chmod SYS_chmod @ 0, chown SYS_chown @ 0, arch_prctl SYS_arch_prctl,
    epoll_wait SYS_epoll_wait,
    fchmodat2 SYS_fchmodat2 @ 1,
}
