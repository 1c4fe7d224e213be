//! Who answers for a freeze: whatever dies, the frozen thaw.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::TestVolume;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Bench, Result, Writer, goes_on, need_root, small_writer, stands_still};

const SOON: Duration = Duration::from_secs(5);
/// What docs/actions.md states.
const STATED: Duration = Duration::from_secs(1);

struct Frozen {
    volume: TestVolume,
    bench: Bench,
    _writer: Writer,
}

impl Frozen {
    fn new(arguments: &[&str]) -> Result<Self> {
        let volume = TestVolume::new("ext4", 64)?;
        let bench = Bench::new()?;
        let writer = small_writer(volume.path())?;
        goes_on(volume.path(), SOON)?;
        bench.stop(&writer.pid(), arguments)?;
        Ok(Self { volume, bench, _writer: writer })
    }

    fn dir(&self) -> &Path {
        self.volume.path()
    }
}

fn signal(pid: u32, signal: Signal) -> Result {
    Ok(kill_process(Pid::from_raw(pid as i32).context("pid")?, signal)?)
}

#[test]
fn killed_keepers_let_go() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    stands_still(frozen.dir())?;
    let (keeper, _) = frozen.bench.keepers()?;
    signal(keeper, Signal::KILL)?;
    let took = goes_on(frozen.dir(), STATED)?;
    println!("thawed {:.1} ms after kill -9 of the keeper", took.as_secs_f64() * 1e3);
    let start = Instant::now();
    while !frozen.bench.records().is_empty() {
        ensure!(start.elapsed() < STATED, "{:?}", frozen.bench.records());
    }
    Ok(())
}

#[test]
fn a_killed_second_is_replaced_and_nothing_thaws() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    let (keeper, second) = frozen.bench.keepers()?;
    signal(second, Signal::KILL)?;
    let start = Instant::now();
    let next = loop {
        match frozen.bench.keepers() {
            Ok((_, next)) if next != second => break next,
            _ => ensure!(start.elapsed() < STATED, "no other second"),
        }
    };
    stands_still(frozen.dir())?;
    ensure!(frozen.bench.keepers()? == (keeper, next));
    signal(keeper, Signal::KILL)?;
    goes_on(frozen.dir(), STATED)?;
    Ok(())
}

/// Both killed before either could see it: what the next command finds is undone.
#[test]
fn what_nobody_answers_for_is_undone_by_the_next_command() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    let (keeper, second) = frozen.bench.keepers()?;
    signal(second, Signal::STOP)?;
    signal(keeper, Signal::KILL)?;
    signal(second, Signal::KILL)?;
    stands_still(frozen.dir())?;
    let output = frozen.bench.command(&["resume", "--list"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("had lost its supervisor"), "{said}");
    goes_on(frozen.dir(), STATED)?;
    Ok(())
}

/// The same while a screen or a guard runs: their hands find it, without any command.
#[test]
fn what_nobody_answers_for_is_undone_by_anybodys_hands() -> Result {
    need_root!();
    let frozen = Frozen::new(&[])?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let mut hands = frozen.bench.command(&["hands"]);
    let mut hands = hands.stdin(std::os::fd::OwnedFd::from(theirs)).spawn()?;
    // They are not to blame for what is answered for.
    stands_still(frozen.dir())?;
    let (keeper, second) = frozen.bench.keepers()?;
    signal(second, Signal::STOP)?;
    signal(keeper, Signal::KILL)?;
    signal(second, Signal::KILL)?;
    let took = goes_on(frozen.dir(), STATED);
    drop(ours);
    let status = hands.wait()?;
    println!("thawed {:.0} ms after kill -9 of both", took?.as_secs_f64() * 1e3);
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn it_expires() -> Result {
    need_root!();
    let start = Instant::now();
    let frozen = Frozen::new(&["--for", "3s"])?;
    stands_still(frozen.dir())?;
    goes_on(frozen.dir(), Duration::from_secs(3))?;
    let took = start.elapsed();
    ensure!(took > Duration::from_millis(2_900) && took < Duration::from_secs(5), "{took:?}");
    Ok(())
}

/// A keeper that hangs is no keeper: its second goes by the time.
#[test]
fn it_expires_even_if_the_keeper_hangs() -> Result {
    need_root!();
    let frozen = Frozen::new(&["--for", "2s"])?;
    let (keeper, _) = frozen.bench.keepers()?;
    signal(keeper, Signal::STOP)?;
    let thawed = goes_on(frozen.dir(), Duration::from_secs(6));
    signal(keeper, Signal::KILL)?;
    let took = thawed?;
    ensure!(took > Duration::from_secs(2), "{took:?}");
    Ok(())
}

/// kill -9 of `filltop stop` at every moment: the target runs, or somebody answers for it.
#[test]
fn killed_at_any_moment_somebody_answers() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let writer = small_writer(volume.path())?;
    goes_on(volume.path(), SOON)?;
    // How long one takes here.
    let start = Instant::now();
    Bench::new()?.stop(&writer.pid(), &[])?;
    let whole = start.elapsed();
    goes_on(volume.path(), SOON)?;
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
            let (keeper, second) = bench.keepers()?;
            ensure!(fs::exists(format!("/proc/{second}"))?, "no second");
            signal(keeper, Signal::KILL)?;
        }
        goes_on(volume.path(), STATED).with_context(|| format!("killed after {moment} steps"))?;
    }
    ensure!(halted > 0, "the test is no test: it was never halted by then");
    println!("25 kills, {halted} of them when it was halted already");
    Ok(())
}
