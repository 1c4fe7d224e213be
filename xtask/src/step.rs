//! Running other programs, and saying so: one line a step, with the time it took.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs a program to its end without showing its output, and returns what it printed on stdout.
/// A failure carries the command line and everything it printed on stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    Ok(capture_both(command)?.0)
}

fn capture_both(command: &mut Command) -> Result<(String, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", line(command)))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if !output.status.success() {
        bail!("{} failed ({}):\n{stderr}", line(command), output.status);
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), stderr))
}

/// As [`capture`], as a step that people see: `label … 1.2 s`, and the program's warnings below.
pub(crate) fn step(label: &str, command: &mut Command) -> Result<String> {
    let (stdout, stderr) = timed(label, || capture_both(command))?;
    if !stderr.is_empty() {
        eprintln!("{stderr}");
    }
    Ok(stdout)
}

/// Does some work as a step that people see. The work must print nothing itself.
pub(crate) fn timed<T>(label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprint!("{label} … ");
    let _ = std::io::stderr().flush();
    let started = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "" } else { "failed after " };
    eprintln!("{verdict}{:.1} s", started.elapsed().as_secs_f64());
    result
}

/// Runs a program whose output people want to follow, and returns whether it succeeded and its
/// lines (stdout only; stderr passes through).
pub(crate) fn follow(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", line(command)))?;
    let mut reader = BufReader::new(child.stdout.take().context("stdout was piped")?);
    let mut lines = Vec::new();
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
        println!("{text}");
        lines.push(text);
        bytes.clear();
    }
    Ok((child.wait()?.success(), lines))
}

/// A command line as one would type it, without the environment.
pub(crate) fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text += " ";
        text += &argument.to_string_lossy();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_ran_and_what_it_complained_about() {
        let error = capture(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"]));
        let text = format!("{:#}", error.unwrap_err());
        assert!(text.contains("sh -c") && text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with("no luck"), "{text}");
    }

    #[test]
    fn followed_lines_come_back_with_the_verdict() {
        let (ok, lines) =
            follow(Command::new("sh").args(["-c", "echo a; echo b; exit 1"])).unwrap();
        assert!(!ok);
        assert_eq!(lines, ["a", "b"]);
    }
}
