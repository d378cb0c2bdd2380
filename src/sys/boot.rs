//! Which start of the machine this is.

use std::fs;
use std::io;
use std::path::Path;

use super::fs::is_mount_root;

const ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this start of the machine: another one has another (random(4)).
///
/// # Errors
/// There is no /proc. Unsupported where something is mounted over the id: in a container
/// it may be told one of its own, while the kernel goes on with another.
pub fn id() -> io::Result<String> {
    if is_mount_root(Path::new(ID))? {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(fs::read_to_string(ID)?.trim_end().to_owned())
}

/// Whether an id is that of an earlier start. Where the kernel does not say which one
/// this is, none is over.
pub fn is_over(other: &str) -> bool {
    id().is_ok_and(|id| id != other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_start_is_not_over() {
        assert_eq!(id().unwrap().len(), 36);
        assert!(!is_over(&id().unwrap()));
        assert!(is_over("6e3b4f2c-0000-0000-0000-000000000000"));
    }
}
