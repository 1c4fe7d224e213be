//! Single hard cases: full volumes, reused numbers, volumes on volumes, compression.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, Truth, need_tracing, run_workload, workload};
use tracer_model::snapshot::BlindSpotKind;

use crate::{
    Result, calls_were_skipped, credited_to_the_requester, explained, nothing_lost, perform, wanted,
};

/// The last write before a volume is full succeeds only in part.
#[test]
fn a_short_write_counts_the_bytes_written() -> Result {
    need_tracing!();
    const BLOCK: u64 = 1_000_003;
    for (fs, mib) in [("ext4", 50), ("xfs", 320), ("btrfs", 128), ("tmpfs", 20)] {
        if !wanted(fs) {
            continue;
        }
        let volume = TestVolume::new(fs, mib)?;
        let filltop = Filltop::start(&[])?;
        let path = volume.path().join("fills");
        let block = BLOCK.to_string();
        let truth = run_workload(workload().arg("fill").arg(&path).args(["--block", &block]))?;
        let measured = filltop.stop()?;
        if truth.total() % BLOCK == 0 {
            println!("no write to {fs} was cut short: whole or not at all");
        }
        if calls_were_skipped(&measured) {
            continue;
        }
        let row = measured.path(&path)?;
        ensure!(
            row.written_bytes == truth.total(),
            "{fs}: {} of {}; lost: {:?}",
            row.written_bytes,
            truth.total(),
            measured.snapshot.backend.lost
        );
        ensure!(row.written_bytes == fs::metadata(&path)?.len());
        let writer = measured.writers_of(truth.pid).next().context("no writer")?;
        ensure!(writer.errors.enospc >= truth.errors["ENOSPC"], "{fs}: {:?}", writer.errors);
    }
    Ok(())
}

/// One inode number, two files: two rows.
#[test]
fn reused_inode_numbers_are_distinguished() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&[])?;
    let (first, second) = (volume.path().join("first"), volume.path().join("second"));
    fs::write(&first, vec![1; 100_000])?;
    let number = fs::metadata(&first)?.ino();
    fs::remove_file(&first)?;
    fs::write(&second, vec![2; 200_000])?;
    let again = fs::metadata(&second)?.ino();
    let measured = filltop.stop()?;
    ensure!(number == again, "nothing was tested: ext4 assigned {again} instead of {number}");
    let (first, second) = (measured.path(&first)?, measured.path(&second)?);
    ensure!(first.ino == number && second.ino == number);
    ensure!((first.written_bytes, first.deleted) == (100_000, true), "{first:?}");
    ensure!((second.written_bytes, second.deleted) == (200_000, false), "{second:?}");
    ensure!(first.allocated_bytes == first.freed_bytes, "{first:?}");
    nothing_lost(&measured)
}

/// One pid, two processes: two rows.
#[test]
fn reused_pids_are_distinguished() -> Result {
    need_tracing!();
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    if !Path::new(LAST).exists() {
        println!("SKIP reused_pids_are_distinguished: this kernel has no {LAST}");
        return Ok(());
    }
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&[])?;
    let write = |name: &str, bytes: &str| -> anyhow::Result<(PathBuf, Truth)> {
        let path = volume.path().join(name);
        let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", bytes]))?;
        Ok((path, truth))
    };
    let (first, one) = write("first", "100000")?;
    let mut other = None;
    // Other programs start processes too, and may be faster.
    for attempt in 0..50 {
        fs::write(LAST, (one.pid - 1).to_string())?;
        let (path, truth) = write(&format!("second-{attempt}"), "200000")?;
        if truth.pid == one.pid {
            other = Some(path);
            break;
        }
    }
    let measured = filltop.stop()?;
    let Some(second) = other else {
        println!("SKIP reused_pids_are_distinguished: the pid was never reused");
        return Ok(());
    };
    let mut rows: Vec<_> =
        measured.writers_of(one.pid).map(|row| (row.written_bytes, row.files)).collect();
    rows.sort_unstable();
    ensure!(rows == [(100_000, 1), (200_000, 1)], "{rows:?}");
    ensure!(measured.path(&first)?.written_bytes == 100_000);
    ensure!(measured.path(&second)?.written_bytes == 200_000);
    nothing_lost(&measured)
}

