//! mounts: option words into flags, relative paths into absolute ones.

mod attrs;
mod idmap;
mod options;

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use self::options::{Words, is_of_superblock};
use super::namespaces::NamespacePlan;
use crate::error::{Error, Result};

pub use attrs::{AttrChange, Propagation};
pub use idmap::{IdmapPlan, MountIds};
pub(super) use options::option_words;

/// An option that the file system itself understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsOption {
    /// Its name.
    pub key: String,
    /// Its value, if it takes one.
    pub value: Option<String>,
}

/// What becomes of a bind mount whose source is a symbolic link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceLink {
    /// What it leads to is mounted.
    #[default]
    Follow,
    /// The link itself is mounted (src-nofollow).
    Mount,
    /// The link is made again at the destination (copy-symlink).
    Copy,
}

/// A file or directory of the host, and how it is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindPlan {
    /// Where on the host, absolute.
    pub source: PathBuf,
    /// With the mounts below it.
    pub recursive: bool,
    /// If the source is a symbolic link.
    pub source_link: SourceLink,
    /// A symbolic link at the destination is mounted over, not followed
    /// (dest-nofollow).
    pub dest_nofollow: bool,
    /// Shown under other owners.
    pub idmap: Option<IdmapPlan>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind(BindPlan),
    /// A new instance of a file system.
    Filesystem {
        /// Its type.
        fstype: String,
        /// What stands as the source in the mount table.
        source: String,
        /// Options for fsconfig.
        options: Vec<FsOption>,
        /// What the image has there is copied into it (tmpcopyup).
        copies_up: bool,
    },
    /// The container's own cgroup.
    Cgroup,
    /// Only new attributes for what is mounted there already, and options for its file
    /// system.
    Remount(Vec<FsOption>),
}

/// One mount, with nothing left open.
#[derive(Debug, Clone)]
pub struct MountPlan {
    /// Where, as a path inside the container.
    pub destination: PathBuf,
    /// What.
    pub kind: MountKind,
    /// Attributes of the mount itself.
    pub attrs: AttrChange,
    /// Attributes of it and everything below.
    pub recursive_attrs: AttrChange,
    /// Propagation, in the order given.
    pub propagation: Vec<Propagation>,
}

impl MountPlan {
    /// `mount DESTINATION (what)`: how errors name this mount.
    pub fn label(&self) -> String {
        let at = self.destination.display();
        match &self.kind {
            MountKind::Bind(bind) => {
                format!("mount {at} (bind from {})", bind.source.display())
            }
            MountKind::Filesystem { fstype, .. } => format!("mount {at} ({fstype})"),
            MountKind::Cgroup => format!("mount {at} (cgroup)"),
            MountKind::Remount(_) => format!("mount {at} (remount)"),
        }
    }

    /// A bind mount of the runtime's own.
    pub fn bind(source: PathBuf, destination: PathBuf, attrs: AttrChange) -> Self {
        MountPlan {
            destination,
            kind: MountKind::Bind(BindPlan { source, ..BindPlan::default() }),
            attrs,
            recursive_attrs: AttrChange::default(),
            propagation: Vec::new(),
        }
    }

    pub(super) fn resolve(
        index: usize,
        mount: &Mount,
        bundle: &Path,
        namespaces: &NamespacePlan,
    ) -> Result<Self> {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let destination =
            destination(mount.destination()).map_err(|e| e.step(field("destination")))?;
        let mut words = Words::of(mount.options().as_deref().unwrap_or_default())
            .map_err(|e| e.step(field("options")))?;
        let idmap = IdmapPlan::resolve(index, mount, words.idmap.take(), namespaces)?;
        let mut kind =
            kind(mount, &words, bundle).map_err(|e| e.step(format!("mounts[{index}]")))?;
        let options = field("options");
        check_words(&kind, &words, idmap.is_some()).map_err(|e| e.step(options.clone()))?;
        warn_of_idle(&options, &kind, &words);
        if let MountKind::Bind(bind) = &mut kind {
            bind.idmap = idmap;
        }
        Ok(MountPlan {
            destination,
            kind,
            attrs: words.attrs,
            recursive_attrs: words.recursive_attrs,
            propagation: words.propagation,
        })
    }
}

/// Options of a tmpfs. Configs have them on bind mounts, as they have words for the
/// superblock, which is the source's there: other runtimes and the kernel say nothing to
/// them. A warning, and an error for what nobody can have meant.
const OF_TMPFS: [&str; 6] = ["gid", "mode", "nr_blocks", "nr_inodes", "size", "uid"];

fn is_of_nobody(option: &FsOption) -> bool {
    let key = option.key.as_str();
    OF_TMPFS.contains(&key) || option.value.is_none() && is_of_superblock(key)
}

/// Of a bind mount, and of new attributes alone (remount,bind).
fn has_no_fs(kind: &MountKind) -> bool {
    match kind {
        MountKind::Remount(options) => options.is_empty(),
        kind => matches!(kind, MountKind::Bind(_)),
    }
}

