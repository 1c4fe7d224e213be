//! Hash maps of the eBPF side that are drained at every read.

use std::marker::PhantomData;
use std::os::fd::{AsFd as _, OwnedFd};
use std::{io, mem};

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::Iter;
use bytemuck::{AnyBitPattern, NoUninit};
use tracer_common::SelfStat;

use super::maps::{fd_of, take_map};
use crate::sys;

/// Maximum passes over a map, because programs may keep adding to it.
const MAX_PASSES: usize = 16;
/// How often the kernel may refuse to remove an entry, in one pass.
const MAX_REFUSALS: usize = 1_000;
/// The kernel returns at most eight pages per read (`bpf_seq_read`).
const BUFFER: usize = 32 << 10;

/// A map that is drained with an iterator. Unlike the system calls that remove map entries, the
/// iterator lets the kernel's kprobes run meanwhile (`probes/drain.rs` on the eBPF side).
pub(crate) struct Drain<K, V> {
    map: Map,
    /// The iterator bound to the map; `None` before 5.9.
    link: Option<OwnedFd>,
    /// Cell that counts how often the map was used.
    pub used: SelfStat,
    /// Value of that cell at the last drain.
    seen: u64,
    _entries: PhantomData<(K, V)>,
}

impl<K, V> Drain<K, V>
where
    K: AnyBitPattern + NoUninit,
    V: AnyBitPattern + NoUninit,
{
    /// Takes the map out of a loaded object, and binds the iterator to it if that is loaded.
    ///
    /// # Errors
    /// If there is no such map, or the kernel cannot bind the iterator to it.
    pub(crate) fn new(
        ebpf: &mut Ebpf,
        map: &str,
        iterator: &str,
        used: SelfStat,
    ) -> anyhow::Result<Self> {
        let name = map;
        let map = take_map(ebpf, map)?;
        let iterator: Option<&Iter> = ebpf.program(iterator).and_then(|it| it.try_into().ok());
        let link = match iterator.and_then(|iterator| iterator.fd().ok()) {
            Some(program) => Some(
                sys::link_to_map(program.as_fd(), fd_of(&map)?)
                    .with_context(|| format!("cannot iterate over the map {name}"))?,
            ),
            None => None,
        };
        Ok(Self { map, link, used, seen: 0, _entries: PhantomData })
    }

    /// Removes all entries if the map was used since the last call. `used` is the current use
    /// count.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn drain(&mut self, used: u64, mut each: impl FnMut(K, V)) -> io::Result<()> {
        if mem::replace(&mut self.seen, used) == used {
            return Ok(());
        }
        let map = fd_of(&self.map).map_err(io::Error::other)?;
        let Some(link) = &self.link else { return sys::drain_map(map, each) };
        // The iterator stores its position in a bucket as the number of entries before it, so it
        // skips some when these are removed.
        for _ in 0..MAX_PASSES {
            let mut entries = 0;
            pass(sys::begin_iteration(link.as_fd())?, |key, value| {
                entries += 1;
                each(key, value);
            })?;
            if entries == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Reads keys and values, one after the other, to the end. Each read returns only whole entries.
fn pass<K, V>(mut file: impl io::Read, mut each: impl FnMut(K, V)) -> io::Result<()>
where
    K: AnyBitPattern,
    V: AnyBitPattern,
{
    let mut buffer = vec![0; BUFFER];
    let mut refusals = 0;
    loop {
        let len = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // An entry could not be removed immediately, and is returned again later.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && refusals < MAX_REFUSALS => {
                refusals += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        let entries = buffer[..len].chunks_exact(size_of::<K>() + size_of::<V>());
        if !entries.remainder().is_empty() {
            let what =
                format!("a map iterator returned {len} bytes, not a whole number of entries");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        for entry in entries {
            let (key, value) = entry.split_at(size_of::<K>());
            each(bytemuck::pod_read_unaligned(key), bytemuck::pod_read_unaligned(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// The kernel's answers to read(2).
    struct Answers(VecDeque<io::Result<Vec<u8>>>);

    impl io::Read for Answers {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().unwrap_or(Ok(Vec::new()))?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn read(answers: Vec<io::Result<Vec<u8>>>) -> io::Result<Vec<(u64, u32)>> {
        let mut all = Vec::new();
        pass(Answers(answers.into()), |key, value| all.push((key, value)))?;
        Ok(all)
    }

    fn entries(range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
        Ok(range.flat_map(|n| [&n.to_ne_bytes()[..], &[7; 4]].concat()).collect())
    }

    #[test]
    fn entries_are_read_in_several_reads_and_after_refusals() {
        let refusal = || Err(io::ErrorKind::WouldBlock.into());
        let interrupt = Err(io::ErrorKind::Interrupted.into());
        let answers =
            vec![entries(0..3), refusal(), interrupt, entries(3..5), refusal(), entries(5..6)];
        let expected: Vec<_> = (0..6).map(|n| (n, 0x0707_0707)).collect();
        assert_eq!(read(answers).unwrap(), expected);
    }

    #[test]
    fn half_an_entry_and_a_kernel_that_always_refuses_are_errors() {
        let error = read(vec![Ok(vec![0; 20])]).unwrap_err();
        let expected = "a map iterator returned 20 bytes, not a whole number of entries";
        assert_eq!(error.to_string(), expected);
        let refusals = (0..=MAX_REFUSALS).map(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(read(refusals.collect()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
