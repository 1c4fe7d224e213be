//! Sizes of the directories of rules. Each is counted once by a thread of lowest priority, then
//! updated from the traced inflow and outflow, and recounted periodically: a directory that is moved
//! in does not show as inflow, and where space is not traced there is no outflow.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use tracer_model::alert::sizes::{DirectorySize, flow};
use tracer_model::snapshot::Snapshot;

use tracer_host::{clock, noatime};

/// Time between two counts of a directory.
const RECOUNT: Duration = Duration::from_secs(3600);
/// The same after lost events, or where freed space is not traced.
const RECOUNT_IF_UNSURE: Duration = Duration::from_secs(300);
/// Minimum pause after a count, as a multiple of its duration, so that counting does not keep a disk
/// busy.
const PAUSE_FACTOR: u32 = 20;

struct Counted {
    size: DirectorySize,
    /// When the count finished, and how long it took.
    at: Instant,
    took: Duration,
    /// Whether the size may have become inaccurate since the count.
    unsure: bool,
}

/// The sizes known so far, and the counting thread; see the module.
pub(crate) struct DirectorySizes {
    directories: Vec<String>,
    known: Vec<Counted>,
    counting: Option<(String, Instant)>,
    /// Inflow and outflow of the directory being counted since its count began, bytes. The count is
    /// assumed to include half of it.
    flow_while_counting: [u64; 2],
    lost_events: u64,
    requests: Sender<PathBuf>,
    results: Receiver<io::Result<u64>>,
}

impl DirectorySizes {
    /// Starts the counting thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(directories: Vec<String>) -> io::Result<Self> {
        let (requests, requested) = channel::<PathBuf>();
        let (result, results) = channel();
        thread::Builder::new().name("sizes".to_owned()).spawn(move || {
            lowest_priority();
            for directory in requested {
                if result.send(count(&directory)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            directories,
            known: Vec::new(),
            counting: None,
            flow_while_counting: [0; 2],
            lost_events: 0,
            requests,
            results,
        })
    }

    /// Replaces the directories; known sizes of those that stay are kept.
    pub(crate) fn replace(&mut self, directories: Vec<String>) {
        self.known.retain(|known| directories.contains(&known.size.path));
        self.directories = directories;
    }

    /// Applies one interval; returns the sizes known so far.
    pub(crate) fn update(&mut self, snapshot: &Snapshot) -> Vec<DirectorySize> {
        let lost = snapshot.backend.lost_events > self.lost_events;
        self.lost_events = snapshot.backend.lost_events;
        for known in &mut self.known {
            known.unsure |= lost || flow(snapshot, &known.size.path).outflow_bytes.is_none();
            known.size.add_flow(snapshot);
        }
        if let Some((path, _)) = &self.counting {
            let flow = flow(snapshot, path);
            self.flow_while_counting[0] += flow.inflow_bytes;
            self.flow_while_counting[1] += flow.outflow_bytes.unwrap_or(0);
        }
        self.take_result();
        self.request_next();
        self.known.iter().map(|known| known.size.clone()).collect()
    }

    fn take_result(&mut self) {
        let Ok(result) = self.results.try_recv() else { return };
        let Some((path, start)) = self.counting.take() else { return };
        if !self.directories.contains(&path) {
            return;
        }
        let counted = result.unwrap_or_else(|error| {
            tracing::info!("cannot determine the size of {path}: {error}");
            0
        });
        let [inflow, outflow] = self.flow_while_counting;
        let bytes = counted.saturating_add(inflow / 2).saturating_sub(outflow / 2);
        tracing::debug!("{path} holds {bytes} bytes");
        self.known.retain(|known| known.size.path != path);
        self.known.push(Counted {
            size: DirectorySize { path, bytes },
            at: clock::instant(),
            took: start.elapsed(),
            unsure: false,
        });
    }

    fn request_next(&mut self) {
        if self.counting.is_some() {
            return;
        }
        let due = |known: &Counted| {
            let every = if known.unsure { RECOUNT_IF_UNSURE } else { RECOUNT };
            known.at.elapsed() >= every.max(known.took * PAUSE_FACTOR)
        };
        let next = self.directories.iter().find(|path| {
            let known = self.known.iter().find(|known| known.size.path == **path);
            known.is_none_or(due)
        });
        if let Some(path) = next.cloned()
            && self.requests.send(PathBuf::from(&path)).is_ok()
        {
            self.flow_while_counting = [0; 2];
            self.counting = Some((path, clock::instant()));
        }
    }
}

/// Sets this thread, and no other, to the lowest CPU priority and the idle I/O class.
fn lowest_priority() {
    /// ioprio_set(2): IOPRIO_WHO_PROCESS, IOPRIO_CLASS_IDLE << 13.
    const IDLE: libc::c_int = 3 << 13;
    let _ = rustix::process::nice(19);
    // SAFETY: the arguments are integers, not pointers; id 0 is the calling thread.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, 1, 0, IDLE);
    }
}

/// Sums the space of all files below a directory, bytes: each inode once, without crossing into other
/// filesystems.
///
/// # Errors
/// If the directory itself cannot be read; anything unreadable below it is skipped.
fn count(directory: &Path) -> io::Result<u64> {
    let start = fs::symlink_metadata(directory)?;
    let dev = start.dev();
    let mut bytes = start.blocks() * 512;
    let mut seen_links: HashSet<u64> = HashSet::new();
    let mut pending = vec![directory.to_path_buf()];
    drop(noatime::entries(directory)?);
    while let Some(directory) = pending.pop() {
        let Ok(entries) = noatime::entries(&directory) else { continue };
        for (path, _) in entries {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.dev() != dev
                || (meta.nlink() > 1 && !meta.is_dir() && !seen_links.insert(meta.ino()))
            {
                continue;
            }
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_matches_du() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("a/b");
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join("one"), vec![7; 300_000]).unwrap();
        fs::hard_link(sub.join("one"), dir.path().join("again")).unwrap();
        fs::write(dir.path().join("two"), vec![7; 5_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        let du =
            std::process::Command::new("du").args(["-s", "-B1", "-x"]).arg(dir.path()).output();
        let du = String::from_utf8(du.unwrap().stdout).unwrap();
        let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(count(dir.path()).unwrap(), du);
        assert!(count(&dir.path().join("none")).is_err());
    }
}
