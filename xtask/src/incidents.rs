//! `cargo xtask incidents`: runs the re-enacted incidents on this machine, and generates docs/incidents.md from
//! the records of the runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::workspace::Workspace;
use crate::{build, packages, suite, vm};

const SUITE: &str = "incidents";
/// The incidents in the order of the document. The tests have the same names.
const NAMES: &[&str] = &["staging", "spool", "jail", "engine", "cache", "late", "sort"];
/// Other tools, whose output the records quote, and their Debian packages.
const OTHER_TOOLS: &[(&str, &str)] =
    &[("lsof", "lsof"), ("fatrace", "fatrace"), ("iotop-c", "iotop-c"), ("pidstat", "sysstat")];

/// Which incidents to run, and where.
#[derive(Args)]
pub(crate) struct IncidentsArgs {
    /// staging, spool, jail, engine, cache, late or sort [default: all]
    name: Vec<String>,
    /// Only write the document, from the records of the last runs
    #[arg(long, conflicts_with = "name")]
    document: bool,
    /// Run them in a Debian 12 that is booted for them, where filltop uses fentry, and write no document
    #[arg(long, conflicts_with = "document")]
    vm: bool,
}

/// The record of one run, which the test writes to `target/incidents/NAME.json`.
#[derive(Deserialize)]
struct Record {
    title: String,
    runs: Vec<String>,
    volume: String,
    traced_by: String,
    truth: Vec<String>,
    #[serde(rename = "said")]
    output: Vec<Output>,
    checks: Vec<Check>,
    #[serde(rename = "looks")]
    samples: Vec<Sample>,
    own_cpu: Option<f64>,
    own_bytes: Option<u64>,
}

/// Output of filltop: an event of `watch`, or of a command.
#[derive(Deserialize)]
struct Output {
    at_s: f64,
    free_bytes: Option<u64>,
    by: String,
    text: String,
}

/// Something that filltop had to report by a certain time, and when it did.
#[derive(Deserialize)]
struct Check {
    what: String,
    by_s: f64,
    at_s: f64,
    free_bytes: Option<u64>,
}

/// The output of other tools at one moment.
#[derive(Deserialize)]
struct Sample {
    at_s: f64,
    when: String,
    tools: BTreeMap<String, String>,
}

/// Runs the incidents and writes the document from all available records.
pub(crate) fn run(workspace: &Workspace, arguments: &IncidentsArgs) -> Result<()> {
    let records = workspace.target.join("incidents");
    fs::create_dir_all(&records)?;
    for name in &arguments.name {
        ensure!(NAMES.contains(&&**name), "unknown incident {name}; known: {}", NAMES.join(", "));
    }
    if !arguments.document {
        let filltop = build::build(workspace)?;
        let names: Vec<&str> = if arguments.name.is_empty() {
            NAMES.to_vec()
        } else {
            arguments.name.iter().map(String::as_str).collect()
        };
        // Tests are called MODULE::INCIDENT.
        let filters: Vec<String> = names.iter().map(|name| format!("::{name}")).collect();
        let tally = if arguments.vm {
            vm::run_incidents(workspace, &filltop, SUITE, &filters)?
        } else {
            packages::require_if_installable("comparing filltop with other tools", OTHER_TOOLS)?;
            let variables = [("FILLTOP_RECORDS", records.as_path())];
            suite::run(workspace, &filltop, SUITE, &filters, &variables)?
        };
        tally.print_summary();
        ensure!(tally.failed.is_empty(), "an incident test failed");
        // The document only has results on the filesystems that the scenario files name.
        if arguments.vm || env::var_os("FILLTOP_TEST_FS").is_some() {
            return Ok(());
        }
    }
    let path = workspace.root.join("docs/incidents.md");
    fs::write(&path, document(&records)?)?;
    println!("{}", workspace.display(&path));
    Ok(())
}

fn document(records: &Path) -> Result<String> {
    let mut out = String::from(INTRODUCTION);
    let mut overhead = String::new();
    for name in NAMES {
        let path = records.join(format!("{name}.json"));
        let Ok(text) = fs::read(&path) else { continue };
        let record: Record =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        section(&mut out, name, &record)?;
        if let (Some(cpu), Some(bytes)) = (record.own_cpu, record.own_bytes) {
            writeln!(overhead, "| {name} | {:.1} % | {bytes} |", cpu * 100.0)?;
        }
    }
    if overhead.is_empty() {
        bail!("there are no records; run `cargo xtask incidents` as root");
    }
    out.push_str("\n## Overhead of filltop\n\n");
    out.push_str("A run fails if filltop's threads cause a byte to be written to any disk, or use 2 % of a core or more.\n\n");
    out.push_str("| incident | CPU, of one core | bytes written |\n|---|---|---|\n");
    out.push_str(&overhead);
    Ok(out)
}

