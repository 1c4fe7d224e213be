//! The tools in use today, run at the same moment: df, du, lsof, iotop, pidstat, fatrace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

/// Lines of a tool's output that are quoted.
const LINES: usize = 4;

/// Name, command line, and the function that picks what is quoted of its output.
type Tool<'a> = (&'static str, &'a [&'a str], fn(&str) -> String);

/// Runs all of them in parallel; takes about three seconds. Returns the shortened output by tool.
pub fn ask(mount: &Path) -> BTreeMap<&'static str, String> {
    let mount_text = mount.to_string_lossy().into_owned();
    let m = mount_text.as_str();
    let tools: [Tool<'_>; 6] = [
        ("df", &["df", "-h", m], all),
        ("du", &["du", "-sh", m], all),
        ("lsof", &["lsof", "-nP", "-a", "+L1", m], head),
        ("iotop", &["iotop-c", "-b", "-o", "-P", "-qqq", "-n", "2", "-d", "2"], second_sample),
        ("pidstat", &["pidstat", "-d", "2", "1"], most_written),
        ("fatrace", &["fatrace", "-c", "-s", "2", "-f", "CW"], by_process),
    ];
    thread::scope(|scope| {
        let running = tools.map(|(name, line, shorten)| {
            (name, scope.spawn(move || shorten(&run(line, mount)).trim_end().to_owned()))
        });
        running
            .into_iter()
            .map(|(name, output)| (name, output.join().unwrap_or_default()))
            .collect()
    })
}

/// Its output, run in the volume's root; otherwise the reason for none.
fn run(line: &[&str], mount: &Path) -> String {
    let start = Instant::now();
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(mount).env("LC_ALL", "C").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.stdout.is_empty() && !output.stderr.is_empty() => {
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        Ok(output) if output.stdout.is_empty() => {
            format!("(nothing, in {:.1} s)", start.elapsed().as_secs_f64())
        }
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => format!("(not run: {error})"),
    }
}

fn all(text: &str) -> String {
    text.to_owned()
}

fn head(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = lines.iter().take(LINES).copied().collect::<Vec<_>>().join("\n");
    if lines.len() > LINES {
        out.push_str(&format!("\n… {} more lines", lines.len() - LINES));
    }
    out
}

/// The second of iotop's two samples: the first one covers the time since boot.
fn second_sample(text: &str) -> String {
    let start = text.rfind("Total DISK READ").map_or(0, |at| text[..at].rfind('\n').unwrap_or(0));
    head(text[start..].trim_start_matches('\n'))
}

/// pidstat's averages, most written first.
fn most_written(text: &str) -> String {
    let mut rows: Vec<&str> = text.lines().filter(|line| line.starts_with("Average:")).collect();
    if rows.is_empty() {
        return head(text);
    }
    let heading = rows.remove(0);
    let written = |row: &&str| {
        let field = row.split_whitespace().nth(4).and_then(|field| field.parse::<f64>().ok());
        field.unwrap_or(0.0)
    };
    rows.sort_by(|a, b| written(b).total_cmp(&written(a)));
    let rows: Vec<&str> = std::iter::once(heading).chain(rows.into_iter().take(LINES)).collect();
    rows.join("\n")
}

/// fatrace prints one line per operation: their number, processes, and the last line of each.
fn by_process(text: &str) -> String {
    if text.starts_with('(') {
        return text.to_owned();
    }
    let mut seen: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for line in text.lines() {
        let who = line.split("): ").next().unwrap_or(line);
        let entry = seen.entry(who).or_default();
        *entry = (entry.0 + 1, line);
    }
    let mut rows: Vec<(usize, &str)> = seen.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.0));
    let processes = rows.len();
    let mut out =
        format!("{} lines of {processes} processes in 2 s, such as", text.lines().count());
    for (count, line) in rows.iter().take(LINES - 1) {
        out.push_str(&format!("\n{line}   ({count} of these)"));
    }
    out
}
