//! The record of one Snapshot: a magic number, length, checksum and deflated JSON.
//!
//! JSON, because it is self-describing: a recording of an earlier filltop stays readable as long as
//! its JSON does (`schema`), and formats such as postcard cannot represent the Snapshot's flattened
//! and tagged parts.

use std::io::{self, BufWriter, IntoInnerError, Read as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use tracer_model::snapshot::Snapshot;

/// Magic number at the start of each record, and therefore of a recording: not valid UTF-8, so that
/// no text file is taken for a recording and no JSON contains it by chance.
pub(super) const MAGIC: [u8; 8] = *b"\xf1ll\xfftop\x01";
/// Length of a record's header: magic number, length of the body and its CRC-32, both
/// little-endian.
const HEADER_LEN: usize = MAGIC.len() + 8;
/// Size of the buffer in front of the encoder, bytes.
const BUFFER_LEN: usize = 64 << 10;
/// Longest JSON that is read, bytes: a damaged file must not use up all memory.
const MAX_JSON: u64 = 256 << 20;

/// Encodes a Snapshot as a record.
///
/// # Errors
/// If the compressed JSON exceeds 4 GiB, which no Snapshot does.
pub fn encode(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut record = vec![0; HEADER_LEN];
    let deflate = DeflateEncoder::new(&mut record, Compression::fast());
    // serde_json writes a few bytes at a time, and the encoder clears its whole output buffer on
    // each write.
    let mut buffered = BufWriter::with_capacity(BUFFER_LEN, deflate);
    serde_json::to_writer(&mut buffered, snapshot)?;
    buffered.into_inner().map_err(IntoInnerError::into_error)?.finish()?;
    let body = &record[HEADER_LEN..];
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let checksum = crc32fast::hash(body);
    record[..8].copy_from_slice(&MAGIC);
    record[8..12].copy_from_slice(&length.to_le_bytes());
    record[12..16].copy_from_slice(&checksum.to_le_bytes());
    Ok(record)
}

/// Decodes exactly one whole record; `None` if it is damaged or has trailing bytes.
#[must_use]
pub fn decode_one(record: &[u8]) -> Option<Box<Snapshot>> {
    let (snapshot, length) = record_at(record).ok()?;
    (length == record.len()).then_some(snapshot)
}

/// What was found at a position in a file.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A whole record.
    Snapshot(Box<Snapshot>),
    /// This many bytes that are not a record, or belong to a damaged one.
    Garbage(usize),
    /// This many bytes of a record that continues past the end of the file.
    Torn(usize),
}

/// Calls `each` for everything in `bytes`, in order. Damage is skipped up to the next whole record.
pub(super) fn decode(bytes: &[u8], mut each: impl FnMut(Found)) {
    let mut at = 0;
    let mut bad_from = None;
    let mut torn = false;
    while at < bytes.len() {
        match record_at(&bytes[at..]) {
            Ok((snapshot, length)) => {
                if let Some(from) = bad_from.take() {
                    each(Found::Garbage(at - from));
                }
                torn = false;
                each(Found::Snapshot(snapshot));
                at += length;
            }
            Err(cut) => {
                bad_from.get_or_insert(at);
                torn |= cut;
                let next = bytes[at + 1..].windows(MAGIC.len()).position(|window| window == MAGIC);
                at = next.map_or(bytes.len(), |next| at + 1 + next);
            }
        }
    }
    if let Some(from) = bad_from {
        let length = bytes.len() - from;
        each(if torn { Found::Torn(length) } else { Found::Garbage(length) });
    }
}

