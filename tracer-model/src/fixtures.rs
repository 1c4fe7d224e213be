//! Snapshots for tests and benches, such as an object store that fills a volume.

use crate::snapshot::*;
use crate::verdict;
use jiff::Timestamp;

/// 2026-11-21T03:12:07Z.
pub const NOW: i64 = 1_795_230_727;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A volume that does not change, half full.
pub fn volume(mount_point: &str) -> Volume {
    Volume {
        mount_point: mount_point.to_owned(),
        mount_points: vec![mount_point.to_owned()],
        device: "/dev/vda1".to_owned(),
        fs_type: "ext4".to_owned(),
        total_bytes: 40 * GIB,
        used_bytes: 19 * GIB,
        avail_bytes: 19 * GIB,
        reserved_bytes: 2 * GIB,
        inodes_total: 2_621_440,
        inodes_free: 2_400_000,
        held_bytes: Some(0),
        written_bytes: 0,
        allocated_bytes: Some(0),
        freed_bytes: Some(0),
        used_delta_bytes: 0,
        growth_bytes_per_s: 0.0,
        explained: None,
        full: false,
        limit: LimitKind::Avail,
        eta_s: None,
        eta_lo_s: None,
        eta_hi_s: None,
        pace_s: None,
        pace_lo_s: None,
        pace_hi_s: None,
        refill: None,
        read_only: false,
        container: None,
        persistent_volume: None,
        label: None,
        counted_by: Some(CountedBy::Filesystem),
        gap: None,
        blind: None,
        verdict: None,
        btrfs: None,
        quotas: Vec::new(),
        held_unknown_bytes: None,
        inodes_delta: 0,
        was_full: false,
        served_by: None,
        backing_file: None,
        suspects: Vec::new(),
        no_eta: None,
        hidden: false,
    }
}

/// A process that wrote `written` bytes in five seconds, all of them new space.
pub fn writer(pid: u32, comm: &str, volume: &str, written: u64) -> Writer {
    Writer {
        pid,
        start_time: Timestamp::from_second(NOW - 3600 - i64::from(pid)).unwrap(),
        comm: comm.to_owned(),
        thread: None,
        exe: Some(format!("/usr/bin/{comm}")),
        cmdline: Some(format!("/usr/bin/{comm} --serve")),
        uid: 1000,
        user: Some("deploy".to_owned()),
        group: Some(Group {
            kind: GroupKind::Unit,
            name: format!("{comm}.service"),
            cgroup: Some(format!("/system.slice/{comm}.service")),
            ..Group::default()
        }),
        alive: true,
        volume: volume.to_owned(),
        written_bytes: written,
        allocated_bytes: Some(written),
        freed_bytes: Some(0),
        held_bytes: Some(0),
        written_bytes_per_s: written as f64 / 5.0,
        growth_bytes_per_s: written as f64 / 5.0,
        share: 0.0,
        files: 1,
        inodes_created: Some(0),
        inodes_removed: Some(0),
        errors: WriteErrors::default(),
        fsync: Some(Fsync { count: 3, max_ms: 12.5, p99_ms: 12.0 }),
        parents: vec![],
        on_behalf_of: vec![],
        log_senders: Vec::new(),
    }
}

/// A file that `pid` wrote to.
pub fn path(path: &str, volume: &str, ino: u64, written: u64, pid: u32) -> PathRow {
    PathRow {
        path: path.to_owned(),
        path_in_container: None,
        container: None,
        log_of: None,
        volume: volume.to_owned(),
        size_bytes: Some(written),
        space_bytes: None,
        growth_bytes_per_s: written as f64 / 5.0,
        hidden: false,
        hidden_by: None,
        dev: "254:17".to_owned(),
        ino,
        written_bytes: written,
        allocated_bytes: Some(written),
        freed_bytes: Some(0),
        deleted: false,
        approximate: false,
        writers: vec![pid],
    }
}

/// A directory with its traffic.
pub fn dir(path: &str, volume: &str, inflow: f64, outflow: f64) -> Directory {
    Directory {
        path: path.to_owned(),
        volume: volume.to_owned(),
        inflow_bytes_per_s: inflow,
        outflow_bytes_per_s: outflow,
        drain: (inflow > 0.0).then_some(outflow / inflow),
        files_created: Some(12),
        files_removed: Some(3),
        hot: false,
    }
}

/// An idle host: one volume, no writes.
pub fn idle() -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        host: "db1".to_owned(),
        taken_at: Timestamp::from_second(NOW).unwrap(),
        interval_s: 5.0,
        backend: Backend {
            write: WriteBackend::Fentry,
            kernel: "6.1.0-42-cloud-amd64".to_owned(),
            hooks: vec![
                Hook {
                    name: "ext4_file_write_iter".to_owned(),
                    how: HookMethod::Fexit,
                    state: HookState::Ok,
                },
                Hook {
                    name: "xfs_file_write_iter".to_owned(),
                    how: HookMethod::Fexit,
                    state: HookState::NotApplicable { reason: "xfs is not loaded".to_owned() },
                },
            ],
            blind_spots: vec!["mmap stores count by page".to_owned()],
            lost_events: 0,
            lost: vec![],
            unattributed_bytes: 0,
            folded_files: 0,
            overhead_ns_per_write: Some(132.0),
            own_cpu: Some(0.004),
            capabilities: vec!["CAP_SYS_ADMIN".to_owned()],
            blind_spot_kinds: vec![BlindSpotKind::MmapByPage],
            sampled_fs_types: vec![],
        },
        volumes: vec![volume("/")],
        writers: vec![],
        dirs: vec![],
        paths: vec![],
        held: vec![],
        uninspected_processes: 0,
        ended: vec![],
        victims: vec![],
        groups: vec![],
        residents: vec![],
    }
}

