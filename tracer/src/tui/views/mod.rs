//! The columns of every table: heading, width and sort value of each.

mod cells;

use tracer_model::snapshot::{PathRow, Snapshot};
use tracer_model::units;

pub use self::cells::{Cell, LONG_FROM, Manner, cell, milliseconds, number, tree_cell};
use super::rows::{Item, Rows};
use super::state::View;
use crate::output::columns::{Align, Column};

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its heading")]
pub enum Col {
    Pid,
    User,
    WrittenRate,
    Written,
    Growth,
    Share,
    Files,
    HeldBytes,
    Errors,
    Fsync,
    Group,
    Volume,
    Command,
    Tree,
    Processes,
    Inflow,
    Outflow,
    Drain,
    Created,
    Removed,
    Marks,
    Path,
    Fd,
    Kind,
    Comm,
    Enospc,
    Edquot,
    Eio,
    Other,
    Waited,
}

/// The value by which a row is sorted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number; an unknown one sorts below all others.
    Number(f64),
    /// A string.
    Text(&'a str),
}

/// The columns of a view, in order.
#[must_use]
pub const fn columns(view: View) -> &'static [Col] {
    use Col::*;
    match view {
        View::Writers => &[
            Pid,
            User,
            WrittenRate,
            Growth,
            Share,
            Files,
            HeldBytes,
            Errors,
            Fsync,
            Group,
            Volume,
            Command,
        ],
        View::Groups => {
            &[Tree, Kind, Processes, WrittenRate, Growth, Share, Files, HeldBytes, Errors, Volume]
        }
        View::Dirs => &[Tree, Inflow, Outflow, Drain, Created, Removed, Volume],
        View::Files => &[WrittenRate, Written, Growth, Pid, Marks, Volume, Path],
        View::Held => &[HeldBytes, Pid, Fd, Comm, Kind, Marks, Volume, Path],
        View::Victims => &[Pid, Comm, Enospc, Edquot, Eio, Other, Waited, Volume],
    }
}

