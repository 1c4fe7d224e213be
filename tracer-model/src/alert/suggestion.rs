//! The action that an alert suggests: the mildest one that stops the growth.

use super::event::Suggestion;
use super::message::{AlertMessage, SIGNIFICANT_HELD_SHARE};
use super::rule::Condition;
use crate::sanitize;
use crate::snapshot::{GroupKind, Snapshot, Writer};

/// Prefixes of names that are never suggested as a target.
const PROTECTED: &[&str] =
    &["systemd", "(sd-pam)", "sshd", "dbus", "init", "containerd", "dockerd"];

/// Returns the mildest action that stops the growth; `None` if no safe one is known.
pub(super) fn suggestion(alert: &AlertMessage<'_>, snapshot: &Snapshot) -> Option<Suggestion> {
    if alert.rule.condition == Condition::Held {
        return terminate_holder(alert, snapshot);
    }
    if alert.hides_most() {
        return None;
    }
    if let Some(group) = alert.dominant_group() {
        // A container's monitor is never a target: it owns the container's terminal and reaps it.
        let excluded = group.group.kind == GroupKind::Monitor
            || is_protected(&group.group.name)
            || has_database(alert, snapshot, &group.group.name);
        return Some(action(group.group.target().filter(|_| !excluded)?, "freeze", 0));
    }
    let first = alert.culprits.first()?;
    if let Some(container) = first.mostly_for() {
        // The runtime's daemon serves all its containers: freeze the one whose log grows.
        let known = container.cgroup.is_some() && !has_database(alert, snapshot, &container.name);
        return Some(action(container.target().filter(|_| known)?, "freeze", 0));
    }
    stop_writer(alert, snapshot, first)
}

/// Suggests to terminate the process that holds the largest deleted file.
fn terminate_holder(alert: &AlertMessage<'_>, snapshot: &Snapshot) -> Option<Suggestion> {
    let here = || snapshot.held.iter().filter(|row| row.volume == alert.mount_point);
    let largest = here().max_by_key(|row| row.bytes)?;
    let frees =
        here().filter(|row| row.holders.as_slice() == [largest.pid]).map(|row| row.bytes).sum();
    let allowed = largest.pid > 1 && !is_protected(&largest.comm) && frees > 0;
    allowed.then(|| action(largest.pid.to_string(), "term", frees))
}

fn stop_writer(
    alert: &AlertMessage<'_>,
    snapshot: &Snapshot,
    writer: &Writer,
) -> Option<Suggestion> {
    let group = writer.group.as_ref().map_or("", |group| group.name.as_str());
    // A kernel thread cannot be acted on: it writes on behalf of others (a loop device, say).
    let is_kernel_thread = writer.parents.iter().any(|parent| parent.comm == "kthreadd");
    if writer.pid <= 1
        || is_kernel_thread
        || !writer.alive
        || is_protected(&writer.comm)
        || has_database(alert, snapshot, group)
    {
        return None;
    }
    let held = writer.held_bytes.unwrap_or(0);
    let total = alert.volume.map_or(0, |volume| volume.total_bytes);
    Some(if held > 0 && held as f64 >= SIGNIFICANT_HELD_SHARE * total as f64 {
        action(writer.pid.to_string(), "term", held)
    } else {
        action(writer.pid.to_string(), "freeze", 0)
    })
}

fn action(target: String, how: &str, frees_bytes: u64) -> Suggestion {
    let command = format!("filltop stop {} --how {how}", sanitize::shell_word(&target));
    Suggestion { target, how: how.to_owned(), frees_bytes, command }
}

fn is_protected(name: &str) -> bool {
    PROTECTED.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a group has a database on the volume.
fn has_database(alert: &AlertMessage<'_>, snapshot: &Snapshot, group: &str) -> bool {
    snapshot.residents.iter().any(|row| {
        row.volume == alert.mount_point && row.group.name == group && !row.databases.is_empty()
    })
}
