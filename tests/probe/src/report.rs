//! `probe report`: everything in one object.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{mounts, process, scheduling};

const SYSCTLS: [&str; 9] = [
    "net.ipv4.ip_forward",
    "net.ipv4.ping_group_range",
    "net.core.somaxconn",
    "kernel.msgmax",
    "kernel.shmmax",
    "kernel.shm_rmid_forced",
    "kernel.domainname",
    "kernel.hostname",
    "fs.mqueue.msg_max",
];

/// The whole report. What can't be read is null, or says why.
pub(crate) fn report() -> Value {
    // before anything else is opened
    let fds = fds();
    let status = status();
    let mut report = json!({
        "fds": fds,
        "namespaces": namespaces(),
        "pid": std::process::id(),
        // SAFETY: these four can't fail.
        "ppid": unsafe { libc::getppid() },
        // SAFETY: as above.
        "sid": unsafe { libc::getsid(0) },
        // SAFETY: as above.
        "pgid": unsafe { libc::getpgid(0) },
        "mounts": mounts::read(),
        "uids": process::uids(),
        "gids": process::gids(),
        "groups": process::groups(),
        "umask": process::umask(),
        "capabilities": process::capabilities(),
        "securebits": process::securebits(),
        "no_new_privs": process::no_new_privs(),
        "dumpable": process::dumpable(),
        "parent_death_signal": process::parent_death_signal(),
        "seccomp": status.get("Seccomp").and_then(|v| v.parse::<u32>().ok()),
        "threads": status.get("Threads").and_then(|v| v.parse::<u32>().ok()),
        "rlimits": process::rlimits(),
        "oom_score_adj": number("/proc/self/oom_score_adj"),
        "cgroup": lines("/proc/self/cgroup"),
        "cwd": std::env::current_dir().ok(),
        "args": crate::ARGS.get(),
        "env": std::env::vars_os()
            .map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy()))
            .collect::<Vec<_>>(),
        "hostname": uname().0,
        "domainname": uname().1,
        "sysctls": sysctls(),
        "dev": devices(),
        "uid_map": id_map("/proc/self/uid_map"),
        "gid_map": id_map("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"),
        "personality": process::personality(),
        "keyring": process::session_keyring(),
        "tty": (0..3).map(is_tty).collect::<Vec<_>>(),
        "winsize": process::winsize(0).map(|(characters, _)| characters),
        "signals": process::signals(),
        "processes": processes(),
        "root": stat(Path::new("/")),
    });
    // a second part: the macro goes only so deep
    report["machine"] = json!(uname().2);
    report["exe"] = json!(fs::read_link("/proc/self/exe").ok());
    report["root_link"] = json!(fs::read_link("/proc/self/root").ok());
    report["maps"] = json!(mapped_files());
    report["keys"] = json!(lines("/proc/keys"));
    report["environ_of_init"] = json!(text("/proc/1/environ"));
    scheduling::report(&mut report);
    report
}

fn is_tty(fd: i32) -> bool {
    // SAFETY: a number only.
    unsafe { libc::isatty(fd) == 1 }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

fn number(path: &str) -> Option<i64> {
    text(path)?.parse().ok()
}

fn lines(path: &str) -> Option<Vec<String>> {
    Some(text(path)?.lines().map(str::to_owned).collect())
}

fn status() -> std::collections::HashMap<String, String> {
    lines("/proc/self/status")
        .unwrap_or_default()
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
        .collect()
}

fn namespaces() -> Value {
    let mut out = Map::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        out.insert(name.to_owned(), json!(fs::read_link(format!("/proc/self/ns/{name}")).ok()));
    }
    Value::Object(out)
}

/// Open descriptors and what they are. Asking fcntl for each number works
/// without /proc, and opens nothing that would show up in the answer.
fn fds() -> Value {
    let mut out = Map::new();
    for fd in 0..1024 {
        // SAFETY: a number only.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags >= 0 {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).ok();
            out.insert(fd.to_string(), json!(target));
        }
    }
    Value::Object(out)
}

/// Files that are mapped into memory.
fn mapped_files() -> Option<std::collections::BTreeSet<String>> {
    let maps = lines("/proc/self/maps")?;
    let path = |line: &String| line.split_whitespace().nth(5).map(str::to_owned);
    Some(maps.iter().filter_map(path).filter(|path| path.starts_with('/')).collect())
}

fn uname() -> (String, String, String) {
    // SAFETY: a zeroed utsname is valid, and uname fills it with strings.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        let text = |field: &[libc::c_char]| {
            std::ffi::CStr::from_ptr(field.as_ptr()).to_string_lossy().into_owned()
        };
        (text(&name.nodename), text(&name.domainname), text(&name.machine))
    }
}

fn sysctls() -> Value {
    SYSCTLS
        .iter()
        .map(|name| {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            ((*name).to_owned(), json!(text(&path)))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Each entry under /dev, not going into other mounts' directories.
fn devices() -> Value {
    let mut out = Map::new();
    let Ok(dir) = fs::read_dir("/dev") else {
        return Value::Null;
    };
    for entry in dir.flatten() {
        out.insert(entry.file_name().to_string_lossy().into_owned(), stat(&entry.path()));
    }
    Value::Object(out)
}

/// Type, mode, owner and device of a path, links not followed.
pub(crate) fn stat(path: &Path) -> Value {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => return json!({"error": crate::sys::io_name(&e)}),
    };
    let kind = meta.file_type();
    let name = if kind.is_symlink() {
        "link"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else if kind.is_fifo() {
        "p"
    } else if kind.is_socket() {
        "socket"
    } else {
        "file"
    };
    json!({
        "type": name,
        "mode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
        "size": meta.size(),
        "major": libc::major(meta.rdev()),
        "minor": libc::minor(meta.rdev()),
        "dev": meta.dev(),
        "ino": meta.ino(),
        "target": fs::read_link(path).ok(),
    })
}

fn id_map(path: &str) -> Option<Vec<Vec<u64>>> {
    let rows = lines(path)?;
    Some(rows.iter().map(|row| row.split_whitespace().flat_map(str::parse).collect()).collect())
}

fn processes() -> Option<Vec<u32>> {
    let mut ids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    Some(ids)
}