impl Col {
    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Pid => "PID",
            Self::User => "USER",
            Self::WrittenRate => "WRITTEN/s",
            Self::Written => "WRITTEN",
            Self::Growth => "GROWTH/s",
            Self::Share => "SHARE",
            Self::Files => "FILES",
            Self::HeldBytes => "HELD",
            Self::Errors => "ERR",
            Self::Fsync => "FSYNC",
            Self::Group => "GROUP",
            Self::Volume => "VOLUME",
            Self::Command => "COMMAND",
            Self::Tree => "NAME",
            Self::Processes => "PROCS",
            Self::Inflow => "IN/s",
            Self::Outflow => "OUT/s",
            Self::Drain => "DRAIN",
            Self::Created => "NEW",
            Self::Removed => "GONE",
            Self::Marks => "MARKS",
            Self::Path => "FILE",
            Self::Fd => "FD",
            Self::Kind => "KIND",
            Self::Comm => "PROCESS",
            Self::Enospc => "ENOSPC",
            Self::Edquot => "EDQUOT",
            Self::Eio => "EIO",
            Self::Other => "OTHER",
            Self::Waited => "WAITED",
        }
    }

    /// The heading on a narrow terminal.
    const fn short_title(self) -> &'static str {
        match self {
            Self::WrittenRate => "WR/s",
            Self::Growth => "GROW/s",
            other => other.title(),
        }
    }

    const fn align(self) -> Align {
        match self {
            Self::User | Self::Group | Self::Command | Self::Kind | Self::Comm | Self::Marks => {
                Align::Left
            }
            Self::Tree | Self::Path | Self::Volume => Align::Path,
            _ => Align::Right,
        }
    }

    /// Preferred width in terminal columns; the last column and the tree column take the rest.
    const fn width(self, long: bool) -> usize {
        match self {
            Self::Pid => 7,
            Self::User | Self::Kind => 8,
            Self::WrittenRate | Self::Written | Self::Inflow | Self::Outflow | Self::HeldBytes => {
                if long {
                    units::BYTES_WIDTH
                } else {
                    units::SHORT_WIDTH
                }
            }
            Self::Growth => {
                if long {
                    units::BYTES_WIDTH + 1
                } else {
                    units::SHORT_WIDTH + 1
                }
            }
            Self::Share | Self::Files | Self::Drain | Self::Processes | Self::Errors => 5,
            Self::Created | Self::Removed | Self::Fd | Self::Marks => 5,
            Self::Fsync | Self::Waited => 9,
            Self::Enospc | Self::Edquot | Self::Eio | Self::Other => 6,
            Self::Comm => 15,
            Self::Group | Self::Volume => 18,
            Self::Command | Self::Tree | Self::Path => 400,
        }
    }

    const fn min(self, long: bool) -> usize {
        match self {
            Self::Command => {
                if long {
                    22
                } else {
                    14
                }
            }
            Self::Tree => 18,
            Self::Path => 20,
            Self::Comm | Self::Group | Self::Volume => 8,
            _ => 6,
        }
    }

    /// Rank for dropping columns: 0 always stays, the highest is dropped first.
    const fn rank(self, view: View) -> u8 {
        match self {
            // Essential in the view of held files, one fact of many for a writer.
            Self::HeldBytes if !matches!(view, View::Held) => 6,
            Self::Command | Self::Tree | Self::Path | Self::Pid | Self::WrittenRate => 0,
            Self::Inflow | Self::Enospc | Self::Comm => 0,
            Self::Growth | Self::Outflow | Self::HeldBytes => 1,
            Self::Share | Self::Drain | Self::Volume | Self::Edquot => 2,
            Self::Errors | Self::Processes | Self::Marks | Self::Waited => 3,
            Self::User | Self::Written | Self::Created | Self::Fd => 4,
            Self::Files | Self::Removed | Self::Eio | Self::Kind => 5,
            Self::Group | Self::Other => 6,
            Self::Fsync => 7,
        }
    }
}

/// The table's columns that fit into `width`, each with its width.
#[must_use]
pub fn fitting(view: View, all_volumes: bool, width: u16) -> Vec<(Col, Column, usize)> {
    let long = width >= LONG_FROM;
    let shown = |col: &Col| all_volumes || *col != Col::Volume || view == View::Victims;
    let cols: Vec<Col> = columns(view).iter().copied().filter(shown).collect();
    let specs: Vec<Column> = cols
        .iter()
        .map(|col| {
            let title = if long { col.title() } else { col.short_title() };
            Column::new(title, col.align(), col.min(long), col.rank(view))
        })
        .collect();
    // One more than the heading, for the sort marker.
    let wanted: Vec<usize> = cols
        .iter()
        .zip(&specs)
        .map(|(col, spec)| col.width(long).max(spec.title.len() + 1))
        .collect();
    let widths = crate::output::columns::widths(&specs, &wanted, usize::from(width), 1);
    let mut out: Vec<(Col, Column, usize)> = vec![];
    for ((col, spec), width) in cols.into_iter().zip(specs).zip(widths) {
        if width > 0 {
            out.push((col, spec, width));
        }
    }
    out
}

