//! The message of an alert: its one-sentence summary.

use super::blind::unexplained_part;
use super::culprits::GroupCulprit;
use super::event::{EventKind, Severity};
use super::rule::{Condition, Rule};
use crate::sanitize::display;
use crate::snapshot::{Blind, Group, LimitKind, Snapshot, Victim, Volume, Writer};
use crate::units;
use crate::units::Units;

/// Share of a volume's growth from which a group of several processes is named as the culprit
/// instead of its largest process.
const DOMINANT_SHARE: f64 = 0.5;
/// Share of the growth from which the first culprit is named without the others.
const SOLE_SHARE: f64 = 0.95;
/// Share of the volume from which space held by deleted files is mentioned, and justifies
/// terminating the process that holds it.
pub(super) const SIGNIFICANT_HELD_SHARE: f64 = 0.05;
const IEC: Units = Units::Iec;

/// Escapes a name so that it is safe in a log.
pub(super) fn safe(text: &str) -> String {
    display(text).into_owned()
}

/// The directory that the group writes most to, else the fastest growing one of the volume.
pub(super) fn fastest_growing(
    snapshot: &Snapshot,
    mount_point: &str,
    group: Option<&GroupCulprit>,
) -> Option<String> {
    let fastest = || {
        let here = snapshot.dirs.iter().filter(|dir| dir.volume == mount_point && dir.hot);
        let most = here.max_by(|a, b| a.inflow_bytes_per_s.total_cmp(&b.inflow_bytes_per_s))?;
        (most.inflow_bytes_per_s > 0.0).then(|| most.path.clone())
    };
    group.and_then(|group| group.directory.clone()).or_else(fastest)
}

/// What the summary of an alert and its suggestion are made of.
pub(super) struct AlertMessage<'e> {
    pub(super) rule: &'e Rule,
    pub(super) kind: EventKind,
    /// Whether the severity was higher before.
    pub(super) eased: bool,
    pub(super) severity: Severity,
    pub(super) value: f64,
    pub(super) mount_point: &'e str,
    /// `None` if it is no longer mounted.
    pub(super) volume: Option<&'e Volume>,
    /// For a rate rule, the name of the process or group.
    pub(super) writer: Option<&'e str>,
    pub(super) directory: Option<&'e str>,
    pub(super) culprits: &'e [Writer],
    /// The first culprit's share of all growth, 0..1.
    pub(super) first_share: f64,
    pub(super) group: Option<&'e GroupCulprit>,
    pub(super) victims: &'e [Victim],
}

