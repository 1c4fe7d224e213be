//! Processes that share a volume: groups that have files open for writing on it.

use std::collections::BTreeMap;

use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::{Group, Resident};

use crate::attribute::groups::Groups;
use tracer_host::mounts::MountedVolume;
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_host::open_files::{OpenFile, OpenFiles};
use tracer_host::process::descriptors::strip_deleted;

/// Returns the database that a file belongs to, judging by its name. Each is a file that the
/// database writes before anything else, so the database stalls when that write fails.
#[must_use]
pub fn database(path: &str) -> Option<&'static str> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let in_dir = |part: &str| dir.ends_with(part);
    let digits =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if in_dir("/pg_wal") || in_dir("/pg_xlog") {
        Some("PostgreSQL")
    } else if name.starts_with("ib_logfile") || in_dir("/#innodb_redo") || name == "ibdata1" {
        Some("MySQL")
    } else if in_dir("/member/wal") || (in_dir("/member/snap") && name == "db") {
        Some("etcd")
    } else if name.starts_with("WiredTigerLog.") || name == "WiredTiger.wt" {
        Some("MongoDB")
    } else if name.starts_with("appendonly") || in_dir("/appendonlydir") {
        Some("Redis")
    } else if name.strip_prefix("MANIFEST-").is_some_and(|n| digits(n, 6)) {
        Some("RocksDB or LevelDB")
    } else if name.strip_suffix(".log").is_some_and(|n| digits(n, 20)) {
        Some("Kafka")
    } else if name.starts_with("translog-") {
        Some("Elasticsearch")
    } else if in_dir("/wal") && digits(name, 8) {
        Some("Prometheus")
    } else if [".db-wal", ".sqlite-wal", ".sqlite3-wal", ".db-journal", ".sqlite-journal"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        Some("SQLite")
    } else {
        None
    }
}

/// Sums up files that are open for writing by group and volume, most bytes first. A file that
/// several processes of a group have open counts once.
#[must_use]
pub fn find(
    open: &OpenFiles,
    volumes: &[MountedVolume],
    lookup: &MountLookup,
    groups: &mut Groups,
) -> Vec<Resident> {
    struct Sum<'a> {
        pids: Vec<u32>,
        files: BTreeMap<(u32, u64, Option<u64>), &'a OpenFile>,
    }
    let mut sums: BTreeMap<(Group, u32), Sum<'_>> = BTreeMap::new();
    let mut last: Option<(u32, Option<Group>)> = None;
    for file in open.files.iter().filter(|file| file.writable) {
        if last.as_ref().is_none_or(|(pid, _)| *pid != file.pid) {
            last = Some((file.pid, groups.of_pid(file.pid)));
        }
        let Some((_, Some(group))) = &last else { continue };
        let sum = sums
            .entry((group.clone(), file.dev))
            .or_insert_with(|| Sum { pids: Vec::new(), files: BTreeMap::new() });
        if sum.pids.last() != Some(&file.pid) {
            sum.pids.push(file.pid);
        }
        sum.files.entry(file.key()).or_insert(file);
    }
    let mut rows: Vec<Resident> = sums
        .into_iter()
        .filter_map(|((group, dev), sum)| {
            let volume = volumes.iter().find(|volume| volume.dev == dev)?;
            let mut databases: Vec<String> = sum
                .files
                .values()
                .filter_map(|file| database(&strip_deleted(&file.link).to_string_lossy()))
                .map(str::to_owned)
                .collect();
            databases.sort();
            databases.dedup();
            Some(Resident {
                group,
                volume: volume.name(),
                processes: sum.pids.len() as u64,
                files: sum.files.len() as u64,
                bytes: sum.files.values().map(|file| file.bytes).sum(),
                largest: sum
                    .files
                    .values()
                    .max_by_key(|file| file.bytes)
                    .map(|file| lossless_path(&lookup.paths(file).host))
                    .unwrap_or_default(),
                databases,
            })
        })
        .collect();
    rows.sort_by(|a, b| {
        (!b.databases.is_empty())
            .cmp(&!a.databases.is_empty())
            .then(b.bytes.cmp(&a.bytes))
            .then_with(|| a.group.cmp(&b.group))
    });
    rows
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/var/lib/postgresql/15/main/pg_wal/000000010000000000000001", Some("PostgreSQL"))]
    #[case("/var/lib/mysql/ib_logfile0", Some("MySQL"))]
    #[case("/var/lib/mysql/#innodb_redo/#ib_redo12", Some("MySQL"))]
    #[case("/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal", Some("etcd"))]
    #[case("/var/lib/etcd/member/snap/db", Some("etcd"))]
    #[case("/var/lib/mongodb/journal/WiredTigerLog.0000000001", Some("MongoDB"))]
    #[case("/var/lib/redis/appendonlydir/appendonly.aof.1.incr.aof", Some("Redis"))]
    #[case("/srv/x/MANIFEST-000004", Some("RocksDB or LevelDB"))]
    #[case("/srv/kafka/orders-0/00000000000000000000.log", Some("Kafka"))]
    #[case("/var/lib/prometheus/wal/00000012", Some("Prometheus"))]
    #[case("/home/ann/notes.sqlite-wal", Some("SQLite"))]
    #[case("/var/log/syslog", None)]
    #[case("/srv/MANIFEST-x", None)]
    #[case("/srv/pg_wal", None)]
    #[case("nothing", None)]
    fn databases_are_recognised_by_their_files(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(database(path), expected);
    }
}