/// The value by which `item` is sorted in `col`.
#[must_use]
pub fn value<'a>(snapshot: &'a Snapshot, rows: &'a Rows, item: Item, col: Col) -> Value<'a> {
    let none = Value::Number(f64::NEG_INFINITY);
    let known = |count: Option<u64>| count.map_or(f64::NEG_INFINITY, |count| count as f64);
    match item {
        Item::Writer(i) => snapshot.writers.get(i).map_or(none, |writer| match col {
            Col::Pid => Value::Number(f64::from(writer.pid)),
            Col::User => Value::Text(writer.user.as_deref().unwrap_or("")),
            Col::WrittenRate => Value::Number(writer.written_bytes_per_s),
            Col::Share => Value::Number(writer.share),
            Col::Files => Value::Number(writer.files as f64),
            Col::HeldBytes => Value::Number(known(writer.held_bytes)),
            Col::Errors => Value::Number(writer.errors.total() as f64),
            Col::Fsync => Value::Number(writer.fsync.map_or(f64::NEG_INFINITY, |f| f.p99_ms)),
            Col::Group => Value::Text(writer.group.as_ref().map_or("", |group| &group.name)),
            Col::Volume => Value::Text(&writer.volume),
            Col::Command | Col::Tree => Value::Text(&writer.comm),
            _ => Value::Number(writer.growth_bytes_per_s),
        }),
        Item::Group(i) => rows.groups.get(i).map_or(none, |group| match col {
            Col::WrittenRate => Value::Number(group.written_bytes_per_s),
            Col::Share => Value::Number(group.share),
            Col::Files => Value::Number(group.files as f64),
            Col::HeldBytes => Value::Number(known(group.held_bytes)),
            Col::Errors => Value::Number(group.errors as f64),
            Col::Processes => Value::Number(group.members.len() as f64),
            Col::Kind => Value::Text(group.kind_name()),
            Col::Tree | Col::Volume => Value::Text(&group.name),
            _ => Value::Number(group.growth_bytes_per_s),
        }),
        Item::Dir(i) => snapshot.dirs.get(i).map_or(none, |dir| match col {
            Col::Tree => Value::Text(&dir.path),
            Col::Volume => Value::Text(&dir.volume),
            Col::Outflow => Value::Number(dir.outflow_bytes_per_s),
            Col::Drain => Value::Number(dir.drain.unwrap_or(f64::NEG_INFINITY)),
            Col::Created => Value::Number(known(dir.files_created)),
            Col::Removed => Value::Number(known(dir.files_removed)),
            _ => Value::Number(dir.inflow_bytes_per_s),
        }),
        Item::File(i) => snapshot.paths.get(i).map_or(none, |path| match col {
            Col::Path => Value::Text(&path.path),
            Col::Volume => Value::Text(&path.volume),
            Col::Growth => Value::Number(file_growth(path).unwrap_or(f64::NEG_INFINITY)),
            Col::Pid => Value::Number(path.writers.first().map_or(0.0, |&pid| f64::from(pid))),
            Col::Marks => Value::Number(f64::from(u8::from(path.deleted))),
            _ => Value::Number(path.written_bytes as f64),
        }),
        Item::Held(i) => snapshot.held.get(i).map_or(none, |held| match col {
            Col::Path => Value::Text(&held.path),
            Col::Volume => Value::Text(&held.volume),
            Col::Comm => Value::Text(&held.comm),
            Col::Kind => Value::Text(held.kind.name()),
            Col::Pid => Value::Number(f64::from(held.pid)),
            Col::Fd => Value::Number(held.fd.map_or(-1.0, f64::from)),
            Col::Marks => Value::Number(f64::from(u8::from(held.growing))),
            _ => Value::Number(held.bytes as f64),
        }),
        Item::Victim(i) => snapshot.victims.get(i).map_or(none, |victim| match col {
            Col::Pid => Value::Number(f64::from(victim.pid)),
            Col::Comm => Value::Text(&victim.comm),
            Col::Volume => Value::Text(&victim.volume),
            Col::Edquot => Value::Number(victim.errors.edquot as f64),
            Col::Eio => Value::Number(victim.errors.eio as f64),
            Col::Other => Value::Number(victim.errors.other as f64),
            Col::Waited => Value::Number(victim.waiting_ms.unwrap_or(f64::NEG_INFINITY)),
            _ => Value::Number(victim.errors.enospc as f64),
        }),
    }
}

/// Allocated − freed in the window, bytes; `None` if space is not traced.
fn file_growth(path: &PathRow) -> Option<f64> {
    Some(path.allocated_bytes? as f64 - path.freed_bytes.unwrap_or(0) as f64)
}
