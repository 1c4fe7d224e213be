//! Space over several looks: where no hook tells of it, it is asked from the filesystem once a second,
//! and by then files have other names, other lengths, or none.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing};

use super::Result;

const LONGER_THAN_A_LOOK: Duration = Duration::from_millis(1_300);
const MIB: u64 = 1 << 20;

/// Renamed, cut, unlinked while open, closed.
fn follows_a_file_to_its_end(fs_type: &str) -> Result {
    need_tracing!();
    let volume = TestVolume::new(fs_type, 400)?;
    let at = |name: &str| volume.path().join(name);
    let filltop = Filltop::start(&[])?;
    let mut file = File::create(at("a"))?;
    let ino = file.metadata()?.ino();
    file.write_all(&vec![7; 8 << 20])?;
    thread::sleep(LONGER_THAN_A_LOOK);
    fs::rename(at("a"), at("b"))?;
    file.set_len(2 << 20)?;
    thread::sleep(LONGER_THAN_A_LOOK);
    fs::remove_file(at("b"))?;
    thread::sleep(LONGER_THAN_A_LOOK);
    drop(file);
    thread::sleep(LONGER_THAN_A_LOOK);
    // It is as it was, and nobody is charged for that.
    let measured = filltop.stop()?;
    let rows = measured.snapshot.paths.iter();
    let row = rows
        .filter(|row| row.ino == ino && Some(row.volume.as_str()) == volume.path().to_str())
        .max_by_key(|row| row.written_bytes)
        .context("no row")?;
    let (allocated, freed) = row.allocated_bytes.zip(row.freed_bytes).context("no space")?;
    ensure!(row.written_bytes == 8 * MIB && row.deleted, "{row:?}");
    ensure!(row.writers == [std::process::id()], "{row:?}");
    // xfs takes some in advance, and gives it back.
    ensure!((8 * MIB..24 * MIB).contains(&allocated) && allocated == freed, "{row:?}");
    Ok(())
}

#[test]
fn a_file_is_followed_to_its_end_on_xfs() -> Result {
    follows_a_file_to_its_end("xfs")
}

#[test]
fn a_file_is_followed_to_its_end_on_btrfs() -> Result {
    follows_a_file_to_its_end("btrfs")
}

#[test]
fn a_file_is_followed_to_its_end_on_tmpfs() -> Result {
    follows_a_file_to_its_end("tmpfs")
}

#[test]
fn a_file_is_followed_to_its_end_on_ext4() -> Result {
    follows_a_file_to_its_end("ext4")
}
