//! The screen without its terminal: history, state and the Snapshot shown. No clock, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Size;
use ratatui::{Frame, Terminal};
use tracer_model::snapshot::Snapshot;

use super::draw::{draw, draw_waiting};
use super::keys::Key;
use super::query::Window;
use super::rows::RowKey;
use super::state::{Effect, Effects, HistoryPosition, Overlay, Trends, UiState};
use super::term::blank_half_covered;
use super::update::update;
use tracer_model::history::merge;
use tracer_model::history::retention::{History, Limits};

/// Most points in a sparkline.
const TREND_POINTS: usize = 120;

/// The screen's history and state.
pub struct App {
    state: UiState,
    history: History,
    /// The newest Snapshot with all its rows; the history keeps only the largest ones.
    live: Option<Arc<Snapshot>>,
    /// All Snapshots since the screen was opened, merged into one.
    since_start: Option<Snapshot>,
    /// The time shown; `None` for the present.
    at: Option<Timestamp>,
    replay: bool,
    shown: Option<Arc<Snapshot>>,
}

impl App {
    /// An app with this state, before the first Snapshot.
    #[must_use]
    pub fn new(state: UiState, limits: Limits) -> Self {
        Self {
            state,
            history: History::new(limits),
            live: None,
            since_start: None,
            at: None,
            replay: false,
            shown: None,
        }
    }

    /// An app for a recording, opened at its end; the left and right keys step through it.
    #[must_use]
    pub fn replay(state: UiState, limits: Limits) -> Self {
        Self { replay: true, ..Self::new(state, limits) }
    }

    /// Adds the next Snapshot of a recording; it is shown after the next [`resize`](App::resize) or
    /// key.
    pub fn add_recorded(&mut self, snapshot: Arc<Snapshot>) {
        self.record(snapshot);
    }

    /// Adds the history from before the screen was opened.
    pub fn prepend_history(&mut self, past: History) {
        self.history.prepend(past);
        self.refresh();
    }

    /// The state of the screen.
    #[must_use]
    pub fn state(&self) -> &UiState {
        &self.state
    }

    /// The Snapshot on the screen.
    #[must_use]
    pub fn shown(&self) -> Option<&Arc<Snapshot>> {
        self.shown.as_ref()
    }

