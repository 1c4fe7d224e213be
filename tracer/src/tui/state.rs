//! The state that the screen keeps between key presses.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ratatui::layout::{Rect, Size};
use tracer_model::action::request::{ActionRequest, Operation, Target};
use tracer_model::sanitize::Charset;
use tracer_model::units::Units;

use super::layout::Layout;
use super::query::{Col, Filter, Folds, Query, Sort, View, VolumeChoice, Window};
use super::rows::{RowKey, Rows};
use crate::output::theme::Theme;

/// A page or menu that covers the tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The help page, scrolled to this line.
    Help(usize),
    /// The details of the selected row, scrolled to this line.
    Detail(usize),
    /// The tracer's status, scrolled to this line.
    Health(usize),
    /// The menu of actions on a target, and the selected one.
    Menu(Box<Target>, Operation),
    /// The confirmation before an action.
    Confirm(Box<ActionRequest>),
}

/// The extent of the history and the position in it, for the header.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HistoryPosition {
    /// The time shown; `None` for the present.
    pub at: Option<Timestamp>,
    /// Seconds between that time and the newest Snapshot.
    pub behind_s: f64,
    /// Seconds of history kept.
    pub span_s: f64,
    /// Memory used by the history, bytes.
    pub bytes: usize,
    /// Whether a recording is shown.
    pub replay: bool,
}

/// Earlier values, oldest first, for sparklines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trends {
    /// Growth per second by mount point.
    pub volumes: BTreeMap<String, Vec<f64>>,
    /// Values of the selected row.
    pub selected: Vec<f64>,
}

/// Everything that [`draw`](super::draw()) needs in addition to the Snapshot.
#[derive(Debug, Clone)]
pub struct UiState {
    /// IEC or SI units.
    pub units: Units,
    /// Colour theme.
    pub theme: Theme,
    /// The characters that the terminal can show.
    pub charset: Charset,
    /// Size of the terminal.
    pub size: Size,
    /// The table shown.
    pub view: View,
    /// Which volume's rows are shown.
    pub volume: VolumeChoice,
    /// Mount point of the current volume; empty if there is none.
    pub focus: String,
    /// Mount points of all volumes, in the order shown.
    pub mounts: Vec<String>,
    /// Sort order, by view.
    pub sorts: [Sort; 6],
    /// The row filter.
    pub filter: Filter,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// Which rows of the trees are expanded.
    pub folds: Folds,
    /// Whether to toggle the selected row at the next reconcile, once that row is known.
    pub toggle_fold_pending: bool,
    /// The selected row; `None` until [`reconcile`](UiState::reconcile) sets it from `cursor`.
    pub selected: Option<RowKey>,
    /// Whether the selected row is absent from this Snapshot.
    pub selection_missing: bool,
    /// The target of an action on the selected row.
    pub target: Option<Target>,
    /// Whether the user selected the row, rather than the program.
    pub user_selected: bool,
    /// Index of the selected row.
    pub cursor: usize,
    /// First row shown.
    pub scroll: usize,
    /// The rows of the last reconciled Snapshot.
    pub rows: Arc<Rows>,
    /// The rows of the second table, on terminals tall enough for one.
    pub second_rows: Arc<Rows>,
    /// The page or menu that is open.
    pub overlay: Overlay,
    /// Rate window.
    pub window: Window,
    /// Requested sampling interval, seconds; `None` if it cannot be changed.
    pub interval_s: Option<f64>,
    /// Whether actions can be carried out, rather than only shown as commands.
    pub can_act: bool,
    /// The last target that was suspended. It soon disappears from the tables.
    pub suspended: Option<Target>,
    /// The extent of the history and the position in it.
    pub position: HistoryPosition,
    /// Values for the sparklines.
    pub trends: Arc<Trends>,
    /// A message in the footer, shown until the next key.
    pub notice: Option<String>,
}

impl Default for UiState {
    fn default() -> Self {
        let growth = |column| Sort { column, descending: true };
        Self {
            units: Units::Iec,
            theme: Theme::Dark,
            charset: Charset::Unicode,
            size: Size::new(80, 24),
            view: View::Writers,
            volume: VolumeChoice::MostUrgent,
            focus: String::new(),
            mounts: vec![],
            sorts: [
                growth(Col::Growth),
                growth(Col::Growth),
                growth(Col::Inflow),
                growth(Col::Growth),
                growth(Col::HeldBytes),
                growth(Col::Enospc),
            ],
            filter: Filter::default(),
            typing: false,
            folds: Folds::default(),
            toggle_fold_pending: false,
            selected: None,
            selection_missing: false,
            target: None,
            user_selected: false,
            cursor: 0,
            scroll: 0,
            rows: Arc::default(),
            second_rows: Arc::default(),
            overlay: Overlay::None,
            window: Window::Last,
            interval_s: None,
            can_act: false,
            suspended: None,
            position: HistoryPosition::default(),
            trends: Arc::default(),
            notice: None,
        }
    }
}

impl UiState {
    /// What the main table shows.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        self.query_of(self.view)
    }

    /// What the second table shows: the files below the writers, and the writers below the files.
    #[must_use]
    pub fn second_query(&self) -> Query<'_> {
        self.query_of(if self.view == View::Files { View::Writers } else { View::Files })
    }

    fn query_of(&self, view: View) -> Query<'_> {
        Query {
            view,
            volume: (self.volume != VolumeChoice::All).then_some(self.focus.as_str()),
            sort: self.sorts[view.index()],
            filter: &self.filter,
            folds: &self.folds,
        }
    }

    /// The area of the whole terminal.
    #[must_use]
    pub const fn area(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.size.width, height: self.size.height }
    }

    /// The areas of the screen; `None` on a terminal too small for tables.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        Layout::new(self.area(), self.mounts.len())
    }

    /// Index of the first volume shown if only `shown` fit, so that the current one is among them.
    #[must_use]
    pub fn first_visible_volume(&self, shown: usize) -> usize {
        let at = self.mounts.iter().position(|mount| *mount == self.focus).unwrap_or(0);
        (at + 1).saturating_sub(shown)
    }
}

/// An effect of a key outside the screen's state.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Quit the program.
    Quit,
    /// Suspend filltop for shell job control.
    Suspend,
    /// Redraw the whole screen.
    Redraw,
    /// Pause or resume the display.
    TogglePause,
    /// Return to the present.
    Live,
    /// Move by this many Snapshots in time.
    Travel(i32),
    /// Move by this many minutes in time.
    TravelMinutes(i32),
    /// Change the sampling interval, seconds.
    Interval(f64),
    /// Carry out this confirmed action.
    Act(Box<ActionRequest>),
}

/// Effects, in the order in which to carry them out.
pub type Effects = Vec<Effect>;
