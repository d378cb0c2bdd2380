//! `image pull`: from Debian's docker-registry, and from servers that are slow,
//! broken or hostile. All on loopback.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
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

mod hostile;
mod login;
mod proxy;
mod registry;
mod server;
mod transfer;

#[path = "../image/layout.rs"]
mod layout;
#[path = "../support/mod.rs"]
mod support;
