//! The rows of the directories view: a tree.

use std::collections::{HashMap, HashSet};

use tracer_model::snapshot::Snapshot;

use super::item::{Fold, Item, Row};
use super::order::sort_items;
use crate::tui::query::Query;

/// A row per directory, followed by those below it if it is expanded.
pub(super) fn rows(snapshot: &Snapshot, query: &Query<'_>) -> Vec<Row> {
    let dirs = &snapshot.dirs;
    let known: HashMap<&str, usize> = (0..dirs.len())
        .filter(|&i| query.covers(&dirs[i].volume))
        .map(|i| (dirs[i].path.as_str(), i))
        .collect();
    let mut below: HashMap<usize, Vec<Item>> = HashMap::new();
    let mut roots: Vec<Item> = vec![];
    for (&path, &i) in &known {
        let parent = ancestors(path).find_map(|above| known.get(above).copied());
        match parent {
            Some(parent) => below.entry(parent).or_default().push(Item::Dir(i)),
            None => roots.push(Item::Dir(i)),
        }
    }
    // The ancestors of the hottest directories, which the user wants to see.
    let hot = known.values().filter(|&&i| dirs[i].hot);
    let above_hot: HashSet<&str> = hot.flat_map(|&i| ancestors(&dirs[i].path)).collect();
    let mut rows = vec![];
    // A stack: the last entry is the next row.
    let mut pending: Vec<(Item, u8, usize)> =
        last_first(snapshot, query, roots).into_iter().map(|item| (item, 0, 0)).collect();
    while let Some((item, depth, name_from)) = pending.pop() {
        let Item::Dir(i) = item else { continue };
        let path = &*dirs[i].path;
        let children = below.remove(&i).unwrap_or_default();
        // By default, expand down to the hottest directories, or else the first two levels.
        let by_default = if above_hot.is_empty() { depth < 2 } else { above_hot.contains(path) };
        let fold = match (children.is_empty(), query.folds.is_expanded(path, by_default)) {
            (true, _) => Fold::Leaf,
            (false, true) => Fold::Open,
            (false, false) => Fold::Closed,
        };
        rows.push(Row { item, depth, fold, name_from });
        if fold == Fold::Open {
            let from = if path == "/" { 1 } else { path.len() + 1 };
            let children = last_first(snapshot, query, children).into_iter();
            pending.extend(children.map(|child| (child, depth.saturating_add(1), from)));
        }
    }
    rows
}

/// Siblings in the reverse of the query's order.
fn last_first(snapshot: &Snapshot, query: &Query<'_>, mut items: Vec<Item>) -> Vec<Item> {
    // The order of a hash map is random: let equal rows keep the Snapshot's order instead.
    items.sort_by_key(|item| if let Item::Dir(i) = item { *i } else { 0 });
    sort_items(snapshot, &[], query.sort, &mut items);
    items.reverse();
    items
}

/// The directories above `path`, nearest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut at = if path == "/" { None } else { Some(path) };
    std::iter::from_fn(move || {
        let path = at?;
        let cut = path.rfind('/')?;
        let above = if cut == 0 { "/" } else { &path[..cut] };
        at = (above != "/").then_some(above);
        Some(above)
    })
}
