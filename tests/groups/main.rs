//! Groups, directories, names, victims and residents.

mod containers;
mod directories;
mod names;
mod places;
mod victims;

use anyhow::{Context as _, ensure};
use filltop_tests::{Measured, Truth};
use tracer_model::snapshot::{BlindSpotKind, GroupRow, HookState, WriteBackend};

type Result = anyhow::Result<()>;

/// The only group on a volume.
fn only_group<'m>(
    measured: &'m Measured,
    volume: &std::path::Path,
) -> anyhow::Result<&'m GroupRow> {
    let volume = volume.to_str().context("UTF-8")?;
    let rows: Vec<_> = measured.snapshot.groups.iter().filter(|row| row.volume == volume).collect();
    ensure!(rows.len() == 1, "{} groups: {rows:#?}", rows.len());
    Ok(rows[0])
}

/// The group of a process.
fn group_of(measured: &Measured, pid: u32) -> anyhow::Result<&tracer_model::snapshot::Group> {
    let writer = measured.writers_of(pid).next().context("no row for the writer")?;
    writer.group.as_ref().context("no group")
}

/// Nothing was lost, and the sum equals the truth.
fn exact(measured: &Measured, truth: &Truth, row: &GroupRow) -> Result {
    let backend = &measured.snapshot.backend;
    ensure!(backend.lost_events == 0, "lost {} events", backend.lost_events);
    ensure!(row.written_bytes == truth.total(), "{} of {}", row.written_bytes, truth.total());
    Ok(())
}

/// Whether writes through an overlay on ext4 are seen. With tracepoints that needs one that Linux
/// has since 6.6; where it is missing, filltop must report that.
fn sees_overlays(measured: &Measured) -> bool {
    let backend = &measured.snapshot.backend;
    let said = backend.blind_spot_kinds.contains(&BlindSpotKind::KernelWrites);
    let has = backend.write != WriteBackend::Tracepoint || hooked(measured, "iomap_dio_rw_begin");
    assert_ne!(said, has, "{:?}", backend.blind_spots);
    has
}

/// Whether this hook is attached.
fn hooked(measured: &Measured, name: &str) -> bool {
    let hooks = &measured.snapshot.backend.hooks;
    hooks.iter().any(|hook| hook.name == name && hook.state == HookState::Ok)
}
