//! tare: an OCI container runtime whose own weight is next to nothing.

pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod container;
pub mod error;
pub mod image;
pub mod logging;
pub mod sandbox;
pub mod spec;
pub mod sys;

pub use error::{Error, ErrorKind, Result};
