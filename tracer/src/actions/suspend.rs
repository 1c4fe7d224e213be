//! Halting and letting go: a cgroup's freezer where one holds exactly the target, else SIGSTOP of
//! everybody until no new child escapes. Or keeping off one volume only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::executor::Hands;
use super::fence::Wall;
use super::members::{Scope, Table, Tracker};
use tracer_host::cgroup::{Freezer, Hierarchies};
use tracer_host::process::pidfd::{Handle, Identity, is_gone};
use tracer_host::{cgroup, clock};
use tracer_kernel::fence::{Fence, FenceCounts};

/// How long halting may take before what still runs is reported.
const PATIENCE: Duration = Duration::from_millis(900);
/// Between two looks at who still runs.
const LOOK: Duration = Duration::from_millis(1);

/// With what a target is halted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Brake {
    /// A cgroup's freezer.
    Freezer(Freezer),
    /// SIGSTOP to each.
    Signals,
    /// Nobody is halted: what takes space on one volume fails.
    Fence(Wall),
}

impl Brake {
    /// The one that holds exactly these processes. A cgroup that holds others, too, is not touched.
    #[must_use]
    pub fn choose(scope: &Scope, hierarchies: &Hierarchies) -> Self {
        let freezer = match scope {
            Scope::Alone(_) | Scope::Tree(_) => around(scope, hierarchies),
            Scope::Cgroup(dirs) => freezer_at(dirs, hierarchies),
        };
        freezer.map_or(Self::Signals, Self::Freezer)
    }

    /// In words, for plans and audit lines.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Freezer(Freezer::V2(dir)) => format!("cgroup v2 freezer {}", dir.display()),
            Self::Freezer(Freezer::V1(dir)) => format!("cgroup v1 freezer {}", dir.display()),
            Self::Signals => "SIGSTOP to each process until no new child escapes".to_owned(),
            Self::Fence(wall) => wall.words(),
        }
    }
}

/// The directory of the cgroup v2 that holds exactly these processes.
#[must_use]
pub fn cgroup_v2(scope: &Scope, hierarchies: &Hierarchies) -> Option<std::path::PathBuf> {
    match Brake::choose(scope, hierarchies) {
        Brake::Freezer(Freezer::V2(dir)) => Some(dir),
        _ => None,
    }
}

/// The freezer of a cgroup that holds all of these processes and nobody else.
fn around(scope: &Scope, hierarchies: &Hierarchies) -> Option<Freezer> {
    let members: BTreeSet<u32> = scope.members().into_iter().map(|identity| identity.pid).collect();
    let places: BTreeSet<_> = members.iter().map(|pid| Hierarchies::of_process(*pid)).collect();
    let only = |paths: BTreeSet<Option<String>>| match paths.into_iter().collect::<Vec<_>>()[..] {
        [Some(ref path)] if path != "/" => Some(path.trim_start_matches('/').to_owned()),
        _ => None,
    };
    let holds_just_them = |dir: &Path| {
        let inside = cgroup::processes(dir);
        !inside.is_empty() && inside == members
    };
    let v2 = only(places.iter().map(|(v2, _)| v2.clone()).collect())
        .and_then(|path| Some(hierarchies.v2.as_ref()?.join(path)))
        .filter(|dir| cgroup::is_writable(&dir.join("cgroup.freeze")) && holds_just_them(dir));
    let v1 = only(places.iter().map(|(_, v1)| v1.clone()).collect())
        .and_then(|path| Some(hierarchies.freezer.as_ref()?.join(path)))
        .filter(|dir| cgroup::is_writable(&dir.join("freezer.state")) && holds_just_them(dir));
    v2.map(Freezer::V2).or(v1.map(Freezer::V1))
}

/// The freezer among the directories of one cgroup: the one whose directory holds all that any of
/// them holds.
fn freezer_at(dirs: &[std::path::PathBuf], hierarchies: &Hierarchies) -> Option<Freezer> {
    let all: BTreeSet<u32> = dirs.iter().flat_map(|dir| cgroup::processes(dir)).collect();
    let fits = |dir: &&std::path::PathBuf| !all.is_empty() && cgroup::processes(dir) == all;
    let v2 = dirs.iter().find(|dir| {
        hierarchies.v2.as_ref().is_some_and(|at| dir.starts_with(at) && *dir != at)
            && cgroup::is_writable(&dir.join("cgroup.freeze"))
            && fits(dir)
    });
    let v1 = || {
        dirs.iter().find(|dir| {
            hierarchies.freezer.as_ref().is_some_and(|at| dir.starts_with(at) && *dir != at)
                && cgroup::is_writable(&dir.join("freezer.state"))
                && fits(dir)
        })
    };
    v2.cloned().map(Freezer::V2).or_else(|| v1().cloned().map(Freezer::V1))
}

