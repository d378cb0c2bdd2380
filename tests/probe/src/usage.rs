//! Words that use something up, for limits to stop them.

use std::io::Write;
use std::os::raw::c_int;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::sys::{self, cstring, print_line, signal_name, verdict};

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    let number = |n: usize| args.get(n).and_then(|v| v.parse::<usize>().ok());
    let result = match word {
        "alloc" => {
            alloc(number(0)?);
            Ok("ok".to_owned())
        }
        "alloc-in-child" => alloc_in_child(number(0)?),
        "alloc-huge" => alloc_huge(number(0)?),
        "fill" => fill(args.first()?, number(1)?),
        "burn" => burn(Duration::from_millis(number(0)?.try_into().ok()?)),
        "affinity" => affinity(),
        "read-device" => read_device(args.first()?, number(1)?),
        _ => return None,
    };
    let (Ok(line) | Err(line)) = &result;
    print_line(line);
    Some(c_int::from(result.is_err()))
}

fn alloc(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    // one byte a page, so that the kernel has to give all of them
    for page in memory.iter_mut().step_by(4096) {
        *page = 1;
    }
    std::hint::black_box(&memory);
}

/// Maps huge pages of 2 MiB for a moment.
fn alloc_huge(bytes: usize) -> Result<String, String> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, wherever the kernel likes.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(sys::errno_name(sys::last_errno()));
    }
    for page in (0..bytes).step_by(2 << 20) {
        // SAFETY: within the mapping, which nobody else knows.
        unsafe { memory.cast::<u8>().add(page).write_volatile(1) };
    }
    // SAFETY: the mapping as it was made.
    verdict(unsafe { libc::munmap(memory, bytes) })?;
    Ok("ok".to_owned())
}

/// Writes a file of this size, from a small buffer.
fn fill(path: &str, bytes: usize) -> Result<String, String> {
    const CHUNK: &[u8] = &[1; 64 << 10];
    let fill = || {
        let mut file = std::fs::File::create(path)?;
        (0..bytes / CHUNK.len()).try_for_each(|_| file.write_all(CHUNK))
    };
    fill().map_err(|e| sys::io_name(&e))?;
    Ok("ok".to_owned())
}

/// How a child ended that took this much memory.
fn alloc_in_child(bytes: usize) -> Result<String, String> {
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    verdict(child)?;
    if child == 0 {
        alloc(bytes);
        // SAFETY: never returns.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a place for the status.
    verdict(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    Ok(match libc::WIFSIGNALED(status) {
        true => signal_name(libc::WTERMSIG(status)),
        false => format!("exit {}", libc::WEXITSTATUS(status)),
    })
}

/// Computes for a while: how much of it on a processor.
fn burn(time: Duration) -> Result<String, String> {
    let started = Instant::now();
    let mut n = 0_u64;
    while started.elapsed() < time {
        for _ in 0..1000 {
            n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(7));
        }
    }
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    verdict(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used) })?;
    let cpu = used.tv_sec * 1000 + used.tv_nsec / 1_000_000;
    let wall = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(json!({"cpuMs": cpu, "wallMs": wall}).to_string())
}

/// The processors that this process may run on.
fn affinity() -> Result<String, String> {
    // SAFETY: a set is an array of bits, and the call gets its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        verdict(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set))?;
        set
    };
    // SAFETY: the number is below the size of the set.
    let is_set = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    let cpus: Vec<usize> = (0..1024).filter(is_set).collect();
    Ok(json!(cpus).to_string())
}

/// Reads from the beginning of a block device, past the page cache.
fn read_device(path: &str, bytes: usize) -> Result<String, String> {
    const BLOCK: usize = 64 << 10;
    let path = cstring(path);
    // SAFETY: a string that ends with a null.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECT) };
    verdict(fd)?;
    let layout = std::alloc::Layout::from_size_align(BLOCK, 4096).map_err(|e| e.to_string())?;
    // SAFETY: the size is not zero; the memory lives as long as this program.
    let buffer = unsafe { std::alloc::alloc(layout) };
    let started = Instant::now();
    let mut got = 0;
    while got < bytes {
        // SAFETY: BLOCK bytes of room.
        let n = unsafe { libc::read(fd, buffer.cast(), BLOCK) };
        match usize::try_from(n) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(_) => return Err(sys::errno_name(sys::last_errno())),
        }
    }
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(json!({"bytes": got, "ms": ms}).to_string())
}
