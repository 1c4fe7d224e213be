//! What `snapshot` reports about a container.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use filltop_tests::filltop;
use serde_json::Value;
use tracer_model::snapshot::{GroupRow, PathRow, Volume};

use crate::Result;
use crate::measured::{BIND, HELD, Measured, NAMED, PACE, PRINTED, ROOT, SHM};
use crate::world::{Seen, World, is_ours};

/// Least explained share of the change of the volume's used space.
const EXPLAINED: f64 = 0.95;
/// Tolerance relative to stat: extent trees have blocks of their own.
const BLOCKS: f64 = 0.01;

fn volume<'w>(seen: &Seen<'w>) -> Result<&'w Volume> {
    let mut rows = seen.measured.snapshot.volumes.iter();
    let row = rows.find(|row| row.mount_point == seen.mount);
    row.with_context(|| format!("no row for {}", seen.mount))
}

/// The row of a container on its volume. Its monitor is another group.
fn group<'w>(seen: &Seen<'w>, container: &str) -> Result<&'w GroupRow> {
    let (kind, name) = (seen.runtime.kind(), seen.runtime.called(container));
    let all = seen.measured.snapshot.groups.iter().filter(|row| row.volume == seen.mount);
    let wrote = all.filter(|row| row.written_bytes > 0);
    let (rows, others): (Vec<_>, Vec<_>) =
        wrote.partition(|row| row.group.kind.name() == kind && row.group.name == name);
    let others: Vec<_> = others.iter().map(|row| (&row.group.kind, &row.group.name)).collect();
    let most = rows.iter().max_by_key(|row| row.written_bytes);
    let most = *most.with_context(|| format!("no row of {kind} {name}, but of {others:?}"))?;
    // systemd-nspawn writes a few bytes itself there before it enters the new root.
    let rest = rows.iter().map(|row| row.written_bytes).sum::<u64>() - most.written_bytes;
    ensure!(rest < 4096, "{} rows of {kind} {name}: {rows:#?}", rows.len());
    Ok(most)
}

/// The row of a file by its path on the host.
fn path<'m>(measured: &'m Measured, path: &Path) -> Result<&'m PathRow> {
    let wanted = text(path)?;
    let all = &measured.snapshot.paths;
    let name = path.file_name().context("a file")?.to_string_lossy();
    all.iter().find(|row| row.path == wanted).with_context(|| {
        let near: Vec<_> = all.iter().filter(|row| row.path.ends_with(&*name)).collect();
        format!("no row for {wanted}, but {near:#?}")
    })
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a test's path is UTF-8")?.to_owned())
}

/// The files of `web`: their path on the host, their path in the container, and the bytes written.
fn files(seen: &Seen<'_>) -> Vec<(PathBuf, &'static str, u64)> {
    let bind = seen.runtime.home().bind(&seen.measured.names.web);
    let mut files = vec![
        (seen.measured.root.join("data"), "/data", ROOT),
        (bind.join("bind"), "/bind/bind", BIND),
    ];
    let named = seen.measured.named.as_ref();
    files.extend(named.map(|named| (named.join("named"), "/volume/named", NAMED)));
    files
}

pub fn bytes_are_exact(world: &mut World) -> Result {
    let seen = world.seen()?;
    let backend = &seen.measured.snapshot.backend;
    ensure!(backend.lost_events == 0, "{:?}", backend.lost);
    for (file, _, bytes) in files(&seen) {
        let row = path(seen.measured, &file)?;
        ensure!(row.written_bytes == bytes, "{} of {bytes} bytes: {row:?}", row.written_bytes);
    }
    Ok(())
}

pub fn the_group_is_named_and_has_the_sum(world: &mut World) -> Result {
    let seen = world.seen()?;
    let row = group(&seen, &seen.measured.names.web)?;
    let total = seen.measured.total();
    ensure!(row.written_bytes == total, "{} of {total} bytes: {row:?}", row.written_bytes);
    Ok(())
}

pub fn growth_is_explained(world: &mut World) -> Result {
    let seen = world.seen()?;
    let (volume, measured) = (volume(&seen)?, seen.measured);
    let explained = volume.explained.context("the used space did not change")?;
    println!("explained {explained:.4} of {} bytes", volume.used_delta_bytes);
    ensure!(explained > EXPLAINED, "{volume:#?}");
    let ours: Vec<u64> = files(&seen)
        .iter()
        .map(|(file, ..)| Ok(path(measured, file)?.ino))
        .collect::<Result<_>>()?;
    let rows = measured.snapshot.paths.iter().filter(|row| row.volume == seen.mount);
    let rows = rows.filter(|row| ours.contains(&row.ino));
    let allocated: u64 = rows.filter_map(|row| row.allocated_bytes).sum();
    let off = (allocated as f64 / measured.blocks as f64 - 1.0).abs();
    ensure!(off < BLOCKS, "{allocated} bytes allocated, of {} by stat", measured.blocks);
    Ok(())
}

pub fn the_rate_is_the_writers(world: &mut World) -> Result {
    let measured = world.seen()?.measured;
    let row = path(measured, &measured.filled)?;
    let (least, most) = measured.filled_bytes;
    println!("{} bytes in {:?}, paced at {PACE}", row.written_bytes, measured.filled_for);
    ensure!((least..=most).contains(&row.written_bytes), "{least} to {most}, not {row:?}");
    let paced = measured.filled_for.as_secs_f64() * PACE as f64;
    // An emulated machine does not reach the rate.
    let least = if is_ours() { 0.1 } else { 0.5 };
    ensure!((least..1.2).contains(&(row.written_bytes as f64 / paced)), "paced: {paced}; {row:?}");
    Ok(())
}

