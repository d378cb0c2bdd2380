//! Handing a cgroup to the user who is to divide it (config-linux.md, "Cgroup
//! ownership").

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstat;
use nix::unistd::{Uid, fchownat, geteuid};

use super::Cgroup;
use crate::error::{Result, Step};
use crate::sys::caller::caller;

/// The files that go with the directory (cgroups(7); Linux 4.15).
const LISTED: &str = "/sys/kernel/cgroup/delegate";

/// The same where there is no such list.
const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Cgroup {
    /// Makes a user the owner of the directory and of the files by which a cgroup is
    /// divided: of no limit. Files that it lacks are passed over.
    ///
    /// # Errors
    /// No permission: it takes CAP_CHOWN.
    pub fn give_to(&self, uid: Uid) -> Result<()> {
        // the directory first: take_back goes by it, whoever is killed between the two
        self.give_dir(uid)?;
        self.give_files(uid)
    }

    fn give_dir(&self, uid: Uid) -> Result<()> {
        let given = fchownat(self.dir(), "", Some(uid), None, AtFlags::AT_EMPTY_PATH);
        given.step(|| self.giving("", uid))
    }

    fn give_files(&self, uid: Uid) -> Result<()> {
        let listed = std::fs::read_to_string(LISTED).unwrap_or_else(|_no_list| USUAL.to_owned());
        let files = listed.lines().filter(|line| !line.is_empty() && !line.contains('/'));
        for file in files {
            match fchownat(self.dir(), file, Some(uid), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => {}
                other => other.step(|| self.giving(file, uid))?,
            }
        }
        Ok(())
    }

    fn giving(&self, file: &str, uid: Uid) -> String {
        format!("give {}/{file} to uid {uid}", self.path().display())
    }

    /// Makes it root's again, if root has given it away: only what is root's is taken
    /// over.
    pub(super) fn take_back(&self) -> Result<()> {
        let owner = fstat(self.dir()).step(|| format!("cgroup {}", self.path().display()))?.st_uid;
        if !caller().is_host_root() || owner == geteuid().as_raw() {
            return Ok(());
        }
        // the directory last, which says that there is something to take back
        self.give_files(geteuid())?;
        self.give_dir(geteuid())
    }
}
