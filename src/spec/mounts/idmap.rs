//! Mounts that show files under other owners: idmap, ridmap, uidMappings and
//! gidMappings of mounts (config.md; mount_setattr(2), "ID-mapped mounts").

use nix::sched::CloneFlags;
use oci_spec::runtime::Mount;

use crate::error::{Error, Result, Step};
use crate::spec::namespaces::{IdMapping, NamespacePlan, mappings};

/// An idmapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdmapPlan {
    /// With the mounts below it.
    pub recursive: bool,
    /// Whose ids it shows.
    pub ids: MountIds,
}

/// How owners on disk become owners as the mount shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountIds {
    /// By the maps of the container's user namespace: an owner on disk is that
    /// id in the container.
    Container,
    /// By maps of the mount's own, from the id on disk (`container`) to the id
    /// of the host that is shown (`host`).
    Own {
        /// Of users.
        uid_map: Vec<IdMapping>,
        /// Of groups.
        gid_map: Vec<IdMapping>,
    },
}

/// One of the words idmap and ridmap, with what may follow:
/// `idmap=uids=DISK-HOST-SIZE[#…];gids=…`, where `@` before a range makes its
/// second number an id of the container (crun(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdmapWord {
    recursive: bool,
    uids: Vec<Range>,
    gids: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    in_container: bool,
    ids: IdMapping,
}

impl IdmapWord {
    /// `None` for any other word.
    pub(super) fn parse(option: &str) -> Result<Option<Self>> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let recursive = match name {
            "idmap" => false,
            "ridmap" => true,
            _ => return Ok(None),
        };
        let mut word = IdmapWord { recursive, uids: Vec::new(), gids: Vec::new() };
        for part in value.into_iter().flat_map(|value| value.split(';')) {
            let wrong = || {
                Error::invalid(format!("{option:?} is not of the form {name}=uids=A-B-N#…;gids=…"))
            };
            match part.split_once('=').ok_or_else(wrong)? {
                ("uids", list) => word.uids = ranges(list).ok_or_else(wrong)?,
                ("gids", list) => word.gids = ranges(list).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            }
        }
        if value.is_some() && (word.uids.is_empty() || word.gids.is_empty()) {
            return Err(Error::invalid(format!("{option:?} needs both, uids= and gids=")));
        }
        Ok(Some(word))
    }

    /// The two words for one mount.
    pub(super) fn and(self, other: Self) -> Result<Self> {
        let recursive = self.recursive || other.recursive;
        match (self.uids.is_empty(), other.uids.is_empty()) {
            (_, true) => Ok(IdmapWord { recursive, ..self }),
            (true, false) => Ok(IdmapWord { recursive, ..other }),
            _ => Err(Error::invalid("idmap has maps twice")),
        }
    }
}

fn ranges(list: &str) -> Option<Vec<Range>> {
    list.split('#').map(range).collect()
}

