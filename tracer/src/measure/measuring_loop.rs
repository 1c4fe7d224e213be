//! The loop of every command that measures: poll, and end an interval when it is due.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracer_kernel::TracerOptions;
use tracer_model::snapshot::Snapshot;

use super::pipeline::{POLL_INTERVAL, Pipeline};

/// Longest time between two samples of an interval that is longer.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A pipeline that is polled on time, and the length of its intervals.
///
/// For a loop with other events, [`Self::next`] is one branch of a `select!`; the pipeline is
/// dropped together with the loop.
pub struct MeasuringLoop {
    pipeline: Pipeline,
    poll: Interval,
    /// Length of an interval.
    every: Duration,
    /// When the present interval ends.
    due: Instant,
    /// Lengths of the first intervals, the next one last.
    first: Vec<Duration>,
}

impl MeasuringLoop {
    /// Starts tracing, with an interval of this length.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn start(options: &TracerOptions, every: Duration) -> anyhow::Result<Self> {
        let pipeline = Pipeline::start(options)?;
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { pipeline, poll, every, due: Instant::now() + every, first: Vec::new() })
    }

    /// Makes the first intervals shorter, for a screen: it shows volumes and held files
    /// immediately, and the first rates soon.
    #[must_use]
    pub fn with_early_intervals(mut self) -> Self {
        self.due = Instant::now();
        self.first = vec![POLL_INTERVAL * 2];
        self
    }

    /// Changes the length of the intervals. A shorter one applies to the present interval, too.
    pub fn set_interval(&mut self, every: Duration) {
        self.every = every;
        self.due = self.due.min(Instant::now() + every);
    }

    /// Waits until the interval ends, polling meanwhile, and returns its Snapshot. Nothing is lost
    /// if the future is dropped and another one is created later.
    ///
    /// # Errors
    /// As [`Pipeline::snapshot`].
    pub async fn next(&mut self) -> anyhow::Result<Arc<Snapshot>> {
        loop {
            tokio::select! {
                () = sleep_until(self.due) => {
                    self.due = Instant::now() + self.first.pop().unwrap_or(self.every);
                    return self.pipeline.snapshot(false);
                }
                _ = self.poll.tick() => self.pipeline.poll(),
            }
        }
    }

    /// Passes the Snapshot of each interval to `each` until `end` completes, then that of the
    /// interval that `end` cut short, for which all open descriptors are scanned if `fresh_held`.
    ///
    /// # Errors
    /// As [`Pipeline::snapshot`], and the first error of `each`.
    pub async fn run_until(
        mut self,
        end: impl Future<Output = ()>,
        fresh_held: bool,
        mut each: impl FnMut(Arc<Snapshot>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                snapshot = self.next() => each(snapshot?)?,
            }
        }
        each(self.pipeline.snapshot(fresh_held)?)
    }

    /// Measures one interval that lasts until `end` completes. All open descriptors are scanned for
    /// its Snapshot.
    ///
    /// # Errors
    /// As [`Pipeline::snapshot`].
    pub async fn one_interval(
        options: &TracerOptions,
        end: impl Future<Output = ()>,
    ) -> anyhow::Result<Arc<Snapshot>> {
        let mut measuring = Self::start(options, SAMPLE_INTERVAL)?;
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                () = sleep_until(measuring.due) => {
                    measuring.due = Instant::now() + SAMPLE_INTERVAL;
                    measuring.pipeline.sample()?;
                }
                _ = measuring.poll.tick() => measuring.pipeline.poll(),
            }
        }
        measuring.pipeline.snapshot(true)
    }
}
