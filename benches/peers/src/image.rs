//! A real layered image of about 200 MB, made of this machine's own files: no
//! network, and what a distribution's image is made of.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::stats::Random;

/// Files of the third layer.
pub(crate) const APP_FILES: usize = 5000;
/// Files of the second layer that the third takes away.
const DELETED: usize = 200;

/// An image to unpack.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) layout: PathBuf,
    pub(crate) tag: String,
    /// The files of its layers, from the bottom up.
    pub(crate) layers: Vec<PathBuf>,
    /// The layout as one tar file.
    pub(crate) archive: PathBuf,
    /// Ours: a file of it that must be gone after unpacking.
    pub(crate) deleted: Option<PathBuf>,
}

/// Takes the image that was given, or the cached one, or makes one.
pub(crate) fn prepare(given: Option<&Path>, cache: &Path, work: &Path) -> Result<Image> {
    if let Some(layout) = given {
        let archive = work.join("image.tar");
        archive_layout(layout, &archive)?;
        return open(layout, archive, None);
    }
    if !cache.join("layout/index.json").is_file() {
        eprintln!("bench: making an image of this machine's files: once, about a minute");
        let part = cache.with_extension("part");
        std::fs::remove_dir_all(&part).unwrap_or_default();
        std::fs::create_dir_all(part.join("layout/blobs/sha256"))?;
        make(&part)?;
        std::fs::remove_dir_all(cache).unwrap_or_default();
        std::fs::rename(&part, cache)?;
    }
    let deleted = std::fs::read_to_string(cache.join("deleted"))?;
    open(&cache.join("layout"), cache.join("image.tar"), Some(PathBuf::from(deleted.trim())))
}

fn open(layout: &Path, archive: PathBuf, deleted: Option<PathBuf>) -> Result<Image> {
    let index = layout.join("index.json");
    let text = std::fs::read_to_string(&index)
        .with_context(|| format!("{}: give an OCI layout directory", index.display()))?;
    let index: Value = serde_json::from_str(&text)?;
    let tag = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    let tag = tag.as_str().context("the image has no tag (org.opencontainers.image.ref.name)")?;
    let manifest = blob_file(layout, &index["manifests"][0]["digest"])?;
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    let layers = manifest["layers"].as_array().context("the image has no list of layers")?;
    let layers =
        layers.iter().map(|layer| blob_file(layout, &layer["digest"])).collect::<Result<_>>()?;
    Ok(Image { layout: layout.to_owned(), tag: tag.to_owned(), layers, archive, deleted })
}

fn blob_file(layout: &Path, digest: &Value) -> Result<PathBuf> {
    let parts = digest.as_str().and_then(|text| text.split_once(':'));
    let (algorithm, hex) = parts.context("a descriptor without a digest")?;
    Ok(layout.join("blobs").join(algorithm).join(hex))
}

/// An image of some layers whose program does nothing, and its layout.
pub(crate) fn small(dir: &Path, rootfs: &Path, layers: usize) -> Result<PathBuf> {
    std::fs::create_dir_all(dir.join("layout/blobs/sha256"))?;
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for number in 0..layers {
        let top = dir.join(format!("files-{number}"));
        std::fs::create_dir(&top)?;
        std::fs::write(top.join(format!("layer-{number}")), "")?;
        let top = if number == 0 { rootfs } else { &top };
        let tar = pack(dir, &number.to_string(), top, &everything_in(top)?)?;
        diff_ids.push(format!("sha256:{}", sha256(&tar)?));
        descriptors.push(adopt(dir, &tar, "application/vnd.oci.image.layer.v1.tar")?);
    }
    write_layout(dir, &descriptors, &diff_ids, &["/bin/inside", "true"])?;
    Ok(dir.join("layout"))
}

fn archive_layout(layout: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    run(tar.arg("--create").arg("--file").arg(to).arg("-C").arg(layout).arg("."))
}

fn make(dir: &Path) -> Result<()> {
    let programs = collect(&["usr/bin", "usr/lib"], |path| !is_text(path), 380 << 20, 30_000)?;
    let texts = collect(&["usr/lib", "usr/share"], is_text, 170 << 20, 10_000)?;
    let app = dir.join("app");
    let deleted = write_app(&app, &texts)?;
    let mut layers = vec![
        pack(dir, "1", Path::new("/"), &programs)?,
        pack(dir, "2", Path::new("/"), &texts)?,
        pack(dir, "3", &app, &everything_in(&app)?)?,
    ];
    // side by side, as it takes the longest
    let compressing: Vec<_> = layers.iter().map(|tar| gzip(tar)).collect::<Result<_>>()?;
    for mut child in compressing {
        ensure!(child.wait()?.success(), "gzip failed");
    }
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for tar in layers.drain(..) {
        diff_ids.push(format!("sha256:{}", sha256(&tar)?));
        std::fs::remove_file(&tar)?;
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        descriptors.push(adopt(dir, &tar.with_extension("tar.gz"), kind)?);
    }
    write_layout(dir, &descriptors, &diff_ids, &["/usr/bin/true"])?;
    std::fs::remove_dir_all(&app)?;
    std::fs::write(dir.join("deleted"), deleted.as_os_str().as_bytes())?;
    archive_layout(&dir.join("layout"), &dir.join("image.tar"))
}

/// Python's files lie among the libraries, and are text for our purposes.
fn is_text(path: &Path) -> bool {
    path.starts_with("usr/share") || path.iter().any(|name| name.as_bytes().starts_with(b"python3"))
}