impl AlertMessage<'_> {
    /// The summary, one sentence: the problem, the culprit, the directory, the rate, and the space
    /// left.
    pub(super) fn summary(&self) -> String {
        let mount = safe(self.mount_point);
        let Some(volume) = self.volume else { return format!("{mount} is no longer mounted") };
        if self.kind == EventKind::Resolved {
            return format!("{}; {}", self.recovery(&mount, volume), space_left(volume));
        }
        let start = if self.eased { "less urgent now: " } else { "" };
        let mut text = format!("{start}{}", self.problem(&mount, volume));
        match volume.blind.filter(Blind::hides_most) {
            Some(blind) => {
                let part = unexplained_part(&blind, IEC).unwrap_or_default();
                text.push_str(&format!(": culprit unknown, {part} of growth unexplained"));
            }
            None => {
                if let Some(culprit) = self.culprit_text() {
                    text.push_str(&format!(": {culprit}"));
                }
            }
        }
        if let (Some(names), true) = (self.victims_text(), self.names_victims()) {
            text.push_str(&format!("; {names}"));
        }
        let held = volume.held_bytes.unwrap_or(0);
        if held as f64 >= SIGNIFICANT_HELD_SHARE * volume.total_bytes as f64
            && self.rule.condition != Condition::Held
        {
            text.push_str(&format!("; {} held by deleted open files", IEC.bytes(held)));
        }
        text.push_str(&format!("; {}", space_left(volume)));
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

    fn problem(&self, mount: &str, volume: &Volume) -> String {
        let value = self.value;
        match &self.rule.condition {
            Condition::TimeToFull | Condition::Full => fullness(mount, volume),
            Condition::UsedRatio => format!("{mount} is {} used", units::percent(value)),
            Condition::UsedBytes => format!("{mount} has {} in use", bytes(value)),
            Condition::AvailRatio { shrinking } | Condition::AvailBytes { shrinking } => {
                let part = volume.avail_bytes as f64 / volume.total_bytes.max(1) as f64;
                let trend = if *shrinking || volume.eta_s.is_some() {
                    "is nearly full and still filling"
                } else {
                    "is nearly full, but not growing"
                };
                format!("{mount} {trend}, {} available", units::percent(part))
            }
            Condition::InodesRatio => format!(
                "{mount} has used {} of its inodes ({} left)",
                units::percent(value),
                volume.inodes_free
            ),
            Condition::Growth => format!("{mount} is growing by {}", IEC.rate(value)),
            Condition::Held => format!("{mount} has {} held by deleted open files", bytes(value)),
            Condition::NoSpaceErrors => format!("writes to {mount} fail for lack of space"),
            Condition::WriteErrors => format!("writes to {mount} fail"),
            Condition::FsyncWait => format!("an fsync on {mount} took {}", seconds(value)),
            Condition::Refill => {
                let freed = volume.refill.map_or(0, |refill| refill.freed_bytes);
                format!(
                    "{} freed on {mount} was used up again within {}",
                    IEC.bytes(freed),
                    units::duration(value)
                )
            }
            Condition::DirSize { .. } | Condition::DirGrowth { .. } | Condition::Drain { .. } => {
                self.directory_problem()
            }
            Condition::WriterRate { .. } | Condition::GroupRate { .. } => {
                let writer = self.writer.map(safe).unwrap_or_default();
                format!("{writer} writes {} to {mount}", IEC.rate(value))
            }
        }
    }

    fn directory_problem(&self) -> String {
        let dir = self.directory.map(safe).unwrap_or_default();
        let (value, limit) = (bytes(self.value), bytes(self.threshold()));
        match &self.rule.condition {
            Condition::DirGrowth { per_s, .. } => {
                let period = units::duration(*per_s);
                format!("{dir} grew by {value} within {period}, over its limit of {limit}")
            }
            Condition::Drain { .. } => {
                let drained = units::percent(self.value);
                format!("{dir} fills faster than it drains ({drained} of the inflow is freed)")
            }
            _ => format!("{dir} holds {value}, over its limit of {limit}"),
        }
    }

    fn recovery(&self, mount: &str, volume: &Volume) -> String {
        let dir = self.directory.map(safe).unwrap_or_default();
        match &self.rule.condition {
            Condition::Full => format!("{mount} is no longer full"),
            Condition::TimeToFull => match volume.eta_s {
                None => format!("{mount} is no longer filling"),
                Some(eta) => format!("{mount} will not be full for {}", units::duration(eta)),
            },
            Condition::NoSpaceErrors | Condition::WriteErrors => {
                format!("writes to {mount} work again")
            }
            Condition::DirSize { .. } | Condition::DirGrowth { .. } | Condition::Drain { .. } => {
                format!("{dir} is within its limit again")
            }
            Condition::WriterRate { .. } | Condition::GroupRate { .. } => {
                let writer = self.writer.map(safe).unwrap_or_default();
                format!("{writer} writes to {mount} below its limit again")
            }
            _ => format!("{} resolved on {mount}", self.rule.name),
        }
    }

    /// The group, if it is the culprit rather than its largest process.
    pub(super) fn dominant_group(&self) -> Option<&GroupCulprit> {
        self.group.filter(|group| {
            group.processes > 1
                && group.share >= DOMINANT_SHARE
                && self.first_share < DOMINANT_SHARE
        })
    }

    /// The culprit, with its rate and directory.
    fn culprit_text(&self) -> Option<String> {
        let place = || match self.directory {
            Some(dir) if self.rule.condition.directory().is_none() && dir != self.mount_point => {
                format!(" in {}", safe(dir))
            }
            _ => String::new(),
        };
        let is_full = self.volume.is_some_and(|volume| volume.full);
        let grows = |rate: f64, is_past: bool| {
            let does = if is_full || is_past { "added" } else { "adds" };
            format!("{does} {}{}", IEC.rate(rate), place())
        };
        if let Some(group) = self.dominant_group() {
            return Some(format!(
                "{} ({} processes) {}",
                group_name(&group.group),
                group.processes,
                grows(group.growth_bytes_per_s, false)
            ));
        }
        let first = self.culprits.first()?;
        let ended = if first.alive { "" } else { ", ended" };
        let group =
            first.group.as_ref().map_or_else(String::new, |g| format!(", {}", group_name(g)));
        let log_of = first.mostly_for().map_or_else(String::new, |container| {
            format!("the log of {}, written by ", group_name(container))
        });
        let mut text = format!(
            "{log_of}{} (pid {}{group}{ended}) {}",
            safe(&first.comm),
            first.pid,
            grows(first.growth_bytes_per_s, !first.alive)
        );
        match self.culprits.len() {
            0 | 1 => {}
            _ if self.first_share >= SOLE_SHARE => {}
            n => text.push_str(&format!(", and {} more", n - 1)),
        }
        Some(text)
    }

    fn names_victims(&self) -> bool {
        self.volume.is_some_and(|volume| volume.full)
            || matches!(
                self.rule.condition,
                Condition::NoSpaceErrors
                    | Condition::WriteErrors
                    | Condition::FsyncWait
                    | Condition::Full
            )
    }

    fn victims_text(&self) -> Option<String> {
        let names: Vec<String> = self
            .victims
            .iter()
            .filter(|victim| self.culprits.first().is_none_or(|first| first.pid != victim.pid))
            .map(|victim| format!("{} ({})", safe(&victim.comm), victim.pid))
            .collect();
        (!names.is_empty()).then(|| format!("affected: {}", names.join(", ")))
    }
}

/// What is full, or when it will be.
fn fullness(mount: &str, volume: &Volume) -> String {
    if volume.full {
        let limit = match volume.limit {
            LimitKind::Avail => String::new(),
            limit => format!(" ({})", limit.name()),
        };
        return format!("{mount} is FULL{limit}");
    }
    let when = units::eta_words(false, volume.eta_s, volume.eta_lo_s, volume.eta_hi_s);
    match (volume.eta_s, volume.limit) {
        // Between the end of an estimate and the end of its alert.
        (None, _) => format!("{mount} has stopped filling for now"),
        (Some(_), LimitKind::Avail) => format!("{mount} will be full in {when}"),
        (Some(_), limit) => format!("{mount} will run out of {} in {when}", limit.name()),
    }
}

/// A size of a rule's value, which may be negative, as text.
fn bytes(value: f64) -> String {
    IEC.bytes(value.max(0.0) as u64)
}

/// A group's name, with its kind if it is a container: `docker web-a`, `nginx.service`.
fn group_name(group: &Group) -> String {
    if group.is_container() {
        format!("{} {}", group.kind, safe(&group.name))
    } else {
        safe(&group.name)
    }
}

fn space_left(volume: &Volume) -> String {
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
