//! Makes tar archives and OCI layouts, good and bad ones.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// One entry of an archive; nothing keeps it from being nonsense.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    pub size: Option<u64>,
    pub dev: (u32, u32),
    pub pax: Vec<(String, Vec<u8>)>,
}

pub fn entry(kind: u8, name: &str) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: 1_000_000_000,
        link: Vec::new(),
        data: Vec::new(),
        size: None,
        dev: (0, 0),
        pax: Vec::new(),
    }
}

pub fn file(name: &str, data: &str) -> Entry {
    Entry { data: data.as_bytes().to_vec(), ..entry(b'0', name) }
}

pub fn dir(name: &str) -> Entry {
    entry(b'5', name)
}

pub fn symlink(name: &str, target: &str) -> Entry {
    Entry { link: target.as_bytes().to_vec(), ..entry(b'2', name) }
}

pub fn hardlink(name: &str, target: &str) -> Entry {
    Entry { link: target.as_bytes().to_vec(), ..entry(b'1', name) }
}

impl Entry {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.to_owned(), value.to_vec()));
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut pax: Vec<(String, Vec<u8>)> = self.pax.clone();
        if self.name.len() > 100 {
            pax.insert(0, ("path".into(), self.name.clone()));
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(k, v)| pax_record(k, v)).collect();
            block(out, &entry(b'x', "pax"), records.len() as u64);
            padded(out, &records);
        }
        block(out, self, self.size.unwrap_or(self.data.len() as u64));
        padded(out, &self.data);
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while len != body + len.to_string().len() {
        len = body + len.to_string().len();
    }
    let mut record = format!("{len} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn block(out: &mut Vec<u8>, entry: &Entry, size: u64) {
    let mut header = tar::Header::new_gnu();
    let bytes = header.as_mut_bytes();
    let name = &entry.name[..entry.name.len().min(100)];
    bytes[..name.len()].copy_from_slice(name);
    let link = &entry.link[..entry.link.len().min(100)];
    bytes[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(entry.kind));
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(entry.mtime);
    header.set_size(size);
    header.set_device_major(entry.dev.0).unwrap();
    header.set_device_minor(entry.dev.1).unwrap();
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

fn padded(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write(&mut out);
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub fn sha256(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layer: its blob, its media type and its diff ID.
#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub media_type: String,
    pub diff_id: String,
}

pub fn layer(entries: &[Entry], how: &str) -> Layer {
    raw_layer(&archive(entries), how)
}

pub fn raw_layer(data: &[u8], how: &str) -> Layer {
    let (blob, suffix) = match how {
        "gzip" => (gzip(data), "+gzip"),
        // with a window that reaches far back
        "zstd-wide" => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(25).unwrap();
            encoder.write_all(data).unwrap();
            (encoder.finish().unwrap(), "+zstd")
        }
        "zstd" => (zstd::encode_all(data, 1).unwrap(), "+zstd"),
        _ => (data.to_vec(), ""),
    };
    Layer { blob, media_type: format!("{TAR}{suffix}"), diff_id: sha256(data) }
}

/// A layout directory in the making.
pub struct Layout {
    pub dir: PathBuf,
    pub index: Vec<Value>,
}

impl Layout {
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir: dir.to_owned(), index: Vec::new() }
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    pub fn blob(&self, data: &[u8], media_type: &str) -> Value {
        let digest = sha256(data);
        fs::write(self.blob_path(&digest), data).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": data.len()})
    }

    /// A manifest's descriptor for an image of these layers.
    pub fn image(&self, layers: &[Layer], platform: &str, config: Value) -> Value {
        let ids: Vec<_> = layers.iter().map(|l| l.diff_id.clone()).collect();
        let (os, arch) = platform.split_once('/').unwrap();
        let config = json!({
            "os": os, "architecture": arch, "config": config,
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = self.blob(&serde_json::to_vec(&config).unwrap(), CONFIG);
        let layers: Vec<_> = layers.iter().map(|l| self.blob(&l.blob, &l.media_type)).collect();
        self.manifest(json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        }))
    }

    pub fn manifest(&self, manifest: Value) -> Value {
        self.blob(&serde_json::to_vec(&manifest).unwrap(), MANIFEST)
    }

    pub fn tag(&mut self, mut descriptor: Value, tag: &str) -> &mut Self {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.index.push(descriptor);
        self
    }

    pub fn finish(&self) -> PathBuf {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.index});
        fs::write(self.dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        self.dir.clone()
    }
}

pub const HOST: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// A layout with one tagged image.
pub fn simple(dir: &Path, tag: &str, layers: &[Layer]) -> PathBuf {
    let mut layout = Layout::new(dir);
    let image = layout.image(layers, HOST, json!({"Cmd": ["/bin/true"]}));
    layout.tag(image, tag).finish()
}

/// A directory for one test, with a store in it.
pub struct Scene {
    pub dir: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Scene { dir: tempfile::tempdir().unwrap() }
    }

    /// A scene in memory, for tests with thousands of files: ext4 is slow to
    /// make files in the minutes after many were removed.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        match tempfile::tempdir_in(memory) {
            Ok(dir) => Scene { dir },
            Err(_) => Scene::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tare"));
        command.arg("--store").arg(self.path("store")).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; the answer is its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{args:?}: {err}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs a command that must fail with one line; the answer is that line.
    pub fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{args:?}: {err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{args:?}: {err}");
        err.trim_end().to_owned()
    }

    pub fn import(&self, path: &Path) {
        self.ok(&["image", "import", path.to_str().unwrap()]);
    }

    pub fn layer_dir(&self, layer: &Layer) -> PathBuf {
        let hex = layer.diff_id.strip_prefix("sha256:").unwrap();
        self.path("store/layers/sha256").join(hex).join("diff")
    }

    /// Nothing but the store's empty directories is left.
    pub fn assert_store_is_empty(&self) {
        for dir in ["staging", "images", "layers/sha256", "blobs/sha256", "refs"] {
            let left: Vec<_> = match fs::read_dir(self.path("store").join(dir)) {
                Ok(entries) => entries.map(|e| e.unwrap().path()).collect(),
                Err(_) => continue,
            };
            assert!(left.is_empty(), "left in {dir}: {left:?}");
        }
    }
}

impl Drop for Scene {
    /// A test that failed may have left a bundle mounted.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines() {
            let Some(point) = line.split(' ').nth(4) else {
                continue;
            };
            if Path::new(point).starts_with(self.dir.path()) {
                nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).unwrap_or_default();
            }
        }
        // a layer may be deeper than who removes a TempDir may have files open
        if let Err(e) = tare::sys::remove::remove_tree(self.dir.path()) {
            eprintln!("{}: {e}", self.dir.path().display());
        }
    }
}

/// A tree as text: a line a file with all that should be kept.
pub fn listing(root: &Path) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut lines = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if kind.is_file() {
            sha256(&fs::read(&path).unwrap())
        } else if kind.is_char_device() || kind.is_block_device() {
            meta.rdev().to_string()
        } else {
            String::new()
        };
        let links = if kind.is_dir() { 0 } else { meta.nlink() };
        lines.push(format!(
            "{} {:o} {}:{} {}.{:09} {links} {content}",
            path.strip_prefix(root).unwrap().display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
        ));
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    lines.sort();
    lines
}
