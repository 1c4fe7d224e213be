//! The privileged helper of a long-running filltop: the screen and the guard drop their privileges
//! once everything is attached, so a separate process, started before, acts for them.
//!
//! The helper owns what it suspends through a socket, and its parent owns the helper: if either exits,
//! every target is resumed immediately.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc as channel;
use tracer_model::action::protect::Protection;
use tracer_model::sanitize::{Charset, display};
use tracer_model::units::Units;

use super::engine::Request;
use super::supervisor::Kept;
use super::{engine, resume, terminate, text};
use tracer_kernel::capabilities;

/// Name of the process.
const NAME: &str = "fill-hands";
/// Interval at which the helper checks its supervisors, and looks for records that have lost theirs.
const LOOK: Duration = Duration::from_millis(200);

/// A request to the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Request number, repeated in the responses.
    pub number: u64,
    /// The command.
    pub what: What,
}

/// A command for the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// Carry out an action.
    Act {
        /// The action and its target.
        request: Box<Request>,
        /// Processes and groups that must not be acted on.
        protection: Protection,
    },
    /// Resume what this id, TARGET or name stands for.
    Resume(String),
}

/// A response of the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the request.
    pub number: u64,
    /// The status.
    pub came: Came,
    /// Whether the target is now suspended, as long as the requester runs.
    pub suspended: bool,
    /// The message.
    pub said: String,
}

/// The status of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// The action was carried out. A suspended target stays so until [`Came::Over`].
    Done,
    /// No process of the target is left, after the action or already before it.
    Ended,
    /// The plan refused the action.
    Refused,
    /// The action failed with an error.
    Failed,
    /// The suspension has ended: the time limit was reached, or the target was resumed.
    Over,
}

/// The connection to a helper process.
pub struct Hands {
    socket: UnixStream,
    last: u64,
}

impl Hands {
    /// Starts the helper. Must be called before privileges are dropped.
    ///
    /// # Errors
    /// If the helper cannot be started.
    pub fn start() -> anyhow::Result<(Self, channel::UnboundedReceiver<Answer>)> {
        let (ours, theirs) = UnixStream::pair()?;
        Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg("hands")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the helper process")?;
        let (sender, receiver) = channel::unbounded_channel();
        let reader = BufReader::new(ours.try_clone()?);
        std::thread::Builder::new().name("hands".to_owned()).spawn(move || {
            // The thread is started before the tracer drops its capabilities, and would keep them.
            if let Err(error) = capabilities::drop_capabilities() {
                tracing::warn!(
                    "cannot drop the capabilities of the helper's reader thread: {error}"
                );
            }
            for line in reader.lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str(&line) else { continue };
                if sender.send(answer).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { socket: ours, last: 0 }, receiver))
    }

    /// Sends a command and returns the request number, which the responses repeat.
    ///
    /// # Errors
    /// If the helper has exited.
    pub fn ask(&mut self, what: What) -> anyhow::Result<u64> {
        self.last += 1;
        let line = serde_json::to_string(&Ask { number: self.last, what })? + "\n";
        self.socket
            .write_all(line.as_bytes())
            .context("the helper process has exited; restart filltop to act")?;
        Ok(self.last)
    }
}

/// Runs the helper process, `filltop hands`: reads requests from its standard input, a socket.
///
/// # Errors
/// If the process was not started by filltop.
pub fn run() -> anyhow::Result<()> {
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    socket.peer_addr().map_err(|_| anyhow!("internal command; use `filltop stop`"))?;
    let _ = rustix::thread::set_name(c"fill-hands");
    capabilities::drop_startup_capabilities().context("cannot drop capabilities")?;
    let (sender, asked) = mpsc::channel();
    let reader = BufReader::new(socket.try_clone()?);
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if let Ok(ask) = serde_json::from_str::<Ask>(&line)
                && sender.send(ask).is_err()
            {
                return;
            }
        }
    });
    let mut held: BTreeMap<u64, Kept> = BTreeMap::new();
    loop {
        match asked.recv_timeout(LOOK) {
            Ok(ask) => {
                let last = held.values().next_back().map(|kept| kept.id.as_str());
                let (answer, kept) = answer(ask, last);
                held.extend(kept.map(|kept| (answer.number, kept)));
                tell(&socket, &answer);
            }
            // Also resumes the targets of other filltop processes whose supervisor and watchdog were
            // killed at the same time.
            Err(mpsc::RecvTimeoutError::Timeout) => {
                resume::sweep_as("the filltop helper");
            }
            // The parent has exited: the supervisors' sockets close with this process.
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        held.retain(|number, kept| {
            let over = !matches!(kept.child.try_wait(), Ok(None));
            if over {
                let said = "the suspension has ended".to_owned();
                let (number, came) = (*number, Came::Over);
                tell(&socket, &Answer { number, came, suspended: false, said });
            }
            !over
        });
    }
}

fn tell(mut socket: &UnixStream, answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default() + "\n";
    // The parent may have exited; the end of the socket shows that, too.
    let _ = socket.write_all(line.as_bytes());
}

/// Carries out a request. `last` is the id of the most recent suspension: a suspended process soon
/// disappears from the tables, so the row on which the operator requests `resume` may be another one.
fn answer(ask: Ask, last: Option<&str>) -> (Answer, Option<Kept>) {
    let number = ask.number;
    let answer = |came, said| Answer { number, came, suspended: false, said };
    match ask.what {
        What::Resume(word) => match resume::resume(match last {
            Some(last) if resume::meant(&word).is_empty() => last,
            _ => &word,
        }) {
            Ok(records) => {
                let names: Vec<String> =
                    records.iter().map(|record| display(&record.name).into_owned()).collect();
                (answer(Came::Done, format!("resumed {}", names.join(", "))), None)
            }
            Err(error) => (answer(Came::Failed, format!("{error:#}")), None),
        },
        What::Act { request, protection } => {
            let prepared = match engine::prepare(*request, &protection) {
                Ok(prepared) => prepared,
                // There is no such process, or it has exited.
                Err(error) => return (answer(Came::Ended, format!("{error:#}")), None),
            };
            let plan = &prepared.plan;
            if !plan.allowed() {
                let came = if plan.processes.is_empty() { Came::Ended } else { Came::Refused };
                return (answer(came, format!("refused: {}", plan.refusal())), None);
            }
            match prepared.carry_out() {
                Ok(mut outcome) => {
                    let said = text::outcome(&outcome, Units::default(), Charset::Unicode);
                    let ended = outcome.ended.as_ref().is_some_and(terminate::Ended::for_good);
                    let came = if ended && !outcome.dry_run { Came::Ended } else { Came::Done };
                    let said = said.trim_end().replace('\n', "; ");
                    let kept = outcome.kept.take();
                    (Answer { suspended: kept.is_some(), ..answer(came, said) }, kept)
                }
                Err(error) => (answer(Came::Failed, format!("{error:#}")), None),
            }
        }
    }
}
