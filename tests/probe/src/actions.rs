//! Words that do one thing and are done.

use std::fs;
use std::io::Read;
use std::os::raw::c_int;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use serde_json::json;

use crate::report;
use crate::sys::{self, cstring, eprint_line, print_line, verdict};

/// The exit code, or None for a word that is not of this module.
pub(crate) fn run(word: &str, args: &[&str]) -> Option<c_int> {
    let result = match (word, args) {
        ("report", []) => return Some(say(&report::report().to_string())),
        ("say", text) => return Some(say(&text.join(" "))),
        ("complain", text) => {
            eprint_line(&text.join(" "));
            return Some(0);
        }
        ("interfaces", []) => return Some(say(&crate::net::interfaces().to_string())),
        ("exit", [code]) => return Some(code.parse().unwrap_or(64)),
        ("fail", text) => {
            eprint_line(&text.join(" "));
            return Some(1);
        }
        ("read", [path]) => match fs::read_to_string(path) {
            Ok(text) => return Some(say(text.trim_end())),
            Err(e) => Err(sys::io_name(&e)),
        },
        ("stat", [path]) => return Some(say(&stat(Path::new(path)).to_string())),
        ("list", [path]) => return Some(list(path)),
        ("attribute", [path, name]) => match attribute(path, name) {
            Ok(value) => return Some(say(&value)),
            Err(name) => Err(name),
        },
        ("write", [path, text @ ..]) => write(path, &text.join(" "), false),
        ("create", [path, text @ ..]) => write(path, &text.join(" "), true),
        ("append", [path, text @ ..]) => {
            sys::append_line(path, &text.join(" ")).map_err(|e| sys::io_name(&e))
        }
        ("open", [path, mode]) => open(path, mode),
        ("mkdir", [path]) => fs::create_dir(path).map_err(|e| sys::io_name(&e)),
        ("mknod", [path, kind, rest @ ..]) => mknod(path, kind, rest),
        ("sethostname", [name]) => sethostname(name),
        ("mount-tmpfs", [path]) => mount_tmpfs(path),
        ("personality", [number]) => personality(number),
        // SAFETY: a number only.
        ("setuid-root", []) => verdict(unsafe { libc::setuid(0) }),
        ("notify", text) => notify(&text.join("\n")),
        ("hook", [file, name]) => hook(file, name),
        ("escape", [marker]) => return Some(escape(marker)),
        ("exec", [path, rest @ ..]) => {
            Err(sys::io_name(&std::process::Command::new(path).args(rest).exec()))
        }
        _ => return None,
    };
    Some(match result {
        Ok(()) => say("ok"),
        Err(name) => {
            print_line(&name);
            1
        }
    })
}

fn say(text: &str) -> c_int {
    print_line(text);
    0
}

/// Tells the service manager that NOTIFY_SOCKET names.
fn notify(text: &str) -> Result<(), String> {
    let path = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
    let socket = std::os::unix::net::UnixDatagram::unbound().map_err(|e| sys::io_name(&e))?;
    socket.send_to(text.as_bytes(), path).map(drop).map_err(|e| sys::io_name(&e))
}

fn list(path: &str) -> c_int {
    let dir = match fs::read_dir(path) {
        Ok(dir) => dir,
        Err(e) => {
            print_line(&sys::io_name(&e));
            return 1;
        }
    };
    let mut names: Vec<String> =
        dir.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    say(&json!(names).to_string())
}

/// As in a report, with what differs from one container to the next.
fn stat(path: &Path) -> serde_json::Value {
    let mut found = report::stat(path);
    if let Ok(meta) = fs::symlink_metadata(path) {
        found["links"] = json!(meta.nlink());
        found["modified"] = json!(meta.mtime());
    }
    found
}

/// The value of an extended attribute of a path, links not followed.
fn attribute(path: &str, name: &str) -> Result<String, String> {
    let (path, name) = (cstring(path), cstring(name));
    let mut value = [0u8; 256];
    // SAFETY: C strings, and a buffer with its length.
    let length = unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let length = usize::try_from(length).map_err(|_| sys::errno_name(sys::last_errno()))?;
    Ok(String::from_utf8_lossy(&value[..length]).into_owned())
}

