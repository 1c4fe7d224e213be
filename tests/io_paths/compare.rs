//! Compares the truth of each way with filltop's row of its file.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use filltop_tests::Measured;
use serde::Deserialize;
use tracer_model::snapshot::{BlindSpotKind, PathRow};

use crate::expected::{Verdict, expected};

/// The workload's report on one way: `io_paths::WayTruth` there.
#[derive(Deserialize, Debug)]
pub struct WayTruth {
    pub name: String,
    pub path: PathBuf,
    pub ino: u64,
    pub pid: u32,
    pub written: u64,
    pub allocated: u64,
    pub freed: u64,
    pub approximate: bool,
    pub supported: bool,
    pub why_not: Option<String>,
}

/// Where the ways were performed.
pub struct Place<'a> {
    /// The filesystem's name in the table.
    pub fs: &'a str,
    /// Mount point of the volume to which space must be charged.
    pub volume: &'a Path,
    /// The directory as the workload saw it.
    pub seen: &'a Path,
    /// The same directory as the host sees it: a different one behind an overlay.
    pub host: PathBuf,
    /// The reader's name in the `WAY` lines; empty: the backend's.
    pub by: &'a str,
}

/// filltop's figures for a file.
#[derive(Default)]
struct Figures {
    rows: usize,
    written: u64,
    allocated: Option<u64>,
    freed: Option<u64>,
    approximate: bool,
    writers: Vec<u32>,
}

/// Prints a `WAY` line for each way, and fails if any differs from what is expected.
pub fn compare(measured: &Measured, truths: &[WayTruth], place: &Place<'_>) -> anyhow::Result<()> {
    let backend = &measured.snapshot.backend;
    let kernel = &series(&backend.kernel);
    let label =
        std::env::var("FILLTOP_BACKEND").unwrap_or_else(|_| backend.write.name().to_owned());
    let shown = if place.by.is_empty() { &label } else { place.by };
    let mut surprises = Vec::new();
    for truth in truths {
        let way = &truth.name;
        let start = format!("WAY {kernel} {} {way} {shown}", place.fs);
        if !truth.supported {
            println!("{start} unsupported ({})", truth.why_not.as_deref().unwrap_or_default());
            continue;
        }
        let found = figures(measured, truth, place);
        let verdict = if way == "mmap" && counts_folios(measured) {
            judge_folios(truth, &found)
        } else {
            judge(truth, &found, is_sampled(measured, place.volume))
        };
        let shown = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
        println!(
            "{start} {} written={}/{} allocated={}/{} freed={}/{}",
            verdict.name(),
            found.written,
            truth.written,
            shown(found.allocated),
            truth.allocated,
            shown(found.freed),
            truth.freed,
        );
        let (expected, reason) = expected(kernel, place.fs, way, &label);
        if expected != verdict {
            surprises.push(format!(
                "{way}: {}, expected {} ({reason}); {} rows, writers {:?}, not {}",
                verdict.name(),
                expected.name(),
                found.rows,
                found.writers,
                truth.pid
            ));
        }
    }
    ensure!(surprises.is_empty(), "{}", surprises.join("\n"));
    Ok(())
}

/// `6.1` of `6.1.0-44-cloud-amd64`, `6.1-generic` of `6.1.0-44-amd64`, which has ext4 in a module.
fn series(release: &str) -> String {
    let end = release.match_indices(['.', '-']).nth(1).map_or(release.len(), |(at, _)| at);
    let generic = release.ends_with("-amd64") && !release.contains("cloud");
    let flavour = if generic { "-generic" } else { "" };
    format!("{}{flavour}", &release[..end])
}

