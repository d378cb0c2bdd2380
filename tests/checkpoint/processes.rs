//! What a container's processes find again of themselves.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use nix::fcntl::OFlag;
use serde_json::json;

use crate::Counter;
use crate::support::{
    Container, Pipe, args, cgroup2_mount, is_readable, map_users, pidfd_open, receive_fd, timeout,
};

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_counter_counts_on() {
    let mount_options = || {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let point = cgroup2_mount();
        let line = table.lines().find(|l| l.split(' ').nth(1) == point.to_str()).unwrap();
        line.to_owned()
    };
    let before = mount_options();
    let mut c = Counter::new(&["count"], |config| {
        config["annotations"] = json!({"a.b": "kept"});
    });
    let old = c.pid();
    c.checkpoint(&[]).ok();
    assert!(is_readable(&ended_or_gone(old), timeout()));
    assert!(!c.cgroup().exists());
    let pid_file = c.bundle.path().join("again.pid");
    c.restore(&["--pid-file", pid_file.to_str().unwrap(), "-no-subreaper"]);
    c.counts();
    c.counts();
    let state = c.state();
    assert_eq!(state["status"], "running");
    assert_eq!(state["annotations"]["a.b"], "kept");
    assert_eq!(state["bundle"].as_str(), c.bundle.path().to_str());
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), c.pid().to_string());
    let procs = std::fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), c.pid().to_string());
    let report = c.exec_report(&[]);
    assert_eq!(report["hostname"], "probe");
    c.on_id("pause", &[], &[]).run().ok();
    assert_eq!(c.status(), "paused");
    c.on_id("resume", &[], &[]).run().ok();
    c.kill("TERM").ok();
    assert_eq!(c.output.rest(), "");
    c.on_id("delete", &["--force"], &[]).run().ok();
    // CRIU's log and the images are in the bundle
    c.assert_gone();
    assert_eq!(mount_options(), before);
}

