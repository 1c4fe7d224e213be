//! `filltop doctor`: whether filltop can run here, with which backend, what it cannot see, and how
//! to fix what is missing.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tracer_model::sanitize;
use tracer_model::snapshot::{
    Blind, BlindSpotKind, CountedBy, Gap, Hook, HookState, Snapshot, WriteBackend,
};

use tracer_host::{host_root, mounts};
use tracer_kernel::{Tracer, TracerOptions, capabilities, coverage, fence};

use super::args::{AttachArgs, TraceArgs};
use crate::service::attach;

/// Arguments of `filltop doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Where `filltop watch` runs, this reports how that service traces, with the
service's privileges. With --standalone it reports what this command could do.

Exit status: 0 if every volume is traced as well as this kernel allows, else 1.")]
pub(super) struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    attach: AttachArgs,
    #[command(flatten)]
    pub(super) trace: TraceArgs,
}

/// Runs `filltop doctor`.
///
/// # Errors
/// If standard output fails.
pub(super) fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let report = match attach::described(&args.attach.source(&args.trace)) {
        Ok(snapshot) => of_service(snapshot),
        Err(standalone) => standalone.or_else(|| Ok(examine(&args.trace.options())))?,
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(stdout, "{}", text(&report))?;
    }
    let complete = report.ok && report.is_complete();
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The result of `filltop doctor`; serialized by `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether filltop can run here.
    pub ok: bool,
    /// Whether this describes the running service rather than what this command could do.
    pub service: bool,
    /// Capabilities that the measuring process had when it attached its probes.
    pub capabilities: Vec<String>,
    /// How the writes to each volume are counted.
    pub volumes: Vec<VolumeReport>,
    /// Kernel release.
    pub kernel: String,
    /// The kind of probe that counts written bytes; `None` if filltop cannot run.
    pub write: Option<WriteBackend>,
    /// Why it cannot run, with the fix.
    pub problem: Option<String>,
    /// One entry per hook that was tried.
    pub hooks: Vec<Hook>,
    /// What filltop cannot see here.
    pub blind_spots: Vec<String>,
    /// The kinds of `blind_spots`, in the same order.
    pub blind_spot_kinds: Vec<BlindSpotKind>,
    /// Whether `filltop stop --how fence` works.
    pub fence: FenceReport,
}

/// How a volume is traced.
#[derive(Debug, Serialize)]
pub struct VolumeReport {
    /// First mount point.
    pub mount_point: String,
    /// `ext4`, `xfs`, …
    pub fs_type: String,
    /// Where its writes are counted; `None` if nowhere.
    pub counted_by: Option<CountedBy>,
    /// Why they are not counted at the filesystem's own functions, if that can be fixed.
    pub gap: Option<Gap>,
    /// Only from the service: too little of its growth was attributed in the last seconds.
    pub blind: Option<Blind>,
}

impl Report {
    /// Whether every volume is traced as well as possible on this kernel.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let hides = |volume: &VolumeReport| volume.blind.is_some_and(|blind| blind.hides_most());
        self.volumes.iter().all(|volume| volume.gap.is_none() && !hides(volume))
    }
}

/// Whether a fence can block writers from a volume.
#[derive(Debug, Serialize)]
pub struct FenceReport {
    /// Whether a fence that affects no process could be attached and removed again.
    pub possible: bool,
    /// Why not, with the fix.
    pub reason: Option<String>,
}

/// Builds the report of the running service from its newest Snapshot.
#[must_use]
pub fn of_service(snapshot: Snapshot) -> Report {
    let Snapshot { backend, volumes, .. } = snapshot;
    Report {
        ok: true,
        service: true,
        capabilities: backend.capabilities,
        volumes: volumes
            .into_iter()
            .map(|row| VolumeReport {
                mount_point: row.mount_point,
                fs_type: row.fs_type,
                counted_by: row.counted_by,
                gap: row.gap,
                blind: row.blind,
            })
            .collect(),
        kernel: backend.kernel,
        write: Some(backend.write),
        problem: None,
        hooks: backend.hooks,
        blind_spots: backend.blind_spots,
        blind_spot_kinds: backend.blind_spot_kinds,
        fence: try_fence(),
    }
}

fn try_fence() -> FenceReport {
    let fence = fence::probe(true, host_root::in_container()).err();
    FenceReport { possible: fence.is_none(), reason: fence }
}

/// Loads and attaches all probes, inspects the result, and detaches them.
#[must_use]
pub fn examine(options: &TracerOptions) -> Report {
    let fence = try_fence();
    let capabilities = capabilities::effective_capabilities();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    // As `snapshot` does: if the host is not visible, doctor must not report that filltop can run
    // here.
    let started =
        host_root::check().map_err(anyhow::Error::from).and_then(|()| Tracer::start(options));
    let mut tracer = match started {
        Ok(tracer) => tracer,
        Err(error) => {
            return Report {
                ok: false,
                service: false,
                capabilities,
                volumes: Vec::new(),
                kernel,
                write: None,
                problem: Some(format!("{error:#}")),
                hooks: Vec::new(),
                blind_spots: Vec::new(),
                blind_spot_kinds: Vec::new(),
                fence,
            };
        }
    };
    let volumes = mounts::read().unwrap_or_default();
    let types: Vec<&str> = volumes.iter().map(|volume| volume.fs_type.as_str()).collect();
    tracer.mounts_changed(&types);
    let write = tracer.write_backend();
    let spots = coverage::of_backend(write, tracer.coverage());
    Report {
        ok: true,
        service: false,
        capabilities,
        volumes: volumes
            .iter()
            .map(|volume| VolumeReport {
                mount_point: sanitize::lossless(
                    volume.primary().mount_point.as_os_str().as_bytes(),
                ),
                fs_type: volume.fs_type.clone(),
                counted_by: tracer.counted_by(&volume.fs_type),
                gap: tracer.gap(&volume.fs_type),
                blind: None,
            })
            .collect(),
        kernel,
        write: Some(write),
        problem: None,
        hooks: tracer.hooks(),
        blind_spot_kinds: spots.iter().map(|spot| spot.kind).collect(),
        blind_spots: spots.into_iter().map(|spot| spot.text).collect(),
        fence,
    }
}

/// Formats the report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let kernel = sanitize::display(&report.kernel);
    match (&report.write, &report.problem) {
        (Some(write), _) => {
            let what = if report.service {
                "the filltop service is running"
            } else {
                "filltop can run here"
            };
            let _ = writeln!(out, "{what}: kernel {kernel}, backend {}", write.name());
            let _ = writeln!(out, "  with {}", listed(&report.capabilities));
        }
        (None, problem) => {
            let _ = writeln!(out, "filltop cannot run here (kernel {kernel})");
            let _ = writeln!(out, "  {}", problem.as_deref().unwrap_or("unknown reason"));
        }
    }
    if !report.volumes.is_empty() {
        let _ = writeln!(out, "\nVolumes");
    }
    for volume in &report.volumes {
        let (state, reason) = state_of(volume);
        let (mount, fs) =
            (sanitize::display(&volume.mount_point), sanitize::display(&volume.fs_type));
        let line = format!("  {state:<11} {mount:<26} {fs:<14} {reason}");
        let _ = writeln!(out, "{}", line.trim_end());
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
        let _ = writeln!(out, "\nBlind spots");
    }
    for spot in &report.blind_spots {
        let _ = writeln!(out, "  - {spot}");
    }
    let fence = report.fence.reason.as_deref().unwrap_or("works here");
    let _ = writeln!(out, "\nActions\n  fence       {}", sanitize::display(fence));
    out
}

fn listed(capabilities: &[String]) -> String {
    if capabilities.is_empty() { "no capability".to_owned() } else { capabilities.join(" ") }
}

/// Returns how well a volume is traced, and what would improve it.
fn state_of(volume: &VolumeReport) -> (&'static str, &'static str) {
    match (volume.gap, volume.counted_by) {
        (Some(Gap::NeedsSysAdmin), _) => (
            "INCOMPLETE",
            "start filltop with CAP_SYS_ADMIN, which it drops again (docs/service.md)",
        ),
        (Some(Gap::HooksFailed), _) => {
            ("INCOMPLETE", "its own functions are not hooked: see Hooks below")
        }
        (None, _) if volume.blind.is_some_and(|blind| blind.hides_most()) => {
            ("UNEXPLAINED", "most of its growth in the last seconds is not accounted for")
        }
        (None, Some(CountedBy::Filesystem)) => ("ok", "counted at its own functions"),
        (None, Some(CountedBy::Tracepoints)) => ("ok", "counted at its tracepoints"),
        (None, Some(CountedBy::VfsWrite)) => ("ok", "counted at vfs_write"),
        (None, Some(CountedBy::SystemCalls)) => ("ok", "counted at system calls"),
        (None, None) => ("not traced", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_model::fixtures;
    use tracer_model::snapshot::HookMethod;

    /// Every state that a volume and a hook can be in.
    #[test]
    fn the_text_report_has_every_state() {
        let gaps = [None, Some(Gap::NeedsSysAdmin), Some(Gap::HooksFailed)];
        let counted = [
            Some(CountedBy::Filesystem),
            Some(CountedBy::Tracepoints),
            Some(CountedBy::VfsWrite),
            Some(CountedBy::SystemCalls),
            None,
        ];
        let volume = |gap, counted_by| VolumeReport {
            mount_point: "/srv/a\u{202e}b".to_owned(),
            fs_type: "ext4".to_owned(),
            counted_by,
            gap,
            blind: None,
        };
        let reason = || "the reason".to_owned();
        let hook = |state| Hook { name: "vfs_write".to_owned(), how: HookMethod::Fexit, state };
        let states = [
            HookState::Ok,
            HookState::Unsupported { reason: reason() },
            HookState::Broken { reason: reason() },
            HookState::NotApplicable { reason: reason() },
        ];
        let mut report = Report {
            ok: true,
            service: true,
            capabilities: vec!["CAP_BPF".to_owned(), "CAP_PERFMON".to_owned()],
            volumes: gaps
                .into_iter()
                .flat_map(|gap| counted.map(|counted_by| volume(gap, counted_by)))
                .collect(),
            kernel: "6.1.0-57-amd64".to_owned(),
            write: Some(WriteBackend::Fentry),
            problem: None,
            hooks: states.map(hook).into(),
            blind_spots: vec!["direct writes".to_owned()],
            blind_spot_kinds: vec![BlindSpotKind::Unknown],
            fence: FenceReport { possible: false, reason: Some(reason()) },
        };
        insta::assert_snapshot!("doctor_of_the_service", text(&report));
        report = Report {
            ok: false,
            service: false,
            capabilities: Vec::new(),
            volumes: Vec::new(),
            write: None,
            problem: Some("no BTF".to_owned()),
            hooks: Vec::new(),
            blind_spots: Vec::new(),
            blind_spot_kinds: Vec::new(),
            fence: FenceReport { possible: true, reason: None },
            ..report
        };
        insta::assert_snapshot!("doctor_that_cannot_run", text(&report));
        report = of_service(fixtures::busy());
        assert!(report.ok && report.service && report.is_complete());
    }
}
