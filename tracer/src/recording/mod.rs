//! The flight recorder: writes Snapshots to a recording and reads them back.
//!
//! A recording `FILE` is the newest segment; `FILE.1`, `FILE.2` … are older ones. Each segment is a
//! recording of its own.

pub(crate) mod csv;
mod reader;
mod recorder;
mod segment;

pub use self::reader::{Damage, read};
pub use self::recorder::{MAX_SIZE, MIN_SIZE, Recorder};
pub use self::segment::{decode_one, encode};

use std::path::{Path, PathBuf};

/// Maximum number of segments of a recording.
const MAX_SEGMENTS: u32 = 64;

/// The path of the segment of this age: `FILE` for 0, `FILE.1` for 1, …
fn segment_path(file: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}
