//! Turns the kernel's cumulative counters into the changes since the last read, without losing or
//! double counting anything. Pure: it sees the eBPF side only as slots and spilled entries.
//!
//! A slot of the slot table counts for one occupant, a (process, file), until another one takes the
//! slot; the occupant's *whole* count is then moved to the spill map. So when a slot has changed
//! occupants, the part already reported for the old occupant is owed: it is kept in `owed` and
//! subtracted from what the spill map contains for that key, now or at a later read.

use std::collections::HashMap;

use tracer_common::{Counters, ProcFileKey, Slot};

/// State of one slot at the last read.
#[derive(Clone, Copy, Default)]
struct LastRead {
    seq: u32,
    counters: Counters,
    /// Needed to record the debt for the right occupant.
    key: ProcFileKey,
}

/// The state between two reads. Keyed by slot index.
pub(crate) struct Ledger {
    last: Vec<LastRead>,
    owed: HashMap<ProcFileKey, Counters>,
}

impl Ledger {
    /// Creates a ledger for a table of `cells` slots.
    #[must_use]
    pub(crate) fn new(cells: usize) -> Self {
        Self { last: vec![LastRead::default(); cells], owed: HashMap::new() }
    }

    /// Computes the changes since the last call, by key. `spilled` are the entries removed from the
    /// retired spill map; they must have been removed before `cells` is read.
    pub(crate) fn update<'a>(
        &mut self,
        spilled: impl IntoIterator<Item = (ProcFileKey, Counters)>,
        cells: impl IntoIterator<Item = (usize, &'a Slot)>,
    ) -> HashMap<ProcFileKey, Counters> {
        let mut news: HashMap<ProcFileKey, Counters> = HashMap::new();
        for (index, slot) in cells {
            let Some(last) = self.last.get_mut(index) else { continue };
            // No occupant for now: a slot that changes occupants (see `SlotTable::cell`) has no counts,
            // and what was reported for the leaving occupant is owed.
            let counters = slot.counters();
            let fresh = if last.seq == slot.seq {
                counters.since(&last.counters)
            } else {
                if !last.counters.is_zero() {
                    self.owed.entry(last.key).or_default().add(&last.counters);
                }
                counters
            };
            if !fresh.is_zero() {
                news.entry(slot.key()).or_default().add(&fresh);
            }
            *last = LastRead { seq: slot.seq, counters, key: slot.key() };
        }
        for (key, credit) in spilled {
            let fresh = self.subtract_owed(key, &credit);
            if !fresh.is_zero() {
                news.entry(key).or_default().add(&fresh);
            }
        }
        news
    }

