//! `filltop watch --replay-csv`: evaluates the rules on a recorded history.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use tracer_model::alert::replay::Replay;
use tracer_model::alert::{Engine, Rule};

use crate::alerting::sinks::event_line;
use crate::recording::csv::Rows;

/// Prints the events that would have been raised.
///
/// # Errors
/// If the file cannot be read or is not a history.
pub(crate) fn replay(file: &Path, rules: Vec<Rule>, json: bool) -> anyhow::Result<ExitCode> {
    let is_stdin = file.as_os_str() == "-";
    let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
    let input: Box<dyn BufRead> = if is_stdin {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(file).with_context(|| format!("cannot read {name}"))?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let mut rows = Rows::open(input, name.clone())?;
    let mut replay = Replay::new(&name);
    let mut engine = Engine::new(rules);
    let mut out = io::stdout().lock();
    let mut rows_read = 0u64;
    while let Some(sample) = rows.next()? {
        rows_read += 1;
        let (at, snapshot) = replay.push(&sample);
        for event in engine.evaluate(&at, &snapshot, &[]) {
            if json {
                writeln!(out, "{}", serde_json::to_string(&event)?)?;
            } else {
                writeln!(out, "{}", event_line(&event))?;
            }
        }
    }
    ensure!(rows_read > 0, "{name} has a header but no rows");
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
