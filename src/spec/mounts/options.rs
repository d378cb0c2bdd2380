//! The words of mounts[].options, and what each of them does.

use nix::mount::MsFlags;

use super::idmap::IdmapWord;
use super::{AttrChange, FsOption, Propagation, SourceLink};
use crate::error::{Error, Result};
use crate::sys::mount::attr;

/// Option words, taken apart one by one.
#[derive(Default)]
pub(super) struct Words {
    pub(super) attrs: AttrChange,
    pub(super) recursive_attrs: AttrChange,
    pub(super) propagation: Vec<Propagation>,
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    pub(super) copies_up: bool,
    pub(super) source_link: SourceLink,
    pub(super) dest_nofollow: bool,
    pub(super) idmap: Option<IdmapWord>,
    pub(super) fs: Vec<FsOption>,
    /// What is for mount(8), which is not here.
    pub(super) idle: Vec<String>,
}

impl Words {
    pub(super) fn of(options: &[String]) -> Result<Self> {
        let mut words = Words::default();
        for option in options.iter().flat_map(|option| split(option)) {
            words.take(option)?;
        }
        if !words.remount {
            // there is nothing to take back
            words.fs.retain(|option| !BACK_WORDS.iter().any(|(back, _)| *back == option.key));
        }
        Ok(words)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        if option.contains('\0') {
            return Err(Error::invalid(format!("{option:?} is not an option")));
        }
        match option {
            "" | "defaults" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copies_up = true,
            "copy-symlink" => self.take_source_link(SourceLink::Copy)?,
            "src-nofollow" => self.take_source_link(SourceLink::Mount)?,
            "dest-nofollow" => self.dest_nofollow = true,
            _ if self.take_idmap(option)? => {}
            _ if self.take_propagation(option) || self.take_attr(option) => {}
            _ if self.take_back(option) => {}
            _ => self.take_fs(option),
        }
        Ok(())
    }

    fn take_source_link(&mut self, link: SourceLink) -> Result<()> {
        if self.source_link != SourceLink::Follow && self.source_link != link {
            return Err(Error::invalid("copy-symlink and src-nofollow exclude each other"));
        }
        self.source_link = link;
        Ok(())
    }

    fn take_idmap(&mut self, option: &str) -> Result<bool> {
        let Some(word) = IdmapWord::parse(option)? else { return Ok(false) };
        self.idmap = Some(match self.idmap.take() {
            Some(first) => first.and(word)?,
            None => word,
        });
        Ok(true)
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

    fn take_back(&mut self, option: &str) -> bool {
        let Some((back, flag)) = BACK_WORDS.iter().find(|(back, _)| *back == option) else {
            return false;
        };
        self.fs.retain(|option| option.key != *flag);
        self.fs.push(FsOption { key: (*back).to_owned(), value: None });
        true
    }

    fn take_fs(&mut self, option: &str) {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (option, None),
        };
        if IDLE_WORDS.contains(&key) {
            return;
        }
        if is_mount_programs(key, value.is_some()) {
            self.idle.push(option.to_owned());
            return;
        }
        let back = BACK_WORDS.iter().find(|(_, flag)| *flag == key);
        self.fs.retain(|option| back.is_none_or(|(back, _)| *back != option.key));
        self.fs.push(FsOption { key: key.to_owned(), value });
    }
}

/// Several options may be in one string, as the fifth argument of mount(2) has them. A
/// comma in quotes (labels), or behind a backslash (overlay), separates nothing.
fn split(option: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    option.split(move |c| {
        let separates = c == ',' && !is_quoted && !is_escaped;
        is_quoted ^= c == '"';
        is_escaped = c == '\\' && !is_escaped;
        separates
    })
}

/// Options that mount(8) keeps for itself, and for /etc/fstab. With a value, some of them are
/// a file system's.
fn is_mount_programs(key: &str, has_value: bool) -> bool {
    const WORDS: [&str; 11] = [
        "_netdev", "auto", "group", "noauto", "nofail", "nogroup", "noowner", "nouser", "owner",
        "user", "users",
    ];
    let is_named = !has_value && WORDS.contains(&key);
    is_named || key == "comment" || key.starts_with("x-") || key.starts_with("X-")
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
const OTHER_WORDS: [&str; 10] = [
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "idmap",
    "rbind",
    "remount",
    "ridmap",
    "src-nofollow",
    "tmpcopyup",
];

/// Flags of every file system, which fsconfig takes as they are.
pub(super) const FS_WORDS: [&str; 4] = ["dirsync", "lazytime", "mand", "sync"];

/// What takes one of these back.
const BACK_WORDS: [(&str, &str); 3] =
    [("async", "sync"), ("nolazytime", "lazytime"), ("nomand", "mand")];

/// Whether a word is for a file system's superblock, which a bind mount has none of its
/// own of.
pub(super) fn is_of_superblock(word: &str) -> bool {
    let is_back = || BACK_WORDS.iter().any(|(back, _)| *back == word);
    FS_WORDS.contains(&word) || ["acl", "noacl"].contains(&word) || is_back()
}

/// What changes nothing: negations that mount(8) knows and the kernel does not; how much
/// the kernel says in its log; and whether inodes have versions, which file systems decide
/// for themselves (Linux 6.0).
const IDLE_WORDS: [&str; 6] =
    ["iversion", "loud", "noiversion", "norelatime", "rnorelatime", "silent"];

/// Every option that is understood for any mount, sorted: what is in here is
/// what the parser above takes.
pub(crate) fn option_words() -> Vec<String> {
    let single = OTHER_WORDS.iter().chain(&FS_WORDS).chain(&IDLE_WORDS).map(|w| (*w).to_owned());
    let single = single.chain(BACK_WORDS.iter().map(|(back, _)| (*back).to_owned()));
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

    #[test]
    fn every_word_of_the_list_is_taken_and_none_twice() {
        let words = option_words();
        for word in &words {
            let mut taken = Words::default();
            taken.take(word).unwrap();
            // what goes on to the file system is what every one knows
            let is_back = |key: &str| BACK_WORDS.iter().any(|(back, _)| *back == key);
            let passed =
                taken.fs.iter().all(|o| FS_WORDS.contains(&o.key.as_str()) || is_back(&o.key));
            assert!(passed, "{word}: {:?}", taken.fs);
        }
        assert!(words.is_sorted_by(|a, b| a < b), "{words:?}");
    }
}
