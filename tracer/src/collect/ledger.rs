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
    }

    impl Kernel {
        fn new(cells: usize) -> Self {
            Self {
                cells: vec![Slot::default(); cells],
                spill: [HashMap::new(), HashMap::new()],
                active: 0,
            }
        }

        fn write(&mut self, ino: u64, cell: usize, bytes: u64) {
            let slot = &mut self.cells[cell];
            if slot.ino != ino || slot.tgid != 1 {
                let old = slot.counters();
                if !old.is_zero() {
                    self.spill[self.active].entry(slot.key()).or_default().add(&old);
                }
                *slot = Slot { ino, tgid: 1, seq: slot.seq + 2, ..Slot::default() };
            }
            slot.written += bytes;
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write {
            ino: u64,
            cell: usize,
            bytes: u64,
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
            let quiet = [Step::Look { between: vec![] }, Step::Look { between: vec![] }];
            for step in steps.iter().chain(&quiet) {
                match step {
                    Step::Write { ino, cell, bytes } => {
                        kernel.write(*ino, *cell, *bytes);
                        *truth.entry(key(*ino)).or_default() += bytes;
                    }
                    Step::Look { between } => {
                        let retired = kernel.active;
                        kernel.active = 1 - retired;
                        for (ino, cell, bytes) in between {
                            kernel.write(*ino, *cell, *bytes);
                            *truth.entry(key(*ino)).or_default() += bytes;
                        }
                        let spilled: Vec<_> = kernel.spill[retired].drain().collect();
                        let cells = kernel.cells.iter().enumerate().filter(|(_, s)| s.seq != 0);
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
