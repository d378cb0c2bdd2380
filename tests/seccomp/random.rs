//! Random profiles.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tare::spec::SeccompPlan;

use super::interpreter::{self, Call, run};
use super::{compare_at, numbers, oracle, profile};

const CALLS: [&str; 24] = [
    "read",
    "write",
    "open",
    "close",
    "stat",
    "mmap",
    "ioctl",
    "pipe",
    "dup",
    "getpid",
    "clone",
    "execve",
    "exit",
    "mkdir",
    "personality",
    "prctl",
    "openat",
    "preadv2",
    "rseq",
    "clone3",
    "futex_waitv",
    "time",
    "readv",
    "no_such_call",
];

const ARCHITECTURES: [&str; 5] =
    ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_RISCV64"];

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_KILL_THREAD",
];

/// Values that are near each other, so that conditions overlap.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        0xffff_fffe_u64..0x1_0000_0002,
        Just(0x8000_0000),
        Just(0x8000_0000_0000_0000),
        Just(u64::MAX),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let op = prop::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    (0_u32..3, op, value(), value()).prop_map(|(index, op, first, second)| {
        let mut arg = json!({"index": index, "value": first, "op": format!("SCMP_CMP_{op}")});
        if op == "MASKED_EQ" {
            // a value with bits beside the mask is never met
            arg["valueTwo"] = json!(first & second);
        }
        arg
    })
}

/// One rule for a call, with conditions on different arguments. With more of
/// them, or an argument twice, libseccomp mixes up conditions that overlap: then
/// the oracle is [`expected`].
fn simple(call: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let conditions = prop::collection::vec(condition(), 0..4);
    (conditions, prop::sample::select(ACTIONS.to_vec())).prop_map(move |(mut args, action)| {
        let mut seen = Vec::new();
        args.retain(|arg| {
            let is_first = !seen.contains(&arg["index"]);
            seen.push(arg["index"].clone());
            is_first
        });
        vec![json!({"names": [call], "action": action, "args": args})]
    })
}

/// Any rules for a call.
fn several(call: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let conditions = prop::collection::vec(condition(), 0..4);
    let rule = (conditions, prop::sample::select(ACTIONS.to_vec()))
        .prop_map(move |(args, action)| json!({"names": [call], "action": action, "args": args}));
    prop::collection::vec(rule, 1..5)
}

fn any_profile<S: Strategy<Value = Vec<Value>>>(
    rules: fn(&'static str) -> S,
) -> impl Strategy<Value = Value> {
    let calls = prop::sample::subsequence(CALLS.to_vec(), 0..CALLS.len());
    let rules = calls
        .prop_flat_map(move |calls| calls.into_iter().map(rules).collect::<Vec<_>>())
        .prop_map(|all| all.into_iter().flatten().collect::<Vec<Value>>());
    let architectures = prop::sample::subsequence(ARCHITECTURES.to_vec(), 0..ARCHITECTURES.len());
    let default = prop::sample::select(ACTIONS.to_vec());
    (default, architectures, rules).prop_map(|(default, architectures, mut rules)| {
        // where an architecture has one call with a rule, and that one conditions,
        // libseccomp 2.5 forgets to load the number
        let other = if default == "SCMP_ACT_TRACE" { "SCMP_ACT_LOG" } else { "SCMP_ACT_TRACE" };
        rules.push(json!({"names": ["fsync", "msync", "sync"], "action": other}));
        json!({"defaultAction": default, "architectures": architectures, "syscalls": rules})
    })
}

/// With `bits` of an argument that count.
fn holds(arg: &LinuxSeccompArg, args: &[u64; 6], bits: u64) -> bool {
    let (given, value) = (args[arg.index()] & bits, arg.value() & bits);
    match arg.op() {
        Operator::ScmpCmpNe => given != value,
        Operator::ScmpCmpLt => given < value,
        Operator::ScmpCmpLe => given <= value,
        Operator::ScmpCmpEq => given == value,
        Operator::ScmpCmpGe => given >= value,
        Operator::ScmpCmpGt => given > value,
        Operator::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap() & bits,
    }
}

/// What a profile means for a call of this name, word by word.
fn expected(profile: &LinuxSeccomp, name: &str, args: &[u64; 6], bits: u64) -> u32 {
    let default = profile.default_action().as_u32(None);
    let rules: Vec<&LinuxSyscall> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.names()[0] == name && rule.action().as_u32(None) != default)
        .collect();
    let given = |rule: &LinuxSyscall| rule.args().clone().unwrap_or_default();
    let whole = rules.iter().find(|rule| given(rule).is_empty());
    let fits = |rule: &&&LinuxSyscall| {
        let all = given(rule);
        let repeats = (0..6).any(|n| all.iter().filter(|arg| arg.index() == n).count() > 1);
        match repeats {
            true => all.iter().any(|arg| holds(arg, args, bits)),
            false => all.iter().all(|arg| holds(arg, args, bits)),
        }
    };
    let found = whole.or_else(|| rules.iter().find(fits));
    found.map_or(default, |rule| rule.action().as_u32(None))
}

fn arguments() -> impl Strategy<Value = Vec<[u64; 6]>> {
    let one = (value(), value(), value()).prop_map(|(a, b, c)| [a, b, c, 0, 0, 0]);
    prop::collection::vec(one, 12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn both_say_the_same(given in any_profile(simple), arguments in arguments()) {
        compare_at(&profile(given), &arguments, numbers());
    }

    #[test]
    fn overlapping_rules_mean_what_they_say(
        given in any_profile(several), arguments in arguments(),
    ) {
        let given = profile(given);
        let program = SeccompPlan::resolve(&given).unwrap().program;
        interpreter::check(&program);
        let mut all = given.architectures().clone().unwrap();
        all.push(Arch::ScmpArchX86_64);
        for (arch, audit) in oracle::ARCHITECTURES.into_iter().filter(|(a, _)| all.contains(a)) {
            let is_wide = audit & 0x8000_0000 != 0 && arch != Arch::ScmpArchX32;
            let bits = if is_wide { u64::MAX } else { 0xffff_ffff };
            for rule in given.syscalls().iter().flatten() {
                let name = &rule.names()[0];
                let Some(number) = oracle::number(name, arch) else { continue };
                for args in &arguments {
                    let call = Call { arch: audit, number, args: *args };
                    let expected = expected(&given, name, args, bits);
                    assert_eq!(run(&program, &call), expected, "{call:x?}");
                }
            }
        }
    }
}
