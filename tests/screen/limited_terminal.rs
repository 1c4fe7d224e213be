//! Limited terminals: no colour, sixteen colours, ASCII only, with a mouse and without.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use filltop_tests::{TestVolume, filltop, need_tracing};

use crate::pty::Terminal;
use crate::writer::Writer;
use crate::{PROMISED, Result, SOON, shows, steady};

/// The screen with these environment variables, once the culprit is on it.
fn with(
    environment: &[&str],
    arguments: &[&str],
    volume: &Path,
    pid: &str,
) -> anyhow::Result<Terminal> {
    // env(1) executes the program; these variables override those that all terminals of these tests
    // have.
    let mut command = Command::new("env");
    command.args(environment).arg(filltop()).args(arguments).arg("--standalone").arg(volume);
    let terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_for("the culprit", PROMISED, |text| shows(text, pid, "/volume"))?;
    Ok(terminal)
}

#[test]
fn colours_and_characters_fit_the_terminal() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let writer = Writer::start(&steady(volume.path()))?;
    let pid = writer.pid()?.to_string();
    let colour = with(&[], &[], volume.path(), &pid)?;
    ensure!(!colour.colours().is_empty() && !colour.text().is_ascii(), "{}", colour.text());
    // The sixteen colours that every terminal has, at its own choice: they fit its background.
    let basic = |colour: &vt100::Color| matches!(colour, vt100::Color::Idx(0..=15));
    ensure!(colour.colours().iter().all(basic), "{:?}", colour.colours());
    drop(colour);
    for (environment, arguments, ascii) in [
        (&["NO_COLOR=1"][..], &[][..], false),
        (&["NO_COLOR=1", "LC_ALL=C"], &[], true),
        (&["LC_ALL=C", "TERM=linux"], &[], true),
        (&["TERM=vt220"], &["--ascii"], true),
    ] {
        let mut terminal = with(environment, arguments, volume.path(), &pid)?;
        for key in ["2", "3", "x", "\x1b", "1", "\r", "\x1b", "?"] {
            terminal.press(key)?;
            std::thread::sleep(std::time::Duration::from_millis(100));
            let text = terminal.text();
            ensure!(text.is_ascii() == ascii, "{environment:?} {key}: {text}");
        }
        let colours = terminal.colours();
        ensure!(!environment.contains(&"NO_COLOR=1") || colours.is_empty(), "{colours:?}");
        terminal.press("\x1b")?;
        terminal.press("q")?;
        ensure!(terminal.end(SOON)?.success(), "{environment:?}");
    }
    Ok(())
}

#[test]
fn mouse_reporting_is_enabled_only_on_request() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 256)?;
    let writer = Writer::start(&steady(volume.path()))?;
    let pid = writer.pid()?.to_string();
    let plain = with(&[], &[], volume.path(), &pid)?;
    ensure!(!plain.wants_mouse());
    drop(plain);
    let mut terminal = with(&[], &["--mouse"], volume.path(), &pid)?;
    ensure!(terminal.wants_mouse());
    let text = terminal.text();
    let tabs = text.lines().position(|line| line.contains("2 groups")).unwrap_or_default();
    let column = text.lines().nth(tabs).and_then(|line| line.find("2 groups")).unwrap_or_default();
    // A press of the left button as xterm reports it, counted from 1.
    terminal.press(&format!("\x1b[<0;{};{}M", column + 2, tabs + 1))?;
    terminal.wait_for("the groups", SOON, |text| text.contains("PROCS"))?;
    terminal.press("q")?;
    ensure!(terminal.end(SOON)?.success() && !terminal.wants_mouse());
    Ok(())
}
