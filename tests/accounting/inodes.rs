//! Created and removed inodes of each process: files, directories and links, by every call.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, need_tracing, workload};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tracer_model::snapshot::{WriteBackend, Writer};

use super::Result;
use super::held::Holder;

/// The row of a process on a volume.
fn row<'m>(measured: &'m Measured, pid: u32, volume: &Path) -> anyhow::Result<&'m Writer> {
    let mut rows = measured.writers_of(pid);
    rows.find(|row| Path::new(&row.volume) == volume)
        .with_context(|| format!("no row for {pid}: {:?}", measured.snapshot.writers))
}

/// Creates 47 inodes in a directory, and removes 19 of them.
fn come_and_go(dir: &Path) -> Result {
    for n in 0..30 {
        File::create(dir.join(format!("file-{n}")))?;
        // It exists now.
        File::create(dir.join(format!("file-{n}")))?;
    }
    for n in 0..10 {
        fs::create_dir(dir.join(format!("dir-{n}")))?;
    }
    for n in 0..5 {
        symlink("nowhere", dir.join(format!("link-{n}")))?;
    }
    for n in 0..2 {
        let pipe = dir.join(format!("pipe-{n}"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0)?;
    }
    ensure!(fs::create_dir(dir.join("dir-0")).is_err() && fs::remove_dir(dir.join("no")).is_err());
    for n in 0..12 {
        fs::remove_file(dir.join(format!("file-{n}")))?;
    }
    for n in 0..4 {
        fs::remove_dir(dir.join(format!("dir-{n}")))?;
    }
    for n in 0..3 {
        fs::remove_file(dir.join(format!("link-{n}")))?;
    }
    Ok(())
}

/// Waits until the kernel has evicted what was removed: on ext4, tracepoints report it only then.
fn settle() {
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(200));
}

fn inodes_are_counted_on(fs_type: &str) -> Result {
    need_tracing!();
    let volume = TestVolume::new(fs_type, 300)?;
    let dir = volume.path().join("a queue");
    fs::create_dir(&dir)?;
    let filltop = Filltop::start(&[])?;
    come_and_go(&dir)?;
    // Processes that are gone when their paths are looked up.
    let mut by_name = Command::new("mkdir").arg("sub").current_dir(&dir).spawn()?;
    let mut by_path = Command::new("mkdir").arg(dir.join("other")).spawn()?;
    ensure!(by_name.wait()?.success() && by_path.wait()?.success());
    settle();
    let measured = filltop.stop()?;
    super::nothing_lost(&measured)?;
    let own = row(&measured, std::process::id(), volume.path())?;
    let counted = (own.inodes_created, own.inodes_removed);
    ensure!(counted == (Some(47), Some(19)), "{counted:?}");
    for child in [by_name, by_path] {
        let child = row(&measured, child.id(), volume.path())?;
        ensure!(child.inodes_created == Some(1) && child.comm == "mkdir", "{child:?}");
    }
    let mount = volume.path().to_str().context("UTF-8")?;
    let groups = measured.snapshot.groups.iter().filter(|row| row.volume == mount);
    let (created, removed) =
        groups.fold((0, 0), |sum, row| (sum.0 + row.files_created, sum.1 + row.files_removed));
    ensure!((created, removed) == (49, 19), "{created} and {removed}");
    let volume = measured.snapshot.volumes.iter().find(|row| row.mount_point == mount);
    let delta = volume.context("no volume")?.inodes_delta;
    // xfs and btrfs have no fixed number of inodes, and report what space is left for.
    ensure!(!["ext4", "tmpfs"].contains(&fs_type) || delta == 49 - 19, "{delta} inodes");
    let top = measured.snapshot.dirs.iter().find(|row| row.path == mount).context("no row")?;
    ensure!(top.files_created == Some(49), "{top:?}");
    Ok(())
}

#[test]
fn inodes_are_counted_on_ext4() -> Result {
    inodes_are_counted_on("ext4")
}

#[test]
fn inodes_are_counted_on_xfs() -> Result {
    inodes_are_counted_on("xfs")
}

#[test]
fn inodes_are_counted_on_btrfs() -> Result {
    inodes_are_counted_on("btrfs")
}

