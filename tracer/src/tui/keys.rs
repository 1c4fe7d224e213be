//! Key presses, and what each is bound to: one table for `update`, the help and the tests.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::View;

/// What somebody pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// A printable character.
    Char(char),
    /// Control and a letter.
    Ctrl(char),
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Shift and arrow left.
    ShiftLeft,
    /// Shift and arrow right.
    ShiftRight,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Backspace.
    Backspace,
    /// The left mouse button, at this column and row.
    Click(u16, u16),
    /// The wheel, away from the user.
    WheelUp,
    /// The wheel, towards the user.
    WheelDown,
}

impl Key {
    /// The key of a terminal event; `None` for releases and for keys that nothing is bound to.
    #[must_use]
    pub fn from_event(event: &KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        let shift = event.modifiers.contains(KeyModifiers::SHIFT);
        match event.code {
            KeyCode::Char(c) if ctrl => Some(Self::Ctrl(c.to_ascii_lowercase())),
            KeyCode::Char(c) => Some(Self::Char(c)),
            KeyCode::Up => Some(Self::Up),
            KeyCode::Down => Some(Self::Down),
            KeyCode::Left if shift => Some(Self::ShiftLeft),
            KeyCode::Right if shift => Some(Self::ShiftRight),
            KeyCode::Left => Some(Self::Left),
            KeyCode::Right => Some(Self::Right),
            KeyCode::PageUp => Some(Self::PageUp),
            KeyCode::PageDown => Some(Self::PageDown),
            KeyCode::Home => Some(Self::Home),
            KeyCode::End => Some(Self::End),
            KeyCode::Tab => Some(Self::Tab),
            KeyCode::BackTab => Some(Self::BackTab),
            KeyCode::Enter => Some(Self::Enter),
            KeyCode::Esc => Some(Self::Esc),
            KeyCode::Backspace => Some(Self::Backspace),
            KeyCode::F(1) => Some(Self::Char('?')),
            _ => None,
        }
    }
}

/// What a key asks for, where no prompt or menu takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Move the selection by this many rows.
    Move(i32),
    /// Move it by pages.
    Page(i32),
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// Show another table.
    Show(View),
    /// The next table, or the one before.
    NextView(i32),
    /// The next volume, or the one before.
    NextVolume(i32),
    /// Rows of all volumes.
    AllVolumes,
    /// Follow the volume in most danger again.
    Endangered,
    /// All that is known about the selected row.
    Detail,
    /// Close what is open; then clear filter and selection.
    Back,
    /// Unfold the selected row, or fold it.
    Fold,
    /// Unfold all rows, or fold all.
    FoldAll,
    /// Type a filter.
    Filter,
    /// Sort by another column.
    Sort(i32),
    /// Sort the other way round.
    Reverse,
    /// Stand still, or go on.
    Pause,
    /// Back or forward in time, in Snapshots.
    Travel(i32),
    /// Back or forward in time, in minutes.
    TravelMinutes(i32),
    /// Measure more or less often.
    Interval(i32),
    /// Over how long rates are taken.
    Window,
    /// IEC or SI.
    Units,
    /// Colours.
    Theme,
    /// The menu of actions.
    Act,
    /// The tracer's own state.
    Health,
    /// All keys.
    Help,
    /// Send the whole screen again.
    Redraw,
    /// Job control.
    Suspend,
    /// The end.
    Quit,
}

/// One line of the help.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// What to press, in words.
    pub label: &'static str,
    /// What it does.
    pub does: &'static str,
    /// The keys, each with its command.
    pub keys: &'static [(Key, Command)],
}

const fn line(label: &'static str, does: &'static str, keys: &'static [(Key, Command)]) -> Binding {
    Binding { label, does, keys }
}

