//! How often and how long each BPF program ran: the kernel's run-time statistics of all programs.

use std::collections::BTreeMap;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::Context as _;
use filltop_tests::bpf_programs;
use serde::Serialize;

/// Commands of bpf(2).
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const ENABLE_STATS: libc::c_long = 32;
/// Size of `struct bpf_prog_info` up to its `run_cnt`, and offsets of its fields.
const INFO_BYTES: usize = 208;
const NAME: std::ops::Range<usize> = 64..80;
const RUN_TIME_NS: usize = 192;
const RUN_COUNT: usize = 200;

/// The kernel keeps statistics while this value lives.
pub struct Statistics(#[expect(dead_code, reason = "held open")] OwnedFd);

impl Statistics {
    /// Enables them: each program then reads the clock twice more per run.
    pub fn on() -> anyhow::Result<Self> {
        // union bpf_attr: enable_stats.type, 0 for run time.
        let fd = bpf(ENABLE_STATS, &mut [0u8; 64]).context("the kernel keeps no statistics")?;
        // SAFETY: a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// What one program did.
#[derive(Clone, Default, Serialize)]
pub struct RunTime {
    /// Its name, of which the kernel keeps 15 bytes.
    name: String,
    runs: u64,
    ns: u64,
}

/// All programs by their ids.
pub fn now() -> anyhow::Result<BTreeMap<u32, RunTime>> {
    let mut all = BTreeMap::new();
    for id in bpf_programs()? {
        // A program may have been unloaded meanwhile.
        if let Ok(one) = of(id) {
            all.insert(id, one);
        }
    }
    Ok(all)
}

/// The runs between two readings, longest first.
pub fn between(before: &BTreeMap<u32, RunTime>, after: BTreeMap<u32, RunTime>) -> Vec<RunTime> {
    let none = RunTime::default();
    let mut all: Vec<RunTime> = after
        .into_iter()
        .map(|(id, now)| {
            let old = before.get(&id).unwrap_or(&none);
            RunTime { runs: now.runs - old.runs, ns: now.ns - old.ns, name: now.name }
        })
        .filter(|one| one.runs > 0)
        .collect();
    all.sort_unstable_by_key(|one| std::cmp::Reverse(one.ns));
    all
}

fn of(id: u32) -> std::io::Result<RunTime> {
    let mut attr = [0u8; 64];
    attr[..4].copy_from_slice(&id.to_ne_bytes());
    // SAFETY: a new descriptor that nothing else owns.
    let program = unsafe { OwnedFd::from_raw_fd(bpf(PROG_GET_FD_BY_ID, &mut attr)?) };
    let mut info = [0u8; INFO_BYTES];
    let mut attr = [0u8; 64];
    let fd = std::os::fd::AsRawFd::as_raw_fd(&program);
    attr[..4].copy_from_slice(&fd.to_ne_bytes());
    attr[4..8].copy_from_slice(&(INFO_BYTES as u32).to_ne_bytes());
    attr[8..16].copy_from_slice(&(info.as_mut_ptr() as u64).to_ne_bytes());
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let number = |at: usize| {
        info[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    let name = String::from_utf8_lossy(&info[NAME]).trim_end_matches('\0').to_owned();
    Ok(RunTime { name, runs: number(RUN_COUNT), ns: number(RUN_TIME_NS) })
}

fn bpf(command: libc::c_long, attr: &mut [u8; 64]) -> std::io::Result<i32> {
    // SAFETY: `attr` is as large as these commands read and write, and what it points to outlives
    // the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), attr.len()) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result as i32) }
}
