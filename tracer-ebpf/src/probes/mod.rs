//! One file per kind of hook. They unpack arguments and call the one counting body.

mod fentry;
mod kprobe;
mod shared;
mod tracepoint;
