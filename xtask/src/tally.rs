//! Counting test results: Rust's `test result:` lines, and the `SKIP` lines of this project's tests.

use std::collections::HashMap;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The most lines of a failed test's message that are repeated in the summary.
const MAX_MESSAGE_LINES: usize = 12;
/// The most characters of each such line; the full line is in the test's output.
const MAX_LINE_CHARS: usize = 400;

/// How many tests passed, and which failed or were skipped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran and passed.
    pub(crate) passed: u64,
    /// `suite: test` of each failed test, or `suite: reason` of a failure outside any test.
    pub(crate) failed: Vec<String>,
    /// The messages of failed tests, keyed by their entries in `failed`.
    pub(crate) messages: HashMap<String, Vec<String>>,
    /// `suite: test: reason` of each test that did not run.
    pub(crate) skipped: Vec<String>,
    /// The duration of each part, in the order in which the parts ended.
    pub(crate) durations: Vec<(String, Duration)>,
}

impl Tally {
    /// Parses the output of `cargo test` or of Rust test binaries; `success` is whether they exited with 0.
    ///
    /// A test that cannot run prints `SKIP <test>: <reason>` and passes for libtest; here it counts as
    /// skipped, as ignored tests do. A binary that fails without naming a failed test (it crashed or was
    /// killed) counts as one failure.
    pub(crate) fn parse<'a>(
        suite: &str,
        lines: impl IntoIterator<Item = &'a str>,
        success: bool,
    ) -> Self {
        let mut tally = Self::default();
        let mut counted_failures = 0;
        let mut in_failures = false;
        let mut skips: Vec<&str> = Vec::new();
        let mut failures: Vec<&str> = Vec::new();
        let mut section = None;
        let mut messages: HashMap<&str, Vec<String>> = HashMap::new();
        for line in lines {
            if let Some(name) =
                line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
            {
                section = Some(name);
            } else if line.is_empty() || line == "Stack backtrace:" || line == "stack backtrace:" {
                section = section.filter(|name| !messages.contains_key(name));
            } else if let Some(name) = section {
                let is_first = line.starts_with("Error: ") || line.contains(" panicked at ");
                match messages.get_mut(name) {
                    Some(message) if message.len() < MAX_MESSAGE_LINES => {
                        message.push(line.to_owned());
                    }
                    None if is_first => drop(messages.insert(name, vec![line.to_owned()])),
                    _ => {}
                }
            }
            if let Some(counts) = line.strip_prefix("test result: ") {
                tally.passed += count(counts, "passed");
                counted_failures += count(counts, "failed");
            } else if let Some(skip) = parse_skip(line) {
                if !skips.contains(&skip) {
                    skips.push(skip);
                }
            } else if let Some((test, note)) =
                line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
            {
                let reason = note.strip_prefix(", ").unwrap_or("ignored");
                tally.skipped.push(format!("{suite}: {test}: {reason}"));
            }
            // libtest prints this heading twice; the names follow the second one.
            if line == "failures:" {
                in_failures = true;
                failures.clear();
            } else if let Some(name) = line.strip_prefix("    ").filter(|_| in_failures) {
                failures.push(name);
            } else if line.starts_with("test result: ") {
                in_failures = false;
                for name in failures.drain(..) {
                    let test = format!("{suite}: {name}");
                    if let Some(message) = messages.remove(name) {
                        tally.messages.insert(test.clone(), message);
                    }
                    tally.failed.push(test);
                }
            }
        }
        let named = u64::try_from(tally.failed.len()).unwrap_or(u64::MAX);
        let unnamed = counted_failures.saturating_sub(named);
        tally.failed.extend((0..unnamed).map(|_| format!("{suite}: an unnamed test")));
        if !success && tally.failed.is_empty() {
            tally.failed.push(format!("{suite}: exited before its tests finished"));
        }
        tally.passed = tally.passed.saturating_sub(u64::try_from(skips.len()).unwrap_or(u64::MAX));
        tally.skipped.extend(skips.into_iter().map(|skip| format!("{suite}: {skip}")));
        tally
    }

    /// One failure outside any test.
    pub(crate) fn failure(what: impl Into<String>) -> Self {
        Self { failed: vec![what.into()], ..Self::default() }
    }

    /// A part's tally, or one failure if the part could not be run.
    pub(crate) fn from_result(part: &str, result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Self::failure(format!("{part}: {}", first_line(&error)))
        })
    }

    /// One skip, with its reason.
    pub(crate) fn skip(what: impl Into<String>) -> Self {
        Self { skipped: vec![what.into()], ..Self::default() }
    }

    /// Adds the time since `started` as the duration of a part.
    pub(crate) fn with_duration(mut self, part: &str, started: Instant) -> Self {
        self.durations.push((part.to_owned(), started.elapsed()));
        self
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.messages.extend(other.messages);
        self.skipped.extend(other.skipped);
        self.durations.extend(other.durations);
    }

    /// Prints the durations of parts, the skipped tests, the failed tests with their messages, and the line of
    /// totals.
    pub(crate) fn print_summary(&self) {
        println!();
        for (part, duration) in &self.durations {
            println!("{:>7.1} s  {part}", duration.as_secs_f64());
        }
        for skip in &self.skipped {
            println!("skipped  {skip}");
        }
        for failure in &self.failed {
            println!("failed   {failure}");
            for line in self.messages.get(failure).into_iter().flatten() {
                println!("         {}", line.chars().take(MAX_LINE_CHARS).collect::<String>());
            }
        }
        println!("{self}");
    }

    /// Prints the summary and returns the exit status: failure when anything failed.
    pub(crate) fn finish(&self) -> ExitCode {
        self.print_summary();
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        write!(f, "{} passed, {failed} failed, {skipped} skipped", self.passed)
    }
}

