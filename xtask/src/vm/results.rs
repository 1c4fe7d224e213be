//! Test results from the reports of a machine.

use filltop_init::Report;

use super::machine::Outcome;
use crate::tally::Tally;

/// Counts the results of the test binaries `tests`, which one machine ran in this order. A machine that broke
/// adds a failure to what was counted until then.
pub(super) fn tally(suite: &str, tests: &[String], outcome: &Outcome) -> Tally {
    let mut tally = Tally::default();
    let mut lines: Vec<&str> = Vec::new();
    let mut ended = 0;
    for report in &outcome.reports {
        match report {
            Report::Begin(_) => lines.clear(),
            Report::Output(line) => lines.push(line),
            Report::End { command, status, .. } => {
                let test = tests.get(*command).map_or("?", String::as_str);
                let suite = format!("{suite} {test}");
                tally.add(Tally::parse(&suite, lines.drain(..), *status == 0));
                ended += 1;
            }
            Report::Booted { .. } | Report::Warning(_) | Report::Done => {}
        }
    }
    if let Some(failure) = &outcome.failure {
        eprintln!("{suite}: {failure}");
        let reason = failure.lines().next().unwrap_or_default();
        let during = tests.get(ended).map_or("the shutdown", String::as_str);
        tally.add(Tally::failure(format!("{suite}: {reason} (during {during})")));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["accounting".into(), "names".into()]
    }

    fn output(line: &str) -> Report {
        Report::Output(line.into())
    }

    #[test]
    fn each_test_binary_of_a_machine_is_counted() {
        let reports = vec![
            Report::Begin(0),
            output("---- a stdout ----"),
            output("SKIP a: no xfs"),
            output("test result: ok. 3 passed; 0 failed; 0 ignored"),
            Report::End { command: 0, status: 0, ms: 1 },
            Report::Begin(1),
            Report::End { command: 1, status: 139, ms: 1 },
            Report::Done,
        ];
        let tally = tally("vm 6.1 kprobe", &names(), &Outcome { reports, failure: None });
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failed, ["vm 6.1 kprobe names: exited before its tests finished"]);
    }

    #[test]
    fn a_machine_that_panics_fails_and_keeps_what_was_counted() {
        let reports = vec![
            Report::Begin(0),
            output("test result: ok. 3 passed; 0 failed; 0 ignored"),
            Report::End { command: 0, status: 0, ms: 1 },
            Report::Begin(1),
            output("test x ... "),
        ];
        let failure = Some("[ 9.1] Kernel panic - not syncing\n    | more".to_owned());
        let tally = tally("vm 6.1 fentry", &names(), &Outcome { reports, failure });
        assert_eq!(tally.passed, 3);
        assert_eq!(
            tally.failed,
            ["vm 6.1 fentry: [ 9.1] Kernel panic - not syncing (during names)"]
        );
    }
}
