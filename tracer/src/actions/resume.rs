//! Letting go on what is halted: by its keeper if that lives, else by its record.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::{
    handle::Handle,
    members::Scope,
    record::{self, Record},
};
use crate::clock;

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

/// Records that are meant by a word: an id, the word that named the target then, or its name.
#[must_use]
pub fn meant(word: &str) -> Vec<(Record, std::path::PathBuf)> {
    let mut all = record::all();
    all.retain(|(record, _)| record.id == word || record.asked == word || record.name == word);
    all
}

/// Records of targets that share a process with this one.
#[must_use]
pub fn concerning(scope: &Scope) -> Vec<(Record, std::path::PathBuf)> {
    let mut all = record::all();
    all.retain(|(record, _)| record.scope == *scope || record.scope.overlaps(scope));
    all
}

/// Undoes what nobody answers for any more: its keeper and the keeper's second were killed together.
/// Called by every command that acts; returns what was let go.
#[must_use]
pub fn sweep() -> Vec<Record> {
    let mut undone = Vec::new();
    for (record, path) in record::all() {
        let over = clock::boottime_s() > record.until_boottime_s + 10.0;
        if (Handle::of(record.keeper).is_none() || over) && record::undo(&path).is_ok() {
            undone.push(record);
        }
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
