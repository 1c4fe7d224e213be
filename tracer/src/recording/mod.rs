//! The flight recorder: writes Snapshots to a recording and reads them back.
//!
//! A recording `FILE` is the newest segment; `FILE.1`, `FILE.2` … are older ones. Each segment is a
//! recording of its own.

pub(crate) mod csv;
mod reader;
mod record;
mod recorder;
mod segments;

pub use self::reader::{Damage, read};
pub use self::record::{decode_one, encode};
pub use self::recorder::Recorder;
pub use self::segments::{MAX_SIZE, MIN_SIZE};
