//! The relay between a pty and the caller's stdin and stdout: nobody's pause, and no
//! closed terminal, ends it or holds up what others do.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::json;

use crate::exec::idle;
use crate::support::{
    Container, Invocation, Pipe, Running, Terminal, args, is_readable, pidfd_open, pipe, timeout,
};

fn with_terminal(words: &[&str]) -> Container {
    Container::new(|config| {
        args(config, words);
        config["process"]["terminal"] = json!(true);
    })
}

/// A fifo in the container's root by which a program tells where it is, while its
/// terminal tells nothing.
fn fifo(c: &Container) -> Pipe {
    let path = c.bundle.rootfs().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    // a writer is always there: no end between two words of the program's
    Pipe::new(File::options().read(true).write(true).open(path).unwrap().into())
}

/// A pipe as stdin: it does not end while the writer lives.
fn open_input() -> (OwnedFd, File) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    (reader, writer.into())
}

fn set_blocking(fd: &impl AsFd, is_blocking: bool) {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    flags.set(OFlag::O_NONBLOCK, !is_blocking);
    fcntl(fd, FcntlArg::F_SETFL(flags)).unwrap();
}

/// Writes until nothing more is taken: how many bytes. Blocking writes then wait.
fn fill(fd: &impl AsFd) -> usize {
    set_blocking(fd, false);
    let mut bytes = 0;
    for chunk in [&[b'.'; 1024][..], b"."] {
        loop {
            match nix::unistd::write(fd, chunk) {
                Ok(n) => bytes += n,
                Err(Errno::EAGAIN) => break,
                Err(e) => panic!("write: {e}"),
            }
        }
    }
    set_blocking(fd, true);
    bytes
}

#[test]
fn a_terminal_that_is_closed_and_opened_again_goes_on() {
    let words = ["each", "say one", "close-streams", "ready-fifo /fifo", "append /dev/console two"];
    let c = with_terminal(&words);
    let mut told = fifo(&c);
    let (mut output, writer) = pipe();
    let (input, _kept_open) = open_input();
    let running = c.on_bundle("run", &[]).stdin(input).stdout(writer).spawn();
    output.expect("one");
    told.expect("READY");
    running.signal(Signal::SIGTERM);
    assert_eq!(output.rest(), "two\n");
    running.wait().ok();
}

#[test]
fn a_terminal_of_exec_that_is_closed_and_opened_again_goes_on() {
    let (c, _output) = idle(|_| {});
    let mut told = fifo(&c);
    let (mut output, writer) = pipe();
    let (input, _kept_open) = open_input();
    let words =
        ["each", "say one", "close-streams", "ready-fifo /fifo", "append /dev/pts/0 two", "exit 3"];
    let running = c.exec(&["-t"], &words).stdin(input).stdout(writer).spawn();
    output.expect("one");
    told.expect("READY");
    running.signal(Signal::SIGTERM);
    assert_eq!(output.rest(), "two\n");
    running.wait().ends_with_code(3);
}

#[test]
fn input_after_the_terminal_was_closed_reaches_who_opens_it_again() {
    let words = ["each", "close-streams", "ready-fifo /fifo", "read-line /dev/console"];
    let c = with_terminal(&words);
    let mut told = fifo(&c);
    let (mut output, writer) = pipe();
    let (input, mut keyboard) = open_input();
    let running = c.on_bundle("run", &[]).stdin(input).stdout(writer).spawn();
    told.expect("READY");
    keyboard.write_all(b"typed\n").unwrap();
    // the echo: it has arrived in the terminal, which nobody has open
    output.expect("typed");
    running.signal(Signal::SIGTERM);
    assert_eq!(output.rest(), "LINE typed\n");
    running.wait().ok();
}

/// A program writes more than stdout takes, ends at the third signal, and all of its output
/// arrives. The signals arrive while stdout takes nothing.
fn all_arrives(stdout: OwnedFd, mut output: Pipe, filled: usize) {
    let ready = "ready-fifo /fifo";
    let c = with_terminal(&["each", "say first", ready, ready, ready, "numbers 20000"]);
    let mut told = fifo(&c);
    let running = c.on_bundle("run", &[]).stdout(stdout).spawn();
    for _ in 0..3 {
        told.expect("READY");
        running.signal(Signal::SIGTERM);
    }
    let first = output.line();
    assert_eq!(first.trim_start_matches('.'), "first");
    assert_eq!(first.len(), filled + "first".len());
    for number in 0..=20000 {
        output.expect(&number.to_string());
    }
    assert_eq!(output.rest(), "");
    running.wait().ok();
}

