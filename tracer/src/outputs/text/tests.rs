use rstest::rstest;
use tracer_model::snapshot::{CountedBy, Gap, Moved};

use tracer_model::snapshot::Group;

use super::*;
use crate::fixtures;

fn at(width: usize) -> TextOptions {
    TextOptions { width, ..TextOptions::default() }
}

#[rstest]
#[case(40)]
#[case(80)]
#[case(120)]
fn a_busy_host(#[case] width: usize) {
    insta::assert_snapshot!(format!("busy_{width}"), snapshot(&fixtures::busy(), &at(width)));
}

#[test]
fn an_idle_host() {
    insta::assert_snapshot!(snapshot(&fixtures::idle(), &at(80)));
}

#[test]
fn colour_marks_the_danger() {
    let options = TextOptions { color: true, ..at(80) };
    insta::assert_snapshot!(snapshot(&fixtures::busy(), &options).replace('\x1b', "ESC"));
}

#[test]
fn held_files() {
    insta::assert_snapshot!(held(&fixtures::busy().held, &at(80)));
    assert_eq!(held(&[], &at(80)), "No deleted file is held open.\n");
}

/// As docker and as a service in a mount namespace of its own; beside them one of the host.
#[test]
fn files_that_containers_hold() {
    let mut files = fixtures::busy().held;
    let overlay =
        "/var/lib/docker/overlay2/4db378e0c11a40b1b5b5c5be1c0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d";
    files[0].path = format!("{overlay}/diff/data/e.log");
    files[0].path_in_container = Some("/data/e.log".to_owned());
    files[0].group =
        Some(Group { kind: "docker".to_owned(), name: "web-e".to_owned(), ..Group::default() });
    let of_the_host = Held { group: None, ..files[1].clone() };
    files[1].group = Some(Group {
        kind: "cgroup".to_owned(),
        name: "/jobs".to_owned(),
        mount_namespace: Some(7),
        ..Group::default()
    });
    files.push(of_the_host);
    insta::assert_snapshot!("held_by_containers_120", held(&files, &at(120)));
    insta::assert_snapshot!("held_by_containers_60", held(&files, &at(60)));
}

#[test]
fn no_line_is_too_long_and_no_name_gets_through() {
    let mut busy = fixtures::busy();
    busy.writers[0].cmdline = Some("x\x1b[2J\n日本".repeat(50));
    busy.volumes[0].mount_point = "/\u{202e}".repeat(40);
    for width in 20..200 {
        for charset in [Charset::Unicode, Charset::Ascii] {
            let options = TextOptions { charset, ..at(width) };
            let text = snapshot(&busy, &options);
            assert_eq!(charset == Charset::Ascii, text.is_ascii(), "{text}");
            for line in text.lines() {
                assert!(!line.contains(['\x1b', '\u{202e}']));
                // Below 40 columns the columns of rank 0 are cut where the line ends.
                assert!(sanitize::width(line) <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn what_is_left_out_is_summed_up() {
    let options = TextOptions { top: 1, ..at(80) };
    let text = snapshot(&fixtures::busy(), &options);
    assert!(text.contains("… and 3 more writers: 12.6 MiB/s"), "{text}");
    assert!(text.contains("… and 3 more files: 48.6 MiB/s"), "{text}");
    assert!(text.contains("… and 1 more held files: 88.0 MiB"), "{text}");
}

#[test]
fn what_is_not_seen_is_said_first_and_nobody_wrote_is_not_said() {
    let mut hidden = fixtures::idle();
    let volume = &mut hidden.volumes[0];
    volume.used_delta_bytes = 5 << 30;
    volume.gap = Some(Gap::NeedsSysAdmin);
    volume.counted_by = Some(CountedBy::VfsWrite);
    volume.blind = Moved::of(volume, 5.0).blind(volume.gap);
    volume.growth_bytes_per_s = f64::from(1 << 30);
    insta::assert_snapshot!(snapshot(&hidden, &at(80)));
}
