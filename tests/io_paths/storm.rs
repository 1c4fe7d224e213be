//! Storms: totals stay exact whatever the size of the breakdown. Smaller in virtual machines, which
//! emulate their processor.

use std::env;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, Truth, need_tracing, run_workload, workload};
use tracer_model::snapshot::Writer;

use crate::{Result, calls_were_skipped};

fn size(native: u32, emulated: u32) -> String {
    if env::var_os("FILLTOP_IN_VM").is_some() { emulated } else { native }.to_string()
}

/// Every byte is in a row or in the remainder; what has no row is reported. Returns false where the
/// kernel skipped calls and filltop reported it: then there is nothing to compare.
fn total_is_exact(measured: &Measured, written: u64, truth: &Truth) -> anyhow::Result<bool> {
    let backend = &measured.snapshot.backend;
    println!(
        "STORM files={} written={written} unattributed={} lost={:?}",
        truth.written.len(),
        backend.unattributed_bytes,
        backend.lost
    );
    let total = truth.total();
    if written <= total && calls_were_skipped(measured) {
        return Ok(false);
    }
    ensure!(
        written + backend.unattributed_bytes == total,
        "{written} + {} of {total} bytes",
        backend.unattributed_bytes
    );
    Ok(true)
}

#[test]
fn a_hundred_thousand_files_by_one_process() -> Result {
    need_tracing!();
    // mkfs creates one inode per 16 KiB.
    let volume =
        TestVolume::new("ext4", if env::var_os("FILLTOP_IN_VM").is_some() { 400 } else { 1800 })?;
    let filltop = Filltop::start(&["--top", "1000000"])?;
    let truth = run_workload(workload().arg("many").arg(volume.path()).args([
        "--files",
        &size(100_000, 10_000),
        "--bytes",
        "1000",
    ]))?;
    let measured = filltop.stop()?;
    let writer = measured.writers_of(truth.pid).next().context("no writer")?;
    if !total_is_exact(&measured, writer.written_bytes, &truth)? {
        return Ok(());
    }
    for (path, bytes) in truth.written.iter().take(10) {
        ensure!(measured.path(path)?.written_bytes == *bytes);
    }
    Ok(())
}

/// A storm of small writers on a volume of its own: the truth, and the rows of the writers, whose
/// sum is exact. `None` where the kernel skipped calls and filltop reported it.
fn storm(how: &[&str]) -> anyhow::Result<Option<(Truth, Vec<Writer>)>> {
    let volume = TestVolume::new("ext4", 400)?;
    let filltop = Filltop::start(&["--top", "1000000"])?;
    let mut work = workload();
    let truth = run_workload(work.args(how).args(["--bytes", "1000"]).arg(volume.path()))?;
    let measured = filltop.stop()?;
    let mount_point = volume.path().to_str().context("UTF-8")?;
    let writers = measured.snapshot.writers.iter().filter(|row| row.volume == mount_point);
    let writers: Vec<Writer> = writers.cloned().collect();
    let written = writers.iter().map(|row| row.written_bytes).sum();
    Ok(total_is_exact(&measured, written, &truth)?.then_some((truth, writers)))
}

/// No pid lives long enough to be looked up, and parents exit after their children.
#[test]
fn a_fork_bomb() -> Result {
    need_tracing!();
    let Some((truth, writers)) = storm(&["bomb", "--generations", &size(12, 8)])? else {
        return Ok(());
    };
    ensure!(writers.len() == truth.written.len(), "{} rows", writers.len());
    ensure!(writers.iter().all(|row| row.written_bytes == 1000));
    Ok(())
}

/// All at the same time, and each of them has a row.
#[test]
fn ten_thousand_simultaneous_writers() -> Result {
    need_tracing!();
    each_has_a_row(&["spawn", "--at-once", "--processes", &size(10_000, 200)])
}

#[test]
fn ten_thousand_processes() -> Result {
    need_tracing!();
    each_has_a_row(&["spawn", "--processes", &size(10_000, 500)])
}

fn each_has_a_row(how: &[&str]) -> Result {
    let Some((truth, writers)) = storm(how)? else { return Ok(()) };
    ensure!(writers.len() == truth.children.len(), "{} rows", writers.len());
    Ok(())
}
