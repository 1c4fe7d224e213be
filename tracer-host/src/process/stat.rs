//! /proc/PID/stat, and whether a pid still names the process that it named before.

use std::{fs, io};

use tracer_common::ProcKey;
use tracer_model::sanitize;

/// Nanoseconds per clock tick of /proc: `getconf CLK_TCK` is 100 on all of Linux's user-visible
/// interfaces.
pub const NS_PER_TICK: u64 = 10_000_000;

/// Process flags, from the kernel's include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;
const PF_EXITING: u64 = 0x4;

/// Fields of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name, at most 15 bytes, escaped by [`sanitize::lossless`].
    pub comm: String,
    /// State: `R`, `S`, `D`, `T` (stopped), `t` (by a tracer), `Z`, …
    pub state: char,
    /// Whether it has ended and only waits to be reaped.
    pub ended: bool,
    /// Whether it is exiting (PF_EXITING). It leaves its cgroups before its state changes.
    pub exiting: bool,
    /// Pid of the parent.
    pub ppid: u32,
    /// Process group id.
    pub pgrp: u32,
    /// Session id.
    pub session: u32,
    /// Device number of the controlling terminal; 0 for none.
    pub tty: i32,
    /// Whether it is a kernel thread (PF_KTHREAD).
    pub kernel_thread: bool,
    /// Number of threads, exited ones that are not reaped included.
    pub threads: u32,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
    /// Address of the bottom of the stack, which each execve(2) randomizes; 0 if filltop may not know
    /// it.
    pub start_stack: u64,
}

/// Reads /proc/PID/stat; `None` if the process does not exist. If the main thread has exited and others
/// run, the process has not ended: its state is theirs.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    let main = of_main_thread(pid)?;
    if !(main.ended || main.exiting) || main.threads <= 1 {
        return Some(main);
    }
    let others: Vec<Stat> = live_threads(pid).into_iter().map(|(_, stat)| stat).collect();
    Some(of_process(main, &others))
}

/// The main thread of a process, which may have exited before the process.
pub(super) fn of_main_thread(pid: u32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The threads of a process that have not exited, lowest number first.
pub(super) fn live_threads(pid: u32) -> Vec<(u32, Stat)> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads: Vec<(u32, Stat)> = entries
        .filter_map(|entry| {
            let tid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((tid, of_thread(pid, tid).filter(|thread| !thread.ended)?))
        })
        .collect();
    threads.sort_unstable_by_key(|(tid, _)| *tid);
    threads
}

/// One thread of a process.
fn of_thread(pid: u32, tid: u32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?)
}

/// A process whose main thread has exited, from the threads that have not. It is stopped if all of them
/// are, and waits for a disk if one of them does.
fn of_process(main: Stat, live: &[Stat]) -> Stat {
    let Some(first) = live.first() else { return main };
    let shown = live.iter().find(|thread| thread.state == 'D');
    let shown = shown.or_else(|| live.iter().find(|thread| !matches!(thread.state, 'T' | 't')));
    Stat {
        state: shown.unwrap_or(first).state,
        ended: false,
        exiting: live.iter().all(|thread| thread.exiting),
        start_stack: first.start_stack,
        ..main
    }
}

/// Whether an error is about a missing privilege to inspect a process. A process that exited meanwhile
/// does not count, nor does a kernel thread, which has no files.
#[must_use]
pub fn is_denied(error: &io::Error, pid: u32) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        && stat(pid).is_some_and(|stat| !stat.kernel_thread)
}

/// Parses /proc/PID/stat. The name may contain spaces and parentheses: fields are counted from the
/// last one.
fn parse(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let flags: u64 = fields.get(6)?.parse().ok()?;
    Some(Stat {
        comm: sanitize::lossless(stat.get(open + 1..close)?),
        state: fields.first()?.chars().next()?,
        ended: matches!(*fields.first()?, "Z" | "X" | "x"),
        exiting: flags & PF_EXITING != 0,
        ppid: fields.get(1)?.parse().ok()?,
        pgrp: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        tty: fields.get(4)?.parse().ok()?,
        kernel_thread: flags & PF_KTHREAD != 0,
        threads: fields.get(17)?.parse().unwrap_or(1),
        start_ticks: fields.get(19)?.parse().ok()?,
        start_stack: fields.get(25).and_then(|field| field.parse().ok()).unwrap_or(0),
    })
}

/// Whether the process with this pid is still the one with this start time.
#[must_use]
pub fn is_same_process(proc: &ProcKey) -> bool {
    stat(proc.tgid).is_some_and(|stat| stat.start_ticks == proc.start_ns / NS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_main_thread_has_exited_has_the_state_of_the_others() {
        let thread = |state: char| {
            let line = format!("7 (a) {state} 1 7 7 0 0 0 0 0 0 0 0 0 0 0 0 0 3 0 9");
            parse(line.as_bytes()).unwrap()
        };
        let of = |others: &[char]| {
            let others: Vec<Stat> = others.iter().copied().map(thread).collect();
            let process = of_process(thread('Z'), &others);
            (process.ended, process.state)
        };
        assert_eq!(thread('Z').threads, 3);
        assert_eq!(of(&['S', 'R']), (false, 'S'));
        assert_eq!(of(&['T', 'S']), (false, 'S'), "not all are stopped yet");
        assert_eq!(of(&['T', 'D', 'R']), (false, 'D'));
        assert_eq!(of(&['T', 'T']), (false, 'T'));
        assert_eq!(of(&[]), (true, 'Z'), "all have exited");
    }

    #[test]
    fn hostile_names_do_not_shift_the_fields() {
        let line = b"77 (a) S 1 (b) S 12 77 70 34816 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = parse(line).unwrap();
        assert_eq!((stat.comm.as_str(), stat.ppid, stat.session), ("a) S 1 (b", 12, 70));
        assert!(
            !stat.ended && parse(b"7 (a) Z 1 7 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9").unwrap().ended
        );
        assert_eq!((stat.tty, stat.start_ticks), (34816, 4242));
        let exiting = parse(b"7 (a) R 1 7 7 0 0 4194564 0 0 0 0 0 0 0 0 0 0 0 0 0 9").unwrap();
        assert!(exiting.exiting && !exiting.ended && !stat.exiting);
        assert_eq!(parse(b"77 (cut"), None);
        assert_eq!(parse(b"77 (a) S 1"), None);
    }
}
