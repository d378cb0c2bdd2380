//! libseccomp's program for a profile, by the rules of runc.

use std::io::{Read, Seek};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use tare::sys::seccomp::Insn;

use super::libseccomp::{self, Comparison, Context};

/// The architectures that both know, with their AUDIT_ARCH_*.
pub const ARCHITECTURES: [(Arch, u32); 6] = [
    (Arch::ScmpArchX86_64, 0xc000_003e),
    (Arch::ScmpArchX86, 0x4000_0003),
    (Arch::ScmpArchX32, 0xc000_003e),
    (Arch::ScmpArchAarch64, 0xc000_00b7),
    (Arch::ScmpArchArm, 0x4000_0028),
    (Arch::ScmpArchRiscv64, 0xc000_00f3),
];

fn comparison(arg: &LinuxSeccompArg) -> Comparison {
    let (first, second) = match arg.op() {
        Operator::ScmpCmpMaskedEq => (arg.value(), arg.value_two().unwrap_or_default()),
        _ => (arg.value(), 0),
    };
    Comparison { argument: arg.index() as u32, operator: arg.op() as i32, first, second }
}

/// The alternatives of a rule: an argument twice means either.
fn alternatives(rule: &LinuxSyscall) -> Vec<Vec<Comparison>> {
    let args = rule.args().as_deref().unwrap_or_default();
    let all: Vec<Comparison> = args.iter().map(comparison).collect();
    let repeats = (0..6).any(|index| args.iter().filter(|a| a.index() == index).count() > 1);
    if repeats { all.into_iter().map(|one| vec![one]).collect() } else { vec![all] }
}

/// The filter, not exported yet.
pub fn filter(profile: &LinuxSeccomp) -> Context {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut filter = Context::new(default);
    for arch in profile.architectures().iter().flatten() {
        filter.add_arch(*arch as u32);
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = rule.action().as_u32(rule.errno_ret());
        if action == default {
            continue;
        }
        for name in rule.names() {
            let Some(call) = libseccomp::number(name, Arch::ScmpArchX86_64 as u32) else {
                continue;
            };
            for conditions in alternatives(rule) {
                let ret = filter.add_rule(action, call, &conditions);
                assert_eq!(ret, 0, "{name} {conditions:?}");
            }
        }
    }
    filter
}

/// The program of a filter.
pub fn export(filter: &Context) -> Vec<Insn> {
    let mut file = tempfile::tempfile().unwrap();
    filter.export(&file);
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let insn = |b: &[u8]| Insn {
        code: u16::from_le_bytes([b[0], b[1]]),
        yes: b[2],
        no: b[3],
        k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
    };
    bytes.chunks_exact(8).map(insn).collect()
}

/// The number of a call, where the architecture has it.
pub fn number(name: &str, arch: Arch) -> Option<u32> {
    libseccomp::number(name, arch as u32).and_then(|number| u32::try_from(number).ok())
}

/// The name of a number.
pub fn name(number: u32, arch: Arch) -> Option<String> {
    libseccomp::name(number, arch as u32)
}
