//! One tracer, many readers: the service, the clients that attach to it, and those that scrape it.

mod container;
mod fleet;
mod hostile;
mod install;
mod kubernetes;
mod manifest;
#[path = "../screen/pty.rs"]
#[expect(dead_code, reason = "shared with the suite `screen`, which uses all of it")]
mod pty;
mod stop;
mod watch;
#[path = "../screen/writer.rs"]
mod writer;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{
    TestVolume, bpf_programs, filltop, need_tracing, run_workload, wait_until, workload,
};
use pty::Terminal;
use rustix::process::Signal;
use tracer_model::snapshot::{Held, Snapshot, State, Volume};
use watch::{Watch, succeeded, utf8, value};
use writer::{Job, Writer};

type Result = anyhow::Result<()>;

#[test]
fn snapshot_prints_the_services_data_immediately() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let watch = Watch::start(&[])?;
    let path = volume.path().join("before");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "30000000"]))?;
    let series = written_bytes_of(volume.path())?;
    watch.settled("", |text| value(text, &series) == Some(truth.total() as f64))?;
    let programs = bpf_programs()?;
    let start = Instant::now();
    let snapshot = watch.snapshot("60s")?;
    let took = start.elapsed();
    println!("answered after {:.0} ms", took.as_secs_f64() * 1e3);
    ensure!(took < Duration::from_secs(1), "{took:?}");
    let writer = snapshot.writers.iter().find(|writer| writer.pid == truth.pid);
    let writer = writer.context("the earlier writer has no row")?;
    ensure!(writer.written_bytes == truth.total(), "{} bytes", writer.written_bytes);
    ensure!(snapshot.paths.iter().any(|row| row.path == path.to_string_lossy()));
    // Nothing was loaded for the command, not even for a moment.
    ensure!(bpf_programs()? == programs, "BPF programs were loaded or unloaded");
    // After a while the data of the last second no longer includes the writer.
    wait_until("the writer is not in the last second", Duration::from_secs(10), || {
        let later = watch.snapshot("1s")?;
        ensure!(later.interval_s < 2.0, "{} s", later.interval_s);
        Ok(later.writers.iter().all(|writer| writer.pid != truth.pid))
    })?;
    let took = watch.stop()?;
    ensure!(took < Duration::from_secs(1), "stopped only after {took:?}");
    Ok(())
}

/// The service judges each second; the last seconds as one were full if one of them was.
#[test]
fn a_volume_that_was_full_in_the_interval_was_full() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let watch = Watch::start(&[])?;
    let path = volume.path().join("all");
    run_workload(workload().arg("fill").arg(&path).args(["--block", "1048576"]))?;
    std::fs::remove_file(&path)?;
    wait_until("it was seen full, and is calm again", Duration::from_secs(15), || {
        let seen = of(&watch.snapshot("30s")?, volume.path())?.was_full;
        Ok(seen && state(&watch.snapshot("100ms")?, volume.path())? == State::Calm)
    })?;
    let whole = watch.snapshot("30s")?;
    ensure!(state(&whole, volume.path())? == State::Full, "{:?}", whole.volumes);
    Ok(())
}

/// The state of a volume.
fn state(snapshot: &Snapshot, volume: &Path) -> anyhow::Result<State> {
    Ok(of(snapshot, volume)?.verdict.as_ref().context("no verdict")?.state)
}

/// The row of a volume.
fn of<'s>(snapshot: &'s Snapshot, volume: &Path) -> anyhow::Result<&'s Volume> {
    let row = snapshot.volumes.iter().find(|row| Path::new(&row.mount_point) == volume);
    row.context("no such volume")
}

/// The series of a volume's written bytes.
fn written_bytes_of(volume: &Path) -> anyhow::Result<String> {
    Ok(format!("filltop_volume_written_bytes_total{{volume=\"{}\"}}", utf8(volume)?))
}

#[test]
fn held_is_answered_by_the_service() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let path = volume.path().join("ghost");
    let mut file = File::create(&path)?;
    file.write_all(&vec![1; 5_000_000])?;
    file.sync_all()?;
    std::fs::remove_file(&path)?;
    let watch = Watch::start(&[])?;
    let output = succeeded(watch.ask(&["held", "--json"]).output()?)?;
    let held: Vec<Held> = serde_json::from_slice(&output.stdout)?;
    let row = held
        .iter()
        .find(|row| row.path == path.to_string_lossy())
        .context("the deleted file is not listed")?;
    ensure!(row.pid == std::process::id() && row.bytes >= 5_000_000, "{row:?}");
    Ok(())
}

