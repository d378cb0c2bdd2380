//! The OCI layout that a download becomes.
//!
//! ```text
//! DIR/oci-layout, DIR/index.json   written at last: without them it is no layout
//! DIR/blobs/ALGORITHM/HEX          whole and verified
//! DIR/partial/ALGORITHM-HEX        what a download that broke off has left
//! ```

use std::fs::{self, DirBuilder};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use serde_json::json;
use tare::error::{Error, ErrorKind, Result, Step};
use tare::image::digest::Digest;
use tare::sys::fs::{open_dir, replace_file};

/// A directory that becomes a layout.
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Makes the directories that are missing.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for below in ["blobs/sha256", "blobs/sha512", "partial"] {
            let path = dir.join(below);
            builder.create(&path).step(|| format!("mkdir {}", path.display()))?;
        }
        Ok(Layout { dir: dir.to_owned() })
    }

    /// Where a blob is or will be.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Where a blob is while it comes.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Writes a document that is verified.
    pub(crate) fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.blob(digest);
        self.replace(path.parent().unwrap_or(&self.dir), digest.hex(), bytes)
    }

    /// Refuses a download for which there is no room.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        let stat = nix::sys::statvfs::statvfs(&self.dir).step(|| "statvfs")?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        if bytes <= free {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::System,
            format!("{}: {bytes} bytes to download, {free} free", self.dir.display()),
        ))
    }

    /// Makes it a layout of one image. The media type is that of the manifest
    /// itself.
    pub(crate) fn finish(&self, name: &str, manifest: &Digest, bytes: &[u8]) -> Result<()> {
        let value: serde_json::Value = tare::json::parse(bytes)?;
        let media_type = value.get("mediaType").and_then(|m| m.as_str());
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": media_type.unwrap_or("application/vnd.oci.image.manifest.v1+json"),
                "digest": manifest.to_string(),
                "size": bytes.len(),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }],
        });
        self.replace(&self.dir, "index.json", index.to_string().as_bytes())?;
        self.replace(&self.dir, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        match fs::remove_dir(self.dir.join("partial")) {
            // of another image, for which somebody may come back
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.step(|| "clean up"),
        }
    }

    fn replace(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
        let step = || format!("write {}", dir.join(name).display());
        let dir = open_dir(dir).step(step)?;
        replace_file(dir.as_fd(), name, bytes, Mode::from_bits_truncate(0o600), false).step(step)
    }
}
