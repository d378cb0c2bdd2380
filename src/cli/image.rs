//! The words of `image`, `unpack` and `umount`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Copy an image into the store and unpack its layers
    Import(ImageImportArgs),
    /// Download an image from a registry into the store
    Pull(ImagePullArgs),
    /// List the images in the store
    Ls(ImageLsArgs),
    /// Print what is known of an image as JSON
    Inspect(ImageInspectArgs),
    /// Remove images and the layers that no other image uses
    Rm(ImageRmArgs),
    /// Write images into one OCI archive
    Export(ImageExportArgs),
    /// Remove what no image and no container uses
    Gc(ImageGcArgs),
    /// Print what images take of the disk
    Df(ImageDfArgs),
    /// Read what the store holds and find what is damaged
    Verify(ImageVerifyArgs),
}

/// Which image of a layout that holds several.
#[derive(Debug, Clone, Default, Args)]
pub struct ImageSelector {
    /// Take the image with this tag (the layout's
    /// org.opencontainers.image.ref.name) only
    #[arg(long = "ref", value_name = "TAG")]
    pub reference: Option<String>,
    /// Take this platform of a multi-platform image, as os/architecture[/variant]
    /// [default: the host's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
}

/// `image import`.
#[derive(Debug, Args)]
pub struct ImageImportArgs {
    /// An OCI layout directory, a tar archive of one or of docker save (plain, gzip
    /// or zstd); - is standard input
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Name in the store [default: the image's tag, or the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Keep the layers' blobs as well: image export needs them
    #[arg(long, env = "TARE_KEEP_BLOBS", value_parser = clap::builder::FalseyValueParser::new())]
    pub keep_blobs: bool,
    /// Bounds
    #[command(flatten)]
    pub bounds: ImageBounds,
    /// Which image of several
    #[command(flatten)]
    pub select: ImageSelector,
}

/// Bounds of an import.
#[derive(Debug, Args)]
pub struct ImageBounds {
    /// Refuse a layer that unpacks to more than this: bytes, or with a suffix k,
    /// m, g [default: --max-ratio times its compressed size, at least 1g]
    #[arg(long, value_name = "SIZE", env = "TARE_MAX_LAYER_SIZE")]
    pub max_layer_size: Option<String>,
    /// Refuse a layer that unpacks to more than this many times its size [100]
    #[arg(long, value_name = "N")]
    pub max_ratio: Option<u64>,
    /// Refuse a layer with more entries [4194304]
    #[arg(long, value_name = "N")]
    pub max_entries: Option<u64>,
    /// Refuse an entry whose names and attributes take more than this [1m]
    #[arg(long, value_name = "SIZE")]
    pub max_entry_meta: Option<String>,
    /// Refuse an index, a manifest or a config of more than this [20m]
    #[arg(long, value_name = "SIZE")]
    pub max_document_size: Option<String>,
}

/// `image export`.
#[derive(Debug, Args)]
pub struct ImageExportArgs {
    /// Names in the store
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Archive to make; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `image gc`.
#[derive(Debug, Args)]
pub struct ImageGcArgs {
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `image df`.
#[derive(Debug, Args)]
pub struct ImageDfArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `image verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "A line for each thing that is not as it was recorded at the import, and one with \
                  what was looked at. The exit code is 1 if anything is wrong.\n\
                  A damaged layer is made whole by image rm of all images that have it, and another \
                  import."
)]
pub struct ImageVerifyArgs {
    /// Names in the store [default: all that it holds]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `image pull`.
#[derive(Debug, Args)]
pub struct ImagePullArgs {
    /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]; docker.io, library/ and latest where left out
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Name in the store [default: the whole name, with registry and tag or digest]
    #[arg(long = "name", value_name = "NAME")]
    pub store_name: Option<String>,
    /// Take this platform of a multi-platform image, as os/architecture[/variant]
    /// [default: the host's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Layers to download at a time [default: 4]
    #[arg(long, value_name = "N")]
    pub jobs: Option<u8>,
    /// Speak HTTP without TLS; for hosts other than this one together with --insecure
    #[arg(long)]
    pub plain_http: bool,
    /// Accept any certificate: whoever is on the way can read what is sent, the password
    /// included
    #[arg(long)]
    pub insecure: bool,
    /// Trust the certificates in this PEM file as well as the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Take credentials from this file [default: the usual places, see docs/registry.md]
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub auth_file: Option<PathBuf>,
    /// Keep the layers' blobs as well: image export needs them
    #[arg(long, env = "TARE_KEEP_BLOBS", value_parser = clap::builder::FalseyValueParser::new())]
    pub keep_blobs: bool,
    /// Bounds
    #[command(flatten)]
    pub bounds: ImageBounds,
    /// No progress bars
    #[arg(short, long)]
    pub quiet: bool,
}

/// `image ls`.
#[derive(Debug, Args)]
pub struct ImageLsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print names only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `image inspect`.
#[derive(Debug, Args)]
pub struct ImageInspectArgs {
    /// Name in the store
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `image rm`.
#[derive(Debug, Args)]
pub struct ImageRmArgs {
    /// Names in the store
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// How `unpack` provides the root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RootfsMode {
    /// Mount an overlay of the layers at BUNDLE/rootfs
    Overlay,
    /// Copy the files of all layers into BUNDLE/rootfs
    Copy,
}

/// `unpack`.
#[derive(Debug, Args)]
pub struct UnpackArgs {
    /// Name in the store, or a path to import on the way
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Directory to make
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// How the root file system is provided
    #[arg(long, value_name = "MODE", default_value = "overlay")]
    pub rootfs_mode: RootfsMode,
    /// Which image of several
    #[command(flatten)]
    pub select: ImageSelector,
}

/// `umount`.
#[derive(Debug, Args)]
#[command(
    after_help = "Removed: the mount, rootfs, upper (with all changes made in the bundle), work, \
                  config.json, and the bundle's directory if unpack made it.\n\
                  Kept: other files in the bundle, and the image with its layers in the store."
)]
pub struct UmountArgs {
    /// The bundle that `unpack` made
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
}