/// The first line of an error, with its causes.
pub(crate) fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

/// The number before `word` in `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, word: &str) -> u64 {
    let mut words = counts.split([' ', ';']).filter(|part| !part.is_empty());
    let mut before = "";
    words
        .find_map(|part| {
            let number = (part == word).then(|| before.parse().ok()).flatten();
            before = part;
            number
        })
        .unwrap_or(0)
}

/// Parses `<test>: <reason>` of a `SKIP` line. If libtest does not capture output, the line starts with
/// `test name ... `.
fn parse_skip(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        Some((_, printed)) => printed,
        None => line,
    };
    line.strip_prefix("SKIP ").filter(|rest| rest.contains(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, success: bool) -> Tally {
        Tally::parse("suite", text.lines(), success)
    }

    #[test]
    fn results_of_several_binaries_are_summed() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            running 1 test\n\
            test result: ok. 11 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n";
        assert_eq!(parse(text, true), Tally { passed: 13, ..Tally::default() });
    }

    #[test]
    fn failures_are_named_once() {
        let text = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\n    indented panic text\n\n\
            failures:\n    a\n    deep::b\n\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
            error: test failed, to rerun pass `-p x`\n";
        let tally = parse(text, false);
        assert_eq!(tally.failed, ["suite: a", "suite: deep::b"]);
        assert_eq!(tally.to_string(), "1 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_failure_keeps_its_message() {
        let text = "test a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n---- a stdout ----\nprinted\n\n\
            thread 'a' panicked at x.rs:1:2:\nassertion failed\nstack backtrace:\n   0: f\n\n\
            ---- b stdout ----\nError: lost\nCaused by: disk\n\nStack backtrace:\n   0: g\n\n\
            failures:\n    a\n    b\n\ntest result: FAILED. 0 passed; 2 failed; 0 ignored\n";
        let tally = parse(text, false);
        assert_eq!(
            tally.messages["suite: a"],
            ["thread 'a' panicked at x.rs:1:2:", "assertion failed"]
        );
        assert_eq!(tally.messages["suite: b"], ["Error: lost", "Caused by: disk"]);
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let text = "test a ... ok\ntest b ... ok\ntest c ... ignored, too slow\n\nsuccesses:\n\n\
            ---- b stdout ----\nSKIP b: no xfs: in this kernel\nSKIP b: no xfs: in this kernel\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let tally = parse(text, true);
        assert_eq!(tally.skipped, ["suite: c: too slow", "suite: b: no xfs: in this kernel"]);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn a_skip_is_parsed_without_captured_output() {
        let text = "test b ... SKIP b: no xfs\nok\n\ntest result: ok. 1 passed; 0 failed;\n";
        assert_eq!(parse(text, true).to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_crash_is_a_failure() {
        let tally = parse("running 2 tests\ntest a ... ok\ntest b ... ", false);
        assert_eq!(tally.failed, ["suite: exited before its tests finished"]);
        let tally = parse("test result: FAILED. 0 passed; 1 failed; 0 ignored", false);
        assert_eq!(tally.failed, ["suite: an unnamed test"]);
    }

    #[test]
    fn a_compile_error_is_a_failure() {
        assert_eq!(parse("", false).to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_part_that_cannot_run_is_one_failure_of_one_line() {
        let tally = Tally::from_result("build", Err(anyhow::anyhow!("no linker\nlong story")));
        assert_eq!(tally.failed, ["build: no linker"]);
    }

    #[test]
    fn parts_add_up() {
        let mut all = Tally { passed: 3, ..Tally::default() };
        all.add(Tally::skip("vm: no QEMU"));
        all.add(Tally::failure("vm 6.1: kernel panic"));
        assert_eq!(all.to_string(), "3 passed, 1 failed, 1 skipped");
    }
}
