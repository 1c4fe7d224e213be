//! The volumes: usage, growth and time to full.

use ratatui::layout::Rect;
use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{Snapshot, Volume};
use tracer_model::{sanitize, units};

use super::{Painter, sparkline};
use crate::output::columns;
use crate::output::columns::{Align, Column};
use crate::output::format::{eta_cell, eta_fitting, eta_short_width, pace_only, used_ratio};
use crate::output::theme::Role;
use crate::tui::query::VolumeChoice;
use crate::tui::state::UiState;

/// From this width on, bytes are shown in the long form.
const LONG_FROM: u16 = 120;

/// From this width on, every column fits.
const ROOMY: u16 = 100;
/// Minimum width of the FULL IN column: `4 min (3–6)` and one spare column.
const FULL_IN_MIN: usize = 12;
/// Width of VOLUME, USED and AVAIL with their gaps; these are never dropped.
const ALWAYS_SHOWN: usize = 8 + 4 + 5 + 3;
/// Smallest width of a bar when the FULL IN column needs the space.
const BAR_MIN: usize = 8;

/// A column, in the order shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    UsageBar,
    Used,
    Avail,
    Reserved,
    Held,
    Growth,
    Trend,
    FullIn,
}

impl Field {
    const ALL: [Self; 9] = [
        Self::Name,
        Self::UsageBar,
        Self::Used,
        Self::Avail,
        Self::Reserved,
        Self::Held,
        Self::Growth,
        Self::Trend,
        Self::FullIn,
    ];

    const fn column(self) -> Column {
        match self {
            Self::Name => Column::new("VOLUME", Align::Path, 8, 0),
            Self::UsageBar => Column::new("", Align::Right, 0, 5),
            Self::Used => Column::new("USED", Align::Right, 0, 0),
            Self::Avail => Column::new("AVAIL", Align::Right, 0, 0),
            Self::Reserved => Column::new("RESV", Align::Right, 0, 7),
            Self::Held => Column::new("HELD", Align::Right, 0, 4),
            Self::Growth => Column::new("GROWTH/s", Align::Right, 0, 1),
            Self::Trend => Column::new("TREND", Align::Right, 0, 6),
            Self::FullIn => Column::new("FULL IN", Align::Left, FULL_IN_MIN, 0),
        }
    }
}

/// A column that fits, with its width.
type Fitted = (Field, Column, usize);

/// Paints the heading and one line per volume.
pub fn draw(painter: &mut Painter<'_>, area: Rect, snapshot: &Snapshot, state: &UiState) {
    // The marker of the selected volume takes a column.
    let inner = Rect { x: area.x + 1, width: area.width - 1, ..area };
    let fields = fitting(&snapshot.volumes, area.width);
    let shown = usize::from(area.height - 1);
    heading(painter, inner, &fields, snapshot.volumes.len(), shown, state);
    if snapshot.volumes.is_empty() {
        painter.put(inner.x, area.y + 1, "no writable volume is mounted", inner.width, Role::Faint);
    }
    let from = state.first_visible_volume(shown);
    for (y, volume) in (area.y + 1..area.bottom()).zip(snapshot.volumes.iter().skip(from)) {
        row(painter, Rect { y, height: 1, ..area }, &fields, volume, state);
    }
}

/// The columns that fit into an area of this width.
fn fitting(volumes: &[Volume], width: u16) -> Vec<Fitted> {
    let inner = usize::from(width - 1);
    // Never truncate the interval: shorten the bars and drop columns of higher rank first.
    let shortest =
        |volume: &Volume| eta_short_width(volume).min(sanitize::width(&eta_cell(volume)));
    let short = volumes.iter().map(shortest).max().unwrap_or(0);
    let mut columns = Field::ALL.map(Field::column);
    let full_in_max = inner.saturating_sub(ALWAYS_SHOWN).max(FULL_IN_MIN);
    columns[Field::FullIn as usize].min = short.clamp(FULL_IN_MIN, full_in_max);
    let bar = if short > FULL_IN_MIN && width < ROOMY {
        BAR_MIN
    } else {
        usize::from(width / 8).clamp(BAR_MIN, 40)
    };
    let bytes = if width >= LONG_FROM { units::BYTES_WIDTH } else { units::SHORT_WIDTH };
    let longest = volumes.iter().map(|volume| volume.shown_as().len()).max().unwrap_or(0);
    let full_in = volumes.iter().map(|volume| sanitize::width(&eta_cell(volume))).max();
    let wanted = Field::ALL.map(|field| match field {
        Field::Name => longest.clamp(6, 40),
        Field::UsageBar | Field::Trend => bar,
        Field::Used => 4,
        Field::Avail => bytes.max(5),
        Field::Reserved | Field::Held => bytes,
        Field::Growth => (bytes + 1).max(8),
        Field::FullIn => full_in.unwrap_or(0).clamp(FULL_IN_MIN, 40),
    });
    let widths = columns::widths(&columns, &wanted, inner, 1);
    let all = Field::ALL.into_iter().zip(columns).zip(widths);
    all.map(|((field, column), width)| (field, column, width))
        .filter(|(.., width)| *width > 0)
        .collect()
}

