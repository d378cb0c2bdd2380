//! The file: an array of events as Chrome's trace viewer and Perfetto read it
//! ("Trace Event Format"), one a line. Times are microseconds of the host's
//! monotonic clock, so that traces of several commands fit together.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::slots::{Recorded, Role, Slots, State};
use crate::error::one_line;

/// The command as a whole.
pub(super) struct Whole<'a> {
    pub(super) what: &'a str,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Why it failed, if it did.
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Event {
    name: String,
    ph: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u64,
    tid: u64,
    /// What a moment is drawn across: the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    args: BTreeMap<String, String>,
}

/// The whole text of the file.
pub(super) fn of(slots: Slots, whole: &Whole<'_>) -> Vec<u8> {
    let mut steps = slots.read();
    // of steps that begin together the longest is around the others
    steps.sort_by_key(|step| (step.start, Reverse(end_of(step, whole))));
    let mut events = names(slots, &steps, whole);
    events.push(command(slots, &steps, whole));
    events.extend(steps.iter().map(|step| event(slots.pid(step.role), step, whole)));
    let mut text = b"[\n".to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            text.extend(b",\n");
        }
        // texts and numbers can always be written
        text.extend(serde_json::to_vec(event).unwrap_or_default());
    }
    text.extend(b"\n]\n");
    text
}

/// What the processes are called, and in which order they are shown.
fn names(slots: Slots, steps: &[Recorded], whole: &Whole<'_>) -> Vec<Event> {
    let of_role = |role: Role| {
        let name = match role {
            Role::Runtime => format!("tare {}", one_line(whole.what)),
            other => other.name().to_owned(),
        };
        let about = |kind: &str, key: &str, value: String| Event {
            name: kind.to_owned(),
            ph: "M",
            ts: None,
            dur: None,
            pid: slots.pid(role),
            tid: slots.pid(role),
            s: None,
            args: BTreeMap::from([(key.to_owned(), value)]),
        };
        [about("process_name", "name", name.clone()), about("thread_name", "name", name)]
    };
    let is_there = |role: &Role| *role == Role::Runtime || steps.iter().any(|s| s.role == *role);
    Role::ALL.into_iter().filter(is_there).flat_map(of_role).collect()
}

/// The event around all others of the runtime.
fn command(slots: Slots, steps: &[Recorded], whole: &Whole<'_>) -> Event {
    let mut args = BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(error) = &whole.error {
        args.insert("error".to_owned(), error.clone());
        // the first to end is the innermost one
        let failed = steps.iter().filter(|step| step.state == State::Failed);
        if let Some(step) = failed.min_by_key(|step| (step.end, Reverse(step.start))) {
            let (role, name) = (step.role.name(), one_line(&step.name));
            let of = step.detail.as_ref().map(|(_, value)| format!(" {}", one_line(value)));
            args.insert("failed".to_owned(), format!("{role}: {name}{}", of.unwrap_or_default()));
        }
    }
    if slots.lost() > 0 {
        args.insert("lost".to_owned(), slots.lost().to_string());
    }
    Event {
        name: one_line(whole.what),
        ph: "X",
        ts: Some(microseconds(whole.start)),
        dur: Some(microseconds(whole.end.saturating_sub(whole.start))),
        pid: slots.pid(Role::Runtime),
        tid: slots.pid(Role::Runtime),
        s: None,
        args,
    }
}

fn event(pid: u64, step: &Recorded, whole: &Whole<'_>) -> Event {
    let mut args: BTreeMap<String, String> =
        step.detail.iter().map(|(key, value)| (key.clone(), one_line(value))).collect();
    let is_moment = step.state == State::Moment;
    match step.state {
        State::Failed => drop(args.insert("failed".to_owned(), "true".to_owned())),
        // the runtime was done first, or the process was killed
        State::Open => drop(args.insert("unfinished".to_owned(), "true".to_owned())),
        State::Done | State::Moment => {}
    }
    let length = end_of(step, whole).saturating_sub(step.start);
    Event {
        name: step.name.clone(),
        ph: if is_moment { "i" } else { "X" },
        ts: Some(microseconds(step.start)),
        dur: (!is_moment).then(|| microseconds(length)),
        pid,
        tid: pid,
        s: is_moment.then_some("p"),
        args,
    }
}

fn end_of(step: &Recorded, whole: &Whole<'_>) -> u64 {
    if step.state == State::Open { whole.end } else { step.end }
}

/// Exact to the nanosecond for the first hundred days of a machine.
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_back() {
        let slots = Slots::new().unwrap();
        slots.set_pid(Role::Runtime, 10);
        slots.set_pid(Role::Init, 11);
        let step = |role, start, name, end, state| {
            let slot = slots.begin(role, start, name, Some(("path", &"/a\n\"b"))).unwrap();
            slot.end(end, state);
        };
        step(Role::Init, 3000, "mount", 4500, State::Failed);
        step(Role::Runtime, 2000, "serve", 5000, State::Failed);
        slots.begin(Role::Init, 2500, "init", None).unwrap();
        let error = Some("no".to_owned());
        let whole = Whole { what: "run x\u{1b}", start: 1000, end: 9000, error };
        let all: Vec<serde_json::Value> = serde_json::from_slice(&of(slots, &whole)).unwrap();
        let names: Vec<_> = all.iter().map(|event| event["name"].as_str().unwrap()).collect();
        let kinds = ["process_name", "thread_name"];
        assert_eq!(names[..4], [kinds, kinds].concat());
        assert_eq!(names[4..], ["run x\\u{1b}", "serve", "init", "mount"]);
        assert_eq!(all[4]["args"]["failed"], "init: mount /a\\n\"b");
        assert_eq!((all[4]["ts"].as_f64(), all[4]["dur"].as_f64()), (Some(1.0), Some(8.0)));
        assert_eq!(all[6]["args"]["unfinished"], "true");
        assert_eq!((all[6]["dur"].as_f64(), all[6]["pid"].as_u64()), (Some(6.5), Some(11)));
        assert_eq!(all[7]["args"]["path"], "/a\\n\"b");
    }
}