/// The scan of all open files is repeated only every ten seconds.
#[test]
fn what_was_held_is_gone_as_soon_as_it_is_free() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let path = volume.path().join("ghost");
    let mut file = File::create(&path)?;
    file.write_all(&vec![1; 20_000_000])?;
    file.sync_all()?;
    std::fs::remove_file(&path)?;
    // It scans as it starts.
    let watch = Watch::start(&[])?;
    let held = || -> anyhow::Result<Option<u64>> {
        Ok(of(&watch.snapshot("100ms")?, volume.path())?.held_bytes)
    };
    wait_until("it is held", Duration::from_secs(20), || {
        Ok(held()?.is_some_and(|bytes| bytes >= 20_000_000))
    })?;
    file.set_len(5_000_000)?;
    wait_until("it is smaller", Duration::from_secs(4), || {
        Ok(held()?.is_some_and(|bytes| bytes < 6_000_000))
    })?;
    drop(file);
    wait_until("it is gone", Duration::from_secs(4), || Ok(held()? == Some(0)))?;
    Ok(())
}

#[test]
fn commands_measure_directly_without_a_service_or_with_standalone() -> Result {
    need_tracing!();
    let mut watch = Watch::start(&[])?;
    let socket = watch.socket();
    let socket = utf8(&socket)?;
    let programs = bpf_programs()?.len();
    let command = ["snapshot", "--json", "--for", "1500ms", "--standalone", "--socket", socket];
    let mut child =
        Command::new(filltop()).args(command).stdout(std::process::Stdio::null()).spawn()?;
    let start = Instant::now();
    while bpf_programs()?.len() <= programs {
        ensure!(start.elapsed() < Duration::from_secs(5), "it loads no BPF program");
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(child.wait()?.success());
    // A killed service leaves its socket behind.
    watch.kill()?;
    let command = ["snapshot", "--json", "--for", "300ms", "--socket", socket];
    let output = succeeded(Command::new(filltop()).args(command).output()?)?;
    let snapshot: Snapshot = serde_json::from_slice(&output.stdout)?;
    ensure!((0.3..2.0).contains(&snapshot.interval_s), "{} s", snapshot.interval_s);
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("measuring directly instead") && said.lines().count() == 1, "{said}");
    Ok(())
}

/// The operator logs in at 01:20 and scrolls back to 01:14.
#[test]
fn a_screen_that_attaches_scrolls_back_to_before_it_was_opened() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let mut watch = Watch::start(&[])?;
    let root = volume.path();
    let job = |name| Job { name, root, block: 64 << 10, every_ms: 10, workers: 0, cgroup: None };
    let early = Writer::start(&job("early-writer"))?;
    thread::sleep(Duration::from_secs(3));
    let early_pid = early.pid()?.to_string();
    drop(early);
    let late = Writer::start(&job("late-writer"))?;
    let late_pid = late.pid()?.to_string();
    thread::sleep(Duration::from_secs(3));
    let programs = bpf_programs()?;
    let mut terminal = Terminal::start(watch.ask(&["top", utf8(root)?]), 100, 30)?;
    let soon = Duration::from_secs(5);
    let now = terminal.wait_for("the present writer", soon, |text| text.contains(&late_pid))?;
    println!("first screen after {:.0} ms", now.as_secs_f64() * 1e3);
    ensure!(bpf_programs()? == programs, "programs were loaded for the screen");
    ensure!(
        !terminal.text().contains(&early_pid),
        "still listed: {early_pid}\n{}",
        terminal.text()
    );
    // The screen's second is two of the service's intervals: still one row per writer.
    thread::sleep(Duration::from_secs(2));
    // The verdict above the table names it as well.
    let is_row = |line: &&str| {
        let line = line.trim_start_matches(['>', ' ']);
        line.split_whitespace().next() == Some(late_pid.as_str())
    };
    let rows = terminal.text().lines().filter(is_row).count();
    ensure!(rows == 1, "{}", terminal.text());
    let before = |text: &str| text.contains(&early_pid) && !text.contains(&late_pid);
    let mut steps = 0;
    while !before(&terminal.text()) {
        ensure!(steps < 40, "not in the past: {early_pid}\n{}", terminal.text());
        terminal.press("\x1b[D")?;
        steps += 1;
        thread::sleep(Duration::from_millis(100));
    }
    println!("{steps} steps back");
    // The screen stays in the past when new data arrives.
    thread::sleep(Duration::from_secs(1));
    ensure!(before(&terminal.text()), "{}", terminal.text());
    // A restart of the service is survived, its end is reported.
    let socket = watch.socket();
    watch.kill()?;
    let again = Command::new(filltop())
        .args(["watch", "--interval", "500ms", "--socket", utf8(&socket)?])
        .spawn();
    let mut again = Guarded(again?);
    // Back to the present.
    terminal.press(" ")?;
    let killed = terminal.text();
    let clock = |text: &str| text.lines().next().map(str::to_owned);
    terminal.wait_for("the new service's numbers", Duration::from_secs(10), |text| {
        clock(text) != clock(&killed) && !text.contains("PAST") && text.contains(&late_pid)
    })?;
    thread::sleep(Duration::from_secs(2));
    ensure!(again.0.try_wait()?.is_none(), "the second service has ended");
    again.kill()?;
    let status = terminal.end(Duration::from_secs(25))?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(terminal.text().contains("lost the connection to the service"), "{}", terminal.text());
    Ok(())
}