/// Paints the heading. If not all volumes fit, it counts them.
fn heading(
    painter: &mut Painter<'_>,
    area: Rect,
    fields: &[Fitted],
    volumes: usize,
    shown: usize,
    state: &UiState,
) {
    let count = format!("{shown} OF {volumes}");
    let mut x = area.x;
    for (field, column, width) in fields {
        let title = match field {
            Field::Name if volumes > shown => &*count,
            _ => column.title,
        };
        let text = columns::cell(title, column.align, *width, false, state.charset);
        painter.put(x, area.y, &text, *width as u16, Role::Head);
        x += *width as u16 + 1;
    }
}

/// Paints the line of a volume.
fn row(painter: &mut Painter<'_>, area: Rect, fields: &[Fitted], volume: &Volume, state: &UiState) {
    let selected = volume.mount_point == state.focus;
    if selected || state.volume == VolumeChoice::All {
        let mark = if selected { ">" } else { " " };
        painter.put(area.x, area.y, mark, 1, Role::Accent);
    }
    let long = area.width >= LONG_FROM;
    let urgency = urgency_role(volume);
    let mut x = area.x + 1;
    for (field, column, width) in fields {
        let text = match field {
            Field::UsageBar => usage_bar(volume, *width, state.charset),
            Field::Trend => {
                let trend = state.trends.volumes.get(&volume.mount_point);
                sparkline(trend.map_or(&[], Vec::as_slice), *width, state.charset)
            }
            field => {
                let text = text(*field, volume, *width, long, state);
                columns::cell(&text, column.align, *width, false, state.charset)
            }
        };
        let role = match field {
            Field::UsageBar | Field::Trend if urgency == Role::Plain => Role::Accent,
            Field::Name if selected => Role::Head,
            Field::FullIn if pace_only(volume).is_some() => Role::Faint,
            _ => urgency,
        };
        painter.put(x, area.y, &text, *width as u16, role);
        x += *width as u16 + 1;
    }
}

/// The role of a volume, by its time to full.
#[must_use]
pub fn urgency_role(volume: &Volume) -> Role {
    match (volume.full, volume.eta_s) {
        (true, _) => Role::Critical,
        (_, Some(eta)) if eta < 30.0 * 60.0 => Role::Critical,
        (_, Some(eta)) if eta < 4.0 * 3600.0 => Role::Warning,
        _ => Role::Plain,
    }
}

/// The text of a column that is not a bar.
fn text(field: Field, volume: &Volume, width: usize, long: bool, state: &UiState) -> String {
    let units = state.units;
    let bytes = |n: u64| if long { units.bytes(n) } else { units.short(n) };
    match field {
        Field::Name => display_for(volume.shown_as(), state.charset).into_owned(),
        Field::Used => units::percent(used_ratio(volume)),
        Field::Avail => bytes(volume.avail_bytes),
        Field::Reserved => bytes(volume.reserved_bytes),
        Field::Held => volume.held_bytes.map_or_else(|| units::UNKNOWN.to_owned(), bytes),
        Field::Growth if long => {
            units.growth(volume.growth_bytes_per_s).trim_end_matches("/s").to_owned()
        }
        Field::Growth => units.short_growth(volume.growth_bytes_per_s),
        Field::FullIn => eta_fitting(volume, width),
        Field::UsageBar | Field::Trend => String::new(),
    }
}

/// A bar of the used, free and reserved parts of a volume.
fn usage_bar(volume: &Volume, width: usize, charset: Charset) -> String {
    let (used, reserved, free) = match charset {
        Charset::Unicode => ("█", "▒", "░"),
        Charset::Ascii => ("#", "=", "."),
    };
    let total = volume.total_bytes.max(1) as f64;
    let part = |bytes: u64| (bytes as f64 / total * width as f64).round() as usize;
    let filled = part(volume.used_bytes).min(width);
    // The reserve is at the end: only root can use it.
    let kept = part(volume.reserved_bytes).min(width - filled);
    format!(
        "{}{}{}",
        used.repeat(filled),
        free.repeat(width - filled - kept),
        reserved.repeat(kept)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_model::fixtures;

    #[test]
    fn a_usage_bar_shows_used_free_and_reserved() {
        let mut volume = fixtures::volume("/");
        volume.total_bytes = 100;
        volume.used_bytes = 50;
        volume.reserved_bytes = 10;
        assert_eq!(usage_bar(&volume, 10, Charset::Unicode), "█████░░░░▒");
        volume.used_bytes = 200;
        assert_eq!(usage_bar(&volume, 10, Charset::Ascii), "##########");
        volume.total_bytes = 0;
        assert_eq!(usage_bar(&volume, 4, Charset::Ascii).len(), 4);
    }
}
