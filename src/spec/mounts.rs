//! mounts: option words into flags, relative paths into absolute ones.

use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;
use oci_spec::runtime::Mount;

use crate::error::{Error, Result};
use crate::sys::mount::attr;

/// An option that the file system itself understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsOption {
    /// Its name.
    pub key: String,
    /// Its value, if it takes one.
    pub value: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Where on the host, absolute.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A new instance of a file system.
    Filesystem {
        /// Its type.
        fstype: String,
        /// What stands as the source in the mount table.
        source: String,
        /// Options for fsconfig.
        options: Vec<FsOption>,
    },
    /// The container's own cgroup.
    Cgroup,
    /// Only new attributes for what is mounted there already.
    Remount,
}

/// A change of propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE.
    pub kind: MsFlags,
    /// For the mounts below as well.
    pub recursive: bool,
}

/// Attributes to set and to clear (see [`attr`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

impl AttrChange {
    /// True when nothing changes.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    /// The same without what the kernel denies to a user namespace on a mount
    /// that it got from outside: taking a restriction away, and another access
    /// time mode (mount_namespaces(7)).
    #[must_use]
    pub fn without_what_locks(self) -> Self {
        let times = attr::ATIME_MASK | attr::NODIRATIME;
        AttrChange { set: self.set & !times, clear: self.clear & attr::NOSYMFOLLOW }
    }

    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    fn set_atime(&mut self, mode: u64) {
        // the three access time modes are one field: the whole of it is
        // cleared first (mount_setattr(2))
        self.clear |= attr::ATIME_MASK;
        self.set = (self.set & !attr::ATIME_MASK) | mode;
    }
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
            MountKind::Bind { source, .. } => {
                format!("mount {at} (bind from {})", source.display())
            }
            MountKind::Filesystem { fstype, .. } => format!("mount {at} ({fstype})"),
            MountKind::Cgroup => format!("mount {at} (cgroup)"),
            MountKind::Remount => format!("mount {at} (remount)"),
        }
    }

    pub(super) fn resolve(index: usize, mount: &Mount, bundle: &Path) -> Result<Self> {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let destination =
            destination(mount.destination()).map_err(|e| e.step(field("destination")))?;
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Error::unsupported(format!("{}: not supported yet", field("uidMappings"))));
        }
        let mut words = Words::default();
        for option in mount.options().as_deref().unwrap_or_default() {
            words.take(option).map_err(|e| e.step(field("options")))?;
        }
        let kind = kind(mount, &words, bundle).map_err(|e| e.step(format!("mounts[{index}]")))?;
        let is_bind = matches!(kind, MountKind::Bind { .. });
        if let (true, Some(option)) = (is_bind, words.fs.first()) {
            return Err(Error::invalid(format!(
                "{}: {:?} is no option of a bind mount",
                field("options"),
                option.key
            )));
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

fn kind(mount: &Mount, words: &Words, bundle: &Path) -> Result<MountKind> {
    let fstype = mount.typ().as_deref().unwrap_or_default();
    if words.remount {
        return Ok(MountKind::Remount);
    }
    if let Some(recursive) = words.bind.or((fstype == "bind").then_some(false)) {
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        if source.as_os_str().is_empty() {
            return Err(Error::invalid("source: a bind mount needs one"));
        }
        return Ok(MountKind::Bind { source: bundle.join(source), recursive });
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

/// Option words, taken apart one by one.
#[derive(Default)]
struct Words {
    attrs: AttrChange,
    recursive_attrs: AttrChange,
    propagation: Vec<Propagation>,
    bind: Option<bool>,
    remount: bool,
    fs: Vec<FsOption>,
}

impl Words {
    fn take(&mut self, option: &str) -> Result<()> {
        if option.contains('\0') || option.is_empty() {
            return Err(Error::invalid(format!("{option:?} is not an option")));
        }
        match option {
            "defaults" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" | "idmap" | "ridmap" | "copy-symlink" | "src-nofollow"
            | "dest-nofollow" => {
                return Err(Error::unsupported(format!("{option:?} is not supported yet")));
            }
            _ if self.take_propagation(option) || self.take_attr(option) => {}
            _ => self.take_fs(option),
        }
        Ok(())
    }

    fn take_propagation(&mut self, option: &str) -> bool {
        let (name, recursive) = match option.strip_prefix('r') {
            Some(rest) if PROPAGATION_WORDS.iter().any(|(word, _)| *word == rest) => (rest, true),
            _ => (option, false),
        };
        let kind = PROPAGATION_WORDS.iter().find(|(word, _)| *word == name);
        let Some((_, kind)) = kind else { return false };
        self.propagation.push(Propagation { kind: *kind, recursive });
        true
    }

    fn take_attr(&mut self, option: &str) -> bool {
        if attr_word(&mut self.attrs, option) {
            return true;
        }
        // rro, rnosuid …: for the mounts below as well (mount_setattr)
        match option.strip_prefix('r') {
            Some(rest) if rest != "w" && rest != "elatime" => {
                attr_word(&mut self.recursive_attrs, rest)
            }
            _ => false,
        }
    }

    fn take_fs(&mut self, option: &str) {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (option, None),
        };
        if IDLE_WORDS.contains(&key) {
            return;
        }
        self.fs.push(FsOption { key: key.to_owned(), value });
    }
}

fn attr_word(change: &mut AttrChange, word: &str) -> bool {
    match ATTR_WORDS.iter().find(|(name, _)| *name == word) {
        Some((_, AttrWord::Set(bits))) => change.set(*bits),
        Some((_, AttrWord::Clear(bits))) => change.clear(*bits),
        Some((_, AttrWord::Atime(mode))) => change.set_atime(*mode),
        None => return false,
    }
    true
}

/// What a word does to the attributes of a mount.
enum AttrWord {
    Set(u64),
    Clear(u64),
    Atime(u64),
}

/// Words for attributes; with an r in front, for the mounts below as well.
const ATTR_WORDS: [(&str, AttrWord); 17] = [
    ("ro", AttrWord::Set(attr::RDONLY)),
    ("rw", AttrWord::Clear(attr::RDONLY)),
    ("nosuid", AttrWord::Set(attr::NOSUID)),
    ("suid", AttrWord::Clear(attr::NOSUID)),
    ("nodev", AttrWord::Set(attr::NODEV)),
    ("dev", AttrWord::Clear(attr::NODEV)),
    ("noexec", AttrWord::Set(attr::NOEXEC)),
    ("exec", AttrWord::Clear(attr::NOEXEC)),
    ("nodiratime", AttrWord::Set(attr::NODIRATIME)),
    ("diratime", AttrWord::Clear(attr::NODIRATIME)),
    ("nosymfollow", AttrWord::Set(attr::NOSYMFOLLOW)),
    ("symfollow", AttrWord::Clear(attr::NOSYMFOLLOW)),
    ("relatime", AttrWord::Atime(attr::RELATIME)),
    ("atime", AttrWord::Atime(attr::RELATIME)),
    ("nostrictatime", AttrWord::Atime(attr::RELATIME)),
    ("noatime", AttrWord::Atime(attr::NOATIME)),
    ("strictatime", AttrWord::Atime(attr::STRICTATIME)),
];

/// Words for propagation; with an r in front, for the mounts below as well.
const PROPAGATION_WORDS: [(&str, MsFlags); 4] = [
    ("shared", MsFlags::MS_SHARED),
    ("slave", MsFlags::MS_SLAVE),
    ("private", MsFlags::MS_PRIVATE),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// Words with a meaning of their own.
const OTHER_WORDS: [&str; 4] = ["bind", "defaults", "rbind", "remount"];

/// Flags of every file system, which fsconfig takes as they are.
const FS_WORDS: [&str; 4] = ["dirsync", "lazytime", "mand", "sync"];

/// What changes nothing: negations of what nobody set, which mount(8) knows and
/// fsconfig does not, and how much the kernel says in its log.
const IDLE_WORDS: [&str; 7] =
    ["async", "loud", "nolazytime", "nomand", "norelatime", "rnorelatime", "silent"];

/// Every option that is understood for any mount, sorted: what is in here is
/// what the parser above takes.
pub(super) fn option_words() -> Vec<String> {
    let single = OTHER_WORDS.iter().chain(&FS_WORDS).chain(&IDLE_WORDS).map(|w| (*w).to_owned());
    let names = ATTR_WORDS.iter().map(|(name, _)| *name);
    let names = names.chain(PROPAGATION_WORDS.iter().map(|(name, _)| *name));
    let mut words: Vec<String> =
        names.flat_map(|name| [name.to_owned(), format!("r{name}")]).chain(single).collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<MountPlan> {
        MountPlan::resolve(0, &serde_json::from_str(json).unwrap(), Path::new("/b"))
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
        let MountKind::Filesystem { fstype, source, options } = plan.kind else { panic!() };
        assert_eq!((fstype.as_str(), source.as_str()), ("tmpfs", "shm"));
        let size = FsOption { key: "size".into(), value: Some("65536k".into()) };
        assert_eq!(options.last(), Some(&size));
    }

    #[test]
    fn a_bind_from_the_bundle() {
        let plan = resolve(
            r#"{"destination":"/d","source":"data","options":["rbind","rro","ro","rslave","noatime"]}"#,
        )
        .unwrap();
        assert_eq!(plan.kind, MountKind::Bind { source: "/b/data".into(), recursive: true });
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
    fn every_word_of_the_list_is_taken_and_none_twice() {
        let words = option_words();
        for word in &words {
            let mut taken = Words::default();
            taken.take(word).unwrap();
            // what goes on to the file system is what every one knows
            let passed = taken.fs.iter().all(|o| FS_WORDS.contains(&o.key.as_str()));
            assert!(passed, "{word}: {:?}", taken.fs);
        }
        assert!(words.is_sorted_by(|a, b| a < b), "{words:?}");
    }

    #[test]
    fn wrong_input() {
        for (json, part) in [
            (r#"{"destination":"/"}"#, "mounts[0].destination: is the root itself"),
            (r#"{"destination":"/../.."}"#, "mounts[0].destination: is the root itself"),
            (r#"{"destination":"/a"}"#, "mounts[0]: type: is missing"),
            (r#"{"destination":"/a","options":["bind"]}"#, "a bind mount needs one"),
            (r#"{"destination":"/a","source":"/","options":["bind","size=1"]}"#, "\"size\""),
            (r#"{"destination":"/a","source":"/","options":["bind","idmap"]}"#, "not supported"),
            (r#"{"destination":"/a","type":"cgroup","options":["ro","none"]}"#, "\"none\""),
        ] {
            let text = resolve(json).unwrap_err().to_string();
            assert!(text.contains(part), "{json}: {text}");
        }
    }
}
