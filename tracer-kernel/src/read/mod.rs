//! Reads the eBPF maps and statvfs as raw values. Naming and rates are computed in later stages.

pub(crate) mod drain;
pub(crate) mod ledger;
pub(crate) mod maps;
pub(crate) mod mmap_array;
pub(crate) mod slot_table;

use std::collections::{HashMap, HashSet};
use std::io;

use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use bytemuck::{AnyBitPattern, NoUninit};
use tracer_common::counters::SELF_STAT_CELLS;
use tracer_common::records::{CommRecord, ExitRecord, NAME_BUFFER, PlaceRecord};
use tracer_common::{
    BtrfsFile, Counters, Entries, ErrorKey, Errors, FileKey, NameRecord, ProcFileKey, ProcKey,
    ProcRecord, RecordHeader, RecordKind, SelfStat, WaitKey, Waits,
};
use tracer_model::snapshot::{Loss, LossKind};

use self::drain::Drain;
use self::ledger::Ledger;
use self::maps::{fd_of, take_map};
use self::mmap_array::{Access, MmapArray};
use self::slot_table::SlotTable;
use crate::loader::Tracer;
use crate::sys;

/// A record received through the ring buffer.
pub enum Record {
    /// The name of a file or directory.
    Name(Box<NameRecord>),
    /// A new writer.
    Process(Box<ProcRecord>),
    /// A writer exited.
    Exit(ProcKey),
    /// A writer has another name now: up to the first NUL.
    Renamed(ProcKey, [u8; 16]),
    /// The name of the thread of a writer that writes now: up to the first NUL.
    Thread(ProcKey, [u8; 16]),
    /// The directory of a path that a system call was given.
    Place(Box<PlaceRecord>),
}

/// Changes between two reads of the maps.
#[derive(Default)]
pub struct Deltas {
    /// Counters, by process and file.
    pub pairs: HashMap<ProcFileKey, Counters>,
    /// Failed writes, by process and device.
    pub errors: HashMap<ErrorKey, Errors>,
    /// Waits, by process, volume and kind.
    pub waits: HashMap<WaitKey, Waits>,
    /// Inodes created and removed, by process and directory.
    pub created: HashMap<ProcFileKey, Entries>,
    /// Files that were given space they share with another file (reflinks).
    pub shared: HashSet<FileKey>,
    /// Bytes that compression saved on files whose space no hook traces.
    pub saved: HashMap<BtrfsFile, u64>,
    /// What did not fit into the kernel's maps: exact totals without a breakdown.
    pub other: Counters,
    /// Events known to be lost, since startup.
    pub lost: Vec<Loss>,
}

/// Reads the eBPF side's maps.
pub struct Collector {
    table: SlotTable,
    /// Kept open: programs that are loaded later refer to the mapped maps by their descriptors.
    _mapped: [Map; 3],
    ledger: Ledger,
    ring: RingBuf<MapData>,
    spill_active: MmapArray<u32>,
    stats: SelfStats,
    /// Of each pair of maps, one takes new entries while the other is drained.
    spills: [Drain<ProcFileKey, Counters>; 2],
    errors: [Drain<ErrorKey, Errors>; 2],
    waits: [Drain<WaitKey, Waits>; 2],
    created: [Drain<ProcFileKey, Entries>; 2],
    saved: [Drain<BtrfsFile, u64>; 2],
    shared: Drain<FileKey, u32>,
    active: u32,
    other_before: Counters,
    /// Records that could not be parsed: the daemon and the eBPF object are of different versions.
    malformed: u64,
}

