//! The event loop: keys, new Snapshots and signals come in, frames go out.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Context as _;
use crossterm::event::{Event, EventStream};
use futures_core::Stream as _;
use ratatui::Terminal;
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracer_model::snapshot::Snapshot;

use super::keys::Key;
use super::state::{Effect, UiState};
use super::term::{Ansi, Tty};
use super::{draw, update};

/// How the screen starts.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Units, theme, charset.
    pub state: UiState,
    /// Let the mouse select rows (then the terminal's own selection needs Shift).
    pub mouse: bool,
}

/// Shows what `snapshots` holds until somebody quits or the sender is gone.
///
/// Collecting is never held up: only the newest value is taken, and a terminal that does not read
/// gets no further frame until it has read the last.
///
/// # Errors
/// When standard output is no terminal, or when it goes away.
pub async fn run(
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    options: Options,
) -> anyhow::Result<()> {
    let mut tty = Tty::take(options.mouse).context("the live screen needs a terminal")?;
    let mut terminal = Terminal::new(Ansi::new(tty.size()))?;
    let mut events = EventStream::new();
    let mut end = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        end.push(signal(kind)?);
    }
    let mut state = options.state;
    let mut dirty = true;
    loop {
        if dirty && tty.pipe.is_idle() {
            let shown = snapshots.borrow_and_update().clone();
            terminal.draw(|frame| {
                if let Some(snapshot) = &shown {
                    draw(snapshot, &state, frame);
                }
            })?;
            tty.pipe.send(terminal.backend_mut().take())?;
            dirty = false;
        }
        let ended = poll_fn(|context| {
            if end.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
                return Poll::Ready(());
            }
            Poll::Pending
        });
        tokio::select! {
            () = ended => return Ok(()),
            () = tty.pipe.written() => {}
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                dirty = true;
            }
            event = poll_fn(|context| Pin::new(&mut events).poll_next(context)) => match event {
                None => return Ok(()),
                Some(event) => {
                    dirty = true;
                    let effects;
                    (state, effects) = handle(state, event?, &mut terminal);
                    for effect in effects {
                        match effect {
                            Effect::Quit => return Ok(()),
                            Effect::Redraw => terminal.clear()?,
                            Effect::Suspend => {
                                tty.leave();
                                kill_process(getpid(), Signal::STOP)?;
                                // Somebody typed `fg`; the terminal may have another size now.
                                tty.enter()?;
                                let size = tty.size();
                                let backend = terminal.backend_mut();
                                backend.forget();
                                backend.set_size(size);
                                terminal.clear()?;
                            }
                        }
                    }
                }
            },
        }
    }
}

/// One terminal event.
fn handle(state: UiState, event: Event, terminal: &mut Terminal<Ansi>) -> (UiState, Vec<Effect>) {
    match event {
        Event::Key(event) => match Key::from_event(&event) {
            Some(key) => update(state, key),
            None => (state, vec![]),
        },
        Event::Resize(columns, rows) => {
            terminal.backend_mut().set_size((columns.max(1), rows.max(1)).into());
            (state, vec![])
        }
        _ => (state, vec![]),
    }
}
