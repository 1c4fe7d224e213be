//! Keys and the commands bound to them: one table for `update`, the help page and the tests.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::query::View;

/// A key press or a mouse action.
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
    /// A click of the left mouse button, at this column and row.
    Click(u16, u16),
    /// The wheel, away from the user.
    WheelUp,
    /// The wheel, towards the user.
    WheelDown,
}

impl Key {
    /// The key of a terminal event; `None` for key releases and for unsupported keys.
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

/// What a key does on the main screen, when no prompt or menu handles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Move the selection by this many rows.
    Move(i32),
    /// Move the selection by this many pages.
    Page(i32),
    /// Select the first row.
    First,
    /// Select the last row.
    Last,
    /// Show this table.
    Show(View),
    /// Show the next or previous table.
    NextView(i32),
    /// Show the next or previous volume.
    NextVolume(i32),
    /// Show the rows of all volumes, or of one.
    AllVolumes,
    /// Follow the most urgent volume again.
    MostUrgent,
    /// Show the details of the selected row.
    Detail,
    /// Close the open page, return to the present, then clear the filter, then the selection.
    Back,
    /// Expand or collapse the selected row.
    Fold,
    /// Expand or collapse all rows.
    FoldAll,
    /// Type a filter.
    Filter,
    /// Sort by another column.
    Sort(i32),
    /// Reverse the sort order.
    Reverse,
    /// Pause or resume the display.
    Pause,
    /// Back or forward in time, in Snapshots.
    Travel(i32),
    /// Back or forward in time, in minutes.
    TravelMinutes(i32),
    /// Use the next longer or shorter sampling interval.
    Interval(i32),
    /// Change the window over which rates are averaged.
    Window,
    /// Switch between IEC and SI units.
    Units,
    /// Switch to the next colour theme.
    Theme,
    /// Open the action menu.
    Act,
    /// Show the tracer's status.
    Health,
    /// Show the help page.
    Help,
    /// Redraw the whole screen.
    Redraw,
    /// Suspend filltop for shell job control.
    Suspend,
    /// Quit.
    Quit,
}

/// One line of the help page.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// The keys, as shown.
    pub label: &'static str,
    /// What they do.
    pub description: &'static str,
    /// The keys, each with its command.
    pub keys: &'static [(Key, Command)],
}

const fn binding(
    label: &'static str,
    description: &'static str,
    keys: &'static [(Key, Command)],
) -> Binding {
    Binding { label, description, keys }
}

/// Every key of the main screen.
pub const BINDINGS: &[Binding] = &[
    binding(
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
    binding(
        "PgUp PgDn",
        "one page up, down",
        &[(Key::PageUp, Command::Page(-1)), (Key::PageDown, Command::Page(1))],
    ),
    binding(
        "Home End",
        "first, last row",
        &[(Key::Home, Command::First), (Key::End, Command::Last)],
    ),
    binding(
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
    binding(
        "Tab",
        "next table (Shift-Tab: previous)",
        &[(Key::Tab, Command::NextView(1)), (Key::BackTab, Command::NextView(-1))],
    ),
    binding(
        "[ ]",
        "previous, next volume",
        &[(Key::Char('['), Command::NextVolume(-1)), (Key::Char(']'), Command::NextVolume(1))],
    ),
    binding("a", "rows of all volumes, or only one", &[(Key::Char('a'), Command::AllVolumes)]),
    binding("d", "back to the most urgent volume", &[(Key::Char('d'), Command::MostUrgent)]),
    binding("Enter", "details of the row", &[(Key::Enter, Command::Detail)]),
    binding("x", "act on the row: freeze, throttle, stop …", &[(Key::Char('x'), Command::Act)]),
    binding(
        "e",
        "expand or collapse the row (E: all)",
        &[(Key::Char('e'), Command::Fold), (Key::Char('E'), Command::FoldAll)],
    ),
    binding("/", "filter rows (Ctrl-R: regular expression)", &[(Key::Char('/'), Command::Filter)]),
    binding(
        "s  < >",
        "sort by the next, previous column",
        &[
            (Key::Char('s'), Command::Sort(1)),
            (Key::Char('>'), Command::Sort(1)),
            (Key::Char('<'), Command::Sort(-1)),
        ],
    ),
    binding("r", "reverse the sort order", &[(Key::Char('r'), Command::Reverse)]),
    binding("Space", "pause, resume", &[(Key::Char(' '), Command::Pause)]),
    binding(
        "← →  h l",
        "back, forward in time (Shift: one minute)",
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
    binding(
        "+ -",
        "longer, shorter interval",
        &[(Key::Char('+'), Command::Interval(1)), (Key::Char('-'), Command::Interval(-1))],
    ),
    binding(
        "w",
        "rate window: last, 10 s, 1 min, since start",
        &[(Key::Char('w'), Command::Window)],
    ),
    binding("u", "KiB or kB", &[(Key::Char('u'), Command::Units)]),
    binding(
        "c",
        "colours: dark, light, colour-blind safe, none",
        &[(Key::Char('c'), Command::Theme)],
    ),
    binding("i", "tracer status: hooks, blind spots, losses", &[(Key::Char('i'), Command::Health)]),
    binding("?", "this page", &[(Key::Char('?'), Command::Help)]),
    binding("Esc", "close; clear filter and selection; back to now", &[(Key::Esc, Command::Back)]),
    binding("Ctrl-L", "redraw the screen", &[(Key::Ctrl('l'), Command::Redraw)]),
    binding("Ctrl-Z", "suspend filltop", &[(Key::Ctrl('z'), Command::Suspend)]),
    binding(
        "q",
        "quit (also Ctrl-C)",
        &[(Key::Char('q'), Command::Quit), (Key::Ctrl('c'), Command::Quit)],
    ),
];

/// The command bound to `key` on the main screen.
#[must_use]
pub fn command(key: Key) -> Option<Command> {
    BINDINGS
        .iter()
        .flat_map(|binding| binding.keys)
        .find(|(bound, _)| *bound == key)
        .map(|(_, command)| *command)
}
