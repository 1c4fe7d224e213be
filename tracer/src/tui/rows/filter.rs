//! Which rows of a Snapshot a query shows, for tables without a tree.

use tracer_model::snapshot::{Snapshot, Writer};

use super::item::Item;
use crate::tui::query::{Filter, Query, View};

/// The items that the query shows, in the Snapshot's order; for the groups view, its writers.
pub(super) fn items(snapshot: &Snapshot, query: &Query<'_>) -> Vec<Item> {
    let filter = query.filter;
    match query.view {
        View::Writers | View::Groups => (0..snapshot.writers.len())
            .filter(|&i| {
                let writer = &snapshot.writers[i];
                query.covers(&writer.volume) && matches_writer(filter, writer)
            })
            .map(Item::Writer)
            .collect(),
        View::Dirs => (0..snapshot.dirs.len())
            .filter(|&i| {
                let dir = &snapshot.dirs[i];
                query.covers(&dir.volume) && filter.matches([&*dir.path])
            })
            .map(Item::Dir)
            .collect(),
        View::Files => (0..snapshot.paths.len())
            .filter(|&i| {
                let path = &snapshot.paths[i];
                let inside = path.path_in_container.as_deref().unwrap_or("");
                query.covers(&path.volume) && filter.matches([&*path.path, inside])
            })
            .map(Item::File)
            .collect(),
        View::Held => (0..snapshot.held.len())
            .filter(|&i| {
                let held = &snapshot.held[i];
                let inside = held.path_in_container.as_deref().unwrap_or("");
                let group = held.group.as_ref().map_or("", |group| &group.name);
                query.covers(&held.volume)
                    && filter.matches([&*held.path, inside, &held.comm, group])
            })
            .map(Item::Held)
            .collect(),
        View::Victims => (0..snapshot.victims.len())
            .filter(|&i| {
                let victim = &snapshot.victims[i];
                query.covers(&victim.volume) && filter.matches([&*victim.comm])
            })
            .map(Item::Victim)
            .collect(),
    }
}

/// Whether the filter matches the name, command line, user, group or pid of a writer.
pub(super) fn matches_writer(filter: &Filter, writer: &Writer) -> bool {
    if filter.is_empty() {
        return true;
    }
    let pid = writer.pid.to_string();
    let group = writer.group.as_ref().map_or("", |group| &*group.name);
    filter.matches([
        &*writer.comm,
        writer.cmdline.as_deref().unwrap_or(""),
        writer.user.as_deref().unwrap_or(""),
        group,
        &*pid,
    ])
}
