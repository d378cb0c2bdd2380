//! `run`: exit codes, signals, stdio, descriptors.

use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    Container, args, dup_to, is_alive, is_readable, pidfd_open, pipe, timeout, wait_gone,
};

#[test]
fn the_exit_code_is_the_programs() {
    for code in [0, 1, 7, 127, 255] {
        let c = Container::new(|c| args(c, &["exit", &code.to_string()]));
        let output = c.run().ends_with_code(code);
        assert_eq!(output.stderr, "");
        c.assert_gone();
    }
}

#[test]
fn a_program_ended_by_a_signal_gives_128_and_its_number() {
    // the init of a pid namespace can't kill itself, the host can
    let c = Container::new(|c| args(c, &["wait"]));
    let (mut output, writer) = pipe();
    let running = c.on_bundle("run", &[]).stdout(writer).spawn();
    output.expect("READY");
    c.kill("KILL").ok();
    running.wait().ends_with_code(137);
    c.assert_gone();
}

#[test]
fn who_hears_from_the_program_finds_its_container() {
    for _ in 0..20 {
        let c = Container::new(|c| args(c, &["wait"]));
        let (mut output, writer) = pipe();
        let running = c.on_bundle("run", &[]).stdout(writer).spawn();
        output.expect("READY");
        assert_eq!(c.state()["status"], "running");
        c.exec(&[], &["exit", "0"]).run().ok();
        c.kill("KILL").ok();
        running.wait().ends_with_code(137);
        c.assert_gone();
    }
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let c = Container::new(|c| args(c, &["each", "say to stdout", "complain to stderr"]));
    let output = c.run().ok();
    assert_eq!(output.stdout, "to stdout\n");
    assert_eq!(output.stderr, "to stderr\n");
}

#[test]
fn stdin_is_the_callers() {
    let c = Container::new(|c| args(c, &["echo-stdin"]));
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let running = c.on_bundle("run", &[]).stdin(reader).spawn();
    nix::unistd::write(&writer, b"through the wall\n").unwrap();
    drop(writer);
    assert_eq!(running.wait().ok().stdout, "through the wall\n");
}

#[test]
fn signals_to_the_foreground_run_reach_the_program() {
    let c = Container::new(|c| args(c, &["wait", "9"]));
    let (mut output, writer) = pipe();
    let running = c.on_bundle("run", &[]).stdout(writer).spawn();
    output.expect("READY");
    for signal in [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        running.signal(signal);
        output.expect(&format!("GOT {signal}"));
    }
    running.signal(Signal::SIGTERM);
    output.expect("GOT SIGTERM");
    running.wait().ends_with_code(9);
}

