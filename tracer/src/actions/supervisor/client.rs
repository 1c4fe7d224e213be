//! Starts a supervisor process and waits for its reply.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tracer_model::action::Action;

use super::protocol::{Reply, SuspendOrder};
use crate::actions::record::Suspension;
use crate::actions::suspend::{SuspendMethod, SuspendReport};

/// `argv[0]` of the process. It does not contain "filltop", so that killing "filltop" by name spares it.
const ARGV0: &str = "fill-supervisor";
/// How long suspending may take before the attempt is abandoned.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a fence: to attach its programs, the kernel waits for RCU tasks grace periods, each of
/// which takes seconds on a busy host.
const FENCE_START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running supervisor, as seen by the process that started it.
#[derive(Debug)]
pub(crate) struct SupervisorHandle {
    /// Id of the record.
    pub id: String,
    /// The result of suspending the target.
    pub report: SuspendReport,
    /// The supervisor process.
    pub child: Child,
    /// The socket to the supervisor. If the order says so, dropping it resumes the target.
    _owner_socket: UnixStream,
}

/// Why a target is not suspended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The process could not be started.
    #[error("cannot start the supervisor process")]
    Spawn(#[source] io::Error),
    /// The socket to the supervisor failed.
    #[error("the supervisor does not respond")]
    Socket(#[from] io::Error),
    /// The supervisor closed the socket without a reply.
    #[error("the supervisor exited immediately; everything it had suspended was resumed")]
    Exited,
    /// A process left the cgroup while it was being frozen.
    #[error("{0}")]
    Escaped(String),
    /// The supervisor could not suspend the target.
    #[error("{0}")]
    Failed(String),
}

/// Starts a supervisor and waits until it has suspended the target. If a process changes its cgroup
/// while that is being frozen, signals are used instead of the freezer.
///
/// # Errors
/// If the target could not be suspended; nothing is suspended then.
pub(crate) fn start(order: &SuspendOrder) -> Result<SupervisorHandle, StartError> {
    match try_start(order) {
        Err(StartError::Escaped(_)) => {
            let suspension =
                Suspension { method: SuspendMethod::Signals, ..order.suspension.clone() };
            try_start(&SuspendOrder { suspension, ..order.clone() })
        }
        result => result,
    }
}

fn try_start(order: &SuspendOrder) -> Result<SupervisorHandle, StartError> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg0(ARGV0)
        .arg("supervise")
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(StartError::Spawn)?;
    let is_fence = order.suspension.how == Action::Fence;
    ours.set_read_timeout(Some(if is_fence { FENCE_START_TIMEOUT } else { START_TIMEOUT }))?;
    let line = serde_json::to_string(order).map_err(io::Error::from)? + "\n";
    (&ours).write_all(line.as_bytes())?;
    let mut line = String::new();
    BufReader::new(&ours).read_line(&mut line)?;
    match serde_json::from_str(&line) {
        Ok(Reply::Suspended(report)) => {
            let id = order.suspension.id.clone();
            Ok(SupervisorHandle { id, report, child, _owner_socket: ours })
        }
        Ok(Reply::Escaped(reason)) => Err(StartError::Escaped(reason)),
        Ok(Reply::Failed(reason)) => Err(StartError::Failed(reason)),
        Err(_) => Err(StartError::Exited),
    }
}
