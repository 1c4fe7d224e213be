//! What `filltop stop` learns from the service before it prints its plan.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, filltop, need_tracing};
use serde_json::Value;

use crate::Result;
use crate::watch::{Watch, succeeded, utf8};
use crate::writer::{Job, Writer};

/// The plan of a freeze that stops right before its last step.
fn plan(pid: u32, arguments: &[&str]) -> anyhow::Result<Value> {
    let run = tempfile::tempdir()?;
    let output = Command::new(filltop())
        .args(["stop", &pid.to_string(), "--reach", "alone", "--dry-run", "--json"])
        .args(arguments)
        .env("FILLTOP_RUN_DIR", run.path())
        .output()?;
    let output = succeeded(output)?;
    let text = std::str::from_utf8(&output.stdout)?;
    Ok(serde_json::from_str(text.lines().next().context("no plan")?)?)
}

#[test]
fn the_plan_has_the_services_figures() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 390)?;
    let watch = Watch::start(&[])?;
    let writer = Writer::start(&Job {
        name: "runaway",
        root: volume.path(),
        block: 64 << 10,
        every_ms: 20,
        workers: 0,
        cgroup: None,
    })?;
    let pid = writer.pid()?;
    let socket = watch.socket();
    let socket = ["--socket", utf8(&socket)?];
    let start = Instant::now();
    let by_service = loop {
        let plan = plan(pid, &socket)?;
        let grown = plan["measured"]["volumes"][0]["growth_bytes_per_s"].as_f64();
        if grown.is_some_and(|growth| growth > 100_000.0) {
            break plan;
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "{}", plan["measured"]);
        thread::sleep(Duration::from_millis(200));
    };
    let measured = &by_service["measured"];
    ensure!(measured["source"] == "service", "{measured}");
    ensure!(measured["volumes"][0]["volume"] == utf8(volume.path())?, "{measured}");
    let here = plan(pid, &["--standalone"])?;
    ensure!(here["measured"]["source"] == "here", "{}", here["measured"]);
    let growth = here["measured"]["volumes"][0]["growth_bytes_per_s"].as_f64();
    ensure!(growth.is_some_and(|growth| growth > 100_000.0), "{}", here["measured"]);
    // A process that does not grow is marked as such before it is stopped in vain.
    let mut idle = Command::new("sleep").arg("60").spawn()?;
    let warned = plan(idle.id(), &socket);
    idle.kill()?;
    idle.wait()?;
    let warnings = warned?["warnings"].to_string();
    ensure!(warnings.contains("this stops no growth"), "{warnings}");
    // A plan without service or measurement is made immediately, and has no figures.
    let nowhere = plan(pid, &["--socket", "/nonexistent/socket"])?;
    ensure!(nowhere["measured"].is_null(), "{nowhere}");
    Ok(())
}
