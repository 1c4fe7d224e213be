//! The contents of table cells.

use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{Directory, Held, PathRow, Snapshot, Victim, Writer};
use tracer_model::units::Units;
use tracer_model::{sanitize, units};

use super::columns::LONG_FROM;
use crate::output::format;
use crate::output::theme::Role;
use crate::tui::query::Col;
use crate::tui::rows::item::{Fold, GroupSum, Item, Row};

/// One cell, escaped for display.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The role that decides its style.
    pub role: Role,
}

impl Cell {
    fn plain(text: String) -> Self {
        Self { text, role: Role::Plain }
    }

    fn blank() -> Self {
        Self::plain(String::new())
    }

    /// A number of errors, which stands out if there are any.
    fn errors(count: u64) -> Self {
        let role = if count > 0 { Role::Critical } else { Role::Plain };
        Self { text: count.to_string(), role }
    }
}

/// The format of cells.
#[derive(Debug, Clone, Copy)]
pub struct CellFormat {
    /// IEC or SI units.
    pub units: Units,
    /// Whether to use the long form.
    pub long: bool,
    /// The characters that the terminal can show.
    pub charset: Charset,
}

impl CellFormat {
    /// The format for a table of this width.
    #[must_use]
    pub const fn new(units: Units, charset: Charset, width: u16) -> Self {
        Self { units, long: width >= LONG_FROM, charset }
    }

    /// Formats a number of bytes.
    #[must_use]
    pub fn bytes(&self, bytes: u64) -> String {
        if self.long { self.units.bytes(bytes) } else { self.units.short(bytes) }
    }

    fn known(&self, bytes: Option<u64>) -> String {
        bytes.map_or_else(|| units::UNKNOWN.to_owned(), |bytes| self.bytes(bytes))
    }

    /// Formats a rate without `/s`, which the heading has.
    #[must_use]
    pub fn rate(&self, per_s: f64) -> String {
        if !self.long {
            return self.units.short_rate(per_s);
        }
        self.units.rate(per_s).trim_end_matches("/s").to_owned()
    }

    /// Formats a rate with its sign, without `/s`.
    #[must_use]
    pub fn growth(&self, per_s: f64) -> String {
        if !self.long {
            return self.units.short_growth(per_s);
        }
        self.units.growth(per_s).trim_end_matches("/s").to_owned()
    }

    fn safe(&self, text: &str) -> String {
        display_for(text, self.charset).into_owned()
    }
}

/// The cell of `row` in `col`.
#[must_use]
pub fn cell(
    snapshot: &Snapshot,
    groups: &[GroupSum],
    row: &Row,
    col: Col,
    cell_format: &CellFormat,
) -> Cell {
    if col == Col::Tree {
        return Cell::plain(tree_cell(snapshot, groups, row, cell_format, usize::MAX));
    }
    match row.item {
        Item::Writer(i) => {
            snapshot.writers.get(i).map(|writer| writer_cell(snapshot, writer, col, cell_format))
        }
        Item::Group(i) => groups.get(i).map(|group| group_cell(group, col, cell_format)),
        Item::Dir(i) => snapshot.dirs.get(i).map(|dir| dir_cell(snapshot, dir, col, cell_format)),
        Item::File(i) => {
            snapshot.paths.get(i).map(|path| file_cell(snapshot, path, col, cell_format))
        }
        Item::Held(i) => snapshot.held.get(i).map(|held| held_cell(held, col, cell_format)),
        Item::Victim(i) => {
            snapshot.victims.get(i).map(|victim| victim_cell(snapshot, victim, col, cell_format))
        }
    }
    .unwrap_or_else(Cell::blank)
}