/// The Snapshot at the start of `bytes` and the length of its record. `Err(true)` if the record is
/// truncated, `Err(false)` if it is damaged or not a record.
fn record_at(bytes: &[u8]) -> Result<(Box<Snapshot>, usize), bool> {
    if !bytes.starts_with(&MAGIC) {
        return Err(MAGIC.starts_with(bytes));
    }
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let (Some(length), Some(checksum)) = (word(8), word(12)) else { return Err(true) };
    let end = HEADER_LEN.saturating_add(length as usize);
    let body = bytes.get(HEADER_LEN..end).ok_or(true)?;
    if crc32fast::hash(body) != checksum {
        return Err(false);
    }
    let json = DeflateDecoder::new(body).take(MAX_JSON);
    let snapshot = serde_json::from_reader(io::BufReader::new(json)).map_err(|_| false)?;
    Ok((Box::new(snapshot), end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tracer_model::fixtures;

    fn numbered(n: u32) -> Snapshot {
        let mut snapshot = fixtures::busy();
        snapshot.taken_at = jiff::Timestamp::from_second(fixtures::NOW + i64::from(n)).unwrap();
        snapshot
    }

    /// Snapshots with arbitrary texts and numbers.
    fn any_snapshot() -> impl Strategy<Value = Snapshot> {
        let rows = prop::collection::vec((any::<u32>(), any::<u64>(), "\\PC{0,20}"), 0..4);
        (rows, any::<i64>(), prop::option::of(0.0..1e12f64), 0u32..1_000_000).prop_map(
            |(rows, delta, eta, second)| {
                let mut snapshot = numbered(second);
                snapshot.volumes[0].used_delta_bytes = delta;
                snapshot.volumes[0].eta_s = eta;
                for (pid, written, text) in rows {
                    let mut writer = fixtures::writer(pid, &text, &text, written);
                    writer.cmdline = Some(text.clone());
                    snapshot.writers.push(writer);
                    snapshot.paths.push(fixtures::path(&text, &text, written, written, pid));
                }
                snapshot
            },
        )
    }

    fn all(bytes: &[u8]) -> Vec<Found> {
        let mut found = vec![];
        decode(bytes, |one| found.push(one));
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn recorded_snapshots_are_read_back_unchanged(
            snapshots in prop::collection::vec(any_snapshot(), 0..4),
        ) {
            let bytes: Vec<u8> = snapshots.iter().flat_map(|one| encode(one).unwrap()).collect();
            let expected: Vec<Found> =
                snapshots.into_iter().map(|one| Found::Snapshot(Box::new(one))).collect();
            prop_assert!(all(&bytes) == expected);
        }

        /// Truncating or overwriting a range loses only the records that it touches.
        #[test]
        fn intact_records_survive_damage(
            cut in 0.0..1.0f64,
            from in 0.0..1.0f64,
            junk in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let records: Vec<Vec<u8>> = (0..4).map(|n| encode(&numbered(n)).unwrap()).collect();
            let mut bytes = records.concat();
            let length = bytes.len();
            let from = (length as f64 * from) as usize;
            let junk = &junk[..junk.len().min(length - from)];
            let changed = &mut bytes[from..from + junk.len()];
            let same = changed == junk;
            changed.copy_from_slice(junk);
            bytes.truncate((length as f64 * cut) as usize);
            let mut at = 0;
            let mut expected = vec![];
            for (n, record) in records.iter().enumerate() {
                let (start, end) = (at, at + record.len());
                at = end;
                let hit = !same && start < from + junk.len() && from < end;
                // The junk may happen to equal the bytes that it replaces.
                let whole = bytes.get(start..end) == Some(&record[..]);
                if whole || (!hit && end <= bytes.len()) {
                    expected.push(numbered(n as u32));
                }
            }
            let found: Vec<Snapshot> = all(&bytes)
                .into_iter()
                .filter_map(|one| match one {
                    Found::Snapshot(snapshot) => Some(*snapshot),
                    Found::Garbage(_) | Found::Torn(_) => None,
                })
                .collect();
            prop_assert!(found == expected);
        }

        #[test]
        fn garbage_is_never_a_snapshot(bytes in prop::collection::vec(any::<u8>(), 1..400)) {
            let whole = all(&bytes).iter().all(|one| !matches!(one, Found::Snapshot(_)));
            prop_assert!(whole);
        }
    }

    #[test]
    fn a_torn_end_is_distinguished_from_damage() {
        let record = encode(&numbered(0)).unwrap();
        let mut bytes = record.clone();
        bytes.extend(&record[..record.len() - 1]);
        assert_eq!(all(&bytes)[1..], [Found::Torn(record.len() - 1)]);
        bytes[record.len() / 2] ^= 1;
        bytes.extend(&record[record.len() - 1..]);
        assert_eq!(all(&bytes)[0], Found::Garbage(record.len()));
        assert!(matches!(all(&bytes)[1], Found::Snapshot(_)));
    }
}
