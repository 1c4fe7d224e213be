//! Handles keys. Pure.

use ratatui::layout::{Position, Rect};
use tracer_model::action::request::{ActionRequest, Operation, Target};
use tracer_model::units::Units;

use super::keys::{Command, Key};
use super::panes::tabs;
use super::query::{Sort, View, VolumeChoice};
use super::state::{Effect, Effects, Overlay, UiState};
use super::views::columns;
use super::{action_menu, keys};

/// Intervals that `+` and `-` step through, seconds.
pub const INTERVALS: [f64; 8] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Returns the state after `key`, and the effects to carry out.
///
/// Call [`UiState::reconcile`] afterwards, which updates the selection.
#[must_use]
pub fn update(mut state: UiState, key: Key) -> (UiState, Effects) {
    state.notice = None;
    let effects = match keys::command(key) {
        // These work regardless of what is open.
        Some(Command::Quit) if key == Key::Ctrl('c') => vec![Effect::Quit],
        Some(Command::Suspend) => vec![Effect::Suspend],
        Some(Command::Redraw) => vec![Effect::Redraw],
        _ if state.typing => type_filter(&mut state, key),
        command => match std::mem::take(&mut state.overlay) {
            Overlay::None => main_screen(&mut state, key, command),
            Overlay::Menu(target, chosen) => menu_key(&mut state, target, chosen, key),
            Overlay::Confirm(request) => confirm_key(&mut state, request, key),
            Overlay::Help(at) => scroll_page(&mut state, Overlay::Help, at, command),
            Overlay::Detail(at) => scroll_page(&mut state, Overlay::Detail, at, command),
            Overlay::Health(at) => scroll_page(&mut state, Overlay::Health, at, command),
        },
    };
    (state, effects)
}

fn type_filter(state: &mut UiState, key: Key) -> Effects {
    if matches!(key, Key::Char(_) | Key::Backspace | Key::Ctrl('r')) {
        // Select the first match.
        state.selected = None;
        state.cursor = 0;
    }
    match key {
        Key::Char(c) => state.filter.push(c),
        Key::Backspace if state.filter.is_empty() => state.typing = false,
        Key::Backspace => state.filter.pop(),
        Key::Ctrl('u') => state.filter.clear(),
        Key::Ctrl('r') => state.filter.toggle_regex(),
        Key::Enter => state.typing = false,
        Key::Esc => {
            state.filter.clear();
            state.typing = false;
        }
        // Move through the matches while still typing.
        Key::Up => move_by(state, -1),
        Key::Down => move_by(state, 1),
        _ => {}
    }
    vec![]
}

/// Handles a command on a page over the tables: moves scroll it, its own key or Esc closes it.
fn scroll_page(
    state: &mut UiState,
    overlay: fn(usize) -> Overlay,
    at: usize,
    command: Option<Command>,
) -> Effects {
    let height = usize::from(state.size.height.saturating_sub(4)).max(1);
    let to = match command {
        Some(Command::Move(by)) => at.saturating_add_signed(by as isize),
        Some(Command::Page(by)) => at.saturating_add_signed(by as isize * height as isize),
        Some(Command::First) => 0,
        // Painting clamps this to the last line.
        Some(Command::Last) => usize::MAX / 2,
        Some(Command::Quit) => return vec![Effect::Quit],
        Some(Command::Back | Command::Detail | Command::Help | Command::Health) => return vec![],
        // The row is still selected, so acting on it and moving in time make sense.
        Some(Command::Act) if matches!(overlay(0), Overlay::Detail(_)) => {
            return open_menu(state);
        }
        Some(Command::Travel(by)) => {
            state.overlay = overlay(at);
            return vec![Effect::Travel(by)];
        }
        Some(Command::Pause) => {
            state.overlay = overlay(at);
            return vec![Effect::TogglePause];
        }
        _ => at,
    };
    state.overlay = overlay(to);
    vec![]
}

