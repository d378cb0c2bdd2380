//! The few functions of libseccomp that the tests call.
//!
//! By hand, and not by its crate: that one links the shared library, which a
//! static program can't load, or a static one in a directory that has to be
//! told, and is another one on each architecture.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::fd::AsRawFd;

/// Tokens of SCMP_ARCH_*: as in runtime-spec's types.
pub type Arch = u32;

/// struct scmp_arg_cmp
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    pub argument: c_uint,
    pub operator: c_int,
    pub first: u64,
    pub second: u64,
}

#[link(name = "seccomp", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {
    fn seccomp_init(default: u32) -> *mut c_void;
    fn seccomp_release(context: *mut c_void);
    fn seccomp_arch_add(context: *mut c_void, arch: u32) -> c_int;
    fn seccomp_rule_add_array(
        context: *mut c_void,
        action: u32,
        call: c_int,
        count: c_uint,
        args: *const Comparison,
    ) -> c_int;
    fn seccomp_export_bpf(context: *mut c_void, fd: c_int) -> c_int;
    fn seccomp_syscall_resolve_name_arch(arch: u32, name: *const c_char) -> c_int;
    fn seccomp_syscall_resolve_num_arch(arch: u32, number: c_int) -> *mut c_char;
}

/// What seccomp_syscall_resolve_name says of an unknown name.
const UNKNOWN: c_int = -1;

/// A filter that is being made.
pub struct Context(*mut c_void);

impl Context {
    pub fn new(default: u32) -> Self {
        // SAFETY: a number; the answer is checked.
        let context = unsafe { seccomp_init(default) };
        assert!(!context.is_null(), "seccomp_init({default:#x})");
        Context(context)
    }

    pub fn add_arch(&mut self, arch: Arch) {
        // SAFETY: the context lives as long as this value.
        let ret = unsafe { seccomp_arch_add(self.0, arch) };
        // the native one is there already
        assert!(ret == 0 || ret == -libc::EEXIST, "seccomp_arch_add({arch:#x}): {ret}");
    }

    /// The errno, negative, if the rule can't be added.
    pub fn add_rule(&mut self, action: u32, call: c_int, args: &[Comparison]) -> c_int {
        let count = args.len() as c_uint;
        // SAFETY: as many comparisons as the count says, and a live context.
        unsafe { seccomp_rule_add_array(self.0, action, call, count, args.as_ptr()) }
    }

    pub fn export(&self, file: &std::fs::File) {
        // SAFETY: an open file and a live context.
        let ret = unsafe { seccomp_export_bpf(self.0, file.as_raw_fd()) };
        assert_eq!(ret, 0, "seccomp_export_bpf");
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by seccomp_init, and released once.
        unsafe { seccomp_release(self.0) }
    }
}

/// The number of a call, negative where an architecture lacks it; `None`:
/// nobody has it.
pub fn number(name: &str, arch: Arch) -> Option<c_int> {
    let name = CString::new(name).unwrap();
    // SAFETY: a string that ends in NUL.
    let number = unsafe { seccomp_syscall_resolve_name_arch(arch, name.as_ptr()) };
    (number != UNKNOWN).then_some(number)
}

/// The name of a number.
pub fn name(number: u32, arch: Arch) -> Option<String> {
    // SAFETY: numbers only.
    let text = unsafe { seccomp_syscall_resolve_num_arch(arch, number as c_int) };
    if text.is_null() {
        return None;
    }
    // SAFETY: the answer is a string of its own, to be freed by us.
    let name = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
    // SAFETY: it came from malloc.
    unsafe { libc::free(text.cast()) };
    Some(name)
}