impl Collector {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// If a map is missing or cannot be mapped.
    pub fn new(tracer: &mut Tracer) -> anyhow::Result<Self> {
        use SelfStat::{
            UsedCreatedA, UsedCreatedB, UsedErrorsA, UsedErrorsB, UsedSavedA, UsedSavedB,
            UsedShared, UsedSpillA, UsedSpillB, UsedWaitsA, UsedWaitsB,
        };
        let (per_cpu, cpus) = tracer.table_shape();
        let cells = per_cpu as usize * cpus as usize;
        let ebpf = &mut tracer.ebpf;
        let slots = take_map(ebpf, "SLOTS")?;
        let (active, health) = (take_map(ebpf, "SPILL_ACTIVE")?, take_map(ebpf, "HEALTH")?);
        let table = SlotTable::map(fd_of(&slots)?, cells).context("cannot map the counters")?;
        Ok(Self {
            table,
            ledger: Ledger::new(cells),
            ring: take_map(ebpf, "RECORDS")?.try_into()?,
            spill_active: MmapArray::new(fd_of(&active)?, 1, Access::Write)
                .context("cannot map the switch between the pairs of maps")?,
            stats: SelfStats(
                MmapArray::new(
                    fd_of(&health)?,
                    cpus as usize * SELF_STAT_CELLS as usize,
                    Access::Read,
                )
                .context("cannot map the self-statistics")?,
            ),
            _mapped: [slots, active, health],
            spills: [
                Drain::new(ebpf, "SPILL_A", "iter_spill", UsedSpillA)?,
                Drain::new(ebpf, "SPILL_B", "iter_spill", UsedSpillB)?,
            ],
            errors: [
                Drain::new(ebpf, "ERRORS_A", "iter_errors", UsedErrorsA)?,
                Drain::new(ebpf, "ERRORS_B", "iter_errors", UsedErrorsB)?,
            ],
            waits: [
                Drain::new(ebpf, "WAITS_A", "iter_waits", UsedWaitsA)?,
                Drain::new(ebpf, "WAITS_B", "iter_waits", UsedWaitsB)?,
            ],
            created: [
                Drain::new(ebpf, "CREATED_A", "iter_created", UsedCreatedA)?,
                Drain::new(ebpf, "CREATED_B", "iter_created", UsedCreatedB)?,
            ],
            saved: [
                Drain::new(ebpf, "SAVED_A", "iter_saved", UsedSavedA)?,
                Drain::new(ebpf, "SAVED_B", "iter_saved", UsedSavedB)?,
            ],
            shared: Drain::new(ebpf, "SHARED", "iter_shared", UsedShared)?,
            active: 0,
            other_before: Counters::default(),
            malformed: 0,
        })
    }

    /// Reads all records from the ring buffer.
    pub fn records(&mut self, mut each: impl FnMut(Record)) {
        while let Some(item) = self.ring.next() {
            match parse(&item) {
                Some(record) => each(record),
                None => self.malformed += 1,
            }
        }
    }

    /// Returns the changes since the last call. Blocks for one RCU grace period, some 20 ms.
    ///
    /// # Errors
    /// The kernel's error on one of its maps.
    pub fn read(&mut self, missed_by_kernel: Vec<Loss>) -> anyhow::Result<Deltas> {
        let retired = self.active as usize;
        self.active = 1 - self.active;
        // SAFETY: the mapping's one cell, which the eBPF side only reads.
        unsafe { std::ptr::write_volatile(self.spill_active.cell(0), self.active) };
        sys::wait_for_running_programs();
        let (spilled, stats) = (&mut self.spills[retired], &self.stats);
        let spilled = drained(spilled, stats).context("cannot drain the spill map")?;
        let errors = drained(&mut self.errors[retired], stats)
            .context("cannot drain the map of failed writes")?;
        let waits =
            drained(&mut self.waits[retired], stats).context("cannot drain the map of waits")?;
        let created = drained(&mut self.created[retired], stats)
            .context("cannot drain the map of created files")?;
        let saved = drained(&mut self.saved[retired], stats)
            .context("cannot drain the map of compression savings")?;
        let shared = drained(&mut self.shared, stats)
            .context("cannot drain the map of files that share space")?;
        let cells: Vec<_> = self.table.occupied().collect();
        let pairs = self.ledger.update(spilled, cells.iter().map(|(index, slot)| (*index, slot)));
        Ok(Deltas {
            pairs,
            errors: errors.into_iter().collect(),
            waits: waits.into_iter().collect(),
            created: created.into_iter().collect(),
            saved: saved.into_iter().collect(),
            shared: shared.into_iter().map(|(file, _)| file).collect(),
            other: self.new_other(),
            lost: self.lost(missed_by_kernel),
        })
    }

    /// Returns the file of each occupied slot, once per slot: the fast path counts there without
    /// sending a name.
    pub fn occupants(&self) -> impl Iterator<Item = FileKey> {
        self.table.occupied().map(|(_, slot)| slot.key().file())
    }

