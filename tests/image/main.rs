//! Images on the real kernel, as root: what is kept, what is refused, what a
//! kill leaves behind.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    reason = "tests"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]

mod attacks;
mod bundles;
mod content;
mod formats;
mod kills;
mod layout;
mod parents;
mod process;
mod rootless;
mod running;
mod selection;
mod store;
mod verify;
mod volumes;

#[path = "../support/mod.rs"]
mod support;
