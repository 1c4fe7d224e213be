//! The client side of the socket, blocking: for commands that show the service's data.

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

/// Longest time that a healthy service takes to answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the service cannot be used.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// There is no socket, or no process listens on it.
    #[error("no service is running at {}", .0.display())]
    NotRunning(PathBuf),
    /// This user may not connect to the service.
    #[error(
        "permission denied for the service socket {}; run as root, or join the group filltop \
         (`usermod -aG filltop USER`, then log in again)",
        .0.display()
    )]
    PermissionDenied(PathBuf),
    /// The service sees less than this command would.
    #[error(
        "the service was started without CAP_SYS_ADMIN and misses some writes to {mount_point} \
         ({fs_type}); grant it as described in docs/service.md"
    )]
    LessPrivileged {
        /// A volume on which the service misses writes.
        mount_point: String,
        /// Filesystem type of the volume.
        fs_type: String,
    },
    /// The service refused, with this reason.
    #[error("the service refused: {0}")]
    Refused(String),
    /// The service does not answer, or not according to the protocol.
    #[error("the service at {} does not answer: {error}", .path.display())]
    Unresponsive {
        /// The socket.
        path: PathBuf,
        /// The error of the connection.
        error: io::Error,
    },
}

/// A connection that receives Snapshots.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects to the service. `command` is for the service's log; `since_s` is the length of the requested
    /// history in seconds, 0 for the newest Snapshot only; with `follow`, new ones are received
    /// until this is dropped.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn connect(
        path: &Path,
        command: &str,
        since_s: f64,
        follow: bool,
    ) -> Result<Self, ServiceError> {
        let unresponsive = |error| ServiceError::Unresponsive { path: path.to_owned(), error };
        let mut stream = connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ServiceError::PermissionDenied(path.to_owned()),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ServiceError::NotRunning(path.to_owned())
            }
            _ => unresponsive(error),
        })?;
        // In a directory that other users may write to, any process could listen.
        if !Peer::of(&stream).map_err(unresponsive)?.is_privileged() {
            return Err(unresponsive(io::Error::other("it runs as neither root nor you")));
        }
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).map_err(unresponsive)?;
        let hello = Hello { protocol: PROTOCOL, client: command.to_owned(), since_s, follow };
        let body = serde_json::to_vec(&hello).map_err(|error| unresponsive(error.into()))?;
        // A service that refuses immediately may have closed the connection before this is
        // written; its reason can still be read.
        let written = stream.write_all(&protocol::frame(Kind::Hello, &body));
        let (kind, body) =
            read(&mut stream).map_err(|error| unresponsive(written.err().unwrap_or(error)))?;
        let welcome: Welcome = match kind {
            Kind::Welcome => {
                serde_json::from_slice(&body).map_err(|error| unresponsive(error.into()))?
            }
            Kind::Refused => return Err(refused(&body)),
            _ => return Err(unresponsive(io::Error::other("the first frame is not a welcome"))),
        };
        // The service sends at its own interval.
        let timeout = RESPONSE_TIMEOUT.mul_f64(1.0 + welcome.interval_s.clamp(0.0, 3600.0));
        stream.set_read_timeout(Some(timeout)).map_err(unresponsive)?;
        Ok(Self { stream, path: path.to_owned() })
    }

    /// Path of the service's socket.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next Snapshot, oldest first; `None` after the last requested one.
    ///
    /// # Errors
    /// [`ServiceError`] if the service has ended or no longer answers.
    pub fn receive(&mut self) -> Result<Option<Box<Snapshot>>, ServiceError> {
        let unresponsive = |error| ServiceError::Unresponsive { path: self.path.clone(), error };
        let (kind, body) = read(&mut self.stream).map_err(unresponsive)?;
        match kind {
            Kind::Snapshot => recording::decode_one(&body)
                .map(Some)
                .ok_or_else(|| unresponsive(io::Error::other("damaged Snapshot"))),
            Kind::End => Ok(None),
            Kind::Refused => Err(refused(&body)),
            Kind::Hello | Kind::Welcome => Err(unresponsive(io::Error::other("unexpected frame"))),
        }
    }
}

/// Returns the last `seconds` as one Snapshot, or less if the service has less history; with 0 the
/// newest. Used by `snapshot`, `check` and `stop`.
///
/// # Errors
/// [`ServiceError`].
pub(crate) fn recent(path: &Path, command: &str, seconds: f64) -> Result<Snapshot, ServiceError> {
    let mut client = Client::connect(path, command, seconds, false)?;
    let mut sum: Option<Snapshot> = None;
    while let Some(next) = client.receive()? {
        match &mut sum {
            Some(sum) => {
                merge::add(sum, &next);
                // Counted since the service started, not per interval.
                sum.backend.lost_events = next.backend.lost_events;
            }
            None => sum = Some(*next),
        }
    }
    sum.ok_or_else(|| ServiceError::Unresponsive {
        path: path.to_owned(),
        error: io::Error::other("it sent no Snapshot"),
    })
}

/// Connects within [`RESPONSE_TIMEOUT`]: the backlog of a service that hangs may be full, and
/// connect(2) blocks up to the send time-out set on the socket.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(RESPONSE_TIMEOUT))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn refused(body: &[u8]) -> ServiceError {
    ServiceError::Refused(String::from_utf8_lossy(body).into_owned())
}

fn read(stream: &mut UnixStream) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    let (kind, length) = protocol::parse_head(head, MAX_RESPONSE)?;
    let mut body = Vec::new();
    // Grows with the bytes that arrive, not with the announced length.
    stream.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((kind, body))
}
