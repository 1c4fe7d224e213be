//! The files and size limits of a recording.

use std::path::{Path, PathBuf};

/// Smallest limit of a recording's size, bytes.
pub const MIN_SIZE: u64 = 4 << 20;
/// Largest limit of a recording's size, bytes.
pub const MAX_SIZE: u64 = 1 << 30;
/// Maximum number of segments of a recording.
pub(super) const MAX_SEGMENTS: u32 = 64;

/// The path of the segment of this age: `FILE` for 0, `FILE.1` for 1, …
pub(super) fn segment_path(file: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}
