mod host;

use super::*;
use rstest::rstest;
use tracer_model::fixtures;
use tracer_model::snapshot::{CountedBy, Gap, Group, GroupKind, Pod, SpaceChange};

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

#[rstest]
#[case(80)]
#[case(100)]
#[case(120)]
fn a_host_of_containers(#[case] width: usize) {
    let text = snapshot(&host::containers(), &at(width));
    insta::assert_snapshot!(format!("containers_{width}"), text);
}

#[rstest]
#[case(80)]
#[case(120)]
fn groups_with_the_growth_charged_to_them(#[case] width: usize) {
    let options = TextOptions { by: By::Group, ..at(width) };
    let text = snapshot(&host::containers(), &options);
    insta::assert_snapshot!(format!("by_group_{width}"), text);
}

#[test]
fn a_narrow_table_has_groups_only_for_containers() {
    let text = |snapshot: &Snapshot, width| super::snapshot(snapshot, &at(width));
    assert!(!text(&fixtures::idle(), 120).contains("GROUP"), "nothing was written");
    let mut busy = fixtures::busy();
    busy.writers.retain(|writer| !writer.group.as_ref().is_some_and(Group::is_container));
    assert!(!text(&busy, 99).contains("GROUP"));
    assert!(text(&busy, 100).contains("minio.service"));
    let containers = host::containers();
    assert!(text(&containers, 80).contains("shop/"));
    assert!(!text(&containers, 80).contains("bash[5]"), "a session is of little use");
    assert!(text(&containers, 100).contains("bash[5]"));
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
    insta::assert_snapshot!(held(&fixtures::busy().held, None, &at(80)));
    assert_eq!(held(&[], None, &at(80)), "No deleted file is still open.\n");
    let some = Some(Missing::Processes(31));
    assert_eq!(
        held(&[], some, &at(120)),
        "No deleted file was found.\n\
         Could not inspect 31 processes: files that only they hold are missing here.\n"
    );
    let hidden = held(&[], Some(Missing::HiddenProcesses), &at(120));
    assert!(hidden.contains("inspect processes of other users or outside this PID namespace"));
}

/// Held by a docker container, by a service in a mount namespace of its own, and by a process of
/// the host.
#[test]
fn files_that_containers_hold() {
    let mut files = fixtures::busy().held;
    let overlay =
        "/var/lib/docker/overlay2/4db378e0c11a40b1b5b5c5be1c0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d";
    files[0].path = format!("{overlay}/diff/data/e.log");
    files[0].path_in_container = Some("/data/e.log".to_owned());
    files[0].group =
        Some(Group { kind: GroupKind::Docker, name: "web-e".to_owned(), ..Group::default() });
    let of_the_host = Held { group: None, ..files[1].clone() };
    files[1].group = Some(Group {
        kind: GroupKind::Cgroup,
        name: "/jobs".to_owned(),
        mount_namespace: Some(7),
        ..Group::default()
    });
    files.push(of_the_host);
    insta::assert_snapshot!("held_by_containers_120", held(&files, None, &at(120)));
    insta::assert_snapshot!("held_by_containers_60", held(&files, None, &at(60)));
}

#[test]
fn no_line_is_too_long_and_no_name_is_printed_unescaped() {
    let mut busy = fixtures::busy();
    busy.writers[0].cmdline = Some("x\x1b[2J\n日本".repeat(50));
    busy.volumes[0].mount_point = "/\u{202e}".repeat(40);
    let hostile = Group {
        kind: GroupKind::Docker,
        name: "x\x1b[2J\u{202e}".repeat(9),
        pod: Some(Pod { namespace: "\x1b".to_owned(), name: "\u{202e}".to_owned() }),
        ..Group::default()
    };
    busy.writers[1].group = Some(hostile.clone());
    let mut containers = host::containers();
    busy.writers[2].on_behalf_of = containers.writers[0].on_behalf_of.clone();
    busy.writers[2].on_behalf_of[0].group = hostile.clone();
    busy.paths[0].log_of = Some(hostile.clone());
    busy.paths[1].container = Some("\x1b]0;x\x07".to_owned());
    busy.paths[1].path_in_container = Some("/\u{202e}".to_owned());
    busy.volumes[1].label = Some("\x1b:/dev/shm".to_owned());
    busy.groups.append(&mut containers.groups);
    busy.groups[0].group = hostile;
    busy.groups[0].directory = Some("/\x1b".to_owned());
    for width in 20..200 {
        let charsets = [Charset::Unicode, Charset::Ascii];
        for (charset, by) in charsets.into_iter().flat_map(|c| [(c, By::Process), (c, By::Group)]) {
            let options = TextOptions { charset, by, ..at(width) };
            let text = snapshot(&busy, &options);
            assert_eq!(charset == Charset::Ascii, text.is_ascii(), "{text}");
            for line in text.lines() {
                assert!(!line.contains(['\x1b', '\u{202e}']));
                // On terminals narrower than 40 columns, columns of rank 0 are cut at the line end.
                assert!(sanitize::width(line) <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn omitted_rows_are_summed_up() {
    let options = TextOptions { top: 1, ..at(80) };
    let text = snapshot(&fixtures::busy(), &options);
    assert!(text.contains("… and 3 more writers: 12.6 MiB/s"), "{text}");
    assert!(text.contains("… and 3 more files: +48.6 MiB/s, 48.6 MiB/s written"), "{text}");
    assert!(text.contains("… and 1 more held file: 88.0 MiB"), "{text}");
}

#[test]
fn unseen_growth_is_reported_instead_of_nothing_was_written() {
    let mut hidden = fixtures::idle();
    let volume = &mut hidden.volumes[0];
    volume.used_delta_bytes = 5 << 30;
    volume.gap = Some(Gap::NeedsSysAdmin);
    volume.counted_by = Some(CountedBy::VfsWrite);
    volume.blind = SpaceChange::of(volume, 5.0).blind(volume.gap);
    volume.growth_bytes_per_s = f64::from(1 << 30);
    insta::assert_snapshot!(snapshot(&hidden, &at(80)));
}
