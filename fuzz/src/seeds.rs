//! Well-formed inputs to begin with: one of each kind that the readers know.

use serde_json::json;
use tar::{EntryType, Header};
use tare::image::digest::Digest;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn block(out: &mut Vec<u8>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(1_000_000_000);
    if kind == EntryType::Char {
        header.set_device_major(1).expect("a small number");
        header.set_device_minor(3).expect("a small number");
    }
    header.set_size(data.len() as u64);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let body = key.len() + value.len() + 3;
        let mut len = body + 1;
        while len != body + len.to_string().len() {
            len = body + len.to_string().len();
        }
        format!("{len} {key}={value}\n")
    };
    records.iter().map(record).collect::<String>().into_bytes()
}

/// Layers: all types, whiteouts, long names of both kinds, attributes, sparse files.
pub fn archives() -> Vec<Vec<u8>> {
    use EntryType as E;
    let mut plain = Vec::new();
    for (kind, name, link, data) in [
        (E::Directory, "./", "", &b""[..]),
        (E::Directory, "a/", "", b""),
        (E::Regular, "a/file", "", b"content"),
        (E::Link, "a/hard", "a/file", b""),
        (E::Symlink, "a/soft", "../../etc/passwd", b""),
        (E::Fifo, "a/fifo", "", b""),
        (E::Char, "a/char", "", b""),
        (E::Regular, "a/.wh.gone", "", b""),
        (E::Regular, "b/.wh..wh..opq", "", b""),
        (E::Regular, "implied/deep/file", "", b"x"),
    ] {
        block(&mut plain, kind, name, link, data);
    }
    let mut long = Vec::new();
    let name = "long/".repeat(60);
    block(&mut long, E::GNULongName, "././@LongLink", "", format!("{name}x\0").as_bytes());
    block(&mut long, E::Regular, "short", "", b"data");
    block(&mut long, E::GNULongLink, "././@LongLink", "", format!("{name}x\0").as_bytes());
    block(&mut long, E::Link, "link", "short", b"");
    let records = [
        ("path", "pax/ä"),
        ("size", "5"),
        ("mtime", "1.5"),
        ("uid", "3000000"),
        ("SCHILY.xattr.user.a", "b"),
    ];
    block(&mut long, E::XHeader, "pax", "", &pax(&records));
    block(&mut long, E::Regular, "short", "", b"12345");
    let mut sparse = Vec::new();
    let map = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.size", "100000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", "0,5,90000,5"),
    ];
    block(&mut sparse, E::XHeader, "pax", "", &pax(&map));
    block(&mut sparse, E::Regular, "GNUSparseFile.0/sparse", "", b"1234567890");
    let one = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "s1"),
        ("GNU.sparse.realsize", "100000"),
    ];
    let mut data = b"1\n50000\n6\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"sparse");
    block(&mut sparse, E::XHeader, "pax", "", &pax(&one));
    block(&mut sparse, E::Regular, "GNUSparseFile.0/s1", "", &data);
    let mut all = vec![plain, long, sparse];
    for archive in &mut all {
        archive.resize(archive.len() + 1024, 0);
    }
    all
}

/// Archives of `docker save`: as 1.10 and newer ones write them, with the files of
/// older versions beside the manifest, layers that are links, and a layout in it.
pub fn docker() -> Vec<Vec<u8>> {
    use EntryType as E;
    let layers = archives();
    let config = |layers: &[&Vec<u8>]| {
        let ids: Vec<_> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
        let (os, arch) = ("linux", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        json!({"os": os, "architecture": arch, "config": {"Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": ids}})
        .to_string()
        .into_bytes()
    };
    let end = |mut archive: Vec<u8>| {
        archive.resize(archive.len() + 1024, 0);
        archive
    };
    // one image, its config under its digest
    let mut new = Vec::new();
    let bytes = config(&[&layers[0], &layers[1]]);
    let name = format!("{}.json", Digest::of(&bytes).hex());
    block(&mut new, E::Regular, &name, "", &bytes);
    block(&mut new, E::Regular, "a/layer.tar", "", &layers[0]);
    block(&mut new, E::Regular, "b/layer.tar", "", &layers[1]);
    let manifest = json!([{"Config": name, "RepoTags": ["box:1", "box:2"],
        "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    block(&mut new, E::Regular, "manifest.json", "", manifest.to_string().as_bytes());
    // two images with one layer, which the second has as a link; a config under any name,
    // so that changes to it are not refused for their digest
    let mut old = Vec::new();
    let bytes = config(&[&layers[2]]);
    block(&mut old, E::Regular, "one.json", "", &bytes);
    block(&mut old, E::Directory, "one/", "", b"");
    block(&mut old, E::Regular, "one/VERSION", "", b"1.0");
    block(&mut old, E::Regular, "one/json", "", br#"{"id":"one","os":"linux"}"#);
    block(&mut old, E::Regular, "one/layer.tar", "", &layers[2]);
    block(&mut old, E::Symlink, "two/layer.tar", "../one/layer.tar", b"");
    block(&mut old, E::Link, "three/layer.tar", "one/layer.tar", b"");
    let images: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|name| {
            json!({"Config": "one.json", "RepoTags": [format!("{name}:v")],
                "Layers": [format!("{name}/layer.tar")]})
        })
        .collect();
    block(&mut old, E::Regular, "manifest.json", "", json!(images).to_string().as_bytes());
    let repositories = br#"{"one":{"v":"one"},"two":{"v":"two"}}"#;
    block(&mut old, E::Regular, "repositories", "", repositories);
    vec![end(new), end(old)]
}

/// A manifest, an index, a config.
pub fn documents() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{HEX}");
    let descriptor = |media_type: &str| json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": 7});
    let mut inner = descriptor("manifest.v1+json");
    inner["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
    inner["annotations"] = json!({"org.opencontainers.image.ref.name": "box"});
    let all = [
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json"), "layers": [descriptor("layer.v1.tar+gzip")]}),
        json!({"schemaVersion": 2, "manifests": [inner]}),
        json!({"os": "linux", "architecture": "amd64", "created": "2020-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "config": {"Env": ["A=b"], "Cmd": ["x"], "Volumes": {"/v": {}}, "User": "0",
                "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}, "StopSignal": "SIGINT"},
            "history": [{"created_by": "x", "empty_layer": true}]}),
    ];
    all.iter().map(|value| value.to_string().into_bytes()).collect()
}

/// Names of images.
pub fn names() -> Vec<Vec<u8>> {
    let digest = format!("q.io/a/b_c:t@sha256:{HEX}");
    let all = ["debian", "ann/tool:1.2", "localhost:5000/a/b", "[::1]:80/x-y", &digest];
    all.iter().map(|name| name.as_bytes().to_vec()).collect()
}
