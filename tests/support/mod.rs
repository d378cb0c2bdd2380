//! What the tests of the runtime stand on: bundles with the probe as their
//! program, the runtime under test with a state directory of its own, waits
//! that end, and a look at the host for what was left.
//!
//! Nothing here waits by sleeping: a test waits for a line, the end of a pipe,
//! a process, and each wait has a deadline.
//!
//! | variable | meaning |
//! |---|---|
//! | `TARE_BIN` | the runtime under test [the tare of this build] |
//! | `TARE_TEST_RUN` | tag in the name of everything a test makes [the process id] |
//! | `TARE_TEST_NO_DEVICES` | if set, no device rules: for a runtime that can't load them here |
//! | `TARE_TEST_TIMEOUT` | seconds that one wait may take [30] |

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses a part of it")]

mod apparmor;
mod bundle;
mod container;
mod host;
mod pipe;
mod runtime;
mod terminal;

pub use apparmor::{Profile, has_apparmor};
pub use bundle::{
    Bundle, add_mount, args, copy_program, drop_namespace, link_or_copy, map_self, map_users,
    namespace_path,
};
pub use container::Container;
pub use host::{Traces, below, cgroup2_mount, is_alive, namespace_of, wait_gone};
pub use pipe::{Pipe, pipe};
pub use runtime::{Invocation, Output, Running, Tare, USER, dup_to, is_readable, pidfd_open};
pub use terminal::{Terminal, receive_fd};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// In the name of every directory, container and cgroup that a test makes.
pub const PREFIX: &str = "taretest";

/// The longest that one wait may take.
pub fn timeout() -> Duration {
    let seconds = std::env::var("TARE_TEST_TIMEOUT").ok();
    Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(30))
}

/// What tells this run's traces from those of another one on the same machine.
pub fn run_tag() -> String {
    let tag = std::env::var("TARE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
    format!("{PREFIX}-{tag}")
}

/// A name that no other container of any test has, nor begins with.
pub fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{n:03}", run_tag(), std::process::id())
}

/// A directory that everyone may walk through: a container in a user namespace
/// reaches its rootfs as another user.
pub fn temp_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix(&format!("{}-", run_tag())).tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The probe, next to tare; built when it is not there or older than its source.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| helper("tare-probe", "tests/probe/src"))
}

/// The program that makes system calls fail, as [`probe`].
pub fn faults() -> &'static Path {
    static FAULTS: OnceLock<PathBuf> = OnceLock::new();
    FAULTS.get_or_init(|| helper("tare-faults", "tests/faults/src"))
}

/// The program that `image pull` runs, as [`probe`].
pub fn pull_program() -> &'static Path {
    static PULL: OnceLock<PathBuf> = OnceLock::new();
    PULL.get_or_init(|| helper("tare-pull", "pull/src"))
}

fn helper(package: &str, source: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tare")).with_file_name(package);
    // one lock for all test binaries: two builds of the same file at once
    // would have one test run a half-written program
    let lock = std::fs::File::create(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !is_fresh(&path, source) {
        build(package);
    }
    path
}

fn is_fresh(binary: &Path, source: &str) -> bool {
    let modified = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
    let Some(built) = modified(binary) else {
        return false;
    };
    std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
        .unwrap()
        .map(|entry| modified(&entry.unwrap().path()).unwrap_or(SystemTime::UNIX_EPOCH))
        .all(|changed| changed <= built)
}

fn build(package: &str) {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", package]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if env!("CARGO_BIN_EXE_tare").contains("/release/") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "{package} does not build");
}