/// Space that compression saves is not growth: it shows when the data is written back, and is still
/// attributed to the writer.
#[test]
fn compressed_btrfs_is_explained() -> Result {
    need_tracing!();
    if !wanted("btrfs") {
        println!("SKIP compressed_btrfs_is_explained: not in FILLTOP_TEST_FS");
        return Ok(());
    }
    let volume = TestVolume::with_options("btrfs", 400, "compress=zstd")?;
    let filltop = Filltop::start(&[])?;
    let truths = perform(volume.path())?;
    let measured = filltop.stop()?;
    explained(&measured, "btrfs", volume.path())?;
    credited_to_the_requester(&measured, &truths, volume.path())
}

/// The inner volume's writer is the process; the outer one's is a kernel worker.
#[test]
fn a_loop_device_is_credited_on_both_volumes() -> Result {
    need_tracing!();
    let outer = TestVolume::new("ext4", 400)?;
    let inner = TestVolume::in_image(outer.path(), "ext4", 64)?;
    let filltop = Filltop::start(&[])?;
    let truths = perform_write(inner.path())?;
    let measured = filltop.stop()?;
    let row = measured.path(&inner.path().join("way-write"))?;
    ensure!(row.written_bytes == truths[0].written, "{row:?}");
    ensure!(row.writers == [truths[0].pid], "{row:?}");
    if kernel_is_unseen(&measured, "a_loop_device_is_credited_on_both_volumes") {
        return Ok(());
    }
    let image = measured.path(&outer.path().join("image"))?;
    // Data and metadata, all of it written by the worker.
    ensure!(image.written_bytes >= truths[0].written, "{image:?}");
    ensure!(!image.writers.contains(&truths[0].pid), "{image:?}");
    for pid in &image.writers {
        let worker = measured.writers_of(*pid).next().context("no row for the worker")?;
        let known = worker.comm.starts_with("loop") || worker.comm.starts_with("kworker");
        ensure!(known, "{} wrote to the image", worker.comm);
    }
    nothing_lost(&measured)
}

/// Where filltop reports that the kernel's own writes are not counted, there must be no row.
fn kernel_is_unseen(measured: &Measured, test: &str) -> bool {
    let is_unseen =
        measured.snapshot.backend.blind_spot_kinds.contains(&BlindSpotKind::KernelWrites);
    if is_unseen {
        println!("SKIP {test}: writes by the kernel itself are not counted here");
    }
    is_unseen
}

fn perform_write(dir: &Path) -> anyhow::Result<Vec<crate::WayTruth>> {
    let output = workload().arg("ways").arg(dir).args(["--only", "write"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The kernel writes on behalf of a process that dies.
#[test]
fn a_core_dump_is_attributed_to_its_process() -> Result {
    need_tracing!();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let pattern = pattern.trim();
    if pattern.starts_with(['|', '/']) || pattern.contains('%') {
        println!("SKIP a_core_dump_is_attributed_to_its_process: core_pattern is {pattern}");
        return Ok(());
    }
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&[])?;
    let script = "ulimit -c unlimited; kill -ABRT $$";
    let mut child = Command::new("sh").args(["-c", script]).current_dir(volume.path()).spawn()?;
    let status = child.wait()?;
    let measured = filltop.stop()?;
    if !status.core_dumped() {
        println!("SKIP a_core_dump_is_attributed_to_its_process: {status}, without a core");
        return Ok(());
    }
    let core = fs::read_dir(volume.path())?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"core"))
        })
        .context("no core file")?;
    if kernel_is_unseen(&measured, "a_core_dump_is_attributed_to_its_process") {
        return Ok(());
    }
    let row = measured.path(&core)?;
    let meta = fs::metadata(&core)?;
    // Untouched pages are left out as holes.
    ensure!(row.written_bytes > 0 && row.written_bytes <= meta.len(), "{row:?}");
    let blocks = meta.blocks() * 512;
    // A core has holes; ext4 may add one block for its extents when it is written back.
    let extents = 4096;
    ensure!(
        row.allocated_bytes.is_none_or(|bytes| bytes == blocks || bytes + extents == blocks),
        "not {blocks}: {row:?}"
    );
    ensure!(row.writers == [child.id()], "not written by {}: {row:?}", child.id());
    nothing_lost(&measured)
}
