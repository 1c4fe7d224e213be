//! Sorts rows.

use std::cmp::Ordering;

use tracer_model::snapshot::Snapshot;

use super::item::{GroupSum, Item};
use crate::tui::query::Sort;
use crate::tui::views::sort_key::{SortKey, sort_key};

/// Sorts `items`. Stable, so that equal rows keep the Snapshot's order.
pub(super) fn sort_items(
    snapshot: &Snapshot,
    groups: &[GroupSum],
    sort: Sort,
    items: &mut Vec<Item>,
) {
    let mut keyed: Vec<(SortKey<'_>, Item)> =
        items.iter().map(|&item| (sort_key(snapshot, groups, item, sort.column), item)).collect();
    keyed.sort_by(|(a, _), (b, _)| {
        let order = match (a, b) {
            (SortKey::Number(a), SortKey::Number(b)) => a.total_cmp(b),
            // Reversed: "descending" starts at A for text.
            (SortKey::Text(a), SortKey::Text(b)) => b.cmp(a),
            _ => Ordering::Equal,
        };
        if sort.descending { order.reverse() } else { order }
    });
    items.clear();
    items.extend(keyed.into_iter().map(|(_, item)| item));
}
