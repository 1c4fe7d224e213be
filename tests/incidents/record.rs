//! What a run leaves behind for docs/incidents.md.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use serde::Serialize;

/// One run of one incident.
#[derive(Debug, Default, Serialize)]
pub struct Record {
    /// The scenario's.
    pub name: String,
    /// The scenario's.
    pub title: String,
    /// The scenario's.
    pub runs: Vec<String>,
    /// Filesystem and size.
    pub volume: String,
    /// Kernel, and how writes were traced.
    pub traced_by: String,
    /// What was true, measured without filltop.
    pub truth: Vec<String>,
    /// What filltop said.
    pub said: Vec<Said>,
    /// What had to be said, and when it was.
    pub checks: Vec<Check>,
    /// What others told meanwhile.
    pub looks: Vec<Look>,
    /// Processor time that filltop took, as a share of one CPU.
    pub own_cpu: Option<f64>,
    /// What filltop's threads caused to be written to disks, bytes.
    pub own_bytes: Option<u64>,
}

/// A sentence of filltop's.
#[derive(Debug, Serialize)]
pub struct Said {
    /// Seconds from the start of the workload.
    pub at_s: f64,
    /// Bytes that ordinary users could still take.
    pub free_bytes: Option<u64>,
    /// `watch`, or the command that was typed.
    pub by: String,
    /// Its words.
    pub text: String,
}

/// Something that had to be said.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// Seconds from the start of the workload at which it had to be said at the latest.
    pub by_s: f64,
    /// Seconds from the start of the workload at which it was.
    pub at_s: f64,
    /// Bytes that ordinary users could still take then.
    pub free_bytes: Option<u64>,
}

/// What other tools told at one time.
#[derive(Debug, Serialize)]
pub struct Look {
    /// Seconds from the start of the workload.
    pub at_s: f64,
    /// What was going on.
    pub when: String,
    /// By tool: its output, shortened.
    pub tools: BTreeMap<&'static str, String>,
}

/// Where records go, if they are wanted: `FILLTOP_RECORDS`.
pub fn folder() -> Option<PathBuf> {
    env::var_os("FILLTOP_RECORDS").map(PathBuf::from)
}

impl Record {
    /// Writes it where it is wanted, with plain names for what has another one in each run.
    pub fn keep(&self, names: &[(String, String)]) -> anyhow::Result<()> {
        let Some(folder) = folder() else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)?;
        let plain = names.iter().fold(text, |text, (name, plain)| text.replace(name, plain));
        // The document is of the filesystems that the scenario files name.
        let other = env::var("FILLTOP_TEST_FS").map(|fs| format!("-{fs}")).unwrap_or_default();
        Ok(fs::write(folder.join(format!("{}{other}.json", self.name)), plain)?)
    }
}
