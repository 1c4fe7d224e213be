//! Describes processes: from the record that the eBPF side sends at a process's first write,
//! completed from /proc while it runs.

use std::collections::HashMap;
use std::fs;

use tracer_common::records::CMDLINE_MAX;
use tracer_common::{FileKey, ProcKey, ProcRecord};
use tracer_host::process::stat::{NS_PER_TICK, is_same_process, stat};
use tracer_host::process::status::Status;
use tracer_host::process::threads;
use tracer_model::sanitize;
use tracer_model::snapshot::Parent;

/// Number of ended processes above which those that ended longest ago are forgotten.
const MAX_ENDED: usize = 16_384;
/// Longest command line that is kept, bytes.
const MAX_CMDLINE: usize = 4_096;

/// Shown as the name of a process that exited before it could be read.
const UNKNOWN: &str = "?";
/// Maximum length of a chain of parents.
const MAX_PARENTS: usize = 16;
/// Number of intervals after which a chain of parents that no writer used is forgotten.
const UNUSED_INTERVALS: u64 = 120;

/// A process that wrote.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Name as in /proc/PID/comm, at most 15 bytes.
    pub comm: String,
    /// Name of the thread that was last seen writing; `None` if unknown.
    thread: Option<String>,
    /// The executable's file, to be resolved to a path; `None` for kernel threads.
    pub exe: Option<FileKey>,
    /// The executable's path from /proc, if the eBPF side sent no record.
    pub exe_path: Option<String>,
    /// Arguments, separated by single spaces.
    pub cmdline: Option<String>,
    /// Real user id.
    pub uid: u32,
    /// The process that forked it.
    pub parent: Option<ProcKey>,
    /// Whether it has ended.
    pub ended: bool,
    /// Number of the interval in which it ended.
    ended_in: u64,
    /// Whether it was described: `false` for one that exited before it could be read.
    is_described: bool,
}

impl Process {
    /// Name of the thread that was last seen writing, if it differs from the process's.
    #[must_use]
    pub(crate) fn thread(&self) -> Option<&str> {
        self.thread.as_deref().filter(|thread| *thread != self.comm)
    }
}

/// All writers. Keyed by pid and start time.
#[derive(Default)]
pub struct Processes {
    known: HashMap<ProcKey, Process>,
    /// A process and all its ancestors, keyed by that process: short-lived siblings share theirs.
    ancestries: HashMap<ProcKey, Ancestry>,
    /// Number of the present interval.
    interval: u64,
}

/// A process and its ancestors.
struct Ancestry {
    chain: Vec<Parent>,
    /// Number of the last interval that used it.
    used_in: u64,
}

impl Processes {
    /// Adds a process that the eBPF side described.
    pub(crate) fn insert(&mut self, record: &ProcRecord) {
        let len = (record.header.len as usize).min(CMDLINE_MAX);
        let ended = self.known.get(&record.proc).is_some_and(|process| process.ended);
        let mut process = Process {
            comm: comm(&record.comm),
            thread: Some(comm(&record.thread)),
            exe: (record.exe != FileKey::default()).then_some(record.exe),
            exe_path: None,
            cmdline: cmdline(&record.cmdline[..len]),
            uid: record.uid,
            parent: (record.parent.tgid != 0).then_some(record.parent),
            ended,
            ended_in: self.interval,
            is_described: true,
        };
        // Truncated, or not readable in the kernel: /proc has all of it while the process runs.
        if len == 0 || len == CMDLINE_MAX {
            let whole = proc_cmdline(record.proc.tgid);
            if whole.is_some() && is_same_process(&record.proc) {
                process.cmdline = whole;
            }
        }
        let parent = process.parent;
        self.known.insert(record.proc, process);
        // Read the ancestors while they run: a shell that ran one command exits a moment later.
        if let Some(parent) = parent {
            self.ancestry(&parent);
        }
    }

    /// The known ancestors of a process, parent first, without PID 1.
    pub fn parents(&mut self, proc: &ProcKey) -> Vec<Parent> {
        let parent = self.get(proc).parent;
        parent.map_or_else(Vec::new, |parent| self.ancestry(&parent).to_vec())
    }