/// A child that is killed, by its pid, on drop.
struct Guarded(std::process::Child);

impl Guarded {
    fn kill(&mut self) -> Result {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

#[test]
fn counters_equal_the_truth_to_the_byte() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let dir = volume.path().join("declared");
    std::fs::create_dir(&dir)?;
    let watch = Watch::start(&["--metrics-directory", utf8(&dir)?])?;
    let mount = utf8(volume.path())?;
    let series = written_bytes_of(volume.path())?;
    let mut total = 0;
    for n in 0..5 {
        let path = dir.join(format!("file{n}"));
        let truth = run_workload(workload().arg("write").arg(path).args(["--bytes", "7654321"]))?;
        total += truth.total();
        // Across several intervals, so that they have to be summed.
        thread::sleep(Duration::from_millis(400));
    }
    let declared = format!("{{directory=\"{}\",volume=\"{mount}\"}}", utf8(&dir)?);
    let inflow = format!("filltop_directory_inflow_bytes_total{declared}");
    let text = watch.settled("application/openmetrics-text; version=1.0.0", |text| {
        let taken = value(text, &inflow).unwrap_or(0.0);
        value(text, &series) == Some(total as f64) && taken > total as f64 * 0.99
    })?;
    ensure!(text.ends_with("# EOF\n"), "{text}");
    let counted = value(&text, &series).context("no counter")?;
    ensure!(counted == total as f64, "{counted} of {total} bytes");
    // The workloads belong to one group, whatever its name is here.
    let written: f64 = text
        .lines()
        .filter(|line| line.starts_with("filltop_group_written_bytes_total{"))
        .filter(|line| line.contains(&format!("volume=\"{mount}\"")))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    ensure!(written == total as f64, "groups wrote {written} of {total} bytes");
    let inflow = value(&text, &inflow).context("no inflow")?;
    ensure!((inflow / total as f64 - 1.0).abs() < 0.01, "inflow {inflow} of {total} bytes");
    for own in ["process_cpu_seconds_total", "process_resident_memory_bytes"] {
        ensure!(value(&text, own).is_some_and(|value| value > 0.0), "{own}");
    }
    ensure!(!text.contains("file0"), "a path is in the metrics");
    Ok(())
}

/// The notifications to systemd, and those that are withheld when the program hangs.
#[test]
fn systemd_is_notified_of_its_state() -> Result {
    need_tracing!();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    let mut command = Command::new(filltop());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
    let watch = Watch::start_by(command, &[])?;
    let hear = |limit: Duration| -> Option<String> {
        manager.set_read_timeout(Some(limit)).ok()?;
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let wait_for = |what: &str, limit: Duration| -> Result {
        let start = Instant::now();
        while start.elapsed() < limit {
            if hear(limit).is_some_and(|said| said.lines().any(|line| line.starts_with(what))) {
                return Ok(());
            }
        }
        anyhow::bail!("not notified within {limit:?}: {what}")
    };
    wait_for("READY=1", Duration::from_secs(1))?;
    for _ in 0..3 {
        wait_for("WATCHDOG=1", Duration::from_secs(2))?;
    }
    wait_for("STATUS=", Duration::from_secs(2))?;
    watch.signal(Signal::STOP)?;
    while hear(Duration::from_millis(200)).is_some() {}
    ensure!(hear(Duration::from_secs(3)).is_none(), "a stopped service is reported as alive");
    watch.signal(Signal::CONT)?;
    wait_for("WATCHDOG=1", Duration::from_secs(2))?;
    watch.stop()?;
    wait_for("STOPPING=1", Duration::from_secs(1))
}