#[test]
fn a_detached_run_returns_while_the_program_runs() {
    let c = Container::new(|c| args(c, &["wait"]));
    let (mut output, writer) = pipe();
    let pid_file = c.bundle.path().join("pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    c.on_bundle("run", &flags).stdout(writer).run().ok();
    output.expect("READY");
    let state = c.state();
    assert_eq!(state["status"], "running");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert_eq!(pid, state["pid"].to_string());
    let init = pidfd_open(pid.parse().unwrap());
    c.kill("TERM").ok();
    output.expect("GOT SIGTERM");
    assert!(is_readable(&init, timeout()));
    // nobody waits for it: the state stays until delete
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn a_pid_file_is_written_by_create_and_by_run() {
    let c = Container::new(|c| args(c, &["exit", "0"]));
    let pid_file = c.bundle.path().join("pid");
    let flags = ["--pid-file", pid_file.to_str().unwrap()];
    c.on_bundle("create", &flags).run().ok();
    let text = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(text, c.pid().to_string());
    c.delete_by_force().ok();
    std::fs::remove_file(&pid_file).unwrap();
    c.on_bundle("run", &flags).run().ok();
    let text = std::fs::read_to_string(&pid_file).unwrap();
    assert!(text.parse::<u32>().is_ok(), "{text:?}");
}

#[test]
fn a_run_that_keeps_leaves_the_state() {
    let c = Container::new(|c| args(c, &["exit", "3"]));
    c.on_bundle("run", &["--keep"]).run().ends_with_code(3);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.assert_gone();
}

#[test]
fn the_program_has_stdio_and_no_other_descriptor() {
    let c = Container::new(|_| {});
    let report = c.on_bundle("run", &[]).with_open_root(17).run().ok().json();
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
}

#[test]
fn a_created_program_has_stdio_and_no_other_descriptor() {
    let c = Container::new(|_| {});
    let (mut output, writer) = pipe();
    let create = c.on_bundle("create", &[]).stdout(writer);
    create.with_open_root(17).run().ok();
    c.start().ok();
    let report: serde_json::Value = serde_json::from_str(&output.rest()).unwrap();
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
}

#[test]
fn preserved_descriptors_reach_the_program() {
    let c = Container::new(|_| {});
    let paths = ["/etc/passwd", "/etc/group", "/etc/hostname"];
    let files: Vec<_> = paths.map(|p| std::fs::File::open(p).unwrap()).into();
    // SAFETY: system calls only.
    let command = unsafe {
        c.on_bundle("run", &["--preserve-fds", "2"]).before_exec(move || {
            // from high numbers down, so that none of ours is overwritten
            for (n, file) in files.iter().enumerate() {
                dup_to(file.as_raw_fd(), 60 + n as i32)?;
            }
            for n in 0..3 {
                dup_to(60 + n, 3 + n)?;
            }
            for n in 0..3 {
                libc::close(60 + n);
            }
            Ok(())
        })
    };
    let report = command.run().ok().json();
    let fds: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    assert_eq!(fds, ["0", "1", "2", "3", "4"], "{report}");
    assert_eq!(report["fds"]["3"], "/etc/passwd");
    assert_eq!(report["fds"]["4"], "/etc/group");
}

#[test]
fn descriptors_of_the_runtime_are_no_preserved_ones() {
    let c = Container::new(|_| {});
    // its log would take the number that the caller has left free
    let log = c.bundle.path().join("log");
    let tare = c.tare.with(&["--log", log.to_str().unwrap()]);
    let bundle = c.bundle.path().to_str().unwrap();
    let words = ["run", "--preserve-fds", "1", "--bundle", bundle, &c.id];
    let command = tare.command(words).through_shell("exec 3<&-");
    command.run().fails_with(&["--preserve-fds 1", "descriptor 3 is not open"]);
    c.assert_gone();
}

#[test]
fn the_program_is_not_tied_to_the_caller() {
    let report = Container::new(|_| {}).json();
    assert_eq!(report["parent_death_signal"], 0);
    assert_eq!(report["signals"], json!({"blocked": [], "ignored": []}));
    assert_eq!(report["sid"], report["pid"]);
    assert_eq!(report["tty"], json!([false, false, false]));
}

#[test]
fn a_caller_who_blocks_and_ignores_signals_does_not_pass_that_on() {
    let c = Container::new(|_| {});
    // SAFETY: system calls only.
    let command = unsafe {
        c.on_bundle("run", &[]).before_exec(|| {
            nix::sys::signal::SigSet::all().thread_block()?;
            nix::sys::signal::signal(Signal::SIGUSR1, nix::sys::signal::SigHandler::SigIgn)?;
            Ok(())
        })
    };
    let report = command.run().ok().json();
    assert_eq!(report["signals"]["blocked"], json!([]));
}

#[test]
fn a_foreground_run_that_is_killed_leaves_what_delete_by_force_takes() {
    let c = Container::new(|c| args(c, &["wait"]));
    let (mut output, writer) = pipe();
    let running = c.on_bundle("run", &[]).stdout(writer).spawn();
    output.expect("READY");
    let pid = c.pid();
    running.signal(Signal::SIGKILL);
    running.wait().ends_with_code(137);
    c.delete_by_force().ok();
    wait_gone("the program", || !is_alive(pid));
    c.assert_gone();
}

#[test]
fn run_refuses_image_options_without_an_image() {
    let c = Container::new(|_| {});
    let output = c.on_bundle("run", &["--memory", "10m"]).run();
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("--image"), "{output:?}");
    c.assert_gone();
}
