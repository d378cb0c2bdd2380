//! A profile like those of engines.

use serde_json::json;
use tare::spec::SeccompPlan;

use super::engine_profile::engine_profile;
use super::{compare, compare_at, oracle, profile};

/// Where a condition of the profile begins and ends.
const ARGUMENTS: [u64; 15] = [
    0,
    8,
    9,
    37,
    38,
    39,
    40,
    41,
    0x2_0000,
    0x2_0008,
    0x0202_0000,
    0x7e02_0000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX,
];

fn arguments() -> Vec<[u64; 6]> {
    ARGUMENTS.iter().map(|first| [*first, 0, 0, 0, 0, 0]).collect()
}

#[test]
fn on_the_architectures_of_x86_64() {
    let all = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    compare(&profile(engine_profile(&all)), &arguments());
}

#[test]
fn on_the_native_architecture_alone() {
    compare(&profile(engine_profile(&[])), &arguments());
}

#[test]
fn on_those_of_others() {
    let all = ["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_RISCV64"];
    compare(&profile(engine_profile(&all)), &arguments());
}

#[test]
fn the_program_is_small() {
    let all = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let profile = profile(engine_profile(&all));
    let start = std::time::Instant::now();
    let ours = SeccompPlan::resolve(&profile).unwrap().program;
    let our_time = start.elapsed();
    let start = std::time::Instant::now();
    let theirs = oracle::export(&oracle::filter(&profile));
    println!(
        "tare: {} instructions in {our_time:?}; libseccomp: {} in {:?}",
        ours.len(),
        theirs.len(),
        start.elapsed()
    );
    assert!(ours.len() * 2 < theirs.len(), "{} and {}", ours.len(), theirs.len());
}

#[test]
fn the_same_profile_gives_the_same_program() {
    let one = profile(engine_profile(&["SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    let first = SeccompPlan::resolve(&one).unwrap().program;
    for _ in 0..5 {
        assert_eq!(SeccompPlan::resolve(&one).unwrap().program, first);
    }
}

#[test]
fn more_rules_than_a_short_jump_reaches_over() {
    // each call has conditions of its own, on both sides of the search
    let names = ["read", "mkdir", "prctl", "clone3", "personality", "getpid", "ioctl"];
    let rules: Vec<_> = (0..300_u64)
        .map(|n| {
            let name = names[usize::try_from(n).unwrap() % names.len()];
            json!({
                "names": [name], "action": "SCMP_ACT_ALLOW",
                "args": [
                    {"index": 0, "value": n, "op": "SCMP_CMP_EQ"},
                    {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"},
                ],
            })
        })
        .collect();
    let one = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    let arguments: Vec<[u64; 6]> =
        (0..302).flat_map(|n| [[n, 1, 0, 0, 0, 0], [n, 2, 0, 0, 0, 0]]).collect();
    let numbers =
        names.iter().filter_map(|n| oracle::number(n, oci_spec::runtime::Arch::ScmpArchX86_64));
    compare_at(&profile(one), &arguments, numbers.chain([1, 2, 300]));
}
