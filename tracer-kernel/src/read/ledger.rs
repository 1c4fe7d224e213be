//! Turns the kernel's counters into what happened since the last look, losing nothing and counting
//! nothing twice. Pure: the kernel side is only seen as cells and spilled entries.
//!
//! A cell of the direct-mapped table counts for one tenant, a (process, file), until another one
//! takes it; the tenant's *whole* count then goes to the spill map. So when a cell has changed
//! hands, what was already taken from the old tenant is owed: it is kept in `owed` and subtracted
//! from what the spill map brings for that key, now or at a later look.

use std::collections::HashMap;

use tracer_common::{Counters, PairKey, Slot};

/// What was seen of one cell at the last look.
#[derive(Clone, Copy, Default)]
struct Seen {
    seq: u32,
    counters: Counters,
    /// Needed to owe to the right tenant.
    key: PairKey,
}

/// The state between two looks. Keyed by cell index.
pub struct Ledger {
    seen: Vec<Seen>,
    owed: HashMap<PairKey, Counters>,
}

impl Ledger {
    /// For a table of `cells`.
    #[must_use]
    pub fn new(cells: usize) -> Self {
        Self { seen: vec![Seen::default(); cells], owed: HashMap::new() }
    }

    /// Takes one look. `spilled` are the entries that were taken out of the retired spill map, and
    /// must have been taken before `cells` is read. Returns what is new, by key.
    pub fn look<'a>(
        &mut self,
        spilled: impl IntoIterator<Item = (PairKey, Counters)>,
        cells: impl IntoIterator<Item = (usize, &'a Slot)>,
    ) -> HashMap<PairKey, Counters> {
        let mut news: HashMap<PairKey, Counters> = HashMap::new();
        for (index, slot) in cells {
            let Some(seen) = self.seen.get_mut(index) else { continue };
            // Without a tenant for now: a cell that changes hands (see `Table::cell`) has no counts,
            // and what was taken from the one that leaves is owed.
            let counters = slot.counters();
            let fresh = if seen.seq == slot.seq {
                counters.since(&seen.counters)
            } else {
                if !seen.counters.is_zero() {
                    self.owed.entry(seen.key).or_default().add(&seen.counters);
                }
                counters
            };
            if !fresh.is_zero() {
                news.entry(slot.key()).or_default().add(&fresh);
            }
            *seen = Seen { seq: slot.seq, counters, key: slot.key() };
        }
        for (key, credit) in spilled {
            let fresh = self.settle(key, &credit);
            if !fresh.is_zero() {
                news.entry(key).or_default().add(&fresh);
            }
        }
        news
    }

    #[cfg(test)]
    /// Keys whose tenants left but whose spilled counts have not come yet.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Subtracts what is owed for `key` from `credit`; what is owed beyond it stays owed.
    fn settle(&mut self, key: PairKey, credit: &Counters) -> Counters {
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

    fn key(n: u64) -> PairKey {
        PairKey { ino: n, tgid: 1, ..PairKey::default() }
    }

    /// The kernel side's table, with `cells` cells and two spill maps.
    struct Kernel {
        cells: Vec<Slot>,
        spill: [HashMap<PairKey, Counters>; 2],
        active: usize,
        /// By cell, the newcomer whose program was put aside while it took it, with what it counts,
        /// and whether the tenant's counts have been moved already.
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

        fn spill(&mut self, key: PairKey, counters: &Counters) {
            if !counters.is_zero() {
                self.spill[self.active].entry(key).or_default().add(counters);
            }
        }

        /// The program is put aside in the middle of [`Kernel::write`], before or after it has moved
        /// the tenant's counts.
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

        /// What [`crate::read::slot_table::Table`] makes of it.
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
        /// A write whose program is put aside, and goes on.
        Begin {
            ino: u64,
            cell: usize,
            bytes: u64,
            moved: bool,
        },
        Finish {
            cell: usize,
        },
        /// Writes that happen between the turn of the spill maps and the look at the cells.
        Look {
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
            1 => prop::collection::vec(write, 0..4).prop_map(|between| Step::Look { between }),
        ]
    }

    proptest! {
        /// Whatever the order of writes, evictions and looks, the sums are exact in the end and
        /// never ahead of the truth on the way.
        #[test]
        fn sums_are_exact(steps in prop::collection::vec(step(), 0..200)) {
            let mut kernel = Kernel::new(3);
            let mut ledger = Ledger::new(3);
            let mut truth: HashMap<PairKey, u64> = HashMap::new();
            let mut sums: HashMap<PairKey, u64> = HashMap::new();
            let look = || Step::Look { between: vec![] };
            let finish = |cell| Step::Finish { cell };
            let quiet = [finish(0), finish(1), finish(2), look(), look()];
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
                    Step::Look { between } => {
                        let retired = kernel.active;
                        kernel.active = 1 - retired;
                        for (ino, cell, bytes) in between {
                            kernel.write(*ino, *cell, *bytes);
                            *truth.entry(key(*ino)).or_default() += bytes;
                        }
                        let spilled: Vec<_> = kernel.spill[retired].drain().collect();
                        let cells = kernel.occupied();
                        let cells = cells.iter().map(|(cell, slot)| (*cell, slot));
                        for (key, fresh) in ledger.look(spilled, cells) {
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
