//! What runs before anything else of the binary, the C library's start included.
//!
//! A command that puts a process into a container goes on from a read-only mount
//! of the binary (see [`super::exe`]), which means one more execve. Until then the
//! C library has nothing to do, but its start is not free: it asks the processor
//! what it can do, some thirty times, and on a virtual machine each of these
//! questions is answered by the hypervisor (0.4 ms in all on one such machine).
//! So that decision is taken in front of it. Whatever does not work here is left
//! to [`super::exe::protect`], which tries again and knows how to say what is wrong.
//!
//! Nothing in here may call a function of the C library, and be it `memcpy`: the
//! library chooses its variant of these at its start.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, Ordering};

use super::mount::{MountAttr, attr};

/// The commands that put a process into a container.
/// In one piece: a table of addresses has none yet in a program that relocates itself.
const ENTERING: [[u8; 7]; 3] = [*b"create\0", *b"run\0\0\0\0", *b"exec\0\0\0"];

/// struct statfs of x86_64 in words, and the place of its f_flags (asm/statfs.h).
const STATFS_WORDS: usize = 15;
const F_FLAGS: usize = 10;

/// The binary was seen to be on a read-only mount.
pub(super) static READ_ONLY: AtomicBool = AtomicBool::new(false);

const SELF: *const u8 = c"/proc/self/exe".as_ptr().cast();
const NOTHING: *const u8 = c"".as_ptr().cast();

// The linker takes this for the program's first instruction (build.rs). The stack
// is as the kernel made it (System V ABI, AMD64 supplement, 3.4.1), rdx belongs to
// the C library.
global_asm!(
    ".globl tare_entry",
    ".type tare_entry, @function",
    "tare_entry:",
    "xor ebp, ebp",
    "mov r12, rdx",
    "mov rdi, rsp",
    "call {go_on}",
    "mov rdx, r12",
    "jmp _start",
    ".size tare_entry, . - tare_entry",
    go_on = sym go_on_from_a_read_only_mount,
);

/// Executes the binary again, through a read-only mount of it, if its command
/// needs that and this is not it already; else returns.
///
/// # Safety
/// `stack` is the process' stack at its first instruction: the number of
/// arguments, their addresses, 0, the addresses of the environment, 0.
unsafe extern "C" fn go_on_from_a_read_only_mount(stack: *const usize) {
    // SAFETY: the kernel wrote the stack, and nobody has changed it yet.
    let (argv, envp, enters) = unsafe {
        let count = stack.read();
        let argv = stack.add(1);
        (
            argv,
            argv.add(count + 1),
            (1..count).any(|i| is_entering(argv.add(i).read() as *const u8)),
        )
    };
    if !enters {
        return;
    }
    let at_cwd = libc::AT_FDCWD as i64;
    let tree_flags = libc::OPEN_TREE_CLONE.cast_signed() as i64 | libc::O_CLOEXEC as i64;
    let empty = libc::AT_EMPTY_PATH as i64;
    let mut about = core::mem::MaybeUninit::<[u64; STATFS_WORDS]>::uninit();
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    let size = size_of::<MountAttr>() as i64;
    // SAFETY: five calls of the kernel, each with pointers to constants, to the
    // locals above and to the process' own arguments; a failed one is seen by its
    // negative result, and ends the attempt.
    unsafe {
        let known = call(libc::SYS_statfs, [address(SELF), address(about.as_mut_ptr()), 0, 0, 0]);
        if known < 0 {
            return;
        }
        if about.as_ptr().cast::<u64>().add(F_FLAGS).read() & libc::ST_RDONLY != 0 {
            READ_ONLY.store(true, Ordering::Relaxed);
            return;
        }
        let tree = call(libc::SYS_open_tree, [at_cwd, address(SELF), tree_flags, 0, 0]);
        if tree < 0 {
            return;
        }
        let set = [tree, address(NOTHING), empty, address(&raw const read_only), size];
        if call(libc::SYS_mount_setattr, set) == 0 {
            let again = [tree, address(NOTHING), address(argv), address(envp), empty];
            call(libc::SYS_execveat, again);
        }
        call(libc::SYS_close, [tree, 0, 0, 0, 0]);
    }
}

fn address<T>(of: *const T) -> i64 {
    of.addr() as i64
}

/// # Safety
/// `word` ends with a NUL.
unsafe fn is_entering(word: *const u8) -> bool {
    ENTERING.iter().any(|command| {
        let length = command.iter().take_while(|byte| **byte != 0).count();
        // SAFETY: the word ends where the command does, or before, and reading with it;
        // volatile, as the compiler would make a call of memcmp of it.
        let same = |(i, byte): (usize, &u8)| unsafe { word.add(i).read_volatile() == *byte };
        command.iter().take(length + 1).enumerate().all(same)
    })
}

/// A system call, answered as the kernel does: a negative number is an error.
///
/// # Safety
/// As the call itself.
unsafe fn call(number: libc::c_long, args: [i64; 5]) -> i64 {
    let [a, b, c, d, e] = args;
    let result;
    // SAFETY: the kernel's convention for calls on x86_64; the rest is the caller's.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}
