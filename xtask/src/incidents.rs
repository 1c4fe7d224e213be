//! `cargo xtask incidents`: the re-enacted incidents on this machine, and docs/incidents.md, made
//! from what the runs recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::workspace::Workspace;
use crate::{build, native, packages, vm};

const SUITE: &str = "incidents";
/// Their order in the document; also the names of the tests.
const NAMES: &[&str] = &["staging", "spool", "jail", "engine", "cache", "late", "sort"];
/// What people have today; the record quotes it.
const PEERS: &[(&str, &str)] =
    &[("lsof", "lsof"), ("fatrace", "fatrace"), ("iotop-c", "iotop-c"), ("pidstat", "sysstat")];

/// Which of them.
#[derive(Args)]
pub(crate) struct IncidentsArgs {
    /// staging, spool, jail, engine, cache, late or sort; all, if none is named
    name: Vec<String>,
    /// Write the document from the last runs' records and run nothing
    #[arg(long, conflicts_with = "name")]
    document: bool,
    /// Run them in a Debian 12 that is booted for them, by trampolines, and write no document
    #[arg(long, conflicts_with = "document")]
    vm: bool,
}

/// One run, as the test leaves it in `target/incidents/NAME.json`.
#[derive(Deserialize)]
struct Record {
    title: String,
    runs: Vec<String>,
    volume: String,
    traced_by: String,
    truth: Vec<String>,
    said: Vec<Said>,
    checks: Vec<Check>,
    looks: Vec<Look>,
    own_cpu: Option<f64>,
    own_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Said {
    at_s: f64,
    free_bytes: Option<u64>,
    by: String,
    text: String,
}

#[derive(Deserialize)]
struct Check {
    what: String,
    by_s: f64,
    at_s: f64,
    free_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Look {
    at_s: f64,
    when: String,
    tools: BTreeMap<String, String>,
}

/// Runs them and writes the document of all records that there are.
pub(crate) fn run(workspace: &Workspace, arguments: &IncidentsArgs) -> Result<()> {
    let records = workspace.target.join("incidents");
    fs::create_dir_all(&records)?;
    for name in &arguments.name {
        ensure!(NAMES.contains(&&**name), "no incident {name} in our list: {}", NAMES.join(", "));
    }
    if !arguments.document {
        let filltop = build::build(workspace)?;
        let names: Vec<&str> = if arguments.name.is_empty() {
            NAMES.to_vec()
        } else {
            arguments.name.iter().map(String::as_str).collect()
        };
        // A test is called MODULE::INCIDENT.
        let filters: Vec<String> = names.iter().map(|name| format!("::{name}")).collect();
        let tally = if arguments.vm {
            vm::incidents(workspace, &filltop, SUITE, &filters)?
        } else {
            packages::need_if_root("the tools beside filltop", PEERS)?;
            let variables = [("FILLTOP_RECORDS", records.as_path())];
            native::suite(workspace, &filltop, SUITE, &filters, &variables)?
        };
        tally.close();
        ensure!(tally.failed.is_empty(), "an incident went otherwise than it had to");
        // The document is of the filesystems that the scenario files name.
        if arguments.vm || env::var_os("FILLTOP_TEST_FS").is_some() {
            return Ok(());
        }
    }
    let path = workspace.root.join("docs/incidents.md");
    fs::write(&path, document(&records)?)?;
    println!("{}", workspace.shown(&path));
    Ok(())
}

fn document(records: &Path) -> Result<String> {
    let mut out = String::from(HEAD);
    let mut own = String::new();
    for name in NAMES {
        let path = records.join(format!("{name}.json"));
        let Ok(text) = fs::read(&path) else { continue };
        let record: Record =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        section(&mut out, name, &record)?;
        if let (Some(cpu), Some(bytes)) = (record.own_cpu, record.own_bytes) {
            writeln!(own, "| {name} | {:.1} % | {bytes} |", cpu * 100.0)?;
        }
    }
    if own.is_empty() {
        bail!("there is no record: `cargo xtask incidents` makes them (as root)");
    }
    out.push_str("\n## What filltop itself took\n\n");
    out.push_str("A run fails when filltop's threads cause a byte to be written to any disk, or take more than 2 % of a core.\n\n");
    out.push_str("| incident | of one core | bytes written |\n|---|---|---|\n");
    out.push_str(&own);
    Ok(out)
}

fn section(out: &mut String, name: &str, record: &Record) -> Result<()> {
    writeln!(out, "\n## {}\n", record.title)?;
    for line in &record.runs {
        writeln!(out, "- {line}")?;
    }
    writeln!(out, "\n`{name}`, on {}; {}.", record.volume, record.traced_by)?;
    writeln!(out, "\n**True was**\n")?;
    for line in &record.truth {
        writeln!(out, "- {}", cell(line))?;
    }
    writeln!(out, "\n**filltop had to say**\n")?;
    writeln!(out, "| what | by, s | said at, s | free then |\n|---|---|---|---|")?;
    for check in &record.checks {
        let free = bytes(check.free_bytes);
        writeln!(
            out,
            "| {} | {:.0} | {:.1} | {free} |",
            cell(&check.what),
            check.by_s,
            check.at_s
        )?;
    }
    writeln!(out, "\n**filltop said**\n")?;
    for said in &record.said {
        let (at, free) = (said.at_s, bytes(said.free_bytes));
        if said.text.contains('\n') {
            writeln!(out, "- {at:.1} s, {free} free, `{}`:\n", said.by)?;
            fenced(out, &said.text)?;
        } else {
            writeln!(out, "- {at:.1} s, {free} free, `{}`: {}", said.by, cell(&said.text))?;
        }
    }
    if !record.looks.is_empty() {
        writeln!(out, "\n**Others said**")?;
    }
    for look in &record.looks {
        writeln!(out, "\nAt {:.1} s ({}):\n", look.at_s, look.when)?;
        for (tool, text) in &look.tools {
            writeln!(out, "`{tool}`\n")?;
            fenced(out, text)?;
        }
    }
    Ok(())
}

/// Text in an indented fence, as it was printed.
fn fenced(out: &mut String, text: &str) -> Result<()> {
    writeln!(out, "```text")?;
    for line in text.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(writeln!(out, "```\n")?)
}

/// Text that cannot break out of a table's cell, or turn into markup.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn bytes(value: Option<u64>) -> String {
    value.map_or_else(String::new, |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
}

const HEAD: &str = "\
# Five incidents, and two more

Made by `cargo xtask incidents`, from what the runs recorded; do not edit. Each is a scenario file in
`tests/incidents/` and real software on a real, small volume, shown as `/srv`. Times are seconds from the
start of the workload, or of filltop where the workload was there before. The tests fail when something
is said too late, of the wrong one, or not at all.
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
    fn no_records_are_no_document() {
        let dir = tempfile::tempdir().unwrap();
        assert!(document(dir.path()).is_err());
    }
}
