//! The message of an alert: its one-sentence summary, and the suggested action.

use super::blind::unexplained;
use super::culprits::GroupBlame;
use super::event::{EventKind, Severity, Suggestion};
use super::rule::{Rule, When};
use crate::sanitize::display;
use crate::snapshot::{Blind, Group, GroupKind, Snapshot, Victim, Volume, Writer};
use crate::units::Units;
use crate::{sanitize, units};

/// Share of a volume's growth from which a group of several processes is named as the culprit
/// instead of its largest process.
const MOST: f64 = 0.5;
/// Share of the volume from which space that a culprit holds in deleted files justifies terminating
/// it.
const WORTH_ENDING: f64 = 0.05;
/// Prefixes of names that are never suggested as a target.
const PROTECTED: &[&str] =
    &["systemd", "(sd-pam)", "sshd", "dbus", "init", "containerd", "dockerd"];
const IEC: Units = Units::Iec;

/// Escapes a name so that it is safe in a log.
pub(super) fn safe(text: &str) -> String {
    display(text).into_owned()
}

/// The directory that the group writes most to, else the fastest growing one of the volume.
pub(super) fn where_it_grows(
    snapshot: &Snapshot,
    mount_point: &str,
    group: Option<&GroupBlame>,
) -> Option<String> {
    let hottest = || {
        let here = snapshot.dirs.iter().filter(|dir| dir.volume == mount_point && dir.hot);
        let most = here.max_by(|a, b| a.inflow_bytes_per_s.total_cmp(&b.inflow_bytes_per_s))?;
        (most.inflow_bytes_per_s > 0.0).then(|| most.path.clone())
    };
    group.and_then(|group| group.directory.clone()).or_else(hottest)
}

/// An alert message: everything that the summary and the suggestion are made of.
pub(super) struct Told<'e> {
    pub(super) rule: &'e Rule,
    pub(super) kind: EventKind,
    /// The severity was higher before.
    pub(super) eased: bool,
    pub(super) severity: Severity,
    pub(super) value: f64,
    pub(super) mount_point: &'e str,
    /// `None` if it is no longer mounted.
    pub(super) volume: Option<&'e Volume>,
    pub(super) who: Option<&'e str>,
    pub(super) directory: Option<&'e str>,
    pub(super) culprits: &'e [Writer],
    /// The first culprit's share of all growth, 0..1.
    pub(super) first_share: f64,
    pub(super) group: Option<&'e GroupBlame>,
    pub(super) victims: &'e [Victim],
}

