//! What a command may do whose system call has failed.

use crate::faulty::Followed;
use crate::support::{Container, Output, wait_gone};

/// An error as a person needs it: one line with a step and a cause.
#[track_caller]
pub fn assert_told(followed: &Followed, command: &str, subject: &str) {
    let output = &followed.output;
    if followed.failed_before_main() {
        // the C library's or Rust's own way to end
        assert_ne!(output.code, 124, "hangs: {output:#?}");
        return;
    }
    if followed.failed_where_nothing_can() {
        return;
    }
    assert_line(output, command, subject);
}

/// As [`assert_told`], of the output alone.
#[track_caller]
pub fn assert_line(output: &Output, command: &str, subject: &str) {
    assert_ne!(output.code, 124, "hangs: {output:#?}");
    // callers of exec take 1 for the code of its process
    let code = if command == "exec" { 255 } else { 1 };
    assert_eq!(output.code, code, "{output:#?}");
    let lines: Vec<&str> =
        output.stderr.lines().filter(|line| !line.starts_with("tare: warning: ")).collect();
    assert_eq!(lines.len(), 1, "not one line: {output:#?}");
    let line = lines[0];
    // what failed before the command itself names the option or the file
    let frame = format!("tare: {command} {subject}: ");
    let rest = line.strip_prefix(&frame).or_else(|| line.strip_prefix("tare: ")).unwrap_or("");
    assert!(rest.contains(": "), "no step and cause: {output:#?}");
    for word in ["panicked", "unexpected", "RUST_BACKTRACE", "Os {", "out of turn"] {
        assert!(!line.contains(word), "{word}: {output:#?}");
    }
}

/// Nothing of the container is on the host, or will be in a moment.
#[track_caller]
pub fn assert_gone(c: &Container) {
    let traces = || c.traces();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while !traces().is_empty() {
        assert!(std::time::Instant::now() < deadline, "left behind: {:#?}", traces());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// `delete --force` works, and nothing is left.
#[track_caller]
pub fn assert_deletable(c: &Container) {
    c.delete_by_force().ok();
    wait_gone("what delete --force leaves", || c.traces().is_empty());
}
