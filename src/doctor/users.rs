//! What an ordinary user would need for containers of their own.

use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::Host;
use super::filesystems::use_overlay;
use super::programs::{Raised, find, raised};
use super::report::Finding;
use super::trial::{self, COVERED};
use crate::error::{Error, Result, Step};
use crate::sys::fs::open_dir;
use crate::sys::mount::{FsContext, move_mount};
use crate::sys::process::set_identity;
use std::os::fd::AsFd;

/// The ids that no file belongs to.
const NOBODY: u32 = 65534;

/// Makes a user namespace as an ordinary user, for the switches are for them.
pub(super) fn try_user_namespace(host: &Host) -> Result<()> {
    trial::apart(|| {
        if host.is_root() {
            set_identity(NOBODY, NOBODY, Some(&[]))
                .step(|| "become an ordinary user")
                .map_err(trial::untried)?;
        }
        unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::from)
    })
}

pub(super) fn user_namespaces(host: &Host) -> Finding {
    match try_user_namespace(host) {
        Ok(()) => Finding::info("ordinary users can make them"),
        Err(e) => allowed(Finding::info_because("ordinary users can't make them", &e)),
    }
}

/// With the switch that would allow them.
pub(super) fn allowed(finding: Finding) -> Finding {
    match switched_off(|path| std::fs::read_to_string(path).ok()) {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// Which switch keeps user namespaces from ordinary users.
fn switched_off(read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    for (path, off, on) in [
        ("/proc/sys/user/max_user_namespaces", "0", "10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        if is(path, off) {
            let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
            return Some(format!("sysctl -w {name}={on}"));
        }
    }
    None
}

/// One line of /etc/subuid or /etc/subgid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRange {
    first: u32,
    count: u32,
}

/// The ranges that a user has in a text of subuid(5), by name or by number.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    let uid = uid.to_string();
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != uid && Some(owner) != name {
            return None;
        }
        let first = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        (fields.next().is_none() && count > 0).then_some(IdRange { first, count })
    });
    lines.collect()
}

fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

pub(super) fn id_ranges(_: &Host) -> Finding {
    let uid = geteuid().as_raw();
    let name = user_name(uid);
    let name = name.as_deref();
    let shown = name.map_or_else(|| format!("uid {uid}"), str::to_owned);
    let count = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        ranges(&text, name, uid).iter().map(|range| u64::from(range.count)).sum::<u64>()
    };
    match (count("/etc/subuid"), count("/etc/subgid")) {
        (0, _) | (_, 0) => Finding::info(format!("{shown} has no ranges of ids in both")).hint(
            format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shown}"),
        ),
        (uids, gids) => Finding::info(format!("{shown} has {uids} user ids and {gids} group ids")),
    }
}

pub(super) fn id_helpers(_: &Host) -> Finding {
    let all = ["newuidmap", "newgidmap"].map(|name| match find(name) {
        None => (false, format!("{name} is not installed")),
        Some(path) => match raised(&path) {
            Ok(Raised::Setuid) => (true, format!("{name} is setuid")),
            Ok(Raised::Capabilities) => (true, format!("{name} has file capabilities")),
            Ok(Raised::No) => (false, format!("{name} has neither setuid nor file capabilities")),
            Err(e) => (false, format!("{name}: {e}")),
        },
    });
    let fine = all.iter().all(|(fine, _)| *fine);
    let found = Finding::info(all.map(|(_, text)| text).join(", "));
    if fine { found } else { found.hint("install uidmap (Debian) or shadow-utils (Fedora)") }
}

/// An overlay on a tmpfs in a user namespace, with its marks in `user.*`
/// attributes.
pub(super) fn overlay(_: &Host) -> Finding {
    let attempt = trial::as_user(CloneFlags::CLONE_NEWNS, || {
        trial::cut_off()?;
        let mount = FsContext::open("tmpfs")?.mount(0)?;
        move_mount(mount.as_fd(), open_dir(Path::new(COVERED))?.as_fd()).step(|| "move_mount")?;
        mount_for_user(Path::new(COVERED))
    });
    match attempt {
        Ok(()) => Finding::info("work in a user namespace, with userxattr"),
        Err(e) => Finding::info_because("don't work in a user namespace", &e),
    }
}

fn mount_for_user(dir: &Path) -> Result<()> {
    let part = |name: &str| dir.join(name);
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(part(name)).step(|| name)?;
    }
    let file = part("lower").join("file");
    std::fs::File::create(file).and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))?;
    let context = FsContext::open("overlay")?;
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        context.set(key, &part(name).to_string_lossy())?;
    }
    context.set_flag("userxattr")?;
    use_overlay(context.mount(0)?.as_fd())
}

/// Whether the cgroups of this process are its user's to change.
pub(super) fn delegation(host: &Host) -> Finding {
    let Ok(hierarchy) = &host.hierarchy else {
        return Finding::info("no cgroup2 is mounted");
    };
    let own = match hierarchy.own_cgroup() {
        Ok(own) => own,
        Err(e) => return Finding::info(e.to_string()),
    };
    let shown = Path::new("/").join(&own);
    let shown = shown.display();
    if host.is_root() {
        return Finding::info(format!("{shown}; root may change all"));
    }
    // processes move from the own cgroup into its siblings: both the parent's
    // directory and its list of processes have to be the user's
    let parent: PathBuf = own.parent().map(Path::to_owned).unwrap_or_default();
    let parent = hierarchy.mount_point().join(parent);
    let closed: Vec<&str> = ["", "cgroup.procs", "cgroup.subtree_control"]
        .into_iter()
        .filter(|file| {
            let path = parent.join(file);
            faccessat(AT_FDCWD, &path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_err()
        })
        .collect();
    if closed.is_empty() {
        return Finding::info(format!("{shown} is delegated to this user"));
    }
    Finding::info(format!("{shown} is not delegated to this user")).hint(
        "systemd-run --user --scope -p Delegate=yes tare …, or Delegate=yes in a service of the user",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text =
            "alice:100000:65536\nbob:165536:65536\n1000:300000:10\n\n# no comment\nalice:1\n";
        let found = ranges(text, Some("alice"), 1000);
        let expected = [(100_000, 65536), (300_000, 10)];
        assert_eq!(found, expected.map(|(first, count)| IdRange { first, count }));
        assert_eq!(ranges(text, None, 0), []);
        assert_eq!(ranges("alice:100000:0\nalice:x:1\nalice:1:2:3\n", Some("alice"), 1), []);
    }

    #[test]
    fn the_switch_is_named() {
        let only = |path: &'static str, value: &'static str| {
            move |asked: &str| (asked == path).then(|| format!("{value}\n"))
        };
        let found = switched_off(only("/proc/sys/kernel/unprivileged_userns_clone", "0"));
        assert_eq!(found.unwrap(), "sysctl -w kernel.unprivileged_userns_clone=1");
        let restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
        let found = switched_off(only(restricted, "1"));
        assert_eq!(found.unwrap(), "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
        assert_eq!(switched_off(only("/proc/sys/user/max_user_namespaces", "96365")), None);
    }
}
