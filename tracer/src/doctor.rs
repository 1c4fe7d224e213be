//! `filltop doctor`: can it run here, with which backend, what will it not see, and what to do.

use std::fmt::Write as _;

use serde::Serialize;
use tracer_model::{
    sanitize,
    snapshot::{Hook, HookState, WriteBackend},
};

use crate::{
    host,
    probes::{Tracer, TracerOptions, blind_spots, fence},
};

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Can it run here?
    pub ok: bool,
    /// Kernel release.
    pub kernel: String,
    /// The kind of probe that counts written bytes; `None` if it cannot run.
    pub write: Option<WriteBackend>,
    /// Why it cannot run, with the fix.
    pub problem: Option<String>,
    /// One per hook that was tried.
    pub hooks: Vec<Hook>,
    /// What it will not see here.
    pub blind_spots: Vec<String>,
    /// Can `filltop stop --how fence` work?
    pub fence: FenceReport,
}

/// Whether writers can be kept off a volume.
#[derive(Debug, Serialize)]
pub struct FenceReport {
    /// Was one put up, for nobody, and taken down again?
    pub possible: bool,
    /// Why it was not, with the fix.
    pub reason: Option<String>,
}

/// Loads and attaches everything, looks at it, and lets go.
#[must_use]
pub fn examine(options: &TracerOptions) -> Report {
    let fence = fence::try_here(true).err();
    let fence = FenceReport { possible: fence.is_none(), reason: fence };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    // As `snapshot` does: what cannot see the host must not say that it runs here.
    let started = host::check().map_err(anyhow::Error::from).and_then(|()| Tracer::start(options));
    let mut tracer = match started {
        Ok(tracer) => tracer,
        Err(error) => {
            return Report {
                ok: false,
                kernel,
                write: None,
                problem: Some(format!("{error:#}")),
                hooks: Vec::new(),
                blind_spots: Vec::new(),
                fence,
            };
        }
    };
    if let Ok(volumes) = crate::collect::mounts::read() {
        let types: Vec<&str> = volumes.iter().map(|volume| volume.fs_type.as_str()).collect();
        tracer.mounts_changed(&types);
    }
    let write = tracer.write_backend();
    Report {
        ok: true,
        kernel,
        write: Some(write),
        problem: None,
        hooks: tracer.hooks(),
        blind_spots: blind_spots::of_backend(write, tracer.seen()),
        fence,
    }
}

/// The report for people.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let kernel = sanitize::display(&report.kernel);
    match (&report.write, &report.problem) {
        (Some(write), _) => {
            let _ = writeln!(out, "filltop runs here: kernel {kernel}, backend {}", write.name());
        }
        (None, problem) => {
            let _ = writeln!(out, "filltop cannot run here (kernel {kernel})");
            let _ = writeln!(out, "  {}", problem.as_deref().unwrap_or("unknown reason"));
        }
    }
    if !report.hooks.is_empty() {
        let _ = writeln!(out, "\nHooks");
    }
    for hook in &report.hooks {
        let (state, reason) = match &hook.state {
            HookState::Ok => ("ok", ""),
            HookState::Unsupported { reason } => ("unsupported", reason.as_str()),
            HookState::Broken { reason } => ("BROKEN", reason.as_str()),
            HookState::NotApplicable { reason } => ("not needed", reason.as_str()),
        };
        let line = format!("  {:<11} {:<26} {:<14} {reason}", state, hook.name, hook.how);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if !report.blind_spots.is_empty() {
        let _ = writeln!(out, "\nNot seen here");
    }
    for spot in &report.blind_spots {
        let _ = writeln!(out, "  - {spot}");
    }
    let fence = report.fence.reason.as_deref().unwrap_or("works here");
    let _ = writeln!(out, "\nActions\n  fence       {}", sanitize::display(fence));
    out
}
