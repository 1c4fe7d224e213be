//! Ending a target: SIGTERM once to each of its processes, or SIGKILL until none is left.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::executor::Hands;
use super::members::{Scope, Table, Tracker};
use super::suspend::Brake;
use tracer_host::cgroup::{Freezer, Hierarchies};
use tracer_host::clock;
use tracer_host::process::pidfd::{Handle, Identity, is_gone};

/// How long is waited for those that were signalled to end.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// The file of a cgroup v2 that kills all in it (Linux 5.14).
pub const KILL_FILE: &str = "cgroup.kill";

/// What ending came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Processes that were signalled.
    pub signalled: usize,
    /// Those that are still there, `pid (state)`.
    pub left: Vec<String>,
    /// Processes of the same unit, container or pod that run again; `None` where nobody is known to
    /// start it again, so that it was not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back: Option<Vec<u32>>,
}

impl Ended {
    /// Is nothing of the target left, and did nothing of it come back?
    #[must_use]
    pub fn for_good(&self) -> bool {
        self.left.is_empty() && self.back.as_ref().is_none_or(Vec::is_empty)
    }
}

/// The cgroup that can be killed as one: it holds exactly the target.
#[must_use]
pub fn kill_file(scope: &Scope, hierarchies: &Hierarchies) -> Option<PathBuf> {
    let Brake::Freezer(Freezer::V2(dir)) = Brake::choose(scope, hierarchies) else { return None };
    Some(dir.join(KILL_FILE)).filter(|file| file.exists())
}

/// Sends SIGTERM to each process and waits a while for them to end. `thaw` is called once all are
/// signalled: what stands still cannot end.
///
/// # Errors
/// What the kernel says.
pub fn terminate(
    scope: &Scope,
    hands: &mut dyn Hands,
    thaw: &mut dyn FnMut(),
) -> io::Result<Ended> {
    let mut tracker = Tracker::new(scope.clone());
    let (table, members) = tracker.look();
    let mut signalled = 0;
    for identity in &members {
        signalled += usize::from(send(*identity, &table, Signal::TERM, hands)?);
    }
    if !hands.dry() {
        thaw();
        wait_for_end(&members);
    }
    Ok(Ended { signalled, left: left(&members, hands), back: None })
}

/// Sends SIGKILL until nobody is left: by `file`, a cgroup.kill, if there is one, else to each, those that fork first, and to
/// every child that one of them got away meanwhile. `thaw` is called in the end: what the freezer of
/// cgroup v1 holds cannot even die.
///
/// # Errors
/// What the kernel says.
pub fn kill(
    scope: &Scope,
    file: Option<&Path>,
    hands: &mut dyn Hands,
    thaw: &mut dyn FnMut(),
) -> io::Result<Ended> {
    let mut tracker = Tracker::new(scope.clone());
    tracker.listen();
    let mut all = BTreeSet::new();
    if let Some(file) = file {
        all.extend(tracker.look().1);
        hands.write(file, "1")?;
    } else {
        let start = clock::instant();
        let mut quiet = 0;
        while quiet < 2 && start.elapsed() < PATIENCE {
            let (table, members) = tracker.look();
            let new: Vec<Identity> = members.into_iter().filter(|who| !all.contains(who)).collect();
            quiet = if new.is_empty() { quiet + 1 } else { 0 };
            for identity in new {
                // One that left its session while its parent ended is looked at again.
                if send(identity, &table, Signal::KILL, hands)? {
                    all.insert(identity);
                }
            }
            if hands.dry() {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    let all: Vec<Identity> = all.into_iter().collect();
    if !hands.dry() {
        thaw();
        wait_for_end(&all);
    }
    Ok(Ended { signalled: all.len(), left: left(&all, hands), back: None })
}

fn send(
    identity: Identity,
    table: &Table,
    signal: Signal,
    hands: &mut dyn Hands,
) -> io::Result<bool> {
    let seen = table.get(&identity.pid);
    let Some(handle) = seen.and_then(|seen| Handle::seen(identity, seen)) else {
        return Ok(false);
    };
    match hands.signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn wait_for_end(members: &[Identity]) {
    wait(members, PATIENCE);
}

/// Waits for the end of processes that somebody else was asked to end; those that are still there then,
/// `pid (state)`.
#[must_use]
pub fn outlasted(members: &[Identity], patience: Duration) -> Vec<String> {
    wait(members, patience);
    left_of(members)
}

fn wait(members: &[Identity], patience: Duration) {
    let start = clock::instant();
    while start.elapsed() < patience && members.iter().any(|who| Handle::of(*who).is_some()) {
        std::thread::sleep(LOOK);
    }
}

fn left(members: &[Identity], hands: &dyn Hands) -> Vec<String> {
    if hands.dry() { Vec::new() } else { left_of(members) }
}

fn left_of(members: &[Identity]) -> Vec<String> {
    members
        .iter()
        .filter_map(|identity| Handle::of(*identity)?.stat().map(|stat| (identity.pid, stat)))
        .map(|(pid, stat)| format!("{pid} ({}, state {})", stat.comm, stat.state))
        .collect()
}
