//! The text of the guard's explanations.

use super::config::GuardConfig;
use super::decision::Excluded;
use super::shares::Candidate;
use crate::action::Action;
use crate::snapshot::{Group, Resource, Volume};
use crate::units::{Units, duration};

/// Maximum number of excluded groups that an explanation names.
const MAX_EXCLUDED: usize = 4;

/// Returns kind and name of a group, e.g. `unit web.service`.
pub(super) fn group(group: &Group) -> String {
    format!("{} {}", group.kind, group.name)
}

/// Describes the state of the volume.
fn state(volume: &Volume) -> String {
    match volume.eta_s {
        _ if volume.full => format!("{} is full", volume.mount_point),
        Some(eta) => format!("{} will be full in {}", volume.mount_point, duration(eta)),
        None => format!("{} is not filling at the moment", volume.mount_point),
    }
}

/// Explains why the group is the culprit.
pub(super) fn chosen(culprit: &Candidate, volume: &Volume, config: &GuardConfig) -> String {
    format!(
        "{}, and this group caused {:.0} % of the growth over {} s ({}; threshold {:.0} %)",
        state(volume),
        culprit.share * 100.0,
        culprit.span_s.round(),
        match culprit.resource {
            Resource::Bytes => Units::default().growth(culprit.growth_bytes_per_s),
            Resource::Inodes => format!("{:.0} files/s", culprit.growth_bytes_per_s),
        },
        config.share * 100.0,
    )
}

/// Explains why the next step of the ladder is taken.
pub(super) fn next_step(earlier: Action, waited_s: f64, volume: &Volume) -> String {
    let waited = duration(waited_s);
    match earlier {
        Action::Freeze => format!("it was frozen {waited} ago and no operator has intervened"),
        _ => format!("{} was not enough after {waited}: {}", earlier.name(), state(volume)),
    }
}

/// Returns the whole explanation: the action, its reason, and why other groups were not chosen.
pub(super) fn explanation(
    step: Option<Action>,
    culprit: &Candidate,
    because: &str,
    excluded: &[Excluded],
    config: &GuardConfig,
) -> String {
    let name = group(&culprit.group);
    let mut text = match step {
        Some(step) if config.dry_run => {
            format!("would {} {name} (dry run): chosen because {because}", step.name())
        }
        Some(step) => format!("{} {name}: chosen because {because}", step.name()),
        None => format!("guard: {because}"),
    };
    for Excluded { group, reason } in excluded.iter().take(MAX_EXCLUDED) {
        text.push_str(&format!("; not {group} because {reason}"));
    }
    let more = excluded.len().saturating_sub(MAX_EXCLUDED);
    if more > 0 {
        text.push_str(&format!("; nor {more} {}", if more == 1 { "other" } else { "others" }));
    }
    text
}
