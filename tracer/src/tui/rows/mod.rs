//! Builds the rows of a table from a Snapshot: filtered, sorted, and expanded or collapsed.

mod filter;
mod groups;
pub mod item;
mod key;
mod order;
mod tree;

use jiff::Timestamp;
use tracer_model::snapshot::Snapshot;

use self::item::{Fold, GroupSum, Item, Row};
pub use self::key::RowKey;
use super::query::{Query, Sort, View};

/// The Snapshot and the query from which rows were built.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    taken_at: Timestamp,
    interval: u64,
    lengths: [usize; 6],
    view: View,
    volume: Option<String>,
    sort: Sort,
    filter: (String, bool),
    folds: usize,
}

/// The rows of one view.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    stamp: Option<Stamp>,
    /// In the order shown.
    pub rows: Vec<Row>,
    /// Sums per group, for the groups view.
    pub groups: Vec<GroupSum>,
    /// Number of rows of each view on the volume, unfiltered; 0 for groups, which are not counted.
    pub counts: [usize; 6],
}

impl Rows {
    /// Builds the rows that a query shows.
    #[must_use]
    pub fn build(snapshot: &Snapshot, query: &Query<'_>) -> Self {
        let mut groups = vec![];
        let rows = match query.view {
            View::Groups => {
                groups = groups::sums(snapshot, query);
                groups::rows(snapshot, query, &groups)
            }
            View::Dirs if query.filter.is_empty() => tree::rows(snapshot, query),
            _ => {
                let mut items = filter::items(snapshot, query);
                order::sort_items(snapshot, &[], query.sort, &mut items);
                items.into_iter().map(|item| Row::leaf(item, 0)).collect()
            }
        };
        Self { stamp: Some(stamp(snapshot, query)), rows, groups, counts: counts(snapshot, query) }
    }

    /// Whether these rows were built from this Snapshot and the same query.
    #[must_use]
    pub fn are_for(&self, snapshot: &Snapshot, query: &Query<'_>) -> bool {
        self.stamp.as_ref() == Some(&stamp(snapshot, query))
    }

    /// The key of the row at `index`.
    #[must_use]
    pub fn key(&self, snapshot: &Snapshot, index: usize) -> Option<RowKey> {
        RowKey::of(snapshot, &self.groups, self.rows.get(index)?.item)
    }

    /// The current index of the row with this key.
    #[must_use]
    pub fn find(&self, snapshot: &Snapshot, key: &RowKey) -> Option<usize> {
        self.rows.iter().position(|row| key.is_of(snapshot, &self.groups, row.item))
    }

    /// The name under which the fold of the row at `index` is stored, and whether the row is now
    /// expanded; `None` if nothing is below it.
    #[must_use]
    pub fn fold_name(&self, snapshot: &Snapshot, index: usize) -> Option<(String, bool)> {
        let row = self.rows.get(index).filter(|row| row.fold != Fold::Leaf)?;
        let name = match row.item {
            Item::Group(i) => self.groups.get(i)?.fold_name(),
            Item::Dir(i) => snapshot.dirs.get(i)?.path.clone(),
            _ => return None,
        };
        Some((name, row.fold == Fold::Open))
    }
}

fn stamp(snapshot: &Snapshot, query: &Query<'_>) -> Stamp {
    Stamp {
        taken_at: snapshot.taken_at,
        interval: snapshot.interval_s.to_bits(),
        lengths: [
            snapshot.volumes.len(),
            snapshot.writers.len(),
            snapshot.dirs.len(),
            snapshot.paths.len(),
            snapshot.held.len(),
            snapshot.victims.len(),
        ],
        view: query.view,
        volume: query.volume.map(str::to_owned),
        sort: query.sort,
        filter: (query.filter.text().to_owned(), query.filter.is_regex()),
        folds: query.folds.version(),
    }
}

fn counts(snapshot: &Snapshot, query: &Query<'_>) -> [usize; 6] {
    [
        snapshot.writers.iter().filter(|row| query.covers(&row.volume)).count(),
        0,
        snapshot.dirs.iter().filter(|row| query.covers(&row.volume)).count(),
        snapshot.paths.iter().filter(|row| query.covers(&row.volume)).count(),
        snapshot.held.iter().filter(|row| query.covers(&row.volume)).count(),
        snapshot.victims.iter().filter(|row| query.covers(&row.volume)).count(),
    ]
}