fn warn_of_idle(field: &str, kind: &MountKind, words: &Words) {
    for option in words.fs.iter().filter(|option| has_no_fs(kind) && is_of_nobody(option)) {
        let key = &option.key;
        crate::logging::warn(&format!("{field}: {key:?} does nothing to a bind mount"));
    }
    for option in &words.idle {
        crate::logging::warn(&format!("{field}: {option:?} does nothing here"));
    }
}

/// Checks what becomes a bind mount, before there is a source for it.
///
/// # Errors
/// Invalid for a destination that is the root, and for options that such a mount does not
/// have.
pub(crate) fn check_bind(destination: &Path, options: &[String]) -> Result<()> {
    if lexical(destination) == Path::new("/") {
        return Err(Error::invalid("its destination is the root itself"));
    }
    let words = Words::of(options)?;
    if words.remount {
        return Err(Error::invalid("\"remount\" is no option of a bind mount"));
    }
    check_words(&MountKind::Bind(BindPlan::default()), &words, words.idmap.is_some())
}

/// Words that another kind of mount would have done something with.
fn check_words(kind: &MountKind, words: &Words, is_idmapped: bool) -> Result<()> {
    let is_bind = matches!(kind, MountKind::Bind(_));
    let unknown = words.fs.iter().find(|option| !is_of_nobody(option));
    if let (true, Some(option)) = (has_no_fs(kind), unknown) {
        return Err(Error::invalid(format!("{:?} is no option of a bind mount", option.key)));
    }
    let is_tmpfs = matches!(kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs");
    for (word, is_there, can_be, what) in [
        ("tmpcopyup", words.copies_up, is_tmpfs, "tmpfs"),
        ("idmap", is_idmapped, is_bind, "bind mounts"),
        ("copy-symlink", words.source_link == SourceLink::Copy, is_bind, "bind mounts"),
        ("src-nofollow", words.source_link == SourceLink::Mount, is_bind, "bind mounts"),
        ("dest-nofollow", words.dest_nofollow, is_bind, "bind mounts"),
    ] {
        if is_there && !can_be {
            return Err(Error::invalid(format!("{word} is for {what} alone")));
        }
    }
    if words.dest_nofollow && words.source_link == SourceLink::Copy {
        return Err(Error::invalid("copy-symlink and dest-nofollow exclude each other"));
    }
    Ok(())
}

/// Takes `.` and `..` out of a path, as if it began at `/` and could not leave
/// it.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn destination(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("is empty"));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid("has a NUL byte inside"));
    }
    // a relative path is below / (since runtime-spec 1.0 for other systems, and
    // what runc and crun do on Linux)
    let clean = lexical(path);
    if clean == Path::new("/") {
        return Err(Error::invalid("is the root itself: give it as root.path"));
    }
    Ok(clean)
}

fn is_bind(fstype: &str, words: &Words) -> bool {
    words.bind.is_some() || fstype == "bind"
}

fn kind(mount: &Mount, words: &Words, bundle: &Path) -> Result<MountKind> {
    let fstype = mount.typ().as_deref().unwrap_or_default();
    if words.remount {
        // without "bind" it is the file system that is meant
        let options = if is_bind(fstype, words) { Vec::new() } else { words.fs.clone() };
        return Ok(MountKind::Remount(options));
    }
    if is_bind(fstype, words) {
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        if source.as_os_str().is_empty() {
            return Err(Error::invalid("source: a bind mount needs one"));
        }
        return Ok(MountKind::Bind(BindPlan {
            source: bundle.join(source),
            recursive: words.bind == Some(true),
            source_link: words.source_link,
            dest_nofollow: words.dest_nofollow,
            idmap: None,
        }));
    }
    match fstype {
        "" => Err(Error::invalid("type: is missing, and \"bind\" is not among the options")),
        "cgroup" | "cgroup2" => {
            check_cgroup_options(&words.fs)?;
            Ok(MountKind::Cgroup)
        }
        _ => Ok(MountKind::Filesystem {
            fstype: fstype.to_owned(),
            source: mount
                .source()
                .as_ref()
                .map_or_else(|| fstype.to_owned(), |s| s.to_string_lossy().into_owned()),
            options: words.fs.clone(),
            copies_up: words.copies_up,
        }),
    }
}

