//! One line of the log.

use serde_json::{Map, Value};

use crate::error::{Error, one_line};

/// Most bytes of a text in a line: a name in it may be as long as a config likes.
const MOST_TEXT: usize = 8 << 10;

/// What a line says.
#[derive(Debug)]
pub(super) struct Entry {
    level: &'static str,
    message: String,
    time: String,
    /// In the order of their names.
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    pub(super) fn new(level: &'static str, message: &str, time: String) -> Self {
        Entry { level, message: bounded(message), time, fields: Vec::new() }
    }

    /// Adds the parts of the error that `line` ends with.
    pub(super) fn explain(&mut self, line: &str, cause: &Error) {
        let text = |text: &str| Some(bounded(&one_line(text))).filter(|text| !text.is_empty());
        let fields = [
            ("errno", cause.raw_errno().map(|errno| format!("{errno:?}"))),
            ("hint", cause.hints().and_then(|hints| text(&hints))),
            ("path", cause.path().and_then(text)),
            ("step", text(cause.steps_in(line))),
        ];
        self.fields.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }

    /// As JSON, or as text in the form of logrus, which readers of other runtimes'
    /// logs know. With its end.
    pub(super) fn line(self, json: bool) -> String {
        let (level, message, time) = (self.level, self.message, self.time);
        if json {
            let all = [("level", level.to_owned()), ("msg", message), ("time", time)];
            let all = all.into_iter().chain(self.fields);
            let object: Map<String, Value> =
                all.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            return format!("{}\n", Value::Object(object));
        }
        let mut line = format!("time={time:?} level={level} msg={}", quoted(&message));
        for (name, value) in self.fields {
            line.push_str(&format!(" {name}={}", quoted(&value)));
        }
        line.push('\n');
        line
    }
}

/// In quotes, if anything is in it that needs them.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

/// Without its middle, if it is too long.
fn bounded(text: &str) -> String {
    if text.len() <= MOST_TEXT {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(MOST_TEXT / 2);
    let tail = text.ceil_char_boundary(text.len() - MOST_TEXT / 2);
    let part = |range| text.get(range).unwrap_or_default();
    format!("{} […] {}", part(0..head), part(tail..text.len()))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn failed() -> Entry {
        let cause = Error::from(Errno::ENOENT).hint("is it there?").step("open /srv/x");
        let line = format!("create box1: {cause}");
        let mut entry = Entry::new("error", &line, "2030-01-02T03:04:05.6Z".to_owned());
        entry.explain(&line, &cause);
        entry
    }

    #[test]
    fn an_error_has_its_parts_as_fields() {
        let json: Value = serde_json::from_str(&failed().line(true)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "level": "error",
                "msg": "create box1: open /srv/x: no such file or directory (is it there?)",
                "time": "2030-01-02T03:04:05.6Z",
                "errno": "ENOENT",
                "hint": "is it there?",
                "path": "/srv/x",
                "step": "create box1: open /srv/x",
            })
        );
        assert_eq!(
            failed().line(false),
            "time=\"2030-01-02T03:04:05.6Z\" level=error msg=\"create box1: open /srv/x: no such \
             file or directory (is it there?)\" errno=ENOENT hint=\"is it there?\" path=/srv/x \
             step=\"create box1: open /srv/x\"\n"
        );
    }

    #[test]
    fn a_line_has_an_end() {
        let line = Entry::new("error", &"ä".repeat(1 << 20), String::new()).line(true);
        assert!(line.len() < 2 * MOST_TEXT && line.contains("[…]"), "{}", line.len());
    }
}
