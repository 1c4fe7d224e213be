//! The rows of the groups view: sums per unit or container, with their processes below.

use std::collections::HashMap;

use tracer_model::snapshot::{GroupKind, Snapshot};

use super::filter::matches_writer;
use super::item::{Fold, GroupSum, Item, Row, group_of};
use super::order::sort_items;
use crate::tui::query::Query;

/// Sums of the writers that the query shows, one per group.
pub(super) fn sums(snapshot: &Snapshot, query: &Query<'_>) -> Vec<GroupSum> {
    let mut sums: Vec<GroupSum> = vec![];
    let mut by_name: HashMap<(Option<GroupKind>, &str), usize> = HashMap::new();
    for (i, writer) in snapshot.writers.iter().enumerate() {
        if !query.covers(&writer.volume) || !matches_writer(query.filter, writer) {
            continue;
        }
        let at = *by_name.entry(group_of(writer)).or_insert_with(|| {
            sums.push(GroupSum::new(writer));
            sums.len() - 1
        });
        sums[at].add(i, writer);
    }
    sums
}

/// A row per group, followed by those of its processes if it is expanded.
pub(super) fn rows(snapshot: &Snapshot, query: &Query<'_>, sums: &[GroupSum]) -> Vec<Row> {
    let mut items: Vec<Item> = (0..sums.len()).map(Item::Group).collect();
    sort_items(snapshot, sums, query.sort, &mut items);
    let mut rows = vec![];
    for item in items {
        let Item::Group(at) = item else { continue };
        let expanded = query.folds.is_expanded(&sums[at].fold_name(), false);
        let fold = if expanded { Fold::Open } else { Fold::Closed };
        rows.push(Row { fold, ..Row::leaf(item, 0) });
        if expanded {
            let mut members: Vec<Item> =
                sums[at].members.iter().map(|&i| Item::Writer(i)).collect();
            sort_items(snapshot, sums, query.sort, &mut members);
            rows.extend(members.into_iter().map(|item| Row::leaf(item, 1)));
        }
    }
    rows
}
