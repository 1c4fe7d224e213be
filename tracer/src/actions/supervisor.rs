//! The supervisor: a small process that suspends a target and is responsible for resuming it.
//!
//! It resumes the target on request (SIGTERM, sent by `filltop resume`), at the time limit, when its
//! owner exits (for the screen and the guard, detected by the end of a socket), and when no process of
//! the target is left. A watchdog process monitors it and resumes the target in its place if it is
//! killed or hangs. Both have their memory locked and are exempt from the OOM killer.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use serde::{Deserialize, Serialize};
use tracer_model::action::Action;

use super::audit::Audit;
use super::executor::Real;
use super::harden::harden_process;
use super::members::Scope;
use super::pins::{CgroupId, Pins};
use super::record::{Record, RecordFile};
use super::suspend::{Brake, Escaped, Halted, Halter};
use super::throttle::Held;
use super::{footing, record, signals, throttle, watchdog};
use tracer_host::clock;
use tracer_host::process::pidfd::{PidHandle, ProcessId};
use tracer_kernel::fence::Tally;

/// Name of the process. It differs from "filltop", so that killing "filltop" by name spares it.
const NAME: &str = "fill-keeper";
/// Interval at which the supervisor checks whether any process of the target is left.
const LOOK: Duration = Duration::from_secs(1);
/// How long suspending may take before the attempt is abandoned.
const START: Duration = Duration::from_secs(10);
/// The same for a fence: to attach its programs, the kernel waits for RCU tasks grace periods, each of
/// which takes seconds on a busy host.
const START_OF_A_FENCE: Duration = Duration::from_secs(30);

/// The order for a supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Id of the record.
    pub id: String,
    /// TARGET as it was given.
    pub asked: String,
    /// Name of the target.
    pub name: String,
    /// `freeze`, `throttle` or `fence`.
    pub how: Action,
    /// Rate of a throttle, bytes per second.
    pub rate: Option<u64>,
    /// The target's processes.
    pub scope: Scope,
    /// The method.
    pub brake: Brake,
    /// The cgroups of target and method, as they were when the target was found.
    pub cgroups: Vec<CgroupId>,
    /// Files through which the supervisor leaves a container's cgroups before it suspends anything.
    pub leave: Vec<PathBuf>,
    /// Time limit, seconds.
    pub for_s: f64,
    /// Whether to resume the target as soon as the other end of the socket is closed.
    pub lifeline: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Halted(Halted),
    /// A process left the cgroup while it was being frozen; nothing is suspended.
    Escaped(String),
    Failed(String),
}

/// A running supervisor, as seen by the process that started it.
#[derive(Debug)]
pub struct Kept {
    /// Id of the record.
    pub id: String,
    /// The result of suspending the target.
    pub halted: Halted,
    /// The socket to the supervisor. If the order says so, dropping it resumes the target.
    pub lifeline: UnixStream,
    /// The supervisor process.
    pub child: std::process::Child,
}

/// Starts a supervisor and waits until it has suspended the target. If a process changes its cgroup
/// while that is being frozen, signals are used instead of the freezer.
///
/// # Errors
/// If the target could not be suspended; nothing is suspended then.
pub fn start(order: &Order) -> anyhow::Result<Kept> {
    match try_to(order)? {
        Ok(kept) => Ok(kept),
        Err(_) => {
            let by_signals = Order { brake: Brake::Signals, ..order.clone() };
            try_to(&by_signals)?.map_err(anyhow::Error::msg)
        }
    }
}