fn writer_cell(snapshot: &Snapshot, writer: &Writer, col: Col, cell_format: &CellFormat) -> Cell {
    let cell = match col {
        Col::Pid => Cell::plain(writer.pid.to_string()),
        Col::User => Cell::plain(format::user(writer, cell_format.charset)),
        Col::WrittenRate => Cell::plain(cell_format.rate(writer.written_bytes_per_s)),
        Col::Growth => Cell::plain(cell_format.growth(writer.growth_bytes_per_s)),
        Col::Share => Cell::plain(units::percent(writer.share)),
        Col::Files => Cell::plain(writer.files.to_string()),
        Col::HeldBytes => Cell::plain(cell_format.known(writer.held_bytes)),
        Col::Errors => Cell::errors(writer.errors.total()),
        Col::Fsync => {
            let fsync = writer.fsync.filter(|fsync| fsync.count > 0);
            Cell::plain(fsync.map_or_else(|| "-".to_owned(), |fsync| milliseconds(fsync.p99_ms)))
        }
        Col::Group => {
            let group = writer.group.as_ref();
            Cell::plain(group.map_or_else(|| "-".to_owned(), |group| cell_format.safe(&group.name)))
        }
        Col::Volume => Cell::plain(format::volume(snapshot, &writer.volume, cell_format.charset)),
        Col::Command => Cell::plain(format::command(writer, cell_format.charset)),
        _ => Cell::blank(),
    };
    if !writer.alive && cell.role == Role::Plain {
        return Cell { role: Role::Faint, ..cell };
    }
    cell
}

fn group_cell(group: &GroupSum, col: Col, cell_format: &CellFormat) -> Cell {
    match col {
        Col::Kind => Cell::plain(group.kind_name().to_owned()),
        Col::Processes => Cell::plain(group.members.len().to_string()),
        Col::WrittenRate => Cell::plain(cell_format.rate(group.written_bytes_per_s)),
        Col::Growth => Cell::plain(cell_format.growth(group.growth_bytes_per_s)),
        Col::Share => Cell::plain(units::percent(group.share)),
        Col::Files => Cell::plain(group.files.to_string()),
        Col::HeldBytes => Cell::plain(cell_format.known(group.held_bytes)),
        Col::Errors => Cell::errors(group.errors),
        _ => Cell::blank(),
    }
}

fn dir_cell(snapshot: &Snapshot, dir: &Directory, col: Col, cell_format: &CellFormat) -> Cell {
    Cell::plain(match col {
        Col::Inflow => cell_format.rate(dir.inflow_bytes_per_s),
        Col::Outflow => cell_format.rate(dir.outflow_bytes_per_s),
        Col::Drain => dir.drain.map_or_else(|| "-".to_owned(), units::percent),
        Col::Created => number(dir.files_created),
        Col::Removed => number(dir.files_removed),
        Col::Volume => format::volume(snapshot, &dir.volume, cell_format.charset),
        _ => String::new(),
    })
}

fn file_cell(snapshot: &Snapshot, path: &PathRow, col: Col, cell_format: &CellFormat) -> Cell {
    let per_s = |bytes: f64| bytes / snapshot.interval_s;
    Cell::plain(match col {
        Col::WrittenRate => cell_format.rate(per_s(path.written_bytes as f64)),
        Col::Written => cell_format.bytes(path.written_bytes),
        Col::Size => cell_format.known(path.size_bytes),
        Col::Growth => cell_format.growth(path.growth_bytes_per_s),
        Col::Pid => pids(path.writers.first().copied(), path.writers.len()),
        Col::Marks => {
            let text = match (path.deleted, path.approximate) {
                (true, true) => "del ~",
                (true, false) => "del",
                (false, true) => "~",
                (false, false) => "",
            };
            let role = if path.deleted { Role::Warning } else { Role::Plain };
            return Cell { text: text.to_owned(), role };
        }
        Col::Volume => format::volume(snapshot, &path.volume, cell_format.charset),
        Col::Path => format::file(path, cell_format.charset),
        _ => String::new(),
    })
}

