//! What is halted, by whom, until when: one file each under /run/filltop/actions, so that `resume`
//! finds it and the second process can undo it.
//!
//! First line: the [`Record`]. Each further line: a process that is about to be sent SIGSTOP, written
//! before the signal is. /run is memory: a full disk does not stand in the way.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tracer_model::action::Action;

use super::members::Scope;
use super::pins::{CgroupId, Pins, Presence};
use super::suspend::Brake;
use tracer_host::cgroup::Freezer;
use tracer_host::process::pidfd::{Handle, Identity, is_gone};

/// Where records are kept; `FILLTOP_RUN_DIR` for tests that must not see each other's.
#[must_use]
pub fn directory() -> PathBuf {
    let base = std::env::var_os("FILLTOP_RUN_DIR").map(PathBuf::from);
    base.unwrap_or_else(|| PathBuf::from("/run/filltop")).join("actions")
}

/// Something that is halted or slowed down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What `resume` can be given, e.g. `freeze-3f2a`.
    pub id: String,
    /// The word of the command line that named it.
    pub asked: String,
    /// The name that people use for it.
    pub name: String,
    /// `freeze`, `throttle` or `fence`.
    pub how: Action,
    /// Bytes per second of a throttle.
    pub rate: Option<u64>,
    /// Whom.
    pub scope: Scope,
    /// With what.
    pub brake: Brake,
    /// The cgroups of both, told from later ones with the same paths.
    #[serde(default)]
    pub cgroups: Vec<CgroupId>,
    /// Inode number of the pid namespace whose numbers the record has; 0 if not known.
    #[serde(default)]
    pub pid_namespace: u64,
    /// Who answers for it.
    pub keeper: Identity,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself, seconds since boot.
    pub until_boottime_s: f64,
}

/// An open record.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    file: File,
}

impl RecordFile {
    /// Writes a record where there is none with this id.
    ///
    /// # Errors
    /// If it cannot be written: then nothing must be halted.
    pub fn create(record: &Record) -> io::Result<Self> {
        let dir = directory();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let path = dir.join(&record.id);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(line(record)?.as_bytes())?;
        Ok(Self { path, file })
    }

    /// Adds a process that is about to be stopped.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, identity: Identity) -> io::Result<()> {
        self.file.write_all(line(&identity)?.as_bytes())
    }

    /// Nothing is halted any more.
    pub fn remove(self) {
        let _ = fs::remove_file(self.path);
    }
}

fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// All records, oldest first. One that cannot be read (cut short) is left out.
#[must_use]
pub fn all() -> Vec<(Record, PathBuf)> {
    let entries = fs::read_dir(directory()).into_iter().flatten().flatten();
    let mut records: Vec<_> =
        entries.filter_map(|entry| Some((read(&entry.path())?.0, entry.path()))).collect();
    records.sort_by_key(|(record, _)| (record.since, record.id.clone()));
    records
}

/// A record and the processes that were stopped; a last line that was cut is ignored: its process
/// was not yet stopped.
#[must_use]
pub fn read(path: &Path) -> Option<(Record, Vec<Identity>)> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let record = serde_json::from_str(lines.next()?).ok()?;
    let stopped = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    Some((record, stopped))
}

/// Lets go what a record says is halted, and removes it. Returns the processes that were let go by a
/// signal. For whoever answers once the keeper does not.
///
/// # Errors
/// What the kernel says; the record then stays.
pub fn undo(path: &Path) -> io::Result<usize> {
    let Some((record, stopped)) = read(path) else { return Ok(0) };
    let mut count = 0;
    match &record.brake {
        // It ends with the process that holds it; one that hangs is made to.
        Brake::Fence(_) => {
            let keeper = Handle::of(record.keeper);
            if let Some(keeper) = keeper.filter(|k| k.identity.pid != std::process::id())
                && let Err(error) = keeper.signal(Signal::KILL)
                && !is_gone(&error)
            {
                return Err(error);
            }
        }
        Brake::Freezer(freezer) => thaw(&record, freezer)?,
        Brake::Signals => {
            for identity in stopped.iter().rev() {
                let Some(handle) = Handle::of(*identity) else { continue };
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

/// Thaws the cgroup that was frozen, and no later one with its path.
fn thaw(record: &Record, freezer: &Freezer) -> io::Result<()> {
    let Some(id) = record.cgroups.iter().find(|id| id.dir == freezer.dir()) else {
        return freezer.set(false);
    };
    let dir = match id.presence() {
        Presence::At(dir) => dir,
        Presence::Gone => return Ok(()),
        Presence::Hidden => return Err(io::Error::other("its cgroup cannot be seen from here")),
    };
    let here = CgroupId { dir, ..id.clone() };
    let Ok(pins) = Pins::open(std::slice::from_ref(&here)) else { return Ok(()) };
    match freezer {
        Freezer::V2(_) => Freezer::V2(pins.path(&here.dir)),
        Freezer::V1(_) => Freezer::V1(pins.path(&here.dir)),
    }
    .set(false)
}

/// Inode number of this process's pid namespace; 0 if /proc does not tell.
#[must_use]
pub fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// An id that nobody else has: `freeze-3f2a`.
///
/// # Errors
/// If the kernel gives no random numbers.
pub fn new_id(how: Action) -> io::Result<String> {
    let mut bytes = [0u8; 3];
    // SAFETY: the pointer and the length are those of `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != 3 {
        return Err(io::Error::last_os_error());
    }
    Ok(format!("{}-{:02x}{:02x}{:02x}", how.name(), bytes[0], bytes[1], bytes[2]))
}
