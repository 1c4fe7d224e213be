//! Formats shared by the text output and the live screen.

use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::{
    BlindCause, Group, GroupKind, Held, HeldBy, LimitKind, PathRow, Resident, Snapshot, Volume,
    Writer,
};
use tracer_model::units::Units;
use tracer_model::{sanitize, units};

/// used / total, 0..1; 0 for a volume without a size.
#[must_use]
pub fn used_ratio(volume: &Volume) -> f64 {
    if volume.total_bytes == 0 {
        return 0.0;
    }
    volume.used_bytes as f64 / volume.total_bytes as f64
}

/// The lowest `explained` of all volumes whose used space changed, so that a good one does not hide
/// a bad one.
#[must_use]
pub fn least_explained(snapshot: &Snapshot) -> Option<f64> {
    snapshot.volumes.iter().filter_map(|volume| volume.explained).reduce(f64::min)
}

/// Why a volume is blind, in a few words; empty if it is not.
#[must_use]
pub fn blind_short(volume: &Volume) -> &'static str {
    match volume.blind.map(|blind| blind.cause) {
        None => "",
        Some(BlindCause::NeedsSysAdmin) => "PARTLY BLIND (no CAP_SYS_ADMIN)",
        Some(BlindCause::HooksFailed) => "PARTLY BLIND (hooks failed)",
        Some(BlindCause::Unexplained) => "GROWTH UNEXPLAINED",
    }
}

/// The time to full as `4 min (3–6)`, `FULL` or `-`, with the limit if it is not space; without a
/// forecast, `~4 min at this pace` while it grows.
#[must_use]
pub fn eta_cell(volume: &Volume) -> String {
    eta_fitting(volume, usize::MAX)
}

/// [`eta_cell`] in the longest form that fits into `columns`: the interval is dropped last.
#[must_use]
pub fn eta_fitting(volume: &Volume, columns: usize) -> String {
    let (full, eta) = (volume.full, volume.eta_s);
    if let Some(pace) = pace_only(volume) {
        let short = format!("~{}", units::eta_words(false, Some(pace), None, None));
        let long = format!("{short} at this pace");
        return if sanitize::width(&long) <= columns { long } else { short };
    }
    let (lo, hi) = (volume.eta_lo_s, volume.eta_hi_s);
    let words = units::eta_words(full, eta, lo, hi);
    let limit = match volume.limit {
        LimitKind::Avail => String::new(),
        // Nothing is forecast.
        _ if !full && eta.is_none() => String::new(),
        limit => format!(" {}", limit.name()),
    };
    let short = units::eta_short(full, eta, lo, hi);
    let forms = [format!("{words}{limit}"), format!("{short}{limit}"), short];
    let alone = units::eta_words(full, eta, None, None);
    forms.into_iter().find(|form| sanitize::width(form) <= columns).unwrap_or(alone)
}

/// The time to full at the present pace, seconds, if that is all that is known.
#[must_use]
pub fn pace_only(volume: &Volume) -> Option<f64> {
    volume.pace_s.filter(|_| !volume.full && volume.eta_s.is_none())
}

/// Width of the short form of [`eta_fitting`], interval and limit included.
#[must_use]
pub fn eta_short_width(volume: &Volume) -> usize {
    let (lo, hi) = (volume.eta_lo_s, volume.eta_hi_s);
    if pace_only(volume).is_some() {
        return sanitize::width(&eta_fitting(volume, 0));
    }
    let short = units::eta_short(volume.full, volume.eta_s, lo, hi);
    let limit = match volume.limit {
        LimitKind::Avail => 0,
        limit => sanitize::width(limit.name()) + 1,
    };
    sanitize::width(&short) + limit
}

/// Describes a database whose files are on a volume, and which stops when that is full.
#[must_use]
pub fn resident(row: &Resident, units: Units, charset: Charset) -> String {
    let names = row.databases.join(", ");
    let (kind, name) = (&row.group.kind, display_for(&row.group.name, charset));
    let bytes = units.bytes(row.bytes);
    let files = if row.files == 1 { "file" } else { "files" };
    format!("{names} ({kind} {name}) has data here: {bytes} in {} open {files}", row.files)
}

/// The name of the writer's user, or the uid if it has none.
#[must_use]
pub fn user(writer: &Writer, charset: Charset) -> String {
    writer
        .user
        .as_deref()
        .map_or_else(|| writer.uid.to_string(), |user| display_for(user, charset).into_owned())
}

