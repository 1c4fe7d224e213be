//! The volumes: usage, growth and time to full.

use ratatui::layout::Rect;
use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{Snapshot, Volume};
use tracer_model::{sanitize, units};

use super::{Ink, spark};
use crate::output::columns;
use crate::output::columns::{Align, Column};
use crate::output::format::{eta_cell, eta_fitting, eta_short_width, used_ratio};
use crate::tui::state::{UiState, VolumeChoice};
use crate::tui::theme::Tone;
use crate::tui::update::first_volume;

/// From this width on, bytes are shown in the long form.
const LONG_FROM: u16 = 120;

const COLUMNS: [Column; 9] = [
    Column::new("VOLUME", Align::Path, 8, 0),
    Column::new("", Align::Right, 0, 5),
    Column::new("USED", Align::Right, 0, 0),
    Column::new("AVAIL", Align::Right, 0, 0),
    Column::new("RESV", Align::Right, 0, 7),
    Column::new("HELD", Align::Right, 0, 4),
    Column::new("GROWTH/s", Align::Right, 0, 1),
    Column::new("TREND", Align::Right, 0, 6),
    Column::new("FULL IN", Align::Left, LEAST_WORDS, 0),
];
const FULL_IN: usize = 8;
/// From this width on, every column fits.
const ROOMY: u16 = 100;
/// Minimum width of the FULL IN column: `4 min (3–6)` and one spare column.
const LEAST_WORDS: usize = 12;
/// Width of VOLUME, USED and AVAIL with their gaps; these are never dropped.
const BESIDE: usize = 8 + 4 + 5 + 3;
/// Smallest width of a bar when the FULL IN column needs the space.
const LEAST_BAR: usize = 8;
const GAUGE: usize = 1;
const TREND: usize = 7;

/// Paints the heading and one line per volume.
pub fn draw(ink: &mut Ink<'_>, area: Rect, snapshot: &Snapshot, state: &UiState) {
    let long = area.width >= LONG_FROM;
    let bytes = if long { units::BYTES_WIDTH } else { units::SHORT_WIDTH };
    // The marker of the selected volume takes a column.
    let inner = Rect { x: area.x + 1, width: area.width - 1, ..area };
    // Never truncate the interval: shorten the bars and drop columns of higher rank first.
    let mut columns = COLUMNS;
    let shortest =
        |volume: &Volume| eta_short_width(volume).min(sanitize::width(&eta_cell(volume)));
    let short = snapshot.volumes.iter().map(shortest).max().unwrap_or(0);
    let room = usize::from(inner.width).saturating_sub(BESIDE).max(LEAST_WORDS);
    columns[FULL_IN].min = short.clamp(LEAST_WORDS, room);
    let bar = if short > LEAST_WORDS && area.width < ROOMY {
        LEAST_BAR
    } else {
        usize::from(area.width / 8).clamp(LEAST_BAR, 40)
    };
    let longest = snapshot.volumes.iter().map(|volume| volume.shown_as().len()).max();
    let words = snapshot.volumes.iter().map(|volume| sanitize::width(&eta_cell(volume)));
    let words = words.max().unwrap_or(0).clamp(LEAST_WORDS, 40);
    let wanted = [
        longest.unwrap_or(0).clamp(6, 40),
        bar,
        4,
        bytes.max(5),
        bytes,
        bytes,
        (bytes + 1).max(8),
        bar,
        words,
    ];
    let widths = columns::widths(&columns, &wanted, usize::from(inner.width), 1);
    let shown = usize::from(area.height - 1);
    let all = snapshot.volumes.len();
    let count = if all > shown { format!("{shown} OF {all}") } else { "VOLUME".to_owned() };
    let mut x = inner.x;
    for (i, column) in COLUMNS.iter().enumerate().filter(|(i, _)| widths[*i] > 0) {
        let title = if i == 0 { &count } else { column.title };
        let text = columns::cell(title, column.align, widths[i], false, state.charset);
        ink.put(x, area.y, &text, widths[i] as u16, Tone::Head);
        x += widths[i] as u16 + 1;
    }
    if snapshot.volumes.is_empty() {
        ink.put(inner.x, area.y + 1, "no writable volume is mounted", inner.width, Tone::Faint);
    }
    let from = first_volume(state, shown);
    for (y, volume) in (area.y + 1..area.bottom()).zip(snapshot.volumes.iter().skip(from)) {
        let chosen = volume.mount_point == state.focus;
        let tone = danger(volume);
        if chosen || state.volume == VolumeChoice::All {
            let mark = if chosen { ">" } else { " " };
            ink.put(area.x, y, mark, 1, Tone::Accent);
        }
        let mut x = inner.x;
        for (i, column) in COLUMNS.iter().enumerate().filter(|(i, _)| widths[*i] > 0) {
            let width = widths[i];
            let text = match i {
                GAUGE => gauge(volume, width, state.charset),
                TREND => {
                    let trend = state.trends.volumes.get(&volume.mount_point);
                    spark(trend.map_or(&[], Vec::as_slice), width, state.charset)
                }
                _ => {
                    let text = match i {
                        FULL_IN => eta_fitting(volume, width),
                        _ => fact(i, volume, state, long),
                    };
                    columns::cell(&text, column.align, width, false, state.charset)
                }
            };
            let tone = match i {
                GAUGE | TREND if tone == Tone::Plain => Tone::Accent,
                _ => tone,
            };
            let style = if chosen && i == 0 { Tone::Head } else { tone };
            ink.put(x, y, &text, width as u16, style);
            x += width as u16 + 1;
        }
    }
}

/// The role of a volume, by its time to full.
#[must_use]
pub fn danger(volume: &Volume) -> Tone {
    match (volume.full, volume.eta_s) {
        (true, _) => Tone::Critical,
        (_, Some(eta)) if eta < 30.0 * 60.0 => Tone::Critical,
        (_, Some(eta)) if eta < 4.0 * 3600.0 => Tone::Warning,
        _ => Tone::Plain,
    }
}

fn fact(column: usize, volume: &Volume, state: &UiState, long: bool) -> String {
    let units = state.units;
    let bytes = |n: u64| if long { units.bytes(n) } else { units.short(n) };
    match column {
        0 => display_for(volume.shown_as(), state.charset).into_owned(),
        2 => units::percent(used_ratio(volume)),
        3 => bytes(volume.avail_bytes),
        4 => bytes(volume.reserved_bytes),
        5 => volume.held_bytes.map_or_else(|| units::UNKNOWN.to_owned(), bytes),
        6 if long => units.growth(volume.growth_bytes_per_s).trim_end_matches("/s").to_owned(),
        _ => units.short_growth(volume.growth_bytes_per_s),
    }
}

/// A bar of the used, free and reserved parts of a volume.
fn gauge(volume: &Volume, width: usize, charset: Charset) -> String {
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
    fn a_gauge_shows_used_free_and_reserved() {
        let mut volume = fixtures::volume("/");
        volume.total_bytes = 100;
        volume.used_bytes = 50;
        volume.reserved_bytes = 10;
        assert_eq!(gauge(&volume, 10, Charset::Unicode), "█████░░░░▒");
        volume.used_bytes = 200;
        assert_eq!(gauge(&volume, 10, Charset::Ascii), "##########");
        volume.total_bytes = 0;
        assert_eq!(gauge(&volume, 4, Charset::Ascii).len(), 4);
    }
}
