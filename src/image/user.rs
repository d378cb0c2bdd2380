//! Users of an image, looked up in its own files.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Error, Result, Step};
use crate::sys::fs::open_in_root;

/// Most bytes of a passwd or group file.
const MOST: u64 = 4 << 20;

/// A user as a process has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups: those that list the user, if it was given by name and
    /// without a group.
    pub groups: Vec<u32>,
    /// The home directory, if passwd has the user.
    pub home: Option<String>,
}

/// Resolves `USER[:GROUP]`, each a name or a number, against /etc/passwd and
/// /etc/group in `root`. Empty text is root.
///
/// # Errors
/// Invalid for a name that isn't there, and for a number above 2147483647:
/// further up, 32-bit wrap-arounds have made root of others.
pub fn resolve(root: BorrowedFd<'_>, text: &str) -> Result<User> {
    let passwd = read(root, "/etc/passwd")?;
    let group = || read(root, "/etc/group");
    find(text, &passwd, group).step(|| format!("user {text:?}"))
}

fn find(text: &str, passwd: &str, group: impl Fn() -> Result<String>) -> Result<User> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let number = number(name)?;
    let wanted = match (name, number) {
        ("", _) => Some(0),
        (_, number) => number,
    };
    let entry = passwd.lines().filter_map(Entry::parse).find(|entry| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == name,
    });
    let uid = match (wanted, &entry) {
        (Some(uid), _) => uid,
        (None, Some(entry)) => entry.uid,
        (None, None) => return Err(Error::invalid("no such user in the image's /etc/passwd")),
    };
    let mut user = User {
        uid,
        gid: entry.as_ref().map_or(0, |e| e.gid),
        groups: Vec::new(),
        home: entry.as_ref().map(|e| e.home.to_owned()).filter(|h| !h.is_empty()),
    };
    match group_name {
        Some(group_name) => user.gid = find_group(group_name, &group()?)?,
        None if wanted.is_none() => {
            let file = group()?;
            user.groups = groups(&file)
                .filter(|g| g.gid != user.gid && g.members.split(',').any(|m| m == name))
                .map(|g| g.gid)
                .collect();
            user.groups.dedup();
        }
        None => {}
    }
    check(user.uid)?;
    check(user.gid)?;
    user.groups.iter().try_for_each(|gid| check(*gid))?;
    Ok(user)
}

/// A number, if the text is one.
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse().unwrap_or(u32::MAX);
    check(id)?;
    Ok(Some(id))
}

fn check(id: u32) -> Result<()> {
    if i32::try_from(id).is_ok() {
        return Ok(());
    }
    Err(Error::invalid("the id is out of range (0 to 2147483647)"))
}

fn find_group(name: &str, file: &str) -> Result<u32> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    let group = groups(file).find(|g| g.name == name);
    group.map(|g| g.gid).ok_or_else(|| Error::invalid("no such group in the image's /etc/group"))
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    /// A line of passwd; what doesn't parse is passed over, as libc does.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid, gid, home })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(file: &str) -> impl Iterator<Item = Group<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        Some(Group { name, gid, members })
    })
}

/// A file of the image, opened inside its root: a link can't lead to the
/// host's, a fifo can't block, a huge file can't fill the memory.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let step = || format!("the image's {path}");
    let flags = OFlag::O_PATH;
    let found = match open_in_root(root, Path::new(path), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        other => File::from(other.step(step)?),
    };
    let meta = found.metadata().step(step)?;
    if !meta.is_file() {
        return Err(Error::invalid("not a regular file").step(step()));
    }
    if meta.len() > MOST {
        return Err(Error::invalid(format!("more than {MOST} bytes")).step(step()));
    }
    // the way back to the same inode, for reading
    let file = File::open(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd())).step(step)?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).step(step)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:\nbroken\n\
                          big:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\nappgroup:x:1001:app\nvideo:x:44:root,app\n";

    fn user(text: &str) -> Result<User> {
        find(text, PASSWD, || Ok(GROUP.to_owned()))
    }

    #[test]
    fn names_and_numbers() {
        let ids = |text| user(text).map(|u| (u.uid, u.gid, u.groups)).unwrap();
        assert_eq!(ids(""), (0, 0, vec![]));
        assert_eq!(ids("app"), (1000, 1001, vec![44]));
        assert_eq!(ids("app:video"), (1000, 44, vec![]));
        assert_eq!(ids("app:7"), (1000, 7, vec![]));
        assert_eq!(ids("1000"), (1000, 1001, vec![]));
        assert_eq!(ids("5"), (5, 0, vec![]));
        assert_eq!(ids("5:6"), (5, 6, vec![]));
        assert_eq!(user("app").unwrap().home.as_deref(), Some("/home/app"));
    }

    #[test]
    fn unknown_and_out_of_range() {
        for bad in ["nobody", "app:nogroup", "2147483648", "4294967296", "0:4294967295", "big"] {
            assert!(user(bad).is_err(), "{bad}");
        }
        assert!(user("2147483647").is_ok());
    }
}
