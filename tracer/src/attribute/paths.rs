//! Resolves file keys to paths, from the names that the eBPF side sends once per file and
//! directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use tracer_common::records::name_flags;
use tracer_common::{FileKey, NameRecord};

/// Maximum number of names kept: some 150 bytes each, so about 20 MB. Names of files with a slot in
/// the eBPF table are kept in addition, because they are not sent again while the slot is in use.
pub const MAX_NAMES: usize = 131_072;
/// Maximum number of components of a path; a longer chain is a cycle.
const MAX_DEPTH: usize = 4_096;
/// Maximum number of names that are requested again after one interval.
const MAX_INCOMPLETE: usize = 4_096;

struct Node {
    parent: FileKey,
    name: Box<[u8]>,
    flags: u32,
    /// Number of the last interval that used it.
    used: u64,
}

/// The names of files and directories, linked to their parents. Keyed by file.
#[derive(Default)]
pub struct Names {
    nodes: HashMap<FileKey, Node>,
    interval: u64,
    /// Files with an ancestor whose name was lost: the ring buffer was full in the middle of a
    /// walk.
    incomplete: HashSet<FileKey>,
    /// Files whose names are dropped at the next sample, because the eBPF side will send them
    /// again.
    marked: HashSet<FileKey>,
    /// Number of names that could not be dropped the last time, because they were in use.
    kept_in_use: usize,
}

/// A path from the root of its filesystem.
#[derive(Debug, PartialEq, Eq)]
pub struct FsPath {
    /// Starts with `/` if complete; otherwise the leading directories are unknown.
    pub path: PathBuf,
    /// Whether all its directories are known.
    pub complete: bool,
}

impl Names {
    /// Adds a name from the eBPF side; a later one replaces it (a rename).
    pub(crate) fn insert(&mut self, record: &NameRecord) {
        let len = (record.header.len as usize).min(record.name.len());
        let node = Node {
            parent: record.parent,
            name: record.name[..len].into(),
            flags: record.flags,
            used: self.interval,
        };
        self.marked.remove(&record.file);
        self.nodes.insert(record.file, node);
    }