impl Told<'_> {
    /// The summary, one sentence: the problem, the culprit, the directory, the rate, and the space
    /// left.
    pub(super) fn summary(&self) -> String {
        let mount = safe(self.mount_point);
        let Some(volume) = self.volume else { return format!("{mount} is no longer mounted") };
        if self.kind == EventKind::Resolved {
            return format!("{}; {}", self.over(&mount, volume), left(volume));
        }
        let start = if self.eased { "less urgent now: " } else { "" };
        let mut text = format!("{start}{}", self.what(&mount, volume));
        match volume.blind.filter(Blind::hides_most) {
            Some(blind) => {
                let part = unexplained(&blind, IEC).unwrap_or_default();
                text.push_str(&format!(": culprit unknown, {part} of growth unexplained"));
            }
            None => {
                if let Some(who) = self.blamed() {
                    text.push_str(&format!(": {who}"));
                }
            }
        }
        if let (Some(names), true) = (self.sufferers(), self.names_sufferers()) {
            text.push_str(&format!("; {names}"));
        }
        let held = volume.held_bytes.unwrap_or(0);
        if held as f64 >= WORTH_ENDING * volume.total_bytes as f64 && self.rule.when != When::Held {
            text.push_str(&format!("; {} held by deleted open files", IEC.bytes(held)));
        }
        text.push_str(&format!("; {}", left(volume)));
        text
    }

    /// Whether most of the volume's growth cannot be attributed to a visible process.
    pub(super) fn hides_most(&self) -> bool {
        self.volume.and_then(|volume| volume.blind).is_some_and(|blind| blind.hides_most())
    }

    fn threshold(&self) -> f64 {
        let wanted = match self.severity {
            Severity::Warning => self.rule.warning,
            Severity::Critical => self.rule.critical,
        };
        wanted.or(self.rule.warning).or(self.rule.critical).unwrap_or(0.0)
    }

    fn what(&self, mount: &str, volume: &Volume) -> String {
        let value = self.value;
        let bytes = |value: f64| IEC.bytes(value.max(0.0) as u64);
        let dir = self.directory.map(safe).unwrap_or_default();
        let who = self.who.map(safe).unwrap_or_default();
        match &self.rule.when {
            When::TimeToFull | When::Full if volume.full => {
                let limit = if volume.limit == "avail" {
                    String::new()
                } else {
                    format!(" ({})", safe(&volume.limit))
                };
                format!("{mount} is FULL{limit}")
            }
            When::TimeToFull | When::Full => {
                let (lo, hi) = (volume.eta_lo_s, volume.eta_hi_s);
                let when = units::eta_words(false, volume.eta_s, lo, hi);
                match (volume.eta_s, volume.limit.as_str()) {
                    // Between the end of an estimate and the end of its alert.
                    (None, _) => format!("{mount} has stopped filling for now"),
                    (Some(_), "avail") => format!("{mount} will be full in {when}"),
                    (Some(_), limit) => {
                        format!("{mount} will run out of {} in {when}", safe(limit))
                    }
                }
            }
            When::UsedRatio => format!("{mount} is {} used", units::percent(value)),
            When::UsedBytes => format!("{mount} has {} in use", bytes(value)),
            When::AvailRatio { .. } | When::AvailBytes { .. } => {
                let part = volume.avail_bytes as f64 / volume.total_bytes.max(1) as f64;
                let moves = match self.rule.when {
                    When::AvailRatio { shrinking: true } | When::AvailBytes { shrinking: true } => {
                        "is nearly full and still filling"
                    }
                    _ if volume.eta_s.is_some() => "is nearly full and still filling",
                    _ => "is nearly full, but not growing",
                };
                format!("{mount} {moves}, {} available", units::percent(part))
            }
            When::InodesRatio => format!(
                "{mount} has used {} of its inodes ({} left)",
                units::percent(value),
                volume.inodes_free
            ),
            When::Growth => format!("{mount} is growing by {}", IEC.rate(value)),
            When::Held => format!("{mount} has {} held by deleted open files", bytes(value)),
            When::NoSpaceErrors => format!("writes to {mount} fail for lack of space"),
            When::WriteErrors => format!("writes to {mount} fail"),
            When::FsyncWait => format!("an fsync on {mount} took {}", seconds(value)),
            When::Refill => {
                let freed = volume.refill.map_or(0, |refill| refill.freed_bytes);
                format!(
                    "{} freed on {mount} was used up again within {}",
                    IEC.bytes(freed),
                    units::duration(value)
                )
            }
            When::DirSize { .. } => {
                let limit = bytes(self.threshold());
                format!("{dir} holds {}, over its limit of {limit}", bytes(value))
            }
            When::DirGrowth { per_s, .. } => format!(
                "{dir} grew by {} within {}, over its limit of {}",
                bytes(value),
                units::duration(*per_s),
                bytes(self.threshold())
            ),
            When::Drain { .. } => {
                format!(
                    "{dir} fills faster than it drains ({} of the inflow is freed)",
                    units::percent(value)
                )
            }
            When::WriterRate { .. } | When::GroupRate { .. } => {
                format!("{who} writes {} to {mount}", IEC.rate(value))
            }
        }
    }

    fn over(&self, mount: &str, volume: &Volume) -> String {
        let dir = self.directory.map(safe).unwrap_or_default();
        match &self.rule.when {
            When::Full => format!("{mount} is no longer full"),
            When::TimeToFull => match volume.eta_s {
                None => format!("{mount} is no longer filling"),
                Some(eta) => format!("{mount} will not be full for {}", units::duration(eta)),
            },
            When::NoSpaceErrors | When::WriteErrors => format!("writes to {mount} work again"),
            When::DirSize { .. } | When::DirGrowth { .. } | When::Drain { .. } => {
                format!("{dir} is within its limit again")
            }
            When::WriterRate { .. } | When::GroupRate { .. } => {
                let who = self.who.map(safe).unwrap_or_default();
                format!("{who} writes to {mount} below its limit again")
            }
            _ => format!("{} resolved on {mount}", self.rule.name),
        }
    }

    /// The group, if it is the culprit rather than its largest process.
    fn as_group(&self) -> Option<&GroupBlame> {
        self.group
            .filter(|group| group.processes > 1 && group.share >= MOST && self.first_share < MOST)
    }

    /// The culprit, with its rate and directory.
    fn blamed(&self) -> Option<String> {
        let place = || match self.directory {
            Some(dir) if self.rule.when.directory().is_none() && dir != self.mount_point => {
                format!(" in {}", safe(dir))
            }
            _ => String::new(),
        };
        let is_full = self.volume.is_some_and(|volume| volume.full);
        let grows = |rate: f64, is_past: bool| {
            let does = if is_full || is_past { "added" } else { "adds" };
            format!("{does} {}{}", IEC.rate(rate), place())
        };
        if let Some(group) = self.as_group() {
            return Some(format!(
                "{} ({} processes) {}",
                called(&group.group),
                group.processes,
                grows(group.growth_bytes_per_s, false)
            ));
        }
        let first = self.culprits.first()?;
        let ended = if first.alive { "" } else { ", ended" };
        let group = first.group.as_ref().map_or_else(String::new, |g| format!(", {}", called(g)));
        let log_of = first.mostly_for().map_or_else(String::new, |container| {
            format!("the log of {}, written by ", called(container))
        });
        let mut text = format!(
            "{log_of}{} (pid {}{group}{ended}) {}",
            safe(&first.comm),
            first.pid,
            grows(first.growth_bytes_per_s, !first.alive)
        );
        match self.culprits.len() {
            0 | 1 => {}
            _ if self.first_share >= 1.0 - WORTH_ENDING => {}
            n => text.push_str(&format!(", and {} more", n - 1)),
        }
        Some(text)
    }

    fn names_sufferers(&self) -> bool {
        self.volume.is_some_and(|volume| volume.full)
            || matches!(
                self.rule.when,
                When::NoSpaceErrors | When::WriteErrors | When::FsyncWait | When::Full
            )
    }

    fn sufferers(&self) -> Option<String> {
        let names: Vec<String> = self
            .victims
            .iter()
            .filter(|victim| self.culprits.first().is_none_or(|first| first.pid != victim.pid))
            .map(|victim| format!("{} ({})", safe(&victim.comm), victim.pid))
            .collect();
        (!names.is_empty()).then(|| format!("affected: {}", names.join(", ")))
    }

    /// The mildest action that stops the growth; `None` if no safe one is known.
    pub(super) fn suggestion(&self, snapshot: &Snapshot) -> Option<Suggestion> {
        let is_protected = |comm: &str| PROTECTED.iter().any(|name| comm.starts_with(name));
        let is_database = |group: &str| {
            snapshot.residents.iter().any(|row| {
                row.volume == self.mount_point
                    && row.group.name == group
                    && !row.databases.is_empty()
            })
        };
        let make = |target: String, how: &str, frees_bytes: u64| {
            let command = format!("filltop stop {} --how {how}", sanitize::shell_word(&target));
            Suggestion { target, how: how.to_owned(), frees_bytes, command }
        };
        if self.hides_most() && self.rule.when != When::Held {
            return None;
        }
        if self.rule.when == When::Held {
            let mine = snapshot.held.iter().filter(|row| row.volume == self.mount_point);
            let largest = mine.max_by_key(|row| row.bytes)?;
            let all = snapshot.held.iter().filter(|row| {
                row.volume == self.mount_point && row.holders.as_slice() == [largest.pid]
            });
            let frees = all.map(|row| row.bytes).sum();
            let ours = largest.pid > 1 && !is_protected(&largest.comm) && frees > 0;
            return ours.then(|| make(largest.pid.to_string(), "term", frees));
        }
        if let Some(group) = self.as_group() {
            // A container's monitor is never a target: it owns the container's terminal and reaps it.
            let spared = group.group.kind == GroupKind::Monitor
                || is_protected(&group.group.name)
                || is_database(&group.group.name);
            let target = group.group.target().filter(|_| !spared)?;
            return Some(make(target, "freeze", 0));
        }
        let first = self.culprits.first()?;
        if let Some(container) = first.mostly_for() {
            // The runtime's daemon serves all its containers: freeze the one whose log grows.
            let known = container.cgroup.is_some() && !is_database(&container.name);
            return Some(make(container.target().filter(|_| known)?, "freeze", 0));
        }
        let group = first.group.as_ref().map_or("", |group| group.name.as_str());
        // A kernel thread cannot be acted on: it writes on behalf of others (a loop device, say).
        let of_kernel = first.parents.iter().any(|parent| parent.comm == "kthreadd");
        if first.pid <= 1
            || of_kernel
            || !first.alive
            || is_protected(&first.comm)
            || is_database(group)
        {
            return None;
        }
        let held = first.held_bytes.unwrap_or(0);
        let total = self.volume.map_or(0, |volume| volume.total_bytes);
        let worth = held > 0 && held as f64 >= WORTH_ENDING * total as f64;
        Some(if worth {
            make(first.pid.to_string(), "term", held)
        } else {
            make(first.pid.to_string(), "freeze", 0)
        })
    }
}

/// A group's name, with its kind if it is a container: `docker web-a`, `nginx.service`.
fn called(group: &Group) -> String {
    if group.is_container() {
        format!("{} {}", group.kind, safe(&group.name))
    } else {
        safe(&group.name)
    }
}

fn left(volume: &Volume) -> String {
    format!("{} left", IEC.bytes(volume.avail_bytes))
}

/// A time in seconds as `1.8 s`, `350 ms` or `2 min`.
fn seconds(value: f64) -> String {
    if value < 1.0 {
        format!("{:.0} ms", value * 1000.0)
    } else if value < 60.0 {
        format!("{value:.1} s")
    } else {
        units::duration(value)
    }
}
