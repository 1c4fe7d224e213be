//! The real program in a pseudo-terminal, against real writers.

mod acting;
mod limited_terminal;
mod pty;
mod remote;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, filltop, need_tracing};
use pty::Terminal;
use rustix::process::Signal;
use rustix::termios::LocalModes;
use tracer_model::snapshot::Snapshot;
use writer::{Job, Writer};

type Result = anyhow::Result<()>;

const SOON: Duration = Duration::from_secs(5);
/// Limit from the command to the culprit on the screen, as promised to operators.
const PROMISED: Duration = Duration::from_secs(10);

fn screen(arguments: &[&str]) -> Command {
    let mut command = Command::new(filltop());
    command.args(arguments);
    if let Ok(backend) = std::env::var("FILLTOP_BACKEND") {
        command.args(["--backend", &backend]);
    }
    command
}

/// 32 to 64 KiB fifty times a second: 2.3 MiB/s.
fn steady(root: &Path) -> Job<'_> {
    Job { name: "steady-writer", root, block: 64 << 10, every_ms: 20, workers: 0, cgroup: None }
}

/// Whether the first row of the table is about `who`, on the volume whose name ends with `mount`.
fn shows(text: &str, who: &str, mount: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let Some(tabs) = lines.iter().position(|line| line.contains("1 writers")) else { return false };
    lines[tabs].ends_with(mount) && lines.get(tabs + 2).is_some_and(|first| first.contains(who))
}

#[test]
fn the_culprit_is_on_the_screen_within_ten_seconds_and_every_view_has_it() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let writer = Writer::start(&steady(volume.path()))?;
    let pid = writer.pid()?.to_string();
    let start = Instant::now();
    let mut terminal = Terminal::start(screen(&[]), 80, 24)?;
    terminal.wait_for("the culprit", PROMISED, |text| shows(text, &pid, "/volume"))?;
    println!("culprit on the screen after {:.1} s", start.elapsed().as_secs_f64());
    for (key, found) in [
        ("2", "PROCS"),
        ("3", "DRAIN"),
        ("4", "grows.log"),
        ("5", "5 held"),
        ("6", "6 victims"),
        ("1", pid.as_str()),
        ("\r", "parents"),
        ("\x1b", "WRITTEN/s"),
        ("i", "Tracer status"),
        ("i", "WRITTEN/s"),
        ("?", "Keys"),
        ("?", "WRITTEN/s"),
        ("/", "filter"),
        ("no such row", "no rows match"),
        ("\x1b", pid.as_str()),
        (" ", "PAUSED"),
        (" ", "lost 0"),
    ] {
        terminal.press(key)?;
        // A lone escape is recognized because no sequence follows.
        terminal
            .wait_for(&format!("{found:?} after {key:?}"), SOON, |text| text.contains(found))?;
    }
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success());
    ensure!(!terminal.on_second_screen());
    Ok(())
}

#[test]
fn the_screen_follows_resizes() -> Result {
    need_tracing!();
    let mut terminal = Terminal::start(screen(&[]), 80, 24)?;
    terminal.wait_for("the screen", PROMISED, |text| text.contains("q quit"))?;
    for (columns, rows, found) in
        [(20, 5, "needed)"), (300, 100, "q quit"), (40, 12, "1 writers"), (80, 24, "q quit")]
    {
        terminal.resize(columns, rows)?;
        let is_there = |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            text.contains(found)
                && lines.len() <= usize::from(rows)
                && lines.iter().all(|line| line.chars().count() <= usize::from(columns))
        };
        terminal.wait_for(&format!("{columns} x {rows}"), SOON, is_there)?;
    }
    // A key that arrives together with a resize is not lost.
    for turn in 0..20u16 {
        terminal.resize(80 + turn % 2, 24)?;
        terminal.press("?")?;
        let opened = turn % 2 == 0;
        terminal.wait_for(&format!("key {turn}"), SOON, |text| text.contains("Keys") == opened)?;
    }
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success());
    Ok(())
}

