//! Bounds on what an image may ask of the host.

/// Bounds for one import. All of them are far above what real images need.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one JSON document.
    pub json: u64,
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
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            json: 20 << 20,
            layers: 500,
            entries: 4 << 20,
            // PATH_MAX less the way from a store to a layer's root
            path: 3840,
            xattr: 64 << 10,
            entry_meta: 1 << 20,
            layer: None,
        }
    }
}

impl Limits {
    /// How much a layer of `compressed` bytes may unpack to.
    ///
    /// Deflate can't do better than 1 : 1032; real layers stay under 1 : 20. A
    /// small layer full of zeros is harmless, hence the floor.
    pub fn layer_bytes(&self, compressed: u64) -> u64 {
        self.layer.unwrap_or_else(|| compressed.saturating_mul(100).max(1 << 30))
    }
}
