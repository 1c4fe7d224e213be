//! Booting a machine, again if its kernel dies before PID 1 starts.

use std::time::{Duration, Instant};

use anyhow::Result;
use filltop_init::Report;

use super::machine::{Machine, Outcome};

/// The most boots of a machine whose kernel dies before PID 1 starts. In about one boot in a hundred, an
/// emulated CPU executes an instruction while another CPU is changing it (int3).
const MAX_BOOTS: usize = 3;

/// Runs a machine until it is off, and passes each line that its commands print to `print`. Progress goes to
/// stderr, prefixed with `name`.
pub(super) fn boot(name: &str, machine: &Machine, print: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let started = Instant::now();
    let mut boot_once = || {
        machine.run(|report| match report {
            Report::Booted { release, uptime_ms } => eprintln!(
                "{name}: Linux {release} booted after {:.1} s of guest time, {:.1} s of host time",
                Duration::from_millis(*uptime_ms).as_secs_f64(),
                started.elapsed().as_secs_f64()
            ),
            Report::Warning(text) => eprintln!("{name}: {text}"),
            Report::Output(text) => print(text),
            Report::Begin(_) | Report::End { .. } | Report::Done => {}
        })
    };
    let mut outcome = boot_once()?;
    for _ in 1..MAX_BOOTS {
        let Some(failure) = early_failure(&outcome) else { break };
        eprintln!("{name}: {failure}: the kernel died before PID 1 started, booting again");
        outcome = boot_once()?;
    }
    eprintln!("{name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(outcome)
}

/// The first line of the failure of a kernel that died before PID 1 started.
fn early_failure(outcome: &Outcome) -> Option<&str> {
    let has_booted = outcome.reports.iter().any(|report| matches!(report, Report::Booted { .. }));
    let failure = outcome.failure.as_deref().filter(|_| !has_booted)?;
    failure.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_dies_before_our_programs_is_booted_again() {
        let failure = Some("[ 1.3] Oops: int3\n    | more".to_owned());
        let early = Outcome { reports: vec![], failure: failure.clone() };
        assert_eq!(early_failure(&early), Some("[ 1.3] Oops: int3"));
        let reports = vec![Report::Booted { release: "6.12".into(), uptime_ms: 1 }];
        assert_eq!(early_failure(&Outcome { reports, failure }), None);
        assert_eq!(early_failure(&Outcome { reports: vec![], failure: None }), None);
    }
}
