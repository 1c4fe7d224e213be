//! The entries of the action menu, the target of a row, and the effect of each entry in words.

use tracer_model::action::Action;
use tracer_model::action::request::{Operation, Target};
use tracer_model::sanitize::{Charset, display_for};
use tracer_model::snapshot::Snapshot;
use tracer_model::units::Units;

use super::rows::item::{GroupSum, Item};

/// The entries, from the one that loses nothing to the one that loses most.
///
/// Truncating is not among them: it needs a file.
pub(crate) const ENTRIES: [Operation; 7] = [
    Operation::Act(Action::Freeze),
    Operation::Act(Action::Throttle),
    Operation::Act(Action::Fence),
    Operation::Act(Action::Term),
    Operation::Act(Action::Kill),
    Operation::Act(Action::Unit),
    Operation::Resume,
];

/// The entry `by` places below `entry`, wrapping around.
pub(crate) fn step(entry: Operation, by: i32) -> Operation {
    let at = ENTRIES.iter().position(|&other| other == entry).unwrap_or(0);
    ENTRIES[(at as i32 + by).rem_euclid(ENTRIES.len() as i32) as usize]
}

/// The target of a row; `None` if there is nothing to act on.
pub(crate) fn target_of(snapshot: &Snapshot, groups: &[GroupSum], item: Item) -> Option<Target> {
    match item {
        Item::Writer(i) => Some(Target::of_writer(snapshot.writers.get(i)?)),
        Item::Group(i) => Some(group_target(snapshot, groups.get(i)?)),
        Item::Held(i) => {
            let held = snapshot.held.get(i)?;
            Some(Target::of_process(snapshot, held.pid, &held.comm, Some(held)))
        }
        Item::Victim(i) => {
            let victim = snapshot.victims.get(i)?;
            Some(Target::of_process(snapshot, victim.pid, &victim.comm, None))
        }
        Item::File(i) => {
            let pid = *snapshot.paths.get(i)?.writers.first()?;
            let writer = snapshot.writers.iter().find(|writer| writer.pid == pid)?;
            Some(Target::of_writer(writer))
        }
        Item::Dir(_) => None,
    }
}

fn group_target(snapshot: &Snapshot, group: &GroupSum) -> Target {
    let writers = group.members.iter().filter_map(|i| snapshot.writers.get(*i));
    let fastest = writers.max_by(|a, b| a.growth_bytes_per_s.total_cmp(&b.growth_bytes_per_s));
    Target {
        pid: None,
        start_time: None,
        comm: group.name.clone(),
        cmdline: None,
        group: group.kind.map(|kind| (kind, group.name.clone())),
        cgroup: group.cgroup.clone(),
        volume: fastest.map(|writer| writer.volume.clone()),
        alive: group.alive > 0,
        processes: group.members.len(),
        growth_bytes_per_s: group.growth_bytes_per_s,
        held_bytes: group.held_bytes,
    }
}

/// The effect of an operation on a target, in words.
pub(crate) fn effect(target: &Target, operation: Operation, units: Units) -> String {
    let growth = if target.growth_bytes_per_s > 0.0 {
        format!("stops its growth ({})", units.growth(target.growth_bytes_per_s))
    } else {
        "not growing".to_owned()
    };
    let frees = match target.held_bytes {
        Some(0) => "frees no held space".to_owned(),
        Some(held) => format!("frees {} of held space", units.bytes(held)),
        None => "frees its held space (size unknown)".to_owned(),
    };
    match operation {
        Operation::Act(Action::Freeze) => format!("{growth}, frees nothing, can be undone"),
        Operation::Act(Action::Throttle) => {
            "limits its write rate, frees nothing, can be undone".to_owned()
        }
        Operation::Act(Action::Fence) => {
            "makes its writes to this volume fail, frees nothing, can be undone".to_owned()
        }
        Operation::Act(Action::Term | Action::Kill | Action::Unit) => format!("{growth}, {frees}"),
        Operation::Act(Action::Truncate) => "frees the space of a deleted file".to_owned(),
        Operation::Resume => "undoes freeze, throttle and fence".to_owned(),
    }
}

/// Label and value of each fact that identifies the target, to be read before confirming.
pub(crate) fn identity(target: &Target, charset: Charset) -> Vec<(&'static str, String)> {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut facts = vec![];
    match target.pid {
        Some(pid) => facts.push(("pid", format!("{pid} ({})", safe(&target.comm)))),
        None => facts.push(("processes", target.processes.to_string())),
    }
    if target.pid.is_some() {
        let started = target
            .start_time
            .map_or("unknown".to_owned(), |time| time.strftime("%F %T UTC").to_string());
        facts.push(("started", started));
        let command = target.cmdline.as_deref().map_or("unknown".to_owned(), safe);
        facts.push(("command", command));
    }
    let group = target.group.as_ref();
    let group =
        group.map_or("none known".to_owned(), |(kind, name)| format!("{} ({kind})", safe(name)));
    facts.push(("group", group));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_wraps_around() {
        assert_eq!(step(ENTRIES[0], -1), Operation::Resume);
        assert_eq!(step(Operation::Resume, 1), ENTRIES[0]);
    }
}