/// The descriptor of a process that may be gone; then of one that has ended.
fn ended_or_gone(pid: u32) -> std::os::fd::OwnedFd {
    if std::path::Path::new(&format!("/proc/{pid}")).exists() {
        return pidfd_open(pid);
    }
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_restore_in_the_foreground_has_its_exit_code() {
    let mut c = Counter::new(&["count"], |_| {});
    c.checkpoint(&[]).ok();
    let (output, writer) = crate::support::pipe();
    let images = c.images();
    let flags = ["--image-path", images.to_str().unwrap()];
    let running = c.on_bundle("restore", &flags).stdout(writer).spawn();
    c.output = output;
    // it holds the lock until the container is there
    while c.on_id("state", &[], &[]).run().stdout.find("running").is_none() {
        assert!(!running.ends_within(std::time::Duration::ZERO), "{:?}", running.wait());
    }
    c.counts();
    // to the command, which passes it on
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().ends_with_code(3);
    c.assert_gone();
}

/// Callers give a pipe where there was none before.
#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_pipe_takes_the_place_of_no_file_but_where_nothing_is_lost() {
    let c = Counter::new(&["count"], |_| {});
    let file = std::fs::read_link(format!("/proc/{}/fd/0", c.pid())).unwrap();
    assert_eq!(file.to_str(), Some("/dev/null"));
    c.checkpoint(&["--leave-running"]).ok();
    c.kill("KILL").ok();
    c.delete_by_force().ok();
    let images = c.images();
    let flags = ["--detach", "--image-path", images.to_str().unwrap()];
    let restore = |output: OwnedFd| {
        let (_no_input, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        c.on_bundle("restore", &flags).stdin(input).stdout(output).run()
    };
    let (mut output, writer) = crate::support::pipe();
    restore(writer).ok();
    c.kill("USR1").ok();
    output.expect("COUNT 3");
    let file = std::fs::read_link(format!("/proc/{}/fd/0", c.pid())).unwrap();
    assert_eq!(file.to_str(), Some("/dev/null"));
    c.delete_by_force().ok();

    // what it writes would go to a file that nobody has asked for, or nowhere
    let said = c.bundle.path().join("said");
    let to_file = || OwnedFd::from(File::options().append(true).create(true).open(&said).unwrap());
    c.on_bundle("run", &["--detach"]).stdout(to_file()).run().ok();
    crate::support::wait_gone("the lack of a word", || {
        std::fs::read_to_string(&said).unwrap().contains("READY")
    });
    c.checkpoint(&[]).ok();
    let (_output, writer) = crate::support::pipe();
    restore(writer).fails_with(&["stdout", "it was a file"]);
    restore(to_file()).ok();
    c.kill("USR1").ok();
    crate::support::wait_gone("the lack of a count", || {
        std::fs::read_to_string(&said).unwrap().contains("COUNT 1")
    });
    c.delete_by_force().ok();
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_connection_stays_open() {
    let mut c = Counter::new(&["count", "tcp"], |_| {});
    let refused = c.checkpoint(&[]);
    refused.fails_with(&["criu: ", "dump.log"]);
    // nothing has happened to it
    c.counts();
    c.there_and_back(&["--tcp-established"]);
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_lock_is_held_again() {
    let mut c = Counter::new(&["count", "lock", "/held"], |_| {});
    c.checkpoint(&[]).fails_with(&["criu: ", "dump.log"]);
    c.counts();
    c.there_and_back(&["--file-locks"]);
    assert_eq!(c.exec(&[], &["lock", "/held"]).run().stdout, "EAGAIN\n");
    assert_eq!(c.exec(&[], &["lock", "/free"]).run().stdout, "ok\n");
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_terminal_goes_to_the_console_socket() {
    let c = Container::new(|config| {
        args(config, &["count"]);
        config["process"]["terminal"] = json!(true);
    });
    let path = c.bundle.path().join("console.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let flags = ["--console-socket", path.to_str().unwrap()];
    let creating = c.on_bundle("create", &flags).spawn();
    let mut master = Pipe::new(receive_fd(&socket));
    creating.wait().ok();
    c.start().ok();
    master.expect("READY");
    c.kill("USR1").ok();
    master.expect("COUNT 1");
    let images = c.bundle.path().join("images");
    let images = ["--image-path", images.to_str().unwrap()];
    c.on_id("checkpoint", &images, &[]).run().ok();
    let restore = [&images[..], &flags, &["--detach"]].concat();
    let restoring = c.on_bundle("restore", &restore).spawn();
    let master = receive_fd(&socket);
    restoring.wait().ok();
    c.kill("USR1").ok();
    let mut output = Pipe::new(master.try_clone().unwrap());
    output.expect("COUNT 2");
    // and it is the terminal of the program's session
    std::fs::File::from(master).write_all(b"x\n").unwrap();
    output.expect("x");
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_terminal_goes_to_the_caller_of_a_restore_in_the_foreground() {
    let c = Container::new(|config| {
        args(config, &["count"]);
        config["process"]["terminal"] = json!(true);
    });
    let path = c.bundle.path().join("console.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let creating = c.on_bundle("create", &["--console-socket", path.to_str().unwrap()]).spawn();
    let mut master = Pipe::new(receive_fd(&socket));
    creating.wait().ok();
    c.start().ok();
    master.expect("READY");
    let images = c.bundle.path().join("images");
    let images = ["--image-path", images.to_str().unwrap()];
    c.on_id("checkpoint", &images, &[]).run().ok();
    let (mut output, writer) = crate::support::pipe();
    let (input, mut keyboard) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
        .map(|(reader, writer)| (reader, File::from(writer)))
        .unwrap();
    let restoring = c.on_bundle("restore", &images).stdin(input).stdout(writer).spawn();
    keyboard.write_all(b"x\n").unwrap();
    // the echo: the relay is there, and hands signals on
    output.expect("x");
    restoring.signal(nix::sys::signal::Signal::SIGUSR1);
    output.expect("COUNT 1");
    restoring.signal(nix::sys::signal::Signal::SIGTERM);
    restoring.wait().ends_with_code(1);
}

#[test]
#[ignore = "needs CRIU: integration/test"]
fn a_user_namespace_is_made_again() {
    let c = Container::new(|config| {
        args(config, &["count"]);
        map_users(config);
    });
    c.bundle.give_rootfs_to(100_000);
    // a file of root's would be closed to the container's root, who opens it again
    let (mut output, writer) = crate::support::pipe();
    let create = c.on_bundle("create", &[]).stderr(writer.try_clone().unwrap());
    create.stdout(writer).run().ok();
    c.start().ok();
    output.expect("READY");
    let mut c = Counter { container: c, output, count: 0 };
    c.counts();
    c.there_and_back(&[]);
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
}
