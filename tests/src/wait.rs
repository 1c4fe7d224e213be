//! Waits for a state instead of for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

/// Time between two checks.
const PAUSE: Duration = Duration::from_millis(20);

/// Polls until `holds` returns true, at most for `limit`; returns how long that took. `what` names
/// the condition in the error.
///
/// # Errors
/// If it does not hold in time, or cannot be checked.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(PAUSE);
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_returns_when_the_condition_holds_and_names_one_that_does_not() {
        let mut checks = 0;
        let mut third = || {
            checks += 1;
            Ok(checks == 3)
        };
        assert!(wait_until("the third check", Duration::from_secs(60), &mut third).is_ok());
        let never = wait_until("a miracle", Duration::from_millis(30), || Ok(false));
        assert!(never.unwrap_err().to_string().ends_with(": a miracle"));
        assert_eq!(checks, 3);
    }
}
