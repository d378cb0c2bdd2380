//! The program inside the containers of tare's tests.
//!
//! `probe report` prints what it sees as one JSON object; the other words each
//! do one small thing and print how it went, so that a test needs no shell in
//! its rootfs.
//!
//! There is no Rust runtime around `main`: it would open /dev/null on a closed
//! stdin and ignore SIGPIPE, and a probe that changes what it measures would
//! hide the runtime's mistakes.
#![no_main]

mod actions;
mod counting;
mod mounts;
mod net;
mod process;
mod report;
mod scheduling;
mod spy;
mod sys;
mod terminal;
mod usage;
mod waiting;

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

const USAGE: &str = "probe WORD [ARGS]
  report                     all that is seen, as JSON
  each 'WORD ARGS'…          several words, one line of output each
  exit CODE                  end with this code
  kill-self SIGNAL           end by this signal
  read PATH                  print a file
  write PATH TEXT            write TEXT into an existing file
  create PATH TEXT           write TEXT into a new file
  append PATH TEXT           add a line to a file, made if needed
  open PATH r|w|rw           ok, or the name of the errno
  mkdir PATH                 ok, or the name of the errno
  mknod PATH c|b|p MAJ MIN   ok, or the name of the errno
  stat PATH                  type, mode, owner, device, time as JSON
  attribute PATH NAME        the value of an extended attribute
  list PATH                  names in a directory as a JSON array
  sethostname NAME           ok, or the name of the errno
  mount-tmpfs PATH           ok, or the name of the errno
  personality NUMBER         ok, or the name of the errno
  setuid-root                setuid(0): ok, or the name of the errno
  interfaces                 network devices and their addresses as JSON
  say TEXT                   print TEXT
  notify WORD=VALUE…         tell the service manager: ok, or the errno's name
  complain TEXT              print TEXT on stderr
  hook FILE NAME             append NAME, stdin, env and args to FILE as a JSON line
  fail TEXT                  print TEXT on stderr and end with code 1
  ready-fifo PATH            write READY into a fifo, then wait for a signal
  wait [CODE]                print READY and each signal; SIGTERM ends with CODE
  leave-first-thread         end the first thread; another one waits as with wait
  sleep-forever              nothing, ever; every signal has its default action
  count [WAY]                READY, then COUNT N for each SIGUSR1, by way of a connection
                             (tcp), datagrams (unix PATH) or an open file (unlinked PATH
                             OTHER), or with a lock held (lock PATH) or a caller that was
                             not accepted (queue)
  lock PATH                  take a lock: ok, or the name of the errno
  children N [setsid]        fork N children that wait, print their ids, wait
  abandon N                  fork N children that hold stdout open, then exit 0
  spawn-orphans N            make N orphans that exit, say whether all are reaped
  echo-stdin                 copy stdin to stdout up to its end
  take BYTES                 READY, then what stdin, a terminal, gives: how many, their sum
  numbers N                  print the numbers up to N, a line each
  read-line PATH             read a line of a terminal, answer LINE and the line there
  close-streams              stdin, stdout and stderr become /dev/null
  hold-terminal              leave a child that fills the terminal for ever
  winsize                    print the terminal's size, and again on each SIGWINCH
  alloc BYTES                touch this much memory
  alloc-in-child BYTES       how a child ends that does it
  alloc-huge BYTES           map huge pages and touch them: ok, or the errno
  fill PATH BYTES            write a file of this size
  burn MS                    compute for so long, say how much of it on a processor
  affinity                   the processors that it may run on, as a JSON array
  read-device PATH BYTES     read a block device past the cache, say how long it took
  fork-until-denied N        fork up to N children, say how many came to be
  spy MARKER                 watch other processes: what can be had of them
  grab-exe PAUSE             take hold of what another one executes; write when
                             the file PAUSE is there
  escape MARKER              try to see the host's file MARKER in known ways
  exec PATH ARGS…            become another program";

/// The command line: the standard library knows it without a `main` of its own only
/// with glibc.
static ARGS: OnceLock<Vec<String>> = OnceLock::new();

/// # Safety
/// Called by the C library with the process' arguments.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let args = ARGS.get_or_init(|| {
        (0..usize::try_from(argc).unwrap_or(0))
            // SAFETY: as many words as the C library says, each with a NUL behind it.
            .map(|i| unsafe { CStr::from_ptr(argv.add(i).read()) }.to_string_lossy().into_owned())
            .collect()
    });
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    run(&words)
}

fn run(words: &[&str]) -> c_int {
    let Some((&word, rest)) = words.split_first() else {
        sys::eprint_line(USAGE);
        return 64;
    };
    if word == "each" {
        return each(rest);
    }
    let done = actions::run(word, rest)
        .or_else(|| usage::run(word, rest))
        .or_else(|| spy::run(word, rest))
        .or_else(|| waiting::run(word, rest))
        .or_else(|| counting::run(word, rest))
        .or_else(|| terminal::run(word, rest));
    match done {
        Some(code) => code,
        None => {
            sys::eprint_line(&format!("probe: what is {words:?}?\n{USAGE}"));
            64
        }
    }
}

/// Several words in one container: the code is that of the last that failed.
fn each(commands: &[&str]) -> c_int {
    let mut code = 0;
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let one = run(&words);
        if one != 0 {
            code = one;
        }
    }
    code
}
