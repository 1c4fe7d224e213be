//! Failed calls since the last sample: on which device, and whether it was for lack of space.
//!
//! A write that returns less than requested, and a store into a mapping that is refused, can have other
//! causes. They count as lack of space if the volume can have run out of it since the last sample.

use std::collections::HashMap;

use tracer_common::{ErrorKey, Errors, ProcKey};
use tracer_kernel::read::Deltas;

use super::volume_tracker::VolumeTracker;
use crate::attribute::places::Places;

/// The devices on which calls failed in this way, as far as they are known yet.
pub(super) fn devices(
    errors: &HashMap<ErrorKey, Errors>,
    places: &Places,
    in_this_way: impl Fn(&Errors) -> bool,
) -> Vec<u32> {
    let failed = errors.iter().filter(|(_, errors)| in_this_way(errors));
    failed.filter_map(|(key, _)| device(key, places)).collect()
}

/// Returns the failures by process and real device, without those whose cause was another one.
pub(super) fn settle(
    deltas: &mut Deltas,
    places: &Places,
    volumes: &mut VolumeTracker,
) -> HashMap<ErrorKey, Errors> {
    let mut settled: HashMap<ErrorKey, Errors> = HashMap::new();
    let mut ran_out: HashMap<u32, bool> = HashMap::new();
    for (key, errors) in std::mem::take(&mut deltas.errors) {
        let Some(dev) = device(&key, places) else { continue };
        let ran_out = *ran_out
            .entry(dev)
            .or_insert_with(|| volumes.can_have_run_out(dev, || taken_from(dev, deltas)));
        let errors = by_cause(&errors, ran_out);
        if ran_out && (errors.enospc > 0 || errors.short > 0) {
            volumes.was_full(dev);
        }
        let sum = settled.entry(ErrorKey { dev, ..key }).or_default();
        *sum = added(sum, &errors);
    }
    settled
}

fn device(key: &ErrorKey, places: &Places) -> Option<u32> {
    places.device(&ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 }, key.dev)
}

/// The most that can have been taken from a device since the last sample, bytes: what was allocated, or
/// where that is not traced, what was written.
fn taken_from(dev: u32, deltas: &Deltas) -> u64 {
    let pairs = deltas.pairs.iter().filter(|(pair, _)| pair.dev == dev);
    pairs.map(|(_, sum)| sum.written.max(sum.allocated)).fold(0, u64::saturating_add)
}

/// Assigns what can have several causes to one of them.
fn by_cause(errors: &Errors, ran_out: bool) -> Errors {
    let mut errors = *errors;
    let faults = std::mem::take(&mut errors.faults);
    if ran_out {
        errors.enospc += faults;
    } else {
        // Within a file, the other cause is a broken disk.
        errors.eio += faults;
        errors.short = 0;
    }
    errors
}

const fn added(one: &Errors, other: &Errors) -> Errors {
    Errors {
        enospc: one.enospc + other.enospc,
        edquot: one.edquot + other.edquot,
        eio: one.eio + other.eio,
        other: one.other + other.other,
        short: one.short + other.short,
        faults: one.faults + other.faults,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_lack_of_space_is_not_counted_as_such() {
        let errors = Errors { enospc: 1, edquot: 2, eio: 3, other: 4, short: 5, faults: 6 };
        let full = by_cause(&errors, true);
        assert_eq!(full, Errors { enospc: 7, faults: 0, ..errors });
        let roomy = by_cause(&errors, false);
        assert_eq!(roomy, Errors { eio: 9, short: 0, faults: 0, ..errors });
    }
}
