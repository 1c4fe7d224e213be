//! The protocol between the VM runner (`cargo xtask vm`) and PID 1 of its machines.
//!
//! The runner puts a [`Job`] into the initramfs at [`JOB_PATH`]. PID 1 sends one [`Report`] a line on the
//! second serial port, so that kernel messages on the console cannot be mistaken for results.

use std::fmt;

/// The path of the encoded [`Job`] in the initramfs.
pub const JOB_PATH: &str = "/job";

/// The directory with the files of the initramfs after PID 1 has switched to a Debian's root.
pub const DEBIAN_FILES_DIR: &str = "/run/filltop-vm";

/// Separates the arguments of a command. No argument of the runner contains it.
const SEPARATOR: char = '\x1f';

/// The work of a virtual machine before it powers off.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Job {
    /// Paths of kernel modules in the initramfs, in load order.
    pub modules: Vec<String>,
    /// Environment variables of every command.
    pub env: Vec<(String, String)>,
    /// Commands to run one after the other, also after one that failed.
    pub commands: Vec<Vec<String>>,
    /// Rows and columns of the terminal if the commands use the console. Their output is then not reported.
    pub console: Option<(u16, u16)>,
    /// A block device with a complete Debian. PID 1 switches to it and executes its init, and the commands run as a
    /// unit of its systemd.
    pub root: Option<String>,
}

impl Job {
    /// Encodes the job as text, one record a line.
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

    /// Decodes the text of [`Job::encode`].
    ///
    /// # Errors
    /// The first line that is not a valid record.
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

/// A line from PID 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// PID 1 has set up the machine and starts the job.
    Booted {
        /// The kernel release, as `uname -r` prints it.
        release: String,
        /// Milliseconds since the kernel started.
        uptime_ms: u64,
    },
    /// Something that PID 1 could not set up; it continues without it.
    Warning(String),
    /// The command with this index starts.
    Begin(usize),
    /// A line that the current command printed to stdout or stderr.
    Output(String),
    /// A command has ended.
    End {
        /// The index in [`Job::commands`].
        command: usize,
        /// The exit status as a shell reports it: 128 + n for signal n.
        status: i32,
        /// The run time in milliseconds.
        ms: u64,
    },
    /// All commands have ended; the machine powers off next.
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
    /// Parses a line. Returns `None` if it is not a report, such as a firmware message or an incomplete line.
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
    fn an_encoded_job_is_decoded_unchanged() {
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
    fn an_invalid_line_in_a_job_is_returned() {
        assert_eq!(Job::decode("env A=b\nnonsense 1\n"), Err("nonsense 1".into()));
        assert_eq!(Job::decode("console 24\n"), Err("console 24".into()));
    }

    #[test]
    fn a_formatted_report_is_parsed_unchanged() {
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
    fn other_lines_are_not_reports() {
        for line in ["", "done now", "end 1", "end 1 0 5 6", "SeaBIOS (version 1)", "begin x"] {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }
}
