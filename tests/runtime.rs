//! The runtime on the real kernel: what a container's program sees, and what a
//! person or an engine sees of the lifecycle. One module a topic; the words of
//! the probe that runs inside are in tests/probe.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]

#[path = "support/engine_profile.rs"]
mod engine_profile;
mod support;

#[path = "runtime/annotations.rs"]
mod annotations;
#[path = "runtime/attacks.rs"]
mod attacks;
#[path = "runtime/cgroups.rs"]
mod cgroups;
#[path = "runtime/concurrent.rs"]
mod concurrent;
#[path = "runtime/copyup.rs"]
mod copyup;
#[path = "runtime/crash.rs"]
mod crash;
#[path = "runtime/errors.rs"]
mod errors;
#[path = "runtime/events.rs"]
mod events;
#[path = "runtime/exec.rs"]
mod exec;
#[path = "runtime/exec_process.rs"]
mod exec_process;
#[path = "runtime/exec_terminal.rs"]
mod exec_terminal;
#[path = "runtime/features.rs"]
mod features;
#[path = "runtime/fields.rs"]
mod fields;
#[path = "runtime/hook_failures.rs"]
mod hook_failures;
#[path = "runtime/hooks.rs"]
mod hooks;
#[path = "runtime/idmap.rs"]
mod idmap;
#[path = "runtime/init.rs"]
mod init;
#[path = "runtime/inside.rs"]
mod inside;
#[path = "runtime/kill_count.rs"]
mod kill_count;
#[path = "runtime/labels.rs"]
mod labels;
#[path = "runtime/lifecycle.rs"]
mod lifecycle;
#[path = "runtime/links.rs"]
mod links;
#[path = "runtime/log.rs"]
mod log;
#[path = "runtime/many.rs"]
mod many;
#[path = "runtime/mounts.rs"]
mod mounts;
#[path = "runtime/namespaces.rs"]
mod namespaces;
#[path = "runtime/netdevices.rs"]
mod netdevices;
#[path = "runtime/pausing.rs"]
mod pausing;
#[path = "runtime/process.rs"]
mod process;
#[path = "runtime/relay.rs"]
mod relay;
#[path = "runtime/rootfs.rs"]
mod rootfs;
#[path = "runtime/rootless.rs"]
mod rootless;
#[path = "runtime/run.rs"]
mod run;
#[path = "runtime/scheduling.rs"]
mod scheduling;
#[path = "runtime/seccomp.rs"]
mod seccomp;
#[path = "runtime/services.rs"]
mod services;
#[path = "runtime/signals.rs"]
mod signals;
#[path = "runtime/stats.rs"]
mod stats;
#[path = "runtime/submounts.rs"]
mod submounts;
#[path = "runtime/takeover.rs"]
mod takeover;
#[path = "runtime/terminal.rs"]
mod terminal;
#[path = "runtime/time.rs"]
mod time;
#[path = "runtime/trace.rs"]
mod trace;
#[path = "runtime/trace_drawn.rs"]
mod trace_drawn;
#[path = "runtime/traced.rs"]
mod traced;
#[path = "runtime/update.rs"]
mod update;
#[path = "runtime/words.rs"]
mod words;
