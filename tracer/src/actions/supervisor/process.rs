//! The supervisor process itself, `filltop supervise`.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use tracer_model::action::Action;

use super::end_reason::EndReason;
use super::harden::harden_process;
use super::protocol::{Reply, SuspendOrder};
use super::{signals, watchdog};
use crate::actions::audit::Audit;
use crate::actions::executor::SystemExecutor;
use crate::actions::pins::Pins;
use crate::actions::record::{Record, RecordFile, Suspension};
use crate::actions::suspend::{SuspendError, SuspendMethod, SuspendReport, Suspender};
use crate::actions::throttle::Throttled;
use crate::actions::{record, resume_guarantee, throttle};
use tracer_host::clock;
use tracer_host::process::pidfd::{PidHandle, ProcessId};
use tracer_kernel::fence::FenceCounts;

/// Interval at which the supervisor checks whether any process of the target is left.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the supervisor process, `filltop supervise`: reads an order from its standard input, a socket.
///
/// # Errors
/// If the process was not started by filltop.
pub(crate) fn run() -> anyhow::Result<()> {
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    socket.peer_addr().map_err(|_| anyhow!("internal command; use `filltop stop`"))?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    let order: SuspendOrder = serde_json::from_str(&line).context("invalid order")?;
    harden_process(c"fill-supervisor");
    let _ = rustix::process::setsid();
    // The signals of a closing terminal must not end the supervisor.
    // SAFETY: signals are ignored; no handler runs.
    unsafe {
        for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(ignored, libc::SIG_IGN);
        }
    }
    let signals = signals::block(&[libc::SIGTERM])?;
    let mut supervisor = match Supervisor::new(order, &socket, signals) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            reply(&socket, &Reply::Failed(format!("{error:#}")));
            return Ok(());
        }
    };
    match supervisor.suspend_target() {
        Ok(report) => {
            if !reply(&socket, &Reply::Suspended(report)) {
                // The requester exited before it learned that the target is suspended.
                supervisor.end(EndReason::OwnerExited);
                return Ok(());
            }
        }
        Err(error) => {
            supervisor.end(EndReason::NotSuspended);
            let reason = error.to_string();
            let escaped = matches!(error, SuspendError::Escaped(_));
            reply(&socket, &if escaped { Reply::Escaped(reason) } else { Reply::Failed(reason) });
            return Ok(());
        }
    }
    let reason = supervisor.wait_for_end();
    supervisor.end(reason);
    Ok(())
}

fn reply(mut socket: &UnixStream, reply: &Reply) -> bool {
    let line = serde_json::to_string(reply).unwrap_or_default() + "\n";
    socket.write_all(line.as_bytes()).is_ok()
}

struct Supervisor<'a> {
    order: SuspendOrder,
    socket: &'a UnixStream,
    signals: OwnedFd,
    suspender: Suspender,
    path: PathBuf,
    file: RecordFile,
    watchdog: Option<(Pid, OwnedFd)>,
    until_s: f64,
    /// The descriptors that the suspender's paths go through.
    _pins: Pins,
}

impl<'a> Supervisor<'a> {
    /// Writes the record and starts the watchdog, before anything is suspended.
    fn new(order: SuspendOrder, socket: &'a UnixStream, signals: OwnedFd) -> anyhow::Result<Self> {
        let until_s = clock::boottime_s() + order.for_s;
        resume_guarantee::leave_container(&order.exit_files)
            .context("cannot leave the container's cgroup")?;
        let (own, _) = PidHandle::open(std::process::id()).context("/proc is not mounted")?;
        let record = Record {
            suspension: order.suspension.clone(),
            pid_namespace: record::pid_namespace(),
            supervisor: own.identity,
            since: clock::now(),
            until_boottime_s: until_s,
        };
        let Suspension { id, scope, method, cgroups, .. } = &order.suspension;
        // Pinned from here on: a restarted container has other cgroups at the same paths.
        let pins = Pins::open(cgroups)?;
        let path = record::directory().join(id);
        let file = RecordFile::create(&record)
            .with_context(|| format!("cannot write the record {}", path.display()))?;
        let suspender = Suspender::new(pins.scope(scope), pins.method(method));
        let mut supervisor = Self {
            order,
            socket,
            signals,
            suspender,
            path,
            file,
            watchdog: None,
            until_s,
            _pins: pins,
        };
        match supervisor.start_watchdog() {
            Ok(()) => Ok(supervisor),
            Err(error) => {
                supervisor.file.remove();
                Err(error.into())
            }
        }
    }

