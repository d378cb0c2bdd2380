//! Commands about all containers: what one more of them costs, in system calls.

use serde_json::Value;

use crate::support::{Container, Tare, args, temp_dir};

const FEW: usize = 2;
const MORE: usize = 12;

/// System calls of a command.
fn calls(tare: &Tare, words: &[&str]) -> usize {
    let dir = temp_dir();
    let trace = dir.path().join("trace");
    let strace = ["-o", trace.to_str().unwrap()];
    tare.command(words).through("strace".as_ref(), &strace).run().ok();
    let text = std::fs::read_to_string(trace).unwrap();
    // before a close, the standard library of a debug build looks whether it is open
    let is_call = |line: &&str| line.contains('(') && !line.contains("F_GETFD");
    text.lines().filter(is_call).count()
}

#[test]
fn one_more_container_costs_a_few_calls() {
    let tare = Tare::new();
    let waiting = || Container::under(&tare, |config| args(config, &["sleep-forever"]));
    let create = |number: usize| -> Vec<Container> {
        let all: Vec<_> = (0..number).map(|_| waiting()).collect();
        for container in &all {
            let _output = container.create();
        }
        all
    };
    let commands: [(&[&str], usize); 6] = [
        // its directory, its record, its process, its socket, its cgroup's state
        (&["list"], 14),
        (&["list", "--format", "json"], 14),
        // its directory, and whether there is a record
        (&["list", "--quiet"], 3),
        // as above, and three calls for each file of figures
        (&["stats", "--no-stream"], 60),
        (&["stats", "--format", "json"], 60),
        (&["stats", "--format", "openmetrics"], 60),
    ];
    let few = create(FEW);
    let before: Vec<usize> = commands.iter().map(|(words, _)| calls(&tare, words)).collect();
    let more = create(MORE);
    for ((words, most), before) in commands.iter().zip(before) {
        let grown = calls(&tare, words) - before;
        assert!(grown <= most * MORE, "{words:?}: {grown} calls for {MORE} more containers");
    }
    let listed: Value = tare.command(["list", "--format", "json"]).run().ok().json();
    let mut ids: Vec<&str> = few.iter().chain(&more).map(|c| c.id.as_str()).collect();
    ids.sort_unstable();
    let found = listed.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap());
    assert_eq!(found.collect::<Vec<_>>(), ids);
    let quiet = tare.command(["list", "--quiet"]).run().ok().stdout;
    assert_eq!(quiet.lines().collect::<Vec<_>>(), ids);
}
