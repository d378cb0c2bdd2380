//! The command line. `tare image pull` gives its own words on.

use std::path::PathBuf;

use clap::Parser;

/// Download an image from a registry into an OCI layout directory
#[derive(Debug, Parser)]
#[command(name = "tare-pull", version, max_term_width = 100)]
pub(crate) struct Args {
    /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]; docker.io, library/ and latest where left out
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Directory of the layout. What is there already is not fetched again, and what a
    /// download that broke off has left is gone on with
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Take this platform of a multi-platform image, as os/architecture[/variant]
    /// [default: the host's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Leave out the layers that are in this store of tare's
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Leave a layer out only if the store has its blob as well
    #[arg(long)]
    pub(crate) keep_blobs: bool,
    /// Refuse an index, a manifest or a config of more than this: bytes, or with a suffix
    /// k, m, g [default: 20m]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_document_size: Option<String>,
    /// Layers to download at a time
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) jobs: u8,
    /// Speak HTTP without TLS; for hosts other than this one together with --insecure
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Accept any certificate: whoever is on the way can read what is sent, the password
    /// included
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Trust the certificates in this PEM file as well as the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Take credentials from this file [default: the usual places, see docs/registry.md]
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    /// No progress bars
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