fn range(text: &str) -> Option<Range> {
    let (in_container, text) = match text.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut numbers = text.split('-').map(|number| number.parse::<u32>().ok());
    let (container, host, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let ids = IdMapping { container, host, size };
    (numbers.next().is_none() && ids.is_range()).then_some(Range { in_container, ids })
}

impl IdmapPlan {
    /// From the word and the mappings of one mount; `None` without either.
    pub(super) fn resolve(
        index: usize,
        mount: &Mount,
        word: Option<IdmapWord>,
        namespaces: &NamespacePlan,
    ) -> Result<Option<Self>> {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let uid_map = mappings(&field("uidMappings"), mount.uid_mappings().as_deref())?;
        let gid_map = mappings(&field("gidMappings"), mount.gid_mappings().as_deref())?;
        for (has, lacks, is_missing) in [
            ("uidMappings", "gidMappings", !uid_map.is_empty() && gid_map.is_empty()),
            ("gidMappings", "uidMappings", uid_map.is_empty() && !gid_map.is_empty()),
        ] {
            if is_missing {
                return Err(Error::invalid(format!("{}: needs {lacks} as well", field(has))));
            }
        }
        let recursive = word.as_ref().is_some_and(|word| word.recursive);
        let plan = |ids| Ok(Some(IdmapPlan { recursive, ids }));
        let has_maps = !uid_map.is_empty();
        match word {
            Some(word) if !word.uids.is_empty() => {
                if has_maps {
                    return Err(Error::invalid("idmap has maps, and so has the mount: give one")
                        .step(field("options")));
                }
                let step = || field("options");
                plan(MountIds::Own {
                    uid_map: on_host(&word.uids, &namespaces.uid_map).step(step)?,
                    gid_map: on_host(&word.gids, &namespaces.gid_map).step(step)?,
                })
            }
            _ if has_maps => plan(MountIds::Own { uid_map, gid_map }),
            None => Ok(None),
            Some(_) if namespaces.separates(CloneFlags::CLONE_NEWUSER) => plan(MountIds::Container),
            Some(_) => Err(Error::invalid(
                "idmap: without uidMappings and gidMappings of the mount it needs a user \
                 namespace, whose maps it could take",
            )
            .step(field("options"))),
        }
    }
}

/// With ids of the container turned into those of the host.
fn on_host(ranges: &[Range], map: &[IdMapping]) -> Result<Vec<IdMapping>> {
    let shift = |range: &Range| {
        let ids = range.ids;
        if !range.in_container {
            return Ok(ids);
        }
        let end = ids.host.saturating_add(ids.size);
        let holds =
            |m: &&IdMapping| ids.host >= m.container && end <= m.container.saturating_add(m.size);
        match map.iter().find(holds) {
            Some(m) => Ok(IdMapping { host: m.host + (ids.host - m.container), ..ids }),
            None => Err(Error::invalid(format!(
                "@{}-{}-{}: {} to {} are not in one range of the container's own mappings",
                ids.container,
                ids.host,
                ids.size,
                ids.host,
                end - 1
            ))),
        }
    };
    ranges.iter().map(shift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container: u32, host: u32, size: u32) -> IdMapping {
        IdMapping { container, host, size }
    }

    fn own(option: &str, container: &[IdMapping]) -> Result<MountIds> {
        let namespaces = NamespacePlan {
            uid_map: container.to_vec(),
            gid_map: container.to_vec(),
            ..NamespacePlan::default()
        };
        let word = IdmapWord::parse(option)?;
        let plan = IdmapPlan::resolve(0, &Mount::default(), word, &namespaces)?;
        Ok(plan.unwrap().ids)
    }

    #[test]
    fn maps_behind_the_word() {
        let ids = own("idmap=uids=0-1-10#10-11-10;gids=0-100-10", &[]).unwrap();
        let uid_map = vec![map(0, 1, 10), map(10, 11, 10)];
        assert_eq!(ids, MountIds::Own { uid_map, gid_map: vec![map(0, 100, 10)] });
    }

    #[test]
    fn ids_of_the_container_become_the_hosts() {
        let container = [map(0, 0, 1), map(1, 2, 1000)];
        let ids = own("ridmap=uids=@1-3-10;gids=@0-0-1", &container).unwrap();
        let (uid_map, gid_map) = (vec![map(1, 4, 10)], vec![map(0, 0, 1)]);
        assert_eq!(ids, MountIds::Own { uid_map, gid_map });
        let text = own("idmap=uids=@0-0-2;gids=0-0-1", &container).unwrap_err().to_string();
        assert!(text.starts_with("mounts[0].options: @0-0-2: "), "{text}");
    }

    #[test]
    fn wrong_words() {
        for option in [
            "idmap=",
            "idmap=uids=0-0",
            "idmap=uids=0-0-1",
            "idmap=uids=0-0-0;gids=0-0-1",
            "idmap=uids=0-0-1-2;gids=0-0-1",
            "idmap=uids=0-4294967295-2;gids=0-0-1",
            "ridmap=users=0-0-1;gids=0-0-1",
        ] {
            assert!(IdmapWord::parse(option).is_err(), "{option}");
        }
        assert_eq!(IdmapWord::parse("idmapped").unwrap(), None);
    }
}
