//! The message of an alert: its one-sentence summary.

use super::blind::unexplained_part;
use super::event::{EventKind, Severity};
use super::rule::{Condition, Rule};
use crate::sanitize::display;
use crate::snapshot::{LimitKind, Safety, Verdict, Victim, Volume};
use crate::units;
use crate::units::Units;
use crate::verdict;
use crate::verdict::text as verdict_text;

/// Maximum number of culprits that an event lists, and its summary counts.
const MAX_CULPRITS: usize = 3;
const IEC: Units = Units::Iec;

/// Escapes a name so that it is safe in a log.
pub(super) fn safe(text: &str) -> String {
    display(text).into_owned()
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
    /// What is concluded for the volume; `None` if it is not mounted.
    pub(super) verdict: Option<&'e Verdict>,
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
        if self.hides_most() {
            let part = volume.blind.and_then(|blind| unexplained_part(&blind, IEC));
            if let Some(verdict) = self.verdict {
                text.push_str(&format!(
                    ": {}",
                    verdict_text::unexplained(verdict, part.as_deref())
                ));
            }
        } else if let Some(culprit) = self.culprit_text() {
            text.push_str(&format!(": {culprit}"));
        }
        if let (Some(names), true) = (self.victims_text(), self.names_victims()) {
            text.push_str(&format!("; {names}"));
        }
        if let Some(command) = self.remedy() {
            text.push_str(&format!("; what helps: {command}"));
        }
        let held = volume.held_bytes.unwrap_or(0);
        if held as f64 >= verdict::SIGNIFICANT_HELD_SHARE * volume.total_bytes as f64
            && self.rule.condition != Condition::Held
        {
            text.push_str(&format!("; {} held by deleted open files", IEC.bytes(held)));
        }
        text.push_str(&format!("; {}", space_left(volume)));
        text
    }

    /// A command that frees space and loses nothing.
    fn remedy(&self) -> Option<&str> {
        let safe = self.verdict?.reclaim.iter().find(|one| one.safety == Safety::Safe)?;
        safe.command.as_deref()
    }

    /// Whether most of the volume's growth cannot be attributed to a visible process.
    fn hides_most(&self) -> bool {
        self.verdict.is_some_and(|verdict| verdict.mostly_unexplained)
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

    /// The culprit, with its rate and directory. A rule's own directory is named already.
    fn culprit_text(&self) -> Option<String> {
        let verdict = self.verdict?;
        let at = match self.rule.condition.directory() {
            Some(_) => Some(self.mount_point),
            None => self.directory,
        };
        verdict_text::culprit(verdict, at, self.mount_point, MAX_CULPRITS)
    }

    fn names_victims(&self) -> bool {
        self.volume.is_some_and(|volume| volume.full || volume.was_full)
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
            .map(|victim| format!("{} ({})", safe(&victim.comm), victim.pid))
            .collect();
        (!names.is_empty()).then(|| format!("affected: {}", names.join(", ")))
    }
}

/// What is full, or when it will be.
fn fullness(mount: &str, volume: &Volume) -> String {
    if volume.full || volume.was_full {
        let limit = match volume.limit {
            LimitKind::Avail => String::new(),
            limit => format!(" ({})", limit.name()),
        };
        let is = if volume.full { "is FULL" } else { "was full for a moment" };
        return format!("{mount} {is}{limit}");
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

fn space_left(volume: &Volume) -> String {
    let for_what = if volume.limit == LimitKind::Metadata { " for data" } else { "" };
    format!("{} left{for_what}", IEC.bytes(volume.avail_bytes))
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
