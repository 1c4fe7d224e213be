//! What an operation costs with and without a tracer: runs each loop alone and next to each
//! program, and prints one JSON object per line. `cargo xtask bench` starts it, in virtual machines
//! that count instructions and on the machine itself.

mod daemon;
mod loops;
mod profile;
mod programs;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use filltop_tests::{TestVolume, bpf_programs};
use serde::Serialize;

pub use daemon::{Daemon, run as measure_daemon};
use loops::{Loop, Places};
use programs::{Program, Started};

/// What to measure.
#[derive(Args)]
pub struct Bench {
    /// Loops, by name
    #[arg(long, value_delimiter = ',', required = true)]
    cases: Vec<String>,
    /// Programs to run next to them, by name
    #[arg(long, value_delimiter = ',')]
    programs: Vec<String>,
    /// Start each program this often, every time after a measurement without it; with 1, one
    /// measurement without any at the start and at the end must do, which is right where figures
    /// repeat exactly
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// How long each loop is measured, in milliseconds
    #[arg(long, default_value_t = 50)]
    budget_ms: u64,
    /// Instead, print how often and how long each BPF program ran in each loop
    #[arg(long)]
    profile: bool,
}

/// The name of the baseline without a program.
const NONE: &str = "none";
/// Minimum number of batches of a loop: the first only warms up.
const MIN_BATCHES: usize = 5;
/// Wait after a program has started: filltop has the kernel time its programs until it has seen
/// some writes, which makes each of them slower.
const SETTLE: Duration = Duration::from_secs(3);
/// Enough writes for that.
const SOME_WRITES: usize = 1_000;
/// How long a program's hooks may outlive it: the kernel frees them when no CPU can be inside one.
const DETACH_PATIENCE: Duration = Duration::from_secs(20);

/// One measurement.
#[derive(Serialize)]
struct Line<'a> {
    program: &'a str,
    case: &'a str,
    round: u32,
    /// Nanoseconds per operation in the quickest batch: under `-icount shift=0`, instructions.
    min: f64,
    /// The same for the median batch.
    median: f64,
    batches: usize,
}

/// A program, or a loop, that cannot be measured here.
#[derive(Serialize)]
struct Skip<'a> {
    program: &'a str,
    skip: String,
}

/// Runs all requested measurements.
pub fn run(bench: &Bench) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let (tmpfs, ext4) = (TestVolume::new("tmpfs", 512)?, TestVolume::new("ext4", 512)?);
    let places = Places { tmpfs: tmpfs.path(), ext4: ext4.path() };
    let mut loops: Vec<Loop> = Vec::new();
    for name in &bench.cases {
        match loops::make(name, &places) {
            Ok(one) => loops.push(one),
            Err(error) => {
                let program = format!("the loop {name}");
                print(&Skip { program: &program, skip: format!("{error:#}") })?;
            }
        }
    }
    let budget = Duration::from_millis(bench.budget_ms);

    let programs: Vec<&Program> =
        bench.programs.iter().map(|name| programs::find(name)).collect::<anyhow::Result<_>>()?;
    let interleaved = bench.rounds > 1;
    if !interleaved && !bench.profile {
        all(&mut loops, NONE, 0, budget)?;
    }
    for program in programs {
        for round in 0..bench.rounds {
            if interleaved {
                all(&mut loops, NONE, round, budget)?;
            }
            let before = bpf_programs()?;
            match start_program(program, &mut loops, &places)? {
                Ok(started) => {
                    some_writes(places.tmpfs)?;
                    std::thread::sleep(SETTLE);
                    if bench.profile {
                        profiled(&mut loops, program.name)?;
                    } else {
                        all(&mut loops, program.name, round, budget)?;
                    }
                    started.stop()?;
                }
                Err(reason) => {
                    print(&Skip { program: program.name, skip: reason })?;
                    break;
                }
            }
            wait_until_gone(&before).with_context(|| program.name.to_owned())?;
        }
    }
    if !interleaved && !bench.profile {
        all(&mut loops, NONE, 1, budget)?;
    }
    Ok(())
}

/// Writes one byte each, on the tmpfs.
fn some_writes(dir: &Path) -> io::Result<()> {
    let mut file = File::create(dir.join("some"))?;
    (0..SOME_WRITES).try_for_each(|_| file.write_all(b"Z"))
}

/// Starts the program and waits until its hooks are attached; the inner `Err` has the reason why it
/// cannot.
fn start_program(
    program: &'static Program,
    loops: &mut [Loop],
    places: &Places<'_>,
) -> anyhow::Result<Result<Started, String>> {
    let Some(case) = program.shows_in() else {
        let started = Started::new(program);
        return Ok(started.and_then(|mut started| started.wait_for_line().map(|()| started)));
    };
    // It prints nothing when it is ready: it is recognized by the slowdown.
    let mut own;
    let felt = match loops.iter().position(|one| one.name == case) {
        Some(index) => &mut loops[index],
        None => {
            own = loops::make(case, places)?;
            &mut own
        }
    };
    let alone = measure(felt, Duration::ZERO)?.min;
    Ok(Started::new(program).and_then(|mut started| {
        let measure = || measure(felt, Duration::ZERO).map(|measured| measured.min);
        started.wait_for_slowdown(alone, measure).map(|()| started)
    }))
}

fn all(loops: &mut [Loop], program: &str, round: u32, budget: Duration) -> anyhow::Result<()> {
    for one in loops {
        let Measured { min, median, batches } =
            measure(one, budget).with_context(|| one.name.clone())?;
        print(&Line { program, case: &one.name, round, min, median, batches })?;
    }
    Ok(())
}

/// What BPF programs did in one batch of each loop.
#[derive(Serialize)]
struct Profile<'a> {
    program: &'a str,
    case: &'a str,
    operations: usize,
    ran: Vec<profile::RunTime>,
}

fn profiled(loops: &mut [Loop], program: &str) -> anyhow::Result<()> {
    let _statistics = profile::Statistics::on()?;
    for one in loops {
        one.batch()?;
        let before = profile::now()?;
        one.batch()?;
        let ran = profile::between(&before, profile::now()?);
        print(&Profile { program, case: &one.name, operations: one.operations, ran })?;
    }
    Ok(())
}

fn print(line: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}

struct Measured {
    min: f64,
    median: f64,
    batches: usize,
}

/// Repeats the loop's batch. The quickest one is the figure: interrupts and background work of
/// other programs only ever add time.
fn measure(one: &mut Loop, budget: Duration) -> anyhow::Result<Measured> {
    one.batch()?;
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < MIN_BATCHES || begun.elapsed() < budget {
        times.push(one.batch()?.as_nanos() as f64 / one.operations as f64);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(Measured { min: times[0], median: times[times.len() / 2], batches: times.len() })
}

/// Waits until the hooks are gone: they stay until the last task inside one of them has left it.
fn wait_until_gone(before: &[u32]) -> anyhow::Result<()> {
    let begun = Instant::now();
    while bpf_programs()?.iter().any(|id| !before.contains(id)) {
        anyhow::ensure!(begun.elapsed() < DETACH_PATIENCE, "its BPF programs outlive it");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Two loops have 10,000 open files each.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Some(65_536);
    if setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).is_ok() {
        return Ok(());
    }
    // Without the privilege to raise the maximum: as many as are allowed.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot open more files")
}
