//! `exec` with a terminal: between two terminals, or handed over by a socket.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::exec::{idle, refused};
use crate::support::{Container, Pipe, Terminal, args, map_users, receive_fd};

#[test]
fn a_foreground_exec_joins_two_terminals() {
    let (c, _output) = idle(|_| {});
    let mut terminal = Terminal::new(24, 80);
    let command = c.exec(&["--tty"], &["each", "say READY", "echo-stdin"]);
    let running = terminal.attach(command).spawn();
    terminal.output.expect("READY");
    assert!(terminal.is_raw());
    terminal.type_in("hello\n");
    terminal.output.expect("hello");
    terminal.output.expect("hello");
    terminal.type_in("\u{4}");
    running.wait().ok();
    assert!(!terminal.is_raw(), "not put back");
}

#[test]
fn size_and_keys_reach_the_process() {
    let (c, _output) = idle(|_| {});
    let mut terminal = Terminal::new(30, 100);
    let running = terminal.attach(c.exec(&["-t"], &["winsize"])).spawn();
    // the first line may show the size before it was passed on
    let mut line = terminal.output.line();
    if line == "SIZE 0x0" {
        line = terminal.output.line();
    }
    assert_eq!(line, "SIZE 30x100");
    terminal.resize(40, 120);
    terminal.output.expect("SIZE 40x120");
    running.signal(Signal::SIGTERM);
    running.wait().ok();
    let mut terminal = Terminal::new(24, 80);
    let running = terminal.attach(c.exec(&["-t"], &["wait", "3"])).spawn();
    terminal.expect_interrupts();
    running.signal(Signal::SIGTERM);
    running.wait().ends_with_code(3);
}

#[test]
fn the_console_socket_receives_the_terminal_of_a_detached_process() {
    for mapped in [false, true] {
        let c = Container::new(|config| {
            args(config, &["wait"]);
            if mapped {
                map_users(config);
            }
        });
        if mapped {
            c.bundle.give_rootfs_to(100_000);
        }
        let _output = c.started();
        let path = c.bundle.path().join("console");
        let listener = UnixListener::bind(&path).unwrap();
        let process = c.bundle.path().join("process.json");
        let text = json!({
            "terminal": true, "consoleSize": {"height": 33, "width": 77}, "user": {"uid": 0, "gid": 0},
            "args": ["/probe", "report"], "cwd": "/",
        });
        std::fs::write(&process, text.to_string()).unwrap();
        let flags = ["--process", process.to_str().unwrap(), "--detach", "--console-socket"];
        let flags: Vec<&str> = flags.into_iter().chain([path.to_str().unwrap()]).collect();
        let running = c.on_id("exec", &flags, &[]).spawn();
        let mut output = Pipe::new(receive_fd(&listener));
        let report: Value = serde_json::from_str(&output.line()).unwrap();
        running.wait().ok();
        assert_eq!(report["tty"], json!([true, true, true]));
        assert_eq!(report["winsize"], json!([33, 77]));
        assert_eq!(report["sid"], report["pid"]);
        assert!(report["fds"]["0"].as_str().unwrap().starts_with("/dev/pts/"), "{report}");
    }
}

#[test]
fn a_terminal_belongs_to_the_user_of_the_process() {
    let (c, _output) = idle(|_| {});
    let output = c.exec(&["-t", "-u", "1000"], &["each", "stat /dev/pts/0", "open /dev/tty rw"]);
    let output = output.run().ok().stdout;
    let (stat, rest) = output.split_once('\n').unwrap();
    let stat: Value = serde_json::from_str(stat.trim()).unwrap();
    assert_eq!(stat["uid"], 1000);
    assert_eq!(rest.trim(), "ok");
}

#[test]
fn a_terminal_is_what_is_asked_for_last() {
    let (c, _output) = idle(|_| {});
    let process = c.bundle.path().join("process.json");
    let text = json!({
        "terminal": true, "user": {"uid": 0, "gid": 0}, "args": ["/probe", "report"], "cwd": "/",
    });
    std::fs::write(&process, text.to_string()).unwrap();
    let flags = ["--process", process.to_str().unwrap()];
    let seen = c.on_id("exec", &flags, &[]).run().ok().json();
    assert_eq!(seen["tty"], json!([true, true, true]));
    let flags = ["--process", process.to_str().unwrap(), "--tty=false"];
    let seen = c.on_id("exec", &flags, &[]).run().ok().json();
    assert_eq!(seen["tty"], json!([false, false, false]));
}

#[test]
fn a_terminal_that_nobody_would_have_is_refused() {
    let (c, _output) = idle(|_| {});
    let path = c.bundle.path().join("console");
    let _listener = UnixListener::bind(&path).unwrap();
    let socket = ["--console-socket", path.to_str().unwrap()];
    refused(c.exec(&["--tty", "--detach"], &["exit", "0"]).run(), &["--console-socket"]);
    refused(c.exec(&socket, &["exit", "0"]).run(), &["--console-socket", "--tty"]);
    let flags: Vec<&str> = ["--tty"].into_iter().chain(socket).collect();
    refused(c.exec(&flags, &["exit", "0"]).run(), &["--detach"]);
    let flags = ["--tty", "--detach", "--console-socket", "/no/such/socket"];
    refused(c.exec(&flags, &["create", "/ran", "x"]).run(), &["/no/such/socket"]);
    assert!(!c.bundle.rootfs().join("ran").exists());
}

#[test]
fn an_exec_that_fails_leaves_the_terminal_as_it_was() {
    let (c, _output) = idle(|_| {});
    let mut terminal = Terminal::new(24, 80);
    let command = c.on_id("exec", &["--tty"], &["/no/such/program"]);
    let output = terminal.attach(command).spawn().wait();
    assert_eq!(output.code, 255);
    assert!(!terminal.is_raw());
    assert!(terminal.output.line().contains("/no/such/program"));
}

#[test]
fn the_last_words_of_a_process_are_not_lost() {
    let (c, _output) = idle(|_| {});
    for _ in 0..5 {
        let mut terminal = Terminal::new(24, 80);
        terminal.attach(c.exec(&["-t"], &["list", "/dev"])).spawn().wait().ok();
        let line = terminal.output.line();
        assert!(line.ends_with("\"zero\"]"), "{line}");
    }
}
