//! Reads a recording, oldest Snapshot first.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use tracer_model::snapshot::Snapshot;

use super::segment::Found;
use super::{MAX_SEGMENTS, MAX_SIZE, segment, segment_path};

/// What could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that are not a record, or belong to a damaged one.
    pub garbage_bytes: u64,
    /// Records whose end is missing: filltop was killed, or is still writing.
    pub torn: u64,
}

/// Calls `each` for every intact Snapshot of a recording and its older segments, oldest first, and
/// returns what was damaged. Holds one segment in memory at a time.
///
/// # Errors
/// If the file cannot be read, or contains no intact Snapshot.
pub fn read(file: &Path, mut each: impl FnMut(Snapshot)) -> anyhow::Result<Damage> {
    let mut damage = Damage::default();
    let mut count = 0_u64;
    for age in (0..MAX_SEGMENTS).rev() {
        let path = segment_path(file, age);
        let bytes = match bytes_of(&path) {
            Ok(bytes) => bytes,
            Err(error) if age > 0 && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        segment::decode(&bytes, |found| match found {
            Found::Snapshot(snapshot) => {
                count += 1;
                each(*snapshot);
            }
            Found::Garbage(bytes) => damage.garbage_bytes += bytes as u64,
            Found::Torn(_) => damage.torn += 1,
        });
    }
    if count == 0 {
        bail!(
            "{} is not a filltop recording, or nothing in it is intact; make one with \
             `filltop record --out FILE`",
            file.display()
        );
    }
    Ok(damage)
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if meta.len() > MAX_SIZE {
        return Err(io::Error::other("it is larger than any recording"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
