//! A trace as lines for a terminal.

use std::fmt::Write;

use super::read::{Recording, duration};

/// Most characters of a step's name and what it was done to.
const MOST: usize = 100;

/// A line a step, by the time of its begin, indented below the one around it:
/// when it began, how long it took, what it was.
pub fn text(trace: &Recording) -> String {
    let mut out = String::new();
    for lane in &trace.lanes {
        let mut put = |line: &str| {
            // a String takes whatever is written
            writeln!(out, "{}", line.trim_end()).unwrap_or_default();
        };
        put(&lane.name);
        for bar in &lane.bars {
            let indent = " ".repeat(2 * bar.depth.min(MOST / 4));
            let failed = if bar.has_failed && bar.length.is_some() { "  FAILED" } else { "" };
            let (at, took) = (duration(bar.start), bar.took());
            put(&format!("{at:>10}  {took:>10}  {indent}{}{failed}", bar.title(MOST)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::parse;

    #[test]
    fn a_line_a_step() {
        let trace = parse(
            br#"[{"name": "run", "ph": "X", "ts": 10, "dur": 2000, "pid": 1, "tid": 1},
                {"name": "mount", "ph": "X", "ts": 20.5, "dur": 7, "pid": 1, "tid": 1,
                 "args": {"destination": "/proc", "failed": "true"}}]"#,
        );
        let lines = [
            "process 1",
            "    0.0 µs     2.00 ms  run",
            "   10.5 µs      7.0 µs    mount /proc  FAILED",
        ];
        assert_eq!(text(&trace.unwrap()), lines.map(|line| format!("{line}\n")).concat());
    }
}
