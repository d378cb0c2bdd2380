//! What a layer's directory is to be, by its listing.

use std::collections::BTreeMap;
use std::fs::File;

use super::listing::{Change, Data, Facts, Name, Special, change, escaped, lines};
use crate::error::{Error, Result};

/// What a path is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// `None` where the archive says nothing of it.
    pub(crate) mtime: Option<(i64, i64)>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A directory that hides what lower layers have in it.
    pub(crate) is_opaque: bool,
}

/// What is told apart by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Dir,
    File(Data),
    Symlink(Vec<u8>),
    Special(Special, (u32, u32)),
    Whiteout,
}

impl Node {
    fn new(kind: NodeKind, facts: Facts<'_>) -> Self {
        let bytes = |name: Name<'_>| name.0.into_owned();
        Node {
            kind,
            mode: facts.mode,
            uid: facts.uid,
            gid: facts.gid,
            mtime: Some(facts.mtime),
            xattrs: facts.xattrs.into_iter().map(|(k, v)| (bytes(k), bytes(v))).collect(),
            is_opaque: false,
        }
    }

    /// What nothing is said of but that it is there.
    fn implied(kind: NodeKind) -> Self {
        let mode = if kind == NodeKind::Dir { 0o755 } else { 0 };
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Node { kind, mode, uid, gid, mtime: None, xattrs: BTreeMap::new(), is_opaque: false }
    }
}

/// The whole directory as a listing has it.
#[derive(Debug)]
pub(crate) struct Expected {
    nodes: Vec<Node>,
    names: BTreeMap<Vec<u8>, usize>,
}

impl Expected {
    /// Reads a listing to its end.
    ///
    /// # Errors
    /// Invalid for one that is damaged.
    pub(crate) fn read(file: &File) -> Result<Self> {
        let mut all = Expected { nodes: Vec::new(), names: BTreeMap::new() };
        all.put(&[], Node::implied(NodeKind::Dir));
        lines(file, |line| all.apply(change(line)?))?;
        Ok(all)
    }

    /// The file at a path, and its number: two names of one file have the same. The path is
    /// the listing's own.
    pub(crate) fn node(&self, path: &[u8]) -> Option<(&[u8], usize, &Node)> {
        let (known, at) = self.names.get_key_value(path)?;
        Some((known, *at, self.nodes.get(*at)?))
    }

    /// Every path.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(Vec::as_slice)
    }

    fn put(&mut self, path: &[u8], node: Node) {
        self.names.insert(path.to_vec(), self.nodes.len());
        self.nodes.push(node);
    }

    fn at(&mut self, path: &[u8]) -> Result<&mut Node> {
        let at = self.names.get(path).copied();
        at.and_then(|at| self.nodes.get_mut(at))
            .ok_or_else(|| Error::invalid(format!("the layer's listing: {}", escaped(path))))
    }

    fn apply(&mut self, change: Change<'_>) -> Result<()> {
        match change {
            Change::Dir { path, facts } => {
                let mut new = Node::new(NodeKind::Dir, facts);
                if let Ok(old) = self.at(&path.0)
                    && old.kind == NodeKind::Dir
                {
                    new.is_opaque = old.is_opaque;
                    let kept = std::mem::take(&mut old.xattrs);
                    for (name, value) in kept {
                        new.xattrs.entry(name).or_insert(value);
                    }
                }
                self.put(&path.0, new);
            }
            Change::Implied { path } => self.put(&path.0, Node::implied(NodeKind::Dir)),
            Change::Fresh { path } => {
                self.put(&path.0, Node { is_opaque: true, ..Node::implied(NodeKind::Dir) });
            }
            Change::Opaque { path } => self.at(&path.0)?.is_opaque = true,
            Change::File { path, facts, data } => {
                self.put(&path.0, Node::new(NodeKind::File(data), facts));
            }
            Change::Symlink { path, facts, target } => {
                let kind = NodeKind::Symlink(target.0.into_owned());
                self.put(&path.0, Node::new(kind, facts));
            }
            Change::Special { path, facts, kind, device } => {
                self.put(&path.0, Node::new(NodeKind::Special(kind, device), facts));
            }
            Change::Link { path, target } => {
                self.at(&target.0)?;
                let at = self.names.get(target.0.as_ref()).copied().unwrap_or_default();
                self.names.insert(path.0.into_owned(), at);
            }
            Change::Whiteout { path } => self.put(&path.0, Node::implied(NodeKind::Whiteout)),
            Change::Gone { path } => self.remove(&path.0),
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) {
        self.names.remove(path);
        let below = [path, b"/"].concat();
        let inside: Vec<_> = self
            .names
            .range(below.clone()..)
            .map(|(name, _)| name.clone())
            .take_while(|name| name.starts_with(&below))
            .collect();
        for name in inside {
            self.names.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::Digest;
    use crate::image::listing::Writer;

    fn facts(mode: u32) -> Facts<'static> {
        Facts { mode, uid: 1, gid: 2, mtime: (3, 4), xattrs: Vec::new() }
    }

    fn name(text: &'static str) -> Name<'static> {
        Name::from(text.as_bytes())
    }

    fn expected(changes: &[Change<'_>]) -> Expected {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(&file);
        for change in changes {
            writer.add(change).unwrap();
        }
        let digest = writer.finish().unwrap();
        let mut bytes = Vec::new();
        lines(&file, |line| {
            bytes.extend_from_slice(line);
            Ok(())
        })
        .unwrap();
        assert_eq!(Digest::of(&bytes), digest);
        Expected::read(&file).unwrap()
    }

    #[test]
    fn what_comes_later_replaces_what_was_there() {
        let data = Data { size: 5, hash: 7 << 100, runs: Some(vec![(0, 5)]) };
        let file = |path, mode| Change::File { path, facts: facts(mode), data: data.clone() };
        let all = expected(&[
            Change::Implied { path: name("d") },
            file(name("d/a"), 0o644),
            Change::Link { path: name("d/b"), target: name("d/a") },
            Change::Gone { path: name("d/a") },
            Change::Symlink { path: name("d/a"), facts: facts(0), target: name("x y") },
            Change::Implied { path: name("e") },
            Change::Implied { path: name("e/f") },
            file(name("e!"), 0o600),
            Change::Gone { path: name("e") },
            Change::Whiteout { path: name("e") },
            Change::Opaque { path: name("d") },
            Change::Dir { path: name("d"), facts: facts(0o700) },
        ]);
        let paths: Vec<_> = all.paths().collect();
        assert_eq!(paths, [&b""[..], b"d", b"d/a", b"d/b", b"e", b"e!"]);
        let node = |path: &str| all.node(path.as_bytes()).unwrap().2.clone();
        assert_eq!(node("d/b").kind, NodeKind::File(data));
        assert_eq!(node("d/a").kind, NodeKind::Symlink(b"x y".to_vec()));
        assert!(node("d").is_opaque && node("d").mode == 0o700);
        assert_eq!(node("e").kind, NodeKind::Whiteout);
        assert_eq!(node("").mtime, None);
    }
}
