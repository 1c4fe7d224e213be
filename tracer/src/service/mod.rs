//! The service: a running `filltop watch` serves its measurements to all other commands over a Unix
//! socket, and to Prometheus over HTTP.
//!
//! Serving has a thread of its own, without any capability. Clients cannot hold up measuring: the
//! measuring thread only hands over each Snapshot, without waiting.

pub(crate) mod attach;
pub mod client;
pub(crate) mod hardening;
pub(crate) mod notify;
mod peer;
mod protocol;
mod server;
mod socket;
pub mod store;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::{mpsc, oneshot};
use tracer_model::snapshot::Snapshot;

use self::server::Shared;
use self::socket::{AlreadyServed, Socket};
use self::store::Store;
use crate::output::openmetrics;
use crate::output::openmetrics::{Auth, Endpoint, Metrics, ProcessStats, Totals};
use tracer_host::clock;
use tracer_model::history::retention::Limits;

/// Default path of the service's socket.
pub(crate) const SOCKET: &str = "/run/filltop/filltop.sock";
/// Maximum number of Snapshots queued for the serving thread; more are dropped, and are missing in
/// the history that clients see.
const MAX_QUEUED: usize = 16;

/// What is served, and where.
#[derive(Debug, Clone)]
pub(crate) struct ServeOptions {
    /// Path of the socket for other commands; `None`: do not serve one.
    pub(crate) socket: Option<PathBuf>,
    /// Address of the metrics for Prometheus.
    pub(crate) metrics: Option<SocketAddr>,
    /// File with the TLS and password configuration for the metrics.
    pub(crate) metrics_guard: Option<PathBuf>,
    /// Number of groups with metrics of their own.
    pub(crate) metrics_groups: u16,
    /// Directories with metrics of their own.
    pub(crate) metrics_directories: Vec<String>,
}

/// The bound listeners, not yet serving: made before privileges are dropped.
pub(crate) struct Listeners {
    socket: Option<Socket>,
    metrics: Option<(TcpListener, Auth)>,
    group: Option<u32>,
    totals: Totals,
}

impl Listeners {
    /// Binds the addresses.
    ///
    /// # Errors
    /// If the metrics address is in use, or a file is invalid. A socket that cannot be bound is only
    /// logged.
    pub(crate) fn bind(options: &ServeOptions) -> anyhow::Result<Self> {
        ensure!(
            options.metrics_directories.len() <= openmetrics::MAX_DIRECTORIES,
            "--metrics-directory can be given at most {} times",
            openmetrics::MAX_DIRECTORIES
        );
        let group = peer::group_id(peer::GROUP);
        let socket = match options.socket.as_deref().map(|path| Socket::listen(path, group)) {
            // A second `filltop watch` next to the service, run to see what it would report.
            Some(Err(error)) if error.is::<AlreadyServed>() => {
                tracing::warn!("{error:#}; this one does not serve a socket");
                None
            }
            // A full /run or a container's read-only root is no reason not to watch.
            Some(Err(error)) => {
                tracing::warn!("{error:#}; other commands will measure directly");
                None
            }
            Some(Ok(socket)) => Some(socket),
            None => None,
        };
        let auth =
            options.metrics_guard.as_deref().map(Auth::read).transpose()?.unwrap_or_default();
        let metrics = options.metrics.map(openmetrics::bind).transpose()?;
        if let Some(address) = options.metrics.filter(|address| !address.ip().is_loopback())
            && auth.is_open()
        {
            tracing::warn!(
                "metrics on {address} are readable without authentication; see --metrics-guard"
            );
        }
        Ok(Self {
            socket,
            metrics: metrics.map(|listener| (listener, auth)),
            group,
            totals: Totals::new(options.metrics_groups.into(), &options.metrics_directories),
        })
    }

    /// Starts serving. `interval` is the time between two Snapshots.
    ///
    /// # Errors
    /// If the kernel refuses a thread or a descriptor.
    pub(crate) fn start(self, interval: Duration) -> anyhow::Result<Service> {
        self.start_with(Store::new(Limits::default()), interval)
    }

