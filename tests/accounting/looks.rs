//! How filltop reads what the kernel side counted.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, fill, need_tracing, run_workload, workload};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Result;

/// Commands of bpf(2) during which the kernel skips kprobes (`bpf_disable_instrumentation` in
/// kernel/bpf/syscall.c and hashtab.c): look-ups, updates and deletions, also in batches.
const SKIP_KPROBES: [u32; 7] = [1, 2, 3, 24, 25, 26, 27];
/// BPF_ITER_CREATE: a pass over a map.
const ITER_CREATE: u32 = 33;
/// BPF_PROG_TEST_RUN: what lets a name be sent again.
const TEST_RUN: u32 = 10;

/// The calls of bpf(2) of one process, told by tracefs.
struct BpfCalls {
    instance: PathBuf,
}

impl BpfCalls {
    /// `None` where the kernel has no events for system calls.
    fn of(pid: u32) -> anyhow::Result<Option<Self>> {
        let tracefs = Path::new("/sys/kernel/tracing");
        let event = "events/syscalls/sys_enter_bpf";
        if !tracefs.join(event).exists() {
            return Ok(None);
        }
        let instance = tracefs.join(format!("instances/filltop-test-{pid}"));
        fs::create_dir(&instance)?;
        let calls = Self { instance };
        calls.set("options/event-fork", "1")?;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.file_name();
            let pids = calls.instance.join("set_event_pid");
            let mut pids = fs::OpenOptions::new().append(true).open(pids)?;
            pids.write_all(thread.to_str().context("a number")?.as_bytes())?;
        }
        calls.set(&format!("{event}/enable"), "1")?;
        Ok(Some(calls))
    }

    fn set(&self, file: &str, value: &str) -> Result {
        fs::write(self.instance.join(file), value).with_context(|| file.to_owned())
    }

    /// How often each command was called since.
    fn counted(&self) -> anyhow::Result<BTreeMap<u32, usize>> {
        let mut counted = BTreeMap::new();
        for line in fs::read_to_string(self.instance.join("trace"))?.lines() {
            let Some((_, arguments)) = line.split_once("sys_bpf(cmd: ") else { continue };
            let command = arguments.split([',', ')']).next().context("no command")?;
            // In hexadecimal; by its name, too, in newer kernels.
            let number = command.split_whitespace().next().unwrap_or_default();
            let number = u32::from_str_radix(number.trim_start_matches("0x"), 16)
                .with_context(|| line.to_owned())?;
            *counted.entry(number).or_default() += 1;
        }
        Ok(counted)
    }
}

impl Drop for BpfCalls {
    fn drop(&mut self) {
        let _ = self.set("events/enable", "0");
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Fails if one of the calls keeps the kernel from running kprobes.
fn none_skips_kprobes(counted: &BTreeMap<u32, usize>) -> Result {
    println!("bpf(2): {counted:?}");
    ensure!(SKIP_KPROBES.iter().all(|command| !counted.contains_key(command)), "{counted:?}");
    Ok(())
}

/// While a system call looks into a hash map, the kernel skips kprobes on its CPU, and with them the writes of
/// whoever comes next there if filltop is put aside: so it makes none.
#[test]
fn a_look_keeps_no_kprobe_from_running() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&["--top", "100000"])?;
    let Some(calls) = BpfCalls::of(filltop.pid())? else {
        println!("SKIP a_look_keeps_no_kprobe_from_running: no events for system calls");
        return Ok(());
    };
    // Spilled counts, created files, waits, failures.
    let mut work = workload();
    work.arg("many").arg(volume.path()).args(["--files", "3000", "--bytes", "1000"]);
    let truth = run_workload(&mut work)?;
    fill(&volume.path().join("all"))?;
    let measured = filltop.stop()?;
    let counted = calls.counted()?;
    none_skips_kprobes(&counted)?;
    ensure!(counted.get(&ITER_CREATE).is_some_and(|count| *count > 3), "{counted:?}");
    let writer = measured.writers_of(truth.pid).next().context("no writer")?;
    ensure!(writer.written_bytes == truth.total(), "{} of {}", writer.written_bytes, truth.total());
    let filler = measured.writers_of(std::process::id()).next().context("no filler")?;
    ensure!(filler.errors.enospc > 0, "{:?}", filler.errors);
    Ok(())
}

/// Rows that filltop keeps in a window (`MAX_PAIRS`).
const ROWS: usize = (1 << 18) / 8 * 7;

/// All that this thread, and whoever it starts, does from now on is done on this CPU.
fn go_to(cpu: usize) -> Result {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// More files than there are rows: those that moved least are folded, and their names forgotten. One that is
/// written again has its name then, whether its process still has a cell of the kernel side's table for it
/// (of CPU 0) or not (of CPU 1, where all the others are), and at whatever moment it is written.
#[test]
fn a_file_that_was_forgotten_is_named_again() -> Result {
    need_tracing!();
    if env::var_os("FILLTOP_IN_VM").is_some() {
        println!(
            "SKIP a_file_that_was_forgotten_is_named_again: too many files for an emulated machine"
        );
        return Ok(());
    }
    let volume = TestVolume::new("tmpfs", 1200)?;
    let filltop = Filltop::start(&["--top", "1000000"])?;
    go_to(1).context("two CPUs are needed")?;
    let calls = BpfCalls::of(filltop.pid())?;
    let mut paths = Vec::new();
    for part in 0..8 {
        let dir = volume.path().join(part.to_string());
        fs::create_dir(&dir)?;
        // As many in each look as the kernel side has room for; and some that come again.
        let files = (ROWS / 8 + 8).to_string();
        run_workload(workload().arg("many").arg(&dir).args(["--files", &files, "--bytes", "10"]))?;
        for n in 0..16 {
            let path = dir.join(format!("again-{n}"));
            go_to(n % 2)?;
            fs::write(&path, "once")?;
            paths.push((n % 2, path));
        }
        if part < 7 {
            thread::sleep(Duration::from_millis(1200));
        }
    }
    // While the look goes on in which files are folded, too.
    for (cpu, path) in &paths {
        go_to(*cpu)?;
        fs::OpenOptions::new().append(true).open(path)?.write_all(&[7; 10_000])?;
        thread::sleep(Duration::from_millis(20));
    }
    let measured = filltop.stop()?;
    let mut folded = [0; 2];
    for (cpu, path) in &paths {
        let row = measured.path(path).with_context(|| format!("written on CPU {cpu}"))?;
        ensure!([10_000, 10_004].contains(&row.written_bytes), "{row:?}");
        folded[*cpu] += u32::from(row.written_bytes == 10_000);
    }
    // Half of all rows were folded, of which it is not known which.
    ensure!(folded.iter().all(|n| *n > 5), "{folded:?} of those that came again were folded");
    if let Some(calls) = calls {
        let counted = calls.counted()?;
        none_skips_kprobes(&counted)?;
        ensure!(counted.get(&TEST_RUN).is_some_and(|count| *count > 0), "{counted:?}");
    }
    Ok(())
}
