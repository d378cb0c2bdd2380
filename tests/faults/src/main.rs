//! Runs a command, and makes chosen system calls of it and of its children fail.
//!
//! By ptrace and not by seccomp: a filter can't tell the third call from the
//! second, would stay with the container's program (and show in what the probe
//! reports), and needs no_new_privs, which is itself a thing to be tested. A
//! tracer is seen by nobody and is gone with the first execve of a container.
//!
//! The calls of each process are numbered from 1, the command's from its first
//! execve on: the same command on the same machine gives the same numbers, so
//! that a number from `--report` can be used with `--fail`.

mod calls;
mod fault;
mod registers;
mod stop;
mod trace;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use fault::Fault;
use trace::{Options, Tracer};

const USAGE: &str = "\
tare-faults [--fail FAULT]… [--attach PID] [--report FILE] [--deadline SECONDS] [--] COMMAND…

  FAULT    [PROCESS:]CALL[FILTER…]=ERRNO[@N]
  PROCESS  runtime (the command), child (what it makes by clone3: init, or the
           helper that makes it), grandchild, program1… (what it starts), thread1…,
           init (the process of --attach); all of them if left out
  CALL     a name as in strace, or * for any but those of the allocator and of locks
  FILTER   [I=NUMBER] argument I is this, [I&NUMBER] has these bits, [I~TEXT] is this string
  N        only the N-th such call of a process; every one if left out

  --attach PID        take in this process as well
  --report FILE       write down the calls: process, number, name, arguments, string, result
  --deadline SECONDS  kill everything after this time, and end with 124 [30]

Ends as the command does. Failing calls are not made, but close is: the kernel
closes even where it reports an error.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--gate") {
        return gate(words.get(1..).unwrap_or_default());
    }
    match parse(words).and_then(|(options, command)| run(options, &command)) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("tare-faults: {e}");
            ExitCode::from(125)
        }
    }
}

/// Waits to be traced, then becomes the command.
fn gate(command: &[String]) -> ExitCode {
    let Some((program, args)) = command.split_first() else { return ExitCode::from(125) };
    if nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).is_ok() {
        let e = Command::new(program).args(args).exec();
        eprintln!("tare-faults: {program}: {e}");
    }
    ExitCode::from(127)
}

fn parse(words: Vec<String>) -> Result<(Options, Vec<String>), String> {
    let mut options = Options {
        faults: Vec::new(),
        attach: None,
        report: None,
        deadline: Duration::from_secs(30),
    };
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next_if(|word| word.starts_with("--")) {
        if word == "--" {
            break;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
        let bad = || format!("{word} {value}: not understood\n{USAGE}");
        match word.as_str() {
            "--fail" => options.faults.push(Fault::parse(&value).ok_or_else(bad)?),
            "--attach" => options.attach = Some(value.parse().map_err(|_number| bad())?),
            "--report" => options.report = Some(value.into()),
            "--deadline" => {
                options.deadline = Duration::from_secs(value.parse().map_err(|_number| bad())?);
            }
            _ => return Err(bad()),
        }
    }
    let command: Vec<String> = words.collect();
    if command.is_empty() {
        return Err(USAGE.to_owned());
    }
    Ok((options, command))
}

fn run(options: Options, command: &[String]) -> Result<u8, String> {
    let own = std::env::current_exe().map_err(|e| format!("own binary: {e}"))?;
    let child = Command::new(own).arg("--gate").args(command).spawn();
    let child = child.map_err(|e| format!("start the command: {e}"))?;
    let pid = i32::try_from(child.id()).map_err(|e| e.to_string())?;
    Tracer::new(options, pid).and_then(Tracer::run).map_err(|e| format!("trace: {e}"))
}