/// A freezer holds a cgroup, and a process of the target was in another by then.
#[derive(Debug, thiserror::Error)]
#[error("{0} left its cgroup while that was being frozen")]
pub struct Escaped(u32);

impl Escaped {
    /// Is that what went wrong?
    #[must_use]
    pub fn is(error: &anyhow::Error) -> bool {
        let error = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        matches!(error, Some(error) if error.is::<Self>())
    }
}

/// What halting came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Halted {
    /// Processes that stand still.
    pub processes: usize,
    /// Milliseconds until they did.
    pub took_ms: f64,
    /// What does not stand still yet, or can be let go by somebody else; a sentence each.
    pub notes: Vec<String>,
}

/// Halts one target, once or in turn with letting it go.
pub struct Halter {
    tracker: Tracker,
    brake: Brake,
    /// Those that were sent SIGSTOP by us. Whoever stood still before is not among them.
    stopped: BTreeMap<Identity, Handle>,
    /// Those that somebody else had stopped.
    others: BTreeSet<Identity>,
    /// Did a freezer hold all of it once?
    held: bool,
    /// What is in force.
    fence: Option<Fence>,
}

impl Halter {
    /// For a target.
    #[must_use]
    pub fn new(scope: Scope, brake: Brake) -> Self {
        Self {
            tracker: Tracker::new(scope),
            brake,
            stopped: BTreeMap::new(),
            others: BTreeSet::new(),
            held: false,
            fence: None,
        }
    }

    /// Halts it. `before` is told of each process before it is stopped by a signal, so that a record
    /// of it is there whatever happens next.
    ///
    /// # Errors
    /// What the kernel says, and what `before` says; what was stopped until then stays in the record.
    pub fn halt(
        &mut self,
        hands: &mut dyn Hands,
        before: &mut dyn FnMut(Identity) -> io::Result<()>,
    ) -> io::Result<Halted> {
        let start = clock::instant();
        let (processes, notes) = match self.brake.clone() {
            Brake::Freezer(freezer) => self.freeze(&freezer, hands)?,
            Brake::Signals => self.stop_all(hands, before)?,
            Brake::Fence(wall) => (self.fence(&wall, hands)?, Vec::new()),
        };
        Ok(Halted { processes, took_ms: start.elapsed().as_secs_f64() * 1e3, notes })
    }

