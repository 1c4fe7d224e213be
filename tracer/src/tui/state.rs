//! What the screen remembers between two key presses.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ratatui::layout::Size;
use regex_lite::{Regex, RegexBuilder};
use tracer_model::sanitize::Charset;
use tracer_model::units::Units;

use super::action::{ActionRequest, How, Target};
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
    /// Deleted-but-open files.
    Held,
    /// Who suffers.
    Victims,
}

impl View {
    /// In the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Writers, Self::Groups, Self::Dirs, Self::Files, Self::Held, Self::Victims];

    /// Name on its tab.
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

    /// Its place in [`View::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Whose rows are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VolumeChoice {
    /// Those of the volume in most danger, until somebody selects a row.
    #[default]
    Endangered,
    /// Those of the volume mounted here.
    Mount(String),
    /// All.
    All,
}

/// Over how long rates are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Window {
    /// The last interval.
    #[default]
    Last,
    /// Ten seconds.
    TenSeconds,
    /// A minute.
    Minute,
    /// Since the screen was opened.
    Start,
}

impl Window {
    /// The order in which the key goes round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Last => Self::TenSeconds,
            Self::TenSeconds => Self::Minute,
            Self::Minute => Self::Start,
            Self::Start => Self::Last,
        }
    }

    /// Its length, seconds; `None` where it has no bound.
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

/// By what a table is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// The column.
    pub column: Col,
    /// Largest first?
    pub descending: bool,
}

/// Which rows are shown: those that contain a text, or match an expression. Case is ignored.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: String,
    regex: bool,
    compiled: Option<Result<Regex, String>>,
}

/// Longest filter, characters: bounds what an expression can cost.
const FILTER_MAX: usize = 200;

impl Filter {
    /// What was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Is it a regular expression?
    #[must_use]
    pub const fn is_regex(&self) -> bool {
        self.regex
    }

    /// What is wrong with the expression.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.compiled.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Does it let everything through?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// One more character.
    pub fn push(&mut self, c: char) {
        if self.text.chars().count() < FILTER_MAX {
            self.text.push(c);
            self.compile();
        }
    }

    /// One fewer.
    pub fn pop(&mut self) {
        self.text.pop();
        self.compile();
    }

    /// Lets everything through again.
    pub fn clear(&mut self) {
        self.text.clear();
        self.compile();
    }

    /// Text or regular expression.
    pub fn toggle_regex(&mut self) {
        self.regex = !self.regex;
        self.compile();
    }

    fn compile(&mut self) {
        // A substring is an escaped expression: one matcher, one rule for case.
        let pattern = if self.regex { self.text.clone() } else { regex_lite::escape(&self.text) };
        self.compiled = (!self.text.is_empty()).then(|| {
            RegexBuilder::new(&pattern)
                .case_insensitive(true)
                .size_limit(1 << 20)
                .build()
                .map_err(|error| error.to_string())
        });
    }

    /// Does one of `texts` pass? An expression that is not valid (yet) hides nothing.
    pub fn lets<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        match &self.compiled {
            Some(Ok(regex)) => texts.into_iter().any(|text| regex.is_match(text)),
            _ => true,
        }
    }
}

/// What covers the tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// All keys, from this line on.
    Help(usize),
    /// The selected row, from this line on.
    Detail(usize),
    /// The tracer itself, from this line on.
    Health(usize),
    /// The menu of actions on a target, with one of them chosen.
    Menu(Box<Target>, How),
    /// The question before an action.
    Confirm(Box<ActionRequest>),
}

/// How the past is kept and what of it is shown; for the header.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Past {
    /// The moment that is shown, when it is not now.
    pub at: Option<Timestamp>,
    /// How long before the newest Snapshot that is, seconds.
    pub behind_s: f64,
    /// How far back one can go, seconds.
    pub span_s: f64,
    /// What that takes in memory.
    pub bytes: usize,
    /// Is it a recording?
    pub replay: bool,
}

