//! The service's side of the socket: whoever connects gets Snapshots, and nothing else can be asked.
//!
//! There is no queue for a client: it has a place in the store, which is bounded, and gets the next
//! record when it has taken the last. One that takes nothing for a while is let go.

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

/// Clients at a time, …
pub const MAX_CLIENTS: usize = 32;
/// … of which this many places are kept for root, so that the group cannot lock it out.
const KEPT_FOR_ROOT: usize = 8;
/// Time to say what is wanted.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Time to take one frame.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

/// What all connections share.
pub struct Shared {
    store: Mutex<Store>,
    newest: watch::Sender<u64>,
    interval: Duration,
    group: Option<u32>,
    clients: AtomicUsize,
    refused: AtomicU64,
}

impl Shared {
    /// With an empty or filled store. `interval` is between two Snapshots, `group` may look.
    #[must_use]
    pub fn new(store: Store, interval: Duration, group: Option<u32>) -> Self {
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

    /// The store. A panic elsewhere leaves it whole: every change of it ends before anything can fail.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those that wait that there is something new.
    pub fn wake(&self) {
        let newest = self.store().newest();
        self.newest.send_replace(newest);
    }

    /// Connections now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Connections that were refused so far: strangers, garbage, and those beyond the limit.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Counts a connection for as long as it lives.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the task is dropped.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.clients.fetch_add(1, Ordering::Relaxed);
                let place = Place(Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Err(error) = client(stream, &place.0).await {
                        tracing::info!("a client was let go: {error}");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes when somebody goes.
                tracing::warn!("cannot accept a client: {error}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// What is said to one that is refused.
async fn refuse(stream: &mut UnixStream, shared: &Shared, why: &str) -> io::Result<()> {
    shared.refused.fetch_add(1, Ordering::Relaxed);
    send(stream, Kind::Refused, why.as_bytes()).await?;
    Err(io::Error::other(why.to_owned()))
}

async fn client(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let peer = Peer::of(&stream)?;
    if !peer.may_look(shared.group) {
        let why = "only root and members of the group filltop may look";
        return refuse(&mut stream, shared, why).await;
    }
    let kept = if peer.is_privileged() { 0 } else { KEPT_FOR_ROOT };
    if shared.clients() > MAX_CLIENTS - kept {
        let why = format!("{MAX_CLIENTS} clients are here already: close one");
        return refuse(&mut stream, shared, &why).await;
    }
    let hello = match timeout(HELLO_WITHIN, hello(&mut stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return refuse(&mut stream, shared, &format!("no hello: {error}")).await,
        Err(_) => return refuse(&mut stream, shared, "no hello in time").await,
    };
    if hello.protocol != PROTOCOL {
        let why = format!(
            "this service (filltop {}) speaks protocol {PROTOCOL}, not {}: restart it after an \
             update",
            env!("CARGO_PKG_VERSION"),
            hello.protocol
        );
        return refuse(&mut stream, shared, &why).await;
    }
    tracing::info!("{:?} of user {} looks", hello.client, peer.uid);
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
            // Not in the loop's condition, where it would hold the lock while it sends.
            let next = shared.store().after(number);
            let Some((next, record)) = next else { break };
            send(&mut stream, Kind::Snapshot, &record).await?;
            number = next;
        }
        // Nothing known yet: the first Snapshot is worth waiting for.
        if !hello.follow && number > 0 {
            return send(&mut stream, Kind::End, &[]).await;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return Ok(()) },
            more = stream.read_u8() => return match more {
                Ok(_) => refuse(&mut stream, shared, "only a hello was expected").await,
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
        return Err(io::Error::other("the first frame is none"));
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
    timeout(TAKE_WITHIN, write)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it takes nothing"))?
}
