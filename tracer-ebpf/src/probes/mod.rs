//! One file per kind of hook. They unpack arguments and call the one counting body.

mod allocate;
mod asynchronous;
mod changes;
mod empty;
mod fentry;
mod kprobe;
mod mapped;
mod open_files;
mod returned;
mod saved;
pub mod shared;
mod take_out;
mod tracepoint;
mod victims;
mod waits;
