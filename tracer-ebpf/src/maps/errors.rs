//! Failed writes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use tracer_common::{ErrorKey, Errors};

/// Failed writes since the last drain, by process and device. One map of a pair, as with the spill
/// maps. Not per CPU: errors are rare, and atomic adds keep the counts exact.
#[map]
pub static ERRORS_A: HashMap<ErrorKey, Errors> = HashMap::with_max_entries(16_384, 0);

/// See [`ERRORS_A`].
#[map]
pub static ERRORS_B: HashMap<ErrorKey, Errors> = HashMap::with_max_entries(16_384, 0);