#[test]
fn a_pipe_that_does_not_block_gets_all_output() {
    let (output, writer) = pipe();
    let filled = fill(&writer);
    set_blocking(&writer, false);
    all_arrives(writer, output, filled);
}

#[test]
fn a_full_pipe_does_not_keep_signals_from_the_program() {
    let (output, writer) = pipe();
    let filled = fill(&writer);
    all_arrives(writer, output, filled);
}

#[test]
fn a_full_socket_does_not_keep_signals_from_the_program() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let filled = fill(&writer);
    all_arrives(writer.into(), Pipe::new(reader.into()), filled);
}

#[test]
fn a_terminal_that_nobody_reads_does_not_keep_signals_from_the_program() {
    let terminal = Terminal::new(24, 80);
    let side = terminal.side();
    let filled = fill(&side);
    all_arrives(side, terminal.into_output(), filled);
}

#[test]
fn the_callers_stdout_stays_as_it_was() {
    let c = with_terminal(&["say", "text"]);
    let terminal = Terminal::new(24, 80);
    let (_output, writer) = pipe();
    for stdout in [terminal.side(), writer] {
        c.on_bundle("run", &[]).stdout(stdout.try_clone().unwrap()).run().ok();
        let flags = OFlag::from_bits_retain(fcntl(&stdout, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK), "{flags:?}");
    }
}

/// Has a command's process, which waits at first, end with more output than stdout takes.
/// The command is given an option.
fn ended_with_a_full_stdout(c: &Container, command: impl FnOnce(&str) -> Invocation) -> Running {
    let mut told = fifo(c);
    let file = c.bundle.path().join("process.pid");
    let running = command(&format!("--pid-file={}", file.display())).spawn();
    told.expect("READY");
    let process = pidfd_open(std::fs::read_to_string(file).unwrap().parse().unwrap());
    running.signal(Signal::SIGTERM);
    assert!(is_readable(&process, timeout()), "the process stays");
    running
}

#[test]
fn a_signal_after_the_program_gives_up_output_that_nobody_takes() {
    let c = with_terminal(&["each", "ready-fifo /fifo", "say unread", "exit 3"]);
    let (_output, writer) = pipe();
    fill(&writer);
    let running =
        ended_with_a_full_stdout(&c, |option| c.on_bundle("run", &[option]).stdout(writer));
    running.signal(Signal::SIGTERM);
    running.wait().ends_with_code(3);
    c.assert_gone();
}

#[test]
fn the_last_words_wait_for_a_reader() {
    let c = with_terminal(&["each", "ready-fifo /fifo", "numbers 1000", "exit 3"]);
    let (mut output, writer) = pipe();
    let filled = fill(&writer);
    let running =
        ended_with_a_full_stdout(&c, |option| c.on_bundle("run", &[option]).stdout(writer));
    assert_eq!(output.line().len(), filled + 1);
    for number in 1..=1000 {
        output.expect(&number.to_string());
    }
    running.wait().ends_with_code(3);
}

#[test]
fn all_input_that_is_there_reaches_the_program() {
    let c = with_terminal(&["take", "8000"]);
    let (mut output, writer) = pipe();
    let (input, mut keyboard) = open_input();
    let running = c.on_bundle("run", &[]).stdin(input).stdout(writer).spawn();
    output.expect("READY");
    let bytes: Vec<u8> = (0..8000_u32).map(|n| (n % 251) as u8).collect();
    keyboard.write_all(&bytes).unwrap();
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    output.expect(&format!("TAKEN 8000 {sum}"));
    running.wait().ok();
}

#[test]
fn input_that_somebody_else_was_faster_with_is_no_end() {
    let c = with_terminal(&["each", "say READY", "echo-stdin"]);
    let (mut output, writer) = pipe();
    let (input, mut keyboard) = open_input();
    set_blocking(&input, false);
    let other = input.try_clone().unwrap();
    let running = c.on_bundle("run", &[]).stdin(input).stdout(writer).spawn();
    output.expect("READY");
    // there one moment and gone the next
    for _ in 0..50_000 {
        keyboard.write_all(b"x").unwrap();
        nix::unistd::read(&other, &mut [0]).ok();
    }
    keyboard.write_all(b"\nEND\n").unwrap();
    while output.line() != "END" {}
    drop(keyboard);
    running.wait().ok();
}

