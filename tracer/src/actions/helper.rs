//! The hands of a filltop that runs for long: the screen and the guard give up their privileges once
//! everything is attached, so that a process of its own, started before, acts for them.
//!
//! What it halts hangs on it by a lifeline, and it hangs on whoever started it: if either dies, all
//! that is halted goes on at once.

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
/// How often it is looked whether what is halted still is, and whether somebody answers for all that
/// anybody halted.
const LOOK: Duration = Duration::from_millis(200);

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Comes back with the answer.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What can be wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// A step.
    Act {
        /// Which, and whom.
        request: Box<Request>,
        /// Whom never.
        protection: Protection,
    },
    /// Letting go what a word means.
    Resume(String),
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The number of what was asked.
    pub number: u64,
    /// What became of it.
    pub came: Came,
    /// Is the target suspended by it, for as long as whoever asked is there?
    pub suspended: bool,
    /// In words.
    pub said: String,
}

/// What became of something that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// It was done. What is halted stays so until [`Came::Over`].
    Done,
    /// It was done, or there was nothing to do, and nothing of the target is left.
    Ended,
    /// The plan refused it.
    Refused,
    /// The kernel would not.
    Failed,
    /// What was halted by it is so no more: its time is over, or somebody let it go.
    Over,
}

/// The other end of the hands.
pub struct Hands {
    socket: UnixStream,
    last: u64,
}

impl Hands {
    /// Starts them. To be called before privileges are given up.
    ///
    /// # Errors
    /// If they cannot be started.
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
            .context("cannot start the process that acts")?;
        let (sender, receiver) = channel::unbounded_channel();
        let reader = BufReader::new(ours.try_clone()?);
        std::thread::Builder::new().name("hands".to_owned()).spawn(move || {
            // It was started before the tracer gives them up, and would keep them.
            if let Err(error) = capabilities::drop_capabilities() {
                tracing::warn!("the thread that reads answers keeps its capabilities: {error}");
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

    /// Asks for something; the number comes back with the answers.
    ///
    /// # Errors
    /// If the hands are gone.
    pub fn ask(&mut self, what: What) -> anyhow::Result<u64> {
        self.last += 1;
        let line = serde_json::to_string(&Ask { number: self.last, what })? + "\n";
        self.socket
            .write_all(line.as_bytes())
            .context("the process that acts is gone: start filltop again to act")?;
        Ok(self.last)
    }
}

/// The process that `filltop hands` is: takes what is asked from its standard input, a socket.
///
/// # Errors
/// If it was not started by filltop.
pub fn run() -> anyhow::Result<()> {
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    socket.peer_addr().map_err(|_| anyhow!("filltop starts this by itself; use `filltop stop`"))?;
    // SAFETY: the name is a C string of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"fill-hands".as_ptr()) };
    capabilities::drop_startup_capabilities().context("cannot give up capabilities")?;
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
            // Also what others halted, whose keeper and second were killed in the same instant.
            Err(mpsc::RecvTimeoutError::Timeout) => {
                resume::sweep_as("filltop's hands");
            }
            // Whoever asked is gone: the lifelines end with this process.
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        held.retain(|number, kept| {
            let over = !matches!(kept.child.try_wait(), Ok(None));
            if over {
                let said = "what was halted goes on".to_owned();
                let (number, came) = (*number, Came::Over);
                tell(&socket, &Answer { number, came, suspended: false, said });
            }
            !over
        });
    }
}

fn tell(mut socket: &UnixStream, answer: &Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default() + "\n";
    // Whoever asked may be gone: the end of the socket says so, too.
    let _ = socket.write_all(line.as_bytes());
}

/// Does it. `last` is what was halted last: who stands still is soon in no table any more, so that the
/// row on which somebody asks to let go may be another's.
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
                (answer(Came::Done, format!("{} goes on", names.join(", "))), None)
            }
            Err(error) => (answer(Came::Failed, format!("{error:#}")), None),
        },
        What::Act { request, protection } => {
            let prepared = match engine::prepare(*request, &protection) {
                Ok(prepared) => prepared,
                // There is no such process (any more).
                Err(error) => return (answer(Came::Ended, format!("{error:#}")), None),
            };
            let plan = &prepared.plan;
            if !plan.allowed() {
                let came = if plan.processes.is_empty() { Came::Ended } else { Came::Refused };
                return (answer(came, format!("not done: {}", plan.refusal())), None);
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
