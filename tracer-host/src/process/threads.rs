//! Threads of a process: /proc/PID/task. A process whose main thread has exited goes on while other
//! threads run: /proc/PID then shows a zombie without any files.

use std::fs;

use crate::process::stat::{self, Stat};

/// Returns the thread through which a process's files, root and memory can be read, as /proc/TID:
/// its main thread, or another one if that has exited.
#[must_use]
pub fn running(pid: u32) -> u32 {
    if stat::of_main_thread(pid).is_some_and(|main| main.ended && main.threads > 1) {
        live(pid).first().map_or(pid, |(tid, _)| *tid)
    } else {
        pid
    }
}

/// The threads of a process that have not exited, lowest number first.
pub(super) fn live(pid: u32) -> Vec<(u32, Stat)> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads: Vec<(u32, Stat)> = entries
        .filter_map(|entry| {
            let tid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((tid, stat::of_thread(pid, tid).filter(|thread| !thread.ended)?))
        })
        .collect();
    threads.sort_unstable_by_key(|(tid, _)| *tid);
    threads
}