#[test]
fn inodes_are_counted_on_tmpfs() -> Result {
    inodes_are_counted_on("tmpfs")
}

/// A file that is replaced by another one loses its last name, too.
fn replaced_on(fs_type: &str) -> Result {
    need_tracing!();
    let volume = TestVolume::new(fs_type, 300)?;
    let at = |name: &str| volume.path().join(name);
    fs::write(at("state"), "0")?;
    fs::create_dir(at("empty"))?;
    let filltop = Filltop::start(&[])?;
    for n in 0..20 {
        fs::write(at("state.new"), n.to_string())?;
        fs::rename(at("state.new"), at("state"))?;
    }
    fs::create_dir(at("full"))?;
    fs::rename(at("full"), at("empty"))?;
    // Not removed: it has another name, or keeps its own.
    fs::hard_link(at("state"), at("state.old"))?;
    fs::rename(at("state"), at("state.2"))?;
    settle();
    let measured = filltop.stop()?;
    let own = row(&measured, std::process::id(), volume.path())?;
    let by_tracepoints = measured.snapshot.backend.write == WriteBackend::Tracepoint;
    let removed = if by_tracepoints && fs_type != "ext4" { None } else { Some(21) };
    let counted = (own.inodes_created, own.inodes_removed);
    ensure!(counted == (Some(21), removed), "{counted:?}");
    Ok(())
}

#[test]
fn replaced_files_are_removed_on_ext4() -> Result {
    replaced_on("ext4")
}

#[test]
fn replaced_files_are_removed_on_xfs() -> Result {
    replaced_on("xfs")
}

#[test]
fn replaced_files_are_removed_on_tmpfs() -> Result {
    replaced_on("tmpfs")
}

/// Many more directories than the kernel side's table of processes and directories has entries for a
/// moment: all are counted, or the loss is reported.
#[test]
fn a_storm_of_directories_is_counted() -> Result {
    need_tracing!();
    let volume = TestVolume::new("tmpfs", 300)?;
    let filltop = Filltop::start(&[])?;
    let start = Instant::now();
    for n in 0..20_000 {
        fs::create_dir(volume.path().join(n.to_string()))?;
    }
    println!("20,000 directories in {:?}", start.elapsed());
    let measured = filltop.stop()?;
    let own = row(&measured, std::process::id(), volume.path())?;
    ensure!(own.inodes_created == Some(20_000), "{own:?}");
    super::nothing_lost(&measured)
}

/// Each process creates one entry, as in a mail queue: the directory is named nevertheless.
#[test]
fn a_directory_with_one_entry_of_each_process_is_named() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let dir = volume.path().join("queue");
    fs::create_dir(&dir)?;
    let filltop = Filltop::start(&[])?;
    for n in 0..12 {
        let status = Command::new("mkdir").arg(n.to_string()).current_dir(&dir).status()?;
        ensure!(status.success(), "{status}");
    }
    let measured = filltop.stop()?;
    let row = measured.snapshot.dirs.iter().find(|row| Path::new(&row.path) == dir);
    let row = row.with_context(|| format!("no row: {:?}", measured.snapshot.dirs))?;
    ensure!(row.files_created == Some(12), "{row:?}");
    Ok(())
}

/// After a chroot, a process of another mount namespace does not see the mount that contains its root.
#[test]
fn in_a_chroot_in_another_namespace_inodes_are_counted() -> Result {
    need_tracing!();
    for fs_type in ["xfs", "tmpfs"] {
        let volume = TestVolume::new(fs_type, 300)?;
        fs::create_dir(volume.path().join("jail"))?;
        let filltop = Filltop::start(&[])?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(workload().get_program());
        command.args(["write", "/new/deep/file", "--bytes", "1000", "--parents", "--hold"]);
        let running = Holder::start(command.arg("--chroot").arg(volume.path().join("jail")))?;
        // Its paths are looked up ten times a second, while it runs.
        std::thread::sleep(Duration::from_millis(300));
        let measured = filltop.stop()?;
        let own = row(&measured, running.pid, volume.path())?;
        ensure!(own.inodes_created == Some(3), "{fs_type}: {own:?}");
    }
    Ok(())
}