/// An object store that receives a stuck upload: `/srv/store` will be full in four minutes.
pub fn busy() -> Snapshot {
    let mut snapshot = idle();
    let store = "/srv/store";
    snapshot.volumes.insert(
        0,
        Volume {
            device: "/dev/vdb1".to_owned(),
            total_bytes: 72 * GIB,
            used_bytes: 45 * GIB,
            avail_bytes: 24 * GIB,
            reserved_bytes: 3 * GIB + 614 * MIB,
            held_bytes: Some(1288 * MIB),
            written_bytes: 560 * MIB,
            allocated_bytes: Some(540 * MIB),
            freed_bytes: Some(28 * MIB),
            used_delta_bytes: 515 * MIB as i64,
            growth_bytes_per_s: 102.4 * MIB as f64,
            explained: Some(0.994),
            eta_s: Some(240.0),
            eta_lo_s: Some(180.0),
            eta_hi_s: Some(360.0),
            ..volume(store)
        },
    );
    snapshot.volumes[1].written_bytes = 3 * MIB;
    snapshot.volumes[1].growth_bytes_per_s = -40960.0;
    snapshot.writers = vec![
        Writer {
            share: 0.91,
            files: 41,
            held_bytes: Some(1200 * MIB),
            cmdline: Some("/usr/bin/minio server --address :9000 /srv/store".to_owned()),
            parents: vec![Parent { pid: 2100, comm: "docker-init".to_owned() }],
            ..writer(2114, "minio", store, 500 * MIB)
        },
        Writer {
            share: 0.08,
            files: 3,
            errors: WriteErrors { enospc: 2, ..WriteErrors::default() },
            user: Some("postgres".to_owned()),
            cmdline: Some("postgres: 15/main: checkpointer".to_owned()),
            ..writer(880, "postgres", store, 40 * MIB)
        },
        Writer {
            share: 0.01,
            alive: false,
            freed_bytes: Some(28 * MIB),
            growth_bytes_per_s: -5.6 * MIB as f64,
            group: Some(Group {
                kind: GroupKind::Docker,
                name: "backup-nightly".to_owned(),
                cgroup: Some("/docker/4f1c".to_owned()),
                ..Group::default()
            }),
            ..writer(31_337, "gzip", store, 20 * MIB)
        },
        Writer {
            share: 1.0,
            user: Some("root".to_owned()),
            group: None,
            allocated_bytes: None,
            freed_bytes: None,
            fsync: None,
            ..writer(1, "systemd-journal", "/", 3 * MIB)
        },
    ];
    snapshot.dirs = vec![
        dir("/srv/store", store, 108.0 * MIB as f64, 5.6 * MIB as f64),
        dir("/srv/store/.minio.sys", store, 100.0 * MIB as f64, 0.0),
        dir("/srv/store/.minio.sys/multipart", store, 100.0 * MIB as f64, 0.0),
        dir("/srv/store/pg", store, 8.0 * MIB as f64, 0.0),
        dir("/srv/store/backup", store, 0.0, 5.6 * MIB as f64),
        dir("/var/log/journal", "/", 0.6 * MIB as f64, 0.0),
    ];
    snapshot.paths = vec![
        path("/srv/store/.minio.sys/multipart/8d1f0a/part.0001", store, 131, 300 * MIB, 2114),
        PathRow {
            approximate: true,
            ..path("/srv/store/pg/base/16384/2619", store, 132, 40 * MIB, 880)
        },
        PathRow {
            deleted: true,
            ..path("/srv/store/.minio.sys/tmp/日本\u{202e}gpj.exe\n", store, 133, 200 * MIB, 2114)
        },
        path("/var/log/journal/a9/system.journal", "/", 134, 3 * MIB, 1),
    ];
    snapshot.held = vec![
        Held {
            held_by: HeldBy::Descriptor,
            pid: 2114,
            comm: "minio".to_owned(),
            fd: Some(17),
            path: "/srv/store/.minio.sys/tmp/日本\u{202e}gpj.exe\n".to_owned(),
            path_in_container: None,
            group: None,
            volume: store.to_owned(),
            bytes: 1200 * MIB,
            growing: true,
            kind: HeldKind::Deleted,
            holders: vec![2114],
            dev: None,
            ino: None,
        },
        Held {
            held_by: HeldBy::Descriptor,
            pid: 880,
            comm: "postgres".to_owned(),
            fd: None,
            path: "/srv/store/pg/pgsql_tmp/t.0".to_owned(),
            path_in_container: None,
            group: None,
            volume: store.to_owned(),
            bytes: 88 * MIB,
            growing: false,
            kind: HeldKind::Anonymous,
            holders: vec![880, 881],
            dev: None,
            ino: None,
        },
    ];
    snapshot.victims = vec![Victim {
        pid: 880,
        comm: "postgres".to_owned(),
        volume: store.to_owned(),
        errors: WriteErrors { enospc: 2, ..WriteErrors::default() },
        waiting_ms: Some(1840.0),
    }];
    verdict::Engine::default().judge(&mut snapshot);
    snapshot
}

/// Pins the JSON form, which programs read: no key may be renamed or removed.
#[test]
fn json_of_a_snapshot() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&busy()).unwrap());
}
