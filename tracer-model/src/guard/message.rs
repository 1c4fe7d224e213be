//! The guard's explanations.

use super::shares::Candidate;
use super::{GuardConfig, Spared};
use crate::action::Action;
use crate::snapshot::{Group, Volume};
use crate::units::{Units, duration};

/// Names that an explanation spares one by one.
const MAX_SPARED: usize = 4;

/// `unit web.service`; a plain cgroup's kind says nothing.
pub(super) fn group(group: &Group) -> String {
    format!("{} {}", group.kind, group.name)
}

/// How the volume stands.
fn state(volume: &Volume) -> String {
    match volume.eta_s {
        _ if volume.full => format!("{} is full", volume.mount_point),
        Some(eta) => format!("{} will be full in {}", volume.mount_point, duration(eta)),
        None => format!("{} is not filling now", volume.mount_point),
    }
}

/// Why it is the culprit.
pub(super) fn chosen(culprit: &Candidate, volume: &Volume, config: &GuardConfig) -> String {
    format!(
        "{}, and {:.0} % of its growth over {} s ({}) is its ({:.0} % are enough)",
        state(volume),
        culprit.share * 100.0,
        culprit.span_s.round(),
        Units::default().growth(culprit.growth_bytes_per_s),
        config.share * 100.0,
    )
}

/// Why the next step is taken.
pub(super) fn next_step(earlier: Action, waited_s: f64, volume: &Volume) -> String {
    let waited = duration(waited_s);
    match earlier {
        Action::Freeze => format!("it was frozen {waited} ago and nobody has come since"),
        _ => format!("{} was not enough within {waited}: {}", earlier.name(), state(volume)),
    }
}

/// The whole.
pub(super) fn explanation(
    step: Option<Action>,
    culprit: &Candidate,
    because: &str,
    spared: &[Spared],
    config: &GuardConfig,
) -> String {
    let name = group(&culprit.group);
    let mut text = match step {
        Some(step) if config.dry_run => {
            format!(
                "would {} {name} (dry run: nothing is done): chosen because {because}",
                step.name()
            )
        }
        Some(step) => format!("{} {name}: chosen because {because}", step.name()),
        None => format!("guard: {because}"),
    };
    for Spared { group, reason } in spared.iter().take(MAX_SPARED) {
        text.push_str(&format!("; not {group} because {reason}"));
    }
    let more = spared.len().saturating_sub(MAX_SPARED);
    if more > 0 {
        text.push_str(&format!("; nor {more} more"));
    }
    text
}
