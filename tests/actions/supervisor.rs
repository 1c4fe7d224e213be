//! Supervisor and watchdog of a freeze: whichever of them dies, the target thaws.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::TestVolume;
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Bench, Result, Writer, need_root, resumes, small_writer, writes_nothing};

const SOON: Duration = Duration::from_secs(5);
/// The time that docs/actions.md promises.
const STATED: Duration = Duration::from_secs(1);

struct Frozen {
    volume: TestVolume,
    bench: Bench,
    _writer: Writer,
    /// What `stop` reported when it was done.
    done: Value,
}

impl Frozen {
    fn new(arguments: &[&str]) -> Result<Self> {
        let volume = TestVolume::new("ext4", 64)?;
        let bench = Bench::new()?;
        let writer = small_writer(volume.path())?;
        resumes(volume.path(), SOON)?;
        let done = bench.stop(&writer.pid(), arguments)?;
        Ok(Self { volume, bench, _writer: writer, done })
    }

    fn dir(&self) -> &Path {
        self.volume.path()
    }
}

fn signal(pid: u32, signal: Signal) -> Result {
    Ok(kill_process(Pid::from_raw(pid as i32).context("pid")?, signal)?)
}

#[test]
fn a_killed_supervisor_thaws_the_target() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    writes_nothing(frozen.dir())?;
    let (supervisor, _) = frozen.bench.supervisor_and_watchdog()?;
    signal(supervisor, Signal::KILL)?;
    let took = resumes(frozen.dir(), STATED)?;
    println!("thawed {:.1} ms after kill -9 of the supervisor", took.as_secs_f64() * 1e3);
    let start = Instant::now();
    while !frozen.bench.records().is_empty() {
        ensure!(start.elapsed() < STATED, "{:?}", frozen.bench.records());
    }
    Ok(())
}

#[test]
fn a_killed_watchdog_is_replaced_and_nothing_thaws() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    let (supervisor, watchdog) = frozen.bench.supervisor_and_watchdog()?;
    signal(watchdog, Signal::KILL)?;
    let start = Instant::now();
    let next = loop {
        match frozen.bench.supervisor_and_watchdog() {
            Ok((_, next)) if next != watchdog => break next,
            _ => ensure!(start.elapsed() < STATED, "the watchdog is not replaced"),
        }
    };
    writes_nothing(frozen.dir())?;
    ensure!(frozen.bench.supervisor_and_watchdog()? == (supervisor, next));
    signal(supervisor, Signal::KILL)?;
    resumes(frozen.dir(), STATED)?;
    Ok(())
}

/// Both are killed before either can react: the next command undoes the freeze.
#[test]
fn an_orphaned_freeze_is_undone_by_the_next_command() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    let (supervisor, watchdog) = frozen.bench.supervisor_and_watchdog()?;
    signal(watchdog, Signal::STOP)?;
    signal(supervisor, Signal::KILL)?;
    signal(watchdog, Signal::KILL)?;
    writes_nothing(frozen.dir())?;
    let output = frozen.bench.command(&["resume", "--list"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("had lost its supervisor"), "{said}");
    resumes(frozen.dir(), STATED)?;
    Ok(())
}

/// The same while a screen or a guard runs: its helper process finds the freeze, without any
/// command.
#[test]
fn an_orphaned_freeze_is_undone_by_any_helper() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let mut helper = frozen.bench.command(&["helper"]);
    let mut helper = helper.stdin(std::os::fd::OwnedFd::from(theirs)).spawn()?;
    // The helper must not touch a freeze whose supervisor is alive.
    writes_nothing(frozen.dir())?;
    let (supervisor, watchdog) = frozen.bench.supervisor_and_watchdog()?;
    signal(watchdog, Signal::STOP)?;
    signal(supervisor, Signal::KILL)?;
    signal(watchdog, Signal::KILL)?;
    let took = resumes(frozen.dir(), STATED);
    drop(ours);
    let status = helper.wait()?;
    println!("thawed {:.0} ms after kill -9 of both", took?.as_secs_f64() * 1e3);
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_freeze_expires() -> Result {
    need_root!();
    let start = Timestamp::now();
    let frozen = Frozen::new(&["--for", "3s"])?;
    let done = Timestamp::now();
    let until: Timestamp = frozen.done["until"].as_str().context("until")?.parse()?;
    let three = SignedDuration::from_secs(3);
    ensure!(until > start + three && until < done + three, "from {start} or {done} until {until}");
    writes_nothing(frozen.dir())?;
    resumes(frozen.dir(), Duration::from_secs(3))?;
    let late = Timestamp::now().duration_since(until);
    let early = SignedDuration::from_millis(-100);
    ensure!(late > early && late < STATED.try_into()?, "resumed {late:#} after its time");
    Ok(())
}

/// If the supervisor hangs, its watchdog ends the freeze on time.
#[test]
fn a_freeze_expires_even_if_its_supervisor_hangs() -> Result {
    need_root!();
    let frozen = Frozen::new(&["--for", "2s"])?;
    let (supervisor, _) = frozen.bench.supervisor_and_watchdog()?;
    signal(supervisor, Signal::STOP)?;
    let thawed = resumes(frozen.dir(), Duration::from_secs(6));
    signal(supervisor, Signal::KILL)?;
    let took = thawed?;
    ensure!(took > Duration::from_secs(2), "{took:?}");
    Ok(())
}

/// `filltop stop` is killed with kill -9 at various moments: the target either runs or has a
/// supervisor.
#[test]
fn a_stop_killed_at_any_moment_leaves_no_orphaned_freeze() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let writer = small_writer(volume.path())?;
    resumes(volume.path(), SOON)?;
    // How long one `stop` takes on this machine.
    let start = Instant::now();
    Bench::new()?.stop(&writer.pid(), &[])?;
    let whole = start.elapsed();
    resumes(volume.path(), SOON)?;
    let mut halted = 0;
    for moment in 0..25u32 {
        let bench = Bench::new()?;
        let mut stop = bench.command(&["stop", &writer.pid(), "--yes", "--json"]);
        let mut stop = stop.stdout(std::process::Stdio::null()).spawn()?;
        std::thread::sleep(whole * moment / 20);
        stop.kill()?;
        stop.wait()?;
        std::thread::sleep(Duration::from_millis(300));
        if crate::state(writer.child.id())? == 'T' {
            halted += 1;
            let (supervisor, watchdog) = bench.supervisor_and_watchdog()?;
            ensure!(fs::exists(format!("/proc/{watchdog}"))?, "there is no watchdog");
            signal(supervisor, Signal::KILL)?;
        }
        resumes(volume.path(), STATED).with_context(|| format!("killed after {moment} steps"))?;
    }
    ensure!(halted > 0, "nothing was tested: no kill came after the freeze");
    println!("25 kills, {halted} of them after the freeze");
    Ok(())
}