fn section(out: &mut String, name: &str, record: &Record) -> Result<()> {
    writeln!(out, "\n## {}\n", record.title)?;
    for line in &record.runs {
        writeln!(out, "- {line}")?;
    }
    writeln!(out, "\n`{name}`, on {}; {}.", record.volume, record.traced_by)?;
    writeln!(out, "\n**Ground truth**\n")?;
    for line in &record.truth {
        writeln!(out, "- {}", escape(line))?;
    }
    writeln!(out, "\n**Required of filltop**\n")?;
    writeln!(out, "| what | deadline, s | reported at, s | free then |\n|---|---|---|---|")?;
    for check in &record.checks {
        let free = bytes(check.free_bytes);
        writeln!(
            out,
            "| {} | {:.0} | {:.1} | {free} |",
            escape(&check.what),
            check.by_s,
            check.at_s
        )?;
    }
    writeln!(out, "\n**Output of filltop**\n")?;
    for output in &record.output {
        let (at, free) = (output.at_s, bytes(output.free_bytes));
        if output.text.contains('\n') {
            writeln!(out, "- {at:.1} s, {free} free, `{}`:\n", output.by)?;
            fence(out, &output.text)?;
        } else {
            writeln!(out, "- {at:.1} s, {free} free, `{}`: {}", output.by, escape(&output.text))?;
        }
    }
    if !record.samples.is_empty() {
        writeln!(out, "\n**Output of other tools**")?;
    }
    for sample in &record.samples {
        writeln!(out, "\nAt {:.1} s ({}):\n", sample.at_s, sample.when)?;
        for (tool, text) in &sample.tools {
            writeln!(out, "`{tool}`\n")?;
            fence(out, text)?;
        }
    }
    Ok(())
}

/// Writes text in a fenced block.
fn fence(out: &mut String, text: &str) -> Result<()> {
    writeln!(out, "```text")?;
    for line in text.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(writeln!(out, "```\n")?)
}

/// Escapes text so that it stays in its table cell and is not taken for markup.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn bytes(value: Option<u64>) -> String {
    value.map_or_else(String::new, |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
}

const INTRODUCTION: &str = "\
# Re-enacted incidents

Generated by `cargo xtask incidents` from the records of its runs; do not edit. There are five incidents and two
more. Each is a scenario file in `tests/incidents/`, run with real software on a small real volume, shown as
`/srv`. Times are seconds since the workload started, or since filltop started if the workload was already
running. A test fails if filltop reports something too late, about the wrong process, or not at all.
";

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"name": "jail", "title": "A jail", "runs": ["Apache"],
        "volume": "ext4, 800 MiB", "traced_by": "Linux 6.18", "truth": ["full | at 3 s"],
        "said": [{"at_s": 2.04, "free_bytes": 1500000, "by": "full firing", "text": "it is"},
                 {"at_s": 3.0, "free_bytes": null, "by": "filltop held", "text": "a\nb  "}],
        "checks": [{"what": "it", "by_s": 20.0, "at_s": 2.04, "free_bytes": 1500000}],
        "looks": [{"at_s": 4.0, "when": "full", "tools": {"df": "100%"}}], "own_cpu": 0.006, "own_bytes": 0}"#;

    #[test]
    fn a_record_becomes_a_section() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("jail.json"), RECORD).unwrap();
        let text = document(dir.path()).unwrap();
        for part in [
            "\n## A jail\n\n- Apache\n",
            "- full \\| at 3 s\n",
            "| it | 20 | 2.0 | 1.5 MB |\n",
            "- 2.0 s, 1.5 MB free, `full firing`: it is\n",
            "`filltop held`:\n\n```text\na\nb\n```\n",
            "At 4.0 s (full):\n\n`df`\n\n```text\n100%\n",
            "| jail | 0.6 % | 0 |\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn without_records_there_is_no_document() {
        let dir = tempfile::tempdir().unwrap();
        assert!(document(dir.path()).is_err());
    }

    #[test]
    fn the_document_in_the_repository_has_this_introduction() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/incidents.md");
        assert!(fs::read_to_string(path).unwrap().starts_with(INTRODUCTION));
    }
}
