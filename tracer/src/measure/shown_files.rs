//! What is looked up only for the files that can be shown: their sizes, and whether their paths are
//! hidden.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tracer_common::FileKey;
use tracer_host::file_facts::{self, FileFacts};
use tracer_host::host_root;
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::PathRow;

use super::context::Volumes;
use super::space_sampler;

/// Number of files that are looked up: those with most growth, and as many of those with most bytes
/// written. Each costs some 4 µs.
const MAX_BY_GROWTH: usize = 300;
const MAX_BY_WRITTEN: usize = 200;

/// Fills in the sizes of the files that can be shown, and what hides them. `rows` are sorted by growth.
pub(super) fn complete(rows: &mut [(&FileKey, PathBuf, PathRow)], volumes: &Volumes<'_>) {
    for at in shown(rows.iter().map(|(_, _, row)| row.written_bytes)) {
        let (key, path, row) = &mut rows[at];
        let Some(state) = volumes.get(key.dev) else { continue };
        row.hidden_by = state.volume.hidden_by(path).map(lossless_path);
        row.hidden = row.hidden_by.is_some();
        if row.deleted || row.hidden || state.volume.container.is_some() {
            continue;
        }
        let may_wait = space_sampler::can_sample(&state.volume.fs_type);
        if let Some(facts) = facts(key, path, may_wait) {
            (row.size_bytes, row.space_bytes) = (Some(facts.size), Some(facts.space));
        }
    }
}

/// The file's facts, if the path still leads to it. It may have been replaced, or be hidden.
fn facts(key: &FileKey, path: &Path, may_wait: bool) -> Option<FileFacts> {
    let facts = file_facts::look_up(&host_root::path(path), may_wait).ok()?;
    (facts.ino == key.ino).then_some(facts)
}

/// The indices of the rows to look up; `written` are the rows' bytes written, by growth.
fn shown(written: impl Iterator<Item = u64>) -> BTreeSet<usize> {
    let mut by_written: Vec<(Reverse<u64>, usize)> = written.map(Reverse).zip(0..).collect();
    let mut found: BTreeSet<usize> = (0..by_written.len().min(MAX_BY_GROWTH)).collect();
    if by_written.len() > MAX_BY_WRITTEN {
        by_written.select_nth_unstable(MAX_BY_WRITTEN - 1);
        by_written.truncate(MAX_BY_WRITTEN);
    }
    found.extend(by_written.into_iter().map(|(_, at)| at));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_by_either_order_are_looked_up() {
        assert_eq!(shown([3, 0, 7].into_iter()).len(), 3);
        assert!(shown(std::iter::empty()).is_empty());
        // The one that was overwritten in place is the last by growth.
        let found = shown((0..10_000).map(|at| if at == 9_999 { 1 << 40 } else { at % 7 }));
        assert!(found.contains(&9_999) && (0..MAX_BY_GROWTH).all(|at| found.contains(&at)));
        assert!(found.len() <= MAX_BY_GROWTH + MAX_BY_WRITTEN);
    }
}
