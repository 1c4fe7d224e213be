//! Maps and statvfs → raw values. Nothing is named or rated here.

mod ledger;
mod mapped;
pub mod mounts;
mod table;

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    mem,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
};
use bytemuck::{AnyBitPattern, NoUninit};
use tracer_common::{
    Counters, ErrorKey, Errors, FileKey, Health, NameRecord, PairKey, ProcKey, ProcRecord,
    RecordHeader, RecordKind, WaitKey, Waits,
    counters::HEALTH_CELLS,
    records::{ExitRecord, NAME_ROOM},
};
use tracer_model::snapshot::Loss;

use self::{
    ledger::Ledger,
    mapped::{Access, Mapped},
    table::Table,
};
use crate::probes::{Tracer, sys};

/// What came through the ring.
pub enum Record {
    /// A name of a file or directory.
    Name(Box<NameRecord>),
    /// A new writer.
    Process(Box<ProcRecord>),
    /// A writer ended.
    Exit(ProcKey),
}

/// What happened between two looks.
#[derive(Default)]
pub struct Deltas {
    /// By process and file.
    pub pairs: HashMap<PairKey, Counters>,
    /// Failed writes by process and device.
    pub errors: HashMap<ErrorKey, Errors>,
    /// How long processes waited, by process, volume and kind.
    pub waits: HashMap<WaitKey, Waits>,
    /// Files created, by process and directory.
    pub created: HashMap<PairKey, u64>,
    /// Files that got space which another file has, too.
    pub shared: HashSet<FileKey>,
    /// What found the kernel's maps full: exact totals without a breakdown.
    pub other: Counters,
    /// Events known to be lost, since the start.
    pub lost: Vec<Loss>,
}

/// Reads the kernel side's maps.
pub struct Collector {
    table: Table,
    /// Kept open: programs that are loaded later name the mapped ones by their descriptors.
    _mapped: [Map; 3],
    ledger: Ledger,
    ring: RingBuf<MapData>,
    spill_active: Mapped<u32>,
    health: Mapped<u64>,
    spills: [Map; 2],
    errors_map: Map,
    waits: [Map; 2],
    created: [Map; 2],
    named: Map,
    shared: Map,
    active: u32,
    errors_seen: HashMap<ErrorKey, Errors>,
    other_seen: Counters,
    /// Of each cell of HEALTH that tells of a map's use, what it said last.
    used: [u64; HEALTH_CELLS as usize],
    /// Records that were not understood: a daemon and a kernel side of different versions.
    damaged: u64,
}

impl Collector {
    /// Takes the maps out of a loaded kernel side.
    ///
    /// # Errors
    /// If a map is missing or cannot be mapped.
    pub fn new(tracer: &mut Tracer) -> anyhow::Result<Self> {
        let (per_cpu, cpus) = tracer.table_shape();
        let cells = per_cpu as usize * cpus as usize;
        let ebpf = &mut tracer.ebpf;
        let slots = take(ebpf, "SLOTS")?;
        let (active, health) = (take(ebpf, "SPILL_ACTIVE")?, take(ebpf, "HEALTH")?);
        let table = Table::map(fd_of(&slots)?, cells).context("cannot map the counters")?;
        Ok(Self {
            table,
            ledger: Ledger::new(cells),
            ring: take(ebpf, "RECORDS")?.try_into()?,
            spill_active: Mapped::new(fd_of(&active)?, 1, Access::Write)
                .context("cannot map what turns the maps")?,
            health: Mapped::new(
                fd_of(&health)?,
                cpus as usize * HEALTH_CELLS as usize,
                Access::Read,
            )
            .context("cannot map the kernel side's health")?,
            _mapped: [slots, active, health],
            spills: [take(ebpf, "SPILL_A")?, take(ebpf, "SPILL_B")?],
            errors_map: take(ebpf, "ERRORS")?,
            waits: [take(ebpf, "WAITS_A")?, take(ebpf, "WAITS_B")?],
            created: [take(ebpf, "CREATED_A")?, take(ebpf, "CREATED_B")?],
            named: take(ebpf, "NAMED")?,
            shared: take(ebpf, "SHARED")?,
            active: 0,
            errors_seen: HashMap::new(),
            other_seen: Counters::default(),
            used: [0; HEALTH_CELLS as usize],
            damaged: 0,
        })
    }

    /// Empties the ring.
    pub fn records(&mut self, mut each: impl FnMut(Record)) {
        while let Some(item) = self.ring.next() {
            match parse(&item) {
                Some(record) => each(record),
                None => self.damaged += 1,
            }
        }
    }

