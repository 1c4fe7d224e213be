//! The clients' side of the socket, blocking: commands that show what the service knows.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tracer_model::snapshot::Snapshot;

use super::peer::Peer;
use super::protocol;
use super::protocol::{HEAD, Hello, Kind, MAX_RESPONSE, PROTOCOL, Welcome};
use crate::recording;
use tracer_model::history::merge;

/// Longest wait for an answer of a service that is well.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Why there is nothing from the service.
#[derive(Debug, Error)]
pub enum NoService {
    /// No socket, or nobody listens at it: there is no service.
    #[error("no service runs at {}", .0.display())]
    Absent(PathBuf),
    /// It is there, and not for this user.
    #[error(
        "a service runs, but {} is not for you: run as root, or join the group filltop \
         (`usermod -aG filltop USER`, then log in again)",
        .0.display()
    )]
    Denied(PathBuf),
    /// It sees less than we would.
    #[error(
        "the service was started without CAP_SYS_ADMIN and does not see all writes to {mount_point} \
         ({fs_type}; docs/service.md says how to give it)"
    )]
    SeesLess {
        /// A volume of which it misses something.
        mount_point: String,
        /// Its filesystem.
        fs_type: String,
    },
    /// It said why not.
    #[error("the service refuses: {0}")]
    Refused(String),
    /// Something is wrong with it.
    #[error("the service at {} does not answer: {error}", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        error: io::Error,
    },
}

/// A connection that Snapshots come from.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    welcome: Welcome,
}

impl Client {
    /// Connects. `command` is for the service's log; `since_s` is how much of the past is wanted, 0 for
    /// the newest Snapshot alone; with `follow` new ones come until this is dropped.
    ///
    /// # Errors
    /// [`NoService`].
    pub fn connect(
        path: &Path,
        command: &str,
        since_s: f64,
        follow: bool,
    ) -> Result<Self, NoService> {
        let broken = |error| NoService::Broken { path: path.to_owned(), error };
        let mut stream = connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => NoService::Denied(path.to_owned()),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                NoService::Absent(path.to_owned())
            }
            _ => broken(error),
        })?;
        // In a folder that others may write to, anybody could listen.
        if !Peer::of(&stream).map_err(broken)?.is_privileged() {
            return Err(broken(io::Error::other("it is neither root's nor yours")));
        }
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).map_err(broken)?;
        let hello = Hello { protocol: PROTOCOL, client: command.to_owned(), since_s, follow };
        let body = serde_json::to_vec(&hello).map_err(|error| broken(error.into()))?;
        // One that refuses at once may be gone before this is written; what it said is still there.
        let written = stream.write_all(&protocol::frame(Kind::Hello, &body));
        let (kind, body) =
            read(&mut stream).map_err(|error| broken(written.err().unwrap_or(error)))?;
        let welcome: Welcome = match kind {
            Kind::Welcome => serde_json::from_slice(&body).map_err(|error| broken(error.into()))?,
            Kind::Refused => return Err(refused(&body)),
            _ => return Err(broken(io::Error::other("no welcome"))),
        };
        // The service may be as slow as its own interval.
        let patience = ANSWERS_WITHIN.mul_f64(1.0 + welcome.interval_s.clamp(0.0, 3600.0));
        stream.set_read_timeout(Some(patience)).map_err(broken)?;
        Ok(Self { stream, path: path.to_owned(), welcome })
    }

    /// What the service said about itself.
    #[must_use]
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Where the service is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next Snapshot, oldest first; `None` when all that was asked for is there. Waits.
    ///
    /// # Errors
    /// [`NoService`], when the service has gone or does not answer any more.
    pub fn receive(&mut self) -> Result<Option<Box<Snapshot>>, NoService> {
        let broken = |error| NoService::Broken { path: self.path.clone(), error };
        let (kind, body) = read(&mut self.stream).map_err(broken)?;
        match kind {
            Kind::Snapshot => recording::decode_one(&body)
                .map(Some)
                .ok_or_else(|| broken(io::Error::other("a Snapshot is damaged"))),
            Kind::End => Ok(None),
            Kind::Refused => Err(refused(&body)),
            Kind::Hello | Kind::Welcome => Err(broken(io::Error::other("a frame out of place"))),
        }
    }
}

/// The last `seconds` as one Snapshot, or less where the service has not known more yet; with 0 the
/// newest. For `snapshot`, `check` and `stop`.
///
/// # Errors
/// [`NoService`].
pub fn recent(path: &Path, command: &str, seconds: f64) -> Result<Snapshot, NoService> {
    let mut client = Client::connect(path, command, seconds, false)?;
    let mut sum: Option<Snapshot> = None;
    while let Some(next) = client.receive()? {
        match &mut sum {
            Some(sum) => {
                merge::add(sum, &next);
                // Counted since the service started, not by window.
                sum.backend.lost_events = next.backend.lost_events;
            }
            None => sum = Some(*next),
        }
    }
    sum.ok_or_else(|| NoService::Broken {
        path: path.to_owned(),
        error: io::Error::other("it knows nothing"),
    })
}

/// Connects within [`ANSWERS_WITHIN`]: the queue of a service that hangs may be full, and connect(2)
/// waits for as long as the time-out for sending that was set before.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWERS_WITHIN))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn refused(body: &[u8]) -> NoService {
    NoService::Refused(String::from_utf8_lossy(body).into_owned())
}

fn read(stream: &mut UnixStream) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    let (kind, length) = protocol::parse_head(head, MAX_RESPONSE)?;
    let mut body = Vec::new();
    // Grows with what really comes.
    stream.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((kind, body))
}
