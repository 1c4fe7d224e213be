//! Arguments and helpers that several commands share.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracer_host::{host_root, mounts};
use tracer_kernel::TracerOptions;
use tracer_model::snapshot::WriteBackend;
use tracer_model::units::Units;
use tracer_model::units::parse::{self, ParseError};

use crate::output::{terminal, text};
use crate::service::SOCKET;
use crate::service::attach::Source;

/// Options that choose how to trace.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// Use only this kind of probe
    #[arg(long, value_enum)]
    backend: Option<BackendArg>,
    /// Also hook this kernel function (`vfs_write` covers unknown filesystems)
    #[arg(long, value_name = "FUNCTION")]
    hooks: Vec<String>,
    /// Verbose logging to stderr; repeat to include the eBPF log
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackendArg {
    /// fentry/fexit trampolines
    Fentry,
    /// kprobes and kretprobes
    Kprobe,
    /// Static tracepoints
    Tracepoint,
}

impl TraceArgs {
    /// Whether any tracing option was given.
    pub(crate) fn is_special(&self) -> bool {
        self.backend.is_some() || !self.hooks.is_empty()
    }

    pub(crate) fn options(&self) -> TracerOptions {
        TracerOptions {
            backend: self.backend.map(|backend| match backend {
                BackendArg::Fentry => WriteBackend::Fentry,
                BackendArg::Kprobe => WriteBackend::Kprobe,
                BackendArg::Tracepoint => WriteBackend::Tracepoint,
            }),
            hooks: self.hooks.clone(),
            kernel_log: self.verbose > 1,
            in_container: host_root::in_container(),
        }
    }
}

/// Options of whether and where to attach.
#[derive(Debug, Clone, clap::Args)]
pub struct AttachArgs {
    /// Measure directly instead of asking a running `filltop watch`
    #[arg(long)]
    standalone: bool,
    /// Socket path of the running `filltop watch`
    #[arg(long, value_name = "PATH", env = "FILLTOP_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
}

impl AttachArgs {
    /// For a command that would otherwise trace.
    pub(crate) fn source(&self, trace: &TraceArgs) -> Source {
        Source { special: trace.is_special(), ..self.source_of_data() }
    }

    /// For a command that does not trace.
    pub(crate) fn source_of_data(&self) -> Source {
        Source { standalone: self.standalone, socket: self.socket.clone(), special: false }
    }
}

pub(crate) fn units(si: bool) -> Units {
    if si { Units::Si } else { Units::Iec }
}

pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn text_options(si: bool) -> text::TextOptions {
    let width = rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(80);
    text::TextOptions {
        width,
        units: units(si),
        color: io::stdout().is_terminal() && terminal::color(environment),
        charset: terminal::charset(environment),
        ..text::TextOptions::default()
    }
}

/// The mount point of the volume that holds a path, as the Snapshot prints it.
pub(crate) fn mount_of(path: &Path) -> anyhow::Result<String> {
    Ok(mounts::volume_of(path)?.primary().mount_point.to_string_lossy().into_owned())
}

/// Parses a time from 100 ms to 7 days, as [`parse::duration`] does.
pub(crate) fn duration(text: &str) -> Result<Duration, ParseError> {
    parse::duration(text, 0.1, 7.0 * 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "s", "5x", "-1s", "0", "1e9h", "999h", "nan", "1..5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
