//! The event loop: keys, new Snapshots and signals come in, frames go out.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::Context as _;
use crossterm::event::{Event, EventStream, MouseButton, MouseEvent, MouseEventKind};
use futures_core::Stream;
use ratatui::Terminal;
use ratatui::layout::Size;
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracer_model::action::request::ActionRequest;
use tracer_model::snapshot::Snapshot;

use super::app::App;
use super::keys::Key;
use super::state::{Effect, UiState};
use super::term::{Ansi, Tty};
use tracer_model::history::retention::{History, Limits};

/// Initial state of the screen, and its channels to the rest of the program.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Initial units, theme, charset and volume.
    pub state: UiState,
    /// How much history to keep.
    pub limits: Limits,
    /// Whether the mouse selects rows; the terminal's own selection then needs Shift.
    pub mouse: bool,
    /// Where `+` and `-` send the requested interval, seconds; if `None`, the interval cannot be
    /// changed.
    pub interval: Option<watch::Sender<f64>>,
    /// Receives confirmed actions; if `None`, the screen shows the command to run instead.
    pub actions: Option<mpsc::Sender<ActionRequest>>,
    /// Results of those actions, one line each; the latest is shown.
    pub results: Option<watch::Receiver<String>>,
}

/// Shows the Snapshots received until the user quits or the sender is dropped.
///
/// Never blocks the sender: only the newest value is taken, and a terminal that does not read gets
/// no further frame until it has read the last one.
///
/// # Errors
/// If standard output is not a terminal, or if the terminal is closed.
pub async fn run(
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    options: Options,
) -> anyhow::Result<()> {
    let app = App::new(initial_state(&options), options.limits);
    run_app(app, snapshots, None, options).await
}

/// Like [`run`], with a history from another process, which may arrive later.
///
/// # Errors
/// As [`run`].
pub async fn run_attached(
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    past: oneshot::Receiver<History>,
    options: Options,
) -> anyhow::Result<()> {
    let app = App::new(initial_state(&options), options.limits);
    run_app(app, snapshots, Some(past), options).await
}

/// Shows a recording, opened at its end; `load` adds its Snapshots to the app.
///
/// # Errors
/// As [`run`], and the errors of `load`, which runs before the terminal is touched.
pub async fn run_replay(
    load: impl FnOnce(&mut App) -> anyhow::Result<()>,
    options: Options,
) -> anyhow::Result<()> {
    let mut app = App::replay(initial_state(&options), options.limits);
    load(&mut app)?;
    // No Snapshot follows; the sender must live as long as the screen.
    let (_sender, snapshots) = watch::channel(None);
    run_app(app, snapshots, None, options).await
}

fn initial_state(options: &Options) -> UiState {
    let mut state = options.state.clone();
    state.interval_s = options.interval.as_ref().map(|interval| *interval.borrow());
    state.can_act = options.actions.is_some();
    state
}

async fn run_app(
    app: App,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    past: Option<oneshot::Receiver<History>>,
    options: Options,
) -> anyhow::Result<()> {
    let tty = Tty::stdout(options.mouse).context("the live screen needs a terminal")?;
    let screen = Screen { past, ..Screen::new(tty, app)? };
    screen.show(EventStream::new(), snapshots, &options).await
}

/// A terminal that shows an app.
pub struct Screen {
    tty: Tty,
    terminal: Terminal<Ansi>,
    app: App,
    past: Option<oneshot::Receiver<History>>,
}

impl Screen {
    /// A screen on a terminal in raw mode.
    ///
    /// # Errors
    /// None known: ratatui queries the backend, which does no I/O.
    pub fn new(tty: Tty, mut app: App) -> io::Result<Self> {
        let size = tty.size();
        app.resize(size);
        Ok(Self { terminal: Terminal::new(Ansi::new(size))?, tty, app, past: None })
    }