fn figures(measured: &Measured, truth: &WayTruth, place: &Place<'_>) -> Figures {
    let mut figures = Figures::default();
    for row in measured.snapshot.paths.iter().filter(|row| is_of(row, truth, place)) {
        figures.rows += 1;
        figures.written += row.written_bytes;
        figures.allocated = row.allocated_bytes.map(|n| n + figures.allocated.unwrap_or(0));
        figures.freed = row.freed_bytes.map(|n| n + figures.freed.unwrap_or(0));
        figures.approximate |= row.approximate;
        figures.writers.extend(&row.writers);
    }
    if figures.rows == 0 {
        // filltop knows of no change to the file; where space is traced, that counts as 0.
        let volume = place.volume.to_str();
        let row =
            measured.snapshot.volumes.iter().find(|row| Some(row.mount_point.as_str()) == volume);
        let traced = row.is_some_and(|row| row.allocated_bytes.is_some());
        figures.allocated = traced.then_some(0);
        figures.freed = traced.then_some(0);
    }
    figures
}

/// Finds the file's row by its inode and its path on the host. The inode number alone is not
/// enough, because numbers are reused; a file that never had a name has no path to compare.
fn is_of(row: &PathRow, truth: &WayTruth, place: &Place<'_>) -> bool {
    if row.ino != truth.ino || Some(row.volume.as_str()) != place.volume.to_str() {
        return false;
    }
    match truth.path.strip_prefix(place.seen) {
        Ok(name) if !name.as_os_str().is_empty() => Path::new(&row.path) == place.host.join(name),
        _ => !row.path.contains("/way-"),
    }
}

/// Whether the volume's space is sampled from its filesystem, according to filltop.
pub fn is_sampled(measured: &Measured, volume: &Path) -> bool {
    let snapshot = &measured.snapshot;
    let volume = volume.to_str();
    let row = snapshot.volumes.iter().find(|row| Some(row.mount_point.as_str()) == volume);
    row.is_some_and(|row| snapshot.backend.sampled_fs_types.contains(&row.fs_type))
}

/// Whether stores through mappings are counted per folio, according to filltop.
fn counts_folios(measured: &Measured) -> bool {
    measured.snapshot.backend.blind_spot_kinds.contains(&BlindSpotKind::MmapByFolio)
}

const FEW_BLOCKS: u64 = 64 << 10;

fn net((allocated, freed): (Option<u64>, Option<u64>)) -> i64 {
    allocated.unwrap_or(0).cast_signed() - freed.unwrap_or(0).cast_signed()
}

fn judge_folios(truth: &WayTruth, found: &Figures) -> Verdict {
    if found.rows == 0 {
        return Verdict::Missed;
    }
    let written = truth.written..=truth.written.max(truth.allocated);
    let space = net((found.allocated, found.freed))
        .abs_diff(net((Some(truth.allocated), Some(truth.freed))));
    let told = found.rows == 1 && found.approximate && found.writers == [truth.pid];
    if told && written.contains(&found.written) && space <= FEW_BLOCKS {
        Verdict::Folios
    } else {
        Verdict::Wrong
    }
}

fn judge(truth: &WayTruth, found: &Figures, sampled: bool) -> Verdict {
    let nothing =
        found.written == 0 && found.allocated.unwrap_or(0) == 0 && found.freed.unwrap_or(0) == 0;
    if nothing && truth.written + truth.allocated + truth.freed > 0 {
        return Verdict::Missed;
    }
    let net_truth = net((Some(truth.allocated), Some(truth.freed)));
    let found_space = (found.allocated, found.freed);
    let space = match found_space {
        (None, None) => None,
        space if truth.approximate => Some(net(space).abs_diff(net_truth) <= FEW_BLOCKS),
        space => Some(space == (Some(truth.allocated), Some(truth.freed))),
    };
    let credited = found.written == 0 || found.writers == [truth.pid];
    if found.rows > 1 || !credited || (space == Some(false) && !sampled) {
        return Verdict::Wrong;
    }
    if sampled {
        let as_told =
            found.written == truth.written && net(found_space).abs_diff(net_truth) <= FEW_BLOCKS;
        return if as_told { Verdict::Sampled } else { Verdict::Wrong };
    }
    match space {
        None if found.written == truth.written => Verdict::Written,
        Some(true) if found.written == truth.written => {
            if found.approximate || truth.approximate {
                Verdict::Approximate
            } else {
                Verdict::Exact
            }
        }
        Some(true) if found.written == 0 && truth.allocated + truth.freed > 0 => Verdict::Space,
        _ => Verdict::Wrong,
    }
}
