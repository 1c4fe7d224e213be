//! The kinds of [`Group`](super::Group).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The kind of a group. In alphabetical order, so that sorting by kind sorts by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupKind {
    /// A step of `docker build`.
    Build,
    /// A cgroup that is none of the others.
    #[default]
    Cgroup,
    /// A container of containerd outside of Kubernetes.
    Containerd,
    /// A container of CRI-O.
    Crio,
    /// A container of Docker.
    Docker,
    /// A container of LXC or LXD.
    Lxc,
    /// A machine of systemd-nspawn or libvirt.
    Machine,
    /// A program that watches over containers from outside: `conmon web`, `lxc-start jail1`.
    Monitor,
    /// A pod of Kubernetes or one of its containers, named NAMESPACE/POD/CONTAINER.
    Pod,
    /// A container of Podman.
    Podman,
    /// The processes of one session leader, in no cgroup of their own.
    Session,
    /// A unit of systemd.
    Unit,
}

/// A word that is not the name of a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind of group")]
pub struct UnknownKind(String);

impl GroupKind {
    /// All kinds, in alphabetical order.
    pub const ALL: [Self; 12] = [
        Self::Build,
        Self::Cgroup,
        Self::Containerd,
        Self::Crio,
        Self::Docker,
        Self::Lxc,
        Self::Machine,
        Self::Monitor,
        Self::Pod,
        Self::Podman,
        Self::Session,
        Self::Unit,
    ];

    /// The name in JSON, in tables and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Cgroup => "cgroup",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Lxc => "lxc",
            Self::Machine => "machine",
            Self::Monitor => "monitor",
            Self::Pod => "pod",
            Self::Podman => "podman",
            Self::Session => "session",
            Self::Unit => "unit",
        }
    }

    /// Whether it is a container, pod, build step or machine, with a root file system of its own.
    #[must_use]
    pub const fn is_container(self) -> bool {
        match self {
            Self::Build | Self::Containerd | Self::Crio | Self::Docker => true,
            Self::Lxc | Self::Machine | Self::Pod | Self::Podman => true,
            Self::Cgroup | Self::Monitor | Self::Session | Self::Unit => false,
        }
    }

    /// Whether systemd or the container's runtime has a command that stops it. Not so for a pod:
    /// Kubernetes would start it again.
    #[must_use]
    pub const fn has_manager(self) -> bool {
        match self {
            Self::Unit | Self::Docker | Self::Podman | Self::Containerd => true,
            Self::Crio | Self::Lxc | Self::Machine => true,
            Self::Build | Self::Cgroup | Self::Monitor | Self::Pod | Self::Session => false,
        }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for GroupKind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        let named = |kind: &Self| kind.name() == word;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

impl<'de> Deserialize<'de> for GroupKind {
    /// A kind that this version does not know, of a newer service or recording, is a cgroup.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Ok(word.parse().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_version_is_a_cgroup() {
        assert_eq!(serde_json::from_str::<GroupKind>("\"jail\"").unwrap(), GroupKind::Cgroup);
        assert_eq!(serde_json::from_str::<GroupKind>("\"pod\"").unwrap(), GroupKind::Pod);
        assert!(serde_json::from_str::<GroupKind>("7").is_err());
    }

    #[test]
    fn names_are_those_of_the_json_and_sort_alike() {
        for kind in GroupKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!(GroupKind::ALL.is_sorted_by_key(|kind| kind.name()));
        assert!(GroupKind::ALL.is_sorted());
        assert!("tree".parse::<GroupKind>().is_err());
    }
}
