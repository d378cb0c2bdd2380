//! Filters of system calls, held against libseccomp's: for every profile, both
//! programs have to give the kernel the same answer for every call, but where
//! tare means to differ. With another C library than the one that libseccomp was
//! built for, there is nothing in here.
#![cfg(target_env = "gnu")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "libseccomp is written in C")]

#[path = "seccomp/engine.rs"]
mod engine;
#[path = "support/engine_profile.rs"]
mod engine_profile;
#[path = "seccomp/interpreter.rs"]
mod interpreter;
#[path = "seccomp/libseccomp.rs"]
mod libseccomp;
#[path = "seccomp/oracle.rs"]
mod oracle;
#[path = "seccomp/random.rs"]
mod random;
#[path = "seccomp/shapes.rs"]
mod shapes;

use std::collections::HashSet;

use interpreter::{Call, run};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action};
use oracle::ARCHITECTURES;
use serde_json::{Value, json};
use tare::spec::SeccompPlan;

const ENOSYS: u32 = 0x0005_0026;

/// A profile that may be one.
fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

/// Numbers at which a range may begin or end, and what lies far beyond.
fn numbers() -> impl Iterator<Item = u32> {
    let x32 = 0x4000_0000;
    let far = [600, 1000, 5000, 0x0f_0000, 0x0f_0002, 0x0f_0005, 0x0f_0007, 0x3fff_ffff];
    let high = [0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xffff_fffe, u32::MAX];
    (0..=512).chain(far).chain(x32..=x32 + 560).chain(high)
}

/// The calls that a profile names, in the table of one architecture; without
/// the private ones of ARM, which are far from all others.
fn named(profile: &LinuxSeccomp, arch: Arch) -> Vec<u32> {
    let names: HashSet<&String> =
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names()).collect();
    let bit = if arch == Arch::ScmpArchX32 { 0x4000_0000 } else { 0 };
    let is_named =
        |number: &u32| oracle::name(*number, arch).is_some_and(|name| names.contains(&name));
    (bit..bit + 600).filter(is_named).collect()
}

/// True where tare answers ENOSYS on purpose: calls that are newer than all that
/// a profile with a refusing default names.
struct TooNew<'a> {
    profile: &'a LinuxSeccomp,
    newest: Vec<(Arch, Option<u32>)>,
}

impl<'a> TooNew<'a> {
    fn of(profile: &'a LinuxSeccomp) -> Self {
        let mut all = profile.architectures().clone().unwrap_or_default();
        all.push(Arch::ScmpArchX86_64);
        let newest = all.into_iter().map(|arch| (arch, named(profile, arch).into_iter().max()));
        TooNew { profile, newest: newest.collect() }
    }

    fn has(&self, call: &Call) -> bool {
        let refuses = !matches!(
            self.profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let newest_of = |arch: Arch| {
            let found = self.newest.iter().find(|(one, _)| *one == arch);
            found.and_then(|(_, newest)| *newest)
        };
        let newest = match call.arch {
            0xc000_003e if call.number == u32::MAX => {
                newest_of(Arch::ScmpArchX32).or_else(|| newest_of(Arch::ScmpArchX86_64))
            }
            0xc000_003e if call.number >= 0x4000_0000 => newest_of(Arch::ScmpArchX32),
            0xc000_003e => newest_of(Arch::ScmpArchX86_64),
            other => ARCHITECTURES.iter().find(|a| a.1 == other).and_then(|a| newest_of(a.0)),
        };
        let is_listed = || {
            let name = oracle::name(call.number, Arch::ScmpArchArm);
            let names = || self.profile.syscalls().iter().flatten().flat_map(|r| r.names());
            name.is_some_and(|name| names().any(|one| *one == name))
        };
        let is_arm = call.arch == 0x4000_0028;
        let is_private = is_arm && (0x0f_0000..0x0f_1000).contains(&call.number) && is_listed();
        refuses && !is_private && newest.is_some_and(|newest| call.number > newest)
    }
}

/// Both programs, over all numbers and these arguments.
fn compare(profile: &LinuxSeccomp, arguments: &[[u64; 6]]) {
    compare_at(profile, arguments, numbers());
}

fn compare_at(profile: &LinuxSeccomp, arguments: &[[u64; 6]], numbers: impl Iterator<Item = u32>) {
    let ours = SeccompPlan::resolve(profile).unwrap().program;
    interpreter::check(&ours);
    let theirs = oracle::export(&oracle::filter(profile));
    let too_new = TooNew::of(profile);
    let foreign = [0xc000_0016, 0x0000_0008, 0x8000_0015, 0];
    let mut audits: Vec<u32> = ARCHITECTURES.iter().map(|(_, audit)| *audit).collect();
    audits.extend(foreign);
    audits.sort_unstable();
    audits.dedup();
    for number in numbers {
        for arch in &audits {
            let call = Call { arch: *arch, number, args: [0; 6] };
            let is_too_new = too_new.has(&call);
            for args in arguments {
                let call = Call { args: *args, ..call };
                let mine = run(&ours, &call);
                let expected = if is_too_new { ENOSYS } else { run(&theirs, &call) };
                assert_eq!(mine, expected, "{call:x?} {}", json!(profile));
            }
        }
    }
}
