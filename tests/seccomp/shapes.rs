//! Small profiles, each for one thing that can be got wrong.

use oci_spec::runtime::Arch;
use serde_json::{Value, json};

use tare::spec::SeccompPlan;

use super::interpreter::{Call, run};
use super::{compare, compare_at, oracle, profile};

const EDGES: [u64; 12] = [
    0,
    1,
    2,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Each edge as first and as second argument.
fn edges() -> Vec<[u64; 6]> {
    let mut all = Vec::new();
    for first in EDGES {
        for second in [0, 1, 0xffff_ffff, 0x1_0000_0001] {
            all.push([first, second, 0, 0, 0, first]);
        }
    }
    all
}

fn both(value: Value) {
    compare(&profile(value), &edges());
}

/// All architectures that both know.
fn everywhere() -> Vec<Arch> {
    oracle::ARCHITECTURES.iter().map(|(arch, _)| *arch).collect()
}

#[test]
fn tables_are_those_of_libseccomp() {
    let mut wrong = Vec::new();
    for (arch, audit) in oracle::ARCHITECTURES {
        for number in (0..600).chain(0x4000_0000..0x4000_0300).chain(0x0f_0000..0x0f_0010) {
            let Some(name) = oracle::name(number, arch) else { continue };
            // libseccomp gives the names of x32 without the bit as well
            if arch == Arch::ScmpArchX32 && number < 0x4000_0000 {
                continue;
            }
            let one = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": [arch],
                "syscalls": [{"names": [name], "action": "SCMP_ACT_TRAP"}],
            });
            let ours = SeccompPlan::resolve(&profile(one)).unwrap().program;
            let call = Call { arch: audit, number, args: [0; 6] };
            if run(&ours, &call) != 0x0003_0000 {
                wrong.push(format!("{arch:?} {number} {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_operator_at_its_edges() {
    // Linux has the call under a number of its own on each of them
    let numbers: Vec<u32> =
        everywhere().iter().filter_map(|a| oracle::number("personality", *a)).collect();
    for op in ["NE", "LT", "LE", "EQ", "GE", "GT"] {
        for value in EDGES {
            let one = json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": everywhere(),
                "syscalls": [{
                    "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": value, "op": format!("SCMP_CMP_{op}")}],
                }],
            });
            compare_at(&profile(one), &edges(), numbers.iter().copied());
        }
    }
}

#[test]
fn masks_of_one_word_and_of_both() {
    let numbers: Vec<u32> =
        everywhere().iter().filter_map(|a| oracle::number("clone", *a)).collect();
    for (mask, value) in [
        (0x7e02_0000_u64, 0_u64),
        (1, 1),
        (0xffff_ffff, 0xffff_ffff),
        (0x8000_0000_0000_0001, 1),
        (0x8000_0000_0000_0001, 0x8000_0000_0000_0000),
        (u64::MAX, 0x1_0000_0001),
        (0, 0),
    ] {
        let one = json!({
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "architectures": everywhere(),
            "syscalls": [{
                "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{
                    "index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ",
                }],
            }],
        });
        compare_at(&profile(one), &edges(), numbers.iter().copied());
    }
}

#[test]
fn every_action_as_the_default_and_as_a_rule() {
    let actions = ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG"];
    for default in actions {
        let rules: Vec<Value> = actions
            .iter()
            .zip(["mkdir", "rmdir", "read", "getpid", "openat", "clone3", "write", "close"])
            .map(|(action, call)| json!({"names": [call], "action": format!("SCMP_ACT_{action}")}))
            .collect();
        both(json!({
            "defaultAction": format!("SCMP_ACT_{default}"),
            "syscalls": rules,
            "architectures": ["SCMP_ARCH_X86"],
        }));
    }
}

#[test]
fn numbers_of_errno_and_trace() {
    both(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4094},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
            {"names": ["rename"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
            {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
        ],
    }));
}

#[test]
fn conditions_of_one_rule_all_hold_and_rules_are_alternatives() {
    let arg = |index: u32, value: u64, op: &str| json!({"index": index, "value": value, "op": format!("SCMP_CMP_{op}")});
    for args in [
        json!([arg(0, 1, "EQ"), arg(1, 1, "EQ")]),
        json!([arg(0, 0x1_0000_0000, "GT"), arg(1, 0, "NE"), arg(5, 0xffff_ffff, "LE")]),
        // the same argument twice: either
        json!([arg(0, 1, "EQ"), arg(0, 2, "EQ")]),
        json!([arg(0, 1, "LE"), arg(0, 0x7fff_ffff, "GT"), arg(1, 1, "EQ")]),
    ] {
        both(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["prctl"], "action": "SCMP_ACT_ALLOW", "args": args},
                {"names": ["prctl"], "action": "SCMP_ACT_ALLOW", "args": [arg(1, 0xffff_ffff, "EQ")]},
            ],
        }));
    }
}