    /// The known part of the chain from `first` upwards, without PID 1.
    fn ancestry(&mut self, first: &ProcKey) -> &[Parent] {
        let known = &self.known;
        let ancestry = self.ancestries.entry(*first).or_insert_with(|| {
            let mut chain = Vec::new();
            let mut next = Some(*first);
            while let Some(proc) = next.take().filter(|proc| proc.tgid > 1) {
                let process = match known.get(&proc) {
                    Some(process) => process.clone(),
                    None => from_proc(&proc),
                };
                if !process.is_described || chain.len() == MAX_PARENTS {
                    break;
                }
                next = process.parent;
                chain.push(Parent { pid: proc.tgid, comm: process.comm });
            }
            Ancestry { chain, used_in: 0 }
        });
        ancestry.used_in = self.interval;
        &ancestry.chain
    }

    /// Gives a known process another name.
    pub(crate) fn rename(&mut self, proc: &ProcKey, name: &[u8]) {
        if let Some(process) = self.known.get_mut(proc) {
            let name = comm(name);
            // If the main thread is the one that writes, it has the new name, too.
            if process.thread.as_ref() == Some(&process.comm) {
                process.thread = Some(name.clone());
            }
            process.comm = name;
        }
    }

    /// Records the name of the thread that writes.
    pub(crate) fn set_thread(&mut self, proc: &ProcKey, name: &[u8]) {
        if let Some(process) = self.known.get_mut(proc) {
            process.thread = Some(comm(name));
        }
    }

    /// Marks a process as ended.
    pub(crate) fn mark_ended(&mut self, proc: &ProcKey) {
        let process = self.known.entry(*proc).or_default();
        process.ended = true;
        process.ended_in = self.interval;
    }

    /// The known processes that have ended since the interval began.
    pub(crate) fn ended_now(&self) -> impl Iterator<Item = &ProcKey> {
        let now = self.interval;
        let ended = self.known.iter().filter(move |(_, one)| one.ended && one.ended_in == now);
        ended.filter(|(_, one)| one.is_described).map(|(proc, _)| proc)
    }

    /// Describes a process. One that the eBPF side could not describe (the ring buffer was full) is
    /// read from /proc.
    pub fn get(&mut self, proc: &ProcKey) -> &Process {
        self.known.entry(*proc).or_insert_with(|| from_proc(proc))
    }

    /// Begins a new interval. If there are too many ended processes, those that ended longest ago
    /// are forgotten.
    pub(crate) fn next_interval(&mut self) {
        self.interval += 1;
        let oldest = self.interval.saturating_sub(UNUSED_INTERVALS);
        self.ancestries.retain(|_, ancestry| ancestry.used_in >= oldest);
        let ended = self.known.values().filter(|process| process.ended).count();
        if ended > MAX_ENDED {
            let mut ended_in: Vec<u64> =
                self.known.values().filter(|p| p.ended).map(|p| p.ended_in).collect();
            ended_in.sort_unstable();
            let limit = ended_in[ended - MAX_ENDED / 2];
            let now = self.interval;
            self.known.retain(|_, p| !p.ended || p.ended_in >= limit || p.ended_in + 1 >= now);
        }
    }
}

/// The present parent of a process: the one that forked it, or the one it was reparented to.
fn parent_of(pid: u32) -> Option<ProcKey> {
    let tgid = stat(pid)?.ppid;
    let started = stat(tgid).filter(|_| tgid > 0)?.start_ticks;
    Some(ProcKey { start_ns: started * NS_PER_TICK, tgid, pad: 0 })
}

/// Describes a process from /proc; [`Process::is_described`] is false if it no longer runs.
fn from_proc(proc: &ProcKey) -> Process {
    let pid = proc.tgid;
    let name = fs::read(format!("/proc/{pid}/comm"));
    let process = Process {
        is_described: name.is_ok(),
        comm: name.map_or_else(|_| String::new(), |bytes| comm(&bytes)),
        exe: None,
        exe_path: fs::read_link(format!("/proc/{}/exe", threads::running(pid)))
            .ok()
            .map(|path| sanitize::lossless_path(&path)),
        cmdline: proc_cmdline(pid),
        uid: Status::read(pid).and_then(|status| status.uid()).unwrap_or(0),
        parent: parent_of(pid),
        ..Process::default()
    };
    // Checked last, so that everything read above belongs to this process or is discarded.
    if is_same_process(proc) {
        process
    } else {
        Process { comm: UNKNOWN.to_owned(), ended: true, ..Process::default() }
    }
}

