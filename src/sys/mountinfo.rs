//! The mount table as text: /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of the table. Fields are decoded when they are asked for: most
/// lines are passed over for their type.
#[derive(Debug, Clone, Copy)]
pub struct Mount<'a> {
    /// What is before the separator.
    mount: &'a [u8],
    /// What is after it.
    fs: &'a [u8],
}

/// The mounts of a table in its order, which is that of mounting. Lines of
/// another form are left out.
pub fn mounts(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        // a field that is a lone dash, after any number of optional fields
        let at = line.windows(3).position(|w| w == b" - ")?;
        Some(Mount { mount: line.get(..at)?, fs: line.get(at + 3..)? })
    })
}

impl<'a> Mount<'a> {
    /// Its number, as in /proc/PID/fdinfo.
    pub fn id(&self) -> Option<u64> {
        std::str::from_utf8(field(self.mount, 0)).ok()?.parse().ok()
    }

    /// The directory of the file system that is its root.
    pub fn root(&self) -> PathBuf {
        unescape(field(self.mount, 3))
    }

    /// Where it is.
    pub fn point(&self) -> PathBuf {
        unescape(field(self.mount, 4))
    }

    /// The type of its file system: `cgroup2`.
    pub fn fstype(&self) -> &'a [u8] {
        field(self.fs, 0)
    }

    /// True if this very mount has an option, such as `noexec`.
    pub fn has_option(&self, option: &str) -> bool {
        has(field(self.mount, 5), option)
    }

    /// True if its file system has an option, such as `nsdelegate`.
    pub fn has_fs_option(&self, option: &str) -> bool {
        has(field(self.fs, 2), option)
    }
}

fn field(fields: &[u8], at: usize) -> &[u8] {
    fields.split(|byte| *byte == b' ').nth(at).unwrap_or_default()
}

fn has(options: &[u8], option: &str) -> bool {
    options.split(|byte| *byte == b',').any(|one| one == option.as_bytes())
}

/// Undoes the octal escapes (`\040` for a space).
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_after_any_number_of_optional_ones() {
        let table = b"\
35 31 0:32 /pod /sys/fs/cgroup/memory rw,nosuid shared:8 master:2 - cgroup cgroup rw,memory
41 31 0:38 /a\\040b /mnt/two\\134words rw,relatime - cgroup2 none rw,nsdelegate
torn line
";
        let all: Vec<_> = mounts(table).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].id(), all[1].id()), (Some(35), Some(41)));
        assert_eq!(all[0].root(), PathBuf::from("/pod"));
        assert_eq!(all[1].root(), PathBuf::from("/a b"));
        assert_eq!(all[1].point(), PathBuf::from("/mnt/two\\words"));
        assert_eq!(all[1].fstype(), b"cgroup2");
        assert!(all[0].has_option("nosuid") && !all[0].has_option("memory"));
        assert!(all[0].has_fs_option("memory") && !all[0].has_fs_option("nosuid"));
        assert!(all[1].has_fs_option("nsdelegate"));
    }
}
