//! The programs whose cost is measured: empty hooks, filltop, and the tools in use today.

use std::env;
use std::fs::{self, OpenOptions};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use filltop_tests::filltop;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

/// How long a program may take to start, in the machine's own time.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it may take to end.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// Between two checks of a program that prints nothing when it is ready.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of such checks.
const MAX_CHECKS: u32 = 400;

/// How to know that a program's hooks are attached.
enum Ready {
    /// It prints a line that contains this.
    Prints(&'static str),
    /// This loop takes half as long again.
    Slows(&'static str),
}

/// A program to run next to the loops.
pub struct Program {
    /// The name in the table.
    pub name: &'static str,
    command: &'static [&'static str],
    ready: Ready,
}

const fn floor(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, ready: Ready::Prints("ready") }
}

const fn ours(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, ready: Ready::Prints("tracing with") }
}

/// bpftrace reads its timers' output once it has attached all probes, so that a line from a timer
/// comes after that. The script assembles the word, because error messages show the source.
const fn bpftrace(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, ready: Ready::Prints("ready") }
}

const PROGRAMS: &[Program] = &[
    floor("empty-fexit", &["floor", "fexit", "vfs_write"]),
    floor("empty-fexit-ext4", &["floor", "fexit", "ext4_file_write_iter"]),
    floor("empty-kprobe", &["floor", "kprobe", "vfs_write"]),
    floor("empty-kretprobe", &["floor", "kretprobe", "vfs_write"]),
    floor("empty-raw-tp-sys_exit", &["floor", "raw-tp", "sys_exit"]),
    floor("filter-raw-tp-sys_exit", &["floor", "raw-tp-filter", "sys_exit"]),
    floor("hash-raw-tp-sys_exit", &["floor", "raw-tp-hash", "sys_exit"]),
    ours(
        "filltop-fexit",
        &["filltop", "snapshot", "--json", "--for", "60m", "-v", "--backend", "fentry"],
    ),
    ours(
        "filltop-kprobe",
        &["filltop", "snapshot", "--json", "--for", "60m", "-v", "--backend", "kprobe"],
    ),
    ours(
        "filltop-tracepoint",
        &["filltop", "snapshot", "--json", "--for", "60m", "-v", "--backend", "tracepoint"],
    ),
    bpftrace(
        "bpftrace-inode",
        &[
            "bpftrace",
            "-e",
            "kretfunc:vfs_write { @[pid, args->file->f_inode->i_ino] = sum(retval); } \
             interval:s:1 { printf(\"re%s\\n\", \"ady\"); }",
        ],
    ),
    bpftrace(
        "bpftrace-name",
        &[
            "bpftrace",
            "-e",
            "kretfunc:vfs_write \
             { @[pid, str(args->file->f_path.dentry->d_name.name)] = sum(retval); } \
             interval:s:1 { printf(\"re%s\\n\", \"ady\"); }",
        ],
    ),
    bpftrace(
        "bpftrace-sys_exit_write",
        &[
            "bpftrace",
            "-e",
            "tracepoint:syscalls:sys_exit_write { @[pid] = sum(args->ret); } \
             interval:s:1 { printf(\"re%s\\n\", \"ady\"); }",
        ],
    ),
    Program { name: "filetop", command: &["filetop", "-C", "1"], ready: Ready::Prints("TID") },
    Program { name: "biotop", command: &["biotop", "-C", "1"], ready: Ready::Prints("PID") },
    Program {
        name: "fatrace",
        command: &["fatrace", "-f", "W"],
        ready: Ready::Slows("write1-ext4"),
    },
    Program {
        name: "strace",
        command: &["strace", "-f", "-c", "-p", "SELF"],
        ready: Ready::Prints("attached"),
    },
];

/// The program of this name.
pub fn find(name: &str) -> anyhow::Result<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name).with_context(|| {
        let known: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        format!("no program {name:?}: {}", known.join(", "))
    })
}

impl Program {
    /// The loop that it slows down, if it prints nothing itself.
    pub fn shows_in(&self) -> Option<&'static str> {
        match self.ready {
            Ready::Prints(_) => None,
            Ready::Slows(case) => Some(case),
        }
    }
}

/// A running program. Killed on drop.
pub struct Started {
    program: &'static Program,
    child: Child,
    /// Its output. A file and not a pipe: that would need a thread to read it, and a process with
    /// threads pays more for each of its system calls.
    said: NamedTempFile,
}

impl Started {
    /// Starts it; `Err` has the reason why it cannot be started.
    pub fn new(program: &'static Program) -> Result<Self, String> {
        let own = std::process::id().to_string();
        let file = match program.command[0] {
            "filltop" => filltop(),
            "floor" => env::var_os("FILLTOP_FLOOR").unwrap_or_else(|| "floor".into()).into(),
            other => other.into(),
        };
        let arguments = program.command[1..].iter().map(|a| if *a == "SELF" { &own } else { *a });
        let said = NamedTempFile::new().map_err(|error| error.to_string())?;
        let output = || {
            let file = OpenOptions::new().append(true).open(said.path());
            file.map(Stdio::from).map_err(|error| error.to_string())
        };
        let child = Command::new(&file)
            .args(arguments)
            // With its default limit of 4,096 keys it would stop counting in the loop over 10,000
            // files.
            .env("BPFTRACE_MAP_KEYS_MAX", "65536")
            .stdin(Stdio::null())
            .stdout(if program.shows_in().is_some() { Stdio::null() } else { output()? })
            .stderr(output()?)
            .spawn()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self { program, child, said })
    }

    /// Waits for its ready message.
    pub fn wait_for_line(&mut self) -> Result<(), String> {
        let Ready::Prints(word) = self.program.ready else { return Ok(()) };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.output().contains(word) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.why_it_ended(status));
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
        Err(format!("it does not print {word:?} within {} s", PATIENCE.as_secs()))
    }

    /// Waits until the loop that `measure` runs is slower by half than `alone`, three times in a
    /// row.
    pub fn wait_for_slowdown(
        &mut self,
        alone: f64,
        mut measure: impl FnMut() -> anyhow::Result<f64>,
    ) -> Result<(), String> {
        let mut felt = 0;
        for _ in 0..MAX_CHECKS {
            let now = measure().map_err(|error| format!("{error:#}"))?;
            felt = if now > alone * 1.5 { felt + 1 } else { 0 };
            if felt == 3 {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.why_it_ended(status));
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
        Err("it does not slow the loop down".to_owned())
    }

    /// All of its output so far. Both streams append to the same file.
    fn output(&self) -> String {
        let bytes = fs::read(self.said.path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn why_it_ended(&self, status: ExitStatus) -> String {
        let output = self.output();
        let says = |line: &&str| line.chars().any(char::is_alphabetic);
        // Compilers show the source after the error message.
        let error = output.lines().find(|line| line.to_lowercase().contains("error"));
        match error.or_else(|| output.lines().rev().find(says)) {
            Some(reason) => format!("ended ({status}): {}", reason.trim()),
            None => format!("ended ({status})"),
        }
    }

    /// Interrupts it and waits for its end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .with_context(|| format!("{} has ended", self.program.name))?;
        while self.child.try_wait()?.is_none() && begun.elapsed() < END_PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