pub(crate) fn proc_cmdline(pid: u32) -> Option<String> {
    let mut bytes = fs::read(format!("/proc/{}/cmdline", threads::running(pid))).ok()?;
    bytes.truncate(MAX_CMDLINE);
    cmdline(&bytes)
}

fn comm(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0 || *byte == b'\n').unwrap_or(bytes.len());
    sanitize::lossless(&bytes[..end])
}

/// NUL-separated arguments as one line; `None` if there are none (kernel threads).
fn cmdline(bytes: &[u8]) -> Option<String> {
    let trimmed = &bytes[..bytes.iter().rposition(|byte| *byte != 0)? + 1];
    let spaced: Vec<u8> =
        trimmed.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    Some(sanitize::lossless(&spaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcKey {
        let pid = std::process::id();
        ProcKey { start_ns: stat(pid).unwrap().start_ticks * NS_PER_TICK + 1, tgid: pid, pad: 0 }
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = own();
        assert!(is_same_process(&own));
        let earlier = ProcKey { start_ns: own.start_ns - NS_PER_TICK, ..own };
        assert!(!is_same_process(&earlier));
        let mut processes = Processes::default();
        assert!(processes.get(&own).cmdline.is_some());
        assert!(processes.get(&earlier).ended);
        assert_eq!(processes.get(&earlier).cmdline, None);
    }

    #[test]
    fn parents_are_followed_up_to_the_first_process() {
        let mut processes = Processes::default();
        let parents = processes.parents(&own());
        // The test runner may be a child of PID 1, but not in a container's shell or under cargo.
        let parent = std::os::unix::process::parent_id();
        assert_eq!(parents.first().map(|first| first.pid), (parent > 1).then_some(parent));
        assert!(parents.iter().all(|parent| parent.pid > 1 && !parent.comm.is_empty()));
        for _ in 0..=UNUSED_INTERVALS {
            processes.next_interval();
        }
        assert!(processes.ancestries.is_empty());
    }

    #[test]
    fn the_thread_has_a_name_of_its_own_unless_it_is_the_main_thread() {
        let mut processes = Processes::default();
        let own = own();
        let shown = |processes: &mut Processes| {
            let process = processes.get(&own);
            (process.comm.clone(), process.thread().map(str::to_owned))
        };
        processes.get(&own);
        processes.rename(&own, b"mongod\0garbage");
        assert_eq!(shown(&mut processes), ("mongod".to_owned(), None));
        processes.set_thread(&own, b"mongod\0");
        assert_eq!(shown(&mut processes), ("mongod".to_owned(), None));
        processes.rename(&own, b"server\0");
        assert_eq!(shown(&mut processes), ("server".to_owned(), None));
        processes.set_thread(&own, b"WTJourn.Flusher\0");
        processes.rename(&own, b"mongod\0");
        let thread = Some("WTJourn.Flusher".to_owned());
        assert_eq!(shown(&mut processes), ("mongod".to_owned(), thread));
        let other = ProcKey { tgid: 0, ..own };
        processes.rename(&other, b"nobody\0");
        assert!(!processes.known.contains_key(&other), "only known processes are renamed");
    }

    #[test]
    fn command_lines_become_one_line() {
        assert_eq!(
            cmdline(b"dd\0if=/dev/zero\0of=a b\0").as_deref(),
            Some("dd if=/dev/zero of=a b")
        );
        assert_eq!(cmdline(b"\0\0"), None);
        assert_eq!(cmdline(b""), None);
    }

    #[test]
    fn ended_processes_are_eventually_forgotten() {
        let mut processes = Processes::default();
        for tgid in 0..MAX_ENDED as u32 + 100 {
            processes.mark_ended(&ProcKey { start_ns: 1, tgid, pad: 0 });
            if tgid % 100 == 0 {
                processes.next_interval();
            }
        }
        processes.next_interval();
        assert!(processes.known.len() <= MAX_ENDED);
    }
}
