//! Images out of the store, as a tar archive of an OCI layout whose blobs are
//! byte for byte those that were imported.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Write};

use serde_json::json;

use super::blob::{Blob, BlobReader};
use super::digest::Digest;
use super::manifest::{self, INDEX, MANIFEST};
use super::store::{Image, Store};
use crate::error::{Error, ErrorKind, Result, Step};

const TAG: &str = "org.opencontainers.image.ref.name";
/// Bytes of a name that a header has room for.
const NAME: usize = 100;

impl Store {
    /// Writes images, each under its name as the tag, into one archive.
    ///
    /// The same images give the same bytes, whenever and wherever it is done.
    ///
    /// # Errors
    /// NotFound for a name, State for an image whose blobs were not kept: before
    /// anything is written. Invalid for a blob that has changed on disk.
    pub fn export(&self, names: &[String], out: &mut dyn Write) -> Result<()> {
        let images = names.iter().map(|name| self.image(name)).collect::<Result<Vec<_>>>()?;
        let mut blobs = BTreeMap::new();
        let mut types = Vec::new();
        for image in &images {
            let step = || format!("image {}", image.name);
            self.blobs_of(image, &mut blobs).step(step)?;
            types.push(self.media_type(image).step(step)?);
        }
        member(out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for (digest, blob) in &blobs {
            copy(digest, blob, out).step(|| format!("blob {digest}"))?;
        }
        let manifests: Vec<_> = images
            .iter()
            .zip(types)
            .map(|(image, media_type)| {
                json!({
                    "mediaType": media_type,
                    "digest": image.digest,
                    "size": blobs.get(&image.digest).map_or(0, |blob| blob.size),
                    "annotations": {TAG: image.name},
                })
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        member(out, "index.json", index.to_string().as_bytes())?;
        // the end mark
        out.write_all(&[0; 1024])?;
        Ok(out.flush()?)
    }

    fn blobs_of(&self, image: &Image, all: &mut BTreeMap<Digest, Blob>) -> Result<()> {
        let record = image.record();
        let layers = record.layers.iter().map(|layer| &layer.digest);
        for digest in [&image.digest, &record.config_digest].into_iter().chain(layers) {
            let file = match File::open(self.blob_path(digest)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::new(
                        ErrorKind::State,
                        format!("its layer {} is here as files only", digest.short()),
                    )
                    .hint("import it once more with --keep-blobs"));
                }
                other => other.step(|| format!("open blob {digest}"))?,
            };
            let size = file.metadata()?.len();
            all.insert(digest.clone(), Blob { file, offset: 0, size, digest: digest.clone() });
        }
        Ok(())
    }

    /// What the image's manifest says of itself.
    fn media_type(&self, image: &Image) -> Result<String> {
        let bytes = std::fs::read(self.blob_path(&image.digest))?;
        Ok(manifest::media_type(&bytes, "manifest")?.unwrap_or_else(|| MANIFEST.to_owned()))
    }
}

fn header(out: &mut dyn Write, name: &str, size: u64) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    if name.len() > NAME {
        // sha512's: as a record before it, of which the header has the beginning
        header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        for (to, from) in header.as_old_mut().name.iter_mut().zip(b"././@LongLink") {
            *to = *from;
        }
        finish(&mut header, name.len() as u64 + 1);
        out.write_all(header.as_bytes())?;
        out.write_all(name.as_bytes())?;
        out.write_all(&[0])?;
        padding(out, name.len() as u64 + 1)?;
        header.set_entry_type(tar::EntryType::Regular);
    }
    header.set_path(name.get(..NAME).unwrap_or(name))?;
    finish(&mut header, size);
    Ok(out.write_all(header.as_bytes())?)
}

fn finish(header: &mut tar::Header, size: u64) {
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
}

fn padding(out: &mut dyn Write, size: u64) -> Result<()> {
    let rest = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
    Ok(out.write_all([0; 512].get(..rest).unwrap_or_default())?)
}

fn member(out: &mut dyn Write, name: &str, bytes: &[u8]) -> Result<()> {
    header(out, name, bytes.len() as u64)?;
    out.write_all(bytes)?;
    padding(out, bytes.len() as u64)
}

fn copy(digest: &Digest, blob: &Blob, out: &mut dyn Write) -> Result<()> {
    header(out, &format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()), blob.size)?;
    let mut reader = BlobReader::new(blob);
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        out.write_all(piece)?;
        let n = piece.len();
        reader.consume(n);
    }
    reader.verify(&|_| ())?;
    padding(out, blob.size)
}
