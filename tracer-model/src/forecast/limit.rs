//! The limits of a volume that can be reached.

use std::fmt;

use serde::{Deserialize, Serialize};

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
            Self::Quota(_) => LimitKind::Quota,
            Self::ThinPool(_) => LimitKind::ThinPool,
        }
    }
}

/// A kind of limit, as in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// Space available to ordinary users.
    Avail,
    /// Space available to root.
    RootReserve,
    /// Inodes.
    Inodes,
    /// A quota.
    Quota,
    /// The pool under a thin volume.
    ThinPool,
}

impl LimitKind {
    /// The word that JSON, metrics and texts use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avail => "avail",
            Self::RootReserve => "root-reserve",
            Self::Inodes => "inodes",
            Self::Quota => "quota",
            Self::ThinPool => "thin-pool",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_same_words() {
        for kind in [
            LimitKind::Avail,
            LimitKind::RootReserve,
            LimitKind::Inodes,
            LimitKind::Quota,
            LimitKind::ThinPool,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