    /// The event loop of [`run`], with terminal events from any source.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub async fn show(
        mut self,
        events: impl Stream<Item = io::Result<Event>>,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        options: &Options,
    ) -> anyhow::Result<()> {
        let mut events = pin!(events);
        let mut exit_signals = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            exit_signals.push(signal(kind)?);
        }
        // Another process may suspend filltop too (`kill -TSTP`), and may have used the terminal
        // before it resumes filltop.
        let mut suspend = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        let mut continued = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        let mut results = options.results.clone();
        let mut dirty = true;
        loop {
            if dirty && self.tty.is_raw() && self.tty.writer.is_idle() {
                self.paint()?;
                dirty = false;
            }
            tokio::select! {
                () = poll_fn(|context| any_received(&mut exit_signals, context)) => return Ok(()),
                Some(()) = suspend.recv() => self.suspend()?,
                Some(()) = continued.recv() => {
                    self.resume()?;
                    dirty = true;
                }
                () = self.tty.writer.written() => {}
                result = next_result(&mut results) => {
                    self.app.show_message(&result);
                    dirty = true;
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    if let Some(snapshot) = snapshots.borrow_and_update().clone() {
                        self.app.add_snapshot(snapshot);
                    }
                    dirty = true;
                }
                past = async { match &mut self.past {
                    Some(past) => past.await,
                    None => std::future::pending().await,
                } } => {
                    self.past = None;
                    if let Ok(past) = past {
                        self.app.prepend_history(past);
                    }
                    dirty = true;
                }
                event = poll_fn(|context| events.as_mut().poll_next(context)) => {
                    // The terminal is closed.
                    let Some(event) = event else { return Ok(()) };
                    if self.event(&event?, options)? {
                        return Ok(());
                    }
                    dirty = true;
                }
            }
        }
    }

    fn paint(&mut self) -> io::Result<()> {
        self.terminal.draw(|frame| self.app.draw(frame))?;
        self.tty.send(self.terminal.backend_mut().take())
    }

    /// Handles a terminal event; returns `true` to quit.
    fn event(&mut self, event: &Event, options: &Options) -> anyhow::Result<bool> {
        let key = match event {
            Event::Key(event) => Key::from_event(event),
            Event::Mouse(event) => mouse_key(*event),
            Event::Resize(columns, rows) => {
                self.resize(Size::new((*columns).max(1), (*rows).max(1)));
                None
            }
            _ => None,
        };
        let Some(key) = key else { return Ok(false) };
        for effect in self.app.press(key) {
            match effect {
                Effect::Quit => return Ok(true),
                Effect::Redraw => self.terminal.clear()?,
                Effect::Suspend => self.suspend()?,
                Effect::Interval(seconds) => {
                    if let Some(interval) = &options.interval {
                        interval.send_replace(seconds);
                    }
                }
                Effect::Act(request) => {
                    let actions = options.actions.as_ref();
                    let sent = actions.is_some_and(|actions| actions.try_send(*request).is_ok());
                    let message = if sent {
                        "requested; waiting for the result"
                    } else {
                        "not done: the previous action is still running"
                    };
                    self.app.show_message(message);
                }
                // Handled by the app.
                Effect::TogglePause | Effect::Live => {}
                Effect::Travel(_) | Effect::TravelMinutes(_) => {}
            }
        }
        Ok(false)
    }

    fn resize(&mut self, size: Size) {
        self.terminal.backend_mut().set_size(size);
        self.app.resize(size);
    }

    /// Stops the process; SIGCONT resumes it here.
    fn suspend(&mut self) -> anyhow::Result<()> {
        self.tty.leave();
        kill_process(getpid(), Signal::STOP)?;
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        self.tty.enter()?;
        self.resize(self.tty.size());
        self.terminal.backend_mut().assume_unknown();
        self.terminal.clear()?;
        Ok(())
    }
}

/// Returns the next result of an action; never returns if there are no actions.
async fn next_result(results: &mut Option<watch::Receiver<String>>) -> String {
    if let Some(receiver) = results {
        if receiver.changed().await.is_ok() {
            return receiver.borrow_and_update().clone();
        }
        *results = None;
    }
    std::future::pending().await
}

fn any_received(signals: &mut [SignalStream], context: &mut TaskContext<'_>) -> Poll<()> {
    if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
        return Poll::Ready(());
    }
    Poll::Pending
}

fn mouse_key(event: MouseEvent) -> Option<Key> {
    match event.kind {
        MouseEventKind::Down(MouseButton::Left) => Some(Key::Click(event.column, event.row)),
        MouseEventKind::ScrollUp => Some(Key::WheelUp),
        MouseEventKind::ScrollDown => Some(Key::WheelDown),
        _ => None,
    }
}
