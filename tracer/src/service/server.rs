//! The server side of the socket: clients get Snapshots, and there are no other requests.
//!
//! Clients have no queue: each has a position in the store, which is bounded, and gets the next
//! record once it has read the last. A client that does not read for a while is disconnected.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::peer::Peer;
use super::protocol;
use super::protocol::{HEAD, Hello, Kind, MAX_REQUEST, PROTOCOL, Welcome};
use super::store::Store;

/// Maximum number of clients at a time, …
pub(crate) const MAX_CLIENTS: usize = 32;
/// … of which this many slots are reserved for root, so that the group cannot lock it out.
const RESERVED_FOR_ROOT: usize = 8;
/// Time limit for a client's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a client to read one frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// State shared by all connections.
pub(crate) struct Shared {
    store: Mutex<Store>,
    newest: watch::Sender<u64>,
    interval: Duration,
    group: Option<u32>,
    clients: AtomicUsize,
    refused: AtomicU64,
}

impl Shared {
    /// Creates the state with an empty or filled store. `interval` is the time between two
    /// Snapshots; members of `group` may connect.
    #[must_use]
    pub(crate) fn new(store: Store, interval: Duration, group: Option<u32>) -> Self {
        let newest = watch::Sender::new(store.newest());
        Self {
            store: Mutex::new(store),
            newest,
            interval,
            group,
            clients: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Locks the store. A panic of another thread leaves it consistent: every change of it completes
    /// before anything can fail.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the connections that wait for a new Snapshot.
    pub(crate) fn wake(&self) {
        let newest = self.store().newest();
        self.newest.send_replace(newest);
    }

    /// Number of open connections.
    #[must_use]
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Number of connections refused so far: no permission, invalid data, or over the limit.
    #[must_use]
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Counts a connection until it is dropped.
struct ClientSlot(Arc<Shared>);

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.clients.fetch_add(1, Ordering::Relaxed);
                let slot = ClientSlot(Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Err(error) = client(stream, &slot.0).await {
                        tracing::info!("client disconnected: {error}");
                    }
                });
            }
            Err(error) => {
                // Most likely out of descriptors, until a client disconnects.
                tracing::warn!("cannot accept a client: {error}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Refuses a client with a reason, and returns that as the error.
async fn refuse(stream: &mut UnixStream, shared: &Shared, why: &str) -> io::Result<()> {
    shared.refused.fetch_add(1, Ordering::Relaxed);
    send(stream, Kind::Refused, why.as_bytes()).await?;
    Err(io::Error::other(why.to_owned()))
}

async fn client(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let peer = Peer::of(&stream)?;
    if !peer.may_connect(shared.group) {
        let why = "only root and members of the group filltop may connect";
        return refuse(&mut stream, shared, why).await;
    }
    let reserved = if peer.is_privileged() { 0 } else { RESERVED_FOR_ROOT };
    if shared.clients() > MAX_CLIENTS - reserved {
        let why = format!("{MAX_CLIENTS} clients are connected already; close one");
        return refuse(&mut stream, shared, &why).await;
    }
    let hello = match timeout(HELLO_TIMEOUT, hello(&mut stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return refuse(&mut stream, shared, &format!("no hello: {error}")).await,
        Err(_) => return refuse(&mut stream, shared, "no hello in time").await,
    };
    if hello.protocol != PROTOCOL {
        let why = format!(
            "this service (filltop {}) speaks protocol {PROTOCOL}, not {}; restart it after an \
             update",
            env!("CARGO_PKG_VERSION"),
            hello.protocol
        );
        return refuse(&mut stream, shared, &why).await;
    }
    tracing::info!("client {:?} of uid {} connected", hello.client, peer.uid);
    let (mut number, span_s) = {
        let store = shared.store();
        (store.before(if hello.since_s.is_finite() { hello.since_s } else { 0.0 }), store.span_s())
    };
    let welcome = Welcome {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interval_s: shared.interval.as_secs_f64(),
        span_s,
    };
    send(&mut stream, Kind::Welcome, &serde_json::to_vec(&welcome)?).await?;
    let mut newest = shared.newest.subscribe();
    loop {
        newest.mark_unchanged();
        loop {
            // Not in the loop's condition, which would hold the lock while sending.
            let next = shared.store().after(number);
            let Some((next, record)) = next else { break };
            send(&mut stream, Kind::Snapshot, &record).await?;
            number = next;
        }
        // Without any Snapshot yet, wait for the first.
        if !hello.follow && number > 0 {
            return send(&mut stream, Kind::End, &[]).await;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return Ok(()) },
            more = stream.read_u8() => return match more {
                Ok(_) => refuse(&mut stream, shared, "unexpected data after the hello").await,
                Err(_) => Ok(()),
            },
        }
    }
}

async fn hello(stream: &mut UnixStream) -> io::Result<Hello> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let (kind, length) = protocol::parse_head(head, MAX_REQUEST)?;
    if kind != Kind::Hello {
        return Err(io::Error::other("the first frame is not a hello"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn send(stream: &mut UnixStream, kind: Kind, body: &[u8]) -> io::Result<()> {
    let write = async {
        stream.write_all(&protocol::head(kind, body.len())).await?;
        stream.write_all(body).await
    };
    timeout(SEND_TIMEOUT, write)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))?
}
