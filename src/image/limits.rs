//! Bounds on what an image may ask of the host.

use crate::error::{Error, Result};

/// Bounds for one import. All of them are far above what real images need.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one JSON document.
    pub json: u64,
    /// Images of one import.
    pub images: usize,
    /// Layers of an image; the overlay file system takes 500.
    pub layers: usize,
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of an entry's path.
    pub path: usize,
    /// Bytes of one extended attribute; the kernel takes 64 KiB.
    pub xattr: usize,
    /// Bytes of what describes one entry: long names, PAX records, sparse maps.
    pub entry_meta: u64,
    /// Bytes that one layer may unpack to; `None` derives it from the
    /// compressed size by [`Limits::layer_bytes`].
    pub layer: Option<u64>,
    /// How many times its compressed size a layer may unpack to; 1 GiB is always
    /// allowed.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            json: 20 << 20,
            images: 1000,
            layers: 500,
            entries: 4 << 20,
            // PATH_MAX less the way from a store to a layer's root
            path: 3840,
            xattr: 64 << 10,
            entry_meta: 1 << 20,
            layer: None,
            ratio: 100,
        }
    }
}

impl Limits {
    /// That there are too many images.
    pub(crate) fn too_many_images(&self) -> Error {
        Error::invalid(format!("more than {} images (choose one with --ref)", self.images))
    }

    /// How much a layer of `compressed` bytes may unpack to.
    ///
    /// Deflate can't do better than 1 : 1032; real layers stay under 1 : 20. A
    /// small layer full of zeros is harmless, hence the floor.
    pub fn layer_bytes(&self, compressed: u64) -> u64 {
        self.layer.unwrap_or_else(|| compressed.saturating_mul(self.ratio).max(1 << 30))
    }
}

/// Parses a size as people write it: bytes, or with a suffix k, m, g or t
/// (powers of 1024).
///
/// # Errors
/// Invalid for another form, and for more than 64 bits hold.
pub fn size(text: &str) -> Result<u64> {
    let wrong = || Error::invalid(format!("{text:?} is not a size (such as 512m or 4g)"));
    let lower = text.to_ascii_lowercase();
    let suffixes = [('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    let found =
        suffixes.iter().find_map(|(suffix, shift)| Some((lower.strip_suffix(*suffix)?, *shift)));
    let (digits, shift) = found.unwrap_or((&lower, 0));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let n: u64 = digits.parse().map_err(|_overflow| wrong())?;
    n.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("0").unwrap(), 0);
        assert_eq!(size("512").unwrap(), 512);
        assert_eq!(size("3K").unwrap(), 3072);
        assert_eq!(size("4g").unwrap(), 4 << 30);
        for bad in ["", "g", "-1", "+1", "1.5g", "1gg", "99999999999999999999", "99999999999t"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_layer_may_be_large_if_its_blob_is() {
        let limits = Limits::default();
        assert_eq!(limits.layer_bytes(10), 1 << 30);
        assert_eq!(limits.layer_bytes(1 << 30), 100 << 30);
    }
}
