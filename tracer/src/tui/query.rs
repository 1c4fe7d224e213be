//! What decides which rows a table shows, and in which order.

use std::collections::BTreeMap;

use regex_lite::{Regex, RegexBuilder};

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
    MostUrgent,
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

/// A column of a table; `views/columns.rs` has the headings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Col {
    Pid,
    User,
    WrittenRate,
    Written,
    Size,
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
    pub fn matches<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        match &self.compiled {
            Some(Ok(regex)) => texts.into_iter().any(|text| regex.is_match(text)),
            _ => true,
        }
    }
}

/// Which rows of a tree are expanded.
#[derive(Debug, Clone, Default)]
pub struct Folds {
    /// Rows that the user collapsed (`false`) or expanded (`true`), by fold name.
    chosen: BTreeMap<String, bool>,
    /// Whether all other rows are expanded; `None` for the view's default.
    all: Option<bool>,
    /// Number of changes so far; rows built before the last one are stale.
    changes: usize,
}

impl Folds {
    /// Whether a row is expanded; `by_default` holds for rows that the user did not change.
    #[must_use]
    pub fn is_expanded(&self, name: &str, by_default: bool) -> bool {
        self.chosen.get(name).copied().unwrap_or_else(|| self.all.unwrap_or(by_default))
    }

    /// Expands or collapses one row.
    pub fn set(&mut self, name: String, expanded: bool) {
        self.chosen.insert(name, expanded);
        self.changes += 1;
    }

    /// Expands all rows, or collapses them; `by_default` is whether they are expanded at first.
    pub fn toggle_all(&mut self, by_default: bool) {
        self.chosen.clear();
        self.all = Some(!self.all.unwrap_or(by_default));
        self.changes += 1;
    }

    /// A number that changes whenever a row is expanded or collapsed.
    #[must_use]
    pub const fn version(&self) -> usize {
        self.changes
    }
}

/// Which rows a table shows, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The table.
    pub view: View,
    /// Mount point of the volume whose rows are shown; `None` for those of all volumes.
    pub volume: Option<&'a str>,
    /// The sort order.
    pub sort: Sort,
    /// The row filter.
    pub filter: &'a Filter,
    /// Which rows are expanded.
    pub folds: &'a Folds,
}

impl Query<'_> {
    /// Whether rows of the volume at this mount point are shown.
    #[must_use]
    pub fn covers(&self, mount_point: &str) -> bool {
        self.volume.is_none_or(|volume| volume == mount_point)
    }
}
