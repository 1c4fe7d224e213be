//! The record of a run, for docs/incidents.md.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use serde::Serialize;

/// One run of one incident.
#[derive(Debug, Default, Serialize)]
pub struct Record {
    /// The scenario's name.
    pub name: String,
    /// The scenario's heading.
    pub title: String,
    /// What runs, from the scenario.
    pub runs: Vec<String>,
    /// Filesystem and size.
    pub volume: String,
    /// Kernel and backend.
    pub traced_by: String,
    /// The ground truth, measured without filltop.
    pub truth: Vec<String>,
    /// What filltop reported.
    pub said: Vec<Output>,
    /// What it had to report, and when it did.
    pub checks: Vec<Check>,
    /// What other tools printed meanwhile.
    pub looks: Vec<Sample>,
    /// Processor time that filltop took, as a share of one CPU.
    pub own_cpu: Option<f64>,
    /// What filltop's threads caused to be written to disks, bytes.
    pub own_bytes: Option<u64>,
}

/// A message of filltop.
#[derive(Debug, Serialize)]
pub struct Output {
    /// Seconds from the start of the workload.
    pub at_s: f64,
    /// Bytes available to ordinary users at that time.
    pub free_bytes: Option<u64>,
    /// `watch`, or the command that was typed.
    pub by: String,
    /// Its text.
    pub text: String,
}

/// Something that had to be reported.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What had to be reported.
    pub what: String,
    /// Deadline, in seconds from the start of the workload.
    pub by_s: f64,
    /// When it was reported, in seconds from the start of the workload.
    pub at_s: f64,
    /// Bytes available to ordinary users at that time.
    pub free_bytes: Option<u64>,
}

/// The output of other tools at one time.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// Seconds from the start of the workload.
    pub at_s: f64,
    /// The situation at that time.
    pub when: String,
    /// By tool: its output, shortened.
    pub tools: BTreeMap<&'static str, String>,
}

/// The directory for records, if they are wanted: `FILLTOP_RECORDS`.
pub fn folder() -> Option<PathBuf> {
    env::var_os("FILLTOP_RECORDS").map(PathBuf::from)
}

impl Record {
    /// Writes the record if it is wanted, with plain names for things that are named differently in
    /// each run.
    pub fn keep(&self, names: &[(String, String)]) -> anyhow::Result<()> {
        let Some(folder) = folder() else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)?;
        let plain = names.iter().fold(text, |text, (name, plain)| text.replace(name, plain));
        // The document covers the filesystems that the scenario files name.
        let other = env::var("FILLTOP_TEST_FS").map(|fs| format!("-{fs}")).unwrap_or_default();
        Ok(fs::write(folder.join(format!("{}{other}.json", self.name)), plain)?)
    }
}
