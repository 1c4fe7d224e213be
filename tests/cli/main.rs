//! The command line as users see it: help, exit status, nothing but JSON on stdout.

use std::process::Command;

use anyhow::ensure;
use filltop_tests::{filltop, need_tracing};
use tracer_model::snapshot::Snapshot;

type Result = anyhow::Result<()>;

#[test]
fn wrong_usage_exits_with_2_and_a_message() -> Result {
    for arguments in [&["snapshot", "--for", "never"][..], &["--nonsense"], &["snapshot", "x"]] {
        let output = Command::new(filltop()).args(arguments).output()?;
        ensure!(output.status.code() == Some(2), "{arguments:?}: {:?}", output.status);
        ensure!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn every_command_has_help_with_an_exit_status_of_0() -> Result {
    for command in ["top", "snapshot", "watch", "check", "held", "doctor", "stop", "resume"] {
        let output = Command::new(filltop()).args([command, "--help"]).output()?;
        ensure!(output.status.success(), "{command}");
        let text = String::from_utf8(output.stdout)?;
        ensure!(text.contains("Usage: filltop"), "{command}: {text}");
        ensure!(text.lines().all(|line| line.chars().count() <= 100), "{command}: {text}");
    }
    Ok(())
}

#[test]
fn without_a_terminal_the_screen_suggests_what_to_do() -> Result {
    let output = Command::new(filltop()).output()?;
    ensure!(output.status.code() == Some(1));
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("filltop snapshot") && said.lines().count() == 1, "{said}");
    Ok(())
}

#[test]
fn the_first_figures_arrive_soon_and_stdout_has_only_json() -> Result {
    need_tracing!();
    let output = Command::new(filltop()).args(["snapshot", "--json", "--for", "100ms"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let snapshot: Snapshot = serde_json::from_slice(&output.stdout)?;
    ensure!(snapshot.interval_s >= 0.1, "{}", snapshot.interval_s);
    // With a tracepoint, or with a kprobe where tracepoint programs can be preempted.
    let ends = ["sched_process_exit", "acct_process"];
    ensure!(snapshot.backend.hooks.iter().any(|hook| ends.contains(&hook.name.as_str())));
    Ok(())
}

#[test]
fn text_fits_80_columns() -> Result {
    need_tracing!();
    let output = Command::new(filltop()).args(["snapshot", "--for", "100ms"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    ensure!(text.contains("VOLUME"), "{text}");
    Ok(())
}

#[test]
fn doctor_shows_the_backend() -> Result {
    need_tracing!();
    let output = Command::new(filltop()).args(["doctor", "--json"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["ok"] == true && report["write"].is_string(), "{report}");
    let hooks = report["hooks"].as_array().map_or(0, Vec::len);
    ensure!(hooks > 3, "{report}");
    Ok(())
}
