//! The contents of table cells.

use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{Snapshot, Writer};
use tracer_model::units::Units;
use tracer_model::{sanitize, units};

use super::{Col, file_growth};
use crate::output::format;
use crate::tui::rows::{Fold, Item, Row, Rows};
use crate::tui::theme::Tone;

/// From this table width on, bytes are shown in the long form.
pub const LONG_FROM: u16 = 72;

/// One cell, escaped for display.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The role that decides its style.
    pub tone: Tone,
}

/// The format of cells.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// IEC or SI units.
    pub units: Units,
    /// Whether to use the long form.
    pub long: bool,
    /// The characters that the terminal can show.
    pub charset: Charset,
}

impl Manner {
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
pub fn cell(snapshot: &Snapshot, rows: &Rows, row: &Row, col: Col, manner: &Manner) -> Cell {
    let plain = |text: String| Cell { text, tone: Tone::Plain };
    let count = |n: u64| Cell {
        text: n.to_string(),
        tone: if n > 0 { Tone::Critical } else { Tone::Plain },
    };
    let nothing = || plain(String::new());
    if col == Col::Tree {
        return plain(tree_cell(snapshot, rows, row, manner, usize::MAX));
    }
    match row.item {
        Item::Writer(i) => snapshot.writers.get(i).map_or_else(nothing, |writer| {
            let mut cell = writer_cell(snapshot, writer, col, manner);
            if !writer.alive && cell.tone == Tone::Plain {
                cell.tone = Tone::Faint;
            }
            cell
        }),
        Item::Group(i) => rows.groups.get(i).map_or_else(nothing, |group| match col {
            Col::Kind => plain(group.kind_name().to_owned()),
            Col::Processes => plain(group.members.len().to_string()),
            Col::WrittenRate => plain(manner.rate(group.written_bytes_per_s)),
            Col::Growth => plain(manner.growth(group.growth_bytes_per_s)),
            Col::Share => plain(units::percent(group.share)),
            Col::Files => plain(group.files.to_string()),
            Col::HeldBytes => plain(manner.known(group.held_bytes)),
            Col::Errors => count(group.errors),
            _ => nothing(),
        }),
        Item::Dir(i) => snapshot.dirs.get(i).map_or_else(nothing, |dir| match col {
            Col::Inflow => plain(manner.rate(dir.inflow_bytes_per_s)),
            Col::Outflow => plain(manner.rate(dir.outflow_bytes_per_s)),
            Col::Drain => plain(dir.drain.map_or_else(|| "-".to_owned(), units::percent)),
            Col::Created => plain(number(dir.files_created)),
            Col::Removed => plain(number(dir.files_removed)),
            Col::Volume => plain(format::volume(snapshot, &dir.volume, manner.charset)),
            _ => nothing(),
        }),
        Item::File(i) => snapshot.paths.get(i).map_or_else(nothing, |path| {
            let per_s = |bytes: f64| bytes / snapshot.interval_s;
            match col {
                Col::WrittenRate => plain(manner.rate(per_s(path.written_bytes as f64))),
                Col::Written => plain(manner.bytes(path.written_bytes)),
                Col::Growth => plain(file_growth(path).map_or_else(
                    || units::UNKNOWN.to_owned(),
                    |growth| manner.growth(per_s(growth)),
                )),
                Col::Pid => plain(pids(path.writers.first().copied(), path.writers.len())),
                Col::Marks => Cell {
                    text: match (path.deleted, path.approximate) {
                        (true, true) => "del ~",
                        (true, false) => "del",
                        (false, true) => "~",
                        (false, false) => "",
                    }
                    .to_owned(),
                    tone: if path.deleted { Tone::Warning } else { Tone::Plain },
                },
                Col::Volume => plain(format::volume(snapshot, &path.volume, manner.charset)),
                Col::Path => plain(format::file(path, manner.charset)),
                _ => nothing(),
            }
        }),
        Item::Held(i) => snapshot.held.get(i).map_or_else(nothing, |held| match col {
            Col::HeldBytes => plain(manner.bytes(held.bytes)),
            Col::Pid => plain(pids(Some(held.pid), held.holders.len())),
            Col::Fd => plain(held.fd.map_or_else(|| "mmap".to_owned(), |fd| fd.to_string())),
            Col::Comm => plain(manner.safe(&held.comm)),
            Col::Kind => plain(held.kind.name().to_owned()),
            Col::Marks => Cell {
                text: if held.growing { "grows" } else { "" }.to_owned(),
                tone: Tone::Warning,
            },
            Col::Volume => plain(manner.safe(&held.volume)),
            Col::Path => plain(format::held_path(held, manner.charset)),
            _ => nothing(),
        }),
        Item::Victim(i) => snapshot.victims.get(i).map_or_else(nothing, |victim| match col {
            Col::Pid => plain(victim.pid.to_string()),
            Col::Comm => plain(manner.safe(&victim.comm)),
            Col::Enospc => count(victim.errors.enospc),
            Col::Edquot => count(victim.errors.edquot),
            Col::Eio => count(victim.errors.eio),
            Col::Other => count(victim.errors.other),
            Col::Waited => plain(
                victim
                    .waiting_ms
                    .map_or_else(|| units::UNKNOWN.to_owned(), |ms| units::duration(ms / 1000.0)),
            ),
            Col::Volume => plain(format::volume(snapshot, &victim.volume, manner.charset)),
            _ => nothing(),
        }),
    }
}

fn writer_cell(snapshot: &Snapshot, writer: &Writer, col: Col, manner: &Manner) -> Cell {
    let mut tone = Tone::Plain;
    let text = match col {
        Col::Pid => writer.pid.to_string(),
        Col::User => format::user(writer, manner.charset),
        Col::WrittenRate => manner.rate(writer.written_bytes_per_s),
        Col::Growth => manner.growth(writer.growth_bytes_per_s),
        Col::Share => units::percent(writer.share),
        Col::Files => writer.files.to_string(),
        Col::HeldBytes => manner.known(writer.held_bytes),
        Col::Errors => {
            if writer.errors.total() > 0 {
                tone = Tone::Critical;
            }
            writer.errors.total().to_string()
        }
        Col::Fsync => {
            let fsync = writer.fsync.filter(|fsync| fsync.count > 0);
            fsync.map_or_else(|| "-".to_owned(), |fsync| milliseconds(fsync.p99_ms))
        }
        Col::Group => {
            let group = writer.group.as_ref();
            group.map_or_else(|| "-".to_owned(), |group| manner.safe(&group.name))
        }
        Col::Volume => format::volume(snapshot, &writer.volume, manner.charset),
        Col::Command => format::command(writer, manner.charset),
        _ => String::new(),
    };
    Cell { text, tone }
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
    rows: &Rows,
    row: &Row,
    manner: &Manner,
    width: usize,
) -> String {
    let mark = match (row.fold, manner.charset) {
        (Fold::Leaf, _) => "  ",
        (Fold::Open, Charset::Unicode) => "▾ ",
        (Fold::Closed, Charset::Unicode) => "▸ ",
        (Fold::Open, Charset::Ascii) => "- ",
        (Fold::Closed, Charset::Ascii) => "+ ",
    };
    // Deeper rows are not indented further; their names show where they belong.
    let indent = "  ".repeat(usize::from(row.depth).min(8));
    let name = match row.item {
        Item::Writer(i) => snapshot
            .writers
            .get(i)
            .map(|writer| format!("{} {}", writer.pid, format::command(writer, manner.charset))),
        Item::Group(i) => rows.groups.get(i).map(|group| manner.safe(&group.name)),
        Item::Dir(i) => snapshot.dirs.get(i).map(|dir| {
            let from = row.name_from.min(dir.path.len());
            manner.safe(dir.path.get(from..).unwrap_or(&dir.path))
        }),
        _ => None,
    };
    let name = name.unwrap_or_default();
    let room = width.saturating_sub(sanitize::width(&indent) + sanitize::width(mark));
    let is_path = !matches!(row.item, Item::Writer(_)) && name.contains('/');
    let name = if is_path {
        sanitize::fit(&name, room, manner.charset)
    } else {
        sanitize::truncate(&name, room, manner.charset)
    };
    format!("{indent}{mark}{name}")
}
