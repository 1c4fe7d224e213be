//! filltop is started late, or queried when everything is over.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use filltop_tests::{Server, fill_up_to, need_tracing, workload};

use crate::machine::patience;
use crate::stage::Stage;
use crate::{Result, need_program};

const NOBODY: u32 = 65_534;
/// Space that is left when the writer begins.
const LEFT_BYTES: u64 = 90 << 20;

#[test]
fn late() -> Result {
    need_tracing!();
    let mut writer = None;
    let stage = Stage::new(include_str!("late.toml"), &[], |mount, _| {
        fill_up_to(mount, LEFT_BYTES)?;
        let path = mount.join("journal");
        let path = path.to_str().context("UTF-8")?;
        let program = workload();
        let arguments = ["pace", path, "--rate", "3000000", "--block", "65536"];
        writer = Some(Server::start(std::path::Path::new(program.get_program()), &arguments)?);
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let writer = writer.context("the writer was started")?;
    stage.know("pid", &writer.pid().to_string());
    let event = stage.must("time")?;
    let (now, left) = (stage.free_bytes()?, event.avail_bytes.context("no figure")?);
    ensure!(now > 0, "it was full by then");
    let suggestion = event.suggestion.context("no suggested command")?;
    ensure!(suggestion.command == format!("filltop stop {} --how freeze", writer.pid()));
    let (eta, truth) = (event.eta_s.context("no estimate")?, left as f64 / 3e6);
    stage.truth(format!("at 3 MB/s {truth:.1} s were left when filltop reported {eta:.1} s"));
    ensure!((0.5..=2.0).contains(&(eta / truth)), "{eta} s, in truth {truth} s");
    stage.sample_other_tools("nearly full");
    stage.must("full")?;
    stage.finish()
}

#[test]
fn sort() -> Result {
    need_tracing!();
    let sort = need_program!("sort");
    let stage = Stage::new(include_str!("sort.toml"), &[], |mount, _| {
        Ok(std::os::unix::fs::chown(mount, Some(NOBODY), None)?)
    })?;
    let words = stage.dir.path().join("words");
    stage.begin("sorting");
    let mut input = Server::spawn(
        Command::new("base64").args(["-w", "99", "/dev/urandom"]).stdout(Stdio::piped()),
    )?;
    let pipe = input.0.stdout.take().context("piped")?;
    let mut child = Command::new(sort)
        .args(["-S", "16M", "--parallel=1", "-T"])
        .arg(stage.mount())
        .uid(NOBODY)
        .stdin(pipe)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&words)?)
        .spawn()?;
    let pid = child.id();
    stage.know("pid", &pid.to_string());
    let mut peak = 0;
    let before = stage.free_bytes()?;
    let status = loop {
        peak = peak.max(before.saturating_sub(stage.free_bytes()?));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        ensure!(stage.now_s() < patience(120).as_secs_f64(), "sort does not run out of space");
        stage.pump(Duration::from_millis(20));
    };
    stage.begin("died");
    let said = fs::read_to_string(&words)?;
    ensure!(!status.success() && said.contains("No space left"), "sort: {status}: {said}");
    let left = fs::read_dir(stage.mount())?.flatten().filter(|e| e.file_name() != "lost+found");
    ensure!(left.count() == 0, "sort has left files behind");
    stage.truth(format!(
        "sort took {peak} B, printed \"{}\", and has removed all of its files",
        said.lines().next().unwrap_or_default()
    ));
    stage.sample_other_tools("sort is dead, its files are gone");
    let event = stage.must("errors")?;
    ensure!(event.culprits.first().is_some_and(|row| row.pid == pid), "{:?}", event.culprits);
    stage.must("over")?;
    stage.pump(Duration::from_secs(3));
    // The writer has ended, but a command can still report it.
    let length = format!("{}s", stage.now_s().ceil() + 1.0);
    let snapshot = stage.snapshot(&length)?;
    let row = stage.writer(&snapshot, pid).context("sort has no row any longer")?;
    ensure!(!row.alive && row.errors.enospc > 0, "{row:?}");
    // With tracepoints alone, space is traced on ext4 only.
    if let Some((allocated, freed)) = row.allocated_bytes.zip(row.freed_bytes) {
        ensure!(allocated.abs_diff(freed) < 1 << 20 && allocated >= peak * 9 / 10, "{row:?}");
    }
    ensure!(row.allocated_bytes.is_some() || stage.volume_now()?.fs_type != "ext4", "{row:?}");
    ensure!(row.written_bytes >= peak * 9 / 10, "{row:?}");
    let volume = stage.mount().to_str().context("UTF-8")?;
    let told = stage.ask(&["snapshot", "--for", &length, "--top", "2", "--volume", volume])?;
    ensure!(told.contains("sort"), "{told}");
    stage.note("filltop snapshot, 5 s after its death", told.trim_end());
    stage.finish()
}
