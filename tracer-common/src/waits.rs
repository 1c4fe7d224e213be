//! How long processes wait for a volume: histograms filled by the eBPF side.

use crate::pod;

/// Cells of a histogram: four for each power of two of microseconds, up to 2^26 µs (67 s).
pub const WAIT_CELLS: usize = 4 * 27;

/// What a process waited for.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitKind {
    /// fsync, fdatasync, and what O_SYNC adds to a write.
    Fsync = 1,
    /// A writer that the kernel puts to sleep because too many pages are dirty; in jiffies, not in
    /// nanoseconds.
    Throttle = 2,
}

/// Key of waits: process, volume and kind.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct WaitKey {
    /// [`crate::ProcKey::start_ns`].
    pub start_ns: u64,
    /// [`crate::ProcKey::tgid`].
    pub tgid: u32,
    /// [`crate::FileKey::dev`]; 0 if unknown.
    pub dev: u32,
    /// [`WaitKind`].
    pub kind: u32,
    /// Always 0.
    pub pad: u32,
}

/// The waits of one [`WaitKey`] between two reads of the maps.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// Number of waits.
    pub count: u64,
    /// Sum of all waits, ns (jiffies for [`WaitKind::Throttle`]).
    pub total: u64,
    /// Longest wait, in the same unit.
    pub max: u64,
    /// Number of waits by duration: [`wait_cell`]. Empty for [`WaitKind::Throttle`].
    pub cells: [u32; WAIT_CELLS],
}

impl Waits {
    /// No waits.
    pub const ZERO: Self = Self { count: 0, total: 0, max: 0, cells: [0; WAIT_CELLS] };

    /// Adds another histogram to this one.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.total += other.total;
        self.max = self.max.max(other.max);
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            *cell += more;
        }
    }

    /// Returns the 99th percentile, ns: the upper end of its cell, so at most a quarter too long;
    /// never more than the longest wait.
    #[must_use]
    pub fn p99(&self) -> u64 {
        let all: u64 = self.cells.iter().map(|n| u64::from(*n)).sum();
        let rank = all - all / 100;
        let mut below = 0;
        for (index, n) in self.cells.iter().enumerate() {
            below += u64::from(*n);
            if below >= rank && all > 0 {
                return cell_end_us(index).saturating_mul(1_000).min(self.max);
            }
        }
        self.max
    }
}

/// Returns the cell for a wait of `us` microseconds. Written for the verifier: no loop, no
/// division.
#[must_use]
#[inline(always)]
pub const fn wait_cell(us: u64) -> u32 {
    let mut v = if us > 0x03ff_ffff { 0x03ff_ffff } else { us as u32 };
    if v < 4 {
        return v;
    }
    let mut log = 0;
    if v >= 1 << 16 {
        log += 16;
        v >>= 16;
    }
    if v >= 1 << 8 {
        log += 8;
        v >>= 8;
    }
    if v >= 1 << 4 {
        log += 4;
        v >>= 4;
    }
    if v >= 1 << 2 {
        log += 2;
        v >>= 2;
    }
    if v >= 2 {
        log += 1;
    }
    let whole = if us > 0x03ff_ffff { 0x03ff_ffff } else { us as u32 };
    let quarter = (whole >> (log - 2)) & 3;
    (log * 4 + quarter) & 127
}

/// Returns the first duration above a cell, µs.
const fn cell_end_us(cell: usize) -> u64 {
    if cell < 8 {
        return cell as u64 + 1;
    }
    (4 + (cell as u64 & 3) + 1) << (cell / 4 - 2)
}

pod!(WaitKey, Waits);
const _: () = assert!(size_of::<WaitKey>() == 24 && size_of::<Waits>() == 24 + 4 * WAIT_CELLS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_in_order_and_contain_their_durations() {
        let mut last = 0;
        for us in (0..100_000).chain((100_000..80_000_000).step_by(9_973)) {
            let cell = wait_cell(us);
            assert!((cell as usize) < WAIT_CELLS && cell >= last, "{us} µs in cell {cell}");
            assert!(us >= 0x03ff_ffff || us < cell_end_us(cell as usize), "{us} µs, cell {cell}");
            last = cell;
        }
    }

    #[test]
    fn the_99th_percentile_is_at_most_a_quarter_too_long() {
        let mut waits = Waits::ZERO;
        for us in 1..=10_000u64 {
            waits.count += 1;
            waits.max = waits.max.max(us * 1_000);
            waits.cells[wait_cell(us) as usize] += 1;
        }
        let p99 = waits.p99();
        assert!((9_900_000..=10_000_000).contains(&p99), "{p99} ns");
        assert_eq!(Waits::ZERO.p99(), 0);
        let mut one = Waits { count: 1, max: 5_000, ..Waits::ZERO };
        one.cells[wait_cell(5) as usize] = 1;
        assert_eq!(one.p99(), 5_000);
    }
}
