//! `filltop held`: deleted files that still take space.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_host::{mounts, open_files};

use super::args::{AttachArgs, text_options};
use crate::attribute::groups::Groups;
use crate::measure::deleted_files;
use crate::output::text;
use crate::service::attach;

/// Arguments of `filltop held`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Shows the same files as `lsof +L1`, largest first, under the volume whose space
they use: for a container on an overlay, the volume of its upper directory.
Needs no tracing.")]
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

/// Runs `filltop held`.
///
/// # Errors
/// If /proc or standard output fails.
pub(super) fn held(args: &HeldArgs) -> anyhow::Result<ExitCode> {
    let found = match attach::newest(&args.attach.source_of_data(), "held") {
        Ok(snapshot) => deleted_files::HeldFiles { files: snapshot.held, unreadable: 0 },
        Err(none) => none.or_else(|| {
            let volumes =
                mounts::read().context("cannot read /proc/self/mountinfo: is /proc mounted?")?;
            let lookup = MountLookup::new(&volumes);
            let open = open_files::from_proc(&lookup);
            Ok(deleted_files::of(&open, &volumes, &lookup, &mut Groups::default(), None))
        })?,
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&found.files)?)?;
    } else {
        write!(stdout, "{}", text::held(&found.files, &text_options(args.si)))?;
    }
    stdout.flush()?;
    if found.unreadable > 0 {
        let count = found.unreadable;
        let processes = if count == 1 { "process" } else { "processes" };
        eprintln!("filltop: could not inspect {count} {processes}; run as root to see their files");
    }
    Ok(ExitCode::SUCCESS)
}
