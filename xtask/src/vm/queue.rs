//! Several machines at a time: none of them waits for another, and what each one says is printed in one
//! piece when it ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

use super::runner::Runner;
use crate::tally::Tally;

/// Machines that wait for their turn, and what came of the others. Whoever takes part runs one after the other.
pub(super) struct Queue<F> {
    next: AtomicUsize,
    done: Vec<Mutex<Option<Result<Tally>>>>,
    run: F,
}

impl<F: Fn(usize) -> Result<Tally> + Sync> Queue<F> {
    /// Of this many; `run` runs the one of a number.
    pub(super) fn new(machines: usize, run: F) -> Self {
        let done = (0..machines).map(|_| Mutex::new(None)).collect();
        Self { next: AtomicUsize::new(0), done, run }
    }

    /// Takes the next one, in the order given, until none is left.
    pub(super) fn take_part(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = self.done.get(number) else { return };
            let result = (self.run)(number);
            if let Ok(mut place) = cell.lock() {
                *place = Some(result);
            }
        }
    }

    /// Adds up what came of all, in the order given.
    ///
    /// # Errors
    /// The first machine's that could not be run at all; the others ran to their ends.
    pub(super) fn sum(self) -> Result<Tally> {
        let mut all = Tally::default();
        for cell in self.done {
            let result = cell.into_inner().ok().flatten();
            all.add(result.ok_or_else(|| anyhow!("a machine's thread ended early"))??);
        }
        Ok(all)
    }
}

/// All tests of one machine, whose output is printed when it has ended.
pub(super) fn all_of(runner: &Runner<'_>) -> Result<Tally> {
    let mut printed = Vec::new();
    let tally = runner.tests_into(&mut |line| printed.push(line.to_owned()));
    if !printed.is_empty() {
        println!("{}", printed.join("\n"));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_run_two_at_a_time_and_add_up_in_order() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let meeting = std::sync::Barrier::new(2);
        let queue = Queue::new(4, |number| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Nobody gets past this alone.
            meeting.wait();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Tally::failure(number.to_string()))
        });
        std::thread::scope(|scope| {
            scope.spawn(|| queue.take_part());
            queue.take_part();
        });
        assert_eq!(queue.sum().unwrap().failed, ["0", "1", "2", "3"]);
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn one_that_cannot_run_does_not_stop_the_others() {
        let ran = AtomicUsize::new(0);
        let queue = Queue::new(3, |number| {
            ran.fetch_add(1, Ordering::SeqCst);
            if number == 0 { Err(anyhow!("no kernel")) } else { Ok(Tally::default()) }
        });
        queue.take_part();
        assert_eq!(queue.sum().unwrap_err().to_string(), "no kernel");
        assert_eq!(ran.into_inner(), 3);
    }
}
