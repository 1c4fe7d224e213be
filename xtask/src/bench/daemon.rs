//! What filltop itself takes, on this machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::document::{Goals, digits};
use crate::step::{capture, follow};
use crate::workspace::Workspace;
use crate::{build, native};

/// All of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Own {
    kernel: String,
    binary_bytes: u64,
    lines: Vec<Line>,
}

/// One line of `filltop-workload bench-daemon`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Start {
        tracing_ms: f64,
        cpu_ms: f64,
        screen_ms: f64,
    },
    Files {
        files: u64,
        seconds: f64,
        cpu_ms: f64,
        rss_kb: u64,
        idle_percent: f64,
        told: Option<(u64, u64, u64, u64)>,
    },
    Processes {
        processes: u64,
        megabytes_per_s: f64,
        rss_kb: u64,
        percent: f64,
    },
}

/// Runs the measurement.
pub(crate) fn measure(workspace: &Workspace, filltop: &Path) -> Result<Own> {
    let binaries = build::end_to_end(workspace, &[])?;
    let mut command = native::as_root(Path::new("/usr/bin/env"))?;
    command
        .arg(format!("FILLTOP_BIN={}", filltop.display()))
        .arg(binaries.workload)
        .arg("bench-daemon");
    let (success, lines) = follow(&mut command)?;
    ensure!(success, "measuring the daemon failed");
    let lines = lines.iter().map(|line| Ok(serde_json::from_str(line)?));
    let kernel = capture(std::process::Command::new("uname").arg("-r"))?;
    Ok(Own {
        kernel: kernel.trim().to_owned(),
        binary_bytes: fs::metadata(filltop)?.len(),
        lines: lines.collect::<Result<_>>()?,
    })
}

impl Own {
    /// As part of the document.
    pub(crate) fn tables(&self) -> String {
        let mut out = format!("## What filltop itself takes (Linux {})\n\n", self.kernel);
        #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let _ =
            writeln!(out, "The binary: {:.1} MB, linked statically.", megabytes(self.binary_bytes));
        for line in &self.lines {
            if let Line::Start { tracing_ms, cpu_ms, screen_ms } = line {
                let _ = writeln!(
                    out,
                    "From its start, {tracing_ms:.0} ms until all hooks are there ({cpu_ms:.0} ms of \
                     processor time), {screen_ms:.0} ms until the\nfirst screen with figures (goal: \
                     300 ms); medians of five."
                );
            }
        }
        out += "\nFiles are made on a tmpfs as fast as one process can, a byte is written into each, and \
                they stay. CPU is the daemon's\nprocessor time for all of them, idle its share of \
                one processor afterwards, over 10 s.\n\n\
                | files | made in s | CPU ms | RSS MB | idle % | files told | bytes told | bytes of \
                unknown files | events lost |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for line in &self.lines {
            let Line::Files { files, seconds, cpu_ms, rss_kb, idle_percent, told } = line else {
                continue;
            };
            let told = told.map_or("| | | |".to_owned(), |(rows, bytes, unknown, lost)| {
                let [rows, bytes, unknown, lost] = [rows, bytes, unknown, lost].map(count);
                format!("| {rows} | {bytes} | {unknown} | {lost}")
            });
            let _ = writeln!(
                out,
                "| {} | {seconds:.2} | {} | {:.1} | {idle_percent:.2} {told} |",
                count(*files),
                digits(*cpu_ms),
                megabytes(rss_kb * 1024),
            );
        }
        out += "\nSo many processes have written and sleep, while another one writes 100 MB/s in blocks of \
                100 kB.\n\n| processes | MB/s | CPU % | RSS MB |\n|---:|---:|---:|---:|\n";
        for line in &self.lines {
            let Line::Processes { processes, megabytes_per_s, rss_kb, percent } = line else {
                continue;
            };
            let _ = writeln!(
                out,
                "| {} | {megabytes_per_s:.1} | {percent:.2} | {:.1} |",
                count(*processes),
                megabytes(rss_kb * 1024),
            );
        }
        out + "\n" + &self.goals()
    }

    /// What is aimed at, and what came of it.
    fn goals(&self) -> String {
        let mut goals = Goals::default();
        #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
        let megabytes = |kb: u64| kb as f64 * 1024.0 / 1e6;
        for line in &self.lines {
            match line {
                Line::Start { screen_ms, .. } => {
                    goals.add("first screen, ms", Some(*screen_ms), 300.0);
                }
                Line::Files { files: 10_000, rss_kb, .. } => {
                    goals.add("RSS at 10,000 live files, MB", Some(megabytes(*rss_kb)), 32.0);
                }
                Line::Files { files: 1_000_000, rss_kb, .. } => {
                    goals.add("RSS at 1,000,000 live files, MB", Some(megabytes(*rss_kb)), 150.0);
                }
                Line::Processes { processes: 10_000, percent, .. } => {
                    goals.add("CPU beside 10,000 processes, %", Some(*percent), 1.0);
                }
                Line::Files { .. } | Line::Processes { .. } => {}
            }
        }
        goals.table()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts for people")]
fn count(value: u64) -> String {
    if value < 10 { value.to_string() } else { digits(value as f64) }
}
