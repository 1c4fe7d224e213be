//! Several machines at a time: none of them waits for another, and what each one says is printed in one
//! piece when it ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use super::runner::Runner;
use crate::tally::Tally;

/// Runs all tests of each, no more than `at_a_time` of them together, in the order given.
///
/// # Errors
/// The first machine's that could not be run at all; the others run to their ends.
pub(super) fn run(runners: &[Runner<'_>], at_a_time: usize) -> Result<Tally> {
    in_turn(runners.len(), at_a_time, |number| {
        let mut printed = Vec::new();
        let tally = runners[number].tests_into(&mut |line| printed.push(line.to_owned()));
        if !printed.is_empty() {
            println!("{}", printed.join("\n"));
        }
        tally
    })
}

/// Adds up what `part` makes of each number below `parts`, in that order.
fn in_turn(
    parts: usize,
    at_a_time: usize,
    part: impl Fn(usize) -> Result<Tally> + Sync,
) -> Result<Tally> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Tally>>>> = (0..parts).map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for _ in 0..at_a_time.max(1) {
            scope.spawn(|| {
                while let Some(cell) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    done.get(number).map(|cell| (number, cell))
                } {
                    let result = part(cell.0);
                    if let Ok(mut place) = cell.1.lock() {
                        *place = Some(result);
                    }
                }
            });
        }
    });
    let mut all = Tally::default();
    for cell in done {
        let result = cell.into_inner().ok().flatten();
        all.add(result.ok_or_else(|| anyhow!("a machine's thread ended early"))??);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_run_two_at_a_time_and_add_up_in_order() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let meeting = std::sync::Barrier::new(2);
        let tally = in_turn(4, 2, |number| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Nobody gets past this alone.
            meeting.wait();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Tally::failure(number.to_string()))
        });
        assert_eq!(tally.unwrap().failed, ["0", "1", "2", "3"]);
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn a_part_that_cannot_run_does_not_stop_the_others() {
        let ran = AtomicUsize::new(0);
        let tally = in_turn(3, 1, |number| {
            ran.fetch_add(1, Ordering::SeqCst);
            if number == 0 { Err(anyhow!("no kernel")) } else { Ok(Tally::default()) }
        });
        assert_eq!(tally.unwrap_err().to_string(), "no kernel");
        assert_eq!(ran.into_inner(), 3);
    }
}
