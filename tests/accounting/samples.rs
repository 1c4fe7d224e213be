//! How filltop reads the counters of the eBPF programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, fill, need_tracing, run_workload, workload};
use rustix::thread::{CpuSet, sched_setaffinity};
use tracer_model::snapshot::{Hook, HookState};

use crate::Result;

/// Commands of bpf(2) during which the kernel skips kprobes (`bpf_disable_instrumentation` in
/// kernel/bpf/syscall.c and hashtab.c): look-ups, updates and deletions, also in batches.
const SKIP_KPROBES: [u32; 7] = [1, 2, 3, 24, 25, 26, 27];
/// BPF_ITER_CREATE: one pass of an iterator over a map.
const ITER_CREATE: u32 = 33;
/// BPF_PROG_TEST_RUN: runs the program that allows a name to be emitted again.
const TEST_RUN: u32 = 10;

/// The calls of bpf(2) of one process, traced with tracefs.
struct BpfCalls {
    instance: PathBuf,
}

impl BpfCalls {
    /// Starts tracing; `None` where the kernel has no events for system calls.
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

    /// Number of calls of each command since the start.
    fn counted(&self) -> anyhow::Result<BTreeMap<u32, usize>> {
        let mut counted = BTreeMap::new();
        for line in fs::read_to_string(self.instance.join("trace"))?.lines() {
            let Some((_, arguments)) = line.split_once("sys_bpf(cmd: ") else { continue };
            let command = arguments.split([',', ')']).next().context("no command")?;
            // The command is in hexadecimal; newer kernels add its name.
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

/// While a system call accesses a hash map, the kernel skips kprobes on that CPU. If filltop were
/// preempted then, the writes of the next process on that CPU would be lost. So filltop makes no
/// such call.
#[test]
fn reading_the_maps_skips_no_kprobe() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&["--top", "100000"])?;
    let Some(calls) = BpfCalls::of(filltop.pid())? else {
        println!(
            "SKIP reading_the_maps_skips_no_kprobe: this kernel has no events for system calls"
        );
        return Ok(());
    };
    // Causes spilled counters, created files, waits and failures.
    let mut work = workload();
    work.arg("many").arg(volume.path()).args(["--files", "3000", "--bytes", "1000"]);
    let truth = run_workload(&mut work)?;
    fill(&volume.path().join("all"))?;
    let measured = filltop.stop()?;
    let counted = calls.counted()?;
    if !iterates_over_maps(&measured) {
        println!("SKIP reading_the_maps_skips_no_kprobe: {NO_ITERATOR}");
        return Ok(());
    }
    none_skips_kprobes(&counted)?;
    ensure!(counted.get(&ITER_CREATE).is_some_and(|count| *count > 3), "{counted:?}");
    let writer = measured.writers_of(truth.pid).next().context("no writer")?;
    ensure!(writer.written_bytes == truth.total(), "{} of {}", writer.written_bytes, truth.total());
    let filler = measured.writers_of(std::process::id()).next().context("no filler")?;
    ensure!(filler.errors.enospc > 0, "{:?}", filler.errors);
    Ok(())
}

const NO_ITERATOR: &str = "this kernel permits no iterator over maps, so they are read by batches";

/// Whether the kernel permits iterators over the elements of maps (`bpf_map_elem`).
fn iterates_over_maps(measured: &Measured) -> bool {
    let is_it = |hook: &&Hook| hook.name == "bpf_map_elem" && hook.state == HookState::Ok;
    measured.snapshot.backend.hooks.iter().any(|hook| is_it(&hook))
}

/// Rows that filltop keeps in one interval (`MAX_PAIRS`).
const ROWS: usize = (1 << 18) / 8 * 7;

/// Pins this thread, and the processes that it starts from now on, to this CPU.
fn pin_to_cpu(cpu: usize) -> Result {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// With more files than rows, the files that changed least are folded, and their names are dropped.
/// A file that is written again has its name back: whether its process still has a slot in the
/// kernel's table for it (CPU 0) or not (CPU 1, where all the others are), and at whatever moment
/// it is written.
#[test]
fn a_folded_file_that_is_written_again_is_named() -> Result {
    need_tracing!();
    if env::var_os("FILLTOP_IN_VM").is_some() {
        println!(
            "SKIP a_folded_file_that_is_written_again_is_named: too many files for an emulated machine"
        );
        return Ok(());
    }
    let volume = TestVolume::new("tmpfs", 1200)?;
    let filltop = Filltop::start(&["--top", "1000000"])?;
    pin_to_cpu(1).context("two CPUs are needed")?;
    let calls = BpfCalls::of(filltop.pid())?;
    let mut paths = Vec::new();
    for part in 0..8 {
        let dir = volume.path().join(part.to_string());
        fs::create_dir(&dir)?;
        // As many files in each sample as the kernel's tables have slots for, plus some that are
        // written again.
        let files = (ROWS / 8 + 8).to_string();
        run_workload(workload().arg("many").arg(&dir).args(["--files", &files, "--bytes", "10"]))?;
        for n in 0..16 {
            let path = dir.join(format!("again-{n}"));
            pin_to_cpu(n % 2)?;
            fs::write(&path, "once")?;
            paths.push((n % 2, path));
        }
        if part < 7 {
            thread::sleep(Duration::from_millis(1200));
        }
    }
    // These writes continue while a sample is read in which files are folded.
    for (cpu, path) in &paths {
        pin_to_cpu(*cpu)?;
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
    // Half of all rows were folded; which half is not known.
    ensure!(folded.iter().all(|n| *n > 5), "{folded:?} of the files written again were folded");
    if let Some(calls) = calls
        && iterates_over_maps(&measured)
    {
        let counted = calls.counted()?;
        none_skips_kprobes(&counted)?;
        ensure!(counted.get(&TEST_RUN).is_some_and(|count| *count > 0), "{counted:?}");
    }
    Ok(())
}
