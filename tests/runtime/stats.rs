//! `stats`: the figures of all containers. Those that need controllers are in
//! tests/limits/stats.rs.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Container, Tare, Terminal, args};

fn waiting(tare: &Tare) -> Container {
    Container::under(tare, |config| args(config, &["wait"]))
}

#[test]
fn the_table_has_a_line_for_each_that_has_not_ended() {
    let tare = Tare::new();
    let (a, b, c) = (waiting(&tare), waiting(&tare), waiting(&tare));
    let _output = a.started();
    let _created = b.create();
    let mut ended = c.create();
    c.kill("KILL").ok();
    c.ended(&mut ended);
    // not a terminal: printed once without being told
    let output = tare.command(["stats"]).run().ok();
    let rows: Vec<Vec<&str>> =
        output.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{output:#?}");
    assert_eq!(rows[0][..3], ["ID", "STATUS", "CPU"]);
    for (container, status) in [(&a, "running"), (&b, "created")] {
        let row = rows.iter().find(|row| row[0] == container.id).unwrap();
        assert_eq!(row[1], status);
        assert!(row[2].parse::<f64>().unwrap() >= 0.0, "{row:?}");
        // what is not counted here is not 0
        let counted = container.cgroup().join("memory.current").exists();
        assert_eq!(row[3] == "-", !counted, "{row:?}");
    }
}

#[test]
fn without_containers_there_is_the_head_alone() {
    let tare = Tare::new();
    assert_eq!(tare.command(["stats", "--no-stream"]).run().ok().stdout.lines().count(), 1);
    assert_eq!(tare.command(["stats", "--format", "json"]).run().ok().stdout, "[]\n");
}

#[test]
fn those_that_are_named_are_shown_or_missed() {
    let tare = Tare::new();
    let (a, b) = (waiting(&tare), waiting(&tare));
    let _outputs = (a.started(), b.create());
    let output = tare.command(["stats", "--format", "json", &b.id]).run().ok();
    let all = output.json();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert_eq!((&all[0]["id"], &all[0]["status"]), (&Value::from(&*b.id), &"created".into()));
    assert_eq!(all[0]["pid"], b.pid());
    assert!(all[0]["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{all}");
    tare.command(["stats", &a.id, "nobody"]).run().fails_with(&["nobody", "does not exist"]);
    a.kill("KILL").ok();
    a.delete_by_force();
    tare.command(["stats", "--interval=0"]).run().fails_with(&["--interval=0"]);
}

#[test]
fn a_container_that_has_ended_is_refused_by_name() {
    let c = waiting(&Tare::new());
    let mut output = c.create();
    c.kill("KILL").ok();
    c.ended(&mut output);
    c.on_id("stats", &[], &[]).run().fails_with(&[&c.id, "container not running"]);
}

#[test]
fn openmetrics_is_well_formed() {
    let tare = Tare::new();
    let (a, b) = (waiting(&tare), waiting(&tare));
    let _outputs = (a.started(), b.started());
    let text = tare.command(["stats", "--format", "openmetrics"]).run().ok().stdout;
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let (mut family, mut kind) = ("", "");
    let mut families = BTreeSet::new();
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(family), "{family} twice");
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.starts_with(&format!("{family} ")), "{line}");
        } else {
            let suffix = [("counter", "_total{"), ("gauge", "{"), ("info", "_info{")];
            let suffix = suffix.iter().find(|(name, _)| *name == kind).unwrap().1;
            let rest = line.strip_prefix(family).and_then(|rest| rest.strip_prefix(suffix));
            let (labels, value) =
                rest.unwrap_or_else(|| panic!("{line}")).split_once("} ").unwrap();
            assert!(labels.starts_with("id=\""), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for container in [&a, &b] {
        let cpu = format!("\ntare_cpu_usage_seconds_total{{id=\"{}\"}} ", container.id);
        assert_eq!(text.matches(&cpu).count(), 1, "{text}");
        let info =
            format!("\ntare_container_info{{id=\"{}\",status=\"running\"}} 1\n", container.id);
        assert_eq!(text.matches(&info).count(), 1, "{text}");
    }
}

#[test]
fn on_a_terminal_the_table_is_drawn_again_until_ctrl_c() {
    let tare = Tare::new();
    let c = waiting(&tare);
    let _output = c.started();
    let mut terminal = Terminal::new(24, 200);
    let stats = terminal.attach(tare.command(["stats", "--interval", "20ms"])).spawn();
    for _ in 0..3 {
        assert!(terminal.output.line().contains("\x1b[HID  "), "no new table");
        assert!(terminal.output.line().contains(&c.id));
    }
    terminal.type_in("\x03");
    stats.wait().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn on_a_narrow_terminal_lines_are_cut() {
    let tare = Tare::new();
    let c = waiting(&tare);
    let _output = c.started();
    let mut terminal = Terminal::new(24, 10);
    let stats = terminal.attach(tare.command(["stats", "--interval", "1h", &c.id])).spawn();
    assert_eq!(
        terminal.output.line().chars().filter(|c| !c.is_control()).count(),
        10 + "[H[K".len()
    );
    assert_eq!(terminal.output.line(), format!("{}\x1b[K", &c.id[..10]));
    stats.signal(nix::sys::signal::Signal::SIGTERM);
    stats.wait().ok();
}

#[test]
fn state_and_list_read_one_file_of_a_cgroup() {
    let c = waiting(&Tare::new());
    let _output = c.started();
    let trace = c.bundle.path().join("trace");
    let words = ["-e", "trace=openat", "-o", trace.to_str().unwrap()];
    let cgroup = c.cgroup();
    for command in [&["state", &c.id][..], &["list"]] {
        c.tare.command(command).through("strace".as_ref(), &words).run().ok();
        let trace = std::fs::read_to_string(&trace).unwrap();
        let of_cgroup = |line: &&str| line.contains(cgroup.to_str().unwrap());
        let opened: Vec<&str> = trace.lines().filter(of_cgroup).collect();
        // to tell a container that is paused, by whomever
        assert_eq!(opened.len(), 1, "{command:?}: {opened:#?}");
        assert!(opened[0].contains("/cgroup.freeze\""), "{command:?}: {opened:#?}");
    }
}