/// Files below some directories of `/`, in order, until a size or a number is
/// reached, each with the directories above it.
fn collect(
    tops: &[&str],
    wanted: impl Fn(&Path) -> bool,
    most_bytes: u64,
    most_files: usize,
) -> Result<Vec<PathBuf>> {
    let (mut bytes, mut files) = (0, 0);
    let mut found: BTreeSet<PathBuf> = BTreeSet::new();
    let mut left: Vec<PathBuf> = tops.iter().rev().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        let Ok(meta) = std::fs::symlink_metadata(Path::new("/").join(&path)) else { continue };
        if meta.is_dir() {
            left.extend(children(&path)?.into_iter().rev());
        } else if (meta.is_file() || meta.is_symlink()) && wanted(&path) {
            bytes += meta.size();
            files += 1;
            if bytes > most_bytes || files > most_files {
                break;
            }
            let above = path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
            found.extend(above.map(Path::to_owned));
            found.insert(path);
        }
    }
    ensure!(files > DELETED, "there are {files} files only in /{}", tops.join(" and /"));
    Ok(found.into_iter().collect())
}

/// Names in a directory of `/`, in order.
fn children(path: &Path) -> Result<Vec<PathBuf>> {
    let dir = Path::new("/").join(path);
    let mut names: Vec<PathBuf> = std::fs::read_dir(&dir)
        .with_context(|| format!("read {}", dir.display()))?
        .map(|entry| Ok(path.join(entry?.file_name())))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// The application: small files, and whiteouts of files of the layer below. The
/// answer is one of those that are deleted.
fn write_app(app: &Path, texts: &[PathBuf]) -> Result<PathBuf> {
    let mut random = Random::new(5);
    for number in 0..APP_FILES {
        let dir = app.join(format!("app/part-{:02}", number % 50));
        std::fs::create_dir_all(&dir)?;
        let mut text = String::new();
        for _ in 0..random.below(120) {
            text.push_str(&format!("{number}: {:x}\n", random.below(usize::MAX)));
        }
        std::fs::write(dir.join(format!("file-{number:04}")), text)?;
    }
    let is_file = |path: &&PathBuf| {
        std::fs::symlink_metadata(Path::new("/").join(path)).is_ok_and(|meta| meta.is_file())
    };
    let gone: Vec<&PathBuf> = texts.iter().filter(is_file).take(DELETED).collect();
    for path in &gone {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { continue };
        std::fs::create_dir_all(app.join(dir))?;
        let mut whiteout = OsStr::new(".wh.").to_owned();
        whiteout.push(name);
        std::fs::write(app.join(dir).join(whiteout), "")?;
    }
    gone.first().map(|path| (*path).clone()).context("there is nothing to delete")
}

fn everything_in(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path.clone());
            }
            found.push(path.strip_prefix(top)?.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// A tar file of a list of paths below `top`.
fn pack(dir: &Path, name: &str, top: &Path, paths: &[PathBuf]) -> Result<PathBuf> {
    let tar = dir.join(format!("{name}.tar"));
    let list = dir.join(format!("{name}.list"));
    let mut out = std::io::BufWriter::new(std::fs::File::create(&list)?);
    for path in paths {
        out.write_all(path.as_os_str().as_bytes())?;
        out.write_all(b"\0")?;
    }
    out.into_inner()?;
    run(Command::new("tar")
        .args(["--create", "--numeric-owner", "--hard-dereference", "--no-recursion", "--file"])
        .arg(&tar)
        .arg("-C")
        .arg(top)
        .arg("--null")
        .arg("--files-from")
        .arg(&list))?;
    std::fs::remove_file(list)?;
    Ok(tar)
}

fn gzip(tar: &Path) -> Result<std::process::Child> {
    let out = std::fs::File::create(tar.with_extension("tar.gz"))?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-6", "-n", "-c"]).arg(tar).stdin(Stdio::null()).stdout(out);
    gzip.spawn().context("start gzip")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("start tar")?;
    if !output.status.success() {
        bail!("tar: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output().context("start sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = text.split_whitespace().next().filter(|digest| digest.len() == 64);
    digest.map(str::to_owned).with_context(|| format!("sha256sum {}: no digest", file.display()))
}

/// Moves a file among the blobs; the answer is its descriptor.
fn adopt(dir: &Path, file: &Path, kind: &str) -> Result<Value> {
    let digest = sha256(file)?;
    let size = std::fs::metadata(file)?.len();
    std::fs::rename(file, dir.join("layout/blobs/sha256").join(&digest))?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size}))
}

fn write_layout(dir: &Path, layers: &[Value], diff_ids: &[String], program: &[&str]) -> Result<()> {
    let blob = |value: Value, kind: &str| -> Result<Value> {
        let file = dir.join("blob");
        std::fs::write(&file, value.to_string())?;
        adopt(dir, &file, kind)
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": arch,
        "os": "linux",
        "config": {"Cmd": program},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(config, "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let mut manifest = blob(manifest, kind)?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "bench"});
    manifest["platform"] = json!({"architecture": arch, "os": "linux"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(dir.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    std::fs::write(dir.join("layout/index.json"), index.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_counts_as_text() {
        assert!(is_text(Path::new("usr/lib/python3.11/os.py")));
        assert!(is_text(Path::new("usr/share/doc/x")));
        assert!(!is_text(Path::new("usr/lib/libx.so")));
    }
}
