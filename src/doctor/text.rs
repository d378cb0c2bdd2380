//! The report as text: calm, aligned, at most as wide as it is told.

use super::report::{Check, Group, Report, Status};

/// Where the text after a status begins.
const INDENT: usize = 12;

/// How it looks.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns; a longer word still gets its own line.
    pub width: usize,
    /// With SGR sequences for a terminal.
    pub colour: bool,
}

impl Report {
    /// The report for people. Checks of a group that are fine and have nothing
    /// to add share a line.
    pub fn text(&self, style: Style) -> String {
        let all = || self.groups.iter().flat_map(|group| &group.checks);
        let titles = all().filter(|check| !is_plain(check)).map(|check| check.title.len());
        let column = INDENT + titles.max().unwrap_or_default() + 2;
        let mut out = String::new();
        for group in &self.groups {
            render_group(&mut out, group, column, style);
        }
        for line in wrap(&self.summary.text, style.width) {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

fn is_plain(check: &Check) -> bool {
    check.status == Status::Ok && check.detail.is_empty()
}

fn render_group(out: &mut String, group: &Group, column: usize, style: Style) {
    out.push_str(&paint(group.title, "1", style));
    out.push('\n');
    let plain: Vec<&str> =
        group.checks.iter().filter(|check| is_plain(check)).map(|check| check.title).collect();
    if !plain.is_empty() {
        let lines = wrap(&plain.join(", "), style.width.saturating_sub(INDENT));
        block(out, &head(Status::Ok, style), INDENT, &lines);
    }
    let mut hints: Vec<&str> = Vec::new();
    for check in group.checks.iter().filter(|check| !is_plain(check)) {
        let room = style.width.saturating_sub(column);
        let mut lines = wrap(&check.detail, room);
        // said once in a group is enough
        if let Some(hint) = check.hint.as_deref().filter(|hint| !hints.contains(hint)) {
            lines.extend(arrow(wrap(hint, room.saturating_sub(2))));
            hints.push(hint);
        }
        let title =
            format!("{}{:width$}", head(check.status, style), check.title, width = column - INDENT);
        block(out, &title, column, &lines);
    }
    out.push('\n');
}

fn arrow(lines: Vec<String>) -> impl Iterator<Item = String> {
    let marks = std::iter::once("→ ").chain(std::iter::repeat("  "));
    lines.into_iter().zip(marks).map(|(line, mark)| format!("{mark}{line}"))
}

/// Lines behind a head, those from the second on under the first.
fn block(out: &mut String, head: &str, column: usize, lines: &[String]) {
    let mut line = head.to_owned();
    for text in lines {
        line.push_str(text);
        out.push_str(line.trim_end());
        out.push('\n');
        line = " ".repeat(column);
    }
    if lines.is_empty() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn head(status: Status, style: Style) -> String {
    let (word, colour) = match status {
        Status::Ok => ("ok", "32"),
        Status::Fallback => ("fallback", "33"),
        Status::Missing => ("missing", "31"),
        Status::Info => ("info", "2"),
    };
    format!("  {}{}", paint(word, colour, style), " ".repeat(INDENT - 2 - word.len()))
}

fn paint(text: &str, sgr: &str, style: Style) -> String {
    if style.colour { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Lines of at most `width` characters, broken at spaces. What could move a
/// terminal's cursor is escaped: names of files may be in here.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = crate::error::one_line(text);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(title: &'static str, status: Status, detail: &str, hint: Option<&str>) -> Check {
        let (detail, hint) = (detail.to_owned(), hint.map(str::to_owned));
        Check { id: title, title, status, detail, hint, required: false, untried: false }
    }

    fn report() -> Report {
        let checks = vec![
            check("pidfds", Status::Ok, "", None),
            check("release", Status::Ok, "Linux 6.18", None),
            check("openat2", Status::Ok, "", None),
            check("memory", Status::Missing, "bound to cgroup v1", Some("boot without")),
            check("cpu", Status::Missing, "bound to cgroup v1", Some("boot without")),
        ];
        Report::new(vec![Group { id: "kernel", title: "Kernel", checks }], "none")
    }

    #[test]
    fn it_is_aligned_and_says_a_hint_once() {
        let expected = "\
Kernel
  ok        pidfds, openat2
  ok        release  Linux 6.18
  missing   memory   bound to cgroup v1
                     → boot without
  missing   cpu      bound to cgroup v1

containers run here; also missing: memory, cpu
";
        assert_eq!(report().text(Style { width: 80, colour: false }), expected);
    }

    #[test]
    fn it_keeps_to_the_width_and_to_plain_text() {
        let text = report().text(Style { width: 40, colour: false });
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(
            report().text(Style { width: 40, colour: true }).contains("\x1b[31mmissing\x1b[0m")
        );
        assert_eq!(wrap("a\x1b[2Jb", 80), ["a\\u{1b}[2Jb"]);
    }
}
