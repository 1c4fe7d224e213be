//! Directories: the roll-up, the hottest useful level, files that come and go.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing};

use super::{Result, sees_overlays};

#[test]
fn the_hottest_useful_level_is_neither_root_nor_leaf() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let store = volume.path().join("store/bucket");
    fs::create_dir_all(&store)?;
    let filltop = Filltop::start(&[])?;
    for n in 0..300 {
        let dir = store.join(format!("object-{n:03}"));
        fs::create_dir(&dir)?;
        fs::write(dir.join("part"), vec![7; 20_000])?;
        if n < 100 {
            fs::remove_file(dir.join("part"))?;
        }
    }
    fs::write(volume.path().join("note"), "x")?;
    let measured = filltop.stop()?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let rows: Vec<_> = measured.snapshot.dirs.iter().filter(|row| row.volume == mount).collect();
    let hot: Vec<_> = rows.iter().filter(|row| row.hot).map(|row| &row.path).collect();
    ensure!(hot == [store.to_str().context("UTF-8")?], "{hot:?}");
    let row = rows[0];
    // The directories, too, take an inode each.
    ensure!(row.hot && row.files_created == Some(600), "{row:?}");
    ensure!(row.files_removed == Some(100), "{row:?}");
    // Allocated for each file of 20,000 bytes: five blocks.
    let rate = |files: f64| files * 20_480.0 / measured.snapshot.interval_s;
    // Where space is sampled, files that come and go within a second are not seen: a hundred of
    // them.
    let least = if sees_overlays(&measured) { rate(300.0) } else { rate(200.0) };
    let inflow = row.inflow_bytes_per_s;
    ensure!(
        inflow / least > 1.0 - 1e-6 && inflow / rate(300.0) < 1.0 + 1e-6,
        "{row:?}, not {least}"
    );
    let root = rows.iter().find(|row| row.path == mount).context("no row for the root")?;
    ensure!(root.files_created == Some(601), "{root:?}");
    let group = super::only_group(&measured, volume.path())?;
    ensure!(group.files_created == 601, "{group:?}");
    Ok(())
}

/// Each upload has a directory of its own, and some are removed when they are complete.
#[test]
fn the_directory_above_uploads_is_named() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let uploads = volume.path().join("staging/uploads");
    fs::create_dir_all(&uploads)?;
    let upload = |number: usize| -> Result {
        let dir = uploads.join(format!("{number:08x}-5a0c"));
        fs::create_dir(&dir)?;
        for part in 0..4 {
            fs::write(dir.join(format!("part.{part}")), vec![7; 1 << 20])?;
            thread::sleep(Duration::from_millis(150));
        }
        if number.is_multiple_of(2) {
            fs::remove_dir_all(&dir)?;
        }
        Ok(())
    };
    upload(0)?;
    let filltop = Filltop::start(&[])?;
    // Few enough that each has a fifth of the traffic: all of them would be named.
    for number in 1..4 {
        upload(number)?;
    }
    let measured = filltop.stop()?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let rows = measured.snapshot.dirs.iter().filter(|row| row.volume == mount);
    let hot: Vec<_> = rows.filter(|row| row.hot).map(|row| &row.path).collect();
    ensure!(hot == [uploads.to_str().context("UTF-8")?], "{hot:?}");
    Ok(())
}

/// The layer of a container that has just been started: the directory of all layers says nothing.
#[test]
fn the_new_layer_of_a_container_is_named() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let layers = volume.path().join("docker/overlay2");
    fs::create_dir_all(&layers)?;
    let filltop = Filltop::start(&[])?;
    // It did not exist before.
    thread::sleep(Duration::from_secs(1));
    let layer = layers.join("d771c0ffee00000000000000000000000000000000000000000000000000aaaa");
    fs::create_dir_all(layer.join("diff/tmp"))?;
    for part in 0..8 {
        fs::write(layer.join(format!("diff/tmp/part.{part}")), vec![7; 2 << 20])?;
        thread::sleep(Duration::from_millis(150));
    }
    let measured = filltop.stop()?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let rows = measured.snapshot.dirs.iter().filter(|row| row.volume == mount);
    let hot: Vec<_> = rows.filter(|row| row.hot).map(|row| &row.path).collect();
    let layer = layer.to_str().context("UTF-8")?;
    ensure!(hot.len() == 1 && hot[0].starts_with(layer), "{hot:?}");
    Ok(())
}
