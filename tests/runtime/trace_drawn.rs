//! `tare trace`: what `--trace` has written, as a picture or as lines.

use serde_json::{Value, json};

use crate::support::{Container, Tare, args, temp_dir};
use crate::trace::Traced;

#[test]
fn a_trace_is_drawn_with_a_bar_for_each_step() {
    let traced = Traced::new();
    let c = Container::under(&traced.tare, |config| args(config, &["exit", "0"]));
    c.run().ok();
    let trace = traced.read();
    let picture = traced.file.with_extension("svg");
    let words = ["trace", traced.file.to_str().unwrap(), "--output", picture.to_str().unwrap()];
    let tare = Tare::new();
    tare.command(words).run().ok();
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert_well_formed(&svg);
    assert_eq!(svg.matches("<title>").count(), trace.steps().count());
    for text in ["mount /proc", "init (process ", "wait for execve", "prefers-color-scheme:dark"] {
        assert!(svg.contains(text), "{text} is not in {svg}");
    }
    assert!(!svg.contains("<script"));
    assert_eq!(tare.command(&words[..2]).run().ok().stdout, svg);
    let text = tare.command([&words[..2], &["--format", "text"]].concat()).run().ok().stdout;
    let processes = 2;
    assert_eq!(text.lines().count(), trace.steps().count() + processes, "{text}");
    assert!(text.contains("      mount /proc\n"), "{text}");
}

#[test]
fn a_picture_of_hostile_names_is_well_formed() {
    let dir = temp_dir();
    let file = dir.path().join("trace.json");
    let names = ["</svg><script>", "a&b;\"'", "\u{0}\u{7}\u{1b}[1m", "]]>", "\u{fffe}", "", "é\n"];
    let events: Vec<Value> = names
        .iter()
        .map(|name| {
            let args = json!({*name: name, "n": {"deep": [1, null]}});
            json!({"name": name, "ph": "X", "ts": 1e14, "dur": 1e-9, "pid": name, "args": args})
        })
        .collect();
    std::fs::write(&file, json!(events).to_string()).unwrap();
    let tare = Tare::new();
    let svg = tare.command(["trace", file.to_str().unwrap()]).run().ok().stdout;
    assert_well_formed(&svg);
    assert_eq!(svg.matches("<title>").count(), names.len());
    // ten megabytes are either drawn or refused in a line
    let event = |n: usize| json!({"name": "x".repeat(700), "ph": "X", "ts": n, "dur": 5, "pid": 1});
    std::fs::write(&file, json!((0..15_000).map(event).collect::<Vec<_>>()).to_string()).unwrap();
    let svg = tare.command(["trace", file.to_str().unwrap()]).run().ok().stdout;
    assert_eq!(svg.matches("<title>").count(), 15_000);
    std::fs::write(&file, "[".repeat(33 << 20)).unwrap();
    let path = file.to_str().unwrap();
    tare.command(["trace", path]).run().fails_with(&[&format!("trace {path}: "), "32 MiB"]);
}

#[test]
fn what_is_no_trace_is_refused_in_a_line() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    let path = file.to_str().unwrap();
    let tare = Tare::new();
    tare.command(["trace", path]).run().fails_with(&["no such file or directory"]);
    for text in ["", "hello", "{}", "[]", "[1]", "{\"traceEvents\":7}", "\u{7f}ELF"] {
        std::fs::write(&file, text).unwrap();
        tare.command(["trace", path]).run().fails_with(&[&format!("tare: trace {path}: ")]);
    }
    std::fs::write(&file, r#"[{"ph":"X","ts":1,"dur":-1}]"#).unwrap();
    tare.command(["trace", path]).run().fails_with(&["event 0: dur: -1 is no duration"]);
    std::fs::write(&file, r#"[{"ph":"X","ts":1,"dur":1}]"#).unwrap();
    let output = tare.command(["trace", path, "--output", "/no/such/place"]).run();
    output.fails_with(&["--output /no/such/place: no such file or directory"]);
}

/// Tags that are closed in order, attributes in quotes, no character that XML does
/// not have (XML 1.0, 2.2 and 3.1).
#[track_caller]
fn assert_well_formed(xml: &str) {
    let is_allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(xml.chars().all(is_allowed));
    let mut open: Vec<&str> = Vec::new();
    for part in xml.trim_end().split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("no end: {part}"));
        assert!(!text.contains("]]>"), "{text}");
        for reference in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
            let is_one = |name: &&str| reference.starts_with(name);
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(is_one), "&{reference}");
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
