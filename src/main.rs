//! tare's binary: parse, dispatch, and the one place that prints an error.
#![no_main]

use tare::error::one_line;
use tare::{cli, commands, trace};

tare::sys::program::main_is!(run);

fn run() -> u8 {
    // engines ask for it at every start of theirs: the command line need not be
    // built for that
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "--version") && words.next().is_none() {
        return u8::from(commands::print_version().is_err());
    }
    let words: Vec<_> = std::env::args_os().collect();
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
