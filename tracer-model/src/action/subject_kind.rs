//! What the target of an action was found to be.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::snapshot::{GroupKind, UnknownKind};

/// What a target was found to be: processes or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// One process without its descendants.
    Process,
    /// A process with its descendants.
    Tree,
    /// A group.
    Group(GroupKind),
}

impl SubjectKind {
    /// The name in JSON and in texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Tree => "tree",
            Self::Group(kind) => kind.name(),
        }
    }

    /// The kind of group; `None` for processes.
    #[must_use]
    pub const fn group(self) -> Option<GroupKind> {
        match self {
            Self::Process | Self::Tree => None,
            Self::Group(kind) => Some(kind),
        }
    }
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SubjectKind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        match word {
            "process" => Ok(Self::Process),
            "tree" => Ok(Self::Tree),
            _ => word.parse().map(Self::Group),
        }
    }
}

impl Serialize for SubjectKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for SubjectKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
