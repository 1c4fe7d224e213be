//! The columns of every table: what each shows, how wide it is, and by what it sorts.

use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{PathRow, Snapshot, Writer};
use tracer_model::units::{self, Units};

use super::rows::{Fold, Item, Row, Rows};
use super::state::View;
use super::theme::Tone;
use crate::outputs::columns::{Align, Column};
use crate::outputs::text;

/// A column of some table.
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

/// Bytes are written out from this width of the table on, short below.
const LONG_FROM: u16 = 72;

/// By what a row sorts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number; unknown ones are below all others.
    Number(f64),
    /// Text.
    Text(&'a str),
}

/// One cell, safe to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How it stands out.
    pub tone: Tone,
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
    /// Its heading.
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

    /// Heading on a narrow terminal.
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

    /// Columns of the terminal that it takes; the last one of a table, and a tree's, take the rest.
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

    /// 0 stays; the highest goes first.
    const fn rank(self, view: View) -> u8 {
        match self {
            // Of a held file this is the point; of a writer it is one fact of many.
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
    // One more than the heading, for the mark of the sorted column.
    let wanted: Vec<usize> = cols
        .iter()
        .zip(&specs)
        .map(|(col, spec)| col.width(long).max(spec.title.len() + 1))
        .collect();
    let widths = crate::outputs::columns::widths(&specs, &wanted, usize::from(width), 1);
    let mut out: Vec<(Col, Column, usize)> = vec![];
    for ((col, spec), width) in cols.into_iter().zip(specs).zip(widths) {
        if width > 0 {
            out.push((col, spec, width));
        }
    }
    out
}

/// What to sort `item` by in `col`.
#[must_use]
pub fn value<'a>(snapshot: &'a Snapshot, rows: &'a Rows, item: Item, col: Col) -> Value<'a> {
    let none = Value::Number(f64::NEG_INFINITY);
    let known = |bytes: Option<u64>| bytes.map_or(f64::NEG_INFINITY, |bytes| bytes as f64);
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
            Col::Kind => Value::Text(&group.kind),
            Col::Tree | Col::Volume => Value::Text(&group.name),
            _ => Value::Number(group.growth_bytes_per_s),
        }),
        Item::Dir(i) => snapshot.dirs.get(i).map_or(none, |dir| match col {
            Col::Tree => Value::Text(&dir.path),
            Col::Volume => Value::Text(&dir.volume),
            Col::Outflow => Value::Number(dir.outflow_bytes_per_s),
            Col::Drain => Value::Number(dir.drain.unwrap_or(f64::NEG_INFINITY)),
            Col::Created => Value::Number(dir.files_created as f64),
            Col::Removed => Value::Number(dir.files_removed as f64),
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
            Col::Kind => Value::Text(&held.kind),
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

/// allocated − freed in the window; `None` where space is not traced.
fn file_growth(path: &PathRow) -> Option<f64> {
    Some(path.allocated_bytes? as f64 - path.freed_bytes.unwrap_or(0) as f64)
}

/// How cells are written.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// IEC or SI.
    pub units: Units,
    /// Written out or short.
    pub long: bool,
    /// What the terminal can show.
    pub charset: Charset,
}

impl Manner {
    /// For a table of this width.
    #[must_use]
    pub const fn new(units: Units, charset: Charset, width: u16) -> Self {
        Self { units, long: width >= LONG_FROM, charset }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self, bytes: u64) -> String {
        if self.long { self.units.bytes(bytes) } else { self.units.short(bytes) }
    }

    fn known(&self, bytes: Option<u64>) -> String {
        bytes.map_or_else(|| units::UNKNOWN.to_owned(), |bytes| self.bytes(bytes))
    }

    /// A rate; the heading says that it is one.
    #[must_use]
    pub fn rate(&self, per_s: f64) -> String {
        if !self.long {
            return self.units.short_rate(per_s);
        }
        self.units.rate(per_s).trim_end_matches("/s").to_owned()
    }

    /// A rate with its sign.
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
        return plain(tree_name(snapshot, rows, row, manner));
    }
    match row.item {
        Item::Writer(i) => snapshot.writers.get(i).map_or_else(nothing, |writer| {
            let mut cell = writer_cell(writer, col, manner);
            if !writer.alive && cell.tone == Tone::Plain {
                cell.tone = Tone::Faint;
            }
            cell
        }),
        Item::Group(i) => rows.groups.get(i).map_or_else(nothing, |group| match col {
            Col::Kind => plain(manner.safe(&group.kind)),
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
            Col::Created => plain(dir.files_created.to_string()),
            Col::Removed => plain(dir.files_removed.to_string()),
            Col::Volume => plain(manner.safe(&dir.volume)),
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
                Col::Volume => plain(manner.safe(&path.volume)),
                Col::Path => plain(manner.safe(&path.path)),
                _ => nothing(),
            }
        }),
        Item::Held(i) => snapshot.held.get(i).map_or_else(nothing, |held| match col {
            Col::HeldBytes => plain(manner.bytes(held.bytes)),
            Col::Pid => plain(pids(Some(held.pid), held.holders.len())),
            Col::Fd => plain(held.fd.map_or_else(|| "mmap".to_owned(), |fd| fd.to_string())),
            Col::Comm => plain(manner.safe(&held.comm)),
            Col::Kind => plain(manner.safe(&held.kind)),
            Col::Marks => Cell {
                text: if held.growing { "grows" } else { "" }.to_owned(),
                tone: Tone::Warning,
            },
            Col::Volume => plain(manner.safe(&held.volume)),
            Col::Path => plain(manner.safe(&held.path)),
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
            Col::Volume => plain(manner.safe(&victim.volume)),
            _ => nothing(),
        }),
    }
}

fn writer_cell(writer: &Writer, col: Col, manner: &Manner) -> Cell {
    let mut tone = Tone::Plain;
    let text = match col {
        Col::Pid => writer.pid.to_string(),
        Col::User => text::user(writer, manner.charset),
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
        Col::Volume => manner.safe(&writer.volume),
        Col::Command => text::command(writer, manner.charset),
        _ => String::new(),
    };
    Cell { text, tone }
}

/// `12 ms`, `1.8 s`: what a wait for the disk looks like.
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

fn pids(first: Option<u32>, count: usize) -> String {
    let first = first.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    if count > 1 { format!("{first}+") } else { first }
}

/// The name of a tree's row: its indent, whether it unfolds, and what it is.
fn tree_name(snapshot: &Snapshot, rows: &Rows, row: &Row, manner: &Manner) -> String {
    let mark = match (row.fold, manner.charset) {
        (Fold::Leaf, _) => "  ",
        (Fold::Open, Charset::Unicode) => "▾ ",
        (Fold::Closed, Charset::Unicode) => "▸ ",
        (Fold::Open, Charset::Ascii) => "- ",
        (Fold::Closed, Charset::Ascii) => "+ ",
    };
    // A tree deeper than this says so by its names.
    let indent = "  ".repeat(usize::from(row.depth).min(8));
    let name = match row.item {
        Item::Writer(i) => snapshot
            .writers
            .get(i)
            .map(|writer| format!("{} {}", writer.pid, text::command(writer, manner.charset))),
        Item::Group(i) => rows.groups.get(i).map(|group| manner.safe(&group.name)),
        Item::Dir(i) => snapshot.dirs.get(i).map(|dir| {
            let from = row.name_from.min(dir.path.len());
            manner.safe(dir.path.get(from..).unwrap_or(&dir.path))
        }),
        _ => None,
    };
    format!("{indent}{mark}{}", name.unwrap_or_default())
}
