//! Processes that may be behind growth that cannot be attributed: those with files open or mapped for
//! writing on the volume.

use std::collections::{BTreeSet, HashMap};

use tracer_host::open_files::OpenFiles;
use tracer_model::snapshot::{MAX_SUSPECTS, Suspect, Volume};

use super::deleted_files::name_of;
use crate::attribute::groups::Groups;

/// Growth below this is not worth a search, bytes.
const ENOUGH: u64 = 1 << 20;

/// Returns the suspects of each device, most bytes first. A file counts once for each process.
pub(super) fn find(open: &OpenFiles, groups: &mut Groups) -> HashMap<u32, Vec<Suspect>> {
    let mut sums: HashMap<(u32, u32), Suspect> = HashMap::new();
    let mut seen = BTreeSet::new();
    for file in open.files.iter().filter(|file| file.writable && file.pid != 0) {
        if !seen.insert((file.pid, file.key())) {
            continue;
        }
        let sum = sums.entry((file.dev, file.pid)).or_insert_with(|| Suspect {
            pid: file.pid,
            comm: String::new(),
            group: None,
            bytes: 0,
            files: 0,
            gone: false,
        });
        sum.bytes += file.bytes;
        sum.files += 1;
    }
    let mut found: HashMap<u32, Vec<Suspect>> = HashMap::new();
    for ((dev, _), suspect) in sums {
        found.entry(dev).or_default().push(suspect);
    }
    for suspects in found.values_mut() {
        suspects.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.pid.cmp(&b.pid)));
        suspects.truncate(MAX_SUSPECTS);
        for suspect in suspects {
            suspect.comm = name_of(suspect.pid);
            suspect.group = groups.of_pid(suspect.pid);
        }
    }
    found
}

/// Whether most of a volume's growth cannot be attributed. Mappings into a tmpfs are seen by few
/// backends, so there less growth is enough.
pub(super) fn are_wanted(volume: &Volume) -> bool {
    let grown = u64::try_from(volume.used_delta_bytes).unwrap_or(0);
    let attributed = volume.allocated_bytes.unwrap_or(volume.written_bytes);
    let hidden_in_memory = volume.fs_type == "tmpfs" && grown >= ENOUGH && attributed < grown / 2;
    hidden_in_memory || volume.blind.is_some_and(|blind| blind.hides_most())
}
