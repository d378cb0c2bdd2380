//! What tare makes no use of so far: said as information, whatever it is.

use std::path::Path;

use nix::fcntl::AT_FDCWD;

use super::Host;
use super::asked::{idmap, text};
use super::filesystems::nearest;
use super::report::Finding;
use super::trial;
use crate::error::Step;
use crate::sys::mount::clone_tree;

pub(super) fn idmapped_store(host: &Host) -> Finding {
    if !host.is_root() {
        return Finding::info("not tried: needs root");
    }
    let Ok(store) = &host.places.store else {
        return Finding::info("not tried without a place for images");
    };
    let attempt = trial::apart(|| {
        let dir = nearest(store)?;
        idmap(|| clone_tree(AT_FDCWD, &dir, false, 0).step(|| "open_tree"))
    });
    match attempt {
        Ok(()) => Finding::info("mounts of the store's file system can be idmapped"),
        Err(e) => Finding::info_because("mounts of the store's file system can't be idmapped", &e),
    }
}

/// Parameters of the overlay module that change what an overlay can do.
pub(super) fn overlay_options(_: &Host) -> Finding {
    let shown = ["redirect_dir", "metacopy", "index", "userxattr"].iter().filter_map(|name| {
        let value = text(&format!("/sys/module/overlay/parameters/{name}"))?;
        Some(format!("{name}={value}"))
    });
    let shown: Vec<String> = shown.collect();
    Finding::info(match shown.is_empty() {
        true => "the kernel tells no defaults".to_owned(),
        false => format!("the kernel's defaults: {}", shown.join(", ")),
    })
}

pub(super) fn pressure(_: &Host) -> Finding {
    let kinds = ["cpu", "memory", "io"];
    let readable: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| text(&format!("/proc/pressure/{kind}")).is_some())
        .collect();
    if !readable.is_empty() {
        return Finding::info(readable.join(", "));
    }
    match std::fs::symlink_metadata("/proc/pressure").is_ok() {
        true => Finding::info("in the kernel, switched off").hint("boot with psi=1"),
        false => Finding::info("not in this kernel"),
    }
}

/// True for a directory that is there.
pub(super) fn is_dir(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_dir())
}
