//! Resuming a suspended target: through its supervisor if that is running, otherwise from its record.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use rustix::process::Signal;
use serde::Serialize;
use tracer_model::action::Action;
use tracer_model::snapshot::GroupKind;

use super::audit::Audit;
use super::members::Scope;
use super::pins::Presence;
use super::record::Record;
use super::suspend::SuspendMethod;
use super::{names, record};
use crate::attribute::groups::cgroup_path::{CgroupOwner, classify};
use crate::attribute::groups::session;
use tracer_host::process::pidfd::PidHandle;
use tracer_host::process::stat::{NS_PER_TICK, Stat};
use tracer_host::{cgroup, clock};

/// How long the supervisor may take; after that its record is undone directly.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(3);

/// Resumes the target of one record.
///
/// # Errors
/// System errors.
pub(crate) fn release(record: &Record, path: &Path) -> anyhow::Result<()> {
    if let Some(supervisor) = PidHandle::open_exact(record.supervisor) {
        supervisor.signal(Signal::TERM).context("cannot signal the supervisor")?;
        let start = clock::instant();
        while path.exists() && start.elapsed() < SUPERVISOR_TIMEOUT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    record::undo(path).with_context(|| format!("cannot resume {}", record.suspension.name))?;
    Ok(())
}

/// Finds the records for a word: an id, the TARGET as it was given to `stop`, or the target's name. If
/// the name has a kind as a prefix, only records whose cgroup is of that kind match.
#[must_use]
pub(crate) fn find(word: &str) -> Vec<(Record, PathBuf)> {
    let all = record::all();
    let exact =
        |record: &Record| record.suspension.id == word || record.suspension.argument == word;
    if all.iter().any(|(record, _)| exact(record)) {
        return all.into_iter().filter(|(record, _)| exact(record)).collect();
    }
    let (kind, name) = names::kind_and_name(word);
    all.into_iter()
        .filter(|(record, _)| {
            record.suspension.name == word
                || record.suspension.name == name
                    && kind.is_none_or(|kind| is_of_kind(record, kind))
        })
        .collect()
}

/// Whether the record's target is a cgroup of this kind.
fn is_of_kind(record: &Record, kind: GroupKind) -> bool {
    let Scope::Cgroup(dirs) = &record.suspension.scope else { return false };
    dirs.iter().any(|dir| match classify(&dir.to_string_lossy()) {
        CgroupOwner::Container { pod: Some(_), .. } | CgroupOwner::Pod { .. } => {
            kind == GroupKind::Pod
        }
        CgroupOwner::Container { runtime: Some(runtime), .. } => kind == runtime,
        // The path does not reveal the runtime.
        CgroupOwner::Container { .. } => matches!(
            kind,
            GroupKind::Docker | GroupKind::Podman | GroupKind::Containerd | GroupKind::Crio
        ),
        CgroupOwner::Lxc(_) => kind == GroupKind::Lxc,
        CgroupOwner::Machine(_) => kind == GroupKind::Machine,
        CgroupOwner::Unit(_) => kind == GroupKind::Unit,
        CgroupOwner::Build { .. }
        | CgroupOwner::Monitor { .. }
        | CgroupOwner::Plain(_)
        | CgroupOwner::Root => false,
    })
}

/// The state of a record's target. A record can be out of date, because the supervisor notices the end
/// of the target only after up to a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub(crate) enum RecordState {
    /// The target is frozen, throttled or fenced.
    InForce,
    /// The target has ended and was restarted; the new instance is not suspended.
    #[serde(rename = "started_again")]
    Restarted {
        /// Time of the restart.
        at: Timestamp,
    },
    /// No process of the target is left.
    Ended,
    /// The target was resumed by another program.
    #[serde(rename = "let_go")]
    ResumedElsewhere,
}

