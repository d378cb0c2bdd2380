//! Images: from an OCI layout to layers on disk that overlayfs reads, and from
//! there to a root file system and a runtime's config.
//!
//! The way of an import: `layout` opens a directory or an archive, `select` (for
//! `docker save`'s archives with `docker`) chooses images and verifies their
//! documents, `import` unpacks the layers that the `store` lacks, each through a
//! `pipeline` that ends in `extract`, which leaves a `listing` for `verify`; what a layer
//! leaves to those below it is a matter of `parents` and `links`. A program that
//! downloads asks `remote` what a document names. Which image a name means is up to
//! `reference`, for all.

mod attributes;
pub mod bind;
mod blob;
pub mod bundle;
mod copy;
pub mod digest;
mod dirs;
mod disk;
mod docker;
mod downloads;
mod entry;
mod expected;
mod export;
mod extract;
mod form;
#[doc(hidden)]
pub mod fuzz;
mod gzip;
mod import;
mod layout;
pub mod limits;
mod links;
mod listing;
mod manifest;
mod names;
pub mod overlay;
mod parents;
mod pipeline;
mod places;
mod progress;
mod record;
pub mod reference;
pub mod remote;
pub mod remove;
pub mod select;
mod spool;
mod staging;
pub mod store;
mod tarstream;
mod tree;
mod tree_check;
pub mod unpack;
mod unzstd;
pub mod user;
pub mod verify;
mod visit;
