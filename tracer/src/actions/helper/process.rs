//! The helper process itself, `filltop helper`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tracer_model::action::protect::Protection;
use tracer_model::sanitize::{Charset, display};
use tracer_model::units::Units;

use super::protocol::{Command, Request, Response, Status};
use crate::actions::request::StopRequest;
use crate::actions::supervisor::client::SupervisorHandle;
use crate::actions::terminate::TerminateReport;
use crate::actions::{engine, resume, text};
use tracer_kernel::capabilities;

/// Interval at which the helper checks its supervisors, and looks for records that have lost theirs.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the helper process, `filltop helper`: reads requests from its standard input, a socket.
///
/// # Errors
/// If the process was not started by filltop.
pub(crate) fn run() -> anyhow::Result<()> {
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    socket.peer_addr().map_err(|_| anyhow!("internal command; use `filltop stop`"))?;
    rustix::thread::set_name(c"fill-helper")?;
    capabilities::drop_startup_capabilities().context("cannot drop capabilities")?;
    let (sender, requests) = mpsc::channel();
    let reader = BufReader::new(socket.try_clone()?);
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if let Ok(request) = serde_json::from_str::<Request>(&line)
                && sender.send(request).is_err()
            {
                return;
            }
        }
    });
    let mut supervisors: BTreeMap<u64, SupervisorHandle> = BTreeMap::new();
    loop {
        match requests.recv_timeout(CHECK_INTERVAL) {
            Ok(request) => {
                let last = supervisors.values().next_back().map(|handle| handle.id.as_str());
                let (response, supervisor) = respond(request, last);
                supervisors.extend(supervisor.map(|handle| (response.number, handle)));
                send(&socket, &response);
            }
            // Also resumes the targets of other filltop processes whose supervisor and watchdog were
            // killed at the same time.
            Err(mpsc::RecvTimeoutError::Timeout) => {
                resume::reap_orphans_as("the filltop helper");
            }
            // The parent has exited: the supervisors' sockets close with this process.
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        supervisors.retain(|number, handle| {
            let over = !matches!(handle.child.try_wait(), Ok(None));
            if over {
                let message = "the suspension has ended".to_owned();
                let (number, status) = (*number, Status::Over);
                send(&socket, &Response { number, status, suspended: false, message });
            }
            !over
        });
    }
}

fn send(mut socket: &UnixStream, response: &Response) {
    let line = serde_json::to_string(response).unwrap_or_default() + "\n";
    // The parent may have exited; the end of the socket shows that, too.
    let _ = socket.write_all(line.as_bytes());
}

/// Carries out a request. `last` is the id of the most recent suspension: a suspended process soon
/// disappears from the tables, so the row on which the operator requests `resume` may be another one.
fn respond(request: Request, last: Option<&str>) -> (Response, Option<SupervisorHandle>) {
    let number = request.number;
    let response = |status, message| Response { number, status, suspended: false, message };
    match request.command {
        Command::Resume(word) => {
            let word = match last {
                Some(last) if resume::find(&word).is_empty() => last,
                _ => &word,
            };
            let (status, message) = resume_word(word);
            (response(status, message), None)
        }
        Command::Act { request, protection } => {
            let (status, message, supervisor) = act(*request, &protection);
            let suspended = supervisor.is_some();
            (Response { suspended, ..response(status, message) }, supervisor)
        }
    }
}

fn resume_word(word: &str) -> (Status, String) {
    match resume::resume(word) {
        Ok(records) => {
            let names: Vec<String> = records
                .iter()
                .map(|record| display(&record.suspension.name).into_owned())
                .collect();
            (Status::Done, format!("resumed {}", names.join(", ")))
        }
        Err(error) => (Status::Failed, format!("{error:#}")),
    }
}

fn act(
    request: StopRequest,
    protection: &Protection,
) -> (Status, String, Option<SupervisorHandle>) {
    let prepared = match engine::prepare(request, protection) {
        Ok(prepared) => prepared,
        // There is no such process, or it has exited.
        Err(error) => return (Status::Ended, format!("{error:#}"), None),
    };
    let plan = &prepared.plan;
    if !plan.allowed() {
        let status = if plan.processes.is_empty() { Status::Ended } else { Status::Refused };
        return (status, format!("refused: {}", plan.refusal()), None);
    }
    match prepared.carry_out() {
        Ok(mut outcome) => {
            let message = text::outcome(&outcome, Units::default(), Charset::Unicode);
            let ended = outcome.terminated.as_ref().is_some_and(TerminateReport::is_complete);
            let status = if ended && !outcome.dry_run { Status::Ended } else { Status::Done };
            (status, message.trim_end().replace('\n', "; "), outcome.supervisor.take())
        }
        Err(error) => (Status::Failed, format!("{error:#}"), None),
    }
}
