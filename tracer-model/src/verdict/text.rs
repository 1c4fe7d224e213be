//! The texts of a verdict. Names are escaped, so that none can break its line.

use crate::sanitize::display;
use crate::snapshot::{
    BehalfKind, Culprit, Group, LimitKind, NoSuggestion, OnBehalfOf, Resource, State, Verdict,
    Volume,
};
use crate::units;
use crate::units::Units;

/// Share of the growth from which the first culprit is named without the others.
const SOLE_SHARE: f64 = 0.95;
/// Number of suspects that a sentence names.
const NAMED_SUSPECTS: usize = 2;
const IEC: Units = Units::Iec;

/// A group's name, with its kind if it is a container: `docker web-a`, `nginx.service`.
pub(crate) fn group_name(group: &Group) -> String {
    if group.is_container() {
        format!("{} {}", group.kind, display(&group.name))
    } else {
        display(&group.name).into_owned()
    }
}

/// A process: `cp (pid 41)`.
pub(crate) fn process(comm: &str, pid: u32) -> String {
    format!("{} (pid {pid})", display(comm))
}

/// A rate of bytes, or of inodes as files.
fn rate(per_s: f64, resource: Resource) -> String {
    match resource {
        Resource::Bytes => IEC.rate(per_s),
        Resource::Inodes if per_s >= 10.0 => format!("{per_s:.0} files/s"),
        Resource::Inodes => format!("{per_s:.1} files/s"),
    }
}

/// What a culprit does: `adds 8.0 MiB/s`, `created 240 files/s`.
fn does(culprit: &Culprit, is_past: bool) -> String {
    let verb = match (culprit.resource, is_past) {
        (Resource::Bytes, false) => "adds",
        (Resource::Bytes, true) => "added",
        (Resource::Inodes, false) => "creates",
        (Resource::Inodes, true) => "created",
    };
    format!("{verb} {}", rate(culprit.resource_per_s, culprit.resource))
}

/// The first culprit, with what it does, where, and on whose behalf; `None` without one. `directory`
/// is named instead of the culprit's own if it is given; `mount_point` itself is not worth naming.
/// `limit_to`: the number of culprits that the reader is shown.
pub(crate) fn culprit(
    verdict: &Verdict,
    directory: Option<&str>,
    mount_point: &str,
    limit_to: usize,
) -> Option<String> {
    let first = verdict.culprits.first()?;
    let is_past = verdict.state == State::Full || first.ended;
    let place = directory
        .or(first.directory.as_deref())
        .filter(|dir| *dir != mount_point)
        .map_or_else(String::new, |dir| format!(" in {}", display(dir)));
    let does = does(first, is_past);
    if first.is_group {
        let name =
            first.group.as_ref().map_or_else(|| display(&first.comm).into_owned(), group_name);
        return Some(format!("{name} ({} processes) {does}{place}", first.processes));
    }
    let pid = first.pids.first().copied().unwrap_or(0);
    let own_group = first.writer_group.as_ref().or(first.group.as_ref());
    let group = own_group.map_or_else(String::new, |group| format!(", {}", group_name(group)));
    let ended = if first.ended { ", ended" } else { "" };
    let who = format!("{} (pid {pid}{group}{ended})", display(&first.comm));
    let mut text = match &first.on_behalf_of {
        Some(behalf) if behalf.kind == BehalfKind::ContainerLog => {
            format!("the log of {}, written by {who} {does}{place}", behalf.name)
        }
        Some(behalf) => format!("{who} {does}{place} {}", on_behalf(behalf)),
        None => format!("{who} {does}{place}"),
    };
    let further = verdict.culprits.len().min(limit_to) - 1;
    if further > 0 && first.share < SOLE_SHARE {
        text.push_str(&format!(", and {further} more"));
    }
    Some(text)
}

fn on_behalf(behalf: &OnBehalfOf) -> String {
    let mount = behalf.mount_point.as_deref().map(display).unwrap_or_default();
    match behalf.kind {
        BehalfKind::Fuse => {
            format!("on behalf of {}, through the FUSE filesystem {mount}", behalf.name)
        }
        BehalfKind::LoopDevice => {
            format!("on behalf of {}, through the loop device of {mount}", behalf.name)
        }
        BehalfKind::Log => match behalf.share {
            Some(share) => format!(
                "for programs that log; {} of the last lines name {}",
                units::percent(share),
                behalf.name
            ),
            None => "for programs that log; which one is not known".to_owned(),
        },
        BehalfKind::Nfs
        | BehalfKind::VirtualMachine
        | BehalfKind::Other
        | BehalfKind::ContainerLog => {
            format!("on behalf of {}", behalf.name)
        }
    }
}

