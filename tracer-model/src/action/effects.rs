//! Side effects of freezing a container, beyond its processes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Action, Process};
use crate::snapshot::GroupKind;

/// One side effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Commands that enter the container (`docker exec`, `kubectl exec`, `lxc-attach`) hang or are
    /// refused.
    Exec,
    /// The runtime's health checks fail.
    HealthChecks,
    /// The pod's probes fail; kubelet restarts a container whose liveness probe fails.
    Probes,
    /// The runtime (`docker ps`) still lists the container as running.
    ShownAsRunning,
    /// The runtime's own stop waits for its timeout, then kills the container.
    SlowStop,
}

/// Returns the side effects of an action on these processes. Only a freeze has any, and only if all
/// processes belong to the same kind of container.
#[must_use]
pub fn of(processes: &[Process], how: Action) -> Vec<Effect> {
    let kind = |process: &Process| process.group.as_ref().map(|group| group.kind);
    let kinds: BTreeSet<Option<GroupKind>> = processes.iter().map(kind).collect();
    let mut kinds = kinds.into_iter();
    let (Some(Some(kind)), None, Action::Freeze) = (kinds.next(), kinds.next(), how) else {
        return Vec::new();
    };
    match kind {
        GroupKind::Docker | GroupKind::Podman => {
            vec![Effect::Exec, Effect::HealthChecks, Effect::ShownAsRunning, Effect::SlowStop]
        }
        GroupKind::Containerd | GroupKind::Lxc => {
            vec![Effect::Exec, Effect::ShownAsRunning, Effect::SlowStop]
        }
        GroupKind::Crio | GroupKind::Pod => {
            vec![Effect::Exec, Effect::Probes, Effect::ShownAsRunning]
        }
        _ => Vec::new(),
    }
}
