//! Written bytes per process and per file equal the truth to the byte, with every backend.

mod files;
mod held;
mod inodes;
mod limits;
mod names;
mod overlays;
mod refusals;
mod sampled;
mod samples;

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, Truth, need_tracing, run_workload, workload};

type Result<T = ()> = anyhow::Result<T>;

/// One process: its row and the rows of all its files equal what it did, and nothing was lost.
fn check(measured: &Measured, truth: &Truth) -> Result {
    let writers: Vec<_> = measured.writers_of(truth.pid).collect();
    ensure!(writers.len() == 1, "{} rows for the writer {}", writers.len(), truth.pid);
    ensure!(
        writers[0].written_bytes == truth.total(),
        "writer: {} of {} bytes",
        writers[0].written_bytes,
        truth.total()
    );
    ensure!(writers[0].files == truth.written.len() as u64, "files: {}", writers[0].files);
    for (path, bytes) in &truth.written {
        let row = measured.path(path)?;
        ensure!(row.written_bytes == *bytes, "{path:?}: {} of {bytes} bytes", row.written_bytes);
        ensure!(row.writers == [truth.pid], "{path:?}: written by {:?}", row.writers);
    }
    nothing_lost(measured)
}

fn nothing_lost(measured: &Measured) -> Result {
    let backend = &measured.snapshot.backend;
    ensure!(backend.lost_events == 0, "lost {} events", backend.lost_events);
    ensure!(backend.unattributed_bytes == 0, "{} bytes unattributed", backend.unattributed_bytes);
    Ok(())
}

#[test]
fn one_file_of_500_mb() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 560)?;
    let filltop = Filltop::start(&[])?;
    let path = volume.path().join("big");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "500000000"]))?;
    let measured = filltop.stop()?;
    check(&measured, &truth)?;
    let writer = measured.writers_of(truth.pid).next().context("checked above")?;
    ensure!(writer.comm == "filltop-workloa", "comm is {}", writer.comm);
    ensure!(writer.volume == volume.path().to_str().context("UTF-8")?);
    let cost = measured.snapshot.backend.overhead_ns_per_write;
    ensure!(cost.is_some_and(|ns| ns > 0.0), "own cost per write: {cost:?}");
    Ok(())
}

#[test]
fn dd_is_measured_to_the_byte() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 560)?;
    let path = volume.path().join("dd.out");
    let filltop = Filltop::start(&[])?;
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=123457", "count=4000"])
        .arg(format!("of={}", path.display()))
        .stderr(Stdio::null())
        .status();
    let measured = filltop.stop()?;
    if status.is_err() {
        println!("SKIP dd_is_measured_to_the_byte: dd is not installed");
        return Ok(());
    }
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == 123_457 * 4000, "{} bytes", row.written_bytes);
    let writer = measured.writers_of(row.writers[0]).next().context("no writer")?;
    ensure!(writer.comm == "dd" || writer.comm == "busybox", "comm is {}", writer.comm);
    ensure!(!writer.alive, "dd has ended");
    nothing_lost(&measured)
}

#[test]
fn a_thousand_files_by_one_process() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let filltop = Filltop::start(&[])?;
    let truth = run_workload(
        workload().arg("many").arg(volume.path()).args(["--files", "1000", "--bytes", "100000"]),
    )?;
    check(&filltop.stop()?, &truth)
}

#[test]
fn two_hundred_processes_that_live_for_milliseconds() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 320)?;
    let filltop = Filltop::start(&[])?;
    let truth = run_workload(workload().arg("spawn").arg(volume.path()).args([
        "--processes",
        "200",
        "--bytes",
        "1000000",
    ]))?;
    let measured = filltop.stop()?;
    let own = workload();
    for (pid, (path, bytes)) in truth.children.iter().zip(&truth.written) {
        let row = measured.path(path)?;
        ensure!(row.written_bytes == *bytes, "{path:?}: {} bytes", row.written_bytes);
        ensure!(row.writers == [*pid], "{path:?}: {:?}, not {pid}", row.writers);
        let writer = measured.writers_of(*pid).next().context("no row for a short process")?;
        ensure!(writer.written_bytes == *bytes && !writer.alive);
        ensure!(writer.comm == "filltop-workloa", "comm is {}", writer.comm);
        let cmdline = writer.cmdline.as_deref().context("no command line")?;
        ensure!(cmdline.contains("write --block 65536 --bytes 1000000"), "{cmdline}");
        ensure!(cmdline.ends_with(path.to_str().context("UTF-8")?), "{cmdline}");
        let exe = writer.exe.as_deref().context("no executable")?;
        ensure!(exe.ends_with("filltop-workload"), "{exe} is not {:?}", own.get_program());
        ensure!(writer.uid == 0, "uid is {}", writer.uid);
    }
    nothing_lost(&measured)
}

#[test]
fn two_processes_in_one_file() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let path = volume.path().join("shared");
    let filltop = Filltop::start(&[])?;
    let spawn = |bytes: &str| {
        workload()
            .args(["write", "--append", "--wait", "--block", "5000", "--bytes", bytes])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut children = [spawn("20000000")?, spawn("30000000")?];
    for child in &mut children {
        child.stdin.take().context("piped")?.write_all(b"go\n")?;
    }
    for child in &mut children {
        ensure!(child.wait()?.success());
    }
    let measured = filltop.stop()?;
    ensure!(measured.path(&path)?.written_bytes == 50_000_000);
    for (child, bytes) in children.iter().zip([20_000_000, 30_000_000]) {
        let writer = measured.writers_of(child.id()).next().context("no row")?;
        ensure!(writer.written_bytes == bytes, "{} of {bytes}", writer.written_bytes);
        ensure!(measured.path(&path)?.writers.contains(&child.id()));
    }
    nothing_lost(&measured)
}

#[test]
fn pipes_sockets_terminals_and_dev_null_do_not_appear() -> Result {
    need_tracing!();
    // With vfs_write hooked as well, these writes pass that hook and must be ignored there.
    for arguments in [&[][..], &["--hooks", "vfs_write"][..]] {
        let filltop = Filltop::start(arguments)?;
        let truth = run_workload(workload().args(["not-files", "--bytes", "10000000"]))?;
        let measured = filltop.stop()?;
        ensure!(measured.writers_of(truth.pid).count() == 0, "it appears as a writer");
        nothing_lost(&measured)?;
    }
    Ok(())
}

#[test]
fn bytes_are_counted_once_with_vfs_write_hooked() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&["--hooks", "vfs_write"])?;
    let path = volume.path().join("once");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "7654321"]))?;
    check(&filltop.stop()?, &truth)
}

#[test]
fn a_write_that_fails_adds_nothing_and_is_an_error() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 50)?;
    let filltop = Filltop::start(&[])?;
    let path = volume.path().join("fills");
    let truth = run_workload(workload().arg("fill").arg(&path))?;
    let measured = filltop.stop()?;
    check(&measured, &truth)?;
    let writer = measured.writers_of(truth.pid).next().context("checked above")?;
    ensure!(writer.errors.enospc == truth.errors["ENOSPC"], "{:?}", writer.errors);
    ensure!(measured.snapshot.victims.iter().any(|victim| victim.pid == truth.pid));
    let mount_point = volume.path().to_str().context("UTF-8")?;
    let row = measured.snapshot.volumes.iter().find(|row| row.mount_point == mount_point);
    let row = row.context("no row for the volume")?;
    ensure!(row.full && row.avail_bytes == 0 && row.eta_s == Some(0.0), "{row:?}");
    Ok(())
}