/// Says that most of the growth is not explained, and who may be behind it. `part`: how much of how
/// much, if that is known.
pub(crate) fn unexplained(verdict: &Verdict, part: Option<&str>) -> String {
    let mut text = match (part, verdict.unexplained_share) {
        (Some(part), _) => format!("culprit unknown, {part} of growth unexplained"),
        // Otherwise it is known from another time span.
        (None, Some(share)) if share > 0.5 => format!(
            "culprit unknown, {} of growth ({}) unexplained",
            units::percent(share),
            rate(share * verdict.per_s.max(0.0), verdict.resource)
        ),
        (None, _) => "culprit unknown, most of the growth is unexplained".to_owned(),
    };
    let suspects: Vec<String> = verdict
        .suspects
        .iter()
        .take(NAMED_SUSPECTS)
        .map(|one| {
            let gone = if one.gone { ", now gone" } else { "" };
            format!("{} with {}{gone}", process(&one.comm, one.pid), IEC.bytes(one.bytes))
        })
        .collect();
    if !suspects.is_empty() {
        text.push_str(&format!("; files open or mapped there: {}", suspects.join(", ")));
    }
    text
}

/// What runs out: nothing for the available space, ` (inodes)` for another limit.
fn what(limit: LimitKind) -> String {
    match limit {
        LimitKind::Avail => String::new(),
        limit => format!(" ({})", limit.name()),
    }
}

/// The verdict in one sentence, without the name of the volume.
pub(super) fn summary(volume: &Volume, verdict: &Verdict) -> String {
    let state = match verdict.state {
        State::Full if volume.full => format!("FULL{}", what(verdict.limit)),
        State::Full => format!("was full for a moment{}", what(verdict.limit)),
        State::Filling => {
            let when = units::eta_words(false, volume.eta_s, volume.eta_lo_s, volume.eta_hi_s);
            format!("full{} in {when}", what(verdict.limit))
        }
        State::Calm => "not filling".to_owned(),
        State::Unknown => "unknown".to_owned(),
    };
    if verdict.state == State::Calm {
        return state;
    }
    let who = if verdict.mostly_unexplained {
        Some(unexplained(verdict, None))
    } else {
        culprit(verdict, None, &volume.mount_point, crate::snapshot::MAX_CULPRITS)
    };
    match who {
        Some(who) => format!("{state}: {who}"),
        None if verdict.state == State::Full => {
            format!(
                "{state}: nothing was seen growing; it was full before filltop started, or more \
                     than a quarter of an hour ago"
            )
        }
        None => state,
    }
}

/// Why nothing is suggested, as a sentence without a full stop.
pub(super) fn why_no_suggestion(why: NoSuggestion, verdict: &Verdict) -> String {
    let first = verdict.culprits.first();
    let name = first.map_or_else(String::new, |first| match (&first.group, first.is_group) {
        (Some(group), true) => group_name(group),
        _ => process(&first.comm, first.pids.first().copied().unwrap_or(0)),
    });
    // For what is served, the step would be taken against the client.
    let client = first.and_then(|first| first.on_behalf_of.as_ref()).filter(|behalf| {
        matches!(behalf.kind, BehalfKind::Fuse | BehalfKind::LoopDevice)
            && matches!(why, NoSuggestion::Database | NoSuggestion::Ended)
    });
    let name = client.map_or(name, |behalf| behalf.name.clone());
    match why {
        NoSuggestion::NotNeeded => "the volume is not in danger".to_owned(),
        NoSuggestion::Unexplained if !verdict.mostly_unexplained => {
            "nothing was seen growing, so nobody can be blamed".to_owned()
        }
        NoSuggestion::Unexplained => {
            "most of the growth is not explained, so no process can be blamed for it".to_owned()
        }
        NoSuggestion::Ended => format!("{name} has ended"),
        NoSuggestion::Protected => match first.and_then(|first| first.on_behalf_of.as_ref()) {
            Some(behalf) => format!(
                "{name} writes for others ({}), and they all would hang if it were stopped",
                behalf.name
            ),
            None => format!("the machine depends on {name}"),
        },
        NoSuggestion::Database => {
            format!("{name} is a database, or shares its group with one; decide that yourself")
        }
        NoSuggestion::NoTarget => format!("{name} is nothing that can be stopped by itself"),
        NoSuggestion::OnBehalfOfUnknown => {
            format!("{name} writes for others, and it is not known for whom")
        }
        NoSuggestion::Spread => {
            "the growth is spread over many small writers; stopping one would not help".to_owned()
        }
        NoSuggestion::Other => "no safe step is known".to_owned(),
    }
}
