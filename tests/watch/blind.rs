//! A volume fills in a way that this backend cannot see: all outputs report it, and no process is blamed.

use std::fs::File;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, command, need_tracing, write_at};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde_json::Value;

use super::Result;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Writes to every page of a mapping of a new file, 16 MiB a second.
fn fill_by_mapping(path: &Path, mib: usize) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len((mib * MIB) as u64)?;
    Ok(thread::spawn(move || {
        let length = mib * MIB;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping within the file's length, at an address that the kernel chooses.
        let memory =
            unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, &file, 0)? };
        for at in (0..length).step_by(PAGE) {
            if at % MIB == 0 {
                thread::sleep(Duration::from_millis(60));
            }
            // SAFETY: within the mapping, which nothing else uses.
            unsafe { memory.cast::<u8>().add(at).write_volatile(7) };
        }
        // SAFETY: the mapping from above, which is not used any longer.
        unsafe { munmap(memory, length)? };
        Ok(())
    }))
}

#[test]
fn unseen_growth_is_reported_and_no_writer_is_blamed() -> Result {
    need_tracing!();
    let name = "unseen_growth_is_reported_and_no_writer_is_blamed";
    let volume = TestVolume::new("tmpfs", 400)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    // An innocent writer on the same volume.
    let innocent = write_at(&volume.path().join("small"), 20e3, Duration::from_secs(14))?;
    let writer = fill_by_mapping(&volume.path().join("mapped"), 220)?;
    let output = command(&["snapshot", "--for", "3s", "--volume", mount, "--json"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let json: Value = serde_json::from_str(&text)?;
    if json["backend"]["write"] != "tracepoint" {
        println!("SKIP {name}: stores into tmpfs are seen with {}", json["backend"]["write"]);
        return Ok(());
    }
    let row = &json["volumes"][0];
    let (grown, delta) = (&row["growth_bytes_per_s"], &row["used_delta_bytes"]);
    let blind = &row["blind"];
    ensure!(blind["cause"] == "unexplained", "{row}");
    let part = |name: &str| blind[name].as_f64().context("no number");
    ensure!(part("unexplained_bytes")? > 0.9 * part("grown_bytes")?, "{row}");
    let (grown, delta) = (grown.as_f64().context("growth")?, delta.as_f64().context("delta")?);
    let interval = json["interval_s"].as_f64().context("interval")?;
    ensure!((grown - delta / interval).abs() < 1.0, "the growth is not that of statvfs: {row}");
    ensure!(grown > 4e6, "{row}");
    for seen in json["writers"].as_array().context("writers")? {
        ensure!(seen["share"].as_f64().is_some_and(|share| share < 0.1), "{seen}");
    }
    let output = command(&["check", "--for", "3s", "--volume", mount]).output()?;
    let line = String::from_utf8(output.stdout)?;
    // Its forecast may be urgent already.
    let status = output.status.code();
    ensure!(status.is_some_and(|status| (1..=3).contains(&status)), "{status:?} {line}");
    let (said, _) = line.split_once(" | ").context("no perfdata")?;
    ensure!(said.contains(mount) && said.contains("unexplained"), "{line}");
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    innocent.join().map_err(|_| anyhow::anyhow!("the innocent panicked"))?;
    Ok(())
}
