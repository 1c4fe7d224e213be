//! The kinds of [`Held`](super::Held) files.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

/// Whether a file without a name had one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldKind {
    /// Created with O_TMPFILE: it never had a name.
    Anonymous,
    /// Its last name was removed.
    #[default]
    Deleted,
}

impl HeldKind {
    /// The name in JSON and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Deleted => "deleted",
        }
    }
}

impl<'de> Deserialize<'de> for HeldKind {
    /// A kind that this version does not know, of a newer service or recording, is a deleted file.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        let named = |kind: &Self| kind.name() == word;
        Ok([Self::Anonymous, Self::Deleted].into_iter().find(named).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_version_is_a_deleted_file() {
        let read = |json| serde_json::from_str::<HeldKind>(json);
        assert_eq!(read("\"memory\"").unwrap(), HeldKind::Deleted);
        assert_eq!(read("\"anonymous\"").unwrap(), HeldKind::Anonymous);
        assert!(read("7").is_err());
    }

    #[test]
    fn the_json_has_the_same_words() {
        for kind in [HeldKind::Deleted, HeldKind::Anonymous] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
