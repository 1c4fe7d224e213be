//! Who wrote the lines of a log: the tags of syslog lines.
//!
//! A line names its program itself, so the result is a hint, never a proof.

use std::collections::HashMap;

use crate::snapshot::LogSender;

/// Maximum number of senders returned.
const MAX_SENDERS: usize = 3;
/// A sender with less than this share of the bytes is left out.
const MIN_SHARE: f64 = 0.05;
/// Longest tag: RFC 3164 allows 32 characters, rsyslog more.
const MAX_TAG: usize = 48;
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Returns the senders of the lines in `tail`, the end of a log file, most bytes first. The first line
/// is ignored, because it is cut off unless the file begins there. Empty if less than half of the bytes
/// are lines in a known format.
#[must_use]
pub fn senders(tail: &[u8]) -> Vec<LogSender> {
    let mut sums: HashMap<&[u8], (usize, Option<u32>, bool)> = HashMap::new();
    let (mut known, mut all) = (0usize, 0usize);
    for line in tail.split(|byte| *byte == b'\n').skip(1) {
        all += line.len();
        let Some((tag, pid)) = tag(line) else { continue };
        known += line.len();
        let (bytes, first_pid, is_one) = sums.entry(tag).or_insert((0, pid, true));
        *bytes += line.len();
        *is_one &= *first_pid == pid;
    }
    if known * 2 < all || known == 0 {
        return Vec::new();
    }
    let mut senders: Vec<LogSender> = sums
        .into_iter()
        .map(|(tag, (bytes, pid, is_one))| LogSender {
            name: crate::sanitize::lossless(tag),
            pid: pid.filter(|_| is_one),
            share: bytes as f64 / all as f64,
        })
        .filter(|sender| sender.share >= MIN_SHARE)
        .collect();
    senders.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.name.cmp(&b.name)));
    senders.truncate(MAX_SENDERS);
    senders
}

fn after_word(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some(text[end..].trim_ascii_start())
}

/// Whether a word is a priority as syslog(3) names them: `daemon.info`.
fn is_priority(word: &[u8]) -> bool {
    const LEVELS: [&[u8]; 9] =
        [b"emerg", b"alert", b"crit", b"err", b"warn", b"warning", b"notice", b"info", b"debug"];
    let mut parts = word.splitn(2, |byte| *byte == b'.');
    let facility = parts.next().unwrap_or_default();
    let is_word = !facility.is_empty() && facility.iter().all(u8::is_ascii_alphanumeric);
    is_word && parts.next().is_some_and(|level| LEVELS.contains(&level))
}

/// The tag and the pid of a line as RFC 3164 (`Nov 30 16:13:19 host tag[12]: …`) or rsyslog's default
/// format (`2026-11-30T16:13:19.5+00:00 host tag[12]: …`) has them.
fn tag(line: &[u8]) -> Option<(&[u8], Option<u32>)> {
    let is_named = MONTHS.iter().any(|month| line.starts_with(month));
    let is_iso = line.len() > 10 && line[4] == b'-' && line[7] == b'-' && line[10] == b'T';
    // The words before the tag: month, day, time and host, or time and host.
    let words = if is_named {
        4
    } else if is_iso {
        2
    } else {
        return None;
    };
    let mut rest = line;
    for _ in 0..words {
        rest = after_word(rest)?;
    }
    // busybox puts the facility and the priority before the tag.
    if is_priority(rest.split(|byte| *byte == b' ').next().unwrap_or_default()) {
        rest = after_word(rest)?;
    }
    let end = rest.iter().take(MAX_TAG + 12).position(|byte| matches!(byte, b':' | b' '))?;
    let tag = &rest[..end];
    let (name, pid) = match tag.iter().position(|byte| *byte == b'[') {
        Some(at) => {
            let digits = tag[at + 1..].strip_suffix(b"]")?;
            (&tag[..at], std::str::from_utf8(digits).ok()?.parse().ok())
        }
        None => (tag, None),
    };
    (!name.is_empty() && name.len() <= MAX_TAG).then_some((name, pid))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Nov 30 16:13:19 db1 gvfsd[77]: failed", Some(("gvfsd", Some(77))))]
    #[case("Nov  3 16:13:19 db1 kernel: [12.3] oops", Some(("kernel", None)))]
    #[case("2026-11-30T16:13:19.123456+00:00 db1 sshd[9]: hi", Some(("sshd", Some(9))))]
    #[case("2026-11-30T16:13:19Z db1 CRON[9]: hi", Some(("CRON", Some(9))))]
    #[case("Nov 30 16:13:19 db1 daemon.info crond[9]: hi", Some(("crond", Some(9))))]
    #[case("Nov 30 16:13:19 db1 user.notice root: hi", Some(("root", None)))]
    #[case("Nov 30 16:13:19 db1 app.worker: hi", Some(("app.worker", None)))]
    #[case("GET / HTTP/1.1", None)]
    #[case("Nov 30 16:13:19 db1", None)]
    #[case("Nov 30 16:13:19 db1 bad[12: x", None)]
    #[case("", None)]
    fn tags_of_lines(#[case] line: &str, #[case] expected: Option<(&str, Option<u32>)>) {
        let expected = expected.map(|(name, pid)| (name.as_bytes(), pid));
        assert_eq!(tag(line.as_bytes()), expected);
    }

    #[test]
    fn the_sender_of_most_bytes_is_first() {
        let mut log = "cut off\n".to_owned();
        for n in 0..20 {
            log.push_str(
                "Nov 30 16:13:19 db1 gvfsd[77]: failed to do the thing, again and again\n",
            );
            log.push_str(&format!("Nov 30 16:13:19 db1 cron[{n}]: x\n"));
        }
        let found = senders(log.as_bytes());
        assert_eq!(found[0].name, "gvfsd");
        assert_eq!((found[0].pid, found[1].pid), (Some(77), None), "cron has many pids");
        assert!(found[0].share > 0.6 && found[0].share < 0.8, "{found:?}");
    }

    #[test]
    fn a_log_in_another_format_has_no_known_sender() {
        let mut log = "\n".to_owned();
        (0..20).for_each(|_| log.push_str("{\"level\":\"info\",\"message\":\"hello\"}\n"));
        log.push_str("Nov 30 16:13:19 db1 cron: x\n");
        assert_eq!(senders(log.as_bytes()), []);
        assert_eq!(senders(b""), []);
        assert_eq!(senders(&[0xff; 4096]), []);
    }
}
