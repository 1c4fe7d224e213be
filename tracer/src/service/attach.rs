//! How commands use the service: they attach if one is running, and otherwise (or if asked to)
//! trace on their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};
use tracer_model::sanitize;
use tracer_model::snapshot::{Gap, Snapshot};

use super::client::{Client, ServiceError};
use super::{SOCKET, client};
use tracer_kernel::capabilities;
use tracer_model::history::merge;
use tracer_model::history::retention::{History, Limits};

/// How long a service may be unavailable, for a restart.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What most commands do without a service.
const MEASURE_INSTEAD: &str = "measuring directly instead";

/// Where a command gets its data from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Measure directly instead of asking a running service.
    pub(crate) standalone: bool,
    /// Path of the service's socket.
    pub(crate) socket: PathBuf,
    /// Whether tracing options were given that the service does not have: another backend, or
    /// additional hooks.
    pub(crate) special: bool,
}

/// Why a command measures on its own; `None`: `--standalone` or special tracing options were given.
#[derive(Debug)]
pub(crate) struct Standalone(Option<ServiceError>);

impl Standalone {
    /// Whether the user chose this, rather than no service being available.
    pub(crate) const fn is_chosen(&self) -> bool {
        self.0.is_none()
    }

    /// Continues without a service. If that fails as well, both errors are reported.
    pub(crate) fn or_else<T>(self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.warn(MEASURE_INSTEAD);
        self.explain(work())
    }

    /// The same for asynchronous work.
    pub(crate) async fn or_else_async<T>(
        self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.warn(MEASURE_INSTEAD);
        self.explain(work.await)
    }

    /// Reports a service that exists but cannot be used, and what is done `instead`.
    pub(crate) fn warn(&self, instead: &str) {
        match &self.0 {
            // An unusable service is worth a message, a missing one is not.
            Some(
                error @ (ServiceError::Refused(_)
                | ServiceError::Unresponsive { .. }
                | ServiceError::LessPrivileged { .. }),
            ) => {
                eprintln!("filltop: {error}; {instead}");
            }
            Some(error @ ServiceError::NotRunning(path)) if path != Path::new(SOCKET) => {
                eprintln!("filltop: {error}; {instead}");
            }
            _ => {}
        }
    }

    fn explain<T>(self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match self.0 {
            Some(error @ ServiceError::PermissionDenied(_)) => result.context(error),
            _ => result,
        }
    }
}

impl Source {
    /// Runs `work` with the service's socket. `replaces_tracing`: the command would otherwise trace
    /// itself, so the service must trace as much as the command could.
    fn try_with<T>(
        &self,
        replaces_tracing: bool,
        work: impl FnOnce(&Path) -> Result<T, ServiceError>,
    ) -> Result<T, Standalone> {
        if self.standalone || replaces_tracing && self.special {
            return Err(Standalone(None));
        }
        let result = if replaces_tracing {
            self.has_privileges().and_then(|()| work(&self.socket))
        } else {
            work(&self.socket)
        };
        result.map_err(|error| Standalone(Some(error)))
    }

    /// A service that was started with fewer privileges than this command has must not hide what
    /// this command would see.
    fn has_privileges(&self) -> Result<(), ServiceError> {
        if !capabilities::has_sys_admin() {
            return Ok(());
        }
        let newest = client::recent(&self.socket, "rights", 0.0)?;
        let lacking = newest.volumes.iter().find(|row| row.gap == Some(Gap::NeedsSysAdmin));
        lacking.map_or(Ok(()), |volume| {
            Err(ServiceError::LessPrivileged {
                mount_point: sanitize::display(&volume.mount_point).into_owned(),
                fs_type: sanitize::display(&volume.fs_type).into_owned(),
            })
        })
    }
}

