//! tare: an OCI container runtime whose own weight is next to nothing.
//!
//! # The way of a `create`
//!
//! 1. [`commands`] turns words ([`cli`]) into a [`container::CreateArgs`] and
//!    reads config.json ([`spec::load`]).
//! 2. [`spec::Plan::resolve`] decides everything that is left open and checks
//!    everything that can be checked. The host has not been touched yet.
//! 3. [`container::create()`] reserves the state directory, writes a first
//!    record, makes the [`cgroup`] with its limits, and has [`sandbox::spawn`]
//!    make the container's init: one `clone3` with all namespaces, born in its
//!    cgroup. Each step undoes itself when a later one fails.
//! 4. Init, in `sandbox::init`, is a list of steps: namespaces, names and
//!    parameters, root file system, privileges. It ends in execve. Meanwhile
//!    the runtime serves it over a socket pair (`sandbox::protocol`): id
//!    mappings, hooks, the terminal.
//! 5. The record is saved, and init waits on a socket in the state directory
//!    for `start`, or is let go at once by `run`.
//!
//! Every other command reads the record and the process, and never config.json
//! again.
//!
//! # The way of an image
//!
//! [`image`] reads a layout, verifies every blob, unpacks each layer once into
//! overlayfs form, and converts the image's configuration to a config.json. An
//! overlay is mounted as a file descriptor; [`container::create()`] takes that
//! in place of a directory.
//!
//! # Whether it can work at all
//!
//! [`doctor`] tries what the others use, one thing at a time, and says what is
//! missing. Nothing else comes through it.
//!
//! # Where its time goes
//!
//! [`trace`] writes down the steps of a command, if it is asked to, and draws them.
//!
//! Raw system calls are in [`sys`] alone.

pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod container;
pub mod doctor;
pub mod error;
pub mod image;
pub mod json;
pub mod logging;
pub mod sandbox;
pub mod spec;
pub mod sys;
pub mod trace;
pub mod volume;

pub use error::{Error, ErrorKind, Result};
