//! Who starts a target again after it was ended, and whether they do.

use serde::{Deserialize, Serialize};

use super::Action;

/// Who starts it again.
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
    /// As JSON has it.
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
pub struct Policy {
    /// Whose.
    pub by: Manager,
    /// In the manager's word, e.g. `always`, `on-failure`; `None` if it cannot be read here.
    pub policy: Option<String>,
}

/// What a policy means for one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Who would start it again.
    pub by: Manager,
    /// The policy in the manager's word; `None` if it is not known.
    pub policy: Option<String>,
    /// Will it be started again? `None` if that cannot be told beforehand.
    pub returns: Option<bool>,
}

impl Policy {
    /// What it means for a step; `None` for steps that end nothing, and for `unit`, which no manager
    /// takes for a failure.
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

/// docker-run(1), podman-run(1), `--restart`. SIGKILL is exit status 137; what a program makes of SIGTERM
/// is its own affair.
fn container(policy: &str, killed: bool) -> Option<bool> {
    match policy {
        "always" | "unless-stopped" => Some(true),
        "" | "no" | "never" => Some(false),
        _ if policy.starts_with("on-failure") && killed => Some(true),
        _ => None,
    }
}

/// systemd.service(5), "Restart=": SIGTERM is a clean end, SIGKILL is not. A program that catches SIGTERM
/// may still end with a failure.
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
    #[case(Manager::Docker, "of tomorrow", None, None)]
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
        let policy = Policy { by, policy: Some(policy.to_owned()) };
        assert_eq!(policy.after(Action::Kill).unwrap().returns, kill);
        assert_eq!(policy.after(Action::Term).unwrap().returns, term);
        for how in [Action::Freeze, Action::Throttle, Action::Fence, Action::Unit, Action::Truncate]
        {
            assert_eq!(policy.after(how), None);
        }
        let unknown = Policy { policy: None, ..policy };
        assert_eq!(unknown.after(Action::Kill).unwrap().returns, None);
    }
}
