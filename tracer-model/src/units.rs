//! Bytes, rates and durations as people read them.
