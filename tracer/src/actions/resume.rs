//! Letting go on what is halted: by its keeper if that lives, else by its record.

use std::path::Path;
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
use super::suspend::Brake;
use super::{names, record};
use crate::attribute::groups::cgroup_path::{Place, classify};
use crate::attribute::groups::session;
use tracer_host::process::pidfd::Handle;
use tracer_host::process::stat::{NS_PER_TICK, Stat};
use tracer_host::{cgroup, clock};

/// How long the keeper may take; after that its record is what counts.
const PATIENCE: Duration = Duration::from_secs(3);

/// Lets go on what one record says is halted.
///
/// # Errors
/// What the kernel says.
pub fn release(record: &Record, path: &Path) -> anyhow::Result<()> {
    if let Some(keeper) = Handle::of(record.keeper) {
        keeper.signal(Signal::TERM).context("the keeper cannot be asked")?;
        let start = clock::instant();
        while path.exists() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    record::undo(path).with_context(|| format!("cannot let {} go on", record.name))?;
    Ok(())
}

/// Records that are meant by a word: an id, the word that named the target then, or its name. With a kind before
/// the name, those alone whose cgroup is one of that kind.
#[must_use]
pub fn meant(word: &str) -> Vec<(Record, std::path::PathBuf)> {
    let all = record::all();
    let exact = |record: &Record| record.id == word || record.asked == word;
    if all.iter().any(|(record, _)| exact(record)) {
        return all.into_iter().filter(|(record, _)| exact(record)).collect();
    }
    let (kind, name) = names::kind_and_name(word);
    all.into_iter()
        .filter(|(record, _)| {
            record.name == word
                || record.name == name && kind.is_none_or(|kind| is_of_kind(record, kind))
        })
        .collect()
}

/// Is a record's target in a cgroup of this kind?
fn is_of_kind(record: &Record, kind: GroupKind) -> bool {
    let Scope::Cgroup(dirs) = &record.scope else { return false };
    dirs.iter().any(|dir| match classify(&dir.to_string_lossy()) {
        Place::Container { pod: Some(_), .. } | Place::Pod { .. } => kind == GroupKind::Pod,
        Place::Container { runtime: Some(runtime), .. } => kind == runtime,
        // The path does not tell which.
        Place::Container { .. } => matches!(
            kind,
            GroupKind::Docker | GroupKind::Podman | GroupKind::Containerd | GroupKind::Crio
        ),
        Place::Lxc(_) => kind == GroupKind::Lxc,
        Place::Machine(_) => kind == GroupKind::Machine,
        Place::Unit(_) => kind == GroupKind::Unit,
        Place::Build { .. } | Place::Monitor { .. } | Place::Plain(_) | Place::Root => false,
    })
}

/// Whether a record still says what is so. Between a target's end and its keeper's there is up to a
/// second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// It is halted, slowed down or fenced.
    InForce,
    /// It has ended, and was started again: what runs now is as free as any.
    StartedAgain {
        /// When.
        at: Timestamp,
    },
    /// Nothing of it is left.
    Ended,
    /// Somebody else let it go on.
    LetGo,
}

/// Looks at what a record is about.
#[must_use]
pub fn standing(record: &Record, path: &Path) -> Standing {
    let mine = record.pid_namespace == record::pid_namespace() || record.pid_namespace == 0;
    if let Scope::Cgroup(dirs) = &record.scope {
        let there = record.cgroups.iter().any(|id| id.presence() != Presence::Gone);
        if !record.cgroups.is_empty() && !there {
            let later = dirs.iter().flat_map(|dir| cgroup::processes(dir));
            let started = later.filter_map(session::stat).map(|stat| stat.start_ticks);
            return started.min().map_or(Standing::Ended, |ticks| Standing::StartedAgain {
                at: clock::at_boottime(ticks * NS_PER_TICK),
            });
        }
    }
    // Of those that were stopped by signals; the named ones may have ended before those that they forked.
    let stopped: Vec<Stat> = record::read(path)
        .map(|(_, stopped)| stopped)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|who| Handle::of(who)?.stat())
        .collect();
    if mine && stopped.is_empty() && record.scope.members().is_empty() {
        return Standing::Ended;
    }
    let let_go = record.how == Action::Freeze
        && match &record.brake {
            Brake::Freezer(freezer) => freezer.dir().exists() && !freezer.is_asked(),
            Brake::Signals => {
                mine && !stopped.is_empty() && stopped.iter().all(|stat| stat.state != 'T')
            }
            Brake::Fence(_) => false,
        };
    if let_go { Standing::LetGo } else { Standing::InForce }
}

/// Records of targets that share a process with this one, and are in force.
#[must_use]
pub fn concerning(scope: &Scope) -> Vec<(Record, std::path::PathBuf)> {
    let mut all = record::all();
    all.retain(|(record, _)| record.scope == *scope || record.scope.overlaps(scope));
    all.retain(|(record, path)| {
        matches!(standing(record, path), Standing::InForce | Standing::LetGo)
    });
    all
}

/// Undoes what nobody answers for any more: its keeper and the keeper's second were killed together, as
/// they are by the end of a container. Called by every command that acts and by whatever watches;
/// returns what was let go. Of another pid namespace, whose numbers say nothing here, only what should
/// have ended by now is looked at.
#[must_use]
pub fn sweep() -> Vec<Record> {
    let mut undone = Vec::new();
    let here = record::pid_namespace();
    for (record, path) in record::all() {
        let over = clock::boottime_s() > record.until_boottime_s + 10.0;
        let foreign = record.pid_namespace != 0 && record.pid_namespace != here;
        let alone = !foreign && Handle::of(record.keeper).is_none();
        let reachable = !foreign || matches!(record.brake, Brake::Freezer(_));
        if (alone || over && reachable) && record::undo(&path).is_ok() {
            undone.push(record);
        }
    }
    undone
}

/// The same for who runs for long: audited, because nobody reads what it prints.
pub fn sweep_as(who: &str) -> Vec<Record> {
    let undone = sweep();
    for record in &undone {
        let reason = "it was left without its keeper and its second";
        let mut audit = Audit::new(record.how, &record.name, who.to_owned(), reason);
        audit.what = format!("end of {}", record.how.name());
        audit.id = Some(record.id.clone());
        // It is undone whether or not anybody can be told.
        let _ = audit.write(None);
    }
    undone
}

/// Lets go on all that is meant by a word. Returns what was let go.
///
/// # Errors
/// If nothing is halted under this word; what the kernel says.
pub fn resume(word: &str) -> anyhow::Result<Vec<Record>> {
    let found = meant(word);
    if found.is_empty() {
        let ids: Vec<String> = record::all().into_iter().map(|(record, _)| record.id).collect();
        let halted = if ids.is_empty() { "nothing".to_owned() } else { ids.join(", ") };
        bail!("filltop halts nothing called {word:?}; what it halts: {halted}");
    }
    for (record, path) in &found {
        release(record, path)?;
    }
    Ok(found.into_iter().map(|(record, _)| record).collect())
}
