//! Paints a frame.

use std::borrow::Cow;

use ratatui::Frame;
use ratatui::layout::Rect;
use tracer_model::sanitize::display_for;
use tracer_model::snapshot::Snapshot;
use tracer_model::units;

use super::layout;
use super::layout::Layout;
use super::panes::table::TableContent;
use super::panes::{
    Painter, detail, draw_page, footer, header, menu, pages, table, tabs, verdict, volumes, wrap,
};
use super::query::Query;
use super::rows::Rows;
use super::state::{Overlay, UiState};
use crate::output::format;
use crate::output::theme::Role;

/// Paints one frame: a pure function of its arguments.
///
/// Uses the rows in `state` if it was [reconciled](UiState::reconcile) with this Snapshot, and
/// rebuilds them otherwise.
pub fn draw(snapshot: &Snapshot, state: &UiState, frame: &mut Frame<'_>) {
    let area = frame.area();
    let painter = &mut Painter::new(frame.buffer_mut(), state);
    let Some(layout) = Layout::new(area, snapshot.volumes.len()) else {
        draw_compact(painter, area, snapshot, state);
        return;
    };
    let rows = rows_for(snapshot, &state.query(), &state.rows);
    let item = rows.rows.get(state.cursor).filter(|_| !state.selection_missing).map(|row| row.item);
    header::draw(painter, layout.header, snapshot, state);
    volumes::draw(painter, layout.volumes, snapshot, state);
    if let Some(area) = layout.verdict {
        verdict::draw(painter, area, snapshot, state);
    }
    tabs::draw(painter, layout.tabs, &rows, state);
    footer::draw(painter, layout.footer, state);

    // An overlay covers the tables, including the second one.
    let body = layout.second.map_or(layout.table, |second| layout.table.union(second));
    match &state.overlay {
        Overlay::None => tables(painter, &layout, snapshot, state, &rows),
        Overlay::Detail(from) => {
            let width = usize::from(body.width);
            let (title, lines) = detail::lines(snapshot, &rows.groups, item, state, width);
            draw_page(painter, body, &title, &lines, *from);
        }
        Overlay::Help(from) => draw_page(painter, body, "Keys", &pages::help(), *from),
        Overlay::Health(from) => {
            draw_page(painter, body, "Tracer status", &pages::health(snapshot, state), *from);
        }
        Overlay::Menu(target, chosen) => menu::draw(painter, body, target, *chosen, state),
        Overlay::Confirm(request) => menu::confirm(painter, body, request, state),
    }
    if let Some(side) = layout.side {
        let (title, lines) =
            detail::lines(snapshot, &rows.groups, item, state, usize::from(side.width));
        draw_page(painter, side, &title, &lines, 0);
    }
}

fn tables(
    painter: &mut Painter<'_>,
    layout: &Layout,
    snapshot: &Snapshot,
    state: &UiState,
    rows: &Rows,
) {
    let selected = (!state.selection_missing).then_some(state.cursor);
    let part = TableContent { query: state.query(), rows, from: state.scroll, selected };
    table::draw(painter, layout.table, snapshot, state, &part);
    if let Some(second) = layout.second {
        let query = state.second_query();
        let rows = rows_for(snapshot, &query, &state.second_rows);
        let part = TableContent { query, rows: &rows, from: 0, selected: None };
        table::draw(painter, second, snapshot, state, &part);
    }
}

/// `built` if these rows are for this Snapshot and query, otherwise newly built ones.
fn rows_for<'r>(snapshot: &Snapshot, query: &Query<'_>, built: &'r Rows) -> Cow<'r, Rows> {
    if built.are_for(snapshot, query) {
        Cow::Borrowed(built)
    } else {
        Cow::Owned(Rows::build(snapshot, query))
    }
}

/// Paints what fits on a terminal of a few lines: the most urgent volume and its top writer.
fn draw_compact(painter: &mut Painter<'_>, area: Rect, snapshot: &Snapshot, state: &UiState) {
    let mut text = match snapshot.volumes.first() {
        Some(volume) => {
            let mount = display_for(&volume.mount_point, state.charset);
            let (eta, lo, hi) = (volume.eta_s, volume.eta_lo_s, volume.eta_hi_s);
            match format::pace_only(volume) {
                Some(_) => format!("{mount} {}", format::eta_cell(volume)),
                None => format!("{mount} {}", units::until_full(volume.full, eta, lo, hi)),
            }
        }
        None => "no volume".to_owned(),
    };
    if let Some(writer) = snapshot.writers.first() {
        let rate = state.units.short_growth(writer.growth_bytes_per_s);
        let comm = display_for(&writer.comm, state.charset);
        text.push_str(&format!(": {comm} {} {rate}/s", writer.pid));
    }
    let role = snapshot.volumes.first().map_or(Role::Plain, volumes::urgency_role);
    let mut lines: Vec<(String, Role)> =
        wrap(&text, usize::from(area.width)).into_iter().map(|line| (line, role)).collect();
    let min = layout::MIN;
    lines.push((format!("({}x{} needed)", min.width, min.height), Role::Faint));
    for (y, (text, role)) in (area.top()..area.bottom()).zip(lines) {
        painter.put(area.x, y, &text, area.width, role);
    }
}

/// Paints the screen shown before the first measurement.
pub fn draw_waiting(state: &UiState, frame: &mut Frame<'_>) {
    let area = frame.area();
    let painter = &mut Painter::new(frame.buffer_mut(), state);
    painter.put(area.x, area.y, "filltop is measuring …  q quits", area.width, Role::Plain);
}