    /// Adds a new measurement and shows it, unless the screen is paused.
    pub fn add_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.record(snapshot);
        self.refresh();
    }

    fn record(&mut self, snapshot: Arc<Snapshot>) {
        self.live = Some(Arc::clone(&snapshot));
        self.history.push(snapshot);
        let Some(kept) = self.history.newest() else { return };
        match &mut self.since_start {
            Some(sum) => merge::add(sum, kept),
            None => self.since_start = Some((**kept).clone()),
        }
    }

    /// Handles a key and returns the effects that the caller has to carry out.
    pub fn press(&mut self, key: Key) -> Effects {
        let (state, effects) = update(self.state.clone(), key);
        self.state = state;
        let mut outside = Effects::new();
        for effect in effects {
            match effect {
                Effect::Live => self.at = None,
                Effect::TogglePause => {
                    let newest = self.history.newest().map(|newest| newest.taken_at);
                    self.at = if self.at.is_some() { None } else { newest };
                }
                Effect::Travel(steps) => self.travel(|history, from| history.step(from, steps)),
                Effect::TravelMinutes(minutes) => self.travel(|history, from| {
                    let to = merge::seconds_before(from, f64::from(minutes) * -60.0);
                    // There may be no other Snapshot within a minute: move at least one step.
                    history
                        .step(to, 0)
                        .filter(|&to| to != from)
                        .or_else(|| history.step(from, minutes.signum()))
                }),
                other => outside.push(other),
            }
        }
        self.refresh();
        outside
    }

    fn travel(&mut self, go: impl Fn(&History, Timestamp) -> Option<Timestamp>) {
        let newest = self.history.newest().map(|newest| newest.taken_at);
        if let Some(from) = self.at.or(newest) {
            self.at = go(&self.history, from);
        }
    }

    /// Sets the size of the terminal.
    pub fn resize(&mut self, size: Size) {
        self.state.size = size;
        self.refresh();
    }

    /// Shows a line in the footer until the next key.
    pub fn show_message(&mut self, text: &str) {
        self.state.notice = Some(text.to_owned());
    }

    /// Paints one frame.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        match &self.shown {
            Some(snapshot) => draw(snapshot, &self.state, frame),
            None => draw_waiting(&self.state, frame),
        }
        blank_half_covered(frame.buffer_mut());
    }

    /// Returns the frame that [`draw`](App::draw) paints, for pictures and tests.
    #[must_use]
    pub fn frame(&self) -> Buffer {
        let Size { width, height } = self.state.size;
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| self.draw(frame));
        terminal.backend().buffer().clone()
    }

    /// Finds the Snapshot for the time and window shown, and reconciles the state with it.
    fn refresh(&mut self) {
        let Some(newest) = self.history.newest().cloned() else { return };
        let end = self.at.unwrap_or(newest.taken_at);
        self.shown = match self.state.window {
            Window::Last if self.at.is_none() => self.live.clone(),
            Window::Last => self.history.at(end).cloned(),
            Window::Start if self.at.is_none() => self.since_start.clone().map(|mut sum| {
                merge::set_verdicts(&mut sum, &newest);
                Arc::new(sum)
            }),
            window => {
                let from = window.seconds().map(|seconds| merge::seconds_before(end, seconds));
                let inside =
                    |snapshot: &&Arc<Snapshot>| from.is_none_or(|from| snapshot.taken_at > from);
                let mut parts: Vec<_> = self.history.until(end).take_while(inside).collect();
                parts.reverse();
                let last = parts.last().map(|part| Arc::clone(part));
                let mut sum = merge::merge(parts.into_iter().map(|part| &**part));
                // Rates are those of the window; what is concluded is what is so at its end.
                if let (Some(sum), Some(last)) = (&mut sum, last) {
                    merge::set_verdicts(sum, &last);
                }
                sum.map(Arc::new)
            }
        };
        let Some(shown) = self.shown.clone() else { return };
        let behind = (newest.taken_at - end).total(jiff::Unit::Second).unwrap_or(0.0);
        self.state.position = HistoryPosition {
            at: self.at.map(|_| shown.taken_at),
            behind_s: behind,
            span_s: self.history.span_s(),
            bytes: self.history.bytes(),
            replay: self.replay,
        };
        let state = std::mem::take(&mut self.state);
        self.state = state.reconcile(&shown);
        self.state.trends = Arc::new(self.trends(end));
    }

    fn trends(&self, end: Timestamp) -> Trends {
        let mut volumes: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut selected = vec![];
        let shows_details = self.shows_details();
        for snapshot in self.history.until(end).take(TREND_POINTS) {
            for volume in &snapshot.volumes {
                let trend = volumes.entry(volume.mount_point.clone()).or_default();
                trend.push(volume.growth_bytes_per_s);
            }
            if let Some(key) = self.state.selected.as_ref().filter(|_| shows_details) {
                selected.push(trend_value(snapshot, key).unwrap_or(0.0));
            }
        }
        volumes.values_mut().for_each(|trend| trend.reverse());
        selected.reverse();
        Trends { volumes, selected }
    }

    /// Whether the details of the selected row are shown anywhere on the screen.
    fn shows_details(&self) -> bool {
        let side = self.state.layout().and_then(|layout| layout.side);
        side.is_some() || matches!(self.state.overlay, Overlay::Detail(_))
    }
}

/// The value that a row's sparkline plots: bytes per second; for held files bytes, for victims
/// failed writes.
fn trend_value(snapshot: &Snapshot, key: &RowKey) -> Option<f64> {
    match key {
        RowKey::Writer { pid, start_time, volume } => snapshot
            .writers
            .iter()
            .find(|w| w.pid == *pid && w.start_time == *start_time && w.volume == *volume)
            .map(|writer| writer.growth_bytes_per_s),
        RowKey::Group { kind, name } => Some(
            snapshot
                .writers
                .iter()
                .filter(|writer| match &writer.group {
                    Some(group) => Some(group.kind) == *kind && group.name == *name,
                    None => kind.is_none() && writer.comm == *name,
                })
                .map(|writer| writer.growth_bytes_per_s)
                .sum(),
        ),
        RowKey::Dir { path, volume } => snapshot
            .dirs
            .iter()
            .find(|dir| dir.path == *path && dir.volume == *volume)
            .map(|dir| dir.inflow_bytes_per_s - dir.outflow_bytes_per_s),
        RowKey::File { dev, ino, path } => snapshot
            .paths
            .iter()
            .find(|row| row.ino == *ino && row.dev == *dev && row.path == *path)
            .map(|row| row.growth_bytes_per_s),
        RowKey::Held { pid, fd, path } => snapshot
            .held
            .iter()
            .find(|held| held.pid == *pid && held.fd == *fd && held.path == *path)
            .map(|held| held.bytes as f64),
        RowKey::Victim { pid, volume } => snapshot
            .victims
            .iter()
            .find(|victim| victim.pid == *pid && victim.volume == *volume)
            .map(|victim| victim.errors.total() as f64),
    }
}
