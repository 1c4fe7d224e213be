//! The state that the screen keeps between key presses.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ratatui::layout::Size;
use regex_lite::{Regex, RegexBuilder};
use tracer_model::action::request::{ActionRequest, Operation, Target};
use tracer_model::sanitize::Charset;
use tracer_model::units::Units;

use super::rows::{RowKey, Rows};
use super::theme::Theme;
use super::views::Col;

/// The tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// Processes.
    #[default]
    Writers,
    /// Units and containers, with their processes below.
    Groups,
    /// Directories, a tree.
    Dirs,
    /// Files.
    Files,
    /// Deleted files that are still open.
    Held,
    /// Processes whose writes fail or wait.
    Victims,
}

impl View {
    /// In the order of their number keys.
    pub const ALL: [Self; 6] =
        [Self::Writers, Self::Groups, Self::Dirs, Self::Files, Self::Held, Self::Victims];

    /// The name on its tab.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writers => "writers",
            Self::Groups => "groups",
            Self::Dirs => "dirs",
            Self::Files => "files",
            Self::Held => "held",
            Self::Victims => "victims",
        }
    }

    /// Its index in [`View::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Which volume's rows are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VolumeChoice {
    /// Those of the most urgent volume, until the user selects a row.
    #[default]
    Endangered,
    /// Those of the volume mounted here.
    Mount(String),
    /// Those of all volumes.
    All,
}

/// The window over which rates are averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Window {
    /// The last interval.
    #[default]
    Last,
    /// Ten seconds.
    TenSeconds,
    /// One minute.
    Minute,
    /// Since the screen was opened.
    Start,
}

impl Window {
    /// The next window in the order of the `w` key.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Last => Self::TenSeconds,
            Self::TenSeconds => Self::Minute,
            Self::Minute => Self::Start,
            Self::Start => Self::Last,
        }
    }

    /// Length in seconds; `None` if unbounded.
    #[must_use]
    pub const fn seconds(self) -> Option<f64> {
        match self {
            Self::Last => Some(0.0),
            Self::TenSeconds => Some(10.0),
            Self::Minute => Some(60.0),
            Self::Start => None,
        }
    }
}

/// The sort order of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// The column to sort by.
    pub column: Col,
    /// Whether the largest value comes first.
    pub descending: bool,
}

/// A row filter: a substring or a regular expression. Case is ignored.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: String,
    regex: bool,
    compiled: Option<Result<Regex, String>>,
}

/// Longest filter, characters; bounds the cost of an expression.
const FILTER_MAX: usize = 200;

impl Filter {
    /// The text that was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the text is a regular expression.
    #[must_use]
    pub const fn is_regex(&self) -> bool {
        self.regex
    }

    /// The error in the expression, if any.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.compiled.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Whether every row passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Appends a character.
    pub fn push(&mut self, c: char) {
        if self.text.chars().count() < FILTER_MAX {
            self.text.push(c);
            self.compile();
        }
    }

    /// Removes the last character.
    pub fn pop(&mut self) {
        self.text.pop();
        self.compile();
    }

    /// Clears the text, so that every row passes.
    pub fn clear(&mut self) {
        self.text.clear();
        self.compile();
    }

    /// Switches between substring and regular expression.
    pub fn toggle_regex(&mut self) {
        self.regex = !self.regex;
        self.compile();
    }

    fn compile(&mut self) {
        // A substring becomes an escaped expression: one matcher, one case rule.
        let pattern = if self.regex { self.text.clone() } else { regex_lite::escape(&self.text) };
        self.compiled = (!self.text.is_empty()).then(|| {
            RegexBuilder::new(&pattern)
                .case_insensitive(true)
                .size_limit(1 << 20)
                .build()
                .map_err(|error| error.to_string())
        });
    }

    /// Whether one of `texts` matches. An expression that is not (yet) valid hides nothing.
    pub fn lets<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        match &self.compiled {
            Some(Ok(regex)) => texts.into_iter().any(|text| regex.is_match(text)),
            _ => true,
        }
    }
}

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
pub struct Past {
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

/// Everything that [`draw`](super::draw) needs in addition to the Snapshot.
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
    /// Rows that the user collapsed (`false`) or expanded (`true`), by fold name.
    pub folds: BTreeMap<String, bool>,
    /// Whether to toggle the selected row at the next reconcile, once that row is known.
    pub fold_wish: bool,
    /// Number of fold changes so far; rows built before the last one are stale.
    pub fold_changes: usize,
    /// Whether all other rows are expanded; `None` for the view's default.
    pub fold_all: Option<bool>,
    /// The selected row; `None` until [`settle`](UiState::settle) sets it from `cursor`.
    pub selected: Option<RowKey>,
    /// Whether the selected row is absent from this Snapshot.
    pub missing: bool,
    /// The target of an action on the selected row.
    pub target: Option<Target>,
    /// Whether the user selected the row, rather than the program.
    pub touched: bool,
    /// Index of the selected row.
    pub cursor: usize,
    /// First row shown.
    pub scroll: usize,
    /// The rows of the last reconciled Snapshot.
    pub rows: Arc<Rows>,
    /// The rows of the second table, on terminals tall enough for one.
    pub second: Arc<Rows>,
    /// The page or menu that is open.
    pub overlay: Overlay,
    /// Rate window.
    pub window: Window,
    /// Requested sampling interval, seconds; `None` if it cannot be changed.
    pub interval_s: Option<f64>,
    /// Whether actions can be carried out, rather than only shown as commands.
    pub can_act: bool,
    /// The last target that was suspended. It soon disappears from the tables.
    pub halted: Option<Target>,
    /// The extent of the history and the position in it.
    pub past: Past,
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
            volume: VolumeChoice::Endangered,
            focus: String::new(),
            mounts: vec![],
            sorts: [
                growth(Col::Growth),
                growth(Col::Growth),
                growth(Col::Inflow),
                growth(Col::WrittenRate),
                growth(Col::HeldBytes),
                growth(Col::Enospc),
            ],
            filter: Filter::default(),
            typing: false,
            folds: BTreeMap::new(),
            fold_wish: false,
            fold_changes: 0,
            fold_all: None,
            selected: None,
            missing: false,
            target: None,
            touched: false,
            cursor: 0,
            scroll: 0,
            rows: Arc::default(),
            second: Arc::default(),
            overlay: Overlay::None,
            window: Window::Last,
            interval_s: None,
            can_act: false,
            halted: None,
            past: Past::default(),
            trends: Arc::default(),
            notice: None,
        }
    }
}

impl UiState {
    /// The sort order of the table shown.
    #[must_use]
    pub fn sort(&self) -> Sort {
        self.sorts[self.view.index()]
    }

    /// The state of the second table: the files next to the writers, and the writers next to the
    /// files.
    #[must_use]
    pub fn beside(&self) -> Self {
        let view = if self.view == View::Files { View::Writers } else { View::Files };
        Self { view, ..self.clone() }
    }

    /// Whether a row of a tree is expanded; `by_itself` is the view's default.
    #[must_use]
    pub fn is_open(&self, fold: &str, by_itself: bool) -> bool {
        self.folds.get(fold).copied().unwrap_or_else(|| self.fold_all.unwrap_or(by_itself))
    }
}

/// Something to do outside the screen state after a key.
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
