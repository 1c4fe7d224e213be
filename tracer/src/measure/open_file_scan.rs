//! The scan of all open descriptors, repeated when its result is too old.

use std::time::{Duration, Instant};

use tracer_model::snapshot::{Held, Resident};

use super::deleted_files::DeletedFiles;
use super::{colocated, deleted_files};
use crate::attribute::groups::Groups;
use tracer_host::clock;
use tracer_host::mounts::MountedVolume;
use tracer_host::open_files;
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_kernel::Tracer;

/// Age at which the scan is repeated.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The result of the last scan.
#[derive(Default)]
pub(super) struct OpenFileScan {
    deleted: DeletedFiles,
    residents: Vec<Resident>,
    scanned_at: Option<Instant>,
}

impl OpenFileScan {
    /// Scans all descriptors, if the last scan is too old or `now` is set.
    pub(super) fn refresh(
        &mut self,
        now: bool,
        tracer: &mut Tracer,
        volumes: &[MountedVolume],
        groups: &mut Groups,
    ) {
        if !now && self.scanned_at.is_some_and(|at| at.elapsed() < MAX_AGE) {
            return;
        }
        let before = self.scanned_at.map(|_| &self.deleted);
        let lookup = MountLookup::new(volumes);
        let open = match tracer.open_files() {
            Some(records) => open_files::from_bpf(&records, &lookup),
            None => open_files::from_proc(&lookup),
        };
        self.deleted = deleted_files::find(&open, volumes, &lookup, groups, before);
        self.residents = colocated::find(&open, volumes, &lookup, groups);
        self.scanned_at = Some(clock::instant());
    }

    /// Deleted-but-open files.
    pub(super) fn held(&self) -> Vec<Held> {
        self.deleted.files.clone()
    }

    /// Groups with files open for writing.
    pub(super) fn residents(&self) -> Vec<Resident> {
        self.residents.clone()
    }
}
