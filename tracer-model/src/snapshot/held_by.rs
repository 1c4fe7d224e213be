//! What holds a deleted file.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

/// What keeps a file without a name from being freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// A descriptor of a process.
    #[default]
    Descriptor,
    /// A mapping of a process, without a descriptor.
    Mapping,
    /// A loop device that has it as its backing file.
    LoopDevice,
    /// The kernel uses it as swap space.
    Swap,
    /// The kernel's NFS server, or something else in the kernel.
    Kernel,
    /// A descriptor that was sent through a UNIX socket and was not received yet.
    Socket,
    /// Unknown: the kernel has not evicted it, and no process that could be inspected holds it.
    Unknown,
}

impl HeldBy {
    /// All of them.
    const ALL: [Self; 7] = [
        Self::Descriptor,
        Self::Mapping,
        Self::LoopDevice,
        Self::Swap,
        Self::Kernel,
        Self::Socket,
        Self::Unknown,
    ];

    /// The word that JSON uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptor => "descriptor",
            Self::Mapping => "mapping",
            Self::LoopDevice => "loop_device",
            Self::Swap => "swap",
            Self::Kernel => "kernel",
            Self::Socket => "socket",
            Self::Unknown => "unknown",
        }
    }
}

impl<'de> Deserialize<'de> for HeldBy {
    /// A word that this version does not know, of a newer service or recording, is unknown.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|by| by.name() == word).unwrap_or(Self::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_same_words() {
        for by in HeldBy::ALL {
            assert_eq!(serde_json::to_value(by).unwrap(), by.name());
            let read: HeldBy = serde_json::from_value(by.name().into()).unwrap();
            assert_eq!(read, by);
        }
        let newer: HeldBy = serde_json::from_value("dream".into()).unwrap();
        assert_eq!(newer, HeldBy::Unknown);
    }
}