fn held_cell(held: &Held, col: Col, cell_format: &CellFormat) -> Cell {
    Cell::plain(match col {
        Col::HeldBytes => cell_format.bytes(held.bytes),
        Col::Pid => pids((held.pid != 0).then_some(held.pid), held.holders.len()),
        Col::Fd => format::held_through(held),
        Col::Comm => cell_format.safe(&held.comm),
        Col::Kind => held.kind.name().to_owned(),
        Col::Marks => {
            let text = if held.growing { "grows" } else { "" };
            return Cell { text: text.to_owned(), role: Role::Warning };
        }
        Col::Volume => cell_format.safe(&held.volume),
        Col::Path => format::held_path(held, cell_format.charset),
        _ => String::new(),
    })
}

fn victim_cell(snapshot: &Snapshot, victim: &Victim, col: Col, cell_format: &CellFormat) -> Cell {
    match col {
        Col::Pid => Cell::plain(victim.pid.to_string()),
        Col::Comm => Cell::plain(cell_format.safe(&victim.comm)),
        Col::Enospc => Cell::errors(victim.errors.enospc),
        Col::Edquot => Cell::errors(victim.errors.edquot),
        Col::Eio => Cell::errors(victim.errors.eio),
        Col::Other => Cell::errors(victim.errors.other),
        Col::Waited => {
            let waited = victim.waiting_ms.map(|ms| units::duration(ms / 1000.0));
            Cell::plain(waited.unwrap_or_else(|| units::UNKNOWN.to_owned()))
        }
        Col::Volume => Cell::plain(format::volume(snapshot, &victim.volume, cell_format.charset)),
        _ => Cell::blank(),
    }
}

/// Formats a latency: `12 ms`, `1.8 s`.
#[must_use]
pub fn milliseconds(ms: f64) -> String {
    match ms {
        _ if !ms.is_finite() => units::UNKNOWN.to_owned(),
        ..1.0 => "<1 ms".to_owned(),
        ..999.5 => format!("{ms:.0} ms"),
        ..60_000.0 => format!("{:.1} s", ms / 1000.0),
        _ => units::duration(ms / 1000.0),
    }
}

/// Formats a count, `?` if unknown.
#[must_use]
pub fn number(count: Option<u64>) -> String {
    count.map_or_else(|| units::UNKNOWN.to_owned(), |count| count.to_string())
}

fn pids(first: Option<u32>, count: usize) -> String {
    let first = first.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    if count > 1 { format!("{first}+") } else { first }
}

/// The tree cell of a row in at most `width` columns: indent, fold marker and name.
///
/// Only the name is truncated: a path in the middle, everything else at the end.
#[must_use]
pub fn tree_cell(
    snapshot: &Snapshot,
    groups: &[GroupSum],
    row: &Row,
    cell_format: &CellFormat,
    width: usize,
) -> String {
    let mark = match (row.fold, cell_format.charset) {
        (Fold::Leaf, _) => "  ",
        (Fold::Open, Charset::Unicode) => "▾ ",
        (Fold::Closed, Charset::Unicode) => "▸ ",
        (Fold::Open, Charset::Ascii) => "- ",
        (Fold::Closed, Charset::Ascii) => "+ ",
    };
    // Deeper rows are not indented further; their names show where they belong.
    let indent = "  ".repeat(usize::from(row.depth).min(8));
    let name = match row.item {
        Item::Writer(i) => snapshot.writers.get(i).map(|writer| {
            format!("{} {}", writer.pid, format::command(writer, cell_format.charset))
        }),
        Item::Group(i) => groups.get(i).map(|group| cell_format.safe(&group.name)),
        Item::Dir(i) => snapshot.dirs.get(i).map(|dir| {
            let from = row.name_from.min(dir.path.len());
            cell_format.safe(dir.path.get(from..).unwrap_or(&dir.path))
        }),
        _ => None,
    };
    let name = name.unwrap_or_default();
    let available = width.saturating_sub(sanitize::width(&indent) + sanitize::width(mark));
    let is_path = !matches!(row.item, Item::Writer(_)) && name.contains('/');
    let name = if is_path {
        sanitize::fit(&name, available, cell_format.charset)
    } else {
        sanitize::truncate(&name, available, cell_format.charset)
    };
    format!("{indent}{mark}{name}")
}
