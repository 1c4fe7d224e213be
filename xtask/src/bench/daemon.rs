//! The CPU time and memory of filltop itself, on this machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::table::{Goals, digits};
use crate::build;
use crate::command::tee;
use crate::privileges::as_root;
use crate::workspace::{Workspace, kernel_version};

/// All measurements of the daemon.
#[derive(Serialize, Deserialize)]
pub(crate) struct DaemonCost {
    kernel: String,
    binary_bytes: u64,
    lines: Vec<Line>,
}

/// A line of output of `filltop-workload bench-daemon`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    /// Startup: time until all hooks are attached, CPU time, and time until the first screen with figures.
    Start { tracing_ms: f64, cpu_ms: f64, screen_ms: f64 },
    /// Cost with this many live files.
    Files {
        files: u64,
        seconds: f64,
        cpu_ms: f64,
        rss_kb: u64,
        idle_percent: f64,
        /// Reported files, reported bytes, bytes of unknown files, and lost events; unknown if there are too many files.
        #[serde(rename = "told")]
        reported: Option<(u64, u64, u64, u64)>,
    },
    /// Cost with this many processes that have written.
    Processes { processes: u64, megabytes_per_s: f64, rss_kb: u64, percent: f64 },
}

/// Runs the measurement.
pub(crate) fn measure(workspace: &Workspace, filltop: &Path) -> Result<DaemonCost> {
    let binaries = build::end_to_end(workspace, &[])?;
    let mut command = as_root(Path::new("/usr/bin/env"))?;
    command
        .arg(format!("FILLTOP_BIN={}", filltop.display()))
        .arg(binaries.workload)
        .arg("bench-daemon");
    let (success, lines) = tee(&mut command)?;
    ensure!(success, "measuring the daemon failed");
    let lines = lines.iter().map(|line| Ok(serde_json::from_str(line)?));
    Ok(DaemonCost {
        kernel: kernel_version()?,
        binary_bytes: fs::metadata(filltop)?.len(),
        lines: lines.collect::<Result<_>>()?,
    })
}

impl DaemonCost {
    /// The section of the document.
    pub(crate) fn tables(&self) -> String {
        let mut out = format!("## Resource usage of filltop (Linux {})\n\n", self.kernel);
        #[expect(clippy::cast_precision_loss, reason = "displayed with one decimal")]
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let _ = writeln!(
            out,
            "The statically linked binary has {:.1} MB.",
            megabytes(self.binary_bytes)
        );
        for line in &self.lines {
            if let Line::Start { tracing_ms, cpu_ms, screen_ms } = line {
                let _ = writeln!(
                    out,
                    "Startup takes {tracing_ms:.0} ms until all hooks are attached ({cpu_ms:.0} ms of CPU time), and \
                     {screen_ms:.0} ms until the\nfirst screen with figures (goal: 300 ms); medians of five."
                );
            }
        }
        out += "\nOne process creates files on a tmpfs as fast as it can and writes one byte to each; the files \
                remain. CPU is the\ndaemon's CPU time for all of them, idle its share of one CPU in the \
                following 10 s.\n\n\
                | files | created in s | CPU ms | RSS MB | idle % | files reported | bytes reported | bytes of \
                unknown files | events lost |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for line in &self.lines {
            let Line::Files { files, seconds, cpu_ms, rss_kb, idle_percent, reported } = line
            else {
                continue;
            };
            let reported = reported.map_or("| | | |".to_owned(), |(rows, bytes, unknown, lost)| {
                let [rows, bytes, unknown, lost] = [rows, bytes, unknown, lost].map(count);
                format!("| {rows} | {bytes} | {unknown} | {lost}")
            });
            let _ = writeln!(
                out,
                "| {} | {seconds:.2} | {} | {:.1} | {idle_percent:.2} {reported} |",
                count(*files),
                digits(*cpu_ms),
                megabytes(rss_kb * 1024),
            );
        }
        out += "\nThis many processes have written and sleep, while another process writes 100 MB/s in blocks of \
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

    /// The goals and their figures.
    fn goals(&self) -> String {
        let mut goals = Goals::default();
        #[expect(clippy::cast_precision_loss, reason = "displayed with one decimal")]
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
                    goals.add("CPU with 10,000 processes, %", Some(*percent), 1.0);
                }
                Line::Files { .. } | Line::Processes { .. } => {}
            }
        }
        goals.table()
    }
}

#[expect(clippy::cast_precision_loss, reason = "displayed without decimals")]
fn count(value: u64) -> String {
    if value < 10 { value.to_string() } else { digits(value as f64) }
}
