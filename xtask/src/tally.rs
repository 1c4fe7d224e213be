//! Counting what test binaries say: Rust's own `test result:` lines, and our `SKIP` lines.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Lines of a failed test that are told again at the end.
const MAX_WORDS: usize = 12;
/// Characters of each; all of them stand where the test ran.
const MAX_WORD: usize = 400;

/// How many tests passed, and which did not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran and passed.
    pub(crate) passed: u64,
    /// `suite: test` of each that failed, or `suite: what went wrong`.
    pub(crate) failed: Vec<String>,
    /// The last words of failed tests, by what they are called in `failed`.
    pub(crate) words: HashMap<String, Vec<String>>,
    /// `suite: test: reason` of each that did not run.
    pub(crate) skipped: Vec<String>,
    /// How long each part took, in the order in which they ended.
    pub(crate) took: Vec<(String, Duration)>,
}

impl Tally {
    /// Reads what `cargo test` or test binaries of Rust printed, and whether they succeeded.
    ///
    /// A test that cannot run prints `SKIP <test>: <reason>` and passes as far as Rust knows: it
    /// counts as skipped here. Ignored tests do, too. A binary that fails without naming a failed
    /// test (it crashed, or was killed) counts as one failure.
    pub(crate) fn read<'a>(
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
        let mut words: HashMap<&str, Vec<String>> = HashMap::new();
        for line in lines {
            if let Some(name) =
                line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
            {
                section = Some(name);
            } else if line.is_empty() || line == "Stack backtrace:" || line == "stack backtrace:" {
                section = section.filter(|name| !words.contains_key(name));
            } else if let Some(name) = section {
                let is_first = line.starts_with("Error: ") || line.contains(" panicked at ");
                let said = words.get_mut(name);
                match said {
                    Some(said) if said.len() < MAX_WORDS => said.push(line.to_owned()),
                    None if is_first => drop(words.insert(name, vec![line.to_owned()])),
                    _ => {}
                }
            }
            if let Some(counts) = line.strip_prefix("test result: ") {
                tally.passed += count(counts, "passed");
                counted_failures += count(counts, "failed");
            } else if let Some(skip) = skip_of(line) {
                if !skips.contains(&skip) {
                    skips.push(skip);
                }
            } else if let Some((test, note)) =
                line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
            {
                let reason = note.strip_prefix(", ").unwrap_or("ignored");
                tally.skipped.push(format!("{suite}: {test}: {reason}"));
            }
            // The list of names follows the second of two such headings.
            if line == "failures:" {
                in_failures = true;
                failures.clear();
            } else if let Some(name) = line.strip_prefix("    ").filter(|_| in_failures) {
                failures.push(name);
            } else if line.starts_with("test result: ") {
                in_failures = false;
                for name in failures.drain(..) {
                    let test = format!("{suite}: {name}");
                    if let Some(said) = words.remove(name) {
                        tally.words.insert(test.clone(), said);
                    }
                    tally.failed.push(test);
                }
            }
        }
        let named = u64::try_from(tally.failed.len()).unwrap_or(u64::MAX);
        let unnamed = counted_failures.saturating_sub(named);
        tally.failed.extend((0..unnamed).map(|_| format!("{suite}: a test without a name")));
        if !success && tally.failed.is_empty() {
            tally.failed.push(format!("{suite}: ended before its tests did"));
        }
        tally.passed = tally.passed.saturating_sub(u64::try_from(skips.len()).unwrap_or(u64::MAX));
        tally.skipped.extend(skips.into_iter().map(|skip| format!("{suite}: {skip}")));
        tally
    }

    /// One thing that went wrong outside any test.
    pub(crate) fn failure(what: impl Into<String>) -> Self {
        Self { failed: vec![what.into()], ..Self::default() }
    }

    /// A part's counts, or its failure when it did not come to an end.
    pub(crate) fn of(part: &str, result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Self::failure(format!("{part}: {}", first_line(&error)))
        })
    }

    /// One part that could not run, with the reason.
    pub(crate) fn skip(what: impl Into<String>) -> Self {
        Self { skipped: vec![what.into()], ..Self::default() }
    }

    /// The same, of a part that has run since then.
    pub(crate) fn since(mut self, part: &str, started: Instant) -> Self {
        self.took.push((part.to_owned(), started.elapsed()));
        self
    }

    /// Adds another part's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.words.extend(other.words);
        self.skipped.extend(other.skipped);
        self.took.extend(other.took);
    }

    /// Prints how long each part took, the names of what was skipped, what failed and with which words, and the
    /// closing line.
    pub(crate) fn close(&self) {
        println!();
        for (part, took) in &self.took {
            println!("{:>7.1} s  {part}", took.as_secs_f64());
        }
        for skip in &self.skipped {
            println!("skipped  {skip}");
        }
        for failure in &self.failed {
            println!("failed   {failure}");
            for line in self.words.get(failure).into_iter().flatten() {
                println!("         {}", line.chars().take(MAX_WORD).collect::<String>());
            }
        }
        println!("{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        write!(f, "{} passed, {failed} failed, {skipped} skipped", self.passed)
    }
}