fn menu_key(state: &mut UiState, target: Box<Target>, chosen: Operation, key: Key) -> Effects {
    let chosen = match key {
        Key::Up | Key::Char('k') => action_menu::step(chosen, -1),
        Key::Down | Key::Char('j') => action_menu::step(chosen, 1),
        Key::Esc | Key::Char('x' | 'q') => return vec![],
        Key::Enter => match target.refusal(chosen) {
            Some(reason) => {
                state.notice = Some(format!("{}: {reason}", chosen.name()));
                chosen
            }
            None => {
                let request = ActionRequest { target: *target, operation: chosen };
                state.overlay = Overlay::Confirm(Box::new(request));
                return vec![];
            }
        },
        _ => chosen,
    };
    state.overlay = Overlay::Menu(target, chosen);
    vec![]
}

fn confirm_key(state: &mut UiState, request: Box<ActionRequest>, key: Key) -> Effects {
    match key {
        // Not Enter: it is too easily pressed once too often.
        Key::Char('y' | 'Y') if state.can_act => {
            match request.operation {
                Operation::Act(action) if action.reversible() => {
                    state.suspended = Some(request.target.clone());
                }
                Operation::Act(_) => {}
                Operation::Resume => state.suspended = None,
            }
            vec![Effect::Act(request)]
        }
        Key::Esc | Key::Char('n' | 'N' | 'q' | 'x') => vec![],
        _ => {
            state.overlay = Overlay::Confirm(request);
            vec![]
        }
    }
}

fn main_screen(state: &mut UiState, key: Key, command: Option<Command>) -> Effects {
    let Some(command) = command else {
        if let Key::Click(x, y) = key {
            click(state, Position { x, y });
        }
        return vec![];
    };
    match command {
        Command::Move(by) => move_by(state, by),
        Command::Page(by) => {
            let page = state.layout().map_or(1, |layout| layout.page());
            move_by(state, by.saturating_mul(i32::try_from(page).unwrap_or(i32::MAX)));
        }
        Command::First => select(state, 0),
        Command::Last => select(state, usize::MAX),
        Command::Show(view) => show_view(state, view),
        Command::NextView(by) => {
            let to = (state.view.index() as i32 + by).rem_euclid(View::ALL.len() as i32);
            show_view(state, View::ALL[to as usize]);
        }
        Command::NextVolume(by) => next_volume(state, by),
        Command::AllVolumes => {
            state.volume = match state.volume {
                VolumeChoice::All => VolumeChoice::Mount(state.focus.clone()),
                _ => VolumeChoice::All,
            };
        }
        Command::MostUrgent => {
            state.volume = VolumeChoice::MostUrgent;
            state.user_selected = false;
        }
        Command::Detail => {
            // From now on, the selection follows this row.
            state.user_selected |= !state.rows.rows.is_empty();
            state.overlay = Overlay::Detail(0);
        }
        Command::Back => return back(state),
        Command::Fold => state.toggle_fold_pending = true,
        Command::FoldAll => {
            // Directories are expanded at first, groups are not.
            state.folds.toggle_all(state.view == View::Dirs);
        }
        Command::Filter => state.typing = true,
        Command::Sort(by) => sort_by_next(state, by),
        Command::Reverse => {
            let sort = &mut state.sorts[state.view.index()];
            sort.descending = !sort.descending;
        }
        Command::Pause => return vec![Effect::TogglePause],
        Command::Travel(by) => return vec![Effect::Travel(by)],
        Command::TravelMinutes(by) => return vec![Effect::TravelMinutes(by)],
        Command::Interval(by) => return change_interval(state, by),
        Command::Window => state.window = state.window.next(),
        Command::Units => {
            state.units = match state.units {
                Units::Iec => Units::Si,
                Units::Si => Units::Iec,
            };
        }
        Command::Theme => {
            state.theme = state.theme.next();
            state.notice = Some(format!("colours: {}", state.theme.name()));
        }
        Command::Act => return open_menu(state),
        Command::Health => state.overlay = Overlay::Health(0),
        Command::Help => state.overlay = Overlay::Help(0),
        Command::Quit => return vec![Effect::Quit],
        // Handled by `update`.
        Command::Redraw | Command::Suspend => {}
    }
    vec![]
}

