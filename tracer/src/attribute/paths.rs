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
const MAX_CUT_OFF: usize = 4_096;

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
    window: u64,
    /// Files with an ancestor whose name was lost: the ring buffer was full in the middle of a
    /// walk.
    cut_off: HashSet<FileKey>,
    /// Files whose names are dropped at the next sample, because the eBPF side will send them
    /// again.
    leaving: HashSet<FileKey>,
    /// Number of names that could not be dropped the last time, because they were in use.
    kept: usize,
}

/// A path from the root of its filesystem.
#[derive(Debug, PartialEq, Eq)]
pub struct Within {
    /// Starts with `/` if complete; otherwise the leading directories are unknown.
    pub path: PathBuf,
    /// Whether all its directories are known.
    pub complete: bool,
}

impl Names {
    /// Adds a name from the eBPF side; a later one replaces it (a rename).
    pub fn insert(&mut self, record: &NameRecord) {
        let len = (record.header.len as usize).min(record.name.len());
        let node = Node {
            parent: record.parent,
            name: record.name[..len].into(),
            flags: record.flags,
            used: self.window,
        };
        self.leaving.remove(&record.file);
        self.nodes.insert(record.file, node);
    }

    /// The path of a file from the root of its filesystem; `None` if not even its name is known.
    pub fn within(&mut self, file: &FileKey) -> Option<Within> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut key = *file;
        let mut complete = false;
        let window = self.window;
        if let Some(node) = self.nodes.get_mut(&key) {
            node.used = window;
            self.leaving.remove(file);
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
            (false, false) => self.note_cut_off(file),
            (true, true) => bytes.push(b'/'),
            (true, false) => {}
        }
        Some(Within { path: PathBuf::from(OsStr::from_bytes(&bytes)), complete })
    }

    /// Marks a file and its known ancestors to be requested again: the eBPF side takes all of their
    /// names for sent.
    fn note_cut_off(&mut self, file: &FileKey) {
        let mut key = *file;
        while self.cut_off.len() < MAX_CUT_OFF && self.cut_off.insert(key) {
            let Some(node) = self.nodes.get(&key) else { break };
            key = node.parent;
        }
    }

    /// Marks the name of a file as not needed any more; the caller makes the eBPF side send it
    /// again on the next write. [`Self::drop_forgotten`] drops it.
    pub fn forget(&mut self, file: &FileKey) {
        self.leaving.insert(*file);
    }

    /// Drops the names that were marked at the last sample and have neither been sent nor looked up
    /// since. Files that are `in_use` keep theirs: a write after that sample, but before the eBPF
    /// side was informed, is counted without sending the name.
    pub fn drop_forgotten(&mut self, in_use: impl Iterator<Item = FileKey>) {
        if self.leaving.is_empty() {
            return;
        }
        self.kept = 0;
        for file in in_use {
            if self.leaving.remove(&file)
                && let Some(node) = self.nodes.get_mut(&file)
            {
                node.used = self.window;
                self.kept += 1;
            }
        }
        for file in self.leaving.drain() {
            self.nodes.remove(&file);
        }
    }

    /// Whether the file already had no name when it was first seen.
    #[must_use]
    pub fn was_unlinked(&self, file: &FileKey) -> bool {
        self.nodes.get(file).is_some_and(|node| node.flags & name_flags::UNLINKED != 0)
    }

    /// Begins a new interval. If there are too many names, the least recently used files are marked
    /// to be dropped. Returns these, and the files whose path was looked up but is incomplete, so
    /// that the eBPF side can send their names again.
    pub fn next_window(&mut self) -> Vec<FileKey> {
        self.window += 1;
        let mut again: Vec<FileKey> = self.cut_off.drain().collect();
        let free = self.nodes.len().saturating_sub(self.kept);
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
        self.leaving.extend(leaves.iter().map(|(_, key)| *key));
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
        let mut room = [0; NAME_BUFFER];
        room[..name.len()].copy_from_slice(name);
        NameRecord {
            header: RecordHeader { kind: RecordKind::Name as u32, len: name.len() as u32 },
            file: key(ino),
            parent: key(parent),
            flags,
            magic: 0,
            name: room,
        }
    }

    #[test]
    fn paths_are_put_together_and_follow_renames() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        names.insert(&record(10, 2, b"var", 0));
        names.insert(&record(11, 10, b"a.tmp", name_flags::FILE));
        let path = |names: &mut Names| names.within(&key(11)).unwrap().path;
        assert_eq!(path(&mut names), Path::new("/var/a.tmp"));
        names.insert(&record(11, 10, b"a", name_flags::FILE));
        names.insert(&record(10, 2, b"srv", 0));
        assert_eq!(path(&mut names), Path::new("/srv/a"));
        assert_eq!(names.within(&key(2)).unwrap().path, Path::new("/"));
    }

    #[test]
    fn what_is_unknown_is_said() {
        let mut names = Names::default();
        assert!(names.within(&key(11)).is_none());
        names.insert(&record(11, 10, b"a", name_flags::FILE));
        let within = names.within(&key(11)).unwrap();
        assert_eq!(within, Within { path: PathBuf::from("a"), complete: false });
    }

    #[test]
    fn what_hangs_below_an_unknown_directory_is_asked_for_once_more() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        names.insert(&record(12, 11, b"sub", 0));
        names.insert(&record(13, 12, b"a", name_flags::FILE));
        names.insert(&record(20, 2, b"b", name_flags::FILE));
        assert!(!names.within(&key(13)).unwrap().complete);
        assert!(names.within(&key(20)).unwrap().complete);
        let again: HashSet<_> = names.next_window().into_iter().collect();
        assert_eq!(again, HashSet::from([key(11), key(12), key(13)]));
        assert!(names.next_window().is_empty());
    }

    #[test]
    fn a_circle_ends() {
        let mut names = Names::default();
        names.insert(&record(1, 2, b"a", 0));
        names.insert(&record(2, 1, b"b", 0));
        assert!(!names.within(&key(1)).unwrap().complete);
        names.insert(&record(3, 3, b"c", 0));
        assert!(names.within(&key(3)).is_none());
    }

    #[test]
    fn old_names_are_dropped_but_not_directories_in_use() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        for ino in 10..10 + MAX_NAMES as u64 + 10 {
            names.insert(&record(ino, 2, b"f", name_flags::FILE));
        }
        let again = names.next_window();
        assert!(again.len() >= MAX_NAMES / 4, "{}", again.len());
        names.drop_forgotten(std::iter::empty());
        assert!(again.iter().all(|file| !names.nodes.contains_key(file)));
        assert!(names.nodes.contains_key(&key(2)));
        assert!(names.nodes.len() <= MAX_NAMES * 3 / 4);
        let before = names.nodes.len();
        assert!(names.next_window().is_empty());
        names.drop_forgotten(std::iter::empty());
        assert_eq!(names.nodes.len(), before);
    }

    #[test]
    fn a_forgotten_name_goes_at_the_next_look_unless_it_is_needed() {
        let mut names = Names::default();
        names.insert(&record(2, 2, b"/", name_flags::ROOT));
        for ino in 10..14 {
            names.insert(&record(ino, 2, b"f", name_flags::FILE));
            names.forget(&key(ino));
        }
        names.insert(&record(10, 2, b"f", name_flags::FILE));
        assert!(names.within(&key(11)).is_some());
        names.drop_forgotten([key(12), key(99)].into_iter());
        assert_eq!(
            [10, 11, 12, 13].map(|ino| names.within(&key(ino)).is_some()),
            [true, true, true, false]
        );
        // They are no longer marked.
        names.drop_forgotten(std::iter::empty());
        assert!(names.within(&key(12)).is_some());
    }

    #[test]
    fn names_that_cannot_go_are_not_asked_for_in_each_window() {
        let mut names = Names::default();
        let files = (0..MAX_NAMES as u64 + 10).map(|n| n + 10);
        for ino in files.clone() {
            names.insert(&record(ino, 2, b"f", name_flags::FILE));
        }
        assert!(!names.next_window().is_empty());
        names.drop_forgotten(files.map(key));
        assert!(names.next_window().is_empty());
    }
}