    fn start_with(self, store: Store, interval: Duration) -> anyhow::Result<Service> {
        let metrics = Arc::new(Metrics::new(self.totals));
        let shared = Arc::new(Shared::new(store, interval, self.group));
        let (snapshots, queued) = mpsc::channel(MAX_QUEUED);
        let (stop, stopped) = oneshot::channel();
        let listener = self.socket.as_ref().map(Socket::listener).transpose()?;
        let thread = ServingThread {
            listener,
            metrics: self.metrics.map(|(listener, auth)| {
                let endpoint = Endpoint {
                    metrics: Arc::clone(&metrics),
                    auth,
                    process_stats: process_stats(&shared),
                };
                (listener, Arc::new(endpoint))
            }),
            shared,
            queued,
            stopped,
        };
        let thread = std::thread::Builder::new()
            .name("filltop-serve".to_owned())
            .spawn(move || {
                if let Err(error) = thread.run() {
                    tracing::error!("the serving thread has failed: {error:#}");
                }
            })
            .context("cannot start the serving thread")?;
        Ok(Service {
            snapshots,
            metrics,
            dropped: AtomicU64::new(0),
            stop: Some(stop),
            thread: Some(thread),
            _socket: self.socket,
        })
    }
}

/// A running service; it stops when dropped.
pub struct Service {
    snapshots: mpsc::Sender<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
    dropped: AtomicU64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Kept so that the socket file is removed only after serving has stopped.
    _socket: Option<Socket>,
}

impl Service {
    /// Starts a service on a socket only, with history in its store.
    ///
    /// # Errors
    /// As [`Listeners::bind`] and [`Listeners::start`].
    pub fn with_history(socket: &Path, store: Store) -> anyhow::Result<Self> {
        let listeners = Listeners {
            socket: Some(Socket::listen(socket, None)?),
            metrics: None,
            group: None,
            totals: Totals::new(1, &[]),
        };
        listeners.start_with(store, Duration::from_secs(1))
    }

    /// Hands over a Snapshot without waiting. Every Snapshot must be passed, because the counters
    /// add them up.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) {
        self.metrics.add(Arc::clone(snapshot));
        if self.snapshots.try_send(Arc::clone(snapshot)).is_err() {
            let before = self.dropped.fetch_add(1, Ordering::Relaxed);
            if before.is_multiple_of(60) {
                tracing::warn!("clients are too slow: {} snapshots dropped", before + 1);
            }
        }
    }

    /// Whether the serving thread still runs. If not, the service must be restarted.
    #[must_use]
    pub(crate) fn is_serving(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The serving thread's listeners, state and channels.
struct ServingThread {
    listener: Option<std::os::unix::net::UnixListener>,
    metrics: Option<(TcpListener, Arc<Endpoint>)>,
    shared: Arc<Shared>,
    queued: mpsc::Receiver<Arc<Snapshot>>,
    stopped: oneshot::Receiver<()>,
}

impl ServingThread {
    fn run(mut self) -> anyhow::Result<()> {
        hardening::drop_all_capabilities().context("cannot drop capabilities")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .context("cannot start the event loop")?;
        runtime.block_on(async {
            if let Some(listener) = self.listener {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                tokio::spawn(server::serve(listener, Arc::clone(&self.shared)));
            }
            if let Some((listener, endpoint)) = self.metrics {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::spawn(openmetrics::serve(listener, endpoint));
            }
            loop {
                tokio::select! {
                    _ = &mut self.stopped => return Ok(()),
                    snapshot = self.queued.recv() => {
                        let Some(snapshot) = snapshot else { return Ok(()) };
                        self.shared.store().push(&snapshot)?;
                        self.shared.wake();
                    }
                }
            }
        })
    }
}

/// Returns a function that collects the program's own statistics for a scrape.
fn process_stats(shared: &Arc<Shared>) -> Box<dyn Fn() -> ProcessStats + Send + Sync> {
    let shared = Arc::clone(shared);
    Box::new(move || {
        let (history_bytes, history_s) = {
            let store = shared.store();
            (store.bytes(), store.span_s())
        };
        ProcessStats {
            cpu_s: clock::own_cpu_s(),
            resident_bytes: hardening::resident_bytes(),
            clients: shared.clients(),
            refused: shared.refused(),
            history_bytes,
            history_s,
        }
    })
}