/// Every key that works on the main screen.
pub const BINDINGS: &[Binding] = &[
    line(
        "↑ ↓  k j",
        "select a row",
        &[
            (Key::Up, Command::Move(-1)),
            (Key::Char('k'), Command::Move(-1)),
            (Key::Down, Command::Move(1)),
            (Key::Char('j'), Command::Move(1)),
            (Key::WheelUp, Command::Move(-3)),
            (Key::WheelDown, Command::Move(3)),
        ],
    ),
    line(
        "PgUp PgDn",
        "a page up, down",
        &[(Key::PageUp, Command::Page(-1)), (Key::PageDown, Command::Page(1))],
    ),
    line("Home End", "first, last row", &[(Key::Home, Command::First), (Key::End, Command::Last)]),
    line(
        "1 … 6",
        "writers, groups, directories, files, held, victims",
        &[
            (Key::Char('1'), Command::Show(View::Writers)),
            (Key::Char('2'), Command::Show(View::Groups)),
            (Key::Char('3'), Command::Show(View::Dirs)),
            (Key::Char('4'), Command::Show(View::Files)),
            (Key::Char('5'), Command::Show(View::Held)),
            (Key::Char('6'), Command::Show(View::Victims)),
        ],
    ),
    line(
        "Tab",
        "next table (Shift-Tab: the one before)",
        &[(Key::Tab, Command::NextView(1)), (Key::BackTab, Command::NextView(-1))],
    ),
    line(
        "[ ]",
        "previous, next volume",
        &[(Key::Char('['), Command::NextVolume(-1)), (Key::Char(']'), Command::NextVolume(1))],
    ),
    line("a", "rows of all volumes, or of one", &[(Key::Char('a'), Command::AllVolumes)]),
    line("d", "back to the volume in most danger", &[(Key::Char('d'), Command::Endangered)]),
    line("Enter", "all that is known about the row", &[(Key::Enter, Command::Detail)]),
    line("x", "act on it: freeze, throttle, stop …", &[(Key::Char('x'), Command::Act)]),
    line(
        "e",
        "unfold or fold the row (E: all)",
        &[(Key::Char('e'), Command::Fold), (Key::Char('E'), Command::FoldAll)],
    ),
    line("/", "filter rows (Ctrl-R: regular expression)", &[(Key::Char('/'), Command::Filter)]),
    line(
        "s  < >",
        "sort by the next, previous column",
        &[
            (Key::Char('s'), Command::Sort(1)),
            (Key::Char('>'), Command::Sort(1)),
            (Key::Char('<'), Command::Sort(-1)),
        ],
    ),
    line("r", "sort the other way round", &[(Key::Char('r'), Command::Reverse)]),
    line("Space", "stand still, go on", &[(Key::Char(' '), Command::Pause)]),
    line(
        "← →  h l",
        "back, forward in time (Shift: a minute)",
        &[
            (Key::Left, Command::Travel(-1)),
            (Key::Char('h'), Command::Travel(-1)),
            (Key::Right, Command::Travel(1)),
            (Key::Char('l'), Command::Travel(1)),
            (Key::ShiftLeft, Command::TravelMinutes(-1)),
            (Key::Char('H'), Command::TravelMinutes(-1)),
            (Key::ShiftRight, Command::TravelMinutes(1)),
            (Key::Char('L'), Command::TravelMinutes(1)),
        ],
    ),
    line(
        "+ -",
        "measure less, more often",
        &[(Key::Char('+'), Command::Interval(1)), (Key::Char('-'), Command::Interval(-1))],
    ),
    line("w", "rates over: last, 10 s, 1 min, since start", &[(Key::Char('w'), Command::Window)]),
    line("u", "KiB or kB", &[(Key::Char('u'), Command::Units)]),
    line("c", "colours: dark, light, colour-blind safe, none", &[(Key::Char('c'), Command::Theme)]),
    line("i", "the tracer: hooks, blind spots, losses", &[(Key::Char('i'), Command::Health)]),
    line("?", "this help", &[(Key::Char('?'), Command::Help)]),
    line("Esc", "close; clear filter and selection; back to now", &[(Key::Esc, Command::Back)]),
    line("Ctrl-L", "draw the screen again", &[(Key::Ctrl('l'), Command::Redraw)]),
    line("Ctrl-Z", "suspend", &[(Key::Ctrl('z'), Command::Suspend)]),
    line(
        "q",
        "quit (Ctrl-C too)",
        &[(Key::Char('q'), Command::Quit), (Key::Ctrl('c'), Command::Quit)],
    ),
];

/// What `key` is bound to on the main screen.
#[must_use]
pub fn command(key: Key) -> Option<Command> {
    BINDINGS
        .iter()
        .flat_map(|binding| binding.keys)
        .find(|(bound, _)| *bound == key)
        .map(|(_, command)| *command)
}
