//! The hottest directory, and other services with files on the volume.

use std::sync::Arc;

use tracer_model::snapshot::{Directory, Group, GroupKind, Resident, Snapshot};

use super::{press, screen, text};
use crate::tui::app::App;
use crate::tui::state::UiState;
use tracer_model::fixtures::{busy, dir};
use tracer_model::history::retention::Limits;

fn seen(snapshot: Snapshot, keys: &str) -> String {
    let mut app = App::new(UiState::default(), Limits::default());
    app.add_snapshot(Arc::new(snapshot));
    press(&mut app, keys);
    text(&screen(&app))
}

/// The tree is expanded down to the hottest directory, and no further.
#[test]
fn the_hottest_directory_is_visible() {
    let mut snapshot = busy();
    let mount = snapshot.volumes[0].mount_point.clone();
    let at = |path: &str| format!("{}/{path}", mount.trim_end_matches('/'));
    let row = |path: &str, hot: bool| Directory { hot, ..dir(path, &mount, 1e6, 0.0) };
    snapshot.dirs = vec![
        row(&at("one/two/three/hottest"), true),
        row(&mount, false),
        row(&at("one"), false),
        row(&at("one/two"), false),
        row(&at("one/two/three"), false),
        row(&at("one/two/three/hottest/leaf-7"), false),
        row(&at("other"), false),
        row(&at("other/far"), false),
    ];
    let frame = seen(snapshot, "3");
    assert!(frame.contains("hottest"), "{frame}");
    assert!(!frame.contains("leaf-7") && !frame.contains("far"), "{frame}");
}

/// Databases that would fail when the volume is full are listed below its victims.
#[test]
fn databases_on_the_volume_are_listed() {
    let mut snapshot = busy();
    let volume = snapshot.volumes[0].mount_point.clone();
    let group = Group {
        kind: GroupKind::Unit,
        name: "postgresql@15-main.service".to_owned(),
        ..Group::default()
    };
    let resident = |volume: &str, database: &str| Resident {
        group: group.clone(),
        volume: volume.to_owned(),
        processes: 2,
        files: 3,
        bytes: 1 << 24,
        largest: String::new(),
        databases: vec![database.to_owned()],
    };
    snapshot.residents = vec![resident(&volume, "PostgreSQL"), resident("/elsewhere", "etcd")];
    let frame = seen(snapshot, "6");
    assert!(
        frame.contains("PostgreSQL (unit postgresql@15-main.service) has data here"),
        "{frame}"
    );
    assert!(!frame.contains("etcd"), "{frame}");
}

#[test]
fn an_expanded_group_lists_its_processes() {
    let mut snapshot = busy();
    snapshot.writers[0].cmdline = Some("tar -cf /srv/backup/share.tar -C / usr/lib".to_owned());
    let text = seen(snapshot, "2E");
    assert!(text.contains("\n     2114 tar -cf"), "{text}");
    assert!(!text.contains("usr/lib"), "{text}");
}
