//! The life of a container: create, start, state, kill, delete, run, and what
//! happens to it in between: exec, pause, resume, update, checkpoint and restore.
//!
//! Only `create` reads a configuration. Everything later lives from the
//! [`Record`] in the state directory, and from the process itself: a status is
//! computed, never stored.

mod activation;
mod agent;
mod birth;
mod check;
mod checkpoint;
mod create;
mod created;
mod delete;
mod exec;
mod figures;
mod foreground;
mod id;
mod kill;
mod notify;
mod outlet;
mod pause;
mod place;
mod processes;
mod rdt;
mod record;
mod relay;
mod reserve;
mod sample;
mod schemata;
mod shared_root;
mod start;
mod state;
mod store;
mod terminal;
mod update;

pub use crate::cgroup::Bytes;
pub use crate::cgroup::stats;
pub use crate::cgroup::stats::Detail;
pub use activation::Activation;
pub use checkpoint::{
    CgroupsMode, CheckpointArgs, CriuWords, RestoreArgs, Restored, checkpoint, restore,
};
pub use create::{Console, CreateArgs, Meanwhile, create};
pub use created::{Created, Running};
pub use delete::delete;
pub use exec::{ExecArgs, ExecWords, exec};
pub use figures::{Event, Live};
pub use foreground::{Signals, wait};
pub use id::ContainerId;
pub use kill::{kill, parse_signal};
pub use notify::{Listener, NotifySocket};
pub use pause::{pause, resume};
pub use processes::processes;
pub use record::{InitProcess, Record};
pub use reserve::Reserved;
pub use sample::Sample;
pub use shared_root::SharedRoot;
pub use start::start;
pub use state::{State, Status};
pub use store::{Containers, Entry, Lock, Store};
pub use update::{UpdateArgs, update};