/// Returns the last `seconds` of the service's data as one Snapshot.
///
/// # Errors
/// [`Standalone`].
pub(crate) fn recent(source: &Source, command: &str, seconds: f64) -> Result<Snapshot, Standalone> {
    let snapshot = source.try_with(true, |path| client::recent(path, command, seconds))?;
    if snapshot.interval_s < seconds * 0.8 {
        eprintln!("filltop: the service has only {:.1} s of data so far", snapshot.interval_s);
    }
    Ok(snapshot)
}

/// Passes each Snapshot of the service's last `seconds` to `work`, oldest first; at least one.
///
/// # Errors
/// [`Standalone`].
pub(crate) fn for_each(
    source: &Source,
    command: &str,
    seconds: f64,
    mut work: impl FnMut(Box<Snapshot>),
) -> Result<(), Standalone> {
    source.try_with(true, |path| {
        let mut client = Client::connect(path, command, seconds, false)?;
        while let Some(snapshot) = client.receive()? {
            work(snapshot);
        }
        Ok(())
    })
}

/// Returns the service's newest Snapshot.
///
/// # Errors
/// [`Standalone`].
pub(crate) fn newest(source: &Source, command: &str) -> Result<Snapshot, Standalone> {
    past(source, command, 0.0)
}

/// Returns the service's newest Snapshot even if the service sees less than this command would,
/// unless special tracing options were given.
///
/// # Errors
/// [`Standalone`].
pub(crate) fn described(source: &Source) -> Result<Snapshot, Standalone> {
    if source.special {
        return Err(Standalone(None));
    }
    newest(source, "doctor")
}

/// Returns the service's last `seconds` as one Snapshot, or less, whatever its privileges.
///
/// # Errors
/// [`Standalone`].
pub(crate) fn past(source: &Source, command: &str, seconds: f64) -> Result<Snapshot, Standalone> {
    source.try_with(false, |path| client::recent(path, command, seconds))
}

/// Connects to receive Snapshots continuously.
///
/// # Errors
/// [`Standalone`].
pub(crate) fn follow(source: &Source, command: &str) -> Result<Client, Standalone> {
    source.try_with(true, |path| Client::connect(path, command, 0.0, true))
}

/// The data source of an attached screen.
pub(crate) struct Feed {
    /// The newest Snapshot.
    pub(crate) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The history before the connection, once it is complete.
    pub(crate) past: oneshot::Receiver<History>,
    /// The error that ended the connection.
    pub(crate) end: oneshot::Receiver<anyhow::Error>,
}

/// Starts threads that read from the service, so that the screen waits neither for the service nor
/// for an hour of history to be unpacked. `only` selects volumes, all if empty; `every` is the
/// wanted time between two Snapshots, seconds, not shorter than the service's.
///
/// # Errors
/// If a thread cannot be started.
pub(crate) fn feed(
    client: Client,
    only: Vec<String>,
    every: watch::Receiver<f64>,
) -> anyhow::Result<Feed> {
    let (sender, snapshots) = watch::channel(None);
    let (past_sender, past) = oneshot::channel();
    let (end_sender, end) = oneshot::channel();
    let (path, wanted) = (client.path().to_owned(), only.clone());
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start a thread")
    };
    spawn(
        "filltop-past",
        Box::new(move || {
            if let Some(past) = read_past(&path, &wanted) {
                // The screen may have been closed.
                let _ = past_sender.send(past);
            }
        }),
    )?;
    spawn(
        "filltop-live",
        Box::new(move || {
            let mut live = Live { only, every, sum: None, sender };
            let error = live.run(client);
            let _ = end_sender.send(error);
        }),
    )?;
    Ok(Feed { snapshots, past, end })
}

fn read_past(path: &Path, only: &[String]) -> Option<History> {
    let limits = Limits::default();
    let mut client = Client::connect(path, "top (history)", limits.seconds, false).ok()?;
    let mut past = History::new(limits);
    // Keep what arrived even if the connection breaks.
    while let Ok(Some(snapshot)) = client.receive() {
        past.push(retain_volumes(snapshot, only));
    }
    Some(past)
}

