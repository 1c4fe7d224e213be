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
use tracer_model::snapshot::Snapshot;

use super::action::ActionRequest;
use super::app::App;
use super::keys::Key;
use super::state::{Effect, UiState};
use super::term::{Ansi, Tty};
use tracer_model::history::retention::{History, Limits};

/// How the screen starts, and what it can reach.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Units, theme, charset, volume.
    pub state: UiState,
    /// How much past to keep.
    pub limits: Limits,
    /// Let the mouse select rows (then the terminal's own selection needs Shift).
    pub mouse: bool,
    /// Where `+` and `-` send the interval that is wanted, seconds; without it they say that it
    /// cannot be changed.
    pub interval: Option<watch::Sender<f64>>,
    /// Who carries out what was confirmed; without it the screen shows the command to type.
    pub actions: Option<mpsc::Sender<ActionRequest>>,
    /// What became of them, a line each; the last one is shown.
    pub results: Option<watch::Receiver<String>>,
}

/// Shows what `snapshots` holds until somebody quits or the sender is gone.
///
/// Collecting is never held up: only the newest value is taken, and a terminal that does not read
/// gets no further frame until it has read the last.
///
/// # Errors
/// When standard output is no terminal, or when it goes away.
pub async fn run(
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    options: Options,
) -> anyhow::Result<()> {
    let app = App::new(start_state(&options), options.limits);
    run_app(app, snapshots, None, options).await
}

/// The same with a past that another process knows, which may come later.
///
/// # Errors
/// As [`run`].
pub async fn run_attached(
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    past: oneshot::Receiver<History>,
    options: Options,
) -> anyhow::Result<()> {
    let app = App::new(start_state(&options), options.limits);
    run_app(app, snapshots, Some(past), options).await
}

/// Shows a recording, opened at its end; `load` gives it to the app.
///
/// # Errors
/// As [`run`], and what `load` says, before the terminal is touched.
pub async fn run_replay(
    load: impl FnOnce(&mut App) -> anyhow::Result<()>,
    options: Options,
) -> anyhow::Result<()> {
    let mut app = App::replay(start_state(&options), options.limits);
    load(&mut app)?;
    // Nothing follows, and the sender lives as long as the screen does.
    let (_sender, snapshots) = watch::channel(None);
    run_app(app, snapshots, None, options).await
}

fn start_state(options: &Options) -> UiState {
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

/// A terminal with an app on it.
pub struct Screen {
    tty: Tty,
    terminal: Terminal<Ansi>,
    app: App,
    past: Option<oneshot::Receiver<History>>,
}

impl Screen {
    /// On a terminal that was taken over.
    ///
    /// # Errors
    /// None that is known: ratatui asks the backend, which does no I/O.
    pub fn new(tty: Tty, mut app: App) -> io::Result<Self> {
        let size = tty.size();
        app.resize(size);
        Ok(Self { terminal: Terminal::new(Ansi::new(size))?, tty, app, past: None })
    }

    /// The loop of [`run`], with the terminal's events from anywhere.
    ///
    /// # Errors
    /// When the terminal goes away.
    pub async fn show(
        mut self,
        events: impl Stream<Item = io::Result<Event>>,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        options: &Options,
    ) -> anyhow::Result<()> {
        let mut events = pin!(events);
        let mut ends = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            ends.push(signal(kind)?);
        }
        // Others stop us too (`kill -TSTP`), and whoever lets us go on may have used the terminal.
        let mut stop = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        let mut go_on = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        let mut results = options.results.clone();
        let mut dirty = true;
        loop {
            if dirty && self.tty.is_ours() && self.tty.pipe.is_idle() {
                self.paint()?;
                dirty = false;
            }
            tokio::select! {
                () = poll_fn(|context| any(&mut ends, context)) => return Ok(()),
                Some(()) = stop.recv() => self.suspend()?,
                Some(()) = go_on.recv() => {
                    self.start_again()?;
                    dirty = true;
                }
                () = self.tty.pipe.written() => {}
                said = next_result(&mut results) => {
                    self.app.say(&said);
                    dirty = true;
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    if let Some(snapshot) = snapshots.borrow_and_update().clone() {
                        self.app.see(snapshot);
                    }
                    dirty = true;
                }
                past = async { match &mut self.past {
                    Some(past) => past.await,
                    None => std::future::pending().await,
                } } => {
                    self.past = None;
                    if let Ok(past) = past {
                        self.app.see_past(past);
                    }
                    dirty = true;
                }
                event = poll_fn(|context| events.as_mut().poll_next(context)) => {
                    // Without a terminal there is nobody to show anything to.
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

    /// `true`: that was the end.
    fn event(&mut self, event: &Event, options: &Options) -> anyhow::Result<bool> {
        let key = match event {
            Event::Key(event) => Key::from_event(event),
            Event::Mouse(event) => mouse(*event),
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
                    let said = if sent {
                        "asked for; the result is shown when it is there"
                    } else {
                        "not done: the last action is still under way"
                    };
                    self.app.say(said);
                }
                // Those the app has dealt with itself.
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

    /// Stops the process; SIGCONT is what goes on from here.
    fn suspend(&mut self) -> anyhow::Result<()> {
        self.tty.leave();
        kill_process(getpid(), Signal::STOP)?;
        Ok(())
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        self.tty.enter()?;
        self.resize(self.tty.size());
        self.terminal.backend_mut().forget();
        self.terminal.clear()?;
        Ok(())
    }
}

/// The next line about an action; never, where nobody acts.
async fn next_result(results: &mut Option<watch::Receiver<String>>) -> String {
    if let Some(receiver) = results {
        if receiver.changed().await.is_ok() {
            return receiver.borrow_and_update().clone();
        }
        *results = None;
    }
    std::future::pending().await
}

fn any(signals: &mut [SignalStream], context: &mut TaskContext<'_>) -> Poll<()> {
    if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
        return Poll::Ready(());
    }
    Poll::Pending
}

fn mouse(event: MouseEvent) -> Option<Key> {
    match event.kind {
        MouseEventKind::Down(MouseButton::Left) => Some(Key::Click(event.column, event.row)),
        MouseEventKind::ScrollUp => Some(Key::WheelUp),
        MouseEventKind::ScrollDown => Some(Key::WheelDown),
        _ => None,
    }
}
