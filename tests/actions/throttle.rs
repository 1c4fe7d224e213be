//! A writer of 100 MB/s is limited to 5 MB/s.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::TestVolume;

use crate::{Bench, Cgroup, Result, Writer, bytes_in, need_root, resumes};

const SOON: Duration = Duration::from_secs(5);
const RATE: f64 = 5e6;

/// How long the rate is measured; FILLTOP_THROTTLE_SECONDS=30 gives the figure.
fn length() -> Duration {
    let seconds = std::env::var("FILLTOP_THROTTLE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(10))
}

fn held_to_its_rate(arguments: &[&str], cgroup: Option<&Cgroup>) -> Result {
    let volume = TestVolume::new("ext4", 390)?;
    let bench = Bench::new()?;
    let at = |name: &str| volume.path().join(name).to_str().map(str::to_owned);
    let arguments: Vec<String> = arguments
        .iter()
        .map(|word| match *word {
            "FILE" => at("f"),
            "DIR" => at(""),
            word => Some(word.to_owned()),
        })
        .collect::<Option<_>>()
        .context("UTF-8")?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let writer = Writer::start(&arguments)?;
    if let Some(cgroup) = cgroup {
        cgroup.take(&writer.child)?;
    }
    resumes(volume.path(), SOON)?;
    let free = speed(volume.path(), Duration::from_millis(500))?;
    if free < 4.0 * RATE {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        println!("SKIP {name}: this machine writes no more than {:.1} MB/s", free / 1e6);
        return Ok(());
    }
    let done = bench.stop(&writer.pid(), &["--how", "throttle", "--rate", "5MB"])?;
    let slow = speed(volume.path(), length())?;
    println!("{:.1} MB/s free, {:.2} MB/s throttled to 5", free / 1e6, slow / 1e6);
    ensure!((slow / RATE - 1.0).abs() <= 0.2, "{slow} B/s");
    bench.resume(done["id"].as_str().context("id")?)?;
    let start = Instant::now();
    while speed(volume.path(), Duration::from_millis(400))? < 2.0 * RATE {
        ensure!(start.elapsed() < SOON, "it is still throttled");
    }
    Ok(())
}

fn speed(dir: &Path, time: Duration) -> Result<f64> {
    let (before, start) = (bytes_in(dir)?, Instant::now());
    std::thread::sleep(time);
    Ok((bytes_in(dir)? - before) as f64 / start.elapsed().as_secs_f64())
}

const PACE: &[&str] = &["pace", "FILE", "--rate", "100000000"];

#[test]
fn by_signals() -> Result {
    need_root!();
    held_to_its_rate(PACE, None)
}

#[test]
fn by_the_freezer() -> Result {
    need_root!();
    let cgroup = Cgroup::new("filltop-throttle")?;
    held_to_its_rate(PACE, Some(&cgroup))
}

/// Eight workers at a time that live 50 ms: 42 MB/s without a limit.
#[test]
fn a_forking_server() -> Result {
    need_root!();
    let server =
        ["fork-server", "DIR", "--workers", "100000", "--bytes", "262144", "--life-ms", "50"];
    held_to_its_rate(&server, None)
}
