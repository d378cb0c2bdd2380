//! `exec` into cgroups with limits, and into those that take no process.

use serde_json::{Value, json};

use crate::{MIB, limited};

fn cgroup_of(report: &Value) -> String {
    let lines = report["cgroup"].as_array().unwrap();
    let own = lines.iter().find_map(|line| line.as_str().unwrap().strip_prefix("0::"));
    own.unwrap().to_owned()
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn the_limits_hold_for_it() {
    let container = limited(json!({"pids": {"limit": 4}}), &["wait"]);
    let _output = container.started();
    let output = container.exec(&[], &["fork-until-denied", "100"]).run().ok();
    assert_eq!(output.json(), json!({"made": 2, "denied": "EAGAIN"}));
    let container = limited(json!({"pids": {"limit": 1}}), &["wait"]);
    let _output = container.started();
    let refusal = container.exec(&[], &["exit", "0"]).run();
    refusal.fails_with_code(255, &["clone3", "pids.max"]);
    let memory = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    let container = limited(memory, &["wait"]);
    let _output = container.started();
    let words = ["alloc", &(64 * MIB).to_string()];
    container.exec(&[], &words).run().ends_with_code(137);
    assert_eq!(container.status(), "running");
}

#[test]
#[ignore = "needs the controllers: integration/test"]
fn where_the_top_takes_no_process_it_goes_to_that_of_init() {
    let container = limited(json!({"pids": {"limit": 9}}), &["wait"]);
    let _output = container.started();
    // as a service manager in the container does it
    let top = container.cgroup();
    std::fs::create_dir(top.join("init.scope")).unwrap();
    std::fs::create_dir(top.join("other")).unwrap();
    std::fs::write(top.join("init.scope/cgroup.procs"), container.pid().to_string()).unwrap();
    std::fs::write(top.join("cgroup.subtree_control"), "+pids").unwrap();
    assert_eq!(cgroup_of(&container.exec_report(&[])), "/init.scope");
    assert_eq!(cgroup_of(&container.exec_report(&["--cgroup", "/other"])), "/other");
    let output = container.exec(&["--cgroup", "/"], &["exit", "0"]).run();
    output.fails_with_code(255, &["clone3", "controllers enabled for its children"]);
    container.delete_by_force().ok();
    container.assert_gone();
}
