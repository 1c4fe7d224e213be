//! Files: what grows, how large it is, and whether its path leads to it.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, need_tracing};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Result;

const MIB: u64 = 1 << 20;

/// The rows of files on the volume, in the order of the Snapshot.
fn on<'m>(measured: &'m Measured, volume: &TestVolume) -> Vec<&'m tracer_model::snapshot::PathRow> {
    let mount = volume.path().to_str();
    measured.snapshot.paths.iter().filter(|row| Some(row.volume.as_str()) == mount).collect()
}

#[test]
fn a_log_that_is_overwritten_in_place_does_not_grow() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let (redo, binary) = (volume.path().join("redo"), volume.path().join("binary"));
    let mut overwritten = fs::File::create(&redo)?;
    overwritten.write_all(&vec![1; 16 << 20])?;
    overwritten.sync_all()?;
    let filltop = Filltop::start(&[])?;
    for _ in 0..3 {
        overwritten.seek(SeekFrom::Start(0))?;
        overwritten.write_all(&vec![2; 16 << 20])?;
    }
    fs::write(&binary, vec![3; 4 << 20])?;
    let gone = volume.path().join("gone");
    fs::write(&gone, vec![4; 1 << 20])?;
    fs::remove_file(&gone)?;
    let measured = filltop.stop()?;
    let rows = on(&measured, &volume);
    let first = rows.first().context("no row")?;
    ensure!(Some(first.path.as_str()) == binary.to_str(), "{first:?} is first");
    ensure!(first.size_bytes == Some(4 * MIB), "{first:?}");
    let rate = 4.0 * MIB as f64 / measured.snapshot.interval_s;
    ensure!((first.growth_bytes_per_s / rate - 1.0).abs() < 0.05, "{first:?}, not {rate}");
    let row = measured.path(&redo)?;
    ensure!(row.written_bytes == 48 * MIB && row.size_bytes == Some(16 * MIB), "{row:?}");
    // With tracepoints, the first write to a file that existed before counts as new space, up to the
    // size of a folio.
    ensure!(row.growth_bytes_per_s < 0.8 * rate, "{row:?}");
    let row = measured.path(&gone)?;
    ensure!(row.deleted && row.size_bytes.is_none(), "{row:?}");
    Ok(())
}

/// A tmpfs that hides a directory; unmounted on drop.
struct Cover<'p>(&'p Path);

impl<'p> Cover<'p> {
    fn new(over: &'p Path) -> anyhow::Result<Self> {
        mount("tmpfs", over, "tmpfs", MountFlags::empty(), c"size=4M")?;
        Ok(Self(over))
    }
}

impl Drop for Cover<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_file_below_a_later_mount_is_marked() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let dir = volume.path().join("logs");
    fs::create_dir(&dir)?;
    let mut file = fs::File::create(dir.join("a"))?;
    let cover = Cover::new(&dir)?;
    fs::write(dir.join("a"), "another file of that name")?;
    let filltop = Filltop::start(&[])?;
    file.write_all(&vec![1; 3 << 20])?;
    let beside = volume.path().join("b");
    fs::write(&beside, "x")?;
    let measured = filltop.stop()?;
    let rows = on(&measured, &volume);
    let hidden: Vec<_> = rows.iter().filter(|row| row.hidden).collect();
    ensure!(hidden.len() == 1, "{rows:?}");
    let row = hidden[0];
    ensure!(Some(row.path.as_str()) == dir.join("a").to_str(), "{row:?}");
    ensure!(row.hidden_by.as_deref() == dir.to_str() && row.size_bytes.is_none(), "{row:?}");
    ensure!(row.written_bytes == 3 * MIB, "{row:?}");
    ensure!(!measured.path(&beside)?.hidden, "it is not hidden");
    drop(cover);
    Ok(())
}

#[test]
fn a_volume_below_another_mount_has_a_row_while_it_is_written() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let mut file = fs::File::create(volume.path().join("a"))?;
    let cover = Cover::new(volume.path())?;
    let filltop = Filltop::start(&[])?;
    file.write_all(&vec![1; 3 << 20])?;
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    file.write_all(&vec![1; 2 << 20])?;
    let measured = filltop.stop()?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let volumes = &measured.snapshot.volumes;
    let rows: Vec<_> =
        volumes.iter().filter(|row| row.mount_points.iter().any(|at| at == mount)).collect();
    ensure!(rows.len() == 2 && rows[0].mount_point != rows[1].mount_point, "{rows:?}");
    let hidden = rows.iter().find(|row| row.hidden).context("none is hidden")?;
    ensure!(hidden.fs_type == "ext4" && hidden.written_bytes == 5 * MIB, "{hidden:?}");
    ensure!(hidden.total_bytes > 30 * MIB && hidden.avail_bytes > 0, "{hidden:?}");
    let shown = rows.iter().find(|row| !row.hidden).context("both are hidden")?;
    ensure!(shown.fs_type == "tmpfs" && shown.mount_point == mount, "{shown:?}");
    let writer = measured.writers_of(std::process::id()).next().context("no writer")?;
    ensure!(writer.volume == hidden.mount_point, "{writer:?}");
    drop(cover);
    Ok(())
}
