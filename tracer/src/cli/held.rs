//! `filltop held`: deleted files that still take space.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tracer_host::mounts;
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_model::snapshot::{Held, Snapshot};

use super::args::{AttachArgs, text_options};
use crate::attribute::groups::Groups;
use crate::measure::deleted_files;
use crate::measure::open_files::scan_once;
use crate::output::text;
use crate::output::text::Missing;
use crate::service::attach;

/// Arguments of `filltop held`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Shows files without a name that still take space, largest first, under the
volume whose space they use: for a container on an overlay, the volume of its
upper directory. FD is a descriptor (as `lsof +L1` shows it), or mmap (only a
mapping), socket (a descriptor that waits in a UNIX socket), loop or swap.

Traces nothing. With the privileges to load eBPF programs (Linux 5.17), it also
finds files that nothing in /proc shows. If it may not inspect all processes, it
says so and exits with status 1; with --json, it then prints null if it found
nothing.")]
pub(super) struct HeldArgs {
    /// One JSON array
    #[arg(long)]
    json: bool,
    /// Powers of 1000 instead of 1024
    #[arg(long)]
    si: bool,
    #[command(flatten)]
    attach: AttachArgs,
}

/// What `filltop held` prints.
struct Found {
    files: Vec<Held>,
    /// Set if files may be missing.
    missing: Option<Missing>,
}

/// Runs `filltop held`. Fails if files may be missing, after printing those that were found.
///
/// # Errors
/// If /proc or standard output fails.
pub(super) fn held(args: &HeldArgs) -> anyhow::Result<ExitCode> {
    let found = match attach::newest(&args.attach.source_of_data(), "held") {
        Ok(snapshot) => of_service(snapshot),
        Err(none) => none.or_else(search)?,
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        // Not even whether there is a file is known.
        let nothing_known = found.files.is_empty() && found.missing.is_some();
        let files = (!nothing_known).then_some(&found.files);
        writeln!(stdout, "{}", serde_json::to_string(&files)?)?;
    } else {
        write!(stdout, "{}", text::held(&found.files, found.missing, &text_options(args.si)))?;
    }
    stdout.flush()?;
    let Some(missing) = found.missing else { return Ok(ExitCode::SUCCESS) };
    let what = match missing {
        Missing::Processes(1) => {
            "could not inspect 1 process; run as root, or with CAP_BPF, CAP_PERFMON and \
             CAP_SYS_PTRACE"
                .to_owned()
        }
        Missing::Processes(count) => format!(
            "could not inspect {count} processes; run as root, or with CAP_BPF, CAP_PERFMON and \
             CAP_SYS_PTRACE"
        ),
        Missing::HiddenProcesses => {
            "could not inspect some processes; run as root in the initial PID namespace".to_owned()
        }
        Missing::Size => {
            "a deleted file's size is not known; run as root on Linux 5.17 or later".to_owned()
        }
    };
    eprintln!("filltop: {what}");
    Ok(ExitCode::FAILURE)
}

/// What the service found.
fn of_service(snapshot: Snapshot) -> Found {
    let is_incomplete = snapshot.volumes.iter().any(|volume| volume.held_bytes.is_none());
    let missing = match snapshot.uninspected_processes {
        0 => Missing::Size,
        count => Missing::Processes(count),
    };
    Found { files: snapshot.held, missing: is_incomplete.then_some(missing) }
}

/// Searches now.
fn search() -> anyhow::Result<Found> {
    let volumes = mounts::read().context("cannot read /proc/self/mountinfo: is /proc mounted?")?;
    let lookup = MountLookup::new(&volumes);
    let scan = scan_once(&volumes, &lookup);
    let found = deleted_files::find(&scan, &volumes, &lookup, &mut Groups::default(), None);
    let missing = match found.unreadable {
        0 if found.hides_processes => Missing::HiddenProcesses,
        0 => Missing::Size,
        count => Missing::Processes(count as u64),
    };
    Ok(Found { missing: found.is_incomplete(&volumes).then_some(missing), files: found.files })
}
