//! JSON, with errors that name the field.
//!
//! The parser knows a line and a column; which field that is, is found by
//! walking the text once more, and only then. (A parser that keeps track
//! itself is twice the code for every type that is ever read.)

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Parses a whole text.
///
/// # Errors
/// Text that is not JSON (with line and column), a field of the wrong type or
/// value, a missing field (each with the field's path).
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| explain(text, &e))
}

fn explain(text: &[u8], e: &serde_json::Error) -> Error {
    if !e.is_data() {
        return Error::invalid(format!("not valid JSON: {e}"));
    }
    let message = e.to_string();
    let position = format!(" at line {} column {}", e.line(), e.column());
    let message = message.strip_suffix(&position).unwrap_or(&message);
    if let Some(rest) = message.strip_prefix("missing field `")
        && let Some((missing, _)) = rest.split_once('`')
    {
        // the position is the end of the object that lacks it
        let object = object_ending_at(text, e.line(), e.column());
        let dot = if object.is_empty() { "" } else { "." };
        return Error::invalid(format!("{object}{dot}{missing}: is missing"));
    }
    match field_at(text, e.line(), e.column()).as_str() {
        "" => Error::invalid(message),
        path => Error::invalid(format!("{path}: {message}")),
    }
}

/// The path of the value at or just before a position (line and column count
/// from 1, as serde_json gives them): `process.user.uid`, `mounts[2].options`.
/// Empty at the top.
///
/// Only for messages, after a parser has refused the text: on text that is not
/// JSON the answer means nothing.
fn field_at(text: &[u8], line: usize, column: usize) -> String {
    walk_to(text, offset(text, line, column)).path()
}

/// The path of the object whose closing brace is at a position.
fn object_ending_at(text: &[u8], line: usize, column: usize) -> String {
    let mut walk = walk_to(text, offset(text, line, column).saturating_sub(1));
    if let Some(Level::Object { key }) = walk.levels.last_mut() {
        // the last field inside is none of the path
        *key = None;
    }
    walk.path()
}

fn walk_to(text: &[u8], end: usize) -> Walk {
    let mut walk = Walk::default();
    for byte in text.get(..end).unwrap_or(text) {
        walk.step(*byte);
    }
    walk
}

fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        let rest = text.get(start..).unwrap_or_default();
        start += rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
    }
    // the column is the last byte that was read: it belongs to the value
    (start + column).min(text.len())
}

/// One object or array that is open.
enum Level {
    Object { key: Option<String> },
    Array { index: usize },
}

#[derive(Default)]
struct Walk {
    levels: Vec<Level>,
    /// The string that is being read, or was read last.
    string: Vec<u8>,
    in_string: bool,
    escaped: bool,
}

impl Walk {
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match (self.escaped, byte) {
                (false, b'"') => self.in_string = false,
                (false, b'\\') => self.escaped = true,
                _ => {
                    self.escaped = false;
                    self.string.push(byte);
                }
            }
            return;
        }
        match (byte, self.levels.last_mut()) {
            (b'"', _) => {
                self.in_string = true;
                self.string.clear();
            }
            (b'{', _) => self.levels.push(Level::Object { key: None }),
            (b'[', _) => self.levels.push(Level::Array { index: 0 }),
            (b'}' | b']', _) => drop(self.levels.pop()),
            (b':', Some(Level::Object { key })) => {
                *key = Some(String::from_utf8_lossy(&self.string).into_owned());
            }
            (b',', Some(Level::Object { key })) => *key = None,
            (b',', Some(Level::Array { index })) => *index += 1,
            _ => {}
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for level in &self.levels {
            match level {
                Level::Array { index } => path.push_str(&format!("[{index}]")),
                Level::Object { key: Some(key) } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Level::Object { key: None } => {}
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::field_at;

    #[test]
    fn paths() {
        let text = b"{\"a\": {\"b\": [1, {\"c\\\"d\": true}],\n \"e\": 5}}";
        assert_eq!(field_at(text, 1, 14), "a.b[0]");
        assert_eq!(field_at(text, 1, 29), "a.b[1].c\"d");
        assert_eq!(field_at(text, 2, 7), "a.e");
        assert_eq!(field_at(text, 2, 8), "a");
        assert_eq!(field_at(text, 9, 9), "");
    }
}
