//! What `snapshot` says of a container.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use filltop_tests::filltop;
use serde_json::Value;
use tracer_model::snapshot::{GroupRow, PathRow, Volume};

use crate::{
    Result,
    measured::{BIND, HELD, Measured, NAMED, PACE, PRINTED, ROOT, SHM},
    world::World,
};

/// Of the change of the volume's used space.
const EXPLAINED: f64 = 0.95;
/// Of what stat says: extent trees, which have blocks of their own.
const BLOCKS: f64 = 0.01;

fn volume(world: &mut World) -> Result<Volume> {
    let mount = text(world.volume.path())?;
    let measured = world.measured()?;
    let row = measured.snapshot.volumes.iter().find(|row| row.mount_point == mount);
    row.cloned().with_context(|| format!("no row for {mount}"))
}

/// The only row of a container on its volume.
fn group<'m>(measured: &'m Measured, mount: &str, kind: &str, name: &str) -> Result<&'m GroupRow> {
    let all = measured.snapshot.groups.iter().filter(|row| row.volume == mount);
    let (rows, others): (Vec<_>, Vec<_>) =
        all.partition(|row| row.group.kind == kind && row.group.name == name);
    let others: Vec<_> = others.iter().map(|row| (&row.group.kind, &row.group.name)).collect();
    ensure!(rows.len() == 1, "{} rows of {kind} {name}: {rows:#?}, beside {others:?}", rows.len());
    Ok(rows[0])
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

/// Where files of `web` lie on the host, what it calls them, and how much it wrote.
fn files(world: &mut World) -> Result<Vec<(std::path::PathBuf, &'static str, u64)>> {
    let measured = world.measured()?;
    let mut files = vec![(measured.root.join("root"), "/root", ROOT)];
    if let Some(named) = &measured.named {
        files.push((named.join("named"), "/volume/named", NAMED));
    }
    let web = measured.names.web.clone();
    files.push((world.runtime.home().bind(&web).join("bind"), "/bind/bind", BIND));
    Ok(files)
}

pub fn bytes_are_exact(world: &mut World) -> Result {
    let (mount, files, kind) = (text(world.volume.path())?, files(world)?, world.runtime.kind());
    let name = world.runtime.called(&world.measured()?.names.web.clone());
    let measured = world.measured()?;
    ensure!(measured.snapshot.backend.lost_events == 0, "{:?}", measured.snapshot.backend.lost);
    for (file, _, bytes) in files {
        let row = path(measured, &file)?;
        ensure!(row.written_bytes == bytes, "{} of {bytes} bytes: {row:?}", row.written_bytes);
    }
    let row = group(measured, &mount, kind, &name)?;
    let total = measured.total();
    ensure!(row.written_bytes == total, "{} of {total} bytes: {row:?}", row.written_bytes);
    Ok(())
}

pub fn growth_is_explained(world: &mut World) -> Result {
    let volume = volume(world)?;
    let explained = volume.explained.context("it did not move")?;
    println!("explained {explained:.4} of {} bytes", volume.used_delta_bytes);
    ensure!(explained > EXPLAINED, "{volume:#?}");
    let measured = world.measured()?;
    let writers = measured.snapshot.writers.iter().filter(|row| row.volume == volume.mount_point);
    let of_web = |row: &&tracer_model::snapshot::Writer| {
        row.group.as_ref().is_some_and(|group| group.name.contains(&measured.names.web))
    };
    let allocated: u64 = writers.filter(of_web).filter_map(|row| row.allocated_bytes).sum();
    let off = (allocated as f64 / measured.blocks as f64 - 1.0).abs();
    ensure!(off < BLOCKS, "{allocated} bytes allocated, of {} by stat", measured.blocks);
    Ok(())
}

pub fn the_rate_is_the_writers(world: &mut World) -> Result {
    let measured = world.measured()?;
    let row = path(measured, &measured.filled)?;
    let (least, most) = measured.filled_bytes;
    println!("{} bytes in {:?}, paced at {PACE}", row.written_bytes, measured.filled_for);
    ensure!((least..=most).contains(&row.written_bytes), "{least} to {most}, not {row:?}");
    let paced = measured.filled_for.as_secs_f64() * PACE as f64;
    ensure!((0.5..1.2).contains(&(row.written_bytes as f64 / paced)), "paced: {paced}; {row:?}");
    Ok(())
}

pub fn the_group_is_named(world: &mut World) -> Result {
    let (mount, kind) = (text(world.volume.path())?, world.runtime.kind());
    let web = world.measured()?.names.web.clone();
    let name = world.runtime.called(&web);
    group(world.measured()?, &mount, kind, &name)?;
    Ok(())
}

