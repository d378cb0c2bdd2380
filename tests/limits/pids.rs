//! pids.max.

use serde_json::json;

use crate::{figure, limited};

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_fork_bomb_stops_at_the_limit() {
    let container = limited(json!({"pids": {"limit": 8}}), &["fork-until-denied", "100"]);
    // init is one of the eight
    assert_eq!(container.json(), json!({"made": 7, "denied": "EAGAIN"}));
    container.assert_gone();
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn without_a_limit_it_does_not() {
    let container = limited(json!({"pids": {"limit": -1}}), &["fork-until-denied", "100"]);
    assert_eq!(container.json(), json!({"made": 100, "denied": "never"}));
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_kernel_counts_the_refusals() {
    let words = ["each", "fork-until-denied 100", "wait"];
    let container = limited(json!({"pids": {"limit": 8}}), &words);
    let _output = container.started();
    assert!(figure(&container, "pids.events", "max") >= 1);
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn a_limit_of_one_runs_a_program_alone() {
    let container = limited(json!({"pids": {"limit": 1}}), &["fork-until-denied", "5"]);
    assert_eq!(container.json(), json!({"made": 0, "denied": "EAGAIN"}));
}
