//! /proc/self/mountinfo as JSON.

use serde_json::{Value, json};

/// The mounts in their order; a line that can't be read shows as a string.
pub(crate) fn read() -> Value {
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => text.lines().map(|line| parse(line).unwrap_or_else(|| json!(line))).collect(),
        Err(e) => json!({"error": crate::sys::io_name(&e)}),
    }
}

fn parse(line: &str) -> Option<Value> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.splitn(3, ' ').collect();
    let [id, parent, device, root, target, options, tags @ ..] = left.as_slice() else {
        return None;
    };
    let [fstype, source, super_options] = right.as_slice() else {
        return None;
    };
    Some(json!({
        "id": id.parse::<u64>().ok()?,
        "parent": parent.parse::<u64>().ok()?,
        "device": device,
        "root": unescape(root),
        "target": unescape(target),
        "options": options.split(',').collect::<Vec<_>>(),
        "propagation": tags,
        "fstype": fstype,
        "source": unescape(source),
        "super_options": super_options.split(',').collect::<Vec<_>>(),
    }))
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'\\' {
            let octal: String = bytes.by_ref().take(3).map(char::from).collect();
            out.push(u8::from_str_radix(&octal, 8).unwrap_or(b'?'));
        } else {
            out.push(b);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