    /// Returns the events known to be lost since startup, including those the kernel did not
    /// deliver.
    fn lost(&self, mut lost: Vec<Loss>) -> Vec<Loss> {
        let counted = [
            (
                SelfStat::RingFull,
                LossKind::RingFull,
                "the ring buffer for names and processes was full",
            ),
            (SelfStat::InFlightFull, LossKind::MapFull, "the map of in-flight calls was full"),
            (SelfStat::OtherErrors, LossKind::MapFull, "the map of failed writes was full"),
            (SelfStat::OtherWaits, LossKind::MapFull, "the map of waits or created files was full"),
        ];
        for (cell, kind, cause) in counted {
            lost.push(Loss { cause: cause.to_owned(), events: self.stats.sum(cell), kind });
        }
        lost.push(Loss {
            cause: "records were malformed".to_owned(),
            events: self.malformed,
            kind: LossKind::Malformed,
        });
        lost.retain(|loss| loss.events > 0);
        lost
    }

    fn new_other(&mut self) -> Counters {
        let now = Counters {
            written: self.stats.sum(SelfStat::OtherWritten),
            allocated: self.stats.sum(SelfStat::OtherAllocated),
            freed: self.stats.sum(SelfStat::OtherFreed),
            ..Counters::default()
        };
        let fresh = now.since(&self.other_before);
        self.other_before = now;
        fresh
    }
}

/// The eBPF side's [`SelfStat`] counters, for all CPUs.
struct SelfStats(MmapArray<u64>);

impl SelfStats {
    /// Returns the sum over all CPUs.
    fn sum(&self, cell: SelfStat) -> u64 {
        let cells = (cell as usize..self.0.len()).step_by(SELF_STAT_CELLS as usize);
        cells.map(|index| self.0.get(index)).sum()
    }
}

/// Removes and returns all entries of a map.
fn drained<K, V>(drain: &mut Drain<K, V>, stats: &SelfStats) -> io::Result<Vec<(K, V)>>
where
    K: AnyBitPattern + NoUninit,
    V: AnyBitPattern + NoUninit,
{
    let mut all = Vec::new();
    drain.drain(stats.sum(drain.used), |key, value| all.push((key, value)))?;
    Ok(all)
}

/// Parses one record of the ring buffer; `None` if it is not of a known form.
fn parse(bytes: &[u8]) -> Option<Record> {
    let header: RecordHeader =
        bytemuck::pod_read_unaligned(bytes.get(..size_of::<RecordHeader>())?);
    const NAME: u32 = RecordKind::Name as u32;
    const PROC: u32 = RecordKind::Proc as u32;
    const EXIT: u32 = RecordKind::Exit as u32;
    const RENAMED: u32 = RecordKind::Renamed as u32;
    const THREAD: u32 = RecordKind::Thread as u32;
    const PLACE: u32 = RecordKind::Place as u32;
    match header.kind {
        NAME => {
            let fixed = size_of::<NameRecord>() - NAME_BUFFER;
            let len = header.len as usize;
            if bytes.len() < fixed + len || len >= NAME_BUFFER {
                return None;
            }
            // The ring buffer holds only the used part of the name.
            let mut whole = [0u8; size_of::<NameRecord>()];
            whole[..fixed + len].copy_from_slice(&bytes[..fixed + len]);
            Some(Record::Name(Box::new(bytemuck::pod_read_unaligned(&whole))))
        }
        PROC => {
            let whole = bytes.get(..size_of::<ProcRecord>())?;
            Some(Record::Process(Box::new(bytemuck::pod_read_unaligned(whole))))
        }
        EXIT => {
            let whole = bytes.get(..size_of::<ExitRecord>())?;
            Some(Record::Exit(bytemuck::pod_read_unaligned::<ExitRecord>(whole).proc))
        }
        PLACE => {
            let whole = bytes.get(..size_of::<PlaceRecord>())?;
            Some(Record::Place(Box::new(bytemuck::pod_read_unaligned(whole))))
        }
        RENAMED | THREAD => {
            let whole = bytes.get(..size_of::<CommRecord>())?;
            let CommRecord { proc, comm, .. } = bytemuck::pod_read_unaligned(whole);
            Some(match header.kind {
                RENAMED => Record::Renamed(proc, comm),
                _ => Record::Thread(proc, comm),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_and_unknown_records_are_rejected() {
        let exit = ExitRecord {
            header: RecordHeader { kind: RecordKind::Exit as u32, len: 0 },
            proc: ProcKey { start_ns: 7, tgid: 3, pad: 0 },
        };
        let bytes = bytemuck::bytes_of(&exit);
        assert!(matches!(parse(bytes), Some(Record::Exit(proc)) if proc.tgid == 3));
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_none());
        }
        assert!(parse(&[9, 0, 0, 0, 0, 0, 0, 0]).is_none());
        // A name longer than its record.
        assert!(parse(&[1, 0, 0, 0, 200, 0, 0, 0]).is_none());
    }
}