fn retain_volumes(mut snapshot: Box<Snapshot>, only: &[String]) -> Arc<Snapshot> {
    if !only.is_empty() {
        snapshot.retain_volumes(only);
    }
    Arc::from(snapshot)
}

struct Live {
    only: Vec<String>,
    every: watch::Receiver<f64>,
    /// Sum of the Snapshots that together are still shorter than wanted.
    sum: Option<Snapshot>,
    sender: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Live {
    /// Forwards Snapshots until the service does not come back, or the screen is closed.
    fn run(&mut self, mut client: Client) -> anyhow::Error {
        loop {
            let error = loop {
                match client.receive() {
                    Ok(Some(snapshot)) => self.add(retain_volumes(snapshot, &self.only)),
                    Ok(None) => {}
                    Err(error) => break error,
                }
                if self.sender.is_closed() {
                    return connection_lost(ServiceError::Refused(
                        "the screen was closed".to_owned(),
                    ));
                }
            };
            match reconnect(client.path()) {
                Some(next) => client = next,
                None => return connection_lost(error),
            }
        }
    }

    fn add(&mut self, snapshot: Arc<Snapshot>) {
        let interval_s = snapshot.interval_s;
        let first = self.sender.borrow().is_none();
        let enough = first || self.is_enough(interval_s, interval_s);
        match &mut self.sum {
            Some(sum) => {
                merge::add(sum, &snapshot);
                sum.backend.lost_events = snapshot.backend.lost_events;
            }
            None if enough => {
                self.sender.send_replace(Some(snapshot));
                return;
            }
            None => self.sum = Some((*snapshot).clone()),
        }
        let length = self.sum.as_ref().map_or(0.0, |sum| sum.interval_s);
        if self.is_enough(length, interval_s) {
            self.sender.send_replace(self.sum.take().map(Arc::new));
        }
    }

    /// Whether `length` is enough. A Snapshot never covers exactly the interval, hence half a step
    /// of tolerance.
    fn is_enough(&self, length: f64, step: f64) -> bool {
        length + step / 2.0 > *self.every.borrow()
    }
}

/// Reconnects, if the service comes back in time.
fn reconnect(path: &Path) -> Option<Client> {
    let pause = Duration::from_millis(500);
    (0..RECONNECT_TIMEOUT.as_millis() / pause.as_millis()).find_map(|_| {
        thread::sleep(pause);
        Client::connect(path, "top (again)", 0.0, true).ok()
    })
}

fn connection_lost(error: ServiceError) -> anyhow::Error {
    anyhow::Error::new(error).context(
        "lost the connection to the service; restart it, or use `filltop top --standalone`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_model::fixtures;

    #[test]
    fn longer_intervals_are_sums_of_the_services_intervals() {
        let (sender, receiver) = watch::channel(None);
        let (wanted, every) = watch::channel(1.0);
        let mut live = Live { only: vec![], every, sum: None, sender };
        let mut seen = vec![];
        for second in 0..9 {
            if second == 3 {
                wanted.send_replace(3.0);
            }
            let mut snapshot = fixtures::idle();
            let at = jiff::Timestamp::from_second(fixtures::NOW + second).unwrap();
            (snapshot.taken_at, snapshot.interval_s) = (at, 0.998);
            snapshot.backend.lost_events = 7;
            live.add(Arc::new(snapshot));
            let newest: Arc<Snapshot> = receiver.borrow().clone().unwrap();
            assert_eq!(newest.backend.lost_events, 7);
            seen.push((newest.taken_at.as_second() - fixtures::NOW, newest.interval_s.round()));
        }
        let expected = [(0, 1.0), (1, 1.0), (2, 1.0), (2, 1.0), (2, 1.0), (5, 3.0)];
        assert_eq!(seen[..6], expected);
        assert_eq!(seen[8], (8, 3.0));
    }
}
