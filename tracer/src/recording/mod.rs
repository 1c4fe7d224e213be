//! The flight recorder: Snapshots in files, and back.
//!
//! A recording `FILE` is the newest segment; `FILE.1`, `FILE.2` … are older ones. Each is a recording by
//! itself.

pub(crate) mod csv;
mod reader;
mod recorder;
mod segment;

pub use self::reader::{Damage, read};
pub use self::recorder::{MAX_SIZE, MIN_SIZE, Recorder};
pub use self::segment::{decode_one, encode};

use std::path::{Path, PathBuf};

/// Segments of a recording at most.
const MAX_SEGMENTS: u32 = 64;

/// `FILE`, `FILE.1` …: the `age`th segment.
fn segment_path(file: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}
