//! Each system call of each command fails once: the command says so in one
//! line and leaves the host as it was, or does what it was asked as if nothing
//! had been. And what the table of kernel features says is held against a
//! kernel that lacks one after the other.
//!
//! The calls are made to fail by tests/faults, by ptrace; see docs/testing.md.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]
// the registers of a traced process are told apart for one machine so far
#![cfg(target_arch = "x86_64")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../image/layout.rs"]
#[allow(dead_code, missing_docs, reason = "a part of it is used")]
mod layout;

mod create;
mod exceptions;
mod exec;
mod faulty;
mod features;
mod images;
mod judge;
mod lifecycle;
mod report;
mod running;
