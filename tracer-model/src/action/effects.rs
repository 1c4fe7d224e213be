//! Side effects of freezing a container, beyond its processes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{How, Process};

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
pub fn of(processes: &[Process], how: How) -> Vec<Effect> {
    let kind = |process: &Process| process.group.as_ref().map(|group| group.kind.clone());
    let kinds: BTreeSet<Option<String>> = processes.iter().map(kind).collect();
    let mut kinds = kinds.into_iter();
    let (Some(Some(kind)), None, How::Freeze) = (kinds.next(), kinds.next(), how) else {
        return Vec::new();
    };
    match kind.as_str() {
        "docker" | "podman" => {
            vec![Effect::Exec, Effect::HealthChecks, Effect::ShownAsRunning, Effect::SlowStop]
        }
        "containerd" | "lxc" => vec![Effect::Exec, Effect::ShownAsRunning, Effect::SlowStop],
        "crio" | "pod" => vec![Effect::Exec, Effect::Probes, Effect::ShownAsRunning],
        _ => Vec::new(),
    }
}
