//! The keeper: a small process that halts a target and answers for it.
//!
//! It lets go when asked to (SIGTERM, which is what `filltop resume` sends), when its time is over,
//! when whoever started it dies (for the screen and the guard, by the end of a socket), and when
//! nothing of the target is left. A second process watches it and lets go in its place if it is
//! killed or hangs. Both keep their memory locked and are not for the OOM killer to choose.

use std::ffi::CStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, WaitOptions, pidfd_open, setrlimit, waitpid};
use serde::{Deserialize, Serialize};
use tracer_model::action::How;

use super::audit::Audit;
use super::executor::Real;
use super::members::Scope;
use super::pins::{CgroupId, Pins};
use super::record::{Record, RecordFile};
use super::suspend::{Brake, Escaped, Halted, Halter};
use super::throttle::Held;
use super::{footing, foreground, record, throttle, watchdog};
use tracer_host::clock;
use tracer_host::process::pidfd::{Handle, Identity};
use tracer_kernel::fence::FenceCounts;

/// Name of the process: it is not to be hit by whoever ends "filltop" by name.
const NAME: &str = "fill-keeper";
/// How often it is looked whether anything of the target is left.
const LOOK: Duration = Duration::from_secs(1);
/// How long starting to halt may take before it is given up.
const START: Duration = Duration::from_secs(10);
/// The same for a fence: to attach its programs the kernel waits for grace periods of RCU tasks, which take seconds
/// each on a busy host.
const START_OF_A_FENCE: Duration = Duration::from_secs(30);

/// What a keeper is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Id of its record.
    pub id: String,
    /// The word that named the target.
    pub asked: String,
    /// The target's name.
    pub name: String,
    /// `freeze`, `throttle` or `fence`.
    pub how: How,
    /// Bytes per second, of a throttle.
    pub rate: Option<u64>,
    /// Whom.
    pub scope: Scope,
    /// With what.
    pub brake: Brake,
    /// The cgroups of both, as they were when the target was found.
    pub cgroups: Vec<CgroupId>,
    /// Files by which the keeper leaves a container's cgroups before it halts anybody.
    pub leave: Vec<PathBuf>,
    /// How long, seconds.
    pub for_s: f64,
    /// Let go as soon as the other end of the socket is closed?
    pub lifeline: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Halted(Halted),
    /// A process left the cgroup whose freezer was to hold it; nothing is halted.
    Escaped(String),
    Failed(String),
}

/// A keeper at work, as seen by whoever started it.
#[derive(Debug)]
pub struct Kept {
    /// Id of its record.
    pub id: String,
    /// What was halted.
    pub halted: Halted,
    /// Dropping it lets go, where the order says so.
    pub lifeline: UnixStream,
    /// The keeper.
    pub child: std::process::Child,
}

/// Starts a keeper and waits until it has halted the target. Where a freezer lost somebody who changed
/// his cgroup meanwhile, each process is signalled instead.
///
/// # Errors
/// What went wrong; nothing is halted then.
pub fn start(order: &Order) -> anyhow::Result<Kept> {
    match try_to(order)? {
        Ok(kept) => Ok(kept),
        Err(_) => {
            let by_signals = Order { brake: Brake::Signals, ..order.clone() };
            try_to(&by_signals)?.map_err(anyhow::Error::msg)
        }
    }
}

/// The same once; the inner error says who got away.
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
        .context("cannot start the process that answers for what is halted")?;
    let patience = if order.how == How::Fence { START_OF_A_FENCE } else { START };
    ours.set_read_timeout(Some(patience))?;
    (&ours).write_all((serde_json::to_string(order)? + "\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(&ours).read_line(&mut line).context("the keeper does not answer")?;
    match serde_json::from_str(&line) {
        Ok(Reply::Halted(halted)) => {
            Ok(Ok(Kept { id: order.id.clone(), halted, lifeline: ours, child }))
        }
        Ok(Reply::Escaped(who)) => Ok(Err(who)),
        Ok(Reply::Failed(reason)) => bail!("{reason}"),
        Err(_) => bail!("the keeper died at once; what it had halted was let go"),
    }
}

/// The process that `filltop keep` is: takes an order from its standard input, which is a socket.
///
/// # Errors
/// If it was not started by filltop.
pub fn keep() -> anyhow::Result<()> {
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    socket.peer_addr().map_err(|_| anyhow!("filltop starts this by itself; use `filltop stop`"))?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("not an order")?;
    become_small(c"fill-keeper");
    let _ = rustix::process::setsid();
    // What a terminal sends when it goes away is not meant.
    // SAFETY: signals are ignored; no handler runs.
    unsafe {
        for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(ignored, libc::SIG_IGN);
        }
    }
    let signals = foreground::block_signals(&[libc::SIGTERM])?;
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
                // Whoever wanted it is gone before knowing that it was done.
                keeper.end("whoever asked for it is gone");
                return Ok(());
            }
        }
        Err(error) => {
            keeper.end("it could not be halted");
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
    /// What the halter's paths lead through.
    _pins: Pins,
}

