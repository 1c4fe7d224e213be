//! What is true, measured without filltop.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Processor time of a process, clock ticks.
pub fn processor_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(") ").context("no name in stat")?.1;
    let field = |n: usize| -> anyhow::Result<u64> {
        Ok(rest.split(' ').nth(n).context("stat is short")?.parse()?)
    };
    // utime and stime, 14 and 15 of proc(5), of which two are before the name's end.
    Ok(field(11)? + field(12)?)
}

/// What a process's threads caused to be written to disks. The process's own sum has what the
/// programs wrote that it ran for others.
pub fn bytes_to_disk(pid: u32) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let io = fs::read_to_string(thread?.path().join("io"))?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        bytes += line.context("no write_bytes")?.parse::<u64>()?;
    }
    Ok(bytes)
}

/// What the files of a tree occupy, as du counts it. Files that go away meanwhile are left out.
pub fn used_below(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)?.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += used_below(&entry.path()).unwrap_or(0);
        }
    }
    Ok(bytes)
}
