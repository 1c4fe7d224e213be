//! One file per kind of hook. They unpack arguments and call the one counting body.

mod changes;
mod fentry;
mod kprobe;
mod open_files;
mod shared;
mod tracepoint;
mod victims;
mod waits;
