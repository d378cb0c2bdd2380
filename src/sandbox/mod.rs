//! From a plan to a process in its namespaces, ready to run its program.
//!
//! The runtime's side is [`spawn`](spawn::spawn) and [`Spawned`]; the
//! container's side is `init`, a list of named steps. What they say to each
//! other is in `protocol`.

mod clocks;
mod console;
mod copyup;
mod devices;
pub mod exec;
mod hook_process;
pub(crate) mod hooks;
pub mod idmap;
mod init;
mod interrupts;
pub(crate) mod labels;
mod mounts;
pub(crate) mod netdevices;
mod nodes;
mod over_proc;
pub(crate) mod path;
mod privileges;
mod program;
mod protocol;
mod reaper;
mod rootfs;
mod scheduling;
mod sources;
mod spawn;
mod spawned;
mod task;
pub mod userns;

pub(crate) use copyup::copy_tree;
pub(crate) use interrupts::Interrupts;
pub(crate) use protocol::{Channel, Started};
pub(crate) use sources::open_in_child;
pub(crate) use spawn::kills_newborns;
pub use spawn::{Options, SpawnArgs, spawn};
pub use spawned::Spawned;
