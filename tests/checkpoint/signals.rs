//! A signal that ends the command while CRIU works, or when it has.

use nix::libc;

use crate::Counter;
use crate::support::{Container, args, pipe};
use crate::traced::{Victim, signal_at_call, stride};

/// How many moments of a command are tried: each takes a CRIU.
const MOMENTS: usize = 5;

/// Some moments of a command with so many system calls, and its last ones.
fn moments(calls: usize) -> impl Iterator<Item = usize> {
    (1..=calls).filter(move |n| n % stride(calls, MOMENTS) == 0 || n + 4 > calls)
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_restore_is_whole_or_undone() {
    let mut c = Counter::new(&["count"], |_| {});
    c.checkpoint(&[]).ok();
    let images = c.images();
    let pid_file = c.bundle.path().join("pid");
    let flags = ["--detach", "--image-path", images.to_str().unwrap()];
    let flags = [&flags[..], &["--pid-file", pid_file.to_str().unwrap()]].concat();
    let restore = |c: &mut Counter, n: usize| {
        let (output, writer) = pipe();
        c.output = output;
        let command = c.on_bundle("restore", &flags).stdout(writer);
        signal_at_call(command, Victim::Runtime, n, libc::SIGTERM)
    };
    let calls = restore(&mut c, usize::MAX).calls;
    c.delete_by_force().ok();
    let mut restored = 0;
    for n in moments(calls) {
        println!("SIGTERM at call {n} of {calls}");
        c.count = 2;
        let output = restore(&mut c, n).output;
        if output.code == 0 {
            restored += 1;
            c.counts();
            assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), c.pid().to_string());
            c.delete_by_force().ok();
        } else if output.code != 128 + libc::SIGTERM {
            output.fails_with(&["interrupted by SIGTERM"]);
        }
        assert_eq!(c.output.rest(), "");
        c.assert_gone();
    }
    assert!(restored > 0, "a signal that comes late ends nothing");
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_checkpoint_is_whole_or_was_never_begun() {
    let checkpoint = |c: &Counter, n: usize| {
        let images = c.images();
        let flags = ["--image-path", images.to_str().unwrap()];
        signal_at_call(c.on_id("checkpoint", &flags, &[]), Victim::Runtime, n, libc::SIGTERM)
    };
    let new = || Counter::new(&["count"], |_| {});
    let calls = checkpoint(&new(), usize::MAX).calls;
    for n in moments(calls) {
        println!("SIGTERM at call {n} of {calls}");
        let mut c = new();
        let output = checkpoint(&c, n).output;
        if output.code == 0 {
            let twin = Container::new(|config| args(config, &["count"]));
            std::fs::rename(c.images(), twin.bundle.path().join("images")).unwrap();
            c.assert_gone();
            let (output, _none) = pipe();
            let mut twin = Counter { container: twin, output, count: 2 };
            twin.restore(&[]);
            twin.counts();
        } else {
            assert_eq!(output.code, 128 + libc::SIGTERM, "{output:#?}");
            c.counts();
        }
    }
}

/// CRIU's process ends with the command that restores, whenever that is killed.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_restore_that_is_killed_leaves_no_criu() {
    let c = Counter::new(&["count"], |_| {});
    c.checkpoint(&["--leave-running"]).ok();
    let images = c.images();
    let flags = ["--detach", "--image-path", images.to_str().unwrap()];
    let new = || Container::new(|config| args(config, &["count"]));
    let restore = |c: &Container, n: usize| {
        signal_at_call(c.on_bundle("restore", &flags), Victim::Runtime, n, libc::SIGKILL)
    };
    let calls = restore(&new(), usize::MAX).calls;
    for n in moments(calls) {
        println!("killing at call {n} of {calls}");
        let c = new();
        restore(&c, n);
        c.delete_by_force().ok();
        let criu = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let words = all.map(|e| std::fs::read(e.path().join("cmdline")).unwrap_or_default());
            words.filter(|words| words.starts_with(b"criu\0swrk\0")).count()
        };
        let mut left = Vec::new();
        crate::support::wait_gone("criu", || {
            left = places_of_criu();
            criu() == 0 && c.traces().is_empty()
        });
        // nobody's, as no CRIU runs: it can't tidy up after itself
        for place in left {
            nix::mount::umount2(&place, nix::mount::MntFlags::UMOUNT_NOFOLLOW).unwrap();
            std::fs::remove_dir(&place).unwrap();
        }
    }
}

/// Where a CRIU that restores gathers mounts, and one that is killed leaves them.
fn places_of_criu() -> Vec<std::path::PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap();
    let points = tare::sys::mountinfo::mounts(&table).map(|mount| mount.point());
    points.filter(|point| point.to_string_lossy().starts_with("/tmp/.criu.mntns.")).collect()
}
