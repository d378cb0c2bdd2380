//! CRIU as a process: `criu swrk FD` serves one connection, a socket pair, and ends
//! with it. Its messages are protocol buffers.

mod log;
mod message;
mod process;
mod wire;

pub(super) use message::{Feature, Figure, Kind, Options, Switch, Text};
pub(super) use process::{Criu, Notice, Setting};
