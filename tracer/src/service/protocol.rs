//! The protocol between the service and its clients: frames of a length, a kind and a body.
//!
//! Hello and welcome are JSON, in which unknown fields are ignored. A Snapshot is sent as it is
//! stored: as a record of the flight recorder (mark, length, checksum, deflated JSON with its own
//! `schema`). docs/service.md is the reference.

use std::io;

use serde::{Deserialize, Serialize};

/// Version of the protocol; a client with another one is refused with a message.
pub(crate) const PROTOCOL: u32 = 1;
/// Longest body (a hello) that the service reads from a client, bytes.
pub(crate) const MAX_REQUEST: usize = 4 << 10;
/// Longest body that a client reads from the service, bytes. A truncated Snapshot of a busy host
/// takes about 200 KiB.
pub(crate) const MAX_RESPONSE: usize = 64 << 20;
/// Length of a frame's head, bytes: the body's length (`u32`, little-endian) and the kind.
pub(crate) const HEAD: usize = 5;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From the client, its first and only frame: a [`Hello`].
    Hello,
    /// From the service, its first frame: a [`Welcome`].
    Welcome,
    /// From the service, its last frame: the reason of a refusal, as text.
    Refused,
    /// From the service: a record that contains a Snapshot.
    Snapshot,
    /// From the service: everything requested has been sent.
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

/// A client's request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`PROTOCOL`].
    pub(crate) protocol: u32,
    /// The client's command, for the service's log.
    pub(crate) client: String,
    /// Length of the requested history, seconds; 0 is the newest Snapshot only.
    pub(crate) since_s: f64,
    /// Whether to keep sending new Snapshots until the client disconnects.
    pub(crate) follow: bool,
}

/// The service's description of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// [`PROTOCOL`].
    pub(crate) protocol: u32,
    /// Version of the program.
    pub(crate) version: String,
    /// Time between two Snapshots, seconds.
    pub(crate) interval_s: f64,
    /// Length of the stored history, seconds.
    pub(crate) span_s: f64,
}

/// Encodes the head of a frame.
#[must_use]
pub(crate) fn head(kind: Kind, length: usize) -> [u8; HEAD] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [length[0], length[1], length[2], length[3], kind.byte()]
}

/// Decodes the head of a frame: its kind and the length of its body.
///
/// # Errors
/// If the kind is unknown, or the body longer than `max`.
pub(crate) fn parse_head(head: [u8; HEAD], max: usize) -> io::Result<(Kind, usize)> {
    let [a, b, c, d, kind] = head;
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let kind = Kind::of(kind).ok_or_else(|| bad(format!("unknown frame kind {kind:#04x}")))?;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > max {
        return Err(bad(format!("a frame of {length} bytes is longer than the limit of {max}")));
    }
    Ok((kind, length))
}

/// Encodes a whole frame.
#[must_use]
pub(crate) fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
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
        fn the_head_of_a_frame_round_trips(length in 0..=MAX_REQUEST) {
            for kind in [Kind::Hello, Kind::Welcome, Kind::Refused, Kind::Snapshot, Kind::End] {
                prop_assert_eq!(parse_head(head(kind, length), MAX_REQUEST)?, (kind, length));
            }
        }

        #[test]
        fn garbage_is_rejected_or_within_the_limit(bytes in any::<[u8; HEAD]>()) {
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
