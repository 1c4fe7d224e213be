//! The scan of all open files, repeated when its result is too old.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracer_model::snapshot::Resident;
use tracer_model::snapshot::Suspect;

use super::deleted_files::DeletedFiles;
use super::held_now::Changes;
use super::interval::IntervalCounts;
use super::open_files::{NameLookup, ScanInput, scan};
use super::{colocated, deleted_files, held_now, suspects};
use crate::attribute::groups::Groups;
use tracer_host::clock;
use tracer_host::mounts::MountedVolume;
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_kernel::Tracer;

/// Age at which the scan is repeated.
const MAX_AGE: Duration = Duration::from_secs(10);
/// A scan is repeated after this many times its own duration at the earliest: on a host with very many
/// processes, descriptors or inodes it then takes at most a quarter of a percent of a CPU, or one
/// percent while a volume fills up or is full.
const MIN_PAUSE: u32 = 400;
const MIN_PAUSE_URGENT: u32 = 100;

/// The result of the last scan.
#[derive(Default)]
pub(super) struct Scans {
    deleted: DeletedFiles,
    residents: Vec<Resident>,
    suspects: HashMap<u32, Vec<Suspect>>,
    /// Whether the last scan read mappings.
    has_mappings: bool,
    scanned_at: Option<Instant>,
    /// How long it took.
    took: Duration,
}

/// What a scan is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A recent result will do.
    Periodic,
    /// A volume fills up or is full: the result must be more recent.
    Urgent,
    /// A volume grows in a way that cannot be attributed: the result must have mappings.
    Suspects,
    /// The result must be of now, and complete.
    Fresh,
}

impl Scans {
    /// Scans all open files, unless the last scan will do. `counts` are those of the interval that ends.
    pub(super) fn refresh(
        &mut self,
        purpose: Purpose,
        tracer: &mut Tracer,
        volumes: &[MountedVolume],
        groups: &mut Groups,
        names: NameLookup<'_>,
        counts: &IntervalCounts,
    ) {
        let pause = if purpose == Purpose::Periodic { MIN_PAUSE } else { MIN_PAUSE_URGENT };
        let is_recent =
            self.scanned_at.is_some_and(|at| at.elapsed() < MAX_AGE.max(self.took * pause));
        let will_do = match purpose {
            Purpose::Periodic | Purpose::Urgent => is_recent,
            Purpose::Suspects => is_recent && self.has_mappings,
            Purpose::Fresh => false,
        };
        if will_do && !self.is_outdated(volumes, counts, pause) {
            return;
        }
        let began = clock::instant();
        let before = self.scanned_at.map(|_| &self.deleted);
        let lookup = MountLookup::new(volumes);
        let found = scan(ScanInput {
            source: Some(tracer),
            volumes,
            lookup: &lookup,
            names,
            want_mappings: matches!(purpose, Purpose::Suspects | Purpose::Fresh),
        });
        self.deleted = deleted_files::find(&found, volumes, &lookup, groups, before);
        self.residents = colocated::find(&found.open, volumes, &lookup, groups);
        self.suspects = match found.has_mappings {
            true => suspects::find(&found.open, groups),
            false => HashMap::new(),
        };
        self.has_mappings = found.has_mappings;
        self.scanned_at = Some(clock::instant());
        self.took = began.elapsed();
    }

    /// Removes what is held no longer from the last scan's result. Returns whether a scan is needed to tell
    /// what is held, and may be repeated already.
    fn is_outdated(
        &mut self,
        volumes: &[MountedVolume],
        counts: &IntervalCounts,
        pause: u32,
    ) -> bool {
        let changes = Changes::of(counts, &self.deleted.files);
        let needs_scan = self.deleted.recheck(|file| held_now::look(file, volumes, &changes));
        needs_scan && self.scanned_at.is_none_or(|at| at.elapsed() >= self.took * pause)
    }

    /// Files without a name that still take space.
    pub(super) const fn held(&self) -> &DeletedFiles {
        &self.deleted
    }

    /// Groups with files open for writing.
    pub(super) fn residents(&self) -> Vec<Resident> {
        self.residents.clone()
    }

    /// Processes with files open or mapped for writing, by device.
    pub(super) const fn suspects(&self) -> &HashMap<u32, Vec<Suspect>> {
        &self.suspects
    }
}