pub fn paths_are_told_as_the_host_and_the_container_see_them(world: &mut World) -> Result {
    for (file, inside, _) in files(world)? {
        let row = path(world.measured()?, &file)?;
        ensure!(row.path_in_container.as_deref() == Some(inside), "not {inside}: {row:?}");
    }
    Ok(())
}

pub fn a_held_file_is_told_with_its_container(world: &mut World) -> Result {
    let (kind, volume) = (world.runtime.kind(), volume(world)?);
    let name = world.runtime.called(&world.measured()?.names.web.clone());
    let measured = world.measured()?;
    let wanted = text(&measured.root.join("held"))?;
    let rows = measured.json["held"].as_array().context("no `held`")?;
    let row = rows.iter().find(|row| row["path"] == wanted.as_str());
    let row = row.with_context(|| format!("{wanted} is not among {rows:#?}"))?;
    ensure!(row["volume"] == volume.mount_point.as_str(), "{row}");
    ensure!(row["bytes"] == measured.held_blocks, "not {}: {row}", measured.held_blocks);
    ensure!(measured.held_blocks >= HELD, "{} of {HELD}", measured.held_blocks);
    ensure!(volume.held_bytes.is_some_and(|held| held >= HELD), "{volume:?}");
    ensure!(row["path_in_container"] == "/held", "{row}");
    ensure!(row["group"]["kind"] == kind && row["group"]["name"] == name.as_str(), "{row}");
    Ok(())
}

pub fn a_log_is_its_containers(world: &mut World) -> Result {
    let kind = world.runtime.kind();
    let name = world.runtime.called(&world.measured()?.names.chatty.clone());
    let measured = world.measured()?;
    let (log, (least, most)) = measured.log.as_ref().context("it keeps no log")?;
    let row = path(measured, log)?;
    println!("{} bytes of log, in {:?}", row.written_bytes, measured.filled_for);
    ensure!((*least..=*most).contains(&row.written_bytes), "{least} to {most}: {row:?}");
    ensure!(*least > PRINTED, "it printed less than for a second: {least}");
    let of = |rows: &str, key: &str, wanted: &Value| -> Result<Vec<Value>> {
        let rows = measured.json[rows].as_array().with_context(|| rows.to_owned())?;
        Ok(rows.iter().filter(|row| row[key] == *wanted).cloned().collect())
    };
    let row = of("paths", "path", &text(log)?.into())?;
    let log_of = &row.first().context("no row")?["log_of"];
    ensure!(log_of["kind"] == kind && log_of["name"] == name.as_str(), "log_of is {log_of}");
    let writer = row[0]["writers"][0].clone();
    let writers = of("writers", "pid", &writer)?;
    let behalf: Vec<_> = writers.iter().map(|writer| &writer["on_behalf_of"]).collect();
    let told = |of: &&&Value| of.to_string().contains(&name);
    ensure!(behalf.iter().any(|of| told(&of)), "on behalf of {behalf:?}, not of {name}");
    Ok(())
}

pub fn its_shm_is_a_volume(world: &mut World) -> Result {
    let name = world.runtime.called(&world.measured()?.names.web.clone());
    let measured = world.measured()?;
    let of_it = |row: &&PathRow| {
        row.path_in_container.as_deref() == Some("/dev/shm/shm") && row.written_bytes == SHM
    };
    let rows: Vec<_> = measured.snapshot.paths.iter().filter(of_it).collect();
    ensure!(rows.len() == 1, "{} rows of {SHM} bytes in /dev/shm/shm", rows.len());
    let volumes = measured.json["volumes"].as_array().context("no volumes")?;
    let volume = volumes.iter().find(|row| row["mount_point"] == rows[0].volume.as_str());
    let volume = volume.with_context(|| format!("no volume of {:?}", rows[0]))?;
    ensure!(volume["fs_type"] == "tmpfs", "{volume}");
    ensure!(volume.to_string().contains(&name), "it does not say whose it is: {volume}");
    Ok(())
}

pub fn the_text_names_it(world: &mut World) -> Result {
    let mount = text(world.volume.path())?;
    let filler = world.measured()?.names.filler.clone();
    let mut snapshot = Command::new(filltop());
    snapshot.args(["snapshot", "--standalone", "--for", "2s", "--volume", &mount]);
    let text = crate::succeed(snapshot.env("COLUMNS", "120"))?;
    let name = world.runtime.called(&filler);
    ensure!(text.contains(&name), "{name} is not in\n{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.contains("/fill")).collect();
    ensure!(lines.iter().any(|line| !line.contains('…')), "the path is cut:\n{text}");
    Ok(())
}
