//! bpf(2): programs of the device controller of cgroup2.
//!
//! No call here needs a raised RLIMIT_MEMLOCK: since Linux 5.11 the memory of
//! programs is charged to the memory cgroup instead.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{SysResult, check};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 1 << 1;
const F_REPLACE: u32 = 1 << 2;

/// The name of every program that is loaded here, as bpftool shows it.
const NAME: &[u8; 16] = b"tare_devices\0\0\0\0";

/// One instruction (struct bpf_insn).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// The operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    /// A jump's distance or a memory access's displacement.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// The part of union bpf_attr that BPF_PROG_LOAD takes here.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    _pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of struct bpf_prog_info, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    insns: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// How often a load that a signal has come in between of is tried again.
const TRIES: u32 = 32;

/// Loads a program for the device controller. With `log`, the verifier writes
/// its findings there, which costs time: for a second try, after a failure.
///
/// The verifier gives up with EAGAIN when a signal arrives, one that is about to
/// be ignored or a stop among them; that is tried again.
pub fn load_device_program(insns: &[Insn], log: Option<&mut [u8]>) -> SysResult<OwnedFd> {
    load_named(NAME, insns, log)
}

fn load_named(name: &[u8; 16], insns: &[Insn], log: Option<&mut [u8]>) -> SysResult<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(insns.len()).map_err(|_too_long| Errno::E2BIG)?,
        insns: address(insns.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        ..LoadAttr::default()
    };
    attr.prog_name = *name;
    if let Some(log) = log {
        attr.log_level = 1;
        attr.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
        attr.log_buf = address(log.as_mut_ptr());
    }
    let mut tries = 1;
    loop {
        // SAFETY: the attributes point to the instructions, a string that ends in
        // NUL and the log, which all outlive the call and have the lengths given.
        match unsafe { bpf(PROG_LOAD, &mut attr) } {
            Err(Errno::EAGAIN | Errno::EINTR) if tries < TRIES => tries += 1,
            other => return Ok(owned(other?)),
        }
    }
}

/// A program as others load it, for tests.
#[cfg(test)]
pub(crate) fn load_program_of_others(insns: &[Insn]) -> SysResult<OwnedFd> {
    load_named(b"other\0\0\0\0\0\0\0\0\0\0\0", insns, None)
}

/// Attaches a program to a cgroup (an O_PATH descriptor will do), beside those
/// of its parents and its own: every one of them has to allow an access. With
/// `replace`, it takes the place of that one without a moment between (Linux 5.6).
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> SysResult<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(old) = replace {
        attr.attach_flags |= F_REPLACE;
        attr.replace_bpf_fd = raw(old);
    }
    // SAFETY: integers only.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a program off a cgroup.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> SysResult<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    // SAFETY: integers only.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

/// The device programs that are attached to a cgroup itself.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> SysResult<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        prog_ids: address(ids.as_mut_ptr()),
        // the kernel allows 64 in a cgroup
        prog_cnt: 64,
        ..QueryAttr::default()
    };
    // SAFETY: the array has the length given and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or_default();
    ids.iter()
        .take(count)
        .map(|id| {
            let mut attr = IdAttr { id: *id, ..IdAttr::default() };
            // SAFETY: integers only.
            unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.map(owned)
        })
        .collect()
}

/// True for a program that [`load_device_program`] has loaded, in this process
/// or another: it goes by the name.
pub fn is_own_program(program: BorrowedFd<'_>) -> SysResult<bool> {
    let mut info = ProgInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: raw(program),
        info_len: u32::try_from(size_of::<ProgInfo>()).map_err(|_too_long| Errno::E2BIG)?,
        info: address(std::ptr::from_mut(&mut info)),
    };
    // SAFETY: the struct has the length given and outlives the call. All of it is
    // zero: the lengths of what the kernel would write elsewhere among it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.name == *NAME)
}

/// # Safety
/// Every address in `attr` must be good for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> SysResult<libc::c_long> {
    // SAFETY: the struct is repr(C) and begins like the union's member for the
    // command; its size goes with it, and the kernel takes the rest as zero.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>())
    })
}

fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or_default()
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Takes ownership of a descriptor that bpf(2) has just returned; the kernel
/// sets close-on-exec on all of them.
fn owned(ret: libc::c_long) -> OwnedFd {
    // descriptors are ints: the kernel never returns more
    let fd = i32::try_from(ret).unwrap_or(-1);
    // SAFETY: the call that returned it succeeded, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