#[test]
fn ctrl_z_suspends_it_and_sigcont_resumes_it() -> Result {
    need_tracing!();
    let mut terminal = Terminal::start(screen(&[]), 80, 24)?;
    let before = terminal.modes()?;
    terminal.wait_for("the screen", PROMISED, |text| text.contains("q quit"))?;
    ensure!(!terminal.modes()?.local_modes.contains(LocalModes::ICANON));
    terminal.press("\x1a")?;
    let start = Instant::now();
    while terminal.state()? != 'T' {
        ensure!(start.elapsed() < SOON, "not stopped: {}", terminal.state()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(terminal.modes()?.local_modes == before.local_modes);
    terminal.wait_for("the shell's screen", SOON, |_| !terminal.on_second_screen())?;
    terminal.signal(Signal::CONT)?;
    terminal.wait_for("the screen again", SOON, |text| text.contains("q quit"))?;
    ensure!(terminal.on_second_screen());
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success());
    Ok(())
}

#[test]
fn a_signal_restores_the_terminal() -> Result {
    need_tracing!();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = Terminal::start(screen(&[]), 80, 24)?;
        let before = terminal.modes()?;
        terminal.wait_for("the screen", PROMISED, |text| text.contains("q quit"))?;
        terminal.signal(signal)?;
        let start = Instant::now();
        ensure!(terminal.end(SOON)?.success(), "{signal:?}");
        ensure!(
            start.elapsed() < Duration::from_millis(1_200),
            "{signal:?}: {:?}",
            start.elapsed()
        );
        ensure!(!terminal.on_second_screen(), "{signal:?}");
        let after = terminal.modes()?;
        ensure!(after.local_modes == before.local_modes && after.input_modes == before.input_modes);
    }
    Ok(())
}

#[test]
fn a_stalled_terminal_does_not_stop_collecting() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let writer = Writer::start(&steady(volume.path()))?;
    let pid = writer.pid()?.to_string();
    // Narrowed to this volume, so that other writers on the machine do not matter.
    let mount = volume.path().to_str().context("UTF-8")?;
    let mut terminal = Terminal::start(screen(&["--interval", "500ms", mount]), 200, 50)?;
    terminal.wait_for("the culprit", PROMISED, |text| shows(text, &pid, "/volume"))?;
    terminal.read(false);
    for _ in 0..20 {
        // Full redraws: more than the terminal's buffer holds.
        terminal.press("\x0c")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let stalled = terminal.received();
    std::thread::sleep(Duration::from_secs(8));
    // At most one read was under way.
    ensure!(terminal.received() - stalled <= 8192, "the output was read");
    terminal.read(true);
    let history = |text: &str| -> Option<u32> {
        text.split_once("history ")?.1.split_once(" s,")?.0.trim().parse().ok()
    };
    terminal.wait_for("what was collected meanwhile", SOON, |text| {
        history(text).is_some_and(|seconds| seconds >= 9)
    })?;
    terminal.press("h")?;
    terminal.wait_for("a Snapshot of the stalled time", SOON, |text| {
        text.contains("PAST") && text.contains(&pid)
    })?;
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success());
    Ok(())
}

/// A pre-forking server in its own cgroup and root directory, whose workers live 50 ms.
#[test]
fn mod_gzip_is_found_in_its_cgroup_and_root() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let root = volume.path().join("jail");
    fs::create_dir(&root)?;
    let Some(cgroup) = Cgroup::new("filltop-mod-gzip") else {
        println!("SKIP mod_gzip_is_found_in_its_cgroup_and_root: no writable cgroup v2");
        return Ok(());
    };
    let job = Job {
        name: "mod_gzip",
        root: &root,
        block: 64 << 10,
        every_ms: 50,
        workers: 4,
        cgroup: Some(&cgroup.0),
    };
    let _server = Writer::start(&job)?;
    let run = tempfile::tempdir()?;
    let mut command = screen(&[]);
    command.env("FILLTOP_RUN_DIR", run.path());
    let start = Instant::now();
    let mut terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_for("a busy volume", PROMISED, |text| {
        text.lines().any(|line| line.starts_with('>') && line.contains("/volume"))
    })?;
    // Many processes of one name: their group is the culprit.
    terminal.press("2")?;
    terminal.wait_for("the group", PROMISED, |text| {
        let rows = text.lines().skip_while(|line| !line.contains("PROCS")).nth(1);
        rows.is_some_and(|first| first.contains("mod-gzip") || first.contains("mod_gzip"))
    })?;
    let found = (terminal.presses, start.elapsed());
    terminal.press("x")?;
    terminal.wait_for("the command", SOON, |text| text.contains("filltop stop"))?;
    let menu = (terminal.presses, start.elapsed());
    terminal.press("\r")?;
    terminal.wait_for("the confirmation", SOON, |text| text.contains("Confirm action on"))?;
    let asked = (terminal.presses, start.elapsed());
    println!("{}", terminal.text());
    terminal.press("y")?;
    terminal.wait_for("the result", SOON, |text| text.contains("suspended in"))?;
    let stopped = (terminal.presses, start.elapsed());
    acting::writes_nothing(&root)?;
    for (what, (presses, time)) in [
        ("the culprit", found),
        ("the stop command", menu),
        ("the confirmation", asked),
        ("the culprit is suspended", stopped),
    ] {
        println!("mod_gzip: {what} after {presses} key presses, {:.1} s", time.as_secs_f64());
    }
    terminal.press("q")?;
    Ok(())
}

