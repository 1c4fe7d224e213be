//! The menu acts: freeze, resume; what the screen has frozen is resumed when the screen dies.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, need_tracing};
use rustix::process::Signal;

use crate::{Job, PROMISED, Result, SOON, Terminal, Writer, screen, shows};

fn size(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

fn grows(dir: &Path, within: Duration) -> Result {
    let (before, start) = (size(dir)?, Instant::now());
    while size(dir)? <= before {
        ensure!(start.elapsed() < within, "nothing is written");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub fn writes_nothing(dir: &Path) -> Result {
    let before = size(dir)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(size(dir)? == before, "the writer is not frozen");
    Ok(())
}

#[test]
fn the_menu_freezes_and_resumes_and_a_killed_screen_thaws() -> Result {
    need_tracing!();
    let run = tempfile::tempdir()?;
    let volume = TestVolume::new("ext4", 256)?;
    let root = volume.path();
    let job = Job {
        name: "frozen-writer",
        root,
        block: 16 << 10,
        every_ms: 20,
        workers: 0,
        cgroup: None,
    };
    let writer = Writer::start(&job)?;
    let pid = writer.pid()?.to_string();
    let mut command = screen(&[root.to_str().context("UTF-8")?]);
    command.env("FILLTOP_RUN_DIR", run.path());
    let mut terminal = Terminal::start(command, 120, 30)?;
    for round in 0..2 {
        terminal.wait_for("the culprit", PROMISED, |text| shows(text, &pid, "/volume"))?;
        // Freeze is the menu's first entry.
        terminal.press("x")?;
        terminal.wait_for("the menu", SOON, |text| text.contains("Actions for"))?;
        terminal.press("\r")?;
        terminal.wait_for("the question", SOON, |text| {
            text.contains("Press y to confirm") && text.contains(&pid)
        })?;
        terminal.press("y")?;
        terminal.wait_for("the result", SOON, |text| text.contains("suspended in"))?;
        writes_nothing(root)?;
        if round == 0 {
            // A frozen process writes nothing, so that no table lists it any longer.
            terminal.wait_for("no row", SOON, |text| text.contains("no writes in this window"))?;
            terminal.press("x")?;
            terminal.wait_for("resume", SOON, |text| text.contains("> resume"))?;
            terminal.press("\r")?;
            terminal.wait_for("the question", SOON, |text| text.contains("Press y to confirm"))?;
            terminal.press("y")?;
            terminal.wait_for("the result", SOON, |text| {
                text.contains("resumed") || text.contains("the suspension has ended")
            })?;
            grows(root, SOON)?;
        }
    }
    let start = Instant::now();
    terminal.signal(Signal::KILL)?;
    grows(root, Duration::from_secs(1))?;
    println!("resumed {:.0} ms after kill -9 of the screen", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