/// Options of cgroup2 are the whole hierarchy's, and the host's to choose: the
/// kernel ignores them in a cgroup namespace, and so do we.
fn check_cgroup_options(options: &[FsOption]) -> Result<()> {
    const KNOWN: [&str; 6] = [
        "nsdelegate",
        "favordynmods",
        "memory_localevents",
        "memory_recursiveprot",
        "memory_hugetlb_accounting",
        "pids_localevents",
    ];
    match options.iter().find(|option| !KNOWN.contains(&option.key.as_str())) {
        None => Ok(()),
        Some(option) => {
            Err(Error::invalid(format!("options: {:?} is no option of cgroup2", option.key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::mount::MsFlags;

    use super::super::namespaces::IdMapping;
    use super::*;
    use crate::sys::mount::attr;

    fn resolve(json: &str) -> Result<MountPlan> {
        let mount = serde_json::from_str(json).unwrap();
        MountPlan::resolve(0, &mount, Path::new("/b"), &NamespacePlan::default())
    }

    #[test]
    fn a_tmpfs() {
        let plan = resolve(
            r#"{"destination":"dev/../dev/shm","type":"tmpfs","source":"shm",
                "options":["nosuid","noexec","nodev","mode=1777","size=65536k"]}"#,
        )
        .unwrap();
        assert_eq!(plan.destination, Path::new("/dev/shm"));
        assert_eq!(plan.attrs.set, attr::NOSUID | attr::NOEXEC | attr::NODEV);
        let MountKind::Filesystem { fstype, source, options, .. } = plan.kind else { panic!() };
        assert_eq!((fstype.as_str(), source.as_str()), ("tmpfs", "shm"));
        let size = FsOption { key: "size".into(), value: Some("65536k".into()) };
        assert_eq!(options.last(), Some(&size));
    }

    #[test]
    fn a_bind_with_owners_of_its_own() {
        let plan = resolve(
            r#"{"destination":"/d","source":"/x","options":["rbind","ridmap"],
                "uidMappings":[{"containerID":0,"hostID":1,"size":2}],
                "gidMappings":[{"containerID":0,"hostID":3,"size":4}]}"#,
        )
        .unwrap();
        let map = |host, size| vec![IdMapping { container: 0, host, size }];
        let ids = MountIds::Own { uid_map: map(1, 2), gid_map: map(3, 4) };
        let MountKind::Bind(bind) = plan.kind else { panic!() };
        assert_eq!(bind.idmap, Some(IdmapPlan { recursive: true, ids }));
    }

    #[test]
    fn a_bind_from_the_bundle() {
        let plan = resolve(
            r#"{"destination":"/d","source":"data","options":["rbind","rro","ro","rslave","noatime"]}"#,
        )
        .unwrap();
        let bind = BindPlan { source: "/b/data".into(), recursive: true, ..BindPlan::default() };
        assert_eq!(plan.kind, MountKind::Bind(bind));
        assert_eq!(plan.attrs.set, attr::RDONLY | attr::NOATIME);
        assert_eq!(plan.attrs.clear, attr::ATIME_MASK);
        assert_eq!(plan.recursive_attrs.set, attr::RDONLY);
        let slave = Propagation { kind: MsFlags::MS_SLAVE, recursive: true };
        assert_eq!(plan.propagation, [slave]);
    }

    #[test]
    fn the_last_word_wins() {
        let plan =
            resolve(r#"{"destination":"/d","source":"/x","options":["bind","ro","rw"]}"#).unwrap();
        assert_eq!((plan.attrs.set, plan.attrs.clear), (0, attr::RDONLY));
    }

    #[test]
    fn wrong_input() {
        for (json, part) in [
            (r#"{"destination":"/"}"#, "mounts[0].destination: is the root itself"),
            (r#"{"destination":"/../.."}"#, "mounts[0].destination: is the root itself"),
            (r#"{"destination":"/a"}"#, "mounts[0]: type: is missing"),
            (r#"{"destination":"/a","options":["bind"]}"#, "a bind mount needs one"),
            (r#"{"destination":"/a","source":"/","options":["bind","nosiud"]}"#, "\"nosiud\""),
            (r#"{"destination":"/a","source":"/","options":["bind","idmap"]}"#, "user namespace"),
            (r#"{"destination":"/a","source":"/","options":["bind","tmpcopyup"]}"#, "for tmpfs"),
            (r#"{"destination":"/a","type":"proc","options":["tmpcopyup"]}"#, "for tmpfs"),
            (r#"{"destination":"/a","type":"tmpfs","options":["src-nofollow"]}"#, "for bind"),
            (r#"{"destination":"/a","options":["remount","copy-symlink"]}"#, "for bind"),
            (r#"{"destination":"/a","options":["remount,bind","sise=1"]}"#, "\"sise\""),
            (
                r#"{"destination":"/a","source":"/","options":["bind","copy-symlink","src-nofollow"]}"#,
                "exclude each other",
            ),
            (
                r#"{"destination":"/a","source":"/","options":["bind","copy-symlink","dest-nofollow"]}"#,
                "exclude each other",
            ),
            (
                r#"{"destination":"/a","source":"/","options":["bind"],
                    "uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "mounts[0].uidMappings: needs gidMappings",
            ),
            (
                r#"{"destination":"/a","type":"tmpfs","options":["idmap=uids=0-1-1;gids=0-1-1"]}"#,
                "mounts[0].options: idmap is for bind",
            ),
            (r#"{"destination":"/a","type":"cgroup","options":["ro","none"]}"#, "\"none\""),
        ] {
            let text = resolve(json).unwrap_err().to_string();
            assert!(text.contains(part), "{json}: {text}");
        }
    }
}