/// A cgroup v2 of the test's own; removed on drop.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let path = Path::new(mount.split(' ').nth(4)?).join(name);
        fs::create_dir_all(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn over_a_real_ssh_connection() -> Result {
    need_tracing!();
    let Some(server) = remote::Server::start()? else {
        println!("SKIP over_a_real_ssh_connection: ssh or sshd is not installed (openssh-server)");
        return Ok(());
    };
    let volume = TestVolume::new("ext4", 256)?;
    let writer = Writer::start(&steady(volume.path()))?;
    let pid = writer.pid()?.to_string();
    let start = Instant::now();
    let command = format!("LC_ALL=C.UTF-8 {}", filltop().display());
    let mut terminal = Terminal::start(server.client(&command), 80, 24)?;
    terminal.wait_for("the culprit", PROMISED, |text| shows(text, &pid, "/volume"))?;
    println!("ssh: culprit after {:.1} s", start.elapsed().as_secs_f64());
    terminal.resize(100, 30)?;
    terminal.wait_for("the new size", SOON, |text| text.lines().count() == 30)?;
    let sent = terminal.received();
    std::thread::sleep(Duration::from_secs(5));
    println!("ssh: {} bytes/s", (terminal.received() - sent) / 5);
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success());
    ensure!(!terminal.on_second_screen());
    Ok(())
}

#[test]
fn a_recording_is_replayed() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let writer = Writer::start(&steady(volume.path()))?;
    let pid = writer.pid()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("test.rec");
    let name = file.to_str().context("UTF-8")?;
    let output =
        screen(&["record", "--out", name, "--max-size", "4MiB", "--for", "4s"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(filltop()).args(["replay", name, "--json"]).output()?;
    let lines = String::from_utf8(output.stdout)?;
    let snapshots: Vec<Snapshot> =
        lines.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    ensure!((3..=6).contains(&snapshots.len()), "{}", snapshots.len());
    // The last interval is cut short by the end, and may contain no write.
    let mut whole = snapshots.iter().filter(|one| one.interval_s >= 0.5);
    ensure!(whole.all(|one| one.writers.iter().any(|writer| writer.pid == pid)));
    let output = Command::new(filltop()).args(["replay", name, "--at", "-500ms"]).output()?;
    ensure!(String::from_utf8(output.stdout)?.contains(&pid.to_string()));
    drop(writer);
    let mut terminal = Terminal::start(screen(&["top", "--replay", name]), 80, 24)?;
    let pid = pid.to_string();
    terminal.wait_for("the recording", SOON, |text| text.contains("REPLAY"))?;
    // Another volume may have been more urgent.
    terminal.press("a")?;
    // It opens at its end: the last interval may contain no write.
    terminal.press("h")?;
    terminal.wait_for("an earlier Snapshot", SOON, |text| text.contains("PAST"))?;
    terminal.wait_for("the writer", SOON, |text| text.contains(&pid))?;
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success());
    // Recording to a nearly full volume is refused.
    let full = TestVolume::new("ext4", 64)?;
    let on_it = full.path().join("test.rec");
    let output = screen(&["record", "--out"]).arg(&on_it).args(["--for", "1s"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && said.contains("less than 5 %"), "{said}");
    ensure!(!on_it.exists());
    Ok(())
}
