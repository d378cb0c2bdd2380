//! spec
pub mod defaults;
