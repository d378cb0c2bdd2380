//! linux.cgroupsPath: where below the hierarchy a container's cgroup goes.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";

/// The path of a container's cgroup, relative to the cgroup2 mount point.
///
/// - absolute: below the mount point;
/// - relative: below `base`, the parent of the caller's own cgroup. The
///   caller's own has processes in it, so it could hand no controller down; its
///   parent often can, and is what is delegated to a user (where only the own
///   one is, `base` is that). runc does so too, while crun takes a relative
///   path for an absolute one: with a caller in the root cgroup, or in a child
///   of it, the three agree;
/// - absent: `tare-ID`, below the mount point for root and as a relative path
///   for others. It has no directory above it that is shared with other
///   containers: none has to be made, none stays behind.
///
/// `..` is resolved by the letter (cgroup2 has no symbolic links) and may not
/// climb above the place that the path starts from.
///
/// # Errors
/// A path that climbs out, or that is no more than its starting point.
pub fn resolve(
    cgroups_path: Option<&Path>,
    id: &str,
    root: bool,
    base: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    match cgroups_path.filter(|path| !path.as_os_str().is_empty()) {
        None => {
            let name = format!("tare-{id}");
            let mut path = if root { PathBuf::new() } else { base()? };
            path.push(name);
            Ok(path)
        }
        Some(path) => {
            let below = normalise(path)?;
            if path.is_absolute() { Ok(below) } else { Ok(base()?.join(below)) }
        }
    }
}

fn normalise(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir if !out.pop() => {
                return Err(Error::invalid(format!(
                    "{FIELD}: {} leads out of the cgroup hierarchy",
                    path.display()
                )));
            }
            Component::ParentDir
            | Component::CurDir
            | Component::RootDir
            | Component::Prefix(_) => {}
        }
    }
    if out.as_os_str().is_empty() {
        return Err(Error::invalid(format!(
            "{FIELD}: {} is not the path of a cgroup below the root",
            path.display()
        )));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_place() {
        for (path, root, expected) in [
            (None, true, "tare-box1"),
            (None, false, "user.slice/tare-box1"),
            (Some(""), true, "tare-box1"),
            (Some("/a/b"), true, "a/b"),
            (Some("/a/b"), false, "a/b"),
            (Some("//a/./b/"), true, "a/b"),
            (Some("/a/../b"), true, "b"),
            (Some("a"), true, "user.slice/a"),
            (Some("./a/b"), true, "user.slice/a/b"),
            (Some("x.slice:tare:box1"), true, "user.slice/x.slice:tare:box1"),
        ] {
            let found =
                resolve(path.map(Path::new), "box1", root, || Ok(PathBuf::from("user.slice")));
            assert_eq!(found.unwrap(), Path::new(expected), "{path:?} {root}");
        }
    }

    #[test]
    fn no_path_leads_out() {
        for path in ["/..", "/a/../../b", "../a", "a/../../b", "/", ".", "a/.."] {
            let found = resolve(Some(Path::new(path)), "box1", true, || Ok(PathBuf::new()));
            let error = found.unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: "), "{path}: {error}");
        }
    }
}
