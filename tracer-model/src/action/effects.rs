//! What else a freeze does to a container, beyond its processes.

use serde::{Deserialize, Serialize};

use super::How;

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

/// Of a step on a group of this kind.
#[must_use]
pub fn of(kind: &str, how: How) -> Vec<Effect> {
    if how != How::Freeze {
        return Vec::new();
    }
    match kind {
        "docker" | "podman" => {
            vec![Effect::Exec, Effect::HealthChecks, Effect::ShownAsRunning, Effect::SlowStop]
        }
        "containerd" | "lxc" => vec![Effect::Exec, Effect::ShownAsRunning, Effect::SlowStop],
        "crio" | "pod" => vec![Effect::Exec, Effect::Probes, Effect::ShownAsRunning],
        _ => Vec::new(),
    }
}
