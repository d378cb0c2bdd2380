//! Terminals: handed over by a socket, or between a person's and the program's.

use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use nix::sys::termios::OutputFlags;
use serde_json::{Value, json};

use crate::support::{Container, Pipe, Terminal, args, receive_fd};

fn with_terminal(words: &[&str]) -> Container {
    Container::new(|config| {
        args(config, words);
        config["process"]["terminal"] = json!(true);
    })
}

#[test]
fn the_console_socket_receives_the_terminal() {
    let c = with_terminal(&["report"]);
    c.bundle.edit(|config| {
        config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    });
    let path = c.bundle.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let flags = ["--console-socket", path.to_str().unwrap()];
    c.on_bundle("create", &flags).run().ok();
    let mut output = Pipe::new(receive_fd(&listener));
    c.start().ok();
    let report: Value = serde_json::from_str(&output.line()).unwrap();
    assert_eq!(report["tty"], json!([true, true, true]));
    assert_eq!(report["winsize"], json!([33, 77]));
    assert_eq!(report["sid"], report["pid"]);
    assert_eq!(report["fds"]["0"], "/dev/pts/0");
    let console = &report["dev"]["console"];
    assert_eq!([&console["type"], &console["major"]], [&json!("c"), &json!(136)]);
}

#[test]
fn the_terminal_is_the_programs_controlling_one() {
    let c = with_terminal(&["each", "open /dev/tty rw", "open /dev/console rw"]);
    let path = c.bundle.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let flags = ["--detach", "--console-socket", path.to_str().unwrap()];
    let running = c.on_bundle("run", &flags).spawn();
    let mut output = Pipe::new(receive_fd(&listener));
    output.expect("ok");
    output.expect("ok");
    running.wait().ok();
}

#[test]
fn a_terminal_belongs_to_the_programs_user() {
    let c = with_terminal(&["stat", "/dev/pts/0"]);
    c.bundle.edit(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let path = c.bundle.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    c.on_bundle("create", &["--console-socket", path.to_str().unwrap()]).run().ok();
    let mut output = Pipe::new(receive_fd(&listener));
    c.start().ok();
    let stat: Value = serde_json::from_str(&output.line()).unwrap();
    assert_eq!(stat["uid"], 1000);
}

#[test]
fn a_terminal_without_anyone_to_receive_it_is_refused() {
    let c = with_terminal(&["report"]);
    c.on_bundle("create", &[]).run().fails_with(&["console-socket"]);
    c.assert_gone();
    c.on_bundle("run", &["--detach"]).run().fails_with(&["console-socket"]);
    c.assert_gone();
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    let c = Container::new(|_| {});
    let path = c.bundle.path().join("console");
    let _listener = UnixListener::bind(&path).unwrap();
    c.on_bundle("create", &["--console-socket", path.to_str().unwrap()])
        .run()
        .fails_with(&["terminal"]);
    c.assert_gone();
}

#[test]
fn a_console_socket_that_is_not_there_is_refused() {
    let c = with_terminal(&["report"]);
    c.on_bundle("create", &["--console-socket", "/no/such/socket"])
        .run()
        .fails_with(&["/no/such/socket"]);
    c.assert_gone();
}

#[test]
fn a_foreground_run_joins_two_terminals() {
    let c = with_terminal(&["each", "say READY", "echo-stdin"]);
    let mut terminal = Terminal::new(24, 80);
    assert!(!terminal.is_raw());
    let running = terminal.attach(c.on_bundle("run", &[])).spawn();
    terminal.output.expect("READY");
    assert!(terminal.is_raw());
    for text in ["hello", "again"] {
        terminal.type_in(&format!("{text}\n"));
        // by the echo of the container's terminal and by the program, but not
        // a third time by the echo of ours
        terminal.output.expect(text);
        terminal.output.expect(text);
    }
    terminal.type_in("\u{4}");
    running.wait().ok();
    assert!(!terminal.is_raw(), "not put back");
}

/// What reads the pipe may print to the terminal, where a line feed alone goes straight down.
#[test]
fn a_terminal_beside_a_pipe_still_adds_its_carriage_returns() {
    let c = with_terminal(&["each", "say READY", "echo-stdin"]);
    let mut terminal = Terminal::new(24, 80);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let running = terminal.attach(c.on_bundle("run", &[])).stdout(writer).spawn();
    let mut output = Pipe::new(reader);
    output.expect("READY");
    assert!(terminal.is_raw());
    assert!(terminal.attributes().output_flags.contains(OutputFlags::OPOST | OutputFlags::ONLCR));
    terminal.type_in("\u{4}");
    running.wait().ok();
}

#[test]
fn the_size_of_the_terminal_is_passed_on() {
    let c = with_terminal(&["winsize"]);
    let mut terminal = Terminal::new(30, 100);
    let running = terminal.attach(c.on_bundle("run", &[])).spawn();
    // the first line may show the size before it was passed on
    let mut line = terminal.output.line();
    if line == "SIZE 0x0" {
        line = terminal.output.line();
    }
    assert_eq!(line, "SIZE 30x100");
    terminal.resize(40, 120);
    assert_eq!(terminal.output.line(), "SIZE 40x120");
    running.signal(Signal::SIGTERM);
    running.wait().ok();
}

#[test]
fn keys_become_signals_in_the_containers_terminal() {
    let c = with_terminal(&["wait", "3"]);
    let mut terminal = Terminal::new(24, 80);
    let running = terminal.attach(c.on_bundle("run", &[])).spawn();
    terminal.expect_interrupts();
    running.signal(Signal::SIGTERM);
    running.wait().ends_with_code(3);
    assert!(!terminal.is_raw());
}

#[test]
fn the_last_words_of_a_program_are_not_lost() {
    let c = with_terminal(&["list", "/dev"]);
    for _ in 0..5 {
        let mut terminal = Terminal::new(24, 80);
        let running = terminal.attach(c.on_bundle("run", &[])).spawn();
        running.wait().ok();
        let line = terminal.output.line();
        assert!(line.ends_with("\"zero\"]"), "{line}");
    }
}

#[test]
fn a_run_that_fails_leaves_the_terminal_as_it_was() {
    let c = with_terminal(&["report"]);
    c.bundle.edit(|config| config["process"]["args"] = json!(["/no/such/program"]));
    let mut terminal = Terminal::new(24, 80);
    let output = terminal.attach(c.on_bundle("run", &[])).spawn().wait();
    assert_eq!(output.code, 1);
    assert!(!terminal.is_raw());
    assert!(terminal.output.line().contains("/no/such/program"));
    c.assert_gone();
}

#[test]
fn a_terminal_stays_usable_without_a_terminal_outside() {
    let c = with_terminal(&["each", "open /dev/tty rw"]);
    let output = c.run().ok();
    assert_eq!(output.stdout.trim_end(), "ok");
}

/// Nobody watches it any more, and pid 1 is spared the hang-up of its terminal.
#[test]
fn a_program_whose_output_nobody_takes_ends_with_its_run() {
    let c = Container::new(|config| {
        config["process"]["terminal"] = serde_json::json!(true);
        args(config, &["each", "report", "sleep-forever"]);
    });
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = c.on_bundle("run", &[]).stdout(full).run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("no space left"), "{output:?}");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "{output:?}");
    c.assert_gone();
}

#[test]
fn output_that_nobody_takes_leaves_no_container() {
    let c = Container::new(|config| {
        config["process"]["terminal"] = serde_json::json!(true);
        args(config, &["report"]);
    });
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = c.on_bundle("run", &[]).stdout(full).run();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("no space left"), "{output:?}");
    c.assert_gone();
}
