//! Records of suspended targets: one file each under /run/filltop/actions, so that `resume` finds it
//! and the watchdog can undo it.
//!
//! First line: the [`Record`]. Each further line: a process that is about to get SIGSTOP, written
//! before the signal is sent. /run is in memory, so a full disk does not matter.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::Signal;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use tracer_model::action::Action;

use super::members::Scope;
use super::pins::{CgroupId, Pins, Presence};
use super::suspend::SuspendMethod;
use tracer_host::cgroup::Freezer;
use tracer_host::process::pidfd::{PidHandle, ProcessId, is_gone};

/// Returns the directory of the records. `FILLTOP_RUN_DIR` overrides /run/filltop, for tests that must
/// not see each other's records.
#[must_use]
pub(crate) fn directory() -> PathBuf {
    let base = std::env::var_os("FILLTOP_RUN_DIR").map(PathBuf::from);
    base.unwrap_or_else(|| PathBuf::from("/run/filltop")).join("actions")
}

/// A freeze, throttle or fence: the target and the method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Suspension {
    /// Id for `filltop resume`, e.g. `freeze-3f2a91`.
    pub id: String,
    /// TARGET as it was given to `stop`.
    #[serde(rename = "asked")]
    pub argument: String,
    /// Name of the target.
    pub name: String,
    /// `freeze`, `throttle` or `fence`.
    pub how: Action,
    /// Rate of a throttle, bytes per second.
    pub rate: Option<u64>,
    /// The target's processes.
    pub scope: Scope,
    /// The method.
    #[serde(rename = "brake")]
    pub method: SuspendMethod,
    /// The cgroups of target and method as they were when the target was found, with inode numbers to
    /// distinguish them from later ones.
    #[serde(default)]
    pub cgroups: Vec<CgroupId>,
}

/// The record of a suspension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The target and the method.
    #[serde(flatten)]
    pub suspension: Suspension,
    /// Inode number of the pid namespace of the record's pids; 0 if unknown.
    #[serde(default)]
    pub pid_namespace: u64,
    /// The supervisor process.
    #[serde(rename = "keeper")]
    pub supervisor: ProcessId,
    /// When the action began.
    pub since: Timestamp,
    /// Time limit, seconds since boot.
    pub until_boottime_s: f64,
}

/// A record that is open for appending.
#[derive(Debug)]
pub(crate) struct RecordFile {
    path: PathBuf,
    file: File,
}

impl RecordFile {
    /// Creates the record file, which must not exist yet.
    ///
    /// # Errors
    /// If it cannot be written; nothing may be suspended then.
    pub(crate) fn create(record: &Record) -> io::Result<Self> {
        let dir = directory();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let path = dir.join(&record.suspension.id);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(line(record)?.as_bytes())?;
        Ok(Self { path, file })
    }

    /// Appends a process that is about to be stopped.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn add(&mut self, identity: ProcessId) -> io::Result<()> {
        self.file.write_all(line(&identity)?.as_bytes())
    }

    /// Removes the record, once nothing is suspended any more.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(self.path);
    }
}

fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Returns all records, oldest first. Unreadable (truncated) ones are left out.
#[must_use]
pub(crate) fn all() -> Vec<(Record, PathBuf)> {
    let entries = fs::read_dir(directory()).into_iter().flatten().flatten();
    let mut records: Vec<_> =
        entries.filter_map(|entry| Some((read(&entry.path())?.0, entry.path()))).collect();
    records.sort_by_key(|(record, _)| (record.since, record.suspension.id.clone()));
    records
}

/// Reads a record and the processes that were stopped. An incomplete last line is ignored, because its
/// process was not stopped yet.
#[must_use]
pub(crate) fn read(path: &Path) -> Option<(Record, Vec<ProcessId>)> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let record = serde_json::from_str(lines.next()?).ok()?;
    let stopped = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    Some((record, stopped))
}

/// Resumes what a record lists and removes the record. Returns the number of processes that were
/// resumed with a signal. Called by the supervisor, and in its place once it no longer runs.
///
/// # Errors
/// System errors; the record then remains.
pub(crate) fn undo(path: &Path) -> io::Result<usize> {
    let Some((record, stopped)) = read(path) else { return Ok(0) };
    let mut count = 0;
    match &record.suspension.method {
        // A fence ends with its supervisor; a supervisor that hangs is killed.
        SuspendMethod::Fence(_) => {
            let supervisor = PidHandle::open_exact(record.supervisor);
            if let Some(supervisor) =
                supervisor.filter(|process| process.identity.pid != std::process::id())
                && let Err(error) = supervisor.signal(Signal::KILL)
                && !is_gone(&error)
            {
                return Err(error);
            }
        }
        SuspendMethod::Freezer(freezer) => thaw(&record, freezer)?,
        SuspendMethod::Signals => {
            for identity in stopped.iter().rev() {
                let Some(handle) = PidHandle::open_exact(*identity) else { continue };
                match handle.signal(Signal::CONT) {
                    Ok(()) => count += 1,
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(count),
    }
}

/// Thaws the cgroup that was frozen, but not a later one at the same path.
fn thaw(record: &Record, freezer: &Freezer) -> io::Result<()> {
    let Some(id) = record.suspension.cgroups.iter().find(|id| id.dir == freezer.dir()) else {
        return freezer.set(false);
    };
    let dir = match id.presence() {
        Presence::At(dir) => dir,
        Presence::Gone => return Ok(()),
        Presence::Hidden => return Err(io::Error::other("its cgroup is not visible from here")),
    };
    let here = CgroupId { dir, ..id.clone() };
    let Ok(pins) = Pins::open(std::slice::from_ref(&here)) else { return Ok(()) };
    match freezer {
        Freezer::V2(_) => Freezer::V2(pins.path(&here.dir)),
        Freezer::V1(_) => Freezer::V1(pins.path(&here.dir)),
    }
    .set(false)
}

/// Returns the inode number of this process's pid namespace; 0 if it cannot be read.
#[must_use]
pub(crate) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// Creates a random id, e.g. `freeze-3f2a91`.
///
/// # Errors
/// Those of getrandom(2).
pub(crate) fn new_id(how: Action) -> io::Result<String> {
    let mut bytes = [0u8; 3];
    // Up to 256 bytes are always filled completely, getrandom(2).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(format!("{}-{:02x}{:02x}{:02x}", how.name(), bytes[0], bytes[1], bytes[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record file is read by other versions of filltop: its keys must not change.
    #[test]
    fn keys_of_a_record_are_stable() {
        let line = r#"{"id":"freeze-3f2a91","asked":"web","name":"web","how":"freeze","rate":null,"scope":{"tree":[{"pid":70,"start_ticks":7,"inode":9}]},"brake":{"freezer":{"v2":"/sys/fs/cgroup/web"}},"cgroups":[{"dir":"/sys/fs/cgroup/web","inode":18446744073709551615,"device":3,"namespace":4}],"pid_namespace":5,"keeper":{"pid":71,"start_ticks":8},"since":"2026-11-21T00:00:00Z","until_boottime_s":1234.5}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        assert_eq!(record.supervisor.pid, 71);
        assert_eq!(serde_json::to_string(&record).unwrap(), line);
    }
}
