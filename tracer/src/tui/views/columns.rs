//! The columns of every table: heading, width and rank of each.

use tracer_model::units;

use crate::output::columns;
use crate::output::columns::{Align, Column};
use crate::tui::query::{Col, View};

/// From this table width on, bytes are shown in the long form.
pub const LONG_FROM: u16 = 72;

/// The columns of a view, in order.
#[must_use]
pub const fn of_view(view: View) -> &'static [Col] {
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
        View::Files => &[Growth, Size, WrittenRate, Written, Pid, Marks, Volume, Path],
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
            Self::Size => "SIZE",
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
            Self::WrittenRate
            | Self::Written
            | Self::Size
            | Self::Inflow
            | Self::Outflow
            | Self::HeldBytes => {
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
            // What grows is what fills the volume; what is written may overwrite.
            Self::Growth if matches!(view, View::Files) => 0,
            Self::WrittenRate if matches!(view, View::Files) => 2,
            Self::Command | Self::Tree | Self::Path | Self::Pid | Self::WrittenRate => 0,
            Self::Inflow | Self::Enospc | Self::Comm => 0,
            Self::Growth | Self::Size | Self::Outflow | Self::HeldBytes => 1,
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
    let cols: Vec<Col> = of_view(view).iter().copied().filter(shown).collect();
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
    let widths = columns::widths(&specs, &wanted, usize::from(width), 1);
    let mut out: Vec<(Col, Column, usize)> = vec![];
    for ((col, spec), width) in cols.into_iter().zip(specs).zip(widths) {
        if width > 0 {
            out.push((col, spec, width));
        }
    }
    out
}
