//! Ground truth, measured without filltop.

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
    // utime and stime, fields 14 and 15 of proc(5); two fields precede the end of the name.
    Ok(field(11)? + field(12)?)
}

/// Bytes that a process's threads caused to be written to disks. The process's own counter also
/// includes programs that it ran.
pub fn bytes_to_disk(pid: u32) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let io = fs::read_to_string(thread?.path().join("io"))?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        bytes += line.context("no write_bytes")?.parse::<u64>()?;
    }
    Ok(bytes)
}

/// Bytes that the files of a tree occupy, as du counts them. Files that disappear meanwhile are
/// skipped.
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