/// An error as one line of a list.
pub(crate) fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

/// The number before a word in `ok. 3 passed; 0 failed; …`.
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

/// `<test>: <reason>` of a line with a skip. Without captured output, the line starts with
/// libtest's `test name ... `.
fn skip_of(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        Some((_, printed)) => printed,
        None => line,
    };
    line.strip_prefix("SKIP ").filter(|rest| rest.contains(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> Tally {
        Tally::read("suite", text.lines(), success)
    }

    #[test]
    fn results_of_several_binaries_are_summed() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            running 1 test\n\
            test result: ok. 11 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n";
        assert_eq!(read(text, true), Tally { passed: 13, ..Tally::default() });
    }

    #[test]
    fn failures_are_named_once() {
        let text = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\n    indented panic text\n\n\
            failures:\n    a\n    deep::b\n\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
            error: test failed, to rerun pass `-p x`\n";
        let tally = read(text, false);
        assert_eq!(tally.failed, ["suite: a", "suite: deep::b"]);
        assert_eq!(tally.to_string(), "1 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_failure_keeps_its_last_words() {
        let text = "test a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n---- a stdout ----\nprinted\n\n\
            thread 'a' panicked at x.rs:1:2:\nassertion failed\nstack backtrace:\n   0: f\n\n\
            ---- b stdout ----\nError: lost\nCaused by: disk\n\nStack backtrace:\n   0: g\n\n\
            failures:\n    a\n    b\n\ntest result: FAILED. 0 passed; 2 failed; 0 ignored\n";
        let tally = read(text, false);
        assert_eq!(
            tally.words["suite: a"],
            ["thread 'a' panicked at x.rs:1:2:", "assertion failed"]
        );
        assert_eq!(tally.words["suite: b"], ["Error: lost", "Caused by: disk"]);
    }

    #[test]
    fn a_skip_is_no_pass() {
        let text = "test a ... ok\ntest b ... ok\ntest c ... ignored, too slow\n\nsuccesses:\n\n\
            ---- b stdout ----\nSKIP b: no xfs: in this kernel\nSKIP b: no xfs: in this kernel\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let tally = read(text, true);
        assert_eq!(tally.skipped, ["suite: c: too slow", "suite: b: no xfs: in this kernel"]);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn a_skip_is_seen_without_captured_output() {
        let text = "test b ... SKIP b: no xfs\nok\n\ntest result: ok. 1 passed; 0 failed;\n";
        assert_eq!(read(text, true).to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_crash_is_a_failure() {
        let tally = read("running 2 tests\ntest a ... ok\ntest b ... ", false);
        assert_eq!(tally.failed, ["suite: ended before its tests did"]);
        let tally = read("test result: FAILED. 0 passed; 1 failed; 0 ignored", false);
        assert_eq!(tally.failed, ["suite: a test without a name"]);
    }

    #[test]
    fn a_compile_error_is_a_failure() {
        assert_eq!(read("", false).to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_part_that_cannot_end_is_one_failure_of_one_line() {
        let tally = Tally::of("build", Err(anyhow::anyhow!("no linker\nlong story")));
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