fn write(path: &str, text: &str, create: bool) -> Result<(), String> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(create);
    let mut file = options.open(path).map_err(|e| sys::io_name(&e))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|e| sys::io_name(&e))
}

/// Opens and closes. Never blocks on a fifo, and takes no terminal.
fn open(path: &str, mode: &str) -> Result<(), String> {
    let access = match mode {
        "r" => libc::O_RDONLY,
        "w" => libc::O_WRONLY,
        _ => libc::O_RDWR,
    };
    let path = cstring(path);
    // SAFETY: the path is a C string, and a descriptor that was opened is closed.
    unsafe {
        let fd =
            libc::open(path.as_ptr(), access | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
        verdict(fd)?;
        libc::close(fd);
    }
    Ok(())
}

fn mknod(path: &str, kind: &str, numbers: &[&str]) -> Result<(), String> {
    let number = |n: usize| numbers.get(n).and_then(|v| v.parse().ok()).unwrap_or(0);
    let kind = match kind {
        "c" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        _ => libc::S_IFIFO,
    };
    let path = cstring(path);
    let device = libc::makedev(number(0), number(1));
    // SAFETY: the path is a C string.
    verdict(unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) })
}

fn sethostname(name: &str) -> Result<(), String> {
    // SAFETY: pointer and length describe `name`.
    verdict(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

fn personality(number: &str) -> Result<(), String> {
    let Ok(number) = number.parse::<libc::c_ulong>() else {
        return Err(format!("{number} is not a number"));
    };
    // SAFETY: a number only.
    verdict(unsafe { libc::personality(number) })
}

fn mount_tmpfs(path: &str) -> Result<(), String> {
    let path = cstring(path);
    // SAFETY: C strings, and no data.
    verdict(unsafe {
        libc::mount(c"probe".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())
    })
}

/// One line: which hook, the state on stdin, and where it runs.
fn hook(file: &str, name: &str) -> Result<(), String> {
    let mut stdin = String::new();
    std::io::stdin().read_to_string(&mut stdin).map_err(|e| sys::io_name(&e))?;
    let state = serde_json::from_str(&stdin).unwrap_or_else(|_| json!(stdin));
    let line = json!({"hook": name, "state": state, "seen": report::report()});
    sys::append_line(file, &line.to_string()).map_err(|e| sys::io_name(&e))
}

/// Known ways out, each with `contained` or `OUT`: a marker is a file of the
/// host that the container must not reach.
fn escape(marker: &str) -> c_int {
    let marker_name = marker.trim_start_matches('/');
    let mut ways = vec![("by its path", Path::new(marker).symlink_metadata().is_ok())];
    let dots = "../".repeat(64);
    let climbs =
        |start: &str| Path::new(&format!("{start}/{dots}{marker_name}")).symlink_metadata().is_ok();
    ways.push(("up from the working directory", climbs(".")));
    ways.push(("by the root of pid 1", climbs("/proc/1/root")));
    ways.push(("by the working directory of pid 1", climbs("/proc/1/cwd")));
    let by_fd = (0..1024).any(|fd| climbs(&format!("/proc/self/fd/{fd}")));
    ways.push(("by an inherited directory", by_fd));
    ways.push(("by a second chroot", chroot_twice(&dots, marker_name)));
    let mut code = 0;
    for (way, is_out) in ways {
        print_line(&format!("{way}: {}", if is_out { "OUT" } else { "contained" }));
        code |= c_int::from(is_out);
    }
    code
}

/// chroot(2) below the working directory and climb: works against a runtime
/// that used chroot where it should have used pivot_root.
fn chroot_twice(dots: &str, marker: &str) -> bool {
    let Ok(root) = fs::symlink_metadata("/") else {
        return false;
    };
    let dir = "/dev/shm";
    let (dir, dots) = (cstring(dir), cstring(dots));
    // SAFETY: C strings only.
    let left = unsafe {
        libc::chroot(dir.as_ptr()) == 0
            && libc::chdir(dots.as_ptr()) == 0
            && libc::chroot(c".".as_ptr()) == 0
    };
    let is_other =
        fs::symlink_metadata("/").is_ok_and(|m| (m.dev(), m.ino()) != (root.dev(), root.ino()));
    left && (is_other && Path::new(&format!("/{marker}")).symlink_metadata().is_ok())
}