#[test]
fn input_without_a_last_end_of_line_ends() {
    let c = with_terminal(&["echo-stdin"]);
    let (input, mut keyboard) = open_input();
    keyboard.write_all(b"text").unwrap();
    drop(keyboard);
    let output = c.on_bundle("run", &[]).stdin(input).run().ok();
    // the echo, and the program
    assert_eq!(output.stdout, "texttext");
}

#[test]
fn input_that_the_program_does_not_read_holds_up_nothing() {
    // in raw mode nothing of it is thrown away, or echoed
    let c = with_terminal(&["each", "take 0", "ready-fifo /fifo", "numbers 20000"]);
    let mut told = fifo(&c);
    let (mut output, writer) = pipe();
    let (input, keyboard) = open_input();
    let running = c.on_bundle("run", &[]).stdin(input).stdout(writer).spawn();
    output.expect("READY");
    output.expect("TAKEN 0 0");
    told.expect("READY");
    fill(&keyboard);
    running.signal(Signal::SIGTERM);
    for number in 0..=20000 {
        output.expect(&number.to_string());
    }
    running.wait().ok();
}

#[test]
fn processes_that_stay_behind_do_not_hold_up_an_exec() {
    let (c, _output) = idle(|_| {});
    let output = c.exec(&["-t"], &["abandon", "2"]).run().ok();
    assert_eq!(output.stdout, "LEAVING\n");
}

#[test]
fn a_process_that_writes_for_ever_does_not_hold_up_an_exec() {
    let (c, _output) = idle(|_| {});
    let (mut output, writer) = pipe();
    // small: whenever it takes something, there is more to come
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let words = ["each", "ready-fifo /fifo", "hold-terminal"];
    let running =
        ended_with_a_full_stdout(&c, |option| c.exec(&["-t", option], &words).stdout(writer));
    // what a pty, a pipe and the relay keep, and not much that was written later
    let bytes = output.rest().len();
    assert!((4096..128 << 10).contains(&bytes), "{bytes}");
    running.wait().ok();
}

#[test]
fn a_killed_exec_hangs_its_terminal_up() {
    let (c, _output) = idle(|_| {});
    let (mut output, writer) = pipe();
    let (input, _kept_open) = open_input();
    let file = c.bundle.path().join("pid");
    let flags = ["-t", "--pid-file", file.to_str().unwrap()];
    let words = ["each", "say READY", "sleep-forever"];
    let running = c.exec(&flags, &words).stdin(input).stdout(writer).spawn();
    output.expect("READY");
    let process = pidfd_open(std::fs::read_to_string(file).unwrap().parse().unwrap());
    running.signal(Signal::SIGKILL);
    assert!(is_readable(&process, timeout()), "SIGHUP has not come");
    running.wait().ends_with_code(128 + libc::SIGKILL);
}

#[test]
fn the_size_comes_from_stdout_where_stdin_is_no_terminal() {
    let c = with_terminal(&["winsize"]);
    let terminal = Terminal::new(30, 100);
    let running = c.on_bundle("run", &[]).stdout(terminal.side()).spawn();
    let mut output = terminal.into_output();
    // the first line may show the size before it was passed on
    let mut line = output.line();
    if line == "SIZE 0x0" {
        line = output.line();
    }
    assert_eq!(line, "SIZE 30x100");
    running.signal(Signal::SIGTERM);
    running.wait().ok();
}

#[test]
fn the_size_in_pixels_is_passed_on() {
    let c = with_terminal(&["winsize"]);
    let mut terminal = Terminal::new(30, 100);
    let running = terminal.attach(c.on_bundle("run", &[])).spawn();
    while terminal.output.line() != "SIZE 30x100" {}
    terminal.resize_with_pixels((40, 120), (960, 800));
    terminal.output.expect("SIZE 40x120 PIXELS 960x800");
    running.signal(Signal::SIGTERM);
    running.wait().ok();
}
