//! tare's binary: parse, dispatch, and the one place that prints an error.
#![no_main]

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use tare::error::one_line;
use tare::sys::program;
use tare::{cli, commands, trace};

// musl's own asks the kernel for memory, and gives it back, all the time
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

tare::sys::program::main_is!(run);

fn owned(word: &CStr) -> OsString {
    OsStr::from_bytes(word.to_bytes()).to_owned()
}

fn run() -> u8 {
    // engines ask for it at every start of theirs: the command line need not be
    // built for that
    let mut words = program::words().skip(1);
    if words.next().is_some_and(|word| word == c"--version") && words.next().is_none() {
        return u8::from(commands::print_version().is_err());
    }
    let words: Vec<_> = program::words().map(owned).collect();
    trace::notice(&words);
    let words = cli::usual(words);
    let cli = match cli::parse(&words) {
        Ok(cli) => cli,
        Err(e) => {
            if e.use_stderr() {
                commands::log_words(&words, &e.to_string());
            }
            // a closed stdout or stderr is no reason to say more; callers know
            // 1 as the code of a runtime's failure
            e.print().unwrap_or_default();
            return u8::from(e.use_stderr());
        }
    };
    let failure = commands::failure_code(&cli);
    match commands::run(cli) {
        Ok(code) => u8::try_from(code).unwrap_or(1),
        Err(e) => {
            #[allow(clippy::print_stderr, reason = "the one place that prints an error")]
            {
                eprintln!("tare: {}", one_line(&format!("{e:#}")));
            }
            failure
        }
    }
}
