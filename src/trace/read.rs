//! A trace from a file, in lanes: `--trace`'s own, or any in the same format.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result, Step, one_line};

/// Most bars of a drawing: it would take a browser minutes to show more.
const MOST_BARS: usize = 20_000;

/// The largest time, in microseconds: thirty years.
const LARGEST: f64 = 1e15;

/// By how much, in microseconds, a step may be over the one around it: what
/// rounding does to large numbers.
const ROUNDING: f64 = 0.002;

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    name: String,
    ph: String,
    ts: Option<f64>,
    dur: Option<f64>,
    pid: Option<Value>,
    tid: Option<Value>,
    #[serde(default)]
    args: BTreeMap<String, Value>,
}

/// The other form of the format.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wrapped {
    trace_events: Vec<Event>,
}

/// What a trace tells.
#[derive(Debug)]
pub struct Recording {
    /// By the time of their first step.
    pub(super) lanes: Vec<Lane>,
    /// Microseconds from the first step's begin to the last one's end.
    pub(super) length: f64,
    /// Events that are neither steps nor moments.
    pub(super) others: usize,
}

/// A thread of a process.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    /// By the time of their begin, what is around others first.
    pub(super) bars: Vec<Bar>,
}

/// A step, or a moment.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    /// Microseconds since the trace's begin.
    pub(super) start: f64,
    /// Microseconds; `None` for a moment.
    pub(super) length: Option<f64>,
    /// How many steps are around it.
    pub(super) depth: usize,
    /// There are steps inside.
    pub(super) has_parts: bool,
    pub(super) has_failed: bool,
    /// What else is known of it: keys and values.
    pub(super) args: Vec<(String, String)>,
}

/// Reads the text of a trace.
///
/// # Errors
/// It is none; a time that makes no sense, by the event's number; too many events.
pub fn parse(text: &[u8]) -> Result<Recording> {
    let is_array = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let events: Vec<Event> = match is_array {
        true => crate::json::parse(text),
        false => crate::json::parse::<Wrapped>(text).map(|wrapped| wrapped.trace_events),
    }
    .step(|| "is no trace of events")?;
    let mut names: HashMap<String, String> = HashMap::new();
    let mut lanes: Vec<((String, String), Vec<Bar>)> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let (mut others, mut bars) = (0, 0);
    for (index, event) in events.into_iter().enumerate() {
        let key = (word(event.pid.as_ref()), word(event.tid.as_ref()));
        if event.ph == "M" {
            if let ("process_name", Some(name)) = (event.name.as_str(), event.args.get("name")) {
                names.insert(key.0, word(Some(name)));
            }
            continue;
        }
        let Some(bar) = bar(event).step(|| format!("event {index}"))? else {
            others += 1;
            continue;
        };
        bars += 1;
        if bars > MOST_BARS {
            return Err(Error::invalid(format!("has more than {MOST_BARS} steps to draw")));
        }
        let at = *places.entry(key.clone()).or_insert(lanes.len());
        match lanes.get_mut(at) {
            Some((_, bars)) => bars.push(bar),
            None => lanes.push((key, vec![bar])),
        }
    }
    if lanes.is_empty() {
        return Err(Error::invalid("has no step in it"));
    }
    let lanes = lanes
        .into_iter()
        .map(|((pid, tid), bars)| Lane { name: lane_name(names.get(&pid), &pid, &tid), bars });
    Ok(Recording::of(lanes.collect(), others))
}

/// A step or a moment; `None` for anything else.
fn bar(event: Event) -> Result<Option<Bar>> {
    let is_moment = match event.ph.as_str() {
        "X" => false,
        "i" | "I" => true,
        _ => return Ok(None),
    };
    let time = |name: &str, value: Option<f64>| {
        let value = value.ok_or_else(|| Error::invalid(format!("{name}: is missing")))?;
        match value.abs() < LARGEST {
            true => Ok(value),
            false => Err(Error::invalid(format!("{name}: {value:e} is out of range"))),
        }
    };
    let start = time("ts", event.ts)?;
    let length = if is_moment { None } else { Some(time("dur", event.dur)?) };
    if let Some(length) = length.filter(|length| *length < 0.0) {
        return Err(Error::invalid(format!("dur: {length} is no duration")));
    }
    let has_failed = ["failed", "error"].iter().any(|key| event.args.contains_key(*key));
    let args = event.args.iter().map(|(key, value)| (one_line(key), word(Some(value)))).collect();
    let name = one_line(&event.name);
    let bar = Bar { name, start, length, depth: 0, has_parts: false, has_failed, args };
    Ok(Some(bar))
}

/// A value as people write it.
fn word(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => one_line(text),
        Some(other) => one_line(&other.to_string()),
    }
}

fn lane_name(name: Option<&String>, pid: &str, tid: &str) -> String {
    let thread = if tid == pid { String::new() } else { format!(", thread {tid}") };
    match name {
        Some(name) => format!("{name} (process {pid}{thread})"),
        None => format!("process {pid}{thread}"),
    }
}

impl Recording {
    fn of(mut lanes: Vec<Lane>, others: usize) -> Self {
        let all = || lanes.iter().flat_map(|lane| &lane.bars);
        let first = all().map(|bar| bar.start).fold(f64::INFINITY, f64::min);
        let last = all().map(Bar::end).fold(f64::NEG_INFINITY, f64::max);
        for lane in &mut lanes {
            lane.bars.iter_mut().for_each(|bar| bar.start -= first);
            lane.nest();
        }
        let begin = |lane: &Lane| lane.bars.first().map_or(0.0, |bar| bar.start);
        lanes.sort_by(|a, b| begin(a).total_cmp(&begin(b)));
        Recording { lanes, length: last - first, others }
    }
}

