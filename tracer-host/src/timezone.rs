//! The local time zone, read from one file. jiff would read the whole zone directory, and reading a
//! directory updates its access time: a write to a volume that may be full.

use std::env;
use std::path::{Component, Path, PathBuf};

use jiff::tz::TimeZone;

use crate::noatime;

const SYSTEM: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";

/// Returns the time zone that TZ names (tzset(3): a rule, the name of a zone, or a file, with or
/// without a colon before it), otherwise the system's. UTC if neither can be read, as in C.
#[must_use]
pub fn local() -> TimeZone {
    let zones = env::var_os("TZDIR").map_or_else(|| ZONES.into(), PathBuf::from);
    from(env::var("TZ").ok().as_deref(), &zones)
}

fn from(tz: Option<&str>, zones: &Path) -> TimeZone {
    let found = match tz.map(|tz| tz.strip_prefix(':').unwrap_or(tz)) {
        None => from_file(Path::new(SYSTEM)),
        Some("") => None,
        Some(text) => named(text, zones).or_else(|| TimeZone::posix(text).ok()),
    };
    found.unwrap_or(TimeZone::UTC)
}

/// Reads a file below the zone directory, or anywhere if its path is absolute.
fn named(name: &str, zones: &Path) -> Option<TimeZone> {
    let path = Path::new(name);
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    // Joining an absolute path replaces the directory.
    if goes_up { None } else { from_file(&zones.join(path)) }
}

fn from_file(path: &Path) -> Option<TimeZone> {
    TimeZone::tzif("Local", &noatime::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;

    use super::*;

    /// A TZif file (RFC 9636) that has data only in its footer: two and a half hours east.
    fn file() -> Vec<u8> {
        let mut header = b"TZif2".to_vec();
        header.extend([0; 15]);
        // Numbers of UT and standard indicators, leap seconds, transitions, types, characters.
        for count in [0u32, 0, 0, 0, 1, 4] {
            header.extend(count.to_be_bytes());
        }
        let local_type = [&9000i32.to_be_bytes()[..], &[0, 0], b"XYZ\0"].concat();
        [&header[..], &local_type, &header, &local_type, b"\nXYZ-2:30\n"].concat()
    }

    #[rstest]
    #[case(Some("Here/There"), 9000)]
    #[case(Some(":Here/There"), 9000)]
    #[case(Some("CET-1CEST,M3.5.0,M10.5.0/3"), 3600)]
    #[case(Some("<+03>-3"), 10_800)]
    #[case(Some("../etc/passwd"), 0)]
    #[case(Some("No/Such"), 0)]
    #[case(Some("Here"), 0)]
    #[case(Some(""), 0)]
    fn a_zone_is_found_as_by_the_c_library(#[case] tz: Option<&str>, #[case] offset_s: i32) {
        let zones = tempfile::tempdir().unwrap();
        std::fs::create_dir(zones.path().join("Here")).unwrap();
        std::fs::write(zones.path().join("Here/There"), file()).unwrap();
        let zone = from(tz, zones.path());
        assert_eq!(zone.to_offset(Timestamp::UNIX_EPOCH).seconds(), offset_s);
    }

    #[test]
    fn an_absolute_path_and_the_system_zone_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone");
        std::fs::write(&path, file()).unwrap();
        let zone = from(path.to_str(), Path::new("/nowhere"));
        assert_eq!(zone.to_offset(Timestamp::UNIX_EPOCH).seconds(), 9000);
        let _ = from(None, Path::new("/nowhere"));
    }
}
