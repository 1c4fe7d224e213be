//! What the service and its clients say to each other: frames of a length, a kind and a body.
//!
//! Hello and welcome are JSON, in which unknown fields are ignored; a Snapshot is a record of the
//! flight recorder (mark, length, checksum, deflated JSON with its own `schema`), so that it travels
//! as it is kept. docs/service.md is the reference.

use std::io;

use serde::{Deserialize, Serialize};

/// The version of the protocol; another one is refused with words.
pub const PROTOCOL: u32 = 1;
/// Longest body that a service reads from a client, bytes: a hello.
pub const MAX_REQUEST: usize = 4 << 10;
/// Longest body that a client reads from a service, bytes. A truncated Snapshot of a busy host takes
/// some 200 KiB.
pub const MAX_RESPONSE: usize = 64 << 20;
/// Length of what is before a body: its length (little-endian) and its kind.
pub const HEAD: usize = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the client, first and only: a [`Hello`].
    Hello,
    /// From the service, first: a [`Welcome`].
    Welcome,
    /// From the service, and the end: why it will not, as text.
    Refused,
    /// From the service: a record with a Snapshot in it.
    Snapshot,
    /// From the service: all that was asked for was said.
    End,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Hello => b'H',
            Self::Welcome => b'W',
            Self::Refused => b'R',
            Self::Snapshot => b'S',
            Self::End => b'E',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Hello, Self::Welcome, Self::Refused, Self::Snapshot, Self::End]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Which command asks, for the service's log.
    pub client: String,
    /// How much of the past, seconds; 0 is the newest Snapshot alone.
    pub since_s: f64,
    /// Whether new Snapshots shall follow until the client goes.
    pub follow: bool,
}

/// What the service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the program.
    pub version: String,
    /// Time between two Snapshots, seconds.
    pub interval_s: f64,
    /// How far back it remembers, seconds.
    pub span_s: f64,
}

/// What comes before a body.
#[must_use]
pub fn head(kind: Kind, length: usize) -> [u8; HEAD] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [length[0], length[1], length[2], length[3], kind.byte()]
}

/// Kind and length of the body that follows.
///
/// # Errors
/// If the kind is unknown, or the body longer than `max`.
pub fn parse_head(head: [u8; HEAD], max: usize) -> io::Result<(Kind, usize)> {
    let [a, b, c, d, kind] = head;
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let kind = Kind::of(kind).ok_or_else(|| bad(format!("no frame is of kind {kind:#04x}")))?;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > max {
        return Err(bad(format!("a frame of {length} bytes is longer than {max}")));
    }
    Ok((kind, length))
}

/// A whole frame.
#[must_use]
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.extend(head(kind, body.len()));
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_framed_is_read(length in 0..=MAX_REQUEST) {
            for kind in [Kind::Hello, Kind::Welcome, Kind::Refused, Kind::Snapshot, Kind::End] {
                prop_assert_eq!(parse_head(head(kind, length), MAX_REQUEST)?, (kind, length));
            }
        }

        #[test]
        fn garbage_is_refused_or_short(bytes in any::<[u8; HEAD]>()) {
            if let Ok((kind, length)) = parse_head(bytes, MAX_REQUEST) {
                prop_assert!(length <= MAX_REQUEST);
                prop_assert_eq!(head(kind, length), bytes);
            }
        }
    }

    #[test]
    fn a_hello_of_a_later_version_is_still_read() {
        let later = r#"{"protocol":2,"client":"x","since_s":1.5,"follow":true,"colour":"red"}"#;
        assert_eq!(serde_json::from_str::<Hello>(later).unwrap().protocol, 2);
    }
}
