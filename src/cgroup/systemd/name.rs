//! Names: of the unit, of its slice, of the cgroups that they come to.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";

/// Longest name of a unit (UNIT_NAME_MAX).
const LONGEST: usize = 255;

/// Where a container's unit goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// `tare-box1.scope`
    pub(super) unit: String,
    /// `a-b.slice`
    pub(super) slice: String,
    /// `a.slice/a-b.slice`: the cgroup of the slice, below that of the manager.
    pub(super) parents: PathBuf,
}

/// Reads linux.cgroupsPath as `slice:prefix:name`: the unit `prefix-name.scope`
/// in that slice. Without a path, or with an empty slice, it is what runc makes
/// of it: `system.slice`, `user.slice` for an ordinary user; `-` is the slice of
/// all. Without a path, the unit is `tare-ID.scope`.
///
/// # Errors
/// A path of another form; names that systemd does not take.
pub(super) fn parse(cgroups_path: Option<&Path>, id: &str, user: bool) -> Result<Names> {
    let text = cgroups_path.map(|path| path.to_string_lossy()).unwrap_or_default();
    let (slice, prefix, name) = match text.split(':').collect::<Vec<_>>()[..] {
        [""] => ("", "tare", id),
        [slice, prefix, name] => (slice, prefix, name),
        _ => {
            let what = format!("{FIELD}: {text:?} is not of the form slice:prefix:name");
            return Err(Error::invalid(what).hint("which --systemd-cgroup wants"));
        }
    };
    if name.is_empty() {
        return Err(Error::invalid(format!("{FIELD}: {text:?} has no name behind its prefix")));
    }
    if name.ends_with(".slice") {
        return Err(Error::invalid(format!(
            "{FIELD}: {name} is a slice, which can have no process: a container is a scope"
        )));
    }
    let slice = match (slice, user) {
        ("", true) => "user.slice",
        ("", false) => "system.slice",
        ("-", _) => "-.slice",
        (other, _) => other,
    };
    let unit = format!("{prefix}-{name}.scope");
    check_unit(&unit)?;
    Ok(Names { unit, slice: slice.to_owned(), parents: expand(slice)? })
}

/// systemd.unit(5): what a name of a unit may consist of.
fn check_unit(unit: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some(wrong) = unit.chars().find(|c| !fine(*c)) {
        return Err(Error::invalid(format!(
            "{FIELD}: {unit:?}, the name of the unit, may not have {wrong:?} inside"
        ))
        .hint("give one as slice:prefix:name"));
    }
    if unit.len() > LONGEST {
        return Err(Error::invalid(format!(
            "{FIELD}: {unit:?}, the name of the unit, is longer than {LONGEST} bytes"
        )));
    }
    Ok(())
}

/// The cgroup of a slice: `a-b-c.slice` is in `a-b.slice`, which is in
/// `a.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Result<PathBuf> {
    if slice == "-.slice" {
        return Ok(PathBuf::new());
    }
    let wrong = |why: &str| Err(Error::invalid(format!("{FIELD}: {slice:?} {why}")));
    let Some(name) = slice.strip_suffix(".slice") else {
        return wrong("is not a slice: its name has to end in .slice");
    };
    if name.contains('/') {
        return wrong("has a / inside: a-b.slice is the one that is below a.slice");
    }
    if name.split('-').any(str::is_empty) {
        return wrong("has an empty part: each - leads one slice further down");
    }
    check_unit(slice)?;
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.filter_map(|end| name.get(..end)).map(|part| format!("{part}.slice")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, user: bool) -> String {
        match parse(Some(Path::new(path)), "box1", user) {
            Ok(names) => format!("{} {} {}", names.unit, names.slice, names.parents.display()),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn every_form_has_its_unit() {
        for (path, user, expected) in [
            ("", false, "tare-box1.scope system.slice system.slice"),
            ("", true, "tare-box1.scope user.slice user.slice"),
            (":a:b", false, "a-b.scope system.slice system.slice"),
            (":a:b", true, "a-b.scope user.slice user.slice"),
            ("machine.slice:libpod:0f", false, "libpod-0f.scope machine.slice machine.slice"),
            ("system.slice::b", false, "-b.scope system.slice system.slice"),
            ("-:a:b", false, "a-b.scope -.slice "),
            (
                "k-pod-x_1.slice:cri-containerd:9",
                false,
                "cri-containerd-9.scope k-pod-x_1.slice k.slice/k-pod.slice/k-pod-x_1.slice",
            ),
        ] {
            assert_eq!(names(path, user), expected, "{path}");
        }
        assert_eq!(parse(None, "x", false).unwrap().unit, "tare-x.scope");
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        let form = "is not of the form slice:prefix:name (which --systemd-cgroup wants)";
        for (path, expected) in [
            ("/a/b", format!("\"/a/b\" {form}")),
            ("a.slice:b", format!("\"a.slice:b\" {form}")),
            ("a.slice:b:c:d", format!("\"a.slice:b:c:d\" {form}")),
            ("a.slice:b:", "\"a.slice:b:\" has no name behind its prefix".to_owned()),
            (
                "a.slice:b:c.slice",
                "c.slice is a slice, which can have no process: a container is a scope".to_owned(),
            ),
            ("a:b:c", "\"a\" is not a slice: its name has to end in .slice".to_owned()),
            (
                "a.slice/b.slice:b:c",
                "\"a.slice/b.slice\" has a / inside: a-b.slice is the one that is below a.slice"
                    .to_owned(),
            ),
            (
                "a--b.slice:b:c",
                "\"a--b.slice\" has an empty part: each - leads one slice further down".to_owned(),
            ),
            (
                ".slice:b:c",
                "\".slice\" has an empty part: each - leads one slice further down".to_owned(),
            ),
            (
                ":b:c/d",
                "\"b-c/d.scope\", the name of the unit, may not have '/' inside \
                 (give one as slice:prefix:name)"
                    .to_owned(),
            ),
        ] {
            assert_eq!(names(path, false), format!("linux.cgroupsPath: {expected}"));
        }
        let long = format!(":b:{}", "c".repeat(300));
        assert!(names(&long, false).ends_with("is longer than 255 bytes"));
        let plus = parse(None, "a+b", false).unwrap_err().to_string();
        assert!(plus.contains("\"tare-a+b.scope\""), "{plus}");
    }
}
