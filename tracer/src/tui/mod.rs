//! The live screen. `draw` and `update` are pure; only `run` touches a terminal.
//!
//! A key goes through [`update`], a Snapshot through [`UiState::settle`]. [`App`] adds the history
//! kept in memory, and [`run`](run()) adds the terminal.

pub(crate) mod action_menu;
pub mod app;
pub mod keys;
pub mod layout;
pub mod panes;
mod reconcile;
pub mod rows;
pub mod run;
pub mod state;
pub mod svg;
pub mod term;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod views;

use std::borrow::Cow;

use ratatui::Frame;
use ratatui::layout::Rect;
use tracer_model::sanitize::display_for;
use tracer_model::snapshot::Snapshot;
use tracer_model::units;

pub use self::app::App;
use self::layout::Layout;
use self::panes::table::Part;
use self::panes::{Ink, detail, footer, header, menu, page, pages, table, tabs, volumes, wrap};
use self::rows::Rows;
pub use self::run::{Options, run, run_attached, run_replay};
use self::state::Overlay;
pub use self::state::{Effect, Effects, UiState};
pub use self::svg::render_svg;
use self::theme::Tone;
pub use self::update::update;

/// Paints one frame: a pure function of its arguments.
///
/// Uses the rows in `state` if it was [reconciled](UiState::settle) with this Snapshot, and
/// rebuilds them otherwise.
pub fn draw(snapshot: &Snapshot, state: &UiState, frame: &mut Frame<'_>) {
    let area = frame.area();
    let ink = &mut Ink::new(frame.buffer_mut(), state);
    let Some(layout) = Layout::new(area, snapshot.volumes.len()) else {
        draw_small(ink, area, snapshot, state);
        return;
    };
    let rows = rows_for(snapshot, state, &state.rows);
    let item = rows.rows.get(state.cursor).filter(|_| !state.missing).map(|row| row.item);
    header::draw(ink, layout.header, snapshot, state);
    volumes::draw(ink, layout.volumes, snapshot, state);
    tabs::draw(ink, layout.tabs, &rows, state);
    footer::draw(ink, layout.footer, state);

    // An overlay covers the tables, including the second one.
    let body = layout.second.map_or(layout.table, |second| layout.table.union(second));
    match &state.overlay {
        Overlay::None => tables(ink, &layout, snapshot, state, &rows),
        Overlay::Detail(from) => {
            let width = usize::from(body.width);
            let (title, lines) = detail::lines(snapshot, &rows, item, state, width);
            page(ink, body, &title, &lines, *from);
        }
        Overlay::Help(from) => page(ink, body, "Keys", &pages::help(), *from),
        Overlay::Health(from) => {
            page(ink, body, "Tracer status", &pages::health(snapshot, state), *from);
        }
        Overlay::Menu(target, chosen) => menu::draw(ink, body, target, *chosen, state),
        Overlay::Confirm(request) => menu::confirm(ink, body, request, state),
    }
    if let Some(side) = layout.side {
        let (title, lines) = detail::lines(snapshot, &rows, item, state, usize::from(side.width));
        page(ink, side, &title, &lines, 0);
    }
}

fn tables(ink: &mut Ink<'_>, layout: &Layout, snapshot: &Snapshot, state: &UiState, rows: &Rows) {
    let part = Part {
        view: state.view,
        rows,
        from: state.scroll,
        selected: (!state.missing).then_some(state.cursor),
        sort: state.sort(),
    };
    table::draw(ink, layout.table, snapshot, state, &part);
    if let Some(second) = layout.second {
        let beside = state.beside();
        let rows = rows_for(snapshot, &beside, &state.second);
        let sort = beside.sort();
        let part = Part { view: beside.view, rows: &rows, from: 0, selected: None, sort };
        table::draw(ink, second, snapshot, &beside, &part);
    }
}

/// The rows in `made` if they match this Snapshot and state, otherwise newly built ones.
fn rows_for<'r>(snapshot: &Snapshot, state: &UiState, made: &'r Rows) -> Cow<'r, Rows> {
    if made.fits(snapshot, state) {
        Cow::Borrowed(made)
    } else {
        Cow::Owned(Rows::build(snapshot, state))
    }
}

/// Paints what fits on a terminal of a few lines: the most urgent volume and its top writer.
fn draw_small(ink: &mut Ink<'_>, area: Rect, snapshot: &Snapshot, state: &UiState) {
    let mut text = match snapshot.volumes.first() {
        Some(volume) => {
            let mount = display_for(&volume.mount_point, state.charset);
            let (eta, lo, hi) = (volume.eta_s, volume.eta_lo_s, volume.eta_hi_s);
            format!("{mount} {}", units::until_full(volume.full, eta, lo, hi))
        }
        None => "no volume".to_owned(),
    };
    if let Some(writer) = snapshot.writers.first() {
        let rate = state.units.short_growth(writer.growth_bytes_per_s);
        let comm = display_for(&writer.comm, state.charset);
        text.push_str(&format!(": {comm} {} {rate}/s", writer.pid));
    }
    let tone = snapshot.volumes.first().map_or(Tone::Plain, volumes::danger);
    let mut lines: Vec<(String, Tone)> =
        wrap(&text, usize::from(area.width)).into_iter().map(|line| (line, tone)).collect();
    let min = layout::MIN;
    lines.push((format!("({}x{} needed)", min.width, min.height), Tone::Faint));
    for (y, (text, tone)) in (area.top()..area.bottom()).zip(lines) {
        ink.put(area.x, y, &text, area.width, tone);
    }
}

/// Paints the screen shown before the first measurement.
pub fn draw_waiting(state: &UiState, frame: &mut Frame<'_>) {
    let area = frame.area();
    let ink = &mut Ink::new(frame.buffer_mut(), state);
    ink.put(area.x, area.y, "filltop is measuring …  q quits", area.width, Tone::Plain);
}
