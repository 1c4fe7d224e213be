//! Time to read the open files at startup on a host with 2,000 processes and 100,000 open files.
//! Goal: 300 ms.
//!
//! The processes are sleeping forks of this one. Each has 50 files of its own open, every tenth for
//! writing.
//!
//! Run: `cargo bench -p tracer --bench startup`, as root.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use tracer::attribute::groups::Groups;
use tracer::measure::open_files::OpenFileScan;
use tracer::measure::{colocated, deleted_files};
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_host::{mounts, open_files};
use tracer_kernel::open_files::OpenFileSource as _;
use tracer_kernel::{Tracer, TracerOptions};

const PROCESSES: usize = 2_000;
const FILES: usize = 50;
const GOAL_MS: u128 = 300;

fn main() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let children: Vec<libc::pid_t> = (0..PROCESSES).map(|n| child(dir.path(), n)).collect();
    let volumes = mounts::read().expect("/proc/self/mountinfo");
    // Wait until the children have opened their files.
    let want = PROCESSES * FILES;
    let mut open = open_files::from_proc(&MountLookup::new(&volumes));
    while open.descriptors < want {
        open = open_files::from_proc(&MountLookup::new(&volumes));
    }
    let mut tracer =
        Tracer::start(&TracerOptions::default()).expect("cannot start the tracer; run as root");
    let mut times = Vec::new();
    for _ in 0..7 {
        let start = Instant::now();
        drop(open_files::from_proc(&MountLookup::new(&volumes)));
        let by_proc = start.elapsed().as_millis();
        let start = Instant::now();
        let records = tracer.descriptors().expect("open-files iterator");
        let iterated = start.elapsed().as_millis();
        let lookup = MountLookup::new(&volumes);
        let open = open_files::from_bpf(&records, &lookup);
        let walked = start.elapsed().as_millis();
        let mut groups = Groups::default();
        let scan = OpenFileScan { open, ..OpenFileScan::default() };
        let held = deleted_files::find(&scan, &volumes, &lookup, &mut groups, None);
        let rows = colocated::find(&scan.open, &volumes, &lookup, &mut groups);
        let all = start.elapsed().as_millis();
        println!(
            "{} processes, {} descriptors kept: /proc {by_proc} ms; iterator {iterated} ms, with \
             paths {walked} ms, with held ({}) and residents ({}) {all} ms",
            scan.open.processes,
            scan.open.descriptors,
            held.files.len(),
            rows.len()
        );
        times.push(all);
    }
    for pid in children {
        // SAFETY: signals and reaps a child of this process.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("median {median} ms, goal {GOAL_MS} ms");
    std::process::exit(i32::from(median > GOAL_MS));
}

fn child(dir: &Path, n: usize) -> libc::pid_t {
    // SAFETY: this process has one thread; the child opens files and sleeps.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let _files: Vec<File> = (0..FILES)
            .map(|m| {
                let path = dir.join(format!("{n}-{m}"));
                let written = File::create(&path).expect("create");
                if m % 10 == 0 { written } else { File::open(&path).expect("open") }
            })
            .collect();
        loop {
            std::thread::park();
        }
    }
    pid
}
