//! Files and processes get the right names in the hard cases.

use std::fs;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing, run_workload, workload};

use super::Result;

#[test]
fn a_file_unlinked_before_its_first_write_keeps_its_name() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    fs::create_dir_all(volume.path().join("spool/in"))?;
    let path = volume.path().join("spool/in/gone");
    let filltop = Filltop::start(&[])?;
    let truth =
        run_workload(workload().arg("write").arg(&path).args(["--bytes", "3000000", "--unlink"]))?;
    let measured = filltop.stop()?;
    super::check(&measured, &truth)?;
    ensure!(measured.path(&path)?.deleted, "it is deleted");
    Ok(())
}

#[test]
fn a_removed_file_is_marked_deleted() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let (kept, removed) = (volume.path().join("kept"), volume.path().join("removed"));
    let filltop = Filltop::start(&[])?;
    for path in [&kept, &removed] {
        run_workload(workload().arg("write").arg(path).args(["--bytes", "100000"]))?;
    }
    fs::hard_link(&kept, volume.path().join("second name"))?;
    fs::remove_file(volume.path().join("second name"))?;
    fs::remove_file(&removed)?;
    let measured = filltop.stop()?;
    ensure!(!measured.path(&kept)?.deleted, "it still has a name");
    ensure!(measured.path(&removed)?.deleted, "its last name is gone");
    ensure!(measured.path(&removed)?.written_bytes == 100_000);
    Ok(())
}

#[test]
fn in_a_chroot_the_path_is_that_of_the_host() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    fs::create_dir_all(volume.path().join("jail/var/mod_gzip"))?;
    let filltop = Filltop::start(&[])?;
    let truth = run_workload(
        workload()
            .args(["write", "/var/mod_gzip/part", "--bytes", "1234567", "--chroot"])
            .arg(volume.path().join("jail")),
    )?;
    let measured = filltop.stop()?;
    let row = measured.path(&volume.path().join("jail/var/mod_gzip/part"))?;
    ensure!(row.written_bytes == 1_234_567 && row.writers == [truth.pid]);
    Ok(())
}

#[test]
fn through_a_bind_mount_the_path_is_that_of_the_volume() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let (real, bound) = (volume.path().join("real/deep"), volume.path().join("bound"));
    fs::create_dir_all(&real)?;
    fs::create_dir(&bound)?;
    rustix::mount::mount_bind(&real, &bound)?;
    let filltop = Filltop::start(&[])?;
    let truth =
        run_workload(workload().arg("write").arg(bound.join("f")).args(["--bytes", "4097"]));
    let measured = filltop.stop();
    rustix::mount::unmount(&bound, rustix::mount::UnmountFlags::DETACH)?;
    let (truth, measured) = (truth?, measured?);
    let row = measured.path(&real.join("f"))?;
    ensure!(row.written_bytes == 4097 && row.writers == [truth.pid]);
    let mount_point = volume.path().to_str().context("UTF-8")?;
    ensure!(row.volume == mount_point, "{} is not {mount_point}", row.volume);
    let volumes = &measured.snapshot.volumes;
    let row = volumes.iter().find(|row| row.mount_point == mount_point).context("no volume")?;
    ensure!(row.mount_points.len() == 2, "one volume with two mount points: {row:?}");
    Ok(())
}