    fn suspend_target(&mut self) -> Result<SuspendReport, SuspendError> {
        if let SuspendMethod::Freezer(freezer) = &self.order.suspension.method
            && freezer.is_requested()
        {
            return Err(SuspendError::AlreadyFrozen(freezer.dir().to_owned()));
        }
        let file = &mut self.file;
        self.suspender.suspend(&mut SystemExecutor, &mut |identity| file.add(identity))
    }

    /// Waits until the target has to be resumed, and returns the reason.
    fn wait_for_end(&mut self) -> EndReason {
        let Suspension { how, rate, .. } = &self.order.suspension;
        match rate.filter(|_| *how == Action::Throttle) {
            Some(rate) => throttle::run(self, rate),
            // The cgroup of a freezer or fence, or all processes, can disappear without notice.
            None => loop {
                if let Some(reason) = self.wait(CHECK_INTERVAL) {
                    return reason;
                }
            },
        }
    }

    /// Resumes the target, removes the record and writes the audit line.
    fn end(&mut self, reason: EndReason) {
        let counts = self.suspender.fence_counts();
        let released = self.suspender.release(&mut SystemExecutor);
        // After a partial failure the record can contain processes that the suspender does not know;
        // undoing the record resumes them.
        let undone = record::undo(&self.path);
        let failed = released.err().or(undone.err());
        let mut reason =
            failed.map_or(reason.to_string(), |error| format!("{reason}; failed: {error}"));
        if let Some(FenceCounts { refused, escaped }) = counts {
            let calls = if refused == 1 { "call" } else { "calls" };
            let children = if escaped == 1 { "child" } else { "children" };
            let _ = write!(reason, "; {refused} {calls} refused, {escaped} {children} not fenced");
        }
        let Suspension { how, id, name, .. } = &self.order.suspension;
        let _ = Audit::end(*how, id, name, "the supervisor", &reason).write(None);
    }

    fn wait_for(&mut self, time: Duration) -> io::Result<Option<EndReason>> {
        let left = self.until_s - clock::boottime_s();
        if left <= 0.0 {
            return Ok(Some(EndReason::TimeLimit));
        }
        let time = time.min(Duration::from_secs_f64(left));
        let timeout =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let watchdog = self.watchdog.as_ref().map(|(_, fd)| fd.as_fd());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(watchdog.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let socket = self.order.ends_with_owner.then_some(fds.len());
        if self.order.ends_with_owner {
            fds.push(PollFd::new(self.socket, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(None),
            result => result?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return Ok(Some(EndReason::Requested));
        }
        if socket.is_some_and(|at| ready[at]) {
            return Ok(Some(EndReason::OwnerExited));
        }
        if self.watchdog.is_some() && ready[1] {
            // The watchdog was killed; start another one.
            self.start_watchdog()?;
        }
        Ok(None)
    }

    fn start_watchdog(&mut self) -> io::Result<()> {
        if let Some((pid, _)) = self.watchdog.take() {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        let own = rustix::process::getpid();
        let supervisor = pidfd_open(own, PidfdFlags::empty())?;
        // SAFETY: this process has one thread, so the child may do whatever it could.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let socket = self.socket.as_raw_fd();
                watchdog::run(own, &supervisor, &self.path, self.until_s, socket);
                std::process::exit(0)
            }
            raw => {
                let pid = Pid::from_raw(raw).ok_or(io::ErrorKind::InvalidData)?;
                self.watchdog = Some((pid, pidfd_open(pid, PidfdFlags::empty())?));
                Ok(())
            }
        }
    }
}

impl Throttled for Supervisor<'_> {
    fn wait(&mut self, time: Duration) -> Option<EndReason> {
        match self.wait_for(time) {
            Ok(None) => {}
            Ok(reason) => return reason,
            // A supervisor that cannot wait cannot be responsible for the target.
            Err(_) => return Some(EndReason::SupervisorFailed),
        }
        (time >= CHECK_INTERVAL && self.suspender.members().is_empty())
            .then_some(EndReason::TargetEnded)
    }

    fn resume(&mut self) -> io::Result<()> {
        self.suspender.release(&mut SystemExecutor)
    }

    fn suspend(&mut self) -> Result<(), SuspendError> {
        let file = &mut self.file;
        self.suspender.suspend(&mut SystemExecutor, &mut |identity| file.add(identity)).map(drop)
    }

    fn members(&mut self) -> Vec<ProcessId> {
        self.suspender.members()
    }
}