pub fn paths_are_given_as_host_and_container_see_them(world: &mut World) -> Result {
    let seen = world.seen()?;
    for (file, inside, _) in files(&seen) {
        let row = path(seen.measured, &file)?;
        ensure!(row.path_in_container.as_deref() == Some(inside), "not {inside}: {row:?}");
    }
    Ok(())
}

pub fn a_held_file_has_its_container(world: &mut World) -> Result {
    let seen = world.seen()?;
    let (kind, measured) = (seen.runtime.kind(), seen.measured);
    let name = seen.runtime.called(&measured.names.web);
    let wanted = text(&measured.root.join("held"))?;
    let rows = measured.json["held"].as_array().context("no `held`")?;
    let row = rows.iter().find(|row| row["path"] == wanted.as_str());
    let row = row.with_context(|| format!("{wanted} is not among {rows:#?}"))?;
    ensure!(row["volume"] == seen.mount.as_str(), "{row}");
    ensure!(row["bytes"] == measured.held_blocks, "not {}: {row}", measured.held_blocks);
    ensure!(measured.held_blocks >= HELD, "{} of {HELD}", measured.held_blocks);
    let volume = volume(&seen)?;
    ensure!(volume.held_bytes.is_some_and(|held| held >= HELD), "{volume:?}");
    ensure!(row["path_in_container"] == "/held", "{row}");
    ensure!(row["group"]["kind"] == kind && row["group"]["name"] == name.as_str(), "{row}");
    Ok(())
}

pub fn a_log_belongs_to_its_container(world: &mut World) -> Result {
    let seen = world.seen()?;
    let (kind, measured) = (seen.runtime.kind(), seen.measured);
    let name = seen.runtime.called(&measured.names.chatty);
    let (log, (least, most)) = measured.log.as_ref().context("it keeps no log")?;
    let row = path(measured, log)?;
    println!("{} bytes of log, in {:?}", row.written_bytes, measured.filled_for);
    ensure!((*least..=*most).contains(&row.written_bytes), "{least} to {most}: {row:?}");
    // On a busy machine it prints less than it should.
    ensure!(*least > PRINTED / 3, "it printed less than for a third of a second: {least}");
    let of = |rows: &str, key: &str, wanted: &Value| -> Result<Vec<Value>> {
        let rows = measured.json[rows].as_array().with_context(|| rows.to_owned())?;
        Ok(rows.iter().filter(|row| row[key] == *wanted).cloned().collect())
    };
    let rows = of("paths", "path", &text(log)?.into())?;
    let log_of = &rows.first().context("no row")?["log_of"];
    ensure!(log_of["kind"] == kind && log_of["name"] == name.as_str(), "log_of is {log_of}");
    let writers = of("writers", "pid", &rows[0]["writers"][0])?;
    let behalf: Vec<_> = writers.iter().map(|writer| &writer["on_behalf_of"]).collect();
    let is_told = behalf.iter().any(|of| of.to_string().contains(&name));
    ensure!(is_told, "on behalf of {behalf:?}, not of {name}");
    Ok(())
}

pub fn its_shm_is_a_volume(world: &mut World) -> Result {
    let seen = world.seen()?;
    let (web, measured) = (&seen.measured.names.web, seen.measured);
    // A pod's /dev/shm is shared by all of its containers.
    let name = seen.runtime.pod(web).unwrap_or_else(|| seen.runtime.called(web));
    let of_it = |row: &&PathRow| {
        row.path_in_container.as_deref() == Some("/dev/shm/shm") && row.written_bytes == SHM
    };
    let rows: Vec<_> = measured.snapshot.paths.iter().filter(of_it).collect();
    let similar = measured.snapshot.paths.iter().filter(|row| row.path.ends_with("/shm"));
    let similar = similar.collect::<Vec<_>>();
    ensure!(rows.len() == 1, "{} rows of {SHM} bytes in /dev/shm/shm: {similar:?}", rows.len());
    let volumes = measured.json["volumes"].as_array().context("no volumes")?;
    let volume = volumes.iter().find(|row| row["mount_point"] == rows[0].volume.as_str());
    let volume = volume.with_context(|| format!("no volume of {:?}", rows[0]))?;
    ensure!(volume["fs_type"] == "tmpfs", "{volume}");
    ensure!(volume.to_string().contains(&name), "its container is not named: {volume}");
    Ok(())
}

pub fn the_text_names_the_container(world: &mut World) -> Result {
    let seen = world.seen()?;
    let mut snapshot = Command::new(filltop());
    snapshot.args(["snapshot", "--standalone", "--for", "2s", "--volume", &seen.mount]);
    let text = crate::succeed(snapshot.env("COLUMNS", "120"))?;
    let name = seen.runtime.called(&seen.measured.names.filler);
    ensure!(text.contains(&name), "{name} is not in\n{text}");
    let mut lines = text.lines().filter(|line| line.contains("/fill"));
    ensure!(lines.any(|line| !line.contains('…')), "the path is cut:\n{text}");
    Ok(())
}
