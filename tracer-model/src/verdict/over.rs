//! The verdict over two intervals in a row, of which the earlier one was judged already.

use super::assess;
use crate::snapshot::{Culprit, Snapshot, State, Verdict, Volume};

/// Returns the verdict of a volume over two intervals, if it is not the later one's: it was full in the
/// earlier one, and is not any more. `snapshot` and `volume` are those of both intervals, with the
/// verdict of the later one; `earlier` is the verdict of the earlier one.
pub(crate) fn over_both(
    snapshot: &Snapshot,
    volume: &Volume,
    earlier: &Verdict,
) -> Option<Verdict> {
    let later = volume.verdict.as_ref()?;
    if earlier.state != State::Full || later.state == State::Full || volume.read_only {
        return None;
    }
    let mut verdict = Verdict {
        left: if later.limit == earlier.limit { later.left } else { earlier.left },
        eta_s: later.eta_s,
        eta_lo_s: later.eta_lo_s,
        eta_hi_s: later.eta_hi_s,
        reason: later.reason.clone(),
        suspects: later.suspects.clone(),
        suggestion: None,
        no_suggestion: None,
        why_no_suggestion: None,
        ..earlier.clone()
    };
    for culprit in verdict.culprits.iter_mut().filter(|culprit| has_ended(snapshot, culprit)) {
        culprit.ended = true;
        culprit.target = None;
    }
    // What can be freed, and the next step, are those of now.
    assess::conclude(snapshot, volume, &mut verdict);
    Some(verdict)
}

/// Whether the culprit, if it is one process, has ended since.
fn has_ended(snapshot: &Snapshot, culprit: &Culprit) -> bool {
    let (Some(pid), false) = (culprit.pids.first(), culprit.is_group) else { return false };
    let is_it = |other: u32, start_time| other == *pid && start_time == culprit.start_time;
    snapshot.ended.iter().any(|one| is_it(one.pid, one.start_time))
        || snapshot.writers.iter().any(|row| is_it(row.pid, row.start_time) && !row.alive)
}

#[cfg(test)]
mod tests {
    use crate::fixtures::{idle, volume, writer};
    use crate::history::merge::merge;
    use crate::snapshot::{NoSuggestion, Snapshot, State};
    use crate::verdict::Engine;

    const MIB: u64 = 1 << 20;

    /// Intervals of a volume that a process fills, each judged: full in the second one, and cleaned up
    /// by somebody else in the third. The process ends then if `ends`.
    fn intervals(ends: bool) -> Vec<Snapshot> {
        let mut engine = Engine::default();
        let interval = |number: usize| {
            let mut snapshot = idle();
            let mut srv = volume("/srv");
            srv.used_delta_bytes = [60, 60, -120, 0][number] * MIB as i64;
            (srv.full, srv.was_full) = (number == 1, number == 1);
            snapshot.taken_at += jiff::SignedDuration::from_secs(5 * number as i64);
            if number < 2 || (number == 2 && ends) {
                let bytes = if number < 2 { 60 * MIB } else { 0 };
                let mut dump = writer(7, "dump", "/srv", bytes);
                dump.alive = number < 2;
                snapshot.writers.push(dump);
            }
            if number == 2 {
                let mut cleaner = writer(8, "cleaner", "/srv", 0);
                cleaner.freed_bytes = Some(120 * MIB);
                cleaner.growth_bytes_per_s = -24.0 * MIB as f64;
                snapshot.writers.push(cleaner);
            }
            snapshot.volumes = vec![srv];
            engine.judge(&mut snapshot);
            snapshot
        };
        (0..4).map(interval).collect()
    }

    #[test]
    fn a_volume_that_was_full_in_a_part_was_full_in_the_whole() {
        let parts = intervals(false);
        let last = parts[3].volumes[0].verdict.as_ref().unwrap();
        assert_eq!(last.state, State::Calm);
        let whole = merge(&parts).unwrap();
        let verdict = whole.volumes[0].verdict.as_ref().unwrap();
        assert!(whole.volumes[0].was_full && verdict.state == State::Full, "{verdict:?}");
        assert!(verdict.summary.starts_with("was full for a moment: dump (pid 7"), "{verdict:?}");
        let next = verdict.suggestion.as_ref().unwrap();
        assert_eq!((next.target.as_str(), next.how.as_str()), ("7", "freeze"));
        let after = merge(&parts[2..]).unwrap();
        assert_eq!(after.volumes[0].verdict.as_ref().unwrap().state, State::Calm);
    }

    #[test]
    fn who_has_ended_since_is_not_to_be_stopped() {
        let whole = merge(&intervals(true)).unwrap();
        let verdict = whole.volumes[0].verdict.as_ref().unwrap();
        assert!(verdict.state == State::Full && verdict.culprits[0].ended, "{verdict:?}");
        assert_eq!(verdict.no_suggestion, Some(NoSuggestion::Ended));
    }
}