fn open_menu(state: &mut UiState) -> Effects {
    match (&state.target, &state.suspended) {
        (Some(target), _) => {
            state.overlay = Overlay::Menu(Box::new(target.clone()), action_menu::ENTRIES[0]);
        }
        (None, Some(suspended)) => {
            state.overlay = Overlay::Menu(Box::new(suspended.clone()), Operation::Resume);
        }
        (None, None) => state.notice = Some("select a process or group to act on".to_owned()),
    }
    vec![]
}

/// Undoes one thing: the position in time, else the filter, else the selection.
fn back(state: &mut UiState) -> Effects {
    if state.position.at.is_some() {
        return vec![Effect::Live];
    }
    if !state.filter.is_empty() {
        state.filter.clear();
    } else {
        state.user_selected = false;
        state.selected = None;
        state.cursor = 0;
    }
    vec![]
}

fn move_by(state: &mut UiState, by: i32) {
    select(state, state.cursor.saturating_add_signed(by as isize));
}

/// Selects the row at `index`, or the last row if `index` is beyond it.
fn select(state: &mut UiState, index: usize) {
    if state.rows.rows.is_empty() {
        return;
    }
    state.cursor = index.min(state.rows.rows.len().saturating_sub(1));
    state.selected = None;
    state.user_selected = true;
}

fn show_view(state: &mut UiState, view: View) {
    if state.view != view {
        state.view = view;
        state.selected = None;
        state.cursor = 0;
        state.scroll = 0;
    }
}

fn next_volume(state: &mut UiState, by: i32) {
    let count = state.mounts.len() as i32;
    if count == 0 {
        return;
    }
    let at = state.mounts.iter().position(|mount| *mount == state.focus).unwrap_or(0) as i32;
    choose_volume(state, (at + by).rem_euclid(count) as usize);
}

fn choose_volume(state: &mut UiState, index: usize) {
    if let Some(mount) = state.mounts.get(index) {
        state.volume = VolumeChoice::Mount(mount.clone());
        state.selected = None;
        state.cursor = 0;
    }
}

fn sort_by_next(state: &mut UiState, by: i32) {
    let columns = columns::of_view(state.view);
    let sort = &mut state.sorts[state.view.index()];
    let at = columns.iter().position(|&col| col == sort.column).unwrap_or(0) as i32;
    let column = columns[(at + by).rem_euclid(columns.len() as i32) as usize];
    *sort = Sort { column, descending: true };
}

fn change_interval(state: &mut UiState, by: i32) -> Effects {
    let Some(now) = state.interval_s else {
        state.notice = Some("the interval cannot be changed here".to_owned());
        return vec![];
    };
    let at = INTERVALS.iter().position(|&step| step >= now).unwrap_or(INTERVALS.len() - 1);
    let to = at.saturating_add_signed(by as isize).min(INTERVALS.len() - 1);
    state.interval_s = Some(INTERVALS[to]);
    state.notice = Some(format!("measuring every {} s", INTERVALS[to]));
    vec![Effect::Interval(INTERVALS[to])]
}

fn click(state: &mut UiState, at: Position) {
    let Some(layout) = state.layout() else { return };
    let row = |area: Rect| usize::from(at.y.saturating_sub(area.y + 1));
    if layout.table.contains(at) && at.y > layout.table.y {
        let index = state.scroll + row(layout.table);
        if index < state.rows.rows.len() {
            select(state, index);
        }
    } else if layout.volumes.contains(at) && at.y > layout.volumes.y {
        let shown = usize::from(layout.volumes.height - 1);
        choose_volume(state, state.first_visible_volume(shown) + row(layout.volumes));
    } else if layout.tabs.contains(at) {
        for (view, from, to) in tabs::ranges(state) {
            if (from..to).contains(&at.x) {
                show_view(state, view);
            }
        }
    }
}