/// Determines the state of a record's target.
#[must_use]
pub(crate) fn state(record: &Record, path: &Path) -> RecordState {
    let mine = record.pid_namespace == record::pid_namespace() || record.pid_namespace == 0;
    if let Scope::Cgroup(dirs) = &record.suspension.scope {
        let there = record.suspension.cgroups.iter().any(|id| id.presence() != Presence::Gone);
        if !record.suspension.cgroups.is_empty() && !there {
            let later = dirs.iter().flat_map(|dir| cgroup::processes(dir));
            let started = later.filter_map(session::stat).map(|stat| stat.start_ticks);
            return started.min().map_or(RecordState::Ended, |ticks| RecordState::Restarted {
                at: clock::at_boottime(ticks * NS_PER_TICK),
            });
        }
    }
    // The processes that were stopped by signals: a named process may have exited before its children.
    let stopped: Vec<Stat> = record::read(path)
        .map(|(_, stopped)| stopped)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|who| PidHandle::open_exact(who)?.stat())
        .collect();
    if mine && stopped.is_empty() && record.suspension.scope.members().is_empty() {
        return RecordState::Ended;
    }
    let resumed_elsewhere = record.suspension.how == Action::Freeze
        && match &record.suspension.method {
            SuspendMethod::Freezer(freezer) => freezer.dir().exists() && !freezer.is_requested(),
            SuspendMethod::Signals => {
                mine && !stopped.is_empty() && stopped.iter().all(|stat| stat.state != 'T')
            }
            SuspendMethod::Fence(_) => false,
        };
    if resumed_elsewhere { RecordState::ResumedElsewhere } else { RecordState::InForce }
}

/// Returns the records whose targets share a process with this one, unless they have ended.
#[must_use]
pub(crate) fn overlapping(scope: &Scope) -> Vec<(Record, PathBuf)> {
    let mut all = record::all();
    all.retain(|(record, _)| {
        record.suspension.scope == *scope || record.suspension.scope.overlaps(scope)
    });
    all.retain(|(record, path)| {
        matches!(state(record, path), RecordState::InForce | RecordState::ResumedElsewhere)
    });
    all
}

/// Undoes the records that have lost their supervisor: supervisor and watchdog were killed together, as
/// happens at the end of a container. Called by every command that acts, and regularly by long-running
/// ones. Also undoes a record 10 s after its time limit. The pids of a record from another pid
/// namespace mean nothing here, so such a record is undone only then, and only if it uses a freezer.
/// Returns the undone records.
#[must_use]
pub(crate) fn reap_orphans() -> Vec<Record> {
    let mut undone = Vec::new();
    let here = record::pid_namespace();
    for (record, path) in record::all() {
        let over = clock::boottime_s() > record.until_boottime_s + 10.0;
        let foreign = record.pid_namespace != 0 && record.pid_namespace != here;
        let alone = !foreign && PidHandle::open_exact(record.supervisor).is_none();
        let reachable = !foreign || matches!(record.suspension.method, SuspendMethod::Freezer(_));
        if (alone || over && reachable) && record::undo(&path).is_ok() {
            undone.push(record);
        }
    }
    undone
}

/// Does the same as [`reap_orphans`] for a long-running process, and writes an audit line for each record, because the
/// output of such a process may not be read.
pub(crate) fn reap_orphans_as(who: &str) -> Vec<Record> {
    let undone = reap_orphans();
    for record in &undone {
        let reason = "supervisor and watchdog were killed";
        let audit = Audit::end(
            record.suspension.how,
            &record.suspension.id,
            &record.suspension.name,
            who,
            reason,
        );
        // The record is undone already; a failed audit line changes nothing.
        let _ = audit.write(None);
    }
    undone
}

/// Resumes everything that matches a word, and returns the records.
///
/// # Errors
/// If nothing suspended matches, and system errors.
pub(crate) fn resume(word: &str) -> anyhow::Result<Vec<Record>> {
    let found = find(word);
    if found.is_empty() {
        let ids: Vec<String> =
            record::all().into_iter().map(|(record, _)| record.suspension.id).collect();
        let suspended = if ids.is_empty() { "nothing".to_owned() } else { ids.join(", ") };
        bail!("nothing suspended matches {word:?}; currently suspended: {suspended}");
    }
    release_all(found)
}

/// Resumes what these records are about. One that fails leaves none of the others suspended.
///
/// # Errors
/// All errors in one line, after all the others were resumed.
pub(crate) fn release_all(records: Vec<(Record, PathBuf)>) -> anyhow::Result<Vec<Record>> {
    let mut released = Vec::new();
    let mut errors = Vec::new();
    for (record, path) in records {
        match release(&record, &path) {
            Ok(()) => released.push(record),
            Err(error) => errors.push(format!("{}: {error:#}", record.suspension.id)),
        }
    }
    if errors.is_empty() {
        return Ok(released);
    }
    for record in &released {
        errors.push(format!("{}: resumed", record.suspension.id));
    }
    bail!("{}", errors.join("; "))
}