#[test]
fn a_rule_without_conditions_beats_those_with_some() {
    let whole = json!({"names": ["prctl"], "action": "SCMP_ACT_ALLOW"});
    let part = json!({
        "names": ["prctl"], "action": "SCMP_ACT_LOG",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
    });
    for rules in [json!([whole, part]), json!([part, whole])] {
        both(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    }
}

#[test]
fn what_the_default_does_anyway_is_no_rule() {
    both(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["prctl"], "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["prctl"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }));
}

#[test]
fn of_two_rules_for_a_whole_call_the_first_counts() {
    both(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["prctl"], "action": "SCMP_ACT_LOG"},
            {"names": ["prctl"], "action": "SCMP_ACT_KILL"},
        ],
    }));
}

#[test]
fn calls_that_nobody_knows_are_left_out() {
    both(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["fly", "read", "Read", "READ "], "action": "SCMP_ACT_ALLOW"}],
    }));
    both(json!({"defaultAction": "SCMP_ACT_ERRNO"}));
    both(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    both(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["fly"], "action": "SCMP_ACT_ALLOW"}],
    }));
}

#[test]
fn sockets_and_ipc_of_x86_by_both_of_their_ways() {
    both(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{
            "names": ["socket", "accept", "send", "sendmsg", "shmget", "semop", "msgctl"],
            "action": "SCMP_ACT_ALLOW",
        }],
    }));
}

#[test]
fn conditions_out_of_reach_make_a_rule_hold_for_all_or_none() {
    // socketcall(SYS_SOCKET, pointer), and bind beside it
    let (socket, bind) = ([1, 0xbfff_0000, 0, 0, 0, 0], [2, 0xbfff_0000, 0, 0, 0, 0]);
    let answers = |default: &str, action: &str| {
        let one = json!({
            "defaultAction": default,
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{
                "names": ["socket"], "action": action,
                "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}],
            }],
        });
        let program = SeccompPlan::resolve(&profile(one)).unwrap().program;
        [socket, bind].map(|args| run(&program, &Call { arch: 0x4000_0003, number: 102, args }))
    };
    let (allow, eperm) = (0x7fff_0000, 0x0005_0001);
    assert_eq!(answers("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"), [eperm, allow]);
    assert_eq!(answers("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"), [eperm, eperm]);
}

#[test]
fn more_than_the_kernel_takes_is_refused() {
    let rules: Vec<Value> = (0..1500)
        .map(|n| {
            let args = [
                json!({"index": 0, "value": n, "op": "SCMP_CMP_EQ"}),
                json!({"index": 1, "value": n, "op": "SCMP_CMP_EQ"}),
            ];
            json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args})
        })
        .collect();
    let one = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    let error = SeccompPlan::resolve(&profile(one)).unwrap_err().to_string();
    assert!(error.starts_with("linux.seccomp: needs "), "{error}");
    assert!(error.ends_with("and the kernel takes 4096"), "{error}");
}

#[test]
fn an_architecture_without_a_table_is_left_out() {
    let one = |architectures: Value| {
        let one = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": architectures,
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}],
        });
        SeccompPlan::resolve(&profile(one)).unwrap().program
    };
    assert_eq!(one(json!(["SCMP_ARCH_PARISC", "SCMP_ARCH_S390"])), one(json!([])));
}

#[test]
fn words_of_a_big_endian_machine_are_the_other_way_round() {
    // libseccomp can't mix them with this machine's
    let one = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_S390X"],
        "syscalls": [{
            "names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 0x1_0000_0002_u64, "op": "SCMP_CMP_EQ"}],
        }],
    });
    let program = SeccompPlan::resolve(&profile(one)).unwrap().program;
    let answer = |first: u64| {
        let call = Call { arch: 0x8000_0016, number: 3, args: [first, 0, 0, 0, 0, 0] };
        run(&program, &call)
    };
    // as the interpreter lays the words out, the high one is the second
    assert_eq!(answer(0x2_0000_0001), 0x0005_0001);
    assert_eq!(answer(0x1_0000_0002), 0x7fff_0000);
}
