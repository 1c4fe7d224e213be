//! The programs whose cost is measured: empty hooks, filltop, and what people use today.

use std::{
    env,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use filltop_tests::filltop;
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take until it is there, of the machine's own time.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(60);
/// Between two looks at a program that says nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at it, at most.
const LOOKS: u32 = 400;

/// How to see that a program's hooks are there.
enum Ready {
    /// It prints a line with this in it.
    Says(&'static str),
    /// This loop takes half as long again.
    Slows(&'static str),
}

/// A program to run beside the loops.
pub struct Program {
    /// As in the table.
    pub name: &'static str,
    command: &'static [&'static str],
    ready: Ready,
}

const fn floor(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, ready: Ready::Says("ready") }
}

const fn ours(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, ready: Ready::Says("tracing by") }
}

/// bpftrace reads its timers' output once it has attached all probes, so that a line from one comes
/// after that. The word is put together there, for a message about an error shows the source.
const fn bpftrace(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, ready: Ready::Says("ready") }
}

const PROGRAMS: &[Program] = &[
    floor("empty-fexit", &["floor", "fexit", "vfs_write"]),
    floor("empty-fexit-ext4", &["floor", "fexit", "ext4_file_write_iter"]),
    floor("empty-kprobe", &["floor", "kprobe", "vfs_write"]),
    floor("empty-kretprobe", &["floor", "kretprobe", "vfs_write"]),
    floor("empty-raw-tp-sys_exit", &["floor", "raw-tp", "sys_exit"]),
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
    Program { name: "filetop", command: &["filetop", "-C", "1"], ready: Ready::Says("TID") },
    Program { name: "biotop", command: &["biotop", "-C", "1"], ready: Ready::Says("PID") },
    Program {
        name: "fatrace",
        command: &["fatrace", "-f", "W"],
        ready: Ready::Slows("write1-ext4"),
    },
    Program {
        name: "strace",
        command: &["strace", "-f", "-c", "-p", "SELF"],
        ready: Ready::Says("attached"),
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
    /// The loop in which it is felt, if it says nothing itself.
    pub fn shows_in(&self) -> Option<&'static str> {
        match self.ready {
            Ready::Says(_) => None,
            Ready::Slows(case) => Some(case),
        }
    }
}

/// A program that runs. Killed on drop.
pub struct Started {
    program: &'static Program,
    child: Child,
    said: Receiver<String>,
    last: Option<String>,
}

impl Started {
    /// Starts it; `Err` says why that cannot be.
    pub fn new(program: &'static Program) -> Result<Self, String> {
        let own = std::process::id().to_string();
        let file = match program.command[0] {
            "filltop" => filltop(),
            "floor" => env::var_os("FILLTOP_FLOOR").unwrap_or_else(|| "floor".into()).into(),
            other => other.into(),
        };
        let arguments = program.command[1..].iter().map(|a| if *a == "SELF" { &own } else { *a });
        let mut child = Command::new(&file)
            .args(arguments)
            // Its own limit of 4,096 keys would make it stop counting the loop over 10,000 files.
            .env("BPFTRACE_MAP_KEYS_MAX", "65536")
            .stdin(Stdio::null())
            .stdout(if program.shows_in().is_some() { Stdio::null() } else { Stdio::piped() })
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let (sender, said) = mpsc::channel();
        forward(child.stdout.take(), sender.clone());
        forward(child.stderr.take(), sender);
        Ok(Self { program, child, said, last: None })
    }

    /// Waits until it says that it is there.
    pub fn wait_for_word(&mut self) -> Result<(), String> {
        let Ready::Says(word) = self.program.ready else { return Ok(()) };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.said.recv_timeout(LOOK) {
                Ok(line) if line.contains(word) => return Ok(()),
                Ok(line) => self.remember(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.why_it_ended()),
            }
        }
        Err(format!("it does not say {word:?} within {} s", PATIENCE.as_secs()))
    }

    /// Waits until the loop that `measure` runs is slower by half than `alone`, three times in a
    /// row.
    pub fn wait_until_felt(
        &mut self,
        alone: f64,
        mut measure: impl FnMut() -> anyhow::Result<f64>,
    ) -> Result<(), String> {
        let mut felt = 0;
        for _ in 0..LOOKS {
            let now = measure().map_err(|error| format!("{error:#}"))?;
            felt = if now > alone * 1.5 { felt + 1 } else { 0 };
            if felt == 3 {
                return Ok(());
            }
            while let Ok(line) = self.said.try_recv() {
                self.remember(line);
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Err(self.why_it_ended());
            }
            std::thread::sleep(LOOK);
        }
        Err("it is not felt".to_owned())
    }

    fn remember(&mut self, line: String) {
        if !line.trim().is_empty() {
            self.last = Some(line);
        }
    }

    fn why_it_ended(&mut self) -> String {
        while let Ok(line) = self.said.recv_timeout(LOOK) {
            self.remember(line);
        }
        let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        match &self.last {
            Some(last) => format!("ended ({status}): {}", last.trim()),
            None => format!("ended ({status})"),
        }
    }

    /// Interrupts it and waits for its end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .with_context(|| format!("{} has ended", self.program.name))?;
        while self.child.try_wait()?.is_none() && begun.elapsed() < FAREWELL {
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

/// Takes what it prints off its hands, or it would stand still when the pipe is full.
fn forward(output: Option<impl Read + Send + 'static>, to: Sender<String>) {
    let Some(output) = output else { return };
    std::thread::spawn(move || {
        let mut lines = BufReader::new(output);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // Nobody listens any more once it is there.
            let _ = to.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
}