    /// What happened since the last look. Blocks for one RCU grace period, some 20 ms.
    ///
    /// # Errors
    /// What the kernel says about its maps.
    pub fn look(&mut self, missed_by_kernel: Vec<Loss>) -> anyhow::Result<Deltas> {
        let retired = self.active as usize;
        self.active = 1 - self.active;
        // SAFETY: the mapping's one cell, which the kernel side only reads.
        unsafe { std::ptr::write_volatile(self.spill_active.cell(0), self.active) };
        sys::wait_for_running_programs();
        let [spill, waits, created] = [
            [Health::UsedSpillA, Health::UsedSpillB],
            [Health::UsedWaitsA, Health::UsedWaitsB],
            [Health::UsedCreatedA, Health::UsedCreatedB],
        ]
        .map(|cells| cells[retired]);
        let mut spilled = Vec::new();
        if self.is_used(spill) {
            sys::drain_map(fd_of(&self.spills[retired])?, |key: PairKey, counters: Counters| {
                spilled.push((key, counters));
            })
            .context("cannot empty the spill map")?;
        }
        let (mut waited, mut made, mut shared) = (HashMap::new(), HashMap::new(), HashMap::new());
        if self.is_used(waits) {
            waited = drained(&self.waits[retired]).context("cannot empty the map of waits")?;
        }
        if self.is_used(created) {
            made = drained(&self.created[retired]).context("cannot empty the created files")?;
        }
        if self.is_used(Health::UsedShared) {
            shared = drained::<FileKey, u32>(&self.shared)
                .context("cannot empty the files that share space")?;
        }
        let cells: Vec<_> = self.table.occupied().collect();
        let pairs = self.ledger.look(spilled, cells.iter().map(|(index, slot)| (*index, slot)));
        Ok(Deltas {
            pairs,
            waits: waited,
            created: made,
            shared: shared.into_keys().collect(),
            errors: self.new_errors()?,
            other: self.new_other(),
            lost: self.lost(missed_by_kernel),
        })
    }

    /// What is known to be lost since the start, with what the kernel missed.
    fn lost(&self, mut lost: Vec<Loss>) -> Vec<Loss> {
        let counted = [
            (Health::RingFull, "the ring of names and processes was full"),
            (Health::InFlightFull, "the map of calls in flight was full"),
            (Health::OtherErrors, "the map of failed writes was full"),
            (Health::OtherWaits, "the map of waits or of created files was full"),
        ];
        for (cell, cause) in counted {
            lost.push(Loss { cause: cause.to_owned(), events: self.health(cell) });
        }
        lost.push(Loss { cause: "records were damaged".to_owned(), events: self.damaged });
        lost.retain(|loss| loss.events > 0);
        lost
    }

    /// Lets the kernel side send a file's name again.
    pub fn forget_name(&self, file: &FileKey) {
        if let Ok(map) = fd_of(&self.named) {
            // It is only a memory aid: at worst the name is not sent again.
            let _ = sys::delete_key(map, file);
        }
    }

    fn new_errors(&mut self) -> anyhow::Result<HashMap<ErrorKey, Errors>> {
        let mut news = HashMap::new();
        if !self.is_used(Health::UsedErrors) {
            return Ok(news);
        }
        for (key, now) in sys::read_map::<ErrorKey, Errors>(fd_of(&self.errors_map)?)? {
            let seen = self.errors_seen.insert(key, now).unwrap_or_default();
            let fresh = Errors {
                enospc: now.enospc.saturating_sub(seen.enospc),
                edquot: now.edquot.saturating_sub(seen.edquot),
                eio: now.eio.saturating_sub(seen.eio),
                other: now.other.saturating_sub(seen.other),
            };
            if fresh != Errors::default() {
                news.insert(key, fresh);
            }
        }
        Ok(news)
    }

    /// Forgets the errors of processes that ended: nothing can be added to them any more.
    pub fn forget_errors(&mut self, ended: impl Fn(&ProcKey) -> bool) {
        let map = &self.errors_map;
        self.errors_seen.retain(|key, _| {
            let proc = ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 };
            let gone =
                ended(&proc) && fd_of(map).is_ok_and(|map| sys::delete_key(map, key).is_ok());
            !gone
        });
    }

    fn new_other(&mut self) -> Counters {
        let now = Counters {
            written: self.health(Health::OtherWritten),
            allocated: self.health(Health::OtherAllocated),
            freed: self.health(Health::OtherFreed),
            ..Counters::default()
        };
        let fresh = now.since(&self.other_seen);
        self.other_seen = now;
        fresh
    }

    /// Was something put into the map that this cell tells of, since this was asked last?
    fn is_used(&mut self, cell: Health) -> bool {
        let now = self.health(cell);
        mem::replace(&mut self.used[cell as usize], now) != now
    }

    /// The sum over all CPUs.
    fn health(&self, cell: Health) -> u64 {
        let cells = (cell as usize..self.health.len()).step_by(HEALTH_CELLS as usize);
        cells.map(|index| self.health.get(index)).sum()
    }
}

/// Takes all entries out of a hash map that no program adds to any more.
fn drained<K, V>(map: &Map) -> anyhow::Result<HashMap<K, V>>
where
    K: AnyBitPattern + NoUninit + Eq + Hash,
    V: AnyBitPattern + NoUninit,
{
    let mut all = HashMap::new();
    sys::drain_map(fd_of(map)?, |key: K, value: V| {
        all.insert(key, value);
    })?;
    Ok(all)
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the kernel side has no map {name}"))
}

fn fd_of(map: &Map) -> anyhow::Result<BorrowedFd<'_>> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) => Ok(data.fd().as_fd()),
        _ => Err(anyhow!("a map of the kernel side has an unexpected type")),
    }
}

/// One record of the ring, or `None` if it is not of a known form.
fn parse(bytes: &[u8]) -> Option<Record> {
    let header: RecordHeader =
        bytemuck::pod_read_unaligned(bytes.get(..size_of::<RecordHeader>())?);
    const NAME: u32 = RecordKind::Name as u32;
    const PROC: u32 = RecordKind::Proc as u32;
    const EXIT: u32 = RecordKind::Exit as u32;
    match header.kind {
        NAME => {
            let fixed = size_of::<NameRecord>() - NAME_ROOM;
            let len = header.len as usize;
            if bytes.len() < fixed + len || len >= NAME_ROOM {
                return None;
            }
            // The ring holds only the used part of the name.
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
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_cut_or_unknown_are_refused() {
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
