//! Files and processes get the right names in the hard cases.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use anyhow::{Context as _, anyhow, ensure};
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

/// As container runtimes, package managers and downloads do it.
#[test]
fn a_directory_that_is_renamed_after_its_creation_has_its_new_name() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let (new, final_name) = (volume.path().join("new-123"), volume.path().join("2"));
    let filltop = Filltop::start(&[])?;
    fs::create_dir(&new)?;
    fs::create_dir(new.join("fs"))?;
    fs::create_dir(new.join("work"))?;
    fs::rename(&new, &final_name)?;
    let path = final_name.join("fs/data");
    fs::write(&path, [7; 5000])?;
    let measured = filltop.stop()?;
    ensure!(measured.path(&path)?.written_bytes == 5000);
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

/// The name of this process: that of its main thread.
fn own_name() -> anyhow::Result<String> {
    Ok(fs::read_to_string("/proc/self/comm")?.trim_end().to_owned())
}

#[test]
fn a_process_keeps_its_name_whatever_its_threads_are_called() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let path = volume.path().join("journal");
    let filltop = Filltop::start(&[])?;
    let writes = move || fs::write(path, vec![7; 100_000]);
    let thread = thread::Builder::new().name("WTJourn.Flusher".to_owned()).spawn(writes)?;
    thread.join().map_err(|_| anyhow!("it panicked"))??;
    let measured = filltop.stop()?;
    let writer = measured.writers_of(std::process::id()).next().context("no row")?;
    let named = (writer.comm.as_str(), writer.thread.as_deref());
    ensure!(named == (&own_name()?, Some("WTJourn.Flusher")), "{named:?}");
    Ok(())
}

#[test]
fn a_process_that_is_renamed_has_its_new_name() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let before = own_name()?;
    let filltop = Filltop::start(&[])?;
    let mut file = fs::File::create(volume.path().join("log"))?;
    file.write_all(&[7; 1000])?;
    fs::write("/proc/self/comm", "new name")?;
    // To a file that it wrote before.
    let written = file.write_all(&[7; 1000]);
    let measured = filltop.stop();
    fs::write("/proc/self/comm", &before)?;
    written?;
    let measured = measured?;
    let writer = measured.writers_of(std::process::id()).next().context("no row")?;
    ensure!(writer.comm == "new name", "{} was {before}", writer.comm);
    Ok(())
}

#[test]
fn a_process_that_executes_another_program_has_its_name() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let path = volume.path().join("out");
    let filltop = Filltop::start(&[])?;
    // dd writes to the file that the shell has open and has written to. By its path, because
    // busybox's shell calls its own dd instead of executing it.
    let dirs = env::var_os("PATH").unwrap_or_default();
    let dd = env::split_paths(&dirs).map(|dir| dir.join("dd")).find(|path| path.exists());
    let status = Command::new("sh")
        .args(["-c", "echo 7 bytes; exec \"$0\" if=/dev/zero bs=1000 count=33"])
        .arg(dd.context("no dd")?)
        .stdout(fs::File::create(&path)?)
        .stderr(Stdio::null())
        .status();
    let measured = filltop.stop()?;
    let Ok(status) = status else {
        println!(
            "SKIP names::a_process_that_executes_another_program_has_its_name: there is no shell"
        );
        return Ok(());
    };
    ensure!(status.success(), "{status}");
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == 33_008 && row.writers.len() == 1, "{row:?}");
    let writer = measured.writers_of(row.writers[0]).next().context("no row")?;
    ensure!(writer.comm == "dd" || writer.comm == "busybox", "{writer:?}");
    let cmdline = writer.cmdline.as_deref().context("no command line")?;
    ensure!(cmdline.ends_with("count=33") && !cmdline.contains("echo"), "{cmdline}");
    Ok(())
}
