//! The form of layers: that of the machine's root, or that which an ordinary
//! user (or root of a user namespace) can write and the kernel reads for him.
//!
//! | | root | others |
//! |---|---|---|
//! | opaque directories | `trusted.overlay.opaque` | `user.overlay.opaque` |
//! | whiteouts | devices 0:0 | the same: no permission is needed |
//! | other devices | made | left out |
//! | owners | kept | kept as far as the user namespace has them; with a single id, all are that |
//! | attributes | kept | without trusted.*, and of security.* file capabilities alone |

use std::borrow::Cow;
use std::ffi::CStr;
use std::sync::OnceLock;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::spec::rootless::own_maps;
use crate::sys::caller::caller;

/// True for layers that are not the machine's root's.
pub(crate) fn is_users() -> bool {
    !caller().is_host_root()
}

/// The xattr that hides what lower layers have in a directory.
pub(crate) fn opaque() -> &'static CStr {
    if is_users() { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" }
}

/// How the names of overlayfs' own attributes begin.
pub(crate) fn prefix() -> &'static [u8] {
    if is_users() { b"user.overlay." } else { b"trusted.overlay." }
}

/// The name under which a layer keeps an attribute of the image; `None`: it does
/// not.
///
/// A label of the machine that built the image means nothing to this one's
/// policy, and NFS access lists fit no file system that can be an overlay.
pub(crate) fn kept_name(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    match name {
        b"security.selinux" | b"system.nfs4_acl" => None,
        b"security.capability" => Some(Cow::Borrowed(name)),
        _ if is_users() => match name.strip_prefix(b"user.overlay.") {
            // one level down, for overlays in the container (trusted ones have
            // been escaped by the reader of the archive)
            Some(rest) => Some(Cow::Owned([b"user.overlay.overlay.", rest].concat())),
            None => {
                let is_roots = name.starts_with(b"trusted.") || name.starts_with(b"security.");
                (!is_roots).then_some(Cow::Borrowed(name))
            }
        },
        _ => Some(Cow::Borrowed(name)),
    }
}

/// The name that an attribute of a layer has in the merged tree; `None` for
/// overlayfs' own.
pub(crate) fn merged_name(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(rest) = name.strip_prefix(prefix()) else { return Some(Cow::Borrowed(name)) };
    let escaped = rest.strip_prefix(b"overlay.")?;
    Some(Cow::Owned([prefix(), escaped].concat()))
}

/// What became of a change of owner: false if there is but one id to have.
///
/// # Errors
/// The id is not among several that the user namespace has.
pub(crate) fn owned(changed: nix::Result<()>) -> Result<bool> {
    match changed {
        Err(Errno::EINVAL) if is_users() => match has_one_id() {
            true => Ok(false),
            false => Err(Error::from(Errno::EINVAL).step("chown").hint(
                "an owner that the user namespace lacks: give this user more ids in /etc/subuid \
                 and /etc/subgid",
            )),
        },
        other => Ok(other.map(|()| true)?),
    }
}

/// What became of a device node: false if it is left out.
pub(crate) fn node(made: Result<()>) -> Result<bool> {
    match made {
        Err(e) if is_users() && e.is_errno(Errno::EPERM) => Ok(false),
        other => other.map(|()| true),
    }
}

fn has_one_id() -> bool {
    static ONE: OnceLock<bool> = OnceLock::new();
    *ONE.get_or_init(|| {
        own_maps().is_ok_and(|(uids, _)| matches!(uids.as_slice(), [only] if only.size == 1))
    })
}