    #[cfg(test)]
    /// Number of keys whose occupants left but whose spilled counts have not arrived yet.
    #[must_use]
    pub(crate) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Subtracts what is owed for `key` from `credit`; any excess stays owed.
    fn subtract_owed(&mut self, key: ProcFileKey, credit: &Counters) -> Counters {
        let Some(owed) = self.owed.get_mut(&key) else { return *credit };
        let fresh = credit.since(owed);
        let rest = owed.since(credit);
        if rest.is_zero() {
            self.owed.remove(&key);
        } else {
            *owed = rest;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u64) -> ProcFileKey {
        ProcFileKey { ino: n, tgid: 1, ..ProcFileKey::default() }
    }

    /// Model of the eBPF side's slot table, with two spill maps.
    struct Kernel {
        cells: Vec<Slot>,
        spill: [HashMap<ProcFileKey, Counters>; 2],
        active: usize,
        /// By slot: the newcomer whose program was preempted while taking it, the bytes it counts,
        /// and whether the occupant's counts have been moved already.
        taking: HashMap<usize, (u64, u64, bool)>,
    }

    impl Kernel {
        fn new(cells: usize) -> Self {
            Self {
                cells: vec![Slot::default(); cells],
                spill: [HashMap::new(), HashMap::new()],
                active: 0,
                taking: HashMap::new(),
            }
        }

        fn spill(&mut self, key: ProcFileKey, counters: &Counters) {
            if !counters.is_zero() {
                self.spill[self.active].entry(key).or_default().add(counters);
            }
        }

        /// The program is preempted in the middle of [`Kernel::write`], before or after it has
        /// moved the occupant's counts.
        fn begin_to_take(&mut self, ino: u64, cell: usize, bytes: u64, moved: bool) {
            let slot = self.cells[cell];
            if self.taking.contains_key(&cell) || (slot.ino == ino && slot.tgid == 1) {
                return self.write(ino, cell, bytes);
            }
            if moved {
                self.spill(slot.key(), &slot.counters());
            }
            self.taking.insert(cell, (ino, bytes, moved));
        }

        fn finish(&mut self, cell: usize) {
            let Some((ino, bytes, moved)) = self.taking.remove(&cell) else { return };
            let slot = self.cells[cell];
            if !moved {
                self.spill(slot.key(), &slot.counters());
            }
            let seq = slot.seq + 2;
            self.cells[cell] = Slot { ino, tgid: 1, seq, written: bytes, ..Slot::default() };
        }

        /// The copy that [`crate::read::slot_table::Table`] returns.
        fn occupied(&self) -> Vec<(usize, Slot)> {
            let copy = |(cell, slot): (usize, &Slot)| match self.taking.get(&cell) {
                Some(_) => (cell, Slot { seq: slot.seq | 1, ..Slot::default() }),
                None => (cell, *slot),
            };
            self.cells.iter().enumerate().map(copy).filter(|(_, slot)| slot.seq != 0).collect()
        }

        fn write(&mut self, ino: u64, cell: usize, bytes: u64) {
            if self.taking.contains_key(&cell) {
                return self.spill(key(ino), &Counters { written: bytes, ..Counters::default() });
            }
            let slot = self.cells[cell];
            if slot.ino != ino || slot.tgid != 1 {
                self.spill(slot.key(), &slot.counters());
                let seq = slot.seq + 2;
                self.cells[cell] = Slot { ino, tgid: 1, seq, ..Slot::default() };
            }
            self.cells[cell].written += bytes;
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write {
            ino: u64,
            cell: usize,
            bytes: u64,
        },
        /// A write whose program is preempted and resumes later.
        Begin {
            ino: u64,
            cell: usize,
            bytes: u64,
            moved: bool,
        },
        Finish {
            cell: usize,
        },
        /// `between`: writes between the switch of the spill maps and the read of the slots.
        Read {
            between: Vec<(u64, usize, u64)>,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let write = (1u64..6, 0usize..3, 1u64..1000);
        prop_oneof![
            4 => write.clone().prop_map(|(ino, cell, bytes)| Step::Write { ino, cell, bytes }),
            1 => (write.clone(), any::<bool>()).prop_map(|((ino, cell, bytes), moved)| {
                Step::Begin { ino, cell, bytes, moved }
            }),
            1 => (0usize..3).prop_map(|cell| Step::Finish { cell }),
            1 => prop::collection::vec(write, 0..4).prop_map(|between| Step::Read { between }),
        ]
    }

    proptest! {
        /// Whatever the order of writes, evictions and reads, the sums are exact in the end and
        /// never ahead of the truth on the way.
        #[test]
        fn sums_are_exact(steps in prop::collection::vec(step(), 0..200)) {
            let mut kernel = Kernel::new(3);
            let mut ledger = Ledger::new(3);
            let mut truth: HashMap<ProcFileKey, u64> = HashMap::new();
            let mut sums: HashMap<ProcFileKey, u64> = HashMap::new();
            let read = || Step::Read { between: vec![] };
            let finish = |cell| Step::Finish { cell };
            let quiet = [finish(0), finish(1), finish(2), read(), read()];
            for step in steps.iter().chain(&quiet) {
                match step {
                    Step::Write { ino, cell, bytes } => {
                        kernel.write(*ino, *cell, *bytes);
                        *truth.entry(key(*ino)).or_default() += bytes;
                    }
                    Step::Begin { ino, cell, bytes, moved } => {
                        kernel.begin_to_take(*ino, *cell, *bytes, *moved);
                        *truth.entry(key(*ino)).or_default() += bytes;
                    }
                    Step::Finish { cell } => kernel.finish(*cell),
                    Step::Read { between } => {
                        let retired = kernel.active;
                        kernel.active = 1 - retired;
                        for (ino, cell, bytes) in between {
                            kernel.write(*ino, *cell, *bytes);
                            *truth.entry(key(*ino)).or_default() += bytes;
                        }
                        let spilled: Vec<_> = kernel.spill[retired].drain().collect();
                        let cells = kernel.occupied();
                        let cells = cells.iter().map(|(cell, slot)| (*cell, slot));
                        for (key, fresh) in ledger.update(spilled, cells) {
                            let sum = sums.entry(key).or_default();
                            *sum += fresh.written;
                            prop_assert!(*sum <= truth[&key]);
                        }
                    }
                }
            }
            prop_assert_eq!(sums, truth);
            prop_assert_eq!(ledger.owed(), 0);
        }
    }
}
