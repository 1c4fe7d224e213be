//! The value of each column by which rows are sorted.

use tracer_model::snapshot::Snapshot;

use crate::tui::query::Col;
use crate::tui::rows::item::{GroupSum, Item};

/// The value by which a row is sorted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SortKey<'a> {
    /// A number; an unknown one sorts below all others.
    Number(f64),
    /// A string.
    Text(&'a str),
}

/// The value by which `item` is sorted in `col`.
#[must_use]
pub fn sort_key<'a>(
    snapshot: &'a Snapshot,
    groups: &'a [GroupSum],
    item: Item,
    col: Col,
) -> SortKey<'a> {
    let none = SortKey::Number(f64::NEG_INFINITY);
    let known = |count: Option<u64>| count.map_or(f64::NEG_INFINITY, |count| count as f64);
    match item {
        Item::Writer(i) => snapshot.writers.get(i).map_or(none, |writer| match col {
            Col::Pid => SortKey::Number(f64::from(writer.pid)),
            Col::User => SortKey::Text(writer.user.as_deref().unwrap_or("")),
            Col::WrittenRate => SortKey::Number(writer.written_bytes_per_s),
            Col::Share => SortKey::Number(writer.share),
            Col::Files => SortKey::Number(writer.files as f64),
            Col::HeldBytes => SortKey::Number(known(writer.held_bytes)),
            Col::Errors => SortKey::Number(writer.errors.total() as f64),
            Col::Fsync => SortKey::Number(writer.fsync.map_or(f64::NEG_INFINITY, |f| f.p99_ms)),
            Col::Group => SortKey::Text(writer.group.as_ref().map_or("", |group| &group.name)),
            Col::Volume => SortKey::Text(&writer.volume),
            Col::Command | Col::Tree => SortKey::Text(&writer.comm),
            _ => SortKey::Number(writer.growth_bytes_per_s),
        }),
        Item::Group(i) => groups.get(i).map_or(none, |group| match col {
            Col::WrittenRate => SortKey::Number(group.written_bytes_per_s),
            Col::Share => SortKey::Number(group.share),
            Col::Files => SortKey::Number(group.files as f64),
            Col::HeldBytes => SortKey::Number(known(group.held_bytes)),
            Col::Errors => SortKey::Number(group.errors as f64),
            Col::Processes => SortKey::Number(group.members.len() as f64),
            Col::Kind => SortKey::Text(group.kind_name()),
            Col::Tree | Col::Volume => SortKey::Text(&group.name),
            _ => SortKey::Number(group.growth_bytes_per_s),
        }),
        Item::Dir(i) => snapshot.dirs.get(i).map_or(none, |dir| match col {
            Col::Tree => SortKey::Text(&dir.path),
            Col::Volume => SortKey::Text(&dir.volume),
            Col::Outflow => SortKey::Number(dir.outflow_bytes_per_s),
            Col::Drain => SortKey::Number(dir.drain.unwrap_or(f64::NEG_INFINITY)),
            Col::Created => SortKey::Number(known(dir.files_created)),
            Col::Removed => SortKey::Number(known(dir.files_removed)),
            _ => SortKey::Number(dir.inflow_bytes_per_s),
        }),
        Item::File(i) => snapshot.paths.get(i).map_or(none, |path| match col {
            Col::Path => SortKey::Text(&path.path),
            Col::Volume => SortKey::Text(&path.volume),
            Col::WrittenRate | Col::Written => SortKey::Number(path.written_bytes as f64),
            Col::Size => SortKey::Number(known(path.size_bytes)),
            Col::Pid => SortKey::Number(path.writers.first().map_or(0.0, |&pid| f64::from(pid))),
            Col::Marks => SortKey::Number(f64::from(u8::from(path.deleted))),
            _ => SortKey::Number(path.growth_bytes_per_s),
        }),
        Item::Held(i) => snapshot.held.get(i).map_or(none, |held| match col {
            Col::Path => SortKey::Text(&held.path),
            Col::Volume => SortKey::Text(&held.volume),
            Col::Comm => SortKey::Text(&held.comm),
            Col::Kind => SortKey::Text(held.kind.name()),
            Col::Pid => SortKey::Number(f64::from(held.pid)),
            Col::Fd => SortKey::Number(held.fd.map_or(-1.0, f64::from)),
            Col::Marks => SortKey::Number(f64::from(u8::from(held.growing))),
            _ => SortKey::Number(held.bytes as f64),
        }),
        Item::Victim(i) => snapshot.victims.get(i).map_or(none, |victim| match col {
            Col::Pid => SortKey::Number(f64::from(victim.pid)),
            Col::Comm => SortKey::Text(&victim.comm),
            Col::Volume => SortKey::Text(&victim.volume),
            Col::Edquot => SortKey::Number(victim.errors.edquot as f64),
            Col::Eio => SortKey::Number(victim.errors.eio as f64),
            Col::Other => SortKey::Number(victim.errors.other as f64),
            Col::Waited => SortKey::Number(victim.waiting_ms.unwrap_or(f64::NEG_INFINITY)),
            _ => SortKey::Number(victim.errors.enospc as f64),
        }),
    }
}
