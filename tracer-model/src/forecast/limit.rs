//! The limits of a volume that can be reached.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A limit of a volume that can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Space available to ordinary users.
    Avail,
    /// Space available to root: `avail` plus the reserved blocks.
    RootReserve,
    /// Inodes.
    Inodes,
    /// Space for the metadata of a btrfs: its chunks and what is not allocated to chunks yet.
    Metadata,
    /// A quota, by name.
    Quota(String),
    /// The pool under a thin volume, by name.
    ThinPool(String),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Avail => f.write_str("avail"),
            Self::RootReserve => f.write_str("root-reserve"),
            Self::Inodes => f.write_str("inodes"),
            Self::Metadata => f.write_str("metadata"),
            Self::Quota(name) => write!(f, "quota {name}"),
            Self::ThinPool(name) => write!(f, "thin-pool {name}"),
        }
    }
}

impl Limit {
    /// The limit without the name of the quota or pool.
    #[must_use]
    pub const fn kind(&self) -> LimitKind {
        match self {
            Self::Avail => LimitKind::Avail,
            Self::RootReserve => LimitKind::RootReserve,
            Self::Inodes => LimitKind::Inodes,
            Self::Metadata => LimitKind::Metadata,
            Self::Quota(_) => LimitKind::Quota,
            Self::ThinPool(_) => LimitKind::ThinPool,
        }
    }
}

/// A kind of limit, as in the JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// Space available to ordinary users.
    #[default]
    Avail,
    /// Space available to root.
    RootReserve,
    /// Inodes.
    Inodes,
    /// Space for the metadata of a btrfs.
    Metadata,
    /// A quota.
    Quota,
    /// The pool under a thin volume.
    ThinPool,
}

impl LimitKind {
    /// All kinds.
    const ALL: [Self; 6] =
        [Self::Avail, Self::RootReserve, Self::Inodes, Self::Metadata, Self::Quota, Self::ThinPool];

    /// The word that JSON, metrics and texts use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avail => "avail",
            Self::RootReserve => "root-reserve",
            Self::Inodes => "inodes",
            Self::Metadata => "metadata",
            Self::Quota => "quota",
            Self::ThinPool => "thin-pool",
        }
    }
}

impl<'de> Deserialize<'de> for LimitKind {
    /// A limit that this version does not know, of a newer service or recording, is `avail`: the
    /// volume fills up either way.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|kind| kind.name() == word).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_a_newer_version_is_the_available_space() {
        let read = |json| serde_json::from_str::<LimitKind>(json);
        assert_eq!(read("\"project-quota\"").unwrap(), LimitKind::Avail);
        assert_eq!(read("\"thin-pool\"").unwrap(), LimitKind::ThinPool);
        assert!(read("7").is_err());
    }

    #[test]
    fn the_json_has_the_same_words() {
        for kind in LimitKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
