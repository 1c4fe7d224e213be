//! A work queue of machines: several run at a time, and the output of each is printed in one piece when it
//! ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

use super::runner::Runner;
use crate::tally::Tally;

/// Machines in order, and the results of those that have ended. Each thread that calls [`WorkQueue::work`]
/// runs one machine at a time.
pub(super) struct WorkQueue<F> {
    next: AtomicUsize,
    results: Vec<Mutex<Option<Result<Tally>>>>,
    run: F,
}

impl<F: Fn(usize) -> Result<Tally> + Sync> WorkQueue<F> {
    /// A queue of `machines` machines; `run` takes the index of one and runs it.
    pub(super) fn new(machines: usize, run: F) -> Self {
        let results = (0..machines).map(|_| Mutex::new(None)).collect();
        Self { next: AtomicUsize::new(0), results, run }
    }

    /// Runs the next machine, in order, until none is left.
    pub(super) fn work(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = self.results.get(index) else { return };
            let result = (self.run)(index);
            if let Ok(mut place) = cell.lock() {
                *place = Some(result);
            }
        }
    }

    /// Adds up the results of all machines, in order.
    ///
    /// # Errors
    /// The error of the first machine that could not be run at all; the others ran to their ends.
    pub(super) fn sum(self) -> Result<Tally> {
        let mut all = Tally::default();
        for cell in self.results {
            let result = cell.into_inner().ok().flatten();
            all.add(result.ok_or_else(|| anyhow!("a machine's thread ended early"))??);
        }
        Ok(all)
    }
}

/// Runs all tests of one runner and prints their output when they have ended.
pub(super) fn run_buffered(runner: &Runner<'_>) -> Result<Tally> {
    let mut printed = Vec::new();
    let tally = runner.run_tests(&mut |line| printed.push(line.to_owned()));
    if !printed.is_empty() {
        println!("{}", printed.join("\n"));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_run_all_machines_and_results_add_up_in_order() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let barrier = std::sync::Barrier::new(2);
        let queue = WorkQueue::new(4, |index| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // No thread gets past this alone.
            barrier.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(Tally::failure(index.to_string()))
        });
        std::thread::scope(|scope| {
            scope.spawn(|| queue.work());
            queue.work();
        });
        assert_eq!(queue.sum().unwrap().failed, ["0", "1", "2", "3"]);
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn a_machine_that_cannot_run_does_not_stop_the_others() {
        let ran = AtomicUsize::new(0);
        let queue = WorkQueue::new(3, |index| {
            ran.fetch_add(1, Ordering::SeqCst);
            if index == 0 { Err(anyhow!("no kernel")) } else { Ok(Tally::default()) }
        });
        queue.work();
        assert_eq!(queue.sum().unwrap_err().to_string(), "no kernel");
        assert_eq!(ran.into_inner(), 3);
    }
}
