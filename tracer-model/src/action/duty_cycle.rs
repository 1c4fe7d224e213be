//! Holding a writer to a rate by letting it run and halting it in turn: a token bucket over what it
//! was measured to write. Pure: the clock and the measurement are arguments.
//!
//! A burst that is larger than its allowance (one write(2) cannot be halted half-way) is a debt that
//! the following halt pays off, so that the rate holds over time whatever the writer's speed.

/// What the writer may do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Run, and be measured again after so many seconds.
    Run(f64),
    /// Stand still for so many seconds.
    Halt(f64),
}

/// Longest single halt, seconds: a process that stands still for longer looks hung to its peers.
pub const LONGEST_HALT_S: f64 = 1.0;
/// Shortest halt that is worth its system calls, seconds.
pub const SHORTEST_HALT_S: f64 = 0.02;
/// How often a running writer is measured, seconds.
pub const LOOK_S: f64 = 0.002;
/// Longest burst that a writer may save up, seconds of its rate. One that writes larger blocks may
/// save up one of them, for it shows only when it is written.
const BURST_S: f64 = 0.1;
/// Longest that such a block may be, seconds of the rate.
const LONGEST_BURST_S: f64 = 1.0;

/// The controller. Bytes written so far go in, run or halt comes out.
#[derive(Debug, Clone)]
pub struct Duty {
    rate: f64,
    allowance: f64,
    last: Option<(f64, u64)>,
    /// Most that was written from one look to the next.
    largest: f64,
}

impl Duty {
    /// Holds to `rate` bytes per second (at least 1).
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1) as f64, allowance: 0.0, last: None, largest: 0.0 }
    }

    /// What follows from `written` bytes in all at `now_s` (any origin, never backwards). A count
    /// that goes backwards is taken as no writing.
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
            return Next::Run(LOOK_S);
        }
        let owed_s = -self.allowance / self.rate;
        Next::Halt(owed_s.clamp(SHORTEST_HALT_S, LONGEST_HALT_S))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of a writer that writes `block` bytes at a time at `speed` while it may run.
    fn simulate(rate: u64, speed: f64, block: u64, seconds: f64) -> u64 {
        let mut duty = Duty::new(rate);
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
                Next::Halt(for_s) => now += for_s,
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
            // A last block that is not paid off yet is all that may be over.
            let slack = (block as f64 + rate as f64 * factor * LOOK_S) / seconds;
            prop_assert!(mean <= rate as f64 * 1.02 + slack, "{mean} of {rate}");
            prop_assert!(mean >= rate as f64 * 0.9 - slack, "{mean} of {rate}");
        }

        #[test]
        fn who_stays_below_is_never_halted(rate in 1_000u64..1_000_000, share in 0.0f64..0.9) {
            let mut duty = Duty::new(rate);
            for step in 0..2_000u32 {
                let now = f64::from(step) * LOOK_S;
                let next = duty.next(now, (now * rate as f64 * share) as u64);
                prop_assert_eq!(next, Next::Run(LOOK_S));
            }
        }
    }

    #[test]
    fn a_count_that_goes_backwards_is_no_debt() {
        let mut duty = Duty::new(1_000);
        assert_eq!(duty.next(0.0, 500), Next::Run(LOOK_S));
        assert_eq!(duty.next(1.0, 0), Next::Run(LOOK_S));
        assert!(matches!(duty.next(1.1, 5_000), Next::Halt(_)));
    }
}