/// Earlier values, oldest first, for sparklines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trends {
    /// Growth per second by mount point.
    pub volumes: BTreeMap<String, Vec<f64>>,
    /// Rate of the selected row.
    pub selected: Vec<f64>,
}

/// Everything that [`draw`](super::draw) needs beside the Snapshot.
#[derive(Debug, Clone)]
pub struct UiState {
    /// IEC or SI.
    pub units: Units,
    /// Colours.
    pub theme: Theme,
    /// What the terminal can show.
    pub charset: Charset,
    /// The terminal.
    pub size: Size,
    /// Which table.
    pub view: View,
    /// Whose rows.
    pub volume: VolumeChoice,
    /// The volume that is meant, resolved; empty where there is none.
    pub focus: String,
    /// Mount points, in the order shown.
    pub mounts: Vec<String>,
    /// Sorting, by view.
    pub sorts: [Sort; 6],
    /// Which rows.
    pub filter: Filter,
    /// Is the filter being typed?
    pub typing: bool,
    /// Rows that were folded or unfolded by hand.
    pub folds: BTreeMap<String, bool>,
    /// The selected row is to be folded or unfolded, once it is known which one that is.
    pub fold_wish: bool,
    /// How often one was, so that rows made before are told apart.
    pub fold_changes: usize,
    /// Fold or unfold everything else: `None` is as the view has it.
    pub fold_all: Option<bool>,
    /// The selected row; `None` until [`settle`](UiState::settle) names what `cursor` is on.
    pub selected: Option<RowKey>,
    /// Is the row that was selected not in this Snapshot?
    pub missing: bool,
    /// What an action on it would hit.
    pub target: Option<Target>,
    /// Did somebody select it, rather than the program?
    pub touched: bool,
    /// Index of the selected row.
    pub cursor: usize,
    /// First row shown.
    pub scroll: usize,
    /// The rows of the Snapshot last settled on.
    pub rows: Arc<Rows>,
    /// The rows of the second table, where there is room for one.
    pub second: Arc<Rows>,
    /// What is open.
    pub overlay: Overlay,
    /// Rate window.
    pub window: Window,
    /// Interval asked for, seconds; `None` where it cannot be changed.
    pub interval_s: Option<f64>,
    /// Can actions be carried out, or only be shown as commands?
    pub can_act: bool,
    /// What was last frozen or slowed down: it is soon in no table any more.
    pub halted: Option<Target>,
    /// The past.
    pub past: Past,
    /// Sparklines.
    pub trends: Arc<Trends>,
    /// A line for the footer, until the next key.
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
    /// How the table that is shown is sorted.
    #[must_use]
    pub fn sort(&self) -> Sort {
        self.sorts[self.view.index()]
    }

    /// The state of the second table: who, and into which files, is the question behind the
    /// question.
    #[must_use]
    pub fn beside(&self) -> Self {
        let view = if self.view == View::Files { View::Writers } else { View::Files };
        Self { view, ..self.clone() }
    }

    /// Is this row of a tree unfolded?
    #[must_use]
    pub fn is_open(&self, fold: &str, by_itself: bool) -> bool {
        self.folds.get(fold).copied().unwrap_or_else(|| self.fold_all.unwrap_or(by_itself))
    }
}

/// What is to be done outside the screen after a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// End the program.
    Quit,
    /// Stop, as the shell's job control has it.
    Suspend,
    /// Send the whole screen again.
    Redraw,
    /// Stand still or go on.
    TogglePause,
    /// Show now.
    Live,
    /// Show an earlier or later Snapshot.
    Travel(i32),
    /// Show an earlier or later minute.
    TravelMinutes(i32),
    /// Measure at this interval, seconds.
    Interval(f64),
    /// Carry this out; it was confirmed.
    Act(Box<ActionRequest>),
}

/// In the order in which they are to be done.
pub type Effects = Vec<Effect>;
