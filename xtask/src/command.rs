//! Finding and running other programs, and one line on stderr for each step with the time it took.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Finds a program in PATH or in the sbin directories, where mkfs is: an ordinary user's PATH often lacks
/// them.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a program without showing its output, and returns its stdout.
///
/// # Errors
/// If it cannot be started or fails; the error has the command line and everything the program printed on stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    Ok(capture_both(command)?.0)
}

fn capture_both(command: &mut Command) -> Result<(String, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", command_line(command)))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if !output.status.success() {
        bail!("{} failed ({}):\n{stderr}", command_line(command), output.status);
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), stderr))
}

/// Runs a program as [`capture`] does, and prints `label … 1.2 s`, followed by the program's stderr.
pub(crate) fn run_step(label: &str, command: &mut Command) -> Result<String> {
    let (stdout, stderr) = timed_step(label, || capture_both(command))?;
    if !stderr.is_empty() {
        eprintln!("{stderr}");
    }
    Ok(stdout)
}

/// Prints `label … 1.2 s` around some work, which must not print anything itself.
pub(crate) fn timed_step<T>(label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprint!("{label} … ");
    let _ = std::io::stderr().flush();
    let started = Instant::now();
    let result = work();
    let prefix = if result.is_ok() { "" } else { "failed after " };
    eprintln!("{prefix}{:.1} s", started.elapsed().as_secs_f64());
    result
}

/// Runs a program and passes its output through, as tee(1) does. Returns whether it succeeded, and the lines of its
/// stdout.
pub(crate) fn tee(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", command_line(command)))?;
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

/// The program and its arguments, separated by spaces.
pub(crate) fn command_line(command: &Command) -> String {
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
    fn an_error_has_the_command_line_and_stderr() {
        let error = capture(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"]));
        let text = format!("{:#}", error.unwrap_err());
        assert!(text.contains("sh -c") && text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with("no luck"), "{text}");
    }

    #[test]
    fn tee_returns_success_and_lines() {
        let (ok, lines) = tee(Command::new("sh").args(["-c", "echo a; echo b; exit 1"])).unwrap();
        assert!(!ok);
        assert_eq!(lines, ["a", "b"]);
    }
}