    /// Lets it go on: those that we stopped, children first.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release(&mut self, hands: &mut dyn Hands) -> io::Result<()> {
        match &self.brake {
            Brake::Freezer(freezer) => {
                let (file, word) = freezer.order(false);
                match hands.write(&file, word) {
                    Err(error) if cgroup::is_removed(&error) => Ok(()),
                    result => result,
                }
            }
            Brake::Signals => {
                self.others.clear();
                for handle in std::mem::take(&mut self.stopped).values().rev() {
                    match hands.signal(handle, Signal::CONT) {
                        Err(error) if !is_gone(&error) => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            }
            Brake::Fence(_) => {
                self.fence = None;
                Ok(())
            }
        }
    }

    /// What the fence did, while it is in force.
    #[must_use]
    pub fn tally(&self) -> Option<FenceCounts> {
        self.fence.as_ref().map(Fence::counts)
    }

    /// Its processes now.
    #[must_use]
    pub fn members(&mut self) -> Vec<Identity> {
        match &self.brake {
            // Much less to read than all of /proc, and throttling asks often.
            Brake::Freezer(freezer) => cgroup::processes(freezer.dir())
                .into_iter()
                .map(|pid| Identity { pid, start_ticks: 0 })
                .collect(),
            Brake::Signals | Brake::Fence(_) => self.tracker.look().1,
        }
    }

    fn fence(&mut self, wall: &Wall, hands: &mut dyn Hands) -> io::Result<usize> {
        let failed = |error: anyhow::Error| io::Error::other(format!("{error:#}"));
        let mut fence = wall.load().map_err(failed)?;
        hands.fence(&mut fence, wall)?;
        let count = wall.enclose(&mut fence, &mut self.tracker)?;
        self.fence = Some(fence);
        Ok(count)
    }

    fn freeze(
        &mut self,
        freezer: &Freezer,
        hands: &mut dyn Hands,
    ) -> io::Result<(usize, Vec<String>)> {
        let (file, word) = freezer.order(true);
        let start = clock::instant();
        hands.write(&file, word)?;
        while !hands.dry() && !freezer.is_frozen() {
            if start.elapsed() > PATIENCE {
                let count = cgroup::processes(freezer.dir()).len();
                return Ok((count, vec![self.unfrozen()]));
            }
            std::thread::sleep(LOOK);
            // Version 1 may need to be asked again: a task that was being forked was missed.
            if matches!(freezer, Freezer::V1(_)) {
                hands.write(&file, word)?;
            }
        }
        let inside = cgroup::processes(freezer.dir());
        // Nobody moves himself once he is frozen; somebody may have done so right before. Looked at
        // once: throttling comes by here many times a second.
        if !hands.dry() && !std::mem::replace(&mut self.held, true) {
            let (_, members) = self.tracker.look();
            if let Some(member) = members.iter().find(|member| !inside.contains(&member.pid)) {
                return Err(io::Error::other(Escaped(member.pid)));
            }
        }
        Ok((inside.len(), Vec::new()))
    }

    fn unfrozen(&mut self) -> String {
        let waiting: Vec<String> = self
            .members()
            .iter()
            .filter(|identity| {
                Handle::open(identity.pid).is_some_and(|(_, stat)| stat.state == 'D')
            })
            .map(|identity| identity.pid.to_string())
            .collect();
        format!(
            "the kernel has not yet halted all of it (in uninterruptible sleep: {}): they stand \
             still as soon as they return from the kernel",
            if waiting.is_empty() { "none seen".to_owned() } else { waiting.join(", ") }
        )
    }

    fn stop_all(
        &mut self,
        hands: &mut dyn Hands,
        before: &mut dyn FnMut(Identity) -> io::Result<()>,
    ) -> io::Result<(usize, Vec<String>)> {
        self.tracker.listen();
        let start = clock::instant();
        let mut quiet = 0;
        loop {
            let (table, members) = self.tracker.look();
            let new: Vec<Identity> = members
                .iter()
                .filter(|who| !self.stopped.contains_key(who) && !self.others.contains(who))
                .copied()
                .collect();
            for identity in &new {
                self.stop_one(*identity, &table, hands, before)?;
            }
            let running: Vec<String> = self.running();
            if new.is_empty() && running.is_empty() {
                quiet += 1;
            } else {
                quiet = 0;
            }
            // Two looks in a row: /proc is read one process after another.
            if quiet == 2 || hands.dry() {
                break;
            }
            if start.elapsed() > PATIENCE {
                return Ok((self.stopped.len(), running));
            }
            if new.is_empty() {
                std::thread::sleep(LOOK);
            }
        }
        let mut notes = Vec::new();
        if self.tracker.is_deaf() {
            notes.push(
                "forks were not heard of (no process connector here): a child that left its \
                 session while its parent ended may have escaped"
                    .to_owned(),
            );
        }
        for identity in self.stopped.keys() {
            notes.extend(tracer_note(identity.pid));
        }
        Ok((self.stopped.len() + self.others.len(), notes))
    }

    fn stop_one(
        &mut self,
        identity: Identity,
        table: &Table,
        hands: &mut dyn Hands,
        before: &mut dyn FnMut(Identity) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(seen) = table.get(&identity.pid) else { return Ok(()) };
        let Some(handle) = Handle::seen(identity, seen) else {
            // Gone is fine, and one that left its session while its parent ended is looked at again; one
            // that is left out because there are too many would escape.
            return if Handle::open(std::process::id()).is_none() {
                Err(io::Error::other("more processes than this filltop may open descriptors for"))
            } else {
                Ok(())
            };
        };
        if seen.state == 'T' {
            self.others.insert(identity);
            return Ok(());
        }
        before(identity)?;
        match hands.signal(&handle, Signal::STOP) {
            Ok(()) => {
                self.stopped.insert(identity, handle);
                Ok(())
            }
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Those that were sent SIGSTOP and do not stand still, a sentence each.
    fn running(&self) -> Vec<String> {
        self.stopped
            .values()
            .filter_map(|handle| {
                let stat = handle.stat()?;
                let (pid, state) = (handle.identity.pid, stat.state);
                match state {
                    'T' | 't' => None,
                    'D' => Some(format!(
                        "{pid} is in uninterruptible sleep: it stands still as soon as it returns \
                         from the kernel"
                    )),
                    _ => Some(format!("{pid} still runs (state {state})")),
                }
            })
            .collect()
    }
}

/// A process that is traced can be let go by its tracer.
fn tracer_note(pid: u32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim();
    (tracer != "0").then(|| format!("{pid} is traced by {tracer}, which can let it go on"))
}