    /// The path of a file from the root of its filesystem; `None` if not even its name is known.
    pub(crate) fn path(&mut self, file: &FileKey) -> Option<FsPath> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut key = *file;
        let mut complete = false;
        let interval = self.interval;
        if let Some(node) = self.nodes.get_mut(&key) {
            node.used = interval;
            self.marked.remove(file);
        }
        while let Some(node) = self.nodes.get(&key) {
            if node.flags & name_flags::ROOT != 0 {
                complete = true;
                break;
            }
            if parts.len() >= MAX_DEPTH || node.parent == key {
                break;
            }
            parts.push(&node.name);
            key = node.parent;
        }
        let mut bytes = Vec::new();
        for part in parts.iter().rev() {
            if complete || !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(part);
        }
        match (complete, bytes.is_empty()) {
            (false, true) => return None,
            (false, false) => self.mark_incomplete(file),
            (true, true) => bytes.push(b'/'),
            (true, false) => {}
        }
        Some(FsPath { path: PathBuf::from(OsStr::from_bytes(&bytes)), complete })
    }

    /// Marks a file and its known ancestors to be requested again: the eBPF side has marked all of
    /// their names as sent.
    fn mark_incomplete(&mut self, file: &FileKey) {
        let mut key = *file;
        while self.incomplete.len() < MAX_INCOMPLETE && self.incomplete.insert(key) {
            let Some(node) = self.nodes.get(&key) else { break };
            key = node.parent;
        }
    }

    /// Marks the name of a file as no longer needed; the caller makes the eBPF side send it
    /// again on the next write. [`Self::drop_marked`] drops it.
    pub(crate) fn mark_unneeded(&mut self, file: &FileKey) {
        self.marked.insert(*file);
    }

    /// Drops the names that were marked at the last sample and have neither been sent nor looked up
    /// since. Files that are `in_use` keep theirs: a write after that sample, but before the eBPF
    /// side was informed, is counted without sending the name.
    pub(crate) fn drop_marked(&mut self, in_use: impl Iterator<Item = FileKey>) {
        if self.marked.is_empty() {
            return;
        }
        self.kept_in_use = 0;
        for file in in_use {
            if self.marked.remove(&file)
                && let Some(node) = self.nodes.get_mut(&file)
            {
                node.used = self.interval;
                self.kept_in_use += 1;
            }
        }
        for file in self.marked.drain() {
            self.nodes.remove(&file);
        }
    }

    /// Whether the file already had no name when it was first seen.
    #[must_use]
    pub(crate) fn was_unlinked(&self, file: &FileKey) -> bool {
        self.nodes.get(file).is_some_and(|node| node.flags & name_flags::UNLINKED != 0)
    }

    /// Begins a new interval. If there are too many names, the least recently used files are marked
    /// to be dropped. Returns these, and the files whose path was looked up but is incomplete, so
    /// that the eBPF side can send their names again.
    pub(crate) fn next_interval(&mut self) -> Vec<FileKey> {
        self.interval += 1;
        let mut again: Vec<FileKey> = self.incomplete.drain().collect();
        let free = self.nodes.len().saturating_sub(self.kept_in_use);
        if free <= MAX_NAMES {
            return again;
        }
        let parents: HashSet<FileKey> = self.nodes.values().map(|node| node.parent).collect();
        let mut leaves: Vec<(u64, FileKey)> = self
            .nodes
            .iter()
            .filter(|(key, _)| !parents.contains(key))
            .map(|(key, node)| (node.used, *key))
            .collect();
        let excess = (free - MAX_NAMES * 3 / 4).min(leaves.len());
        leaves.sort_unstable_by_key(|(used, _)| *used);
        leaves.truncate(excess);
        self.marked.extend(leaves.iter().map(|(_, key)| *key));
        again.extend(leaves.into_iter().map(|(_, key)| key));
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tracer_common::records::NAME_BUFFER;
    use tracer_common::{RecordHeader, RecordKind};

    fn key(ino: u64) -> FileKey {
        FileKey { ino, generation: 1, dev: 7 }
    }

    fn record(ino: u64, parent: u64, name: &[u8], flags: u32) -> NameRecord {
        let mut buffer = [0; NAME_BUFFER];
        buffer[..name.len()].copy_from_slice(name);
        NameRecord {
            header: RecordHeader { kind: RecordKind::Name as u32, len: name.len() as u32 },
            file: key(ino),
            parent: key(parent),
            flags,
            magic: 0,
            name: buffer,
        }
    }

    #[test]
    fn paths_are_assembled_and_follow_renames() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        names.insert(&record(10, 2, b"var", 0));
        names.insert(&record(11, 10, b"a.tmp", name_flags::FILE));
        let path = |names: &mut Names| names.path(&key(11)).unwrap().path;
        assert_eq!(path(&mut names), Path::new("/var/a.tmp"));
        names.insert(&record(11, 10, b"a", name_flags::FILE));
        names.insert(&record(10, 2, b"srv", 0));
        assert_eq!(path(&mut names), Path::new("/srv/a"));
        assert_eq!(names.path(&key(2)).unwrap().path, Path::new("/"));
    }

    #[test]
    fn incomplete_paths_are_marked() {
        let mut names = Names::default();
        assert!(names.path(&key(11)).is_none());
        names.insert(&record(11, 10, b"a", name_flags::FILE));
        let found = names.path(&key(11)).unwrap();
        assert_eq!(found, FsPath { path: PathBuf::from("a"), complete: false });
    }

    #[test]
    fn names_below_an_unknown_directory_are_requested_once_more() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        names.insert(&record(12, 11, b"sub", 0));
        names.insert(&record(13, 12, b"a", name_flags::FILE));
        names.insert(&record(20, 2, b"b", name_flags::FILE));
        assert!(!names.path(&key(13)).unwrap().complete);
        assert!(names.path(&key(20)).unwrap().complete);
        let again: HashSet<_> = names.next_interval().into_iter().collect();
        assert_eq!(again, HashSet::from([key(11), key(12), key(13)]));
        assert!(names.next_interval().is_empty());
    }

    #[test]
    fn a_cycle_ends() {
        let mut names = Names::default();
        names.insert(&record(1, 2, b"a", 0));
        names.insert(&record(2, 1, b"b", 0));
        assert!(!names.path(&key(1)).unwrap().complete);
        names.insert(&record(3, 3, b"c", 0));
        assert!(names.path(&key(3)).is_none());
    }

    #[test]
    fn old_names_are_dropped_but_not_directories_in_use() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        for ino in 10..10 + MAX_NAMES as u64 + 10 {
            names.insert(&record(ino, 2, b"f", name_flags::FILE));
        }
        let again = names.next_interval();
        assert!(again.len() >= MAX_NAMES / 4, "{}", again.len());
        names.drop_marked(std::iter::empty());
        assert!(again.iter().all(|file| !names.nodes.contains_key(file)));
        assert!(names.nodes.contains_key(&key(2)));
        assert!(names.nodes.len() <= MAX_NAMES * 3 / 4);
        let before = names.nodes.len();
        assert!(names.next_interval().is_empty());
        names.drop_marked(std::iter::empty());
        assert_eq!(names.nodes.len(), before);
    }

    #[test]
    fn an_unneeded_name_is_dropped_at_the_next_sample_unless_it_is_used() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        for ino in 10..14 {
            names.insert(&record(ino, 2, b"f", name_flags::FILE));
            names.mark_unneeded(&key(ino));
        }
        names.insert(&record(10, 2, b"f", name_flags::FILE));
        assert!(names.path(&key(11)).is_some());
        names.drop_marked([key(12), key(99)].into_iter());
        assert_eq!(
            [10, 11, 12, 13].map(|ino| names.path(&key(ino)).is_some()),
            [true, true, true, false]
        );
        // They are no longer marked.
        names.drop_marked(std::iter::empty());
        assert!(names.path(&key(12)).is_some());
    }

    #[test]
    fn names_in_use_are_not_requested_again_in_each_interval() {
        let mut names = Names::default();
        let files = (0..MAX_NAMES as u64 + 10).map(|n| n + 10);
        for ino in files.clone() {
            names.insert(&record(ino, 2, b"f", name_flags::FILE));
        }
        assert!(!names.next_interval().is_empty());
        names.drop_marked(files.map(key));
        assert!(names.next_interval().is_empty());
    }
}