/// Tries this once; the inner error names the process that left the cgroup.
fn try_to(order: &Order) -> anyhow::Result<Result<Kept, String>> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg("keep")
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the supervisor process")?;
    let patience = if order.how == Action::Fence { START_OF_A_FENCE } else { START };
    ours.set_read_timeout(Some(patience))?;
    (&ours).write_all((serde_json::to_string(order)? + "\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(&ours).read_line(&mut line).context("the supervisor does not respond")?;
    match serde_json::from_str(&line) {
        Ok(Reply::Halted(halted)) => {
            Ok(Ok(Kept { id: order.id.clone(), halted, lifeline: ours, child }))
        }
        Ok(Reply::Escaped(who)) => Ok(Err(who)),
        Ok(Reply::Failed(reason)) => bail!("{reason}"),
        Err(_) => {
            bail!("the supervisor exited immediately; everything it had suspended was resumed")
        }
    }
}

/// Runs the supervisor process, `filltop keep`: reads an order from its standard input, a socket.
///
/// # Errors
/// If the process was not started by filltop.
pub fn keep() -> anyhow::Result<()> {
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    socket.peer_addr().map_err(|_| anyhow!("internal command; use `filltop stop`"))?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("invalid order")?;
    harden_process(c"fill-keeper");
    let _ = rustix::process::setsid();
    // The signals of a closing terminal must not end the supervisor.
    // SAFETY: signals are ignored; no handler runs.
    unsafe {
        for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(ignored, libc::SIG_IGN);
        }
    }
    let signals = signals::block(&[libc::SIGTERM])?;
    let mut keeper = match Keeper::new(order, socket, signals) {
        Ok(keeper) => keeper,
        Err((socket, error)) => {
            reply(&socket, &Reply::Failed(format!("{error:#}")));
            return Ok(());
        }
    };
    match keeper.begin() {
        Ok(halted) => {
            if !reply(&keeper.socket, &Reply::Halted(halted)) {
                // The requester exited before it learned that the target is suspended.
                keeper.end("the requesting filltop has exited");
                return Ok(());
            }
        }
        Err(error) => {
            keeper.end("the target could not be suspended");
            let said = format!("{error:#}");
            let escaped = Escaped::is(&error);
            let said = if escaped { Reply::Escaped(said) } else { Reply::Failed(said) };
            reply(&keeper.socket, &said);
            return Ok(());
        }
    }
    let reason = keeper.hold();
    keeper.end(reason);
    Ok(())
}

fn reply(mut socket: &UnixStream, reply: &Reply) -> bool {
    let line = serde_json::to_string(reply).unwrap_or_default() + "\n";
    socket.write_all(line.as_bytes()).is_ok()
}

struct Keeper {
    order: Order,
    socket: UnixStream,
    signals: OwnedFd,
    halter: Halter,
    path: PathBuf,
    file: Option<RecordFile>,
    second: Option<(Pid, OwnedFd)>,
    until_s: f64,
    /// The descriptors that the suspender's paths go through.
    _pins: Pins,
}

impl Keeper {
    /// Writes the record and starts the watchdog, before anything is suspended.
    fn new(
        order: Order,
        socket: UnixStream,
        signals: OwnedFd,
    ) -> Result<Self, (UnixStream, anyhow::Error)> {
        let until_s = clock::boottime_s() + order.for_s;
        let made = (|| {
            footing::leave(&order.leave).context("cannot leave the container's cgroup")?;
            let (own, _) = PidHandle::open(std::process::id()).context("/proc is not mounted")?;
            let record = Record {
                id: order.id.clone(),
                asked: order.asked.clone(),
                name: order.name.clone(),
                how: order.how,
                rate: order.rate,
                scope: order.scope.clone(),
                brake: order.brake.clone(),
                cgroups: order.cgroups.clone(),
                pid_namespace: record::pid_namespace(),
                keeper: own.identity,
                since: clock::now(),
                until_boottime_s: until_s,
            };
            // Pinned from here on: a restarted container has other cgroups at the same paths.
            let pins = Pins::open(&order.cgroups)?;
            let path = record::directory().join(&record.id);
            let file = RecordFile::create(&record)
                .with_context(|| format!("cannot write the record {}", path.display()))?;
            Ok((path, file, pins))
        })();
        let (path, file, pins) = match made {
            Ok(made) => made,
            Err(error) => return Err((socket, error)),
        };
        let halter = Halter::new(pins.scope(&order.scope), pins.brake(&order.brake));
        let file = Some(file);
        let mut keeper =
            Self { order, socket, signals, halter, path, file, second: None, until_s, _pins: pins };
        match keeper.start_second() {
            Ok(()) => Ok(keeper),
            Err(error) => {
                if let Some(file) = keeper.file.take() {
                    file.remove();
                }
                Err((keeper.socket, error.into()))
            }
        }
    }

