//! Limits a writer to a rate by alternately running and suspending it: a token bucket over its
//! measured writes. Pure: the clock and the measurement are arguments.
//!
//! A burst larger than the allowance (one write(2) cannot be cut short) becomes a debt, which the
//! following pause pays off. So the mean rate holds at any speed of the writer.

/// What the writer does next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// It runs; measure it again after this many seconds.
    Run(f64),
    /// It stays suspended for this many seconds.
    Suspend(f64),
}

/// Longest single pause, seconds: a process that is suspended for longer looks hung to its peers.
pub const LONGEST_PAUSE_S: f64 = 1.0;
/// Shortest pause that is worth its system calls, seconds.
pub const SHORTEST_PAUSE_S: f64 = 0.02;
/// Interval between two measurements of a running writer, seconds.
pub const MEASURE_INTERVAL_S: f64 = 0.002;
/// Largest burst that a writer may save up, in seconds of its rate. A writer of larger blocks may
/// save up one block, because a block is seen only once it is written.
const BURST_S: f64 = 0.1;
/// Upper bound for such a block, in seconds of the rate.
const LONGEST_BURST_S: f64 = 1.0;

/// The controller: takes the bytes written so far and decides between running and suspending.
#[derive(Debug, Clone)]
pub struct DutyCycle {
    rate: f64,
    allowance: f64,
    last: Option<(f64, u64)>,
    /// Most bytes written between two measurements.
    largest: f64,
}

impl DutyCycle {
    /// Creates a controller for `rate` bytes per second (at least 1).
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1) as f64, allowance: 0.0, last: None, largest: 0.0 }
    }

    /// Decides what comes next, given a total of `written` bytes at `now_s` (seconds from any origin,
    /// monotonic). A total that decreases counts as no writing.
    pub fn next(&mut self, now_s: f64, written: u64) -> Next {
        if let Some((then_s, before)) = self.last {
            self.allowance += (now_s - then_s).max(0.0) * self.rate;
            let burst = written.saturating_sub(before) as f64;
            self.largest = self.largest.max(burst.min(self.rate * LONGEST_BURST_S));
            self.allowance -= burst;
            self.allowance = self.allowance.min(self.largest.max(self.rate * BURST_S));
        }
        self.last = Some((now_s, written));
        if self.allowance >= 0.0 {
            return Next::Run(MEASURE_INTERVAL_S);
        }
        let owed_s = -self.allowance / self.rate;
        Next::Suspend(owed_s.clamp(SHORTEST_PAUSE_S, LONGEST_PAUSE_S))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the bytes of a writer that writes `block` bytes at a time at `speed` while it runs.
    fn simulate(rate: u64, speed: f64, block: u64, seconds: f64) -> u64 {
        let mut duty = DutyCycle::new(rate);
        let (mut now, mut written, mut progress) = (0.0, 0, 0.0);
        while now < seconds {
            match duty.next(now, written) {
                Next::Run(for_s) => {
                    progress += speed * for_s;
                    while progress >= block as f64 {
                        progress -= block as f64;
                        written += block;
                    }
                    now += for_s;
                }
                Next::Suspend(for_s) => now += for_s,
            }
        }
        written
    }

    proptest! {
        #[test]
        fn the_rate_holds_whatever_the_speed(
            rate in 100_000u64..20_000_000,
            factor in 2.0f64..400.0,
            block in 1_000u64..4_000_000,
        ) {
            let seconds = 30.0;
            let written = simulate(rate, rate as f64 * factor, block, seconds);
            let mean = written as f64 / seconds;
            // Only a last block that is not paid off yet may exceed the rate.
            let slack = (block as f64 + rate as f64 * factor * MEASURE_INTERVAL_S) / seconds;
            prop_assert!(mean <= rate as f64 * 1.02 + slack, "{mean} of {rate}");
            prop_assert!(mean >= rate as f64 * 0.9 - slack, "{mean} of {rate}");
        }

        #[test]
        fn a_process_below_the_rate_is_never_suspended(rate in 1_000u64..1_000_000, share in 0.0f64..0.9) {
            let mut duty = DutyCycle::new(rate);
            for step in 0..2_000u32 {
                let now = f64::from(step) * MEASURE_INTERVAL_S;
                let next = duty.next(now, (now * rate as f64 * share) as u64);
                prop_assert_eq!(next, Next::Run(MEASURE_INTERVAL_S));
            }
        }
    }

    #[test]
    fn a_decreasing_total_is_not_a_debt() {
        let mut duty = DutyCycle::new(1_000);
        assert_eq!(duty.next(0.0, 500), Next::Run(MEASURE_INTERVAL_S));
        assert_eq!(duty.next(1.0, 0), Next::Run(MEASURE_INTERVAL_S));
        assert!(matches!(duty.next(1.1, 5_000), Next::Suspend(_)));
    }
}
