//! A signal that ends the command while CRIU works, or when it has.

use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::MsFlags;

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
    // what a killed CRIU leaves mounted must not be mixed up with another test's
    with_own_mounts(|| {
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
            crate::support::wait_gone("criu", || criu_at(&images) == 0 && c.traces().is_empty());
            // nobody's, as no CRIU runs: it can't tidy up after itself
            for place in places_of_criu() {
                nix::mount::umount2(&place, nix::mount::MntFlags::UMOUNT_NOFOLLOW).unwrap();
                std::fs::remove_dir(&place).unwrap();
            }
        }
    });
}

/// In a thread whose mount table, and that of the commands that it runs, is its own.
fn with_own_mounts(test: fn()) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        // shared with nobody, then among themselves, as mounts are on most hosts
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            let flags = MsFlags::MS_REC | propagation;
            nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Processes of CRIU that work on these images, and those that don't know yet on which.
fn criu_at(images: &Path) -> usize {
    let link_is_below =
        |link: PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(images));
    let works = |process: &PathBuf| {
        let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        link_is_below(process.join("cwd")) || open.map(|e| e.path()).any(link_is_below)
    };
    let waits = |process: &PathBuf| {
        std::fs::read(process.join("cmdline")).is_ok_and(|words| words.starts_with(b"criu\0swrk\0"))
    };
    let is_criu = |process: &PathBuf| {
        std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with("criu"))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    all.filter(|process| is_criu(process) && (waits(process) || works(process))).count()
}

/// Where a CRIU that restores gathers mounts, and one that is killed leaves them.
fn places_of_criu() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/thread-self/mountinfo").unwrap();
    let points = tare::sys::mountinfo::mounts(&table).map(|mount| mount.point());
    points.filter(|point| point.to_string_lossy().starts_with("/tmp/.criu.mntns.")).collect()
}