/// The path of a held file: the host's path, or for a container `NAME:PATH` with the path inside it,
/// as `docker cp` accepts it (most of the host's path is a layer id).
#[must_use]
pub fn held_path(file: &Held, charset: Charset) -> String {
    let container = file.group.as_ref().filter(|group| group.is_container());
    match container.zip(file.path_in_container.as_deref()) {
        Some((group, path)) => {
            format!("{}:{}", display_for(&group.name, charset), display_for(path, charset))
        }
        None => display_for(&file.path, charset).into_owned(),
    }
}

/// What holds a held file, in short: the descriptor's number, or another way.
#[must_use]
pub fn held_through(file: &Held) -> String {
    let way = match (file.held_by, file.fd) {
        (_, Some(fd)) => return fd.to_string(),
        (HeldBy::Descriptor | HeldBy::Mapping, None) => "mmap",
        (HeldBy::LoopDevice, None) => "loop",
        (HeldBy::Swap, None) => "swap",
        (HeldBy::Kernel, None) => "kernel",
        (HeldBy::Socket, None) => "socket",
        (HeldBy::Unknown, None) => units::UNKNOWN,
    };
    way.to_owned()
}

/// The command line without the program's directory, or the kernel's short name in brackets as in
/// `ps`; marked if the process has exited.
#[must_use]
pub fn command(writer: &Writer, charset: Charset) -> String {
    let ended = if writer.alive { "" } else { "(ended) " };
    if let Some(container) = writer.mostly_for() {
        let (whose, comm) = (log_of(container, charset), display_for(&writer.comm, charset));
        let more = match writer.on_behalf_of.len() {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        return format!("{ended}{whose}{more}, by {comm}");
    }
    if let Some(line) = writer.cmdline.as_deref().filter(|_| writer.imports_image()) {
        let program = line.split(' ').next().unwrap_or(line);
        return format!("{ended}image import ({})", display_for(program, charset));
    }
    match writer.cmdline.as_deref().filter(|line| !line.is_empty()) {
        Some(line) => format!("{ended}{}", display_for(without_directory(line), charset)),
        None => format!("{ended}[{}]", display_for(&writer.comm, charset)),
    }
}

/// Names a container's log: `log of web-d (docker)`.
#[must_use]
pub fn log_of(container: &Group, charset: Charset) -> String {
    let name = display_for(&container.name, charset);
    format!("log of {name} ({})", container.kind)
}

/// The settings that limit the size of a container's log.
#[must_use]
pub fn log_cure(container: &Group) -> &'static str {
    match container.kind {
        GroupKind::Pod => "containerLogMaxSize and containerLogMaxFiles in kubelet's configuration",
        GroupKind::Podman => {
            "podman run --log-opt max-size=50m, or log_size_max in containers.conf"
        }
        _ => "docker run --log-opt max-size=50m --log-opt max-file=3, or log-opts in daemon.json",
    }
}

/// The display name of a file: for a file of a container its path inside, `web-a:/data/a.log`; for
/// a container's log the container; for all others the host's path, and what hides it.
#[must_use]
pub fn file(path: &PathRow, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    if let Some(container) = &path.log_of {
        return format!("{}: {}", log_of(container, charset), safe(&path.path));
    }
    match (&path.container, &path.path_in_container, &path.hidden_by) {
        (Some(container), Some(inside), _) => format!("{}:{}", safe(container), safe(inside)),
        (_, _, Some(by)) => {
            format!("{} (hidden by the mount at {})", safe(&path.path), safe(by))
        }
        _ => safe(&path.path),
    }
}

/// The display name of the volume with this mount point.
#[must_use]
pub fn volume(snapshot: &Snapshot, mount_point: &str, charset: Charset) -> String {
    let row = snapshot.volumes.iter().find(|volume| volume.mount_point == mount_point);
    display_for(row.map_or(mount_point, Volume::shown_as), charset).into_owned()
}

/// Shortens `/usr/lib/postgresql/15/bin/postgres -D x` to `postgres -D x`, because users know a
/// program by its name.
fn without_directory(line: &str) -> &str {
    let program = line.split(' ').next().unwrap_or(line);
    match program.rfind('/') {
        Some(at) if program.starts_with('/') && at + 1 < program.len() => &line[at + 1..],
        _ => line,
    }
}
