//! What the VM runner (`cargo xtask vm`) and its PID 1 say to each other.
//!
//! The runner puts a [`Job`] into the initramfs at [`JOB_PATH`]; PID 1 answers with one [`Report`]
//! a line on the second serial port, so that nothing the kernel prints on its console can be
//! mistaken for a verdict.

use std::fmt;

/// Where the runner puts the encoded [`Job`].
pub const JOB_PATH: &str = "/job";

/// Where everything that comes with the initramfs is found after a Debian has been booted.
pub const BOOTED_DIR: &str = "/run/filltop-vm";

/// Separates the arguments of one command; no argument of ours holds it.
const SEPARATOR: char = '\x1f';

/// What a virtual machine has to do before it powers itself off.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Job {
    /// Kernel modules to load, in this order (paths in the initramfs).
    pub modules: Vec<String>,
    /// Environment of every command.
    pub env: Vec<(String, String)>,
    /// Commands to run one after the other; a failing one does not stop the next.
    pub commands: Vec<Vec<String>>,
    /// Rows and columns of the terminal when the commands get the console for themselves; their
    /// output is then not reported.
    pub console: Option<(u16, u16)>,
    /// A block device with a whole Debian: PID 1 hands over to that one's own init, and the commands
    /// run as a unit of its systemd.
    pub root: Option<String>,
}

impl Job {
    /// The job as text, one record a line.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for module in &self.modules {
            out += &format!("module {module}\n");
        }
        for (key, value) in &self.env {
            out += &format!("env {key}={value}\n");
        }
        for command in &self.commands {
            out += &format!("command {}\n", command.join(&SEPARATOR.to_string()));
        }
        if let Some((rows, columns)) = self.console {
            out += &format!("console {rows} {columns}\n");
        }
        if let Some(root) = &self.root {
            out += &format!("root {root}\n");
        }
        out
    }

    /// Reads what [`Job::encode`] wrote. `Err` holds the line that is none of ours.
    pub fn decode(text: &str) -> Result<Self, String> {
        let mut job = Self::default();
        for line in text.lines() {
            let bad = || line.to_owned();
            let (kind, rest) = line.split_once(' ').ok_or_else(bad)?;
            match kind {
                "module" => job.modules.push(rest.to_owned()),
                "env" => {
                    let (key, value) = rest.split_once('=').ok_or_else(bad)?;
                    job.env.push((key.to_owned(), value.to_owned()));
                }
                "command" => {
                    job.commands.push(rest.split(SEPARATOR).map(str::to_owned).collect());
                }
                "console" => {
                    let (rows, columns) = rest.split_once(' ').ok_or_else(bad)?;
                    let size = rows.parse().and_then(|r| columns.parse().map(|c| (r, c)));
                    job.console = Some(size.map_err(|_| bad())?);
                }
                "root" => job.root = Some(rest.to_owned()),
                _ => return Err(bad()),
            }
        }
        Ok(job)
    }
}

/// One line from PID 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// PID 1 runs: kernel release, and milliseconds since the kernel started.
    Booted {
        /// As `uname -r` prints it.
        release: String,
        /// Milliseconds of uptime.
        uptime_ms: u64,
    },
    /// Something that PID 1 could not set up; the run goes on.
    Warning(String),
    /// The command with this index starts.
    Begin(usize),
    /// One line that the current command printed (stdout and stderr together).
    Output(String),
    /// The command with this index ended with this status (128 + n for signal n), after so many
    /// milliseconds.
    End {
        /// Index in [`Job::commands`].
        command: usize,
        /// Exit status as a shell counts it.
        status: i32,
        /// Milliseconds that it ran.
        ms: u64,
    },
    /// Every command was run; power goes off next.
    Done,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Booted { release, uptime_ms } => write!(f, "booted {uptime_ms} {release}"),
            Self::Warning(text) => write!(f, "warning {text}"),
            Self::Begin(command) => write!(f, "begin {command}"),
            Self::Output(text) => write!(f, "output {text}"),
            Self::End { command, status, ms } => write!(f, "end {command} {status} {ms}"),
            Self::Done => f.write_str("done"),
        }
    }
}

impl Report {
    /// Reads one line; `None` when it is not a report (a firmware's greeting, a torn line).
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "booted" => {
                let (uptime_ms, release) = rest.split_once(' ')?;
                Some(Self::Booted {
                    release: release.to_owned(),
                    uptime_ms: uptime_ms.parse().ok()?,
                })
            }
            "warning" => Some(Self::Warning(rest.to_owned())),
            "begin" => rest.parse().ok().map(Self::Begin),
            "output" => Some(Self::Output(rest.to_owned())),
            "end" => {
                let mut parts = rest.split(' ');
                let end = Self::End {
                    command: parts.next()?.parse().ok()?,
                    status: parts.next()?.parse().ok()?,
                    ms: parts.next()?.parse().ok()?,
                };
                parts.next().is_none().then_some(end)
            }
            "done" if rest.is_empty() => Some(Self::Done),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_the_way_into_the_machine() {
        let job = Job {
            modules: vec!["/modules/00-loop.ko".into()],
            env: vec![("A".into(), "b=c d".into())],
            commands: vec![vec!["/tests/x".into(), "two words".into(), String::new()]],
            console: Some((24, 80)),
            root: Some("/dev/vdc".into()),
        };
        assert_eq!(Job::decode(&job.encode()), Ok(job));
    }

    #[test]
    fn a_foreign_line_in_a_job_is_named() {
        assert_eq!(Job::decode("env A=b\nnonsense 1\n"), Err("nonsense 1".into()));
        assert_eq!(Job::decode("console 24\n"), Err("console 24".into()));
    }

    #[test]
    fn every_report_survives_the_serial_line() {
        for report in [
            Report::Booted { release: "6.1.0-56".into(), uptime_ms: 1830 },
            Report::Warning("no loop device".into()),
            Report::Begin(3),
            Report::Output("test a ... ok".into()),
            Report::Output(String::new()),
            Report::End { command: 3, status: 137, ms: 12 },
            Report::Done,
        ] {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
    }

    #[test]
    fn console_noise_is_no_report() {
        for line in ["", "done now", "end 1", "end 1 0 5 6", "SeaBIOS (version 1)", "begin x"] {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }
}