impl Lane {
    /// Puts the bars in order, and finds out which are inside which.
    fn nest(&mut self) {
        self.bars.sort_by(|a, b| match a.start.total_cmp(&b.start) {
            Ordering::Equal => b.end().total_cmp(&a.end()),
            order => order,
        });
        // those around the present one: index and end
        let mut around: Vec<(usize, f64)> = Vec::new();
        let mut parents = Vec::new();
        for (index, bar) in self.bars.iter_mut().enumerate() {
            // what only reaches into it is not around it
            let is_over = |end: f64| end < bar.end() - ROUNDING || end <= bar.start;
            while around.last().is_some_and(|(_, end)| is_over(*end)) {
                around.pop();
            }
            bar.depth = around.len();
            if bar.length.is_some() {
                parents.extend(around.last().map(|(parent, _)| *parent));
                around.push((index, bar.end()));
            }
        }
        for parent in parents {
            if let Some(bar) = self.bars.get_mut(parent) {
                bar.has_parts = true;
            }
        }
    }
}

impl Bar {
    pub(super) fn end(&self) -> f64 {
        self.start + self.length.unwrap_or(0.0)
    }

    /// Its name and what it was done to, in at most `most` characters.
    pub(super) fn title(&self, most: usize) -> String {
        let is_about = |(key, _): &&(String, String)| {
            !["failed", "unfinished", "version", "lost"].contains(&key.as_str())
        };
        let about: Vec<&str> =
            self.args.iter().filter(is_about).map(|(_, value)| value.as_str()).collect();
        let whole = format!("{} {}", self.name, about.join(" "));
        let whole = whole.trim();
        match whole.chars().nth(most) {
            None => whole.to_owned(),
            Some(_) => whole.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        }
    }

    /// Its duration; empty for a moment.
    pub(super) fn took(&self) -> String {
        self.length.map(duration).unwrap_or_default()
    }
}

/// Microseconds in the unit that fits.
pub(super) fn duration(microseconds: f64) -> String {
    match microseconds {
        us if us < 99.95 => format!("{us:.1} µs"),
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 999_995.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn steps_are_nested_by_time_in_the_lane_of_their_process() {
        let trace = parse(
            br#"{"traceEvents": [
                {"name": "b", "ph": "X", "ts": 12, "dur": 3, "pid": 1, "tid": 1},
                {"name": "a", "ph": "X", "ts": 10, "dur": 10, "pid": 1, "tid": 1},
                {"name": "c", "ph": "X", "ts": 15, "dur": 9, "pid": 1, "tid": 1},
                {"name": "m", "ph": "i", "ts": 13, "pid": 1, "tid": 1, "args": {"error": 5}},
                {"name": "n", "ph": "M", "pid": 2, "args": {"name": "x"}},
                {"name": "process_name", "ph": "M", "pid": 2, "args": {"name": "init"}},
                {"name": "d", "ph": "X", "ts": 11, "dur": 1e0, "pid": 2, "tid": "2"},
                {"name": "counter", "ph": "C", "ts": 1, "pid": 2}
            ]}"#,
        )
        .unwrap();
        assert_eq!((trace.length, trace.others), (14.0, 1));
        let names: Vec<_> = trace.lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(names, ["process 1", "init (process 2)"]);
        let bars: Vec<_> = trace.lanes[0].bars.iter().map(|b| (b.name.as_str(), b.depth)).collect();
        assert_eq!(bars, [("a", 0), ("b", 1), ("m", 2), ("c", 0)]);
        let bars = &trace.lanes[0].bars;
        assert!(bars[0].has_parts && !bars[1].has_parts && bars[2].has_failed);
    }

    #[test]
    fn what_is_no_trace_is_refused_in_a_line() {
        for text in ["", "no", "7", "{}", "null", "[1]", "[{}]", "[{\"ph\":1}]", "[[[[", "[]x"] {
            assert!(message(text).starts_with("is no trace of events: "), "{text}");
        }
        assert_eq!(message("[]"), "has no step in it");
        assert_eq!(message(r#"[{"ph":"X","ts":1}]"#), "event 0: dur: is missing");
        let bar =
            |ts: &str, dur: &str| message(&format!(r#"[{{"ph":"X","ts":{ts},"dur":{dur}}}]"#));
        assert_eq!(bar("1", "-5"), "event 0: dur: -5 is no duration");
        assert_eq!(bar("-1e300", "1"), "event 0: ts: -1e300 is out of range");
        assert_eq!(bar("1", "1e15"), "event 0: dur: 1e15 is out of range");
        assert!(bar("1e999", "1").starts_with("is no trace of events: "));
        assert!(message(&"[".repeat(100_000)).starts_with("is no trace of events: "));
        let many = r#"{"ph":"X","ts":1,"dur":1},"#.repeat(MOST_BARS + 1);
        let many = format!("[{}]", many.trim_end_matches(','));
        assert_eq!(message(&many), "has more than 20000 steps to draw");
    }

    #[test]
    fn durations_have_a_unit_that_fits() {
        for (us, text) in [
            (0.0, "0.0 µs"),
            (99.94, "99.9 µs"),
            (99.96, "100 µs"),
            (1234.0, "1.23 ms"),
            (999_996.0, "1.00 s"),
        ] {
            assert_eq!(duration(us), text);
        }
    }
}
