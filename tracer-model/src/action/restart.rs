//! Which service manager restarts a target after it was terminated, and whether it will.

use serde::{Deserialize, Serialize};

use super::Action;

/// A program that restarts units, containers or pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// dockerd, by the container's `--restart`.
    Docker,
    /// podman, by the container's `--restart`.
    Podman,
    /// systemd, by the unit's `Restart=`.
    Systemd,
    /// kubelet, by the pod's `restartPolicy`.
    Kubelet,
}

impl Manager {
    /// Returns the word used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Systemd => "systemd",
            Self::Kubelet => "kubelet",
        }
    }
}

/// The restart policy of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The manager that applies the policy.
    pub by: Manager,
    /// The manager's own word, e.g. `always`, `on-failure`; `None` if it cannot be read here.
    pub policy: Option<String>,
}

/// What a policy means for one action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The manager that would restart the target.
    pub by: Manager,
    /// The policy in the manager's own word; `None` if unknown.
    pub policy: Option<String>,
    /// Whether the target will be restarted; `None` if that cannot be determined in advance.
    pub returns: Option<bool>,
}

impl RestartPolicy {
    /// Returns what the policy means for an action; `None` for actions that terminate nothing, and
    /// for `unit`, which no manager treats as a failure.
    #[must_use]
    pub fn after(&self, how: Action) -> Option<Restart> {
        let killed = match how {
            Action::Kill => true,
            Action::Term => false,
            _ => return None,
        };
        let returns = self.policy.as_deref().and_then(|policy| match self.by {
            Manager::Docker | Manager::Podman => container(policy, killed),
            Manager::Systemd => unit(policy, killed),
            Manager::Kubelet => None,
        });
        Some(Restart { by: self.by, policy: self.policy.clone(), returns })
    }
}

/// Interprets the `--restart` policy of docker-run(1) and podman-run(1). SIGKILL gives exit status
/// 137; the exit status after SIGTERM depends on the program.
fn container(policy: &str, killed: bool) -> Option<bool> {
    match policy {
        "always" | "unless-stopped" => Some(true),
        "" | "no" | "never" => Some(false),
        _ if policy.starts_with("on-failure") && killed => Some(true),
        _ => None,
    }
}

/// Interprets `Restart=` of systemd.service(5). SIGTERM is a clean exit, SIGKILL is not. A program
/// that catches SIGTERM may still exit with a failure.
fn unit(policy: &str, killed: bool) -> Option<bool> {
    match (policy, killed) {
        ("always", _) | ("on-failure" | "on-abnormal" | "on-abort", true) => Some(true),
        ("no" | "on-watchdog", _) | ("on-success", true) => Some(false),
        ("on-success" | "on-failure" | "on-abnormal" | "on-abort", false) => None,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Manager::Docker, "always", Some(true), Some(true))]
    #[case(Manager::Docker, "unless-stopped", Some(true), Some(true))]
    #[case(Manager::Docker, "no", Some(false), Some(false))]
    #[case(Manager::Podman, "", Some(false), Some(false))]
    #[case(Manager::Podman, "on-failure:3", Some(true), None)]
    #[case(Manager::Docker, "some-new-policy", None, None)]
    #[case(Manager::Systemd, "always", Some(true), Some(true))]
    #[case(Manager::Systemd, "on-failure", Some(true), None)]
    #[case(Manager::Systemd, "on-abort", Some(true), None)]
    #[case(Manager::Systemd, "on-success", Some(false), None)]
    #[case(Manager::Systemd, "no", Some(false), Some(false))]
    #[case(Manager::Systemd, "on-watchdog", Some(false), Some(false))]
    #[case(Manager::Kubelet, "Always", None, None)]
    fn each_policy(
        #[case] by: Manager,
        #[case] policy: &str,
        #[case] kill: Option<bool>,
        #[case] term: Option<bool>,
    ) {
        let policy = RestartPolicy { by, policy: Some(policy.to_owned()) };
        assert_eq!(policy.after(Action::Kill).unwrap().returns, kill);
        assert_eq!(policy.after(Action::Term).unwrap().returns, term);
        for how in [Action::Freeze, Action::Throttle, Action::Fence, Action::Unit, Action::Truncate]
        {
            assert_eq!(policy.after(how), None);
        }
        let unknown = RestartPolicy { policy: None, ..policy };
        assert_eq!(unknown.after(Action::Kill).unwrap().returns, None);
    }
}
