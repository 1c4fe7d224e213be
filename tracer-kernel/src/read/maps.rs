//! Maps of a loaded eBPF object.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::anyhow;
use aya::Ebpf;
use aya::maps::Map;

/// Takes a map out of a loaded object.
pub(crate) fn take_map(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the eBPF object has no map {name}"))
}

/// Returns the descriptor of an array or hash map.
pub(crate) fn fd_of(map: &Map) -> anyhow::Result<BorrowedFd<'_>> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) => Ok(data.fd().as_fd()),
        _ => Err(anyhow!("a map of the eBPF object has an unexpected type")),
    }
}