    fn begin(&mut self) -> anyhow::Result<Halted> {
        if let Brake::Freezer(freezer) = &self.order.brake
            && freezer.is_asked()
        {
            bail!("{} is already frozen, but not by filltop", freezer.dir().display());
        }
        let file = self.file.as_mut().context("no record")?;
        Ok(self.halter.halt(&mut Real, &mut |identity| file.add(identity))?)
    }

    /// Waits until the target has to be resumed, and returns the reason.
    fn hold(&mut self) -> &'static str {
        match self.order.rate.filter(|_| self.order.how == Action::Throttle) {
            Some(rate) => throttle::run(self, rate),
            // The cgroup of a freezer or fence, or all processes, can disappear without notice.
            None => loop {
                if let Some(reason) = self.wait(LOOK) {
                    return reason;
                }
            },
        }
    }

    /// Resumes the target, removes the record and writes the audit line.
    fn end(&mut self, reason: &str) {
        let tally = self.halter.tally();
        let released = self.halter.release(&mut Real);
        // After a partial failure the record can contain processes that the suspender does not know;
        // undoing the record resumes them.
        let undone = record::undo(&self.path);
        let failed = released.err().or(undone.err());
        let mut reason =
            failed.map_or(reason.to_owned(), |error| format!("{reason}; failed: {error}"));
        if let Some(Tally { refused, escaped }) = tally {
            let _ = write!(reason, "; {refused} calls refused, {escaped} children not fenced");
        }
        let Order { how, id, name, .. } = &self.order;
        let _ = Audit::end(*how, id, name, "the supervisor", &reason).write(None);
    }

    fn wait_for(&mut self, time: Duration) -> io::Result<Option<&'static str>> {
        let left = self.until_s - clock::boottime_s();
        if left <= 0.0 {
            return Ok(Some("time limit reached"));
        }
        let time = time.min(Duration::from_secs_f64(left));
        let timeout =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let second = self.second.as_ref().map(|(_, fd)| fd.as_fd());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(second.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let socket = self.order.lifeline.then_some(fds.len());
        if self.order.lifeline {
            fds.push(PollFd::new(&self.socket, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(None),
            result => result?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return Ok(Some("resume requested"));
        }
        if socket.is_some_and(|at| ready[at]) {
            return Ok(Some("the requesting filltop has exited"));
        }
        if self.second.is_some() && ready[1] {
            // The watchdog was killed; start another one.
            self.start_second()?;
        }
        Ok(None)
    }

    fn start_second(&mut self) -> io::Result<()> {
        if let Some((pid, _)) = self.second.take() {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        let own = rustix::process::getpid();
        let keeper = pidfd_open(own, PidfdFlags::empty())?;
        // SAFETY: this process has one thread, so the child may do whatever it could.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let socket = self.socket.as_raw_fd();
                watchdog::watch(own, &keeper, &self.path, self.until_s, socket);
                std::process::exit(0)
            }
            raw => {
                let pid = Pid::from_raw(raw).ok_or(io::ErrorKind::InvalidData)?;
                self.second = Some((pid, pidfd_open(pid, PidfdFlags::empty())?));
                Ok(())
            }
        }
    }
}

impl Held for Keeper {
    fn wait(&mut self, time: Duration) -> Option<&'static str> {
        match self.wait_for(time) {
            Ok(None) => {}
            Ok(reason) => return reason,
            // A supervisor that cannot wait cannot be responsible for the target.
            Err(_) => return Some("the supervisor failed"),
        }
        (time >= LOOK && self.halter.members().is_empty()).then_some("the target has ended")
    }

    fn run(&mut self) -> io::Result<()> {
        self.halter.release(&mut Real)
    }

    fn halt(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        self.halter.halt(&mut Real, &mut |identity| file.add(identity)).map(drop)
    }

    fn members(&mut self) -> Vec<ProcessId> {
        self.halter.members()
    }
}
