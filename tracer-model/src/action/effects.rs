//! What else a freeze does to a container, beyond its processes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Action, Process};
use crate::snapshot::GroupKind;

/// One effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Commands that enter it (`docker exec`, `kubectl exec`, `lxc-attach`) hang or are refused.
    Exec,
    /// The runtime's health checks fail.
    HealthChecks,
    /// A pod's probes fail; kubelet restarts a container whose liveness probe does.
    Probes,
    /// The runtime's list (`docker ps`) still shows it as running.
    ShownAsRunning,
    /// Its runtime's own stop waits for the end of its patience, then kills.
    SlowStop,
}

/// Of a step on these processes: of a freeze, if all of them are of one kind of container.
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
