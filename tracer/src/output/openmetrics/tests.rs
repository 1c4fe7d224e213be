use std::sync::Arc;

use tracer_model::snapshot::Snapshot;

use super::families::render;
use super::*;
use tracer_model::fixtures;
use tracer_model::snapshot::GroupKind;

fn stats() -> ProcessStats {
    ProcessStats {
        cpu_s: 1.25,
        resident_bytes: Some(40 << 20),
        clients: 2,
        refused: 1,
        history_bytes: 1 << 20,
        history_s: 360.0,
    }
}

fn scrape(snapshot: Snapshot, format: Format) -> String {
    let metrics = Metrics::new(Totals::new(50, &["/srv/store/pg".to_owned()]));
    assert_eq!(metrics.text(&stats(), format), None, "no data before the first interval");
    metrics.add(Arc::new(snapshot));
    metrics.text(&stats(), format).unwrap()
}

#[test]
fn a_scrape_of_a_busy_host() {
    insta::assert_snapshot!(scrape(fixtures::busy(), Format::OpenMetrics));
}

#[test]
fn unknown_values_are_absent() {
    let text = scrape(fixtures::idle(), Format::Text);
    assert!(!text.contains("filltop_volume_time_to_full_seconds{volume=\"/\"}"), "{text}");
    assert!(!text.contains("filltop_volume_pace_to_full_seconds{volume=\"/\"}"), "{text}");
    assert!(!text.contains("filltop_volume_explained_ratio"), "{text}");
    let mut snapshot = fixtures::idle();
    snapshot.volumes[0].allocated_bytes = None;
    let text = scrape(snapshot, Format::Text);
    assert!(!text.contains("filltop_volume_allocated_bytes_total"), "{text}");
}

/// Names are untrusted: each line stays one line, with its quotes closed.
#[test]
fn hostile_names_stay_inside_their_labels() {
    let evil = "x\"} 666\nfilltop_volume_full{volume=\"/\"} 1\n# \\ \u{202e}\u{1b}[2J";
    let mut snapshot = fixtures::busy();
    for volume in &mut snapshot.volumes {
        evil.clone_into(&mut volume.device);
    }
    for writer in &mut snapshot.writers {
        writer.group = Some(tracer_model::snapshot::Group {
            kind: GroupKind::Docker,
            name: evil.to_owned(),
            ..Default::default()
        });
    }
    for format in [Format::Text, Format::OpenMetrics] {
        let plain = scrape(fixtures::busy(), format);
        let text = scrape(snapshot.clone(), format);
        let full = |text: &str| text.matches("\nfilltop_volume_full{").count();
        assert_eq!(full(&text), full(&plain), "{text}");
        assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.starts_with("filltop_") || series.starts_with("process_"), "{line}");
        }
    }
}

#[test]
fn no_series_is_repeated() {
    let mut snapshot = fixtures::busy();
    // Two mount points whose labels are equal when cut.
    for n in 0..2 {
        snapshot.volumes.push(fixtures::volume(&format!("/{}{n}", "long".repeat(100))));
    }
    // The same name in two cgroups.
    for writer in &mut snapshot.writers {
        if let Some(group) = &mut writer.group {
            "twice".clone_into(&mut group.name);
            group.cgroup = Some(format!("/{}", writer.pid));
        }
    }
    let text = scrape(snapshot, Format::Text);
    let mut series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    let count = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), count);
}

/// The bound documented in docs/metrics.md, on a host with too many of everything.
#[test]
fn the_number_of_series_is_bounded() {
    let mut snapshot = fixtures::idle();
    snapshot.volumes = (0..1000).map(|n| fixtures::volume(&format!("/v{n}"))).collect();
    snapshot.writers = (0..5000)
        .map(|n| fixtures::writer(n, &format!("w{n}"), &format!("/v{}", n % 300), u64::from(n)))
        .collect();
    let declared: Vec<String> = (0..1000).map(|n| format!("/v0/d{n}")).collect();
    let mut totals = Totals::new(50, &declared);
    for _ in 0..3 {
        totals.add(&snapshot);
    }
    let text = render(&snapshot, &totals, &stats(), Format::Text);
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    // 22 series per volume (two more if it has a verdict, and two if it is blind, which none here has
    // or is), 6 per group and as many for the rest of each volume, 3 per directory.
    assert!(series <= 256 * 22 + (50 + 256) * 6 + MAX_DIRECTORIES * 3 + 32, "{series}");
}