impl Keeper {
    /// Writes the record and starts the second, before anything is halted.
    fn new(
        order: Order,
        socket: UnixStream,
        signals: OwnedFd,
    ) -> Result<Self, (UnixStream, anyhow::Error)> {
        let until_s = clock::boottime_s() + order.for_s;
        let made = (|| {
            footing::leave(&order.leave).context("cannot leave the container's cgroup")?;
            let (own, _) = Handle::open(std::process::id()).context("/proc is not mounted")?;
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
            // Held from here on: a container that is started again has other cgroups by the same paths.
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
            bail!("{} is frozen already, by somebody else", freezer.dir().display());
        }
        let file = self.file.as_mut().context("no record")?;
        Ok(self.halter.halt(&mut Real, &mut |identity| file.add(identity))?)
    }

    /// Until it is to be let go; why.
    fn hold(&mut self) -> &'static str {
        match self.order.rate.filter(|_| self.order.how == How::Throttle) {
            Some(rate) => throttle::run(self, rate),
            // A freezer's or a fence's cgroup, or all processes, may be gone with no word to anybody.
            None => loop {
                if let Some(reason) = self.wait(LOOK) {
                    return reason;
                }
            },
        }
    }

    /// Lets go and forgets.
    fn end(&mut self, reason: &str) {
        let tally = self.halter.tally();
        let released = self.halter.release(&mut Real);
        // What the record has and the halter does not know (an error half-way) is let go by it.
        let undone = record::undo(&self.path);
        let failed = released.err().or(undone.err());
        let mut audit = Audit::new(
            self.order.how,
            &self.order.name,
            "the keeper".to_owned(),
            &failed.map_or(reason.to_owned(), |error| format!("{reason}; failed: {error}")),
        );
        if let Some(tally) = tally {
            let FenceCounts { refused, escaped } = tally;
            audit.reason += &format!("; {refused} calls refused, {escaped} children not fenced");
        }
        audit.what = format!("end of {}", self.order.how.name());
        audit.id = Some(self.order.id.clone());
        let _ = audit.write(None);
    }

    fn wait_for(&mut self, time: Duration) -> io::Result<Option<&'static str>> {
        let left = self.until_s - clock::boottime_s();
        if left <= 0.0 {
            return Ok(Some("its time is over"));
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
            return Ok(Some("asked to let it go on"));
        }
        if socket.is_some_and(|at| ready[at]) {
            return Ok(Some("the filltop that asked for it has ended"));
        }
        if self.second.is_some() && ready[1] {
            // Somebody killed it: another one takes its place.
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
            // Without a way to wait there is no way to answer for it either.
            Err(_) => return Some("the keeper failed"),
        }
        (time >= LOOK && self.halter.members().is_empty()).then_some("nothing of it is left")
    }

    fn run(&mut self) -> io::Result<()> {
        self.halter.release(&mut Real)
    }

    fn halt(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        self.halter.halt(&mut Real, &mut |identity| file.add(identity)).map(drop)
    }

    fn members(&mut self) -> Vec<Identity> {
        self.halter.members()
    }
}

/// Not to be paged out, not to be chosen by the OOM killer, and room for a descriptor per process.
/// None of it is needed to work.
pub(super) fn become_small(name: &CStr) {
    // SAFETY: a C string, of which the kernel takes 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    // SAFETY: mlockall(2) takes no pointers.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, most);
}
